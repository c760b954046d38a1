"""Likelihoods of continuations, read as a tree, against each whole text read alone by the reference implementation."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from reference import CASES, CONTEXT, CONTINUATIONS, EXACT, RANDOM, WINDOW, make_model, reference_values, write_gguf
from tiny import write_adapter, write_tiny_gguf

from nomoat import hardware, matching
from nomoat.engine import continuations, importer, likelihood
from nomoat.engine.continuations import Question, Tree
from nomoat.engine.likelihood import PART_TOKENS, PROMPT_PART_TOKENS, Scorer
from nomoat.engine.local import LocalEngine
from nomoat.engine.tokenizer import Tokenizer
from nomoat.errors import ContextExceededError, NomoatError, NotEnoughMemoryError, StoppedError, UnsupportedError, UsageError
from nomoat.hardware import Detected
from nomoat.records import ContinuationScore, Message, Request


@pytest.fixture
def engine(tiny_gguf: Path) -> Iterator[LocalEngine]:
    made = LocalEngine(importer.import_gguf(tiny_gguf), weights=tiny_gguf)
    yield made
    made.close()


@pytest.fixture
def scorer(tiny_gguf: Path) -> Scorer:
    return Scorer(importer.exact_model(tiny_gguf), EXACT)


def scores_of(scorer: Scorer, prompt: list[int], rows: list[list[int]]) -> list[ContinuationScore]:
    return scorer.score_many([Question(prompt, rows)])[0]


def values(scorer: Scorer, prompt: list[int], rows: list[list[int]]) -> list[float]:
    return [score.log_probability for score in scores_of(scorer, prompt, rows)]


@pytest.mark.parametrize("name", CASES)
def test_every_architecture_s_likelihoods_equal_the_reference_within_a_thousandth(name: str, tmp_path: Path) -> None:
    """Prompts of one token, past the window, and of more than one part."""
    model = make_model(CASES[name])
    scorer = Scorer(importer.exact_model(write_gguf(tmp_path / "model.gguf", CASES[name], model)), EXACT)
    for length in (1, WINDOW + 9, likelihood.PROMPT_PART_TOKENS + 30):
        if name == "phi3, LongRoPE" and length > WINDOW + 9:
            continue  # beyond its first context, where the reference changes its factors with the length of the text
        prompt = RANDOM[-length:]
        expected = reference_values(model, prompt, CONTINUATIONS)
        np.testing.assert_allclose(values(scorer, prompt, CONTINUATIONS), expected, atol=1e-3)


def test_a_graph_that_others_built_gives_no_likelihoods(tiny_gguf: Path) -> None:
    """As optimum-intel's, whose nodes have other names; suites of choices then ask for written answers."""
    folder = importer.import_gguf(tiny_gguf)
    graph = folder / "openvino_model.xml"
    graph.write_text(graph.read_text().replace('name="mask.keys"', 'name="__module.model/aten::arange"'))
    engine = LocalEngine(folder)
    with pytest.raises(UnsupportedError, match="gives no likelihoods of continuations"):
        engine.score(Request(prompt="x"), [" he"])
    engine.close()


def test_the_imported_layout_can_be_scored_too(tiny_gguf: Path, scorer: Scorer) -> None:
    """Its weights are rounded to 8 bits: a tenth a token is what that may cost here."""
    served = Scorer(importer.import_gguf(tiny_gguf), EXACT)
    both = (values(one, [5, 6], CONTINUATIONS) for one in (served, scorer))
    for given, exact, row in zip(*both, CONTINUATIONS, strict=True):
        assert given == pytest.approx(exact, abs=0.1 * len(row))


def test_a_score_is_the_same_to_the_last_bit_whatever_was_scored_before(scorer: Scorer, tiny_gguf: Path) -> None:
    """Some of these prompts begin with whole parts of others, which are then not read again."""
    prompts = [[*RANDOM[:200], 9], [*RANDOM[:200], 8, 7], RANDOM[:140], [5, *RANDOM[:150]], RANDOM[:3], RANDOM[:128], RANDOM[:129]]
    rows = CONTINUATIONS[:6]
    alone = [values(Scorer(importer.exact_model(tiny_gguf), EXACT), prompt, rows) for prompt in prompts]
    assert [values(scorer, prompt, rows) for prompt in prompts] == alone
    assert [values(scorer, prompt, rows) for prompt in prompts[::-1]] == alone[::-1]


