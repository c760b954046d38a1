"""An answer's tokens -> its text, while they come."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import Tokenizer

LONGEST_CHARACTER = 4  # bytes
BROKEN = "\ufffd"  # what stands for bytes that are no text, and for the beginning of a character


class DecodeStream:
    """Gives out text as soon as it is certain: never half a Korean syllable or half an emoji. Bytes that are no text become `BROKEN`.

    A token's text depends on what stands before it: SentencePiece's first word of a text loses its space. So tokens are decoded behind
    those whose text was given out last. `tokenizers` has such a stream, too; it fails for good at bytes that are no text.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._given = self._end_of(before)
        self._ids: list[int] = []  # whose text is not given out yet

    def push(self, token_id: int) -> str:
        """The text that this token makes certain; may be empty."""
        self._ids.append(token_id)
        count, text = len(self._ids), self._text(self._ids)
        if not text or text.endswith(BROKEN):
            count, text = self._certain(text)
        if count:
            self._given, self._ids = self._ids[:count], self._ids[count:]
        return text

    def finish(self, *, is_cut: bool = False) -> str:
        """What was still held back: bytes that never became a character. Where the answer was cut, without the beginning of one."""
        text = self._text(self._ids)
        if not (is_cut and text.endswith(BROKEN)):
            return text
        begun = self._num_begun()  # one `BROKEN` stands for it, or one for each byte
        return text.removesuffix(BROKEN * (min(begun, 1) if self._tokenizer.is_byte_level else begun))

    def _certain(self, text: str) -> tuple[int, str]:
        """Of the tokens that are held, whose `text` may go on in the newest ones: how many it cannot, and their text.

        Where none of them is text no more are held than a character may have, and all are decoded again at each token.
        """
        if self._leaves_nothing(self._ids[-1]):
            self._ids.pop()
        if len(self._ids) <= LONGEST_CHARACTER:
            return 0, ""
        most = len(self._ids) - self._num_begun()  # a token has a byte or more
        parts = ((count, self._text(self._ids[:count])) for count in range(most, most - LONGEST_CHARACTER, -1))
        return next(((count, part) for count, part in parts if text.startswith(part)), (0, ""))

    def _leaves_nothing(self, token_id: int) -> bool:
        """Of control tokens and numbers that are no token; a space may leave nothing only where it begins a text."""
        return not self._tokenizer.decode([token_id]) and not self._tokenizer.token_bytes(token_id).isspace()

    def _num_begun(self) -> int:
        """Bytes at the end that are the beginning of a character."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(b"".join(self._tokenizer.token_bytes(token_id) for token_id in self._ids))
        begun, _ = decoder.getstate()
        return len(begun)

    def _text(self, ids: Sequence[int]) -> str:
        before, whole = self._tokenizer.decode(self._given), self._tokenizer.decode([*self._given, *ids])
        # Bytes that are no text break the whole run of single bytes they stand in, what was given out included.
        return whole[len(before) :] if whole.startswith(before) else self._tokenizer.decode(ids)

    def _end_of(self, ids: Sequence[int]) -> list[int]:
        """The last of these tokens, so few as are a text of whole characters."""
        size = 1
        while size < len(ids) and ((text := self._tokenizer.decode(ids[-size:])) == "" or BROKEN in text):
            size *= 2
        return list(ids[-size:])
