"""Labels by a teacher: by likelihood, and by what it writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from letters import decomposed
from misbehaving import Server, counted, priced, say, thinking
from scripted import Choosing
from teaching import write_labels
from tiny import write_adapter, write_learned

from nomoat import paths
from nomoat.asking.answers import collect_scores
from nomoat.asking.store import AnswerStore
from nomoat.distil.label import (
    CUT_OFF,
    NO_ANSWER,
    NO_LABEL,
    NO_TEXT,
    TOO_LONG_TEXT,
    Label,
    Labelled,
    LeftOut,
    label,
    parse_labels,
    requests_for,
)
from nomoat.engine.fake import FakeEngine
from nomoat.errors import DataError, UsageError
from nomoat.records import Chunk, Completion, ContinuationScore, Request, Usage
from nomoat.responder import Responder, load

TEXTS = ["WIN a prize", "see you at noon", "당첨되셨습니다"]


def labelled(ref: str, texts: list[Any] = TEXTS, labels: tuple[str, ...] = ("ham", "spam")) -> Labelled:
    with load(ref) as teacher, AnswerStore() as store:
        return label(teacher, texts, labels, store=store)


def left_out(found: Labelled, why: str) -> list[str]:
    return [one.text for one in found.left_out(why)]


def test_a_model_on_this_machine_gives_the_likeliest_label_and_how_likely_it_is() -> None:
    """The fake engine: a word costs 1, one that is not in the prompt 2 more. `ham or spam` has three words, two of them known."""
    found = labelled("fake:", ["text"], ("ham", "spam and eggs"))
    assert found.how == "likelihood"
    (one,) = found.labels
    assert (one.text, one.label) == ("text", "ham")
    assert one.confidence is not None
    assert 0.5 < one.confidence < 1.0
    assert labelled("fake:", ["text"], ("ham", "spam and eggs")).spent.num_reused == 1


def test_confidences_are_shares_of_all_labels() -> None:
    assert [one.confidence for one in labelled("fake:", TEXTS, ("x", "y")).labels] == pytest.approx([0.5] * 3)


def test_labels_whose_confidence_is_asked_for_are_read_up_to_a_ten_thousandth_though_eval_read_less() -> None:

    def scores(max_unread: float) -> tuple[ContinuationScore, ...]:
        spam = ContinuationScore(log_probability=-2.0 if max_unread > 1 else -12.0, num_tokens=1, is_bound=True)
        return ContinuationScore(log_probability=-1.0, num_tokens=1), spam

    engine, labels = Choosing(scores), ("ham", "spam")
    teacher = Responder("fake:", engine)
    questions = [(request, labels) for request in requests_for(["win"], labels)]
    with AnswerStore() as store:
        collect_scores(teacher, questions, store=store, max_unread=math.inf)
        (one,) = label(teacher, ["win"], labels, store=store).labels
        assert one.confidence == pytest.approx(1 / (1 + math.exp(-11)))
        assert label(teacher, ["win"], labels, store=store).spent.num_reused == 1
    assert engine.max_unread == [math.inf, 1e-4]


def test_an_instruction_that_holds_the_texts_place_is_all_that_a_teacher_is_asked() -> None:
    asked = [request.messages[0].content for request in requests_for(["a", "b"], ("ham", "spam"), instruction="SMS: {text}\nSpam?")]
    assert asked == ["SMS: a\nSpam?", "SMS: b\nSpam?"]


def test_a_teacher_tuned_on_a_table_is_asked_as_it_learned_it() -> None:

    write_learned(write_adapter(paths.adapters() / "t"), "ham", "spam", instruction="Wanted?")
    teacher = Responder("base+t", FakeEngine())
    with AnswerStore() as store:
        found = label(teacher, TEXTS, store=store)
        given = label(teacher, TEXTS, ("ham", "spam"), instruction="Wanted?", store=store)
    assert (found.results, given.spent.num_reused) == (given.results, len(TEXTS))
    assert found.notes == ("asked with its labels (ham, spam) and its instruction, as `base+t` was tuned: see `nomoat show base+t`",)
    assert given.notes == ()


def test_a_text_that_is_too_long_is_left_out_and_told() -> None:
    from nomoat.errors import ContextExceededError

    class Short(FakeEngine):
        def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
            if self.count_tokens(request) > 20:
                raise ContextExceededError(prompt_tokens=30, max_new_tokens=1, context_tokens=20)
            return super().score(request, continuations)

    with AnswerStore() as store:
        found = label(Responder("short", Short()), ["a", "b " * 20, "c"], ("ham", "spam"), store=store)
    assert ([one.text for one in found.labels], left_out(found, TOO_LONG_TEXT)) == (["a", "c"], ["b " * 20])


def test_a_server_writes_labels_and_what_is_none_of_them_is_left_out(serving: Callable[..., Server]) -> None:
    server = serving(write_labels(("prize", "Spam."), ("noon", "ham"), ("당첨", "이것은 스팸입니다")))
    found = labelled(f"{server.url}#m")
    assert found.how == "written"
    assert found.labels == [Label(text="WIN a prize", label="spam"), Label(text="see you at noon", label="ham")]
    assert found.results[2] == LeftOut(text="당첨되셨습니다", why=NO_LABEL, answer="이것은 스팸입니다")
    assert found.partial == ""
    assert len(server.bodies) == 3
    assert labelled(f"{server.url}#m").labels == found.labels
    assert len(server.bodies) == 3


def test_of_a_server_only_what_it_writes_is_counted_as_done(serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that come again counted as done before the first was asked: likelihoods were looked up, which no server gives."""
    monkeypatch.setattr(AnswerStore, "choice_scores", lambda *_: pytest.fail("likelihoods of a server are looked up"))
    told = list[tuple[int, int]]()
    server = serving(counted("ham", 9, 1))
    with load(f"{server.url}#m") as teacher, AnswerStore() as store:
        found = label(teacher, ["a", "a", "b"], ("ham", "spam"), store=store, progress=lambda *so: told.append(so))
    assert [one.label for one in found.labels] == ["ham"] * 3
    assert told == sorted(told)
    assert {total for _, total in told} == {2}


