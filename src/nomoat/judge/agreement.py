"""How far a judge agrees with labels that people, or another judge, gave before: measured first, printed with every verdict.

Labels: `vicuna80` (GPT-4's stored reviews of 2023: which of two answers scored higher), or a JSONL file of yours, one pair a line:
{"question": "…", "answer_a": "…", "answer_b": "…", "winner": "a"}, winner being a, b or tie.

What this does not cover: the labels' own noise. Two people agree on 81 % of MT-bench's pairs that neither calls a tie (Zheng et al.
2023), and GPT-4's reviews were written in one order only.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nomoat import paths, whole_files
from nomoat.errors import BadFileError, DataError, UsageError
from nomoat.judge import stats, wording
from nomoat.judge.model_judge import LOSS, TIE, WIN, Judge, Pair, PairVerdict
from nomoat.judge.stored_reviews import load_reviews
from nomoat.judge.verdict import score_interval
from nomoat.records import Message
from nomoat.textfiles import as_named, read_jsonl

NUM_PAIRS = 100
LOCAL_PAIRS = 40  # a judge of 1.5 billion parameters reads a pair, in both orders, for about 15 seconds on two cores
VICUNA = "vicuna80"
VICUNA_PAIRS = tuple(("vicuna-13b", other) for other in ("gpt35", "bard", "alpaca-13b", "llama-13b"))
LABELLED_LINE = '{"question": "…", "answer_a": "…", "answer_b": "…", "winner": "a"}'
WINNERS = {"a": WIN, "b": LOSS, "tie": TIE}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPairs:
    """Pairs, and for each who won by the labels: 1 for the first, 0 for the second, 0.5 for neither. `whose` says whose labels."""

    pairs: tuple[Pair, ...]
    labels: tuple[float, ...]
    whose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What a judge said of labelled pairs: 1, 0.5 or 0 for each, beside the label, the question it is about (pairs on one question
    are not independent), and who won by the length of its answer alone. `num_unread` pairs more got no verdict that can be read.
    """

    whose: str
    verdicts: tuple[PairVerdict, ...]
    labels: tuple[float, ...]
    questions: tuple[str, ...]
    longer: tuple[float, ...]
    num_unread: int = 0

    @property
    def scores(self) -> list[float]:
        """The judge's, one for each pair."""
        return [verdict.score for verdict in self.verdicts]

    @property
    def num_pairs(self) -> int:
        """How many pairs have a label."""
        return len(self.labels)

    @property
    def commonest(self) -> int:
        """What one would reach who always said the commonest label."""
        return Counter(self.labels).most_common(1)[0][1]

    @property
    def groups(self) -> tuple[str, ...]:
        """What of the pairs is one piece of evidence: the question; each pair alone, where all share one."""
        return self.questions if len(set(self.questions)) > 1 else tuple(str(at) for at in range(self.num_pairs))

    @property
    def both_decided(self) -> int:
        """Pairs of which neither the label nor the judge says tie."""
        return sum(TIE not in pair for pair in zip(self.scores, self.labels, strict=True))

    @property
    def same_share(self) -> str:
        """Of all pairs, those of which the judge says what the label says."""
        return share([score == label for score, label in zip(self.scores, self.labels, strict=True)], self.groups)

    @property
    def agreed_share(self) -> str:
        """Of the pairs where both name a winner, those where it is the same."""
        rows = [(a == b, group) for a, b, group in zip(self.scores, self.labels, self.groups, strict=True) if TIE not in (a, b)]
        return share([is_same for is_same, _ in rows], [group for _, group in rows]) if rows else "never"

    @property
    def longer_is_right(self) -> tuple[int, int]:
        """How often the longer answer won, and of how many pairs: those whose label names a winner, and whose lengths differ."""
        rows = [(one, label) for one, label in zip(self.longer, self.labels, strict=True) if TIE not in (one, label)]
        return sum(one == label for one, label in rows), len(rows)

    @property
    def kappa(self) -> float:
        """Agreement beyond chance, ties included: see `stats.cohens_kappa`."""
        return stats.cohens_kappa(self.scores, self.labels)

    @property
    def kappa_interval(self) -> stats.Interval:
        """Drawn by what is one piece of evidence."""
        return stats.cohens_kappa_interval(self.scores, self.labels, self.groups)

    @property
    def is_beyond_chance(self) -> bool:
        """Whether the pairs tell the judge from one that looks at nothing: kappa's interval and dealing out the labels say so."""
        return self.kappa_interval[0] > 0 and stats.agreement_by_chance(self.scores, self.labels) <= (1 - stats.CONFIDENCE) / 2

    @property
    def sentence(self) -> str:
        """The agreement in words, with intervals, and what chance would reach."""
        decided = "it never named a winner where the labels did"
        if self.both_decided:
            right, n = self.longer_is_right
            longer = f"; always the longer answer: {100 * right / n:.0f} %" if n else ""
            decided = f"where both name a winner, the same one in {self.agreed_share} (chance: 50 %{longer})"
        low, high = self.kappa_interval
        beyond = "" if self.is_beyond_chance else ", which is not known to be better than chance"
        unread = [f"{self.num_unread:,} more got a verdict that could not be read"] if self.num_unread else []
        orders = "; ".join([order_words(self.verdicts, self.groups), *unread])
        return (
            f"agreement with {self.whose}, {self.num_pairs:,} pairs: {decided}; ties included, {self.same_share} "
            f"(always the commonest label: {100 * self.commonest / self.num_pairs:.0f} %), "
            f"kappa {self.kappa:.2f} [{low:.2f}, {high:.2f}]{beyond}; {orders}"
        )


