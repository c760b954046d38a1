"""The cache's blocks: shared beginnings, order of reuse, and nothing lost."""

from __future__ import annotations

from nomoat.engine.blocks import BLOCK_TOKENS, BlockPool


def read(pool: BlockPool, ids: list[int], salt: bytes = b"") -> tuple[list[int], int]:
    """A text that is read whole: its blocks, and how many tokens were there already."""
    blocks, digests = pool.beginning(ids, salt)
    there = len(blocks) * BLOCK_TOKENS
    assert pool.extend(blocks, len(ids))
    pool.keep(blocks, digests, ids, len(ids), salt)
    return blocks, there


def test_a_second_text_with_the_same_beginning_shares_its_blocks() -> None:
    pool = BlockPool(10)
    first, there = read(pool, [*range(2 * BLOCK_TOKENS), 7])
    assert there == 0 and len(first) == 3
    second, there = read(pool, [*range(2 * BLOCK_TOKENS), 8, 9])
    assert there == 2 * BLOCK_TOKENS and second[:2] == first[:2] and second[2] != first[2]
    assert pool.num_free == 10 - 4


def test_the_last_token_is_always_read_again() -> None:
    pool = BlockPool(10)
    pool.release(read(pool, list(range(2 * BLOCK_TOKENS)))[0])
    assert read(pool, list(range(2 * BLOCK_TOKENS)))[1] == BLOCK_TOKENS


def test_another_salt_means_other_content() -> None:
    pool = BlockPool(10)
    ids = list(range(BLOCK_TOKENS + 1))
    read(pool, ids, b"one")
    assert read(pool, ids, b"two")[1] == 0 and read(pool, ids, b"one")[1] == BLOCK_TOKENS


def test_the_same_tokens_after_others_are_another_block() -> None:
    pool = BlockPool(10)
    same = list(range(BLOCK_TOKENS))
    read(pool, [*same, *same, 1])
    assert read(pool, [*([5] * BLOCK_TOKENS), *same, 1])[1] == 0


def test_full_blocks_outlive_their_text_until_the_room_is_needed_and_the_longest_unused_goes_first() -> None:
    pool = BlockPool(4)
    old, new = [1] * BLOCK_TOKENS, [2] * BLOCK_TOKENS
    for ids in (old, new):
        pool.release(read(pool, [*ids, 0])[0])
    assert pool.num_free == 4
    pool.release(read(pool, [3] * (3 * BLOCK_TOKENS))[0])  # takes the free ones and the oldest
    assert read(pool, [*old, 0])[1] == 0
    assert pool.num_free == 2


def test_a_text_that_does_not_fit_gets_nothing() -> None:
    pool = BlockPool(2)
    blocks: list[int] = []
    assert not pool.extend(blocks, 3 * BLOCK_TOKENS)
    assert blocks == [] and pool.num_free == 2
    assert pool.extend(blocks, 2 * BLOCK_TOKENS) and pool.num_free == 0
    pool.release(blocks)
    assert pool.num_free == 2 and blocks == []


def test_memory_that_was_used_before_is_used_again_before_new() -> None:
    pool = BlockPool(100)
    for _ in range(5):
        blocks: list[int] = []
        pool.extend(blocks, BLOCK_TOKENS - 1)
        assert blocks == [0]
        pool.release(blocks)