def test_a_shared_beginning_is_read_once(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    infer = Scorer._infer
    monkeypatch.setattr(Scorer, "_infer", lambda self, ids, *rest: (fed.append(len(ids)), infer(self, ids, *rest))[1])
    scores_of(scorer, [*RANDOM[:130], 1], [[7], [8]])
    scores_of(scorer, [*RANDOM[:130], 2, 3], [[7], [8]])
    assert fed == [likelihood.PROMPT_PART_TOKENS, 3, 4]


@dataclass(eq=False)
class _Copy:
    """One of OpenVINO's tensors."""

    data: npt.NDArray[np.float32]


class _Requested:
    """An infer request of four states, of which each is copied when it is asked for. `most`: copies that were there at once."""

    def __init__(self, kept: list[npt.NDArray[np.float32]]) -> None:
        self._copies: weakref.WeakSet[_Copy] = weakref.WeakSet()
        self._kept, self.most = [weakref.ref(array) for array in kept], 0

    def query_state(self) -> list[_Requested]:
        assert not any(array() is not None for array in self._kept)
        return [self] * 4

    @property
    def state(self) -> _Copy:
        self._copies.add(copy := _Copy(np.ones((1, 1, 128, 2), np.float32)))
        self.most = max(self.most, len(self._copies))
        return copy


@pytest.mark.parametrize(("room", "are_kept"), [(4096, 4), (4095, 0)])
def test_a_prompt_is_kept_in_place_of_the_last_one_and_copied_twice_one_state_at_a_time(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, room: int, are_kept: int
) -> None:
    """A long prompt's states are most of the memory: all at once, and the last prompt's, would be there three times more."""
    monkeypatch.setattr(likelihood, "KEPT_BYTES", room)
    scorer._kept_ids, scorer._kept_states = RANDOM[:128], [np.zeros((1, 1, 128, 2), np.float32)]
    request = _Requested(scorer._kept_states)
    monkeypatch.setattr(scorer, "_request", request)
    scorer._keep(RANDOM[1:129])
    assert (request.most, len(scorer._kept_states), len(scorer._kept_ids)) == (1, are_kept, 128 if are_kept else 0)


def test_many_long_continuations_go_in_parts_and_in_several_trees(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = RANDOM[:9]
    whole = values(scorer, prompt, CONTINUATIONS)
    monkeypatch.setattr(continuations, "TREE_TOKENS", 8)
    monkeypatch.setattr(scorer, "_part_tokens", 4)
    np.testing.assert_allclose(values(scorer, prompt, CONTINUATIONS), whole, atol=1e-4)


def test_a_tree_feeds_each_shared_token_once_and_no_last_one() -> None:
    tree = Tree([[1], [1, 2], [1, 2, 3], [1, 4, 5], [6]])
    assert tree.ids == [1, 2, 4] and tree.depths == [0, 1, 1]
    assert tree.ends.tolist() == [3, 2, 3]
    assert len(tree.reads) == 6


def test_a_continuation_s_tokens_are_those_of_the_whole_text(engine: LocalEngine) -> None:
    """`he` after a space is no word of its own to this vocabulary, which knows ` the`."""
    tokenizer = engine.tokenizer
    prompt, rows = likelihood.split(tokenizer, Request(prompt="x "), ["the", "hello"])
    assert tokenizer.decode(prompt) == "x"
    assert rows == [tokenizer.encode(" the"), tokenizer.encode(" hello")]
    prompt, rows = likelihood.split(tokenizer, Request(prompt="x"), [" the", "안녕"])
    assert prompt == tokenizer.encode("x") and rows == [tokenizer.encode(" the"), tokenizer.encode("안녕")]


def test_texts_of_continuations_are_cut_together_and_their_rows_are_those_of_each_alone(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a space at the prompt's end some continuations make a token with their first letters, and others do not."""
    tokenizer, text, continuations = engine.tokenizer, "the hello ", ["the", "안녕", " he", "x", "hello"]
    wholes = [tokenizer.encode(text + continuation) for continuation in continuations]
    cut: list[str] = []
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text, **how: (cut.append(text), encode(self, text, **how))[1])
    prompt, rows = likelihood.split(tokenizer, Request(prompt=text), continuations)
    assert [prompt + row for row in rows] == wholes and all(rows)
    assert cut == [text]


def test_a_prompt_that_is_one_token_with_every_continuation_is_still_a_prompt(engine: LocalEngine) -> None:
    prompt, rows = likelihood.split(engine.tokenizer, Request(prompt=" t"), ["he"])
    assert prompt == engine.tokenizer.encode(" t") and rows == [engine.tokenizer.encode("he")]


def test_a_conversation_is_scored_after_its_template(engine: LocalEngine) -> None:
    request = Request(messages=(Message(role="user", content="he"),))
    prompt, rows = likelihood.split(engine.tokenizer, request, ["the"])
    assert prompt == engine.tokenizer.prompt_ids(request) and rows == [engine.tokenizer.encode("the")]


class Markov(Scorer):
    """Says that an answer begins with "1", most often goes on with "0", and is most often over then; either end token ends it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        (one,), (zero,) = tokenizer.encode("1"), tokenizer.encode("0")
        end, other_end = tokenizer.special.stop_ids
        self.likely = {(one, zero): 0.8, (one, end): 0.1, (one, other_end): 0.05, (zero, end): 0.5, (zero, other_end): 0.4}

    def _log_probabilities(self, prompt: list[int], tree: Tree, _stop: threading.Event | None) -> npt.NDArray[np.float64]:
        before = [prompt[-1] if node < 0 else tree.ids[node] for node, _ in tree.reads]
        return np.log([self.likely.get((last, token), 1.0) for last, (_, token) in zip(before, tree.reads, strict=True)])


def test_a_label_that_begins_with_another_can_be_the_likelier(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an answer, "10" is about five times as likely as "1" here: 0.8 * 0.9 and 0.15. An answer that begins with "1" is certain."""
    monkeypatch.setattr(engine, "_make_scorer", lambda: Markov(engine.tokenizer))
    asked = Request(messages=(Message(role="user", content="how many?"),))
    scores = engine.score(asked, ["1", "10"])
    assert [np.exp(score.log_probability) for score in scores] == pytest.approx([0.15, 0.72])
    assert [score.num_tokens for score in scores] == [2, 3] and matching.likeliest(scores) == 1
    assert matching.likeliest(engine.score(Request(prompt="how many?"), ["1", "10"])) == 0


def test_the_end_counts_in_a_conversation_where_a_continuation_begins_another_and_nowhere_else(engine: LocalEngine) -> None:
    """After all of them alike, not only after the one that begins another: sums are to say the same of each."""
    asked, raw = Request(messages=(Message(role="user", content="he"),)), Request(prompt="he")
    whole = ["긍정", "긍정 아님", "x"]
    prompt, rows = likelihood.split(engine.tokenizer, asked, whole)
    scorer = engine._make_scorer()
    ended = [np.logaddexp(*values(scorer, prompt, [[*row, end] for end in (0, 2)])) for row in rows]
    assert [score.log_probability for score in engine.score(asked, whole)] == pytest.approx(ended, abs=1e-5)
    assert [score.num_tokens for score in engine.score(asked, whole)] == [len(row) + 1 for row in rows]
    for request, texts in ((raw, whole), (asked, ["긍정", "아님", "x"]), (asked, ["x", "x"]), (asked, ["h", "he"])):
        prompt, rows = likelihood.split(engine.tokenizer, request, texts)
        assert engine.score(request, texts) == scores_of(scorer, prompt, rows)


def test_no_continuations_have_no_scores_and_empty_ones_are_refused(engine: LocalEngine) -> None:
    assert engine.score(Request(prompt="x"), []) == []
    with pytest.raises(UsageError, match="the continuation '' has no tokens"):
        engine.score(Request(prompt="x"), ["a", ""])
    with pytest.raises(UsageError, match="a likelihood needs a prompt of at least one token"):
        engine.score(Request(prompt=""), ["a"])


@pytest.mark.parametrize(("num_prompt", "num_row", "num_passes"), [(4 * PROMPT_PART_TOKENS, 1, 4), (1, 3 * PART_TOKENS, 3)])
def test_who_has_gone_is_not_read_to_the_end(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, num_prompt: int, num_row: int, num_passes: int
) -> None:
    """Neither a long prompt nor long continuations: the pass that runs is the last one, and the next question is read as ever."""
    question = Question([token % 50 for token in range(num_prompt)], [[token % 50 for token in range(num_row)]])
    stop, passes, run = threading.Event(), list[int](), Scorer._run

    def leaving(self: Scorer, *rest: Any) -> Any:
        passes.append(1)
        if len(passes) == 2:
            stop.set()
        return run(self, *rest)

    alone = scorer.score_many([question])
    scorer._kept_ids = []
    monkeypatch.setattr(Scorer, "_run", leaving)
    with pytest.raises(StoppedError):
        scorer.score_many([question], stop)
    assert len(passes) == 2
    assert scorer.score_many([question]) == alone
    assert len(passes) - 2 == num_passes


def test_a_question_is_left_where_who_asked_it_has_gone(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    run = Scorer._run
    monkeypatch.setattr(Scorer, "_run", lambda self, *rest: stop.set() or run(self, *rest))
    with pytest.raises(StoppedError):
        engine.timed_scores(Request(prompt="x" * (PROMPT_PART_TOKENS + 100)), ["yy"], stop=stop)
    assert len(engine.score(Request(prompt="a"), [" the"])) == 1


def test_a_prompt_far_over_the_context_is_refused_with_the_numbers(engine: LocalEngine) -> None:
    with pytest.raises(ContextExceededError) as caught:
        engine.score(Request(prompt="x" * 100_000), ["yy", "z"])
    assert caught.value.message == (
        f"the prompt is too long: it has 100,000 tokens and the answer may have 2, but the model's context is {CONTEXT} tokens"
    )


def test_a_prompt_that_fits_is_not_called_too_long_where_its_answer_does_not(engine: LocalEngine) -> None:
    with pytest.raises(ContextExceededError) as caught:
        engine.score(Request(prompt="x" * (CONTEXT - 1)), ["yyyy"])
    assert caught.value.message == (
        f"the prompt has {CONTEXT - 1:,} tokens and the answer may have 4, but the model's context is {CONTEXT} tokens"
    )


def test_float32_weights_that_have_no_room_now_are_refused_before_they_are_made(
    tiny_gguf: Path, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: Detected(1000, "left within the container's limit"))
    with pytest.raises(NotEnoughMemoryError) as caught:
        engine.score(Request(prompt="x"), ["y"])
    assert caught.value.message.startswith(f"likelihoods of `{tiny_gguf.name}` are computed in float32, which takes about 0.0")
    assert (caught.value.hint or "").endswith(" or raise the container's limit by 0.01 GB")


def test_a_model_too_large_for_float32_is_scored_in_its_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(importer, "exact_model", lambda *_args, **_kwargs: pytest.fail("was made all the same"))
    monkeypatch.setattr(importer, "fits_exactly", lambda _path: False)
    engine = LocalEngine(importer.import_gguf(path), weights=path)
    assert engine.score(Request(prompt="x"), ["y"])[0].log_probability < 0
    engine.close()


CHANGED = " was changed or removed since it was loaded"
ASKED = Request(prompt="the hello"), [" he", " world"]


def loaded(path: Path, adapter: Path, *, is_baked: bool) -> LocalEngine:
    """The model with that adapter, baked into its weights or beside them."""
    if is_baked:
        return LocalEngine(importer.import_gguf(path, adapter=adapter), weights=path, adapter=adapter)
    return LocalEngine(importer.import_gguf(path, fused=False), weights=path, beside=[adapter]).adapted(0)


@pytest.mark.parametrize("is_baked", [True, False])
def test_a_model_that_was_loaded_by_a_relative_path_is_scored_wherever_the_process_goes(
    is_baked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it goes there is another model by this name, or nothing."""
    path, adapter = Path("model.gguf"), Path("adapter")
    for number, name in enumerate(("here", "there", "nowhere")):
        (tmp_path / name).mkdir()
        if name != "nowhere":
            write_tiny_gguf(tmp_path / name / path, type_name=("F16", "Q4_0")[number])
            write_adapter(tmp_path / name / adapter, seed=number)
    monkeypatch.chdir(tmp_path / "here")
    expected = loaded(path, adapter, is_baked=is_baked).score(*ASKED)
    for name in ("there", "nowhere"):
        monkeypatch.chdir(tmp_path / "here")
        engine = loaded(path, adapter, is_baked=is_baked)
        monkeypatch.chdir(tmp_path / name)
        assert engine.score(*ASKED) == expected
        engine.close()


@pytest.mark.parametrize("is_exact", [True, False])
def test_a_file_that_was_replaced_since_the_model_was_loaded_is_not_scored_in_its_place(
    is_exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter beside the weights is read with them again where they are too large for float32, too; the model's own scores are then
    of what was imported."""
    monkeypatch.setattr(importer, "fits_exactly", lambda _path: is_exact)
    path, other = write_tiny_gguf(tmp_path / "model.gguf"), write_tiny_gguf(tmp_path / "other.gguf", type_name="Q4_0")
    engine = LocalEngine(importer.import_gguf(path, fused=False), weights=path, beside=[write_adapter(tmp_path / "a")])
    before = engine.score(*ASKED)
    os.replace(other, path)
    assert engine.score(*ASKED) == before  # it was read before
    for _ in "twice":
        with pytest.raises(UsageError) as caught:
            engine.adapted(0).score(*ASKED)
        assert (caught.value.message, caught.value.hint) == (f"`{path}`{CHANGED}", "load it again")
    path.unlink()
    with pytest.raises(UsageError, match=CHANGED):
        engine.adapted(0).score(*ASKED)
    engine.close()


@pytest.mark.parametrize("is_baked", [True, False])
def test_an_adapter_that_was_tuned_anew_since_it_was_loaded_is_not_scored_in_its_place(is_baked: bool, tmp_path: Path) -> None:
    path, adapter = write_tiny_gguf(tmp_path / "model.gguf"), write_adapter(tmp_path / "a", seed=1)
    engine = loaded(path, adapter, is_baked=is_baked)
    os.replace(adapter, tmp_path / "old")
    write_adapter(adapter, seed=2)
    with pytest.raises(UsageError) as caught:
        engine.score(*ASKED)
    assert (caught.value.message, caught.value.hint) == (f"`{adapter}`{CHANGED}", "load it again")
    engine.close()
    again = loaded(path, adapter, is_baked=is_baked)
    assert again.score(*ASKED)
    again.close()


def test_a_file_that_is_replaced_while_it_is_read_for_likelihoods_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = write_tiny_gguf(tmp_path / "model.gguf"), write_tiny_gguf(tmp_path / "other.gguf", type_name="Q4_0")
    make = importer.exact_model

    def replaced_meanwhile(*given: Any, **told: Any) -> Any:
        os.replace(other, path)
        return make(*given, **told)

    monkeypatch.setattr(importer, "exact_model", replaced_meanwhile)
    engine = LocalEngine(importer.import_gguf(path), weights=path)
    with pytest.raises(UsageError, match=CHANGED):
        engine.score(*ASKED)
    engine.close()


@pytest.mark.data
@pytest.mark.slow
def test_choices_are_those_of_lm_eval_harness(smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the log-likelihoods its Hugging Face backend gave: `benchmarks/scoring.py` made the file and says how."""
    folder = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    import scoring

    monkeypatch.delenv("NOMOAT_OFFLINE")  # the sentences are fetched as the model was
    stored = json.loads((folder / "results/2026-11-30_scoring_morning_xeon_smollm2-135m.json").read_text())["tasks"]["reviews"]
    expected = stored["lm_eval_log_probabilities"][:6]
    try:
        items = scoring.reviews(len(expected))
    except NomoatError as error:
        pytest.skip(f"vader-reviews could not be pulled: {error.message}")
    engine = LocalEngine(importer.import_gguf(smollm2_gguf), weights=smollm2_gguf)
    mine, _ = scoring.ours(engine, items)
    engine.close()
    np.testing.assert_allclose(mine, expected, atol=1e-3)
    assert scoring.accuracy(mine, items) == scoring.accuracy(expected, items)