def order_words(verdicts: Sequence[PairVerdict], groups: Sequence[str]) -> str:
    """How often both orders gave the same verdict, and how often the answer shown first won of those that won at all.

    Of equal answers, which are not shown, it says how many there were. Pairs of one group, such as a question, are one piece of
    evidence; so are the two showings of a pair.
    """
    consistent, first = order_shares(verdicts, groups)
    num_equal = sum(not verdict.is_asked for verdict in verdicts)
    equal = f"{num_equal:,} of {len(verdicts):,} pairs were equal answers: ties, and not shown"
    parts = [f"both orders gave the same verdict in {consistent}"] if consistent else []
    parts += [f"the answer shown first won {first} of the decided showings"] if first else []
    return "; ".join([*parts, *([equal] if num_equal else [])])


def order_shares(verdicts: Sequence[PairVerdict], groups: Sequence[str]) -> tuple[str, str]:
    """The two shares of `order_words`, of the pairs that were shown; each is empty where there are none."""
    rows = [(verdict, group) for verdict, group in zip(verdicts, groups, strict=True) if verdict.is_asked]
    showings = [(side == "A", group) for one, group in rows for side in (one.first, one.second) if side in ("A", "B")]
    consistent = share([verdict.is_consistent for verdict, _ in rows], [group for _, group in rows]) if rows else ""
    return consistent, share([is_first for is_first, _ in showings], [group for _, group in showings]) if showings else ""


def load_labels(source: str, *, num_pairs: int = NUM_PAIRS, seed: int = 0) -> LabelledPairs:
    """The labelled pairs of `vicuna80` or of a JSONL file; at most `num_pairs` of them, drawn with `seed`.

    Raises DataError with file and line, UsageError for what is neither, and what `pull_dataset` raises.
    """
    if source == VICUNA:
        rows, whose = _vicuna_rows(), "GPT-4's stored reviews (vicuna80)"
    elif (path := as_named(source)).exists():
        rows, whose = _file_rows(path), f"the labels of {path.name}"
    else:
        raise UsageError(
            f"`{source}`: there is no such file of labels to check a judge with",
            hint=f"name `{VICUNA}`, or a JSONL file of lines {LABELLED_LINE}",
        )
    chosen = random.Random(seed).sample(rows, min(num_pairs, len(rows)))
    return LabelledPairs(pairs=tuple(pair for pair, _ in chosen), labels=tuple(label for _, label in chosen), whose=whose)


def labels_sent(source: str, *, seed: int) -> tuple[int, tuple[str, ...]]:
    """How many labelled pairs a judge outside is shown, and the texts of a user's file of them; those of `vicuna80` are published.

    Raises what `load_labels` raises for a file.
    """
    if source == VICUNA:
        return NUM_PAIRS, ()
    pairs = load_labels(source, num_pairs=NUM_PAIRS, seed=seed).pairs
    return len(pairs), tuple(message.content for pair in pairs for message in (*pair.one, pair.other[-1]))


def measure(judge: Judge, labelled: LabelledPairs) -> Agreement | None:
    """Ask the judge about the labelled pairs, and compare; None if there is not one verdict that can be read."""
    return compare(judge.pairs(labelled.pairs), labelled)


