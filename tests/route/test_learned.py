"""The learned router: what it learns from, when it refuses, and how it is kept."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import random
import re
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from nomoat import paths
from nomoat.asking.store import AnswerStore, default_path
from nomoat.errors import BadFileError, DataError
from nomoat.records import Outcome
from nomoat.route import learned, outcomes
from nomoat.route.frontier import auc
from nomoat.route.outcomes import Pair, Pairs

WORDS = ["moat", "castle", "river", "tower", "bridge", "gate", "stone", "water", "wall", "king"]


def prompts(start: str, count: int, seed: int) -> list[str]:
    chosen = random.Random(seed)
    return [f"{start} {' '.join(chosen.sample(WORDS, 4))} {at}" for at in range(count)]


def pairs(num_easy: int = 40, num_hard: int = 30) -> Pairs:
    """The local model knows what something is called, and cannot compute."""
    easy = [Pair(prompt=text, local_score=1.0, cloud_score=1.0) for text in prompts("what is the name of", num_easy, 1)]
    hard = [Pair(prompt=text, local_score=0.0, cloud_score=1.0) for text in prompts("compute the sum of", num_hard, 2)]
    return Pairs(local="ours", cloud="openai:theirs", local_digest="d1", pairs=(*easy, *hard))


@pytest.fixture(scope="module")
def router() -> learned.LearnedRouter:
    return learned.learn(pairs(), suites=("castle",), threshold=0.5)


def test_router_tells_what_local_can_from_what_it_cannot(router: learned.LearnedRouter) -> None:
    assert router.score("what is the name of this bridge") > 0.8
    assert router.score("compute the sum of these") < 0.2


def test_learning_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    learned.learn(pairs(), threshold=0.5, progress=lambda *so_far: told.append(so_far))
    assert told == [(0, 6), (1, 6), (2, 6), (3, 6), (4, 6), (5, 6)]


def test_short_steps_of_learning_are_not_shared_out_to_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    fit, counts = LogisticRegression.fit, set()

    def watched(self: object, *given: object) -> object:
        counts.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return fit(self, *given)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    with threadpool_limits(limits=2, user_api="blas"):
        learned.learn(pairs(), threshold=0.5)
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {2}
    assert counts == {1}


def test_routers_of_shuffled_scores_learn_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two threads begins one before either ends it; where threads are one, the wait of ten seconds is broken."""
    from sklearn.linear_model import LogisticRegression

    fit, together, counts = LogisticRegression.fit, threading.Barrier(2, timeout=10), list[int]()

    def watched(self: object, *given: object) -> object:
        if threading.current_thread() is not threading.main_thread() and not counts:
            together.wait()
            counts.append(max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"))
        return fit(self, *given)

    monkeypatch.setenv("NOMOAT_THREADS", "2")
    monkeypatch.setattr(LogisticRegression, "fit", watched)
    with threadpool_limits(limits=2, user_api="blas"):
        with pytest.raises(DataError, match="1 router of 39 reached as much"):
            learned.learn(by_lot(80), threshold=0.5)
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {2}
    assert counts in ([1], [1, 1])


def test_figures_are_those_of_prompts_not_seen(router: learned.LearnedRouter) -> None:
    figures = router.figures
    assert (figures.num_prompts, figures.num_local_as_good, figures.auc) == (70, 40, 1.0)
    assert (figures.share_local, figures.routed_score, figures.cloud_score) == (pytest.approx(40 / 70), 1.0, 1.0)
    assert figures.local_score == pytest.approx(40 / 70)


def test_frontier_is_that_of_prompts_not_seen(router: learned.LearnedRouter) -> None:
    """30 of 70 prompts need the cloud and are all sent first: the curve is at the top from there on."""
    frontier = router.figures.frontier
    assert frontier.gap.value == pytest.approx(30 / 70)
    assert frontier.apgr is not None
    assert frontier.apgr.value == pytest.approx(1 - 30 / 70 / 2)
    assert frontier.settings[-1].score.value == 1.0


def test_router_is_the_same_after_saving_and_loading(router: learned.LearnedRouter) -> None:
    assert learned.load_router() is None
    learned.save_router(router)
    loaded = learned.load_router()
    assert loaded is not None
    assert (loaded.figures, loaded.suites, loaded.local_digest) == (router.figures, ("castle",), "d1")
    for text in ("what is the name", "compute", "", "성벽은 왜 있나"):
        assert loaded.score(text) == pytest.approx(router.score(text), abs=1e-12)


def test_what_one_prompt_alone_has_is_not_kept_and_nobody_else_may_read_the_rest() -> None:
    found = pairs()
    private = Pair(prompt="what is the name of 박영희, 010-9876-4321", local_score=1.0, cloud_score=1.0)
    made = learned.learn(dataclasses.replace(found, pairs=(*found.pairs, private, private)), threshold=0.5)
    folder = learned.save_router(made)
    kept = (folder / "router.json").read_text(encoding="utf-8")
    assert "name" in kept
    assert not any(part in kept for part in ("박영", "영희", "9876", "4321"))
    if os.name == "posix":
        assert [path.stat().st_mode & 0o777 for path in (folder, folder / "router.json", folder / "weights.npz")] == [
            0o700,
            0o600,
            0o600,
        ]


def test_prompts_with_nothing_in_common_teach_nothing() -> None:
    few = [Pair(prompt=chr(0x4E00 + at), local_score=float(at % 2), cloud_score=1.0) for at in range(60)]
    with pytest.raises(DataError, match="no two prompts have anything in common"):
        learned.learn(Pairs(local="ours", cloud="openai:theirs", local_digest="d1", pairs=tuple(few)), threshold=0.5)


def sure() -> list[float]:
    """How sure the local model is of its answers to `pairs()`: more where it is good."""
    chosen = random.Random(3)
    return [chosen.gauss(3.0 if pair.local_as_good else -1.0, 2.0) for pair in pairs().pairs]


def test_router_by_answers_goes_by_how_sure_the_local_model_is_and_is_the_same_after_saving_and_loading() -> None:
    router = learned.learn(pairs(), sure=sure(), suites=("castle",), threshold=0.5)
    assert router.score_of(6.0) > 0.9 and router.score_of(-4.0) < 0.1
    assert (router.score_of(1e5), router.score_of(-1e5)) == (1.0, 0.0)
    assert 0.85 < router.figures.auc < 0.97  # what two such normal distributions overlap leaves 0.92
    assert (router.by, router.vocabulary) == ("answer", [])
    learned.save_router(router)
    loaded = learned.load_router()
    assert loaded is not None
    assert (loaded.by, loaded.figures) == ("answer", router.figures)
    assert loaded.score_of(0.5) == pytest.approx(router.score_of(0.5), abs=1e-12)


def test_router_by_answers_that_tell_nothing_is_refused() -> None:
    chosen = random.Random(4)
    with pytest.raises(DataError, match="nothing was learned"):
        learned.learn(pairs(), sure=[chosen.random() for _ in pairs().pairs], threshold=0.5)


@pytest.mark.parametrize("by", ["answer", "both", None])
def test_router_that_goes_by_something_else_than_its_parts_is_damaged(by: str | None, router: learned.LearnedRouter) -> None:
    written_anew(learned.save_router(router), by=by)
    with pytest.raises(BadFileError, match="its parts do not fit together"):
        learned.load_router()


def written_anew(folder: Path, **facts: object) -> None:
    path = folder / "router.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "weights.npz").unlink(),
        lambda folder: (folder / "weights.npz").write_bytes((folder / "weights.npz").read_bytes()[:200]),
        lambda folder: (folder / "weights.npz").write_bytes(b""),
        lambda folder: np.savez(folder / "weights.npz", idf=np.ones(3), weights=np.ones(3)),
        lambda folder: np.savez(folder / "weights.npz", idf=np.array([{}]), weights=np.array([{}])),
        lambda folder: (folder / "router.json").write_text("{"),
        lambda folder: (folder / "router.json").write_text("[]"),
        lambda folder: (folder / "router.json").write_text('{"version": "two"}'),
        lambda folder: (folder / "router.json").write_text("[" * 100_000),
        lambda folder: written_anew(folder, local=5),
        lambda folder: written_anew(folder, local_digest=None),
        lambda folder: written_anew(folder, suites=[{}]),
        lambda folder: (folder / "router.json").write_text((folder / "router.json").read_text().replace('"frontier"', '"edge"')),
    ],
)
def test_damaged_router_is_an_error_that_says_what_to_do(damage: object, router: learned.LearnedRouter) -> None:
    folder = learned.save_router(router)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(BadFileError, match=r"the learned router in `.*` is damaged") as raised:
        learned.load_router()
    assert raised.value.hint == "learn it again with `nomoat route learn`, or remove that folder"


