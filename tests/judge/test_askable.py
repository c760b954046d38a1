"""What makes a model one that cannot be asked is said before any other one is asked, or loaded, and with its name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from misbehaving import Server
from quiz import quiz
from reference import make_adapter
from tiny import TEMPLATE, write_tiny_gguf

import nomoat
from nomoat import footprint, hardware, paths, responder
from nomoat.asking.spending import Spending
from nomoat.asking.store import AnswerStore
from nomoat.catalog import licences
from nomoat.engine import templates
from nomoat.engine.fake import FakeEngine
from nomoat.engine.source import open_source
from nomoat.errors import NomoatError, NotEnoughMemoryError, UnknownModelError, UnsupportedError, UsageError
from nomoat.judge.askable import require_askable
from nomoat.judge.asking import Asking
from nomoat.judge.duel import run_duel
from nomoat.judge.judged import run_graded, run_judged_duel, run_judged_table
from nomoat.judge.run import run_suite
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.judge.suites import load_suite
from nomoat.judge.table import run_table
from nomoat.records import Chunk, Message, Request
from nomoat.responder import Responder
from nomoat.tune.prepare import prepare

REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}" + TEMPLATE
HINT = (
    "give it the one it was tuned with, by `--template NAME` (in Python: `template`): `chatml` fits its tokens; known are "
    f"{', '.join(sorted(templates.NAMED))}; "
    "a base model was tuned with none: ask it a suite with `chat = false`"
)


class Counting(FakeEngine):
    num_asked = 0

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.num_asked += 1
        return super().generate(request)


@pytest.fixture
def suite() -> Suite:
    return quiz(3)


@pytest.fixture
def base(tmp_path: Path) -> str:
    return str(write_tiny_gguf(tmp_path / "base.gguf", template=None))


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(ref: str, **_: object) -> Responder:
        raise AssertionError(f"{ref} was loaded")

    monkeypatch.setattr("nomoat.responder.load", load)


HINT_FOR_A_JUDGE = HINT.replace("ask it a suite with `chat = false`", "let another model judge")

ASKING: list[Callable[..., object]] = [
    lambda asked, other, suite, settings=None: run_duel(asked, other, suite, settings, stop_early=True),
    lambda asked, other, suite, settings=None: run_duel(asked, other, suite, settings, stop_early=False),
    lambda asked, other, suite, settings=None: run_table([asked, other], suite, settings),
    lambda asked, other, suite, settings=None: run_judged_duel(asked, other, suite, asked, settings),
    lambda asked, other, suite, settings=None: run_judged_table([asked, Responder("b", FakeEngine()), other], suite, asked, settings),
]
JUDGED: list[Callable[..., object]] = [
    lambda asked, judge, suite, settings=None: run_judged_duel(asked, Responder("b", FakeEngine()), suite, judge, settings),
    lambda asked, judge, suite, settings=None: run_judged_table([asked, Responder("b", FakeEngine())], suite, judge, settings),
    lambda asked, judge, suite, settings=None: run_graded(asked, suite, judge, settings),
]


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(
    ("ask", "reason", "hint"),
    [
        *((ask, "`quiz` asks in a chat", HINT) for ask in ASKING),
        *((ask, "a judge is asked in a chat", HINT_FOR_A_JUDGE) for ask in JUDGED),
    ],
)
def test_a_side_or_a_judge_without_a_chat_template_is_named_before_anyone_is_asked(
    ask: Callable[[Responder, str, Suite], object], reason: str, hint: str, suite: Suite, base: str
) -> None:
    engine = Counting()
    with pytest.raises(UnsupportedError) as caught:
        ask(Responder("a", engine), base, suite)
    assert (caught.value.message, caught.value.hint) == (f"`{base}` has no chat template, and {reason}", hint)
    assert engine.num_asked == 0


def make_tuned(name: str, base: Path, template: str) -> None:
    folder = make_adapter(paths.adapters() / name, base)
    provenance = {"task": {"template": template}, "licence": licences.as_dict(licences.chain(None))}
    (folder / "provenance.json").write_text(json.dumps(provenance))


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_template_beside_the_adapter_is_one(suite: Suite, base: str) -> None:
    folder = make_adapter(paths.adapters() / "mine", Path(base))
    with pytest.raises(UnsupportedError, match="has no chat template"):
        require_askable([f"{base}+mine"], suite, RunSettings())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    require_askable([f"{base}+mine"], suite, RunSettings())


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_base_beside_what_was_tuned_from_it_is_to_be_given_its_template(
    suite: Suite, base: str, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of what was tuned from another one. Here the two are named by different paths."""
    make_tuned("other", tiny_gguf, "vicuna_v1.1")
    make_tuned("mine", Path(base), "gemma")
    monkeypatch.chdir(Path(base).parent)
    with pytest.raises(UnsupportedError) as caught:
        run_table([f"{tiny_gguf}+other", "./base.gguf+mine", base], suite)
    assert (caught.value.message, (caught.value.hint or "").partition(";")[0]) == (
        f"`{base}` has no chat template, and `quiz` asks in a chat",
        "give it the one that `./base.gguf+mine` was tuned with, by `--template gemma` (in Python: `template`)",
    )