MANY = [f"text number {at} of some" for at in range(20)]


def test_where_the_first_answers_are_all_cut_off_before_a_label_no_more_are_asked_for(serving: Callable[..., Server]) -> None:
    """Each text costs $0.009 to read. What is cut off costs $0.040 for 20 tokens, and then $0.004 for what is not counted."""
    server = serving(thinking("ham", 300))
    with load(f"{server.url}#m") as teacher, AnswerStore() as store:
        how: dict[str, Any] = {"store": store, "concurrency": 2}
        found = label(teacher, MANY, ("ham", "spam"), spending=priced(), **how)
        cut = found.left_out(CUT_OFF)
        assert (len(server.bodies), len(cut), len(found.left_out(NO_ANSWER))) == (8, 8, 12)
        assert {MANY.index(one.text) for one in cut} != {*range(8)}, "they are drawn"
        assert found.partial == (
            "12 of 20 texts have no answer: all of the first 8 answers ended at the limit of 20 new tokens before a label"
        )
        assert label(teacher, MANY, ("ham", "spam"), spending=priced(), **how).partial == found.partial
        assert len(server.bodies) == 8
        spending = priced(5.0)
        whole = label(teacher, MANY, ("ham", "spam"), max_tokens=400, spending=spending, **how)
        assert (len(server.bodies), len(whole.labels), whole.partial) == (28, 20, "")
        assert spending.budget is not None
        assert whole.spent.cost_usd == pytest.approx(8 * 0.049 + 20 * 0.013) == spending.budget.spent_usd
        assert whole.spent.notes(teacher, store, spending) == (
            f"the cost of `{teacher.ref}` in total holds $0.392 for 8 answers asked for before with another limit",
        )


def test_what_more_room_cost_before_is_in_the_bill_and_in_the_budget(serving: Callable[..., Server]) -> None:
    """A text costs $0.009 to read, and all the room there is to think."""
    server = serving(thinking("ham", 5000))
    with load(f"{server.url}#m") as teacher, AnswerStore() as store:
        for max_tokens, usd in ((3000, 2 * 6.009), (2000, 2 * 6.009 + 2 * 4.009)):
            spending = priced(100.0)
            found = label(teacher, MANY[:2], ("ham", "spam"), store=store, spending=spending, max_tokens=max_tokens)
            assert spending.budget is not None
            assert found.spent.cost_usd == pytest.approx(usd) == spending.budget.spent_usd
    assert (found.spent.earlier_usd, len(server.bodies)) == (pytest.approx([6.009] * 2), 4)


