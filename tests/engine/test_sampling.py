"""Choosing tokens: what each setting does to the chances, and that log-probabilities are the model's own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nomoat.engine.sampling import CANDIDATES, Sampler, largest, with_log_probability
from nomoat.errors import BadFileError
from nomoat.records import Request

# chances 0.5, 0.25, 0.125, 0.0625, 0.0625
LOGITS = np.log(np.array([0.5, 0.25, 0.125, 0.0625, 0.0625], np.float32))


def shares(logits: np.ndarray = LOGITS, *, draws: int = 4000, **settings: object) -> dict[int, float]:
    """How often each token is drawn; the standard error of a share is at most 0.008."""
    sampler = Sampler(Request(prompt="x", **{"temperature": 1.0, "seed": 1, **settings}), [])  # type: ignore[arg-type]
    counts = Counter(sampler.pick(logits).token for _ in range(draws))
    return {token: count / draws for token, count in sorted(counts.items())}


def test_temperature_one_draws_with_the_models_own_chances() -> None:
    """0.04 is five standard errors."""
    found = shares()
    for token, chance in enumerate(np.exp(LOGITS)):
        assert found[token] == pytest.approx(float(chance), abs=0.04)


@pytest.mark.parametrize("size", [64, 71])  # whole groups, and some tokens beside them
def test_a_large_vocabulary_is_drawn_from_with_its_chances(size: int) -> None:
    logits = np.full(size, -np.inf, np.float32)  # as a schema forbids tokens
    places = [0, 3, 19, 35, size - 1]  # three of them share a group
    logits[places] = LOGITS
    found = shares(logits)
    assert list(found) == sorted(places)
    assert list(found.values()) == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.0625], abs=0.04)


def test_what_comes_behind_the_tokens_is_no_choice_and_counts_in_likelihoods() -> None:
    asked = Request(prompt="x", temperature=0, top_logprobs=1, repetition_penalty=1.1)
    found = Sampler(asked, [4], num_tokens=3).pick(LOGITS[::-1])
    assert (found.token, found.log_probability) == (2, pytest.approx(float(np.log(0.125)))) and found.top[0][0] == 4
    drawn = Sampler(Request(prompt="x", temperature=1.0, seed=1), [], num_tokens=3)
    assert {drawn.pick(LOGITS[::-1]).token for _ in range(200)} == {0, 1, 2}


def test_a_lower_temperature_sharpens_and_zero_takes_the_likeliest() -> None:
    assert shares(temperature=0.5)[0] == pytest.approx(0.25 / (0.25 + 0.0625 + 0.015625 + 2 * 0.00390625), abs=0.04)
    assert shares(temperature=0.0, draws=3) == {0: 1.0}


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"top_k": 2}, [0, 1]), ({"top_p": 0.7}, [0, 1]), ({"top_p": 0}, [0]), ({"top_p": 0.76}, [0, 1, 2]), ({"min_p": 0.3}, [0, 1]),
        ({"min_p": 0.2}, [0, 1, 2]), ({"top_k": 3, "top_p": 0.5}, [0]), ({"top_k": 4, "min_p": 0.2}, [0, 1, 2]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
    ],
)  # fmt: skip
def test_what_is_left_to_draw_from(settings: dict[str, object], left: list[int]) -> None:
    """A token with a chance of 1/16 is missing from 4,000 draws once in 10 to the 112."""
    assert list(shares(**settings)) == left


def test_top_p_over_a_flat_vocabulary_takes_more_than_the_first_candidates() -> None:
    flat = np.zeros(CANDIDATES * 20, np.float32)
    found = shares(flat, draws=300, top_p=0.5)
    assert len(found) > 250  # 300 draws from half of 20,480


def test_the_repetition_penalty_counts_prompt_and_answer_and_works_on_both_signs() -> None:
    logits = np.array([2.0, 1.9, -0.5, -0.6], np.float32)
    sampler = Sampler(Request(prompt="x", repetition_penalty=1.5), [0])
    assert [sampler.pick(logits).token for _ in range(2)] == [1, 0]  # 2.0 / 1.5 < 1.9; then 1.9 / 1.5 < 2.0 / 1.5
    negative = Sampler(Request(prompt="x", repetition_penalty=2.0), [0])
    assert negative.pick(np.array([-0.5, -0.6], np.float32)).token == 1  # -0.5 * 2 < -0.6


def test_presence_and_frequency_penalties_count_the_answer_only() -> None:
    logits = np.array([1.0, 0.75, 0.0], np.float32)
    presence = Sampler(Request(prompt="x", presence_penalty=0.5), [0, 0, 0])
    assert [presence.pick(logits).token for _ in range(4)] == [0, 1, 0, 0]
    frequency = Sampler(Request(prompt="x", frequency_penalty=0.5), [0, 0, 0])
    assert [frequency.pick(logits).token for _ in range(5)] == [0, 1, 0, 1, 0]


def test_log_probabilities_are_the_models_own_whatever_the_settings() -> None:
    sampler = Sampler(Request(prompt="x", temperature=0.3, top_k=1, repetition_penalty=1.2, top_logprobs=2), [1])
    pick = sampler.pick(LOGITS)
    assert pick.token == 0
    assert pick.log_probability == pytest.approx(np.log(0.5), abs=1e-6)
    assert [token for token, _ in pick.top] == [0, 1]
    assert [value for _, value in pick.top] == pytest.approx([np.log(0.5), np.log(0.25)], abs=1e-6)


def test_log_probabilities_of_large_logits_do_not_overflow() -> None:
    pick = with_log_probability(np.array([900.0, 890.0], np.float32), 1, 0)
    assert pick.log_probability == pytest.approx(-10.0, abs=1e-3) and pick.top == ()


@pytest.mark.parametrize("temperature", [1e-40, 1e-30, 1e-9])
def test_the_coldest_temperature_takes_the_likeliest(temperature: float) -> None:
    logits = np.array([3.0, 90.0, -np.inf, 89.0] * 20, np.float32)
    assert set(shares(logits, draws=50, temperature=temperature)) <= {*range(1, 80, 4)}
    assert shares(LOGITS * 100, draws=50, temperature=temperature, top_k=3, top_p=0.9, min_p=0.1) == {0: 1.0}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error_and_no_token(temperature: float, strange: float) -> None:
    logits = np.array([1.0, strange, 2.0], np.float32)
    with pytest.raises(BadFileError, match="the model's logits for this text are no numbers"):
        shares(logits, draws=1, temperature=temperature)
    with pytest.raises(BadFileError, match="the model's logits for this text are no numbers"):
        with_log_probability(logits, 0, 0)


def test_the_same_seed_draws_the_same_and_no_seed_does_not() -> None:
    """Twenty draws of one of 264 equally likely tokens agree by chance less than once in 10 to the 48."""
    flat = np.zeros(264, np.float32)

    def drawn(seed: int | None) -> list[int]:
        sampler = Sampler(Request(prompt="x", temperature=1.0, seed=seed), [])
        return [sampler.pick(flat).token for _ in range(20)]

    assert drawn(5) == drawn(5) != drawn(6)
    assert drawn(None) != drawn(None)


def test_the_logits_are_left_as_they_were() -> None:
    before = LOGITS.copy()
    shares(draws=5, repetition_penalty=1.5, presence_penalty=1.0, top_p=0.5)
    assert (before == LOGITS).all()


@pytest.mark.parametrize("count", [1, 5, 64, 1024])
@pytest.mark.parametrize("size", [1024, 5_000, 100_003])
def test_the_largest_of_many_are_found_among_few(size: int, count: int) -> None:
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    values[::7] = -np.inf  # as a schema forbids tokens
    assert set(largest(values, count)) == set(np.argsort(-values)[:count]) or count == size
    assert len(set(largest(np.zeros(size, np.float32), count))) == count
