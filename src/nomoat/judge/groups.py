"""Which examples of a suite are one piece of evidence: those of one group, the turns of a conversation, and equal questions.

What this does not see: questions that are nearly the same, word for word or in what they mean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nomoat.joined import joined
from nomoat.judge import stats
from nomoat.judge.suite import Suite
from nomoat.records import Example, Message, Outcome
from nomoat.words import counted

MOST_TOO_NARROW = 0.05  # of an interval's width, by equal questions that count each: beyond, they are groups
WORTH_SAYING = 0.01
FEW_GROUPS = 10

Asked = tuple[tuple[Message, ...], tuple[str, ...]]


def groups_in(suite: Suite) -> dict[str, str]:
    """The group of each example, by its id; "" for one that is alone.

    Examples belong together that name one group, follow each other, or ask the same, and all that these join. Where nothing joins
    examples but a few equal questions, each counts by itself: a duel can then stop early, and `notes_on` says what that is worth.
    """
    examples, questions = suite.examples, _questions(suite)
    named = {example.group for example in examples if example.group}
    if not named and not any(example.follows for example in examples) and _too_narrow(questions) <= MOST_TOO_NARROW:
        return {example.id: "" for example in examples}
    first = {example.id: talk[0].id for talk in conversations_of(examples) for example in talk}
    keys = [
        [("conversation", first[example.id]), ("question", question), *([("group", example.group)] if example.group else [])]
        for example, question in zip(examples, questions, strict=True)
    ]
    groups: dict[int, list[Example]] = {}
    for example, number in zip(examples, joined(keys).tolist(), strict=True):
        groups.setdefault(number, []).append(example)
    return {example.id: _name_of(together, named) for together in groups.values() for example in together}


def _name_of(together: Sequence[Example], named: set[str]) -> str:
    told = next((example.group for example in together if example.group), "")
    if told or len(together) == 1:
        return told
    own = together[0].id
    return f"example {own}" if own in named else own


def conversations_of(examples: Sequence[Example]) -> list[list[Example]]:
    """Each example with those that follow it, and those that follow them."""
    first: dict[str, str] = {}
    found: dict[str, list[Example]] = {}
    for example in examples:
        first[example.id] = first.get(example.follows, example.id)
        found.setdefault(first[example.id], []).append(example)
    return list(found.values())


def grouped(outcomes: Sequence[Outcome], groups: Mapping[str, str]) -> tuple[Outcome, ...]:
    """The outcomes, each in the group of its example."""
    return tuple(replace(outcome, group=groups[outcome.example_id]) for outcome in outcomes)


def notes_on(suite: Suite, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """What has to be known of equal questions, and of examples that belong together, among those that the outcomes are of."""
    return (*_copies_note(suite, outcomes), *_group_note(outcomes))


def _copies_note(suite: Suite, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Nothing where equal questions change next to nothing."""
    questions = _questions(suite)
    num_copies, too_narrow = len(questions) - len(set(questions)), _too_narrow(questions)
    if too_narrow < WORTH_SAYING:
        return ()
    of_all = f"{num_copies:,} of the {counted(len(questions), 'question')} of `{suite.name}` are equal to one before them"
    if any(outcome.group for outcome in outcomes):
        return (f"{of_all}: equal questions are one group",)
    return (f"{of_all}, and count all the same: intervals are up to {100 * too_narrow:.0f} % too narrow",)


def groups_of(outcomes: Sequence[Outcome]) -> tuple[str, ...] | None:
    """The group of each outcome (its own, where it has none), or None if no two belong together."""
    groups = group_names(outcomes)
    return groups if len(set(groups)) < len(groups) else None


def group_names(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """The group of each outcome; one of its own, where it has none."""
    return tuple(f"group {outcome.group}" if outcome.group else f"example {outcome.example_id}" for outcome in outcomes)


def _group_note(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Nothing where no examples belong together."""
    groups = groups_of(outcomes)
    if groups is None:
        return ()
    if len(set(groups)) == 1:
        return (f"all {len(groups):,} examples are of one group: one piece of evidence, which leaves open what others would say",)
    note = f"{len(groups):,} examples in {len(set(groups)):,} groups that belong together: errors are those between groups"
    effective = stats.effective_groups(groups)
    if effective < FEW_GROUPS:
        note = f"{note}, which tell as much as {effective:.1f} of one size; of fewer than {FEW_GROUPS}, intervals can be too narrow"
    return (note,)


def _questions(suite: Suite) -> list[Asked]:
    """What each example asks: the whole conversation before it but for the answers, and the choices where those are compared."""
    before: dict[str, tuple[Message, ...]] = {}
    found = []
    for example in suite.examples:
        before[example.id] = (*before.get(example.follows, ()), *example.messages)
        found.append((before[example.id], example.choices if suite.metric == "choice" else ()))
    return found


def _too_narrow(questions: Sequence[Asked]) -> float:
    """The share of its width that an interval lacks at most, where equal questions count as independent.

    They are equally easy at most: the variance of a mean then grows by the mean number of copies, seen from each.
    """
    if not questions:
        return 0.0
    counts = Counter(questions).values()
    return 1 - math.sqrt(sum(counts) / sum(count**2 for count in counts))