def test_labels_that_were_paid_for_before_are_read_though_the_first_answers_are_all_cut_off(serving: Callable[..., Server]) -> None:
    server = serving(thinking("ham", 300))
    with load(f"{server.url}#m") as teacher, AnswerStore() as store:
        how: dict[str, Any] = {"store": store, "concurrency": 1}
        cut = [one.text for one in label(teacher, MANY, ("ham", "spam"), **how).left_out(CUT_OFF)]
        kept = next(text for text in MANY if text not in cut)
        (request,) = requests_for([kept], ("ham", "spam"))
        usage = Usage(prompt_tokens=9, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)
        whole = Completion(text="ham", finish_reason="stop", usage=usage)
        store.save_answer(teacher.digest, request, whole)
        found = label(teacher, MANY, ("ham", "spam"), **how)
    assert (len(server.bodies), [one.text for one in found.labels], len(found.left_out(NO_ANSWER))) == (8, [kept], 11)


def test_a_teacher_of_whom_some_answers_come_to_a_label_is_asked_about_all_texts(serving: Callable[..., Server]) -> None:
    server = serving(counted("ham", 9, 1), thinking("ham", 300))
    with load(f"{server.url}#m") as teacher, AnswerStore() as store:
        found = label(teacher, MANY, ("ham", "spam"), store=store, concurrency=1)
    assert (len(server.bodies), len(found.labels), found.partial) == (20, 1, "")


def test_credit_that_ends_leaves_the_labels_that_were_paid_for(serving: Callable[..., Server]) -> None:
    server = serving(*[counted("ham", 9, 1)] * 5, say(402, {"error": {"message": "no credit"}}))
    with load(f"{server.url}#m") as teacher, AnswerStore() as store:
        found = label(teacher, MANY, ("ham", "spam"), store=store, concurrency=1)
    assert (len(server.bodies), len(found.labels)) == (6, 5)
    assert found.partial == "15 of 20 texts have no answer: `127.0.0.1` answered 402: no credit"
    assert found.hint == "the account's credit is used up: look at the account"


def test_how_long_to_think_is_told_to_who_writes(serving: Callable[..., Server]) -> None:
    server = serving(counted("ham", 9, 1))
    with load(f"{server.url}#m") as teacher, AnswerStore() as store:
        label(teacher, MANY[:1], ("ham", "spam"), store=store, reasoning_effort="low")
    assert server.bodies[0]["reasoning_effort"] == "low"


def test_a_text_that_stands_there_twice_is_one_answer(serving: Callable[..., Server]) -> None:
    server = serving(write_labels(("prize", "spam"), ("noon", "ham")))
    texts = ["WIN a prize", "see you at noon", "WIN a prize"]
    for num_reused in (0, 2):
        found = labelled(f"{server.url}#m", texts)
        assert ([one.text for one in found.labels], found.spent.num_answers, found.spent.num_reused) == (texts, 2, num_reused)


def test_a_text_too_long_for_a_teacher_that_writes_is_left_out_and_told() -> None:
    from nomoat.errors import UnsupportedError

    class Writes(FakeEngine):
        def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
            raise UnsupportedError("writes only")

    texts = ["a", "b " * 90, "c"]
    answers = {request.messages[0].content: "ham" for request in requests_for(texts, ("ham", "spam"))}
    with AnswerStore() as store:
        found = label(Responder("short", Writes(answers=answers, context_tokens=50)), texts, ("ham", "spam"), store=store)
    assert ([one.text for one in found.labels], left_out(found, TOO_LONG_TEXT), found.partial) == (["a", "c"], ["b " * 90], "")


def test_a_text_too_long_for_the_cache_of_a_teacher_that_writes_is_left_out_and_told() -> None:
    from nomoat.errors import CacheExceededError, UnsupportedError

    class Writes(FakeEngine):
        def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
            raise UnsupportedError("writes only")

        def generate(self, request: Request) -> Iterator[Chunk]:
            if "b b" in request.messages[0].content:
                raise CacheExceededError("no room")
            return super().generate(request)

    texts = ["a", "b " * 90, "c"]
    answers = {request.messages[0].content: "ham" for request in requests_for(texts, ("ham", "spam"))}
    with AnswerStore() as store:
        found = label(Responder("short", Writes(answers=answers)), texts, ("ham", "spam"), store=store)
    assert ([one.text for one in found.labels], left_out(found, TOO_LONG_TEXT), found.partial) == (["a", "c"], ["b " * 90], "")