@pytest.mark.parametrize(
    ("version", "which", "first"), [(1, "an older", ""), (2, "an older", ""), (99, "a newer", "update nomoat; or ")]
)
def test_router_of_another_nomoat_has_to_be_learned_again(version: int, which: str, first: str, router: learned.LearnedRouter) -> None:
    """Those of version 2 may hold what stood in one prompt alone."""
    folder = learned.save_router(router)
    facts = json.loads((folder / "router.json").read_text())
    (folder / "router.json").write_text(json.dumps({**facts, "version": version}))
    with pytest.raises(BadFileError) as raised:
        learned.load_router()
    assert (
        raised.value.message == f"the learned router in `{folder}` is of {which} nomoat: version {version} and not {learned.VERSION}"
    )
    assert raised.value.hint == (
        f"{first}duel again with this nomoat (`nomoat duel LOCAL CLOUD -s SUITE --all`), then `nomoat route learn`; "
        "or remove that folder"
    )


def test_arrays_of_objects_are_not_unpickled(router: learned.LearnedRouter) -> None:
    folder = learned.save_router(router)
    np.savez(folder / "weights.npz", idf=np.array([{}]), weights=np.array([{}]))
    with pytest.raises(BadFileError, match="allow_pickle=False"):
        learned.load_router()


