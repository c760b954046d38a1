"""The memory plan: the formula, the three verdicts, and what is recommended instead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nomoat import hardware
from nomoat.catalog import cards, memory
from nomoat.cli import model_facts
from nomoat.errors import NotEnoughMemoryError
from nomoat.hardware import Detected


@pytest.fixture
def sixteen_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 GB, 10 of them free."""
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c"}))
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: Detected(10 * 10**9, "free"))
    monkeypatch.setattr(hardware, "memory_total_bytes", lambda: Detected(16 * 10**9, "memory of the machine"))


def need(model_id: str, context_tokens: int | None = None) -> memory.MemoryNeed:
    found = memory.memory_need(cards.card(model_id), context_tokens)
    assert found is not None
    return found


def have(monkeypatch: pytest.MonkeyPatch, *, free: int, own: int = 0, reason: str = "free") -> None:
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: Detected(free, reason))
    monkeypatch.setattr(hardware, "memory_of_this_process_bytes", lambda: own)


def shorter(tokens: int) -> str:
    return f" or a shorter context (NOMOAT_CONTEXT_TOKENS={tokens}, or `-c {tokens}` where you gave one, in Python: `context_tokens`)"


PLANNED = memory.MemoryNeed(
    weights_bytes=100_000_000, scoring_bytes=0, scoring_token_bytes=0, kv_cache_bytes=48_000_000, most_cache_bytes=48_000_000,
    overhead_bytes=400_000_000, context_tokens=4096, note="",
)  # fmt: skip