def test_one_text_and_labels_that_do_not_differ_are_refused_from_python() -> None:

    def refused(texts: Any, labels: Any) -> str:
        with AnswerStore() as store, pytest.raises(UsageError) as caught:
            label(Responder("fake:", FakeEngine()), texts, labels, store=store)
        return caught.value.message

    for given, kind in (("text", "str"), (None, "NoneType"), (7, "int")):
        assert refused(given, ["ham", "spam"]) == f"several texts are labelled at once, and this is one {kind}"
    for given, kind in (("ham", "str"), (7, "int")):
        assert refused(TEXTS, given) == f"several labels are there to choose from, and this is one {kind}"
    table = {"text": TEXTS, "label": ["ham", "spam"]}
    assert refused(table, ["ham", "spam"]) == "several texts are labelled at once, and of this dict only the names would be taken"
    assert refused([b"text"], ["ham", "spam"]) == "`texts[0]` is of the type bytes, not a text"
    others: dict[str, Any] = {"max_tokens": 0, "reasoning_effort": "x", "spending": 5, "progress": 5}
    for name, wrong in (*others.items(), ("max_tokens", "9")):
        with AnswerStore() as store, pytest.raises(UsageError, match=f"^`{name}` is {wrong!r}"):
            label(Responder("fake:", FakeEngine()), TEXTS, ("ham", "spam"), store=store, **{name: wrong})
    assert refused(TEXTS, ["ham", 1]) == "`labels[1]` is of the type int, not a text"
    with pytest.raises(UsageError, match="`store` is None"):
        label(Responder("fake:", FakeEngine()), TEXTS, ("ham", "spam"), store=None)  # type: ignore[arg-type]
    with AnswerStore() as store, pytest.raises(UsageError, match="`teacher` is 'fake:'"):
        label("fake:", TEXTS, ("ham", "spam"), store=store)  # type: ignore[arg-type]
    for labels, named in (([], "none"), (["ham"], "`ham`"), (["ham", "ham"], "`ham`"), (["a, b", "A, b."], "`a, b`, `A, b.`")):
        assert refused(TEXTS, labels) == f"the labels are {named}"
    assert len(labelled("fake:", (text for text in TEXTS), ("ham", "spam")).labels) == 3  # type: ignore[arg-type]


def test_empty_texts_and_cells_have_no_label_and_keep_their_places() -> None:
    import numpy as np

    class NAType:  # as pandas' is called
        pass

    empty = [None, "", float("nan"), np.float64("nan"), Decimal("sNaN"), NAType(), "\u200b"]
    found = labelled("fake:", ["WIN", *empty, "noon"], ("ham", "spam"))
    assert [isinstance(one, Label) for one in found.results] == [True, *[False] * len(empty), True]
    assert len(left_out(found, NO_TEXT)) == len(empty) and found.spent.num_answers == 2 and not found.partial
    with pytest.raises(UsageError, match="`texts\\[1\\]` is of the type int"):
        labelled("fake:", ["WIN", 5], ("ham", "spam"))


def test_labels_are_a_list_or_a_file_and_differ(tmp_path: Path) -> None:
    assert parse_labels("ham, spam ,ham") == parse_labels("ham，spam") == ("ham", "spam")
    (tmp_path / "labels.txt").write_text("긍정\n부정, 또는 그 비슷한 것\n", encoding="utf-8")
    assert parse_labels(str(tmp_path / "labels.txt")) == ("긍정", "부정, 또는 그 비슷한 것")
    assert parse_labels(decomposed("긍정,부정")) == ("긍정", "부정")
    many = [f"label_number_{number}" for number in range(77)]  # longer than any name of a file
    assert parse_labels(",".join(many)) == tuple(many)
    with pytest.raises(DataError, match="there is no such file"):
        parse_labels(str(tmp_path / "분류.txt"))
    for bad in ("ham", "Ham,ham.", ""):
        with pytest.raises(UsageError, match="the labels are"):
            parse_labels(bad)