def test_too_few_prompts_are_refused() -> None:
    with pytest.raises(DataError) as raised:
        learned.learn(pairs(20, 19), threshold=0.5)
    assert raised.value.message == "39 different prompts are too few to learn from: at least 40 are needed"
    assert raised.value.hint == "duel on more questions; until then the policy alone decides"


def test_equal_prompts_count_once() -> None:
    one = pairs(39, 0).pairs
    with pytest.raises(DataError, match="39 different prompts are too few"):
        learned.learn(dataclasses.replace(pairs(), pairs=one * 5), threshold=0.5)


@pytest.mark.parametrize(("counts", "default", "shown"), [((50, 9), "local", "50 of 59"), ((9, 50), "cloud", "9 of 59")])
def test_one_model_that_is_nearly_always_as_good_needs_no_router(counts: tuple[int, int], default: str, shown: str) -> None:
    with pytest.raises(DataError) as raised:
        learned.learn(pairs(*counts), threshold=0.5)
    assert raised.value.message == f"nothing to learn: `ours` is as good as `openai:theirs` on {shown} prompts"
    assert raised.value.hint == f'the policy alone decides, and `default = "{default}"` suits these models'


def test_router_no_better_than_chance_is_refused() -> None:
    """Labels drawn by lot, with a fixed seed: no chance of a false alarm."""
    lot = random.Random(3)
    rows = tuple(Pair(prompt=text, local_score=float(lot.random() < 0.5), cloud_score=0.5) for text in prompts("say", 80, 4))
    with pytest.raises(DataError, match=r"nothing was learned: .* AUC 0\.\d\d \[0\.\d\d, 0\.\d\d\] over 80 prompts"):
        learned.learn(dataclasses.replace(pairs(), pairs=rows), threshold=0.5)


def by_lot(seed: int) -> Pairs:
    """40 prompts, and scores that have nothing to do with them."""
    lot = random.Random(seed)
    rows = [Pair(prompt=text, local_score=float(lot.random() < 0.5), cloud_score=0.5) for text in prompts("say", 40, seed + 1000)]
    return dataclasses.replace(pairs(), pairs=tuple(rows))