def compare(verdicts: Sequence[PairVerdict | None], labelled: LabelledPairs) -> Agreement | None:
    """Verdicts on labelled pairs beside their labels; None if there is not one that can be read."""
    rows = [
        (verdict, label, pair)
        for verdict, label, pair in zip(verdicts, labelled.labels, labelled.pairs, strict=True)
        if verdict is not None and verdict.is_readable
    ]
    if not rows:
        return None
    return Agreement(
        whose=labelled.whose,
        verdicts=tuple(verdict for verdict, _, _ in rows),
        labels=tuple(label for _, label, _ in rows),
        questions=tuple(pair.one[0].content for _, _, pair in rows),
        longer=tuple(by_length(pair).score for _, _, pair in rows),
        num_unread=sum(verdict is not None and not verdict.is_readable for verdict in verdicts),
    )


def by_length(pair: Pair) -> PairVerdict:
    """What a judge would say that only counts characters."""
    one, other = len(pair.one[-1].content), len(pair.other[-1].content)
    first, second = ("C", "C") if one == other else ("A", "B") if one > other else ("B", "A")
    return PairVerdict(first=first, second=second)


def remember(judge_digest: str, agreement: Agreement) -> None:
    """Keep what was measured of a judge, to be printed with its later verdicts."""
    with whole_files.alone(_path()):  # another one's may be measured at the same time
        kept = {**_kept(), judge_digest: agreement.sentence}
        with whole_files.whole_file(_path()) as part:
            part.write_text(json.dumps(kept, ensure_ascii=False, indent=2), encoding="utf-8", newline="\n")


def remembered(judge_digest: str) -> str | None:
    """What was measured of a judge the last time; None if nothing was."""
    return _kept().get(judge_digest)


def _path() -> Path:
    return paths.runs() / "judges.json"


def _kept() -> dict[str, str]:
    try:
        return dict(json.loads(_path().read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as exc:
        raise BadFileError(f"`{_path()}` cannot be read: {exc}", hint="remove it; judges are then to be checked again") from exc


def _vicuna_rows() -> list[tuple[Pair, float]]:
    from nomoat.catalog.datasets import pull_dataset

    folder = pull_dataset(VICUNA)
    questions = {str(row["question_id"]): str(row["text"]) for _, row in read_jsonl(folder / "question.jsonl")}
    rows = []
    for left, right in VICUNA_PAIRS:
        reviews = load_reviews(VICUNA, folder, left, right)
        answers = [
            {str(row["question_id"]): str(row["text"]) for _, row in read_jsonl(folder / "answer" / f"answer_{name}.jsonl")}
            for name in (reviews.left, reviews.right)
        ]
        for number, (one, other) in reviews.scores.items():
            label = WIN if one > other else LOSS if one < other else TIE
            rows.append((_pair(questions[number], answers[0][number], answers[1][number]), label))
    return rows


def _file_rows(path: Path) -> list[tuple[Pair, float]]:
    rows = []
    for line, row in read_jsonl(path):
        *texts, winner = (row.get(name) for name in ("question", "answer_a", "answer_b", "winner"))
        if not all(isinstance(text, str) and text for text in (*texts, winner)) or winner not in WINNERS:
            raise DataError(
                f"`{path}`, line {line}: a labelled pair has `question`, `answer_a`, `answer_b`, and a `winner`: a, b or tie",
                hint=f"write the line as {LABELLED_LINE}",
            )
        rows.append((_pair(*map(str, texts)), WINNERS[winner]))
    return rows


def _pair(question: str, one: str, other: str) -> Pair:
    asked = Message(role="user", content=question)
    return Pair(
        one=(asked, Message(role="assistant", content=one)),
        other=(asked, Message(role="assistant", content=other)),
    )  # fmt: skip


def share(counted: Sequence[bool], groups: Sequence[str]) -> str:
    """A count as a share with its interval, that between groups where some share one: "12 of 20 = 60 % [39, 78]"."""
    count, n = sum(counted), len(counted)
    shared = groups if len(set(groups)) < n else None
    low, high = score_interval("exact", [float(counts) for counts in counted], groups=shared)
    value, low, high = 100 * count / n, 100 * low, 100 * high
    digits = wording.decimals_of(0, value, low, high)
    return f"{count:,} of {n:,} = {value:.{digits}f} % [{low:.{digits}f}, {high:.{digits}f}]"