@pytest.mark.usefixtures("nothing_is_loaded")
def test_what_was_tuned_from_another_base_gives_no_template(suite: Suite, base: str, tiny_gguf: Path) -> None:
    make_tuned("other", tiny_gguf, "gemma")
    with pytest.raises(UnsupportedError) as caught:
        run_duel(f"{tiny_gguf}+other", base, suite)
    assert (caught.value.message, caught.value.hint) == (f"`{base}` has no chat template, and `quiz` asks in a chat", HINT)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_an_evaluation_names_the_model_and_loads_nothing(suite: Suite, base: str) -> None:
    with pytest.raises(UnsupportedError, match="` has no chat template, and `quiz` asks in a chat"):
        run_suite(base, suite)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize("ask", [*ASKING, *JUDGED])
def test_a_model_that_is_not_here_is_named_before_anyone_is_asked(
    ask: Callable[[Responder, str, Suite], object], suite: Suite
) -> None:
    engine = Counting()
    with pytest.raises(UnknownModelError, match="no model is called `nosuch`"):
        ask(Responder("a", engine), "nosuch", suite)
    assert engine.num_asked == 0


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_model_that_memory_does_not_hold_is_named_before_anyone_is_asked(
    suite: Suite, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: hardware.Detected(1000, "a test"))
    engine = Counting()
    with pytest.raises(NotEnoughMemoryError, match=f"`{tiny_gguf}` needs about"):
        run_duel(Responder("a", engine), str(tiny_gguf), suite, stop_early=False)
    assert engine.num_asked == 0