def test_router_that_others_equal_which_learned_from_shuffled_scores_is_refused() -> None:
    """One draw of those whose AUC's interval lies above chance, [0.58, 0.88]; the seed is fixed: no chance of a false alarm."""
    told: list[tuple[int, int]] = []
    with pytest.raises(DataError) as raised:
        learned.learn(by_lot(80), threshold=0.5, progress=lambda *so_far: told.append(so_far))
    assert raised.value.message == (
        "nothing was learned: the router's AUC of 0.76 on prompts it had not seen is not told from chance: "
        "1 router of 39 reached as much that learned from shuffled scores"
    )
    assert (told[5], told[6], told[-1], len(told)) == ((5, 6), (5, 201), (200, 201), 6 + 5 * 39 + 1)


def test_shuffled_scores_are_learned_as_well_as_those_that_a_lot_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is nothing to learn, one router is as good as the others: of 8 draws, in 13 shuffles each, those that do better are
    half of all. The mean share of 8 is outside 0.2 to 0.8 with a probability of 0.4 %; the seeds are fixed.
    """
    monkeypatch.setattr(learned, "NUM_SHUFFLES", 13)  # more tell each share of a draw better, and draws differ by far more
    shares = []
    for seed in range(8):
        found = by_lot(seed).pairs
        texts, good, groups = [pair.prompt for pair in found], np.array([pair.local_as_good for pair in found]), np.arange(40)
        value = auc(learned.unseen_chances(texts, good, groups), good, groups).value
        shares.append(np.mean(learned.shuffled_aucs(texts, good, groups) >= value))
    assert 0.2 < np.mean(shares) < 0.8


def test_shuffled_scores_stay_alike_within_groups_and_as_many_in_each_fold() -> None:
    groups = np.repeat(np.arange(30), 3)
    good = np.repeat(np.arange(30) % 3 == 0, 3)
    for seed in range(5):
        shuffled = learned._shuffled(good, groups, np.random.default_rng(seed))
        assert shuffled.sum() == 30 and (shuffled.reshape(30, 3) == shuffled[::3, None]).all()
        assert (shuffled != good).any()
    turns = np.tile([True, False], 20)
    swapped = learned._shuffled(turns, np.repeat(np.arange(20), 2), np.random.default_rng(0))
    assert swapped.sum() == 20 and (swapped.reshape(20, 2).sum(axis=1) == 1).all()
    assert (swapped != turns).any()  # groups of one pattern: within each, too
    uneven = learned._shuffled(np.array([True, True, False]), np.array([0, 0, 1]), np.random.default_rng(3))
    assert uneven.tolist() in ([True, True, False], [False, False, True])


def passages(count: int, each: int) -> tuple[Pair, ...]:
    """Questions on texts of their own words; the local model knows a text or does not, which only those who know the text can tell."""
    chosen = random.Random(6)
    rows = []
    for at in range(count):
        text = " ".join("".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(12))
        score = float(at % 2)
        rows += [Pair(prompt=f"{text} question {n}", local_score=score, cloud_score=1.0, group=f"s1 {at}") for n in range(each)]
    return tuple(rows)


def test_questions_on_one_text_are_not_learned_from_and_tried_on_at_once() -> None:
    """Texts learned by heart say nothing of other texts. Fixed seeds: no chance of a false alarm."""
    grouped = passages(40, 4)
    alone = tuple(dataclasses.replace(pair, group="") for pair in grouped)
    assert learned.learn(dataclasses.replace(pairs(), pairs=alone), threshold=0.5).figures.auc > 0.95
    with pytest.raises(DataError, match="nothing was learned"):
        learned.learn(dataclasses.replace(pairs(), pairs=grouped), threshold=0.5)


def test_questions_on_few_texts_are_refused() -> None:
    with pytest.raises(DataError) as raised:
        learned.learn(dataclasses.replace(pairs(), pairs=passages(18, 4)), threshold=0.5)
    assert raised.value.message == "the 36 prompts that `ours` is as good at are of only 9 groups: at least 10 are needed"
    assert raised.value.hint == "duel on questions about more texts; until then the policy alone decides"


def test_equal_prompts_and_those_of_a_group_are_joined_and_so_is_what_they_join() -> None:
    named = [("a", "1"), ("b", "1"), ("b", "2"), ("c", "2"), ("d", ""), ("d", ""), ("1", ""), ("e", "3")]
    rows = [Pair(prompt=prompt, local_score=0.0, cloud_score=0.0, group=group) for prompt, group in named]
    assert learned.groups_of(rows).tolist() == [0, 0, 0, 0, 1, 1, 2, 3]


# ---------------------------------------------------------------- outcomes
def keep(model: str, digest: str, scores: dict[str, float], suite: str = "s1", metric: str = "exact") -> None:
    rows = [Outcome(suite="castle", example_id=name, model=model, answer="", score=score) for name, score in scores.items()]
    with AnswerStore() as store:
        store.save_outcomes(suite, metric, digest, rows)


PROMPTS = {"s1": {"1": "one", "2": "two", "3": "three"}}
DUEL = "nomoat duel ours openai:theirs --suite castle --all"
read_pairs = functools.partial(outcomes.read_pairs, names={"s1": "castle", "s2": "moat"}, duel=DUEL)


def test_pairs_are_the_examples_that_both_models_answered() -> None:
    keep("ours", "d1", {"1": 1.0, "2": 0.0})
    keep("openai:theirs", "d2", {"2": 1.0, "3": 1.0})
    assert read_pairs("ours", "openai:theirs", PROMPTS) == Pairs(
        local="ours", cloud="openai:theirs", local_digest="d1", pairs=(Pair(prompt="two", local_score=0.0, cloud_score=1.0),)
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewerOutcome(Outcome):
    confidence: float = 0.5


def test_pairs_are_read_from_what_a_newer_nomoat_kept() -> None:
    with AnswerStore() as store:
        for model in ("ours", "openai:theirs"):
            one = NewerOutcome(suite="castle", example_id="1", model=model, answer="", score=1.0)
            store.save_outcomes("s1", "exact", f"digest of {model}", [one])
    assert read_pairs("ours", "openai:theirs", PROMPTS).pairs == (Pair(prompt="one", local_score=1.0, cloud_score=1.0),)


def test_pairs_know_which_text_they_are_about() -> None:
    """Texts of two suites may have the same name."""
    for suite in ("s1", "s2"):
        for model, digest in (("ours", "d1"), ("openai:theirs", "d2")):
            rows = [
                Outcome(suite="castle", example_id=name, model=model, answer="", score=1.0, group=group)
                for name, group in (("1", "moat"), ("2", ""))
            ]
            with AnswerStore() as store:
                store.save_outcomes(suite, "exact", digest, rows)
    found = read_pairs("ours", "openai:theirs", {suite: {"1": "one", "2": "two"} for suite in ("s1", "s2")})
    assert [pair.group for pair in found.pairs] == ["s1 moat", "", "s2 moat", ""]


def test_of_a_model_asked_in_two_versions_the_last_counts() -> None:
    for digest, score in (("z-old", 0.0), ("a-new", 1.0)):
        keep("ours", digest, {"1": score})
    keep("openai:theirs", "d2", {"1": 1.0})
    found = read_pairs("ours", "openai:theirs", PROMPTS)
    assert (found.local_digest, found.pairs[0].local_score) == ("a-new", 1.0)


def test_scores_of_different_metrics_are_never_compared() -> None:
    """A grade of 7 is no better than a right answer, which is 1."""
    keep("ours", "d1", {"1": 7.0}, metric="grade")
    keep("openai:theirs", "d2", {"1": 1.0})
    with pytest.raises(DataError) as raised:
        read_pairs("ours", "openai:theirs", PROMPTS)
    assert raised.value.message == (
        "`ours` and `openai:theirs` answered the same questions of `castle`, and nothing compares their scores: they are of different "
        "metrics, or a judge's verdicts against other models"
    )
    assert raised.value.hint == f"`{DUEL}`"


def test_of_several_metrics_the_last_that_both_have_counts() -> None:
    for model, digest, score in (("ours", "d1", 0.0), ("openai:theirs", "d2", 1.0)):
        keep(model, digest, {"1": score})
    for model, digest, score in (("ours", "d1", 8.0), ("openai:theirs", "d2", 3.0)):
        keep(model, digest, {"1": score}, metric="grade")
    keep("ours", "d1", {"1": 0.5}, metric="judged")
    assert read_pairs("ours", "openai:theirs", PROMPTS).pairs == (Pair(prompt="one", local_score=8.0, cloud_score=3.0),)


def test_verdicts_on_pairs_with_other_models_do_not_count() -> None:
    """`ours` won against a third model, `theirs` against a fourth."""
    for model, digest in (("ours", "d1"), ("openai:theirs", "d2")):
        keep(model, digest, {"1": 1.0, "2": 0.5}, metric="judged")
    with pytest.raises(DataError, match="nothing compares their scores"):
        read_pairs("ours", "openai:theirs", PROMPTS)
    keep("ours", "d1", {"1": 0.0}, metric="judged")
    assert [pair.local_score for pair in read_pairs("ours", "openai:theirs", PROMPTS).pairs] == [0.0, 0.5]


def test_grades_and_scores_are_not_put_together() -> None:
    for suite, metric in (("s1", "grade"), ("s2", "exact")):
        keep("ours", "d1", {"1": 1.0}, suite, metric)
        keep("openai:theirs", "d2", {"1": 1.0}, suite, metric)
    with pytest.raises(DataError, match="one of these suites was graded from 1 to 10 and another scored from 0 to 1"):
        read_pairs("ours", "openai:theirs", {"s1": {"1": "one"}, "s2": {"1": "one"}})


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("has_table", [False, True])
def test_models_that_never_met_are_sent_to_a_duel(asked: bool, has_table: bool) -> None:
    """Of a table another duel may have asked for other labels: whoever fought it is told why it does not count."""
    if asked:
        keep("ours", "d1", {"1": 1.0})
    with pytest.raises(DataError) as raised:
        read_pairs("ours", "openai:theirs", PROMPTS, has_table=has_table)
    assert raised.value.message == "no outcomes of `ours` and `openai:theirs` on the same questions of `castle`"
    remark = "; of a table, the question depends on the models named together" if has_table else ""
    assert raised.value.hint == f"fight it first: `{DUEL}`{remark}"
    assert asked or not paths.runs().exists()


def test_a_suite_they_never_fought_over_is_named_and_not_passed_over() -> None:
    for model, digest in (("ours", "d1"), ("openai:theirs", "d2")):
        keep(model, digest, {"1": 1.0})
    with pytest.raises(DataError) as raised:
        read_pairs("ours", "openai:theirs", {"s1": {"1": "one"}, "s2": {"1": "one"}})
    assert raised.value.message == "no outcomes of `ours` and `openai:theirs` on the same questions of `moat`"
    assert raised.value.hint == f"fight it first: `{DUEL}`"


def test_suites_answered_by_different_versions_are_not_mixed() -> None:
    for suite, digest in (("s1", "d1"), ("s2", "d9")):
        keep("ours", digest, {"1": 1.0}, suite)
        keep("openai:theirs", "d2", {"1": 1.0}, suite)
    with pytest.raises(DataError, match="`ours` was not the same model in each of these suites") as raised:
        read_pairs("ours", "openai:theirs", {"s1": {"1": "one"}, "s2": {"1": "one"}})
    assert raised.value.hint == f"repeat the duels: `{DUEL}`"


@pytest.mark.parametrize("what", ["text", "row"])
def test_store_that_cannot_be_read_is_named(what: str) -> None:
    path = default_path()
    if what == "text":
        path.parent.mkdir(parents=True)
        path.write_text("no database" * 100)
    else:
        with AnswerStore() as store:
            store.save_outcomes("s1", "exact", "d1", [Outcome(suite="s", example_id="1", model="ours", answer="", score=1.0)])
        db = sqlite3.connect(path)
        db.execute("UPDATE outcomes SET outcome = ?", (json.dumps({"model": "ours", "new": 1}),))
        db.commit()
        db.close()
    with pytest.raises(BadFileError, match=f"`{re.escape(str(path))}` is damaged"):
        read_pairs("ours", "openai:theirs", PROMPTS)
