"""Which text's keys and values lie in which block of the cache, and which texts share one.

A full block is kept under the digest of all tokens up to its end, so that the next text that begins the same way need not read them
again. Blocks nobody uses are given away again in this order: those whose content is of no use, those never used, the longest unused.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

BLOCK_TOKENS = 32  # what OpenVINO's CPU plugin reads at a time


class BlockPool:
    """The blocks of one model's cache. Not thread-safe."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.num_touched = 0  # blocks that were ever used: they are memory from then on
        self._free: list[int] = []
        self._idle: OrderedDict[int, None] = OrderedDict()  # kept, and used by nobody; the longest unused first
        self._users = [0] * num_blocks
        self._kept: dict[bytes, int] = {}
        self._digests: dict[int, bytes] = {}

    @property
    def num_free(self) -> int:
        """Blocks that could be had now."""
        return len(self._free) + self.num_blocks - self.num_touched + len(self._idle)

    def beginning(self, ids: Sequence[int], salt: bytes, unread: int = 1) -> tuple[list[int], list[bytes]]:
        """The kept blocks that hold the beginning of these tokens, now used once more, and their digests.

        The last `unread` tokens are never among them: the last one's logits are what is asked for. `salt` tells apart what the same
        tokens mean to different adapters.
        """
        blocks: list[int] = []
        digests: list[bytes] = []
        while (len(blocks) + 1) * BLOCK_TOKENS <= len(ids) - unread:
            digest = _digest_behind(digests, ids, salt)
            block = self._kept.get(digest)
            if block is None:
                break
            self._idle.pop(block, None)
            self._users[block] += 1
            blocks.append(block)
            digests.append(digest)
        return blocks, digests

    def following(self, digests: Sequence[bytes], ids: Sequence[int], salt: bytes) -> int | None:
        """The kept block that holds the tokens behind those of `digests`, if there is one. It is not used by that."""
        return self._kept.get(_digest_behind(digests, ids, salt))

    def extend(self, blocks: list[int], num_tokens: int) -> bool:
        """Give a text the blocks it needs for `num_tokens` tokens in all. False, and nothing given, if there are not that many."""
        missing = -(-num_tokens // BLOCK_TOKENS) - len(blocks)
        if missing > self.num_free:
            return False
        for _ in range(missing):
            block = self._take()
            self._users[block] = 1
            blocks.append(block)
        return True

    def keep(self, blocks: Sequence[int], digests: list[bytes], ids: Sequence[int], done: int, salt: bytes) -> None:
        """Note the content of the blocks that are full now. `digests` are those noted before, and grow."""
        while (len(digests) + 1) * BLOCK_TOKENS <= done:
            digest = _digest_behind(digests, ids, salt)
            block = blocks[len(digests)]
            digests.append(digest)
            if digest not in self._kept:  # else two texts have read the same at the same time
                self._kept[digest] = block
                self._digests[block] = digest

    def release(self, blocks: list[int]) -> None:
        """A text has ended: its blocks are free, or kept for the next one; the last is given away first: it builds on the rest."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block] == 0:
                if block in self._digests:
                    self._idle[block] = None
                else:
                    self._free.append(block)
        blocks.clear()

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if self.num_touched < self.num_blocks:
            self.num_touched += 1
            return self.num_touched - 1
        block, _ = self._idle.popitem(last=False)
        del self._kept[self._digests.pop(block)]
        return block


def _digest_behind(digests: Sequence[bytes], ids: Sequence[int], salt: bytes) -> bytes:
    """That of the block after those whose digests these are."""
    before, start = digests[-1] if digests else salt, len(digests) * BLOCK_TOKENS
    tokens = np.asarray(ids[start : start + BLOCK_TOKENS], np.int64).tobytes()
    return hashlib.blake2b(before + tokens, digest_size=16).digest()