def test_what_this_process_has_of_the_overhead_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what it has beyond that, as the weights of other models."""
    for own, free in ((75_000_000, 473_000_000), (900_000_000, 448_000_000)):
        have(monkeypatch, free=free, own=own)
        memory.require_room("m", PLANNED)
        have(monkeypatch, free=free - 1, own=own)
        with pytest.raises(NotEnoughMemoryError):
            memory.require_room("m", PLANNED)


def test_choosing_among_answers_has_to_fit_beside_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = replace(PLANNED, scoring_bytes=1_000_000_000, scoring_token_bytes=100_000)
    assert scored.scoring(2000) == 1_200_000_000
    have(monkeypatch, free=1_748_000_000)
    memory.require_room("m", scored, scoring_bytes=scored.scoring(2000))
    have(monkeypatch, free=1_730_000_000)
    with pytest.raises(NotEnoughMemoryError) as caught:
        memory.require_room("m", scored, scoring_bytes=scored.scoring(2000))
    assert caught.value.message == (
        "`m` needs about 1.75 GB of memory at a context of 4,096 tokens, 1.20 GB of it to choose among answers by their likelihood, "
        "and there are 1.73 GB for it (free)"
    )
    assert caught.value.hint == f"{memory.SMALLER}{shorter(2048)}, or close other programs"


@pytest.mark.parametrize(
    ("free", "reason", "hint"),
    [
        (530_000_000, "free", f"{shorter(2048)}, or close other programs"),
        (512_000_001, "free", f"{shorter(1024)}, or close other programs"),
        (505_000_000, "free", ", or close other programs"),  # 512 tokens take one more
        (505_000_000, "left within the container's limit", ", or raise the container's limit by 0.05 GB"),
    ],
)
def test_a_hint_names_what_would_do(free: int, reason: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, free=free, reason=reason)
    with pytest.raises(NotEnoughMemoryError) as caught:
        memory.require_room("m", PLANNED)
    shown = f"{free / 1e9:.2f}" if free < 520_000_000 else "0.53"
    there = f"there are {shown} GB for it ({reason})"
    assert caught.value.message == f"`m` needs about 0.55 GB of memory at a context of 4,096 tokens, and {there}"
    assert caught.value.hint == f"choose a smaller model (`nomoat models --fits`){hint}"


BOTH = "(in Python: `memory_bytes`, `context_tokens`)"
OF_THE_CONTAINER = (
    "choose a smaller model (`nomoat models --fits`), or raise the container's limit by 0.05 GB and give more with `--memory 0.55` "
    "(in Python: `memory_bytes`)"
)


@pytest.mark.parametrize(
    ("budget", "free", "hint"),
    [
        (430_000_000, 10**10, "give more with `--memory 0.55` (in Python: `memory_bytes`)"),
        (530_000_000, 10**10, f"give more with `--memory 0.55`, or shorten the context with `-c 2048` {BOTH}"),
        (530_000_000, 540_000_000, "shorten the context with `-c 2048` (in Python: `context_tokens`)"),
        (430_000_000, 540_000_000, f"give more with `--memory 0.53`, and shorten the context with `-c 2048` {BOTH}"),
        (430_000_000, 500_000_000, OF_THE_CONTAINER),
    ],
)
def test_a_hint_of_a_budget_names_no_more_than_there_is(budget: int, free: int, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, free=free, reason="left within the container's limit")
    with pytest.raises(NotEnoughMemoryError) as caught:
        memory.require_budget("m", PLANNED, budget)
    assert caught.value.hint == hint
    have(monkeypatch, free=free + 50_000_000, reason="left within the container's limit")
    memory.require_budget("m", PLANNED, 550_000_000)


def test_a_shorter_context_that_a_hint_names_is_one_where_there_is_no_option_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = memory.ModelSizes(parameters=100_000_000, weights_bytes=100_000_000, layers=30, kv_heads=3, head_dim=64)
    have(monkeypatch, free=memory.need_at(sizes).at(2048))
    with pytest.raises(NotEnoughMemoryError) as caught:
        memory.require_room("m", memory.need_at(sizes))
    assert caught.value.hint is not None and shorter(2048) in caught.value.hint
    monkeypatch.setenv("NOMOAT_CONTEXT_TOKENS", "2048")
    memory.require_room("m", memory.need_at(sizes))


def test_a_7b_model_takes_a_byte_a_parameter_and_half_a_megabyte_a_token() -> None:
    found = memory.need_at(memory.ModelSizes(parameters=6_740_000_000, layers=32, kv_heads=32, head_dim=128), 1000)
    assert found.weights_bytes == round(1.05 * 6.74e9)
    assert found.kv_cache_bytes == 1000 * 2 * 2 * 32 * 32 * 128
    assert found.total_bytes == found.weights_bytes + found.kv_cache_bytes + 400_000_000
    assert str(found).startswith("about 8.0 GB: weights 7.08 + KV cache 0.52 (1,000 tokens) + overhead 0.40 (estimate")


def test_a_4_bit_file_of_a_large_model_keeps_its_own_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c"}))
    for count, per_weight, note in ((6.74e9, 0.64, "the file's own codes in memory"), (1.5e9, 0.64, "the file's own codes in memory"),
                                    (0.5e9, 1.05, "int8 in memory")):  # fmt: skip
        found = memory.need_at(memory.ModelSizes(parameters=int(count), four_bits=True), 1000)
        assert (found.weights_bytes, found.note.split(",")[0]) == (round(per_weight * count), f"estimate: {note}")


def test_a_small_4_bit_file_of_a_usual_family_keeps_its_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c", "amx_bf16"}))
    found = need("smollm2-135m")
    assert found.weights_bytes == 98_362_432
    assert found.note.startswith("estimate: the file's own codes in memory")


def test_a_file_of_a_usual_family_keeps_its_codes_whatever_their_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """smollm2-360m is a Q6_K file of no known size: it takes 8 bits at most."""
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c", "amx_bf16"}))
    found = need("smollm2-360m")
    assert found.weights_bytes == 34 * 362_000_000 // 32
    assert found.note == "estimate: the file's own codes in memory, at most 8 bits"
    sizes = memory.ModelSizes(parameters=362_000_000, file_bytes=300_000_000, architecture="llama")
    for file_bytes, kept in ((300_000_000, 300_000_000), (800_000_000, 34 * 362_000_000 // 32)):
        of_known_size = memory.need_at(replace(sizes, file_bytes=file_bytes), 1000)
        assert (of_known_size.weights_bytes, of_known_size.note.split(",")[0]) == (kept, "estimate: the file's own codes in memory")


@pytest.mark.parametrize(("quality", "architecture"), [("high", "llama"), ("default", "falcon")])
def test_a_file_of_more_bits_becomes_int8_at_other_qualities_and_in_other_families(
    quality: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c"}))
    monkeypatch.setenv("NOMOAT_QUALITY", quality)
    sizes = memory.ModelSizes(parameters=7_000_000_000, file_bytes=5_000_000_000, architecture=architecture)
    found = memory.need_at(sizes, 1000)
    assert found.note.startswith("estimate: int8 in memory")


def test_file_names_say_which_have_at_most_4_bits() -> None:
    few = ["m.Q2_K.gguf", "m-q3_k_m.gguf", "m-q4_0.gguf", "m.Q4_K_S.gguf", "m-IQ4_XS.gguf", "m-IQ4_NL.gguf"]
    more = ["m-Q5_K_M.gguf", "m.Q5_1.gguf", "m-Q6_K.gguf", "m-q8_0.gguf", "m-f16.gguf"]
    assert [bool(memory.FOUR_BIT_FILE.search(name)) for name in (*few, *more)] == [True] * len(few) + [False] * len(more)


def test_without_the_instructions_a_4_bit_file_becomes_int8_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"sse2"}))
    found = memory.need_at(memory.ModelSizes(parameters=6_740_000_000, four_bits=True), 1000)
    assert (found.weights_bytes, found.note.split(",")[0]) == (round(1.05 * 6.74e9), "estimate: int8 in memory")


@pytest.mark.parametrize("four_bits", [True, False])
def test_small_quality_has_4_bits_in_part_whatever_the_file(four_bits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_QUALITY", "small")
    monkeypatch.setattr(hardware, "cpu_flags", frozenset[str])
    found = memory.need_at(memory.ModelSizes(parameters=6_740_000_000, four_bits=four_bits), 1000)
    assert (found.weights_bytes, found.note.split(",")[0]) == (round(0.8 * 6.74e9), "estimate: 4 bits in memory")


def test_small_quality_keeps_a_4_bit_file_s_own_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_QUALITY", "small")
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c"}))
    assert need("smollm2-135m").weights_bytes == 98_362_432
    gpt2 = memory.ModelSizes(parameters=124_000_000, four_bits=True, file_bytes=80_000_000, architecture="gpt2")
    assert memory.need_at(gpt2, 1000).weights_bytes == 80_000_000


def test_what_is_known_of_a_file_is_not_estimated() -> None:
    found = memory.need_at(memory.ModelSizes(parameters=1000, weights_bytes=777, layers=1, kv_heads=1, head_dim=1), 10)
    assert (found.weights_bytes, found.note) == (777, "weights as they are stored here")


@pytest.mark.usefixtures("sixteen_gb")
def test_choosing_among_answers_takes_float32_twice_up_to_a_quarter_of_all_memory() -> None:
    assert need("smollm2-135m").scoring_bytes == 8 * 135_000_000
    assert need("qwen2.5-0.5b").scoring_bytes == 8 * 494_000_000


@pytest.mark.usefixtures("sixteen_gb")
def test_choosing_has_keys_and_values_of_its_own_in_float32_or_16_bits_whatever_answers_have() -> None:
    exact, served = need("smollm2-135m"), need("qwen2.5-7b")
    assert exact.scoring_token_bytes == memory.SCORING_COPIES * 30 * 3 * 64 * 2 * 4
    assert served.scoring_token_bytes == memory.SCORING_COPIES * 28 * 4 * 128 * 2 * 2
    said = "1.08 GB more; and 0.28 GB for each 1,000 tokens of the longest question"
    assert model_facts.scoring_line(exact) == f"memory to choose among answers by their likelihood: {said}"


@pytest.mark.usefixtures("sixteen_gb")
@pytest.mark.parametrize("keeps_codes", [True, False])
def test_choosing_beyond_that_reads_a_file_s_codes_where_they_are_and_other_forms_once_more(keeps_codes: bool) -> None:
    sizes = memory.ModelSizes(parameters=7_000_000_000, weights_bytes=4_310_000_000, keeps_codes=keeps_codes)
    found = memory.need_at(sizes, 4096)
    assert found.scoring_bytes == (0 if keeps_codes else 4_310_000_000)
    more = "no more, the weights are read where they are" if keeps_codes else "4.31 GB more"
    assert model_facts.scoring_line(found).startswith(f"memory to choose among answers by their likelihood: {more}; and ")


def test_grouped_query_attention_needs_a_smaller_cache() -> None:
    assert need("llama2-70b", 2048).kv_cache_bytes * 32 * 32 == need("llama-7b", 2048).kv_cache_bytes * 80 * 8
    # biases make single columns of Qwen2's keys large: 16 bits
    assert need("qwen2.5-7b", 2048).kv_cache_bytes == 2048 * 28 * 4 * (128 * (2 + 1) + 2 * 4)
    assert need("openllama-3b", 2048).kv_cache_bytes == 2048 * 26 * 32 * 2 * 2 * 100  # heads that our own passes do not take


def test_an_unknown_shape_is_guessed_from_the_parameters_and_says_so() -> None:
    guessed = memory.need_at(memory.ModelSizes(parameters=6_740_000_000), 1000)
    assert guessed.kv_cache_bytes == 1000 * 2 * 2 * 32 * 32 * 128  # as LLaMA 7B's in 16 bits
    assert "guessed from the number of parameters" in guessed.note


def test_the_context_is_4096_unless_the_model_or_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert need("smollm2-135m").context_tokens == 4096
    assert need("llama-7b").context_tokens == 2048
    monkeypatch.setenv("NOMOAT_CONTEXT_TOKENS", "512")
    assert need("llama-7b").context_tokens == 512


def test_no_more_is_planned_than_the_model_has_whatever_is_asked_for() -> None:
    assert need("smollm2-135m", 65_536) == need("smollm2-135m", 8192)
    assert need("smollm2-135m", 65_536).context_tokens == 8192


def test_a_model_that_does_not_say_its_context_is_planned_at_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = memory.ModelSizes(parameters=135_000_000)
    assert (memory.need_at(sizes).context_tokens, memory.need_at(sizes, 65_536).context_tokens) == (4096, 65_536)
    monkeypatch.setenv("NOMOAT_CONTEXT_TOKENS", "10000")
    assert memory.need_at(sizes).context_tokens == 10_000


def test_a_closed_model_needs_nothing_here() -> None:
    assert memory.memory_need(cards.card("gpt-4")) is None


@pytest.mark.usefixtures("sixteen_gb")
@pytest.mark.parametrize(
    ("model_id", "verdict", "reason"),
    [
        ("smollm2-135m", "fits", "10.0 GB are free (free)"),
        ("openllama-7b", "fits", "10.0 GB are free (free)"),
        ("llama2-13b", "tight", "10.0 of 16.0 GB are free: close other programs"),
        ("falcon-40b", "does not fit", "there are 16.0 GB (memory of the machine)"),
    ],
)
def test_fit(model_id: str, verdict: str, reason: str) -> None:
    assert memory.fit(need(model_id)) == Detected(verdict, reason)


@pytest.mark.usefixtures("sixteen_gb")
def test_what_is_tight_in_a_container_is_a_matter_of_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, free=10 * 10**9, reason="left within the container's limit")
    assert memory.fit(need("llama2-13b")).reason == "10.0 of 16.0 GB are free: raise the container's limit"


@pytest.mark.usefixtures("sixteen_gb")
def test_what_does_not_fit_names_the_largest_that_does() -> None:
    with pytest.raises(NotEnoughMemoryError) as failed:
        memory.require_fit("falcon-40b", need("falcon-40b"))
    there = "15.2 GB for it, 95 % of all (memory of the machine)"
    assert failed.value.message == f"`falcon-40b` needs about 27.1 GB of memory, and there are {there}"
    assert failed.value.hint == "try `qwen3-8b`, or `nomoat pull falcon-40b --force` if you know better"
    just_too_much = replace(need("falcon-40b"), weights_bytes=15_500_000_000, kv_cache_bytes=0, overhead_bytes=0)
    with pytest.raises(NotEnoughMemoryError, match=r"needs about 15\.5 GB of memory, and there are 15\.2 GB for it"):
        memory.require_fit("falcon-40b", just_too_much)


def test_the_cache_may_grow_to_a_whole_context_and_to_two_gigabytes_of_many_texts() -> None:
    small = memory.need_at(memory.ModelSizes(parameters=10**8, layers=30, kv_heads=3, head_dim=64, context_tokens=8192))
    large = memory.need_at(memory.ModelSizes(parameters=10**10, layers=32, kv_heads=8, head_dim=128, context_tokens=131_072))
    assert (small.most_cache_bytes, large.most_cache_bytes) == (2**31, 131_072 * 131_072)
    assert need("smollm2-135m", 1024).most_cache_bytes == 2**31
    assert small.cache_within(0) == small.kv_cache_bytes == 4096 * 23_040
    assert small.cache_within(small.total_bytes + 1000) == small.kv_cache_bytes + 1000
    assert small.cache_within(10**12) == 2**31