@pytest.mark.usefixtures("nothing_is_loaded")
def test_what_choosing_by_likelihood_takes_in_memory_is_known_before_anyone_is_asked(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the sides where choices are asked for, and of a judge; written answers go without."""
    long = "What is it about? " * 1000
    written = quiz(2)
    written = dataclasses.replace(
        written,
        examples=(dataclasses.replace(written.examples[0], messages=(Message(role="user", content=long),)), *written.examples[1:]),
    )
    chosen = dataclasses.replace(
        written, metric="choice", examples=tuple(dataclasses.replace(one, choices=("yes", "no")) for one in written.examples)
    )
    source = open_source(tiny_gguf)
    need = responder.memory_need(source, None)
    scored = responder.scoring_bytes(source, len(long) // 3)
    assert need.scoring_bytes < scored < need.scoring(len(long) // 3)  # no question is longer than the model's context
    monkeypatch.setattr(hardware, "memory_of_this_process_bytes", lambda: 0)
    ref = str(tiny_gguf)

    def have(free: int) -> None:
        monkeypatch.setattr(hardware, "memory_available_bytes", lambda: hardware.Detected(free, "a test"))

    have(need.total_bytes + scored)
    require_askable([ref], chosen, RunSettings(), judge=ref)
    have(need.total_bytes + scored - 1)
    require_askable([ref], written, RunSettings())
    for suite, judge in ((chosen, None), (written, ref)):
        with pytest.raises(NotEnoughMemoryError, match=r"to choose among answers by their likelihood, and there are"):
            require_askable([ref], suite, RunSettings(), judge=judge)


def test_models_that_choose_by_likelihood_one_after_the_other_where_memory_does_not_hold_both(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = quiz(4, "choice", choices=("yes", "no"), target="yes")
    monkeypatch.setattr(footprint, "EXACT_BYTES_PER_WEIGHT", 1_000_000_000 // open_source(tiny_gguf).num_values)
    monkeypatch.setattr(hardware, "memory_total_bytes", lambda: hardware.Detected(16 * 10**9, "a test"))
    for free, is_noted in ((2 * 10**9, True), (16 * 10**9, False)):  # the first asks: what is kept takes no memory
        monkeypatch.setattr(hardware, "memory_available_bytes", lambda free=free: hardware.Detected(free, "a test"))
        notes = run_duel(str(tiny_gguf), str(tiny_gguf), suite).verdict.notes
        assert any("memory does not hold both models at once" in note for note in notes) == is_noted


def test_likelihoods_that_are_all_kept_take_no_memory(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the form that the model has with the memory of now; one question more takes all of it."""
    suite, ref = quiz(4, "choice", choices=("yes", "no"), target="yes"), str(tiny_gguf)
    monkeypatch.setattr(footprint, "EXACT_BYTES_PER_WEIGHT", 1_000_000_000 // open_source(tiny_gguf).num_values)
    first = dataclasses.replace(suite, examples=suite.examples[:3])

    def have(free: int, total: int) -> None:
        monkeypatch.setattr(hardware, "memory_available_bytes", lambda: hardware.Detected(free, "a test"))
        monkeypatch.setattr(hardware, "memory_total_bytes", lambda: hardware.Detected(total, "a test"))

    have(8 * 10**9, 16 * 10**9)
    run_suite(ref, first)
    have(600_000_000, 16 * 10**9)
    assert run_suite(ref, first).side.num_reused == 3
    assert not any("memory" in note for note in run_duel(ref, ref, first).verdict.notes)
    with pytest.raises(NotEnoughMemoryError, match="to choose among answers by their likelihood"):
        require_askable([ref], suite, RunSettings())
    have(responder.memory_need(open_source(tiny_gguf), None).total_bytes, 2 * 10**9)  # float32 is too much now for any day
    monkeypatch.setattr(hardware, "memory_of_this_process_bytes", lambda: 0)
    with pytest.raises(NotEnoughMemoryError, match="to choose among answers by their likelihood"):
        require_askable([ref], first, RunSettings())


def test_a_model_that_is_loaded_already_is_looked_at_too(suite: Suite, base: str) -> None:
    engine = Counting()
    with nomoat.load(base) as loaded, pytest.raises(UnsupportedError, match="has no chat template"):
        run_duel(Responder("a", engine), loaded, suite)
    assert engine.num_asked == 0


def test_a_template_that_refuses_the_first_question_is_named(suite: Suite, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "strict.gguf", template=REFUSES_SYSTEM)
    require_askable([str(path)], suite, RunSettings())
    system = Message(role="system", content="Be brief.")
    examples = tuple(dataclasses.replace(example, messages=(system, *example.messages)) for example in suite.examples)
    with pytest.raises(UnsupportedError) as caught:
        require_askable([str(path)], dataclasses.replace(suite, examples=examples), RunSettings())
    assert caught.value.message == f"`{path}`: the model's chat template refuses this conversation: no system message"
    assert caught.value.hint == "ask what it does not refuse; or start `nomoat serve MODEL --template NAME`, and ask that server"


def test_a_judge_whose_template_refuses_is_told_what_helps_a_judge(suite: Suite, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "never.gguf", template="{{ raise_exception('never') }}{# messages #}")
    engine = Counting()
    with pytest.raises(UnsupportedError) as caught:
        run_graded(Responder("a", engine), suite, str(path))
    assert caught.value.message == f"`{path}`: the model's chat template refuses this conversation: never"
    assert (caught.value.hint, engine.num_asked) == ("let another model judge", 0)


def test_a_template_is_told_the_tokens_that_begin_and_end_a_text(suite: Suite, tmp_path: Path) -> None:
    checks = "{% if bos_token[0] != '<' or eos_token[0] != '<' %}{{ raise_exception('no tokens') }}{% endif %}"
    path = str(write_tiny_gguf(tmp_path / "begun.gguf", template=checks + TEMPLATE))
    require_askable([path], suite, RunSettings(), judge=path)
    with nomoat.load(path) as loaded:
        require_askable([loaded], suite, RunSettings())


@pytest.mark.parametrize("ask", [*ASKING, *JUDGED])
@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("auto", "`auto` chooses between two models, and one is needed here"),
        ("openai:gpt", "`openai:gpt` needs a key, and OPENAI_API_KEY is not set"),
        ("openai", "`openai` names no model"),
    ],
)
def test_a_reference_that_cannot_be_asked_is_named_before_anyone_is_asked(
    ask: Callable[[Responder, str, Suite], object], ref: str, message: str, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOMOAT_OFFLINE")
    engine = Counting()
    with pytest.raises(UsageError) as caught:
        ask(Responder("a", engine), ref, suite)
    assert (caught.value.message, engine.num_asked) == (message, 0)


@pytest.mark.parametrize("ask", [*ASKING, *JUDGED])
def test_one_price_for_two_servers_is_refused_before_anyone_is_asked(
    ask: Callable[..., object], suite: Suite, serving: Callable[..., Server]
) -> None:
    one, other = serving(), serving()
    settings = RunSettings(spending=Spending(input_usd_per_million=1.0, output_usd_per_million=1.0))
    with pytest.raises(UsageError, match="one price is given for two models"):
        ask(f"{one.url}#m", f"{other.url}#m", suite, settings)
    assert one.paths == other.paths == []


def test_a_server_is_not_connected_to(suite: Suite, serving: Callable[..., Server]) -> None:
    server = serving()
    require_askable([f"{server.url}#m", server.url], suite, RunSettings())
    assert server.paths == []


def test_what_helps_a_model_without_a_template_helps(suite: Suite, base: str) -> None:
    require_askable([base], suite, RunSettings(template="falcon"))
    require_askable([base], dataclasses.replace(suite, chat=False), RunSettings())
    with pytest.raises(NomoatError):  # a judge chats all the same
        require_askable([], dataclasses.replace(suite, chat=False), RunSettings(), judge=base)


TASK = {"instruction": "Translate.", "input": "cat", "output": "Katze"}
AS_TUNED, PLAIN = "Translate.\n\n### Input:\ncat", "Translate.\n\ncat"


def asked_of(model: Responder, settings: RunSettings) -> Request:
    suite = load_suite([TASK])
    with AnswerStore() as store:
        return Asking(model=model, suite=suite, store=store, settings=settings).request(suite.examples[0])


@pytest.mark.parametrize(("template", "words"), [("alpaca", AS_TUNED), ("chatml", PLAIN)])
def test_an_instruction_with_its_input_is_asked_as_the_model_with_this_template_is_tuned_on_it(
    template: str, words: str, base: str, tmp_path: Path
) -> None:
    """Of a model that this process loads, and of one that workers load or whose kept answers are asked for."""
    (tmp_path / "t.jsonl").write_text(json.dumps(TASK))
    prepared = prepare(base, tmp_path / "t.jsonl", template=template)
    with nomoat.load(base, template=template) as model:
        request = asked_of(model, RunSettings())
        tokenizer = model.engine.tokenizer
        assert tokenizer is not None and request.messages[-1].content == words
        prompt = tokenizer.encode(tokenizer.render(request.messages))
    assert list(prepared.samples[0].tokens[: len(prompt)]) == prompt and len(prompt) == prepared.samples[0].answers[0][0]
    elsewhere = Responder(base, FakeEngine())
    assert asked_of(elsewhere, RunSettings(template=template)).messages[-1].content == words
    assert asked_of(Responder("not here", FakeEngine()), RunSettings(template=template)).messages[-1].content == PLAIN
