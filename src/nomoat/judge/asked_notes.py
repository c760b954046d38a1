"""What has to be known of the answers that one model gave to a suite: which are missing, cut off or reused, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nomoat import references
from nomoat.asking.answers import notes_of
from nomoat.asking.room import other_room_note
from nomoat.errors import BudgetReachedError
from nomoat.judge import wording
from nomoat.judge.kept import KeptEngine, named_otherwise
from nomoat.words import counted, first_few

if TYPE_CHECKING:
    from nomoat.judge.asking import Asking
    from nomoat.records import Outcome

MOST_KINDS = 4  # of exceptions, and of examples, that a note names


def missing(run: Asking) -> str:
    """Why some questions have no answer; empty if all have one."""
    if run.failure is None or isinstance(run.failure, BudgetReachedError):
        return run.failure.message if run.failure else ""
    return f"{counted(run.num_failed, 'question')} got no answer: {run.failure.message}"


def left_out(run: Asking) -> str:
    """Why some kept answers are not among them; empty if all are. Those that are may be the ones that took little thought."""
    if not run.num_left_out:
        return ""
    total = len(run.kept_ids or ()) + run.num_left_out
    return (
        f"{run.num_left_out:,} of {total:,} kept answers of `{run.asked_as}` are left out: "
        f"within less room than {run.max_new_tokens:,} new tokens they were cut off, or what they follow was"
    )


def unbegun(run: Asking) -> str:
    """Why the answers tell little of the model: most of them ended before they began. Empty if they did not."""
    if 2 * run.num_unbegun <= len(run.examples):
        return ""
    num_unasked = len(run.suite.examples) - len(run.examples)
    those = "kept answers" if isinstance(run.model.engine, KeptEngine) else "answers"
    said = (
        f"{run.num_unbegun:,} of {len(run.examples):,} {those} of `{run.asked_as}` were cut off within the limit of "
        f"{run.max_new_tokens:,} new tokens with nothing in them, or reasoning alone"
    )
    return f"{said}; {counted(num_unasked, 'question')} more were not asked" if run.is_in_vain and num_unasked else said


def unread(run: Asking) -> str:
    """Why the answers tell little of the model: most of them are read as none of the choices. Empty if they are not."""
    if 2 * len(run.unread) <= len(run.examples):
        return ""
    said = wording.unread_words(len(run.unread), len(run.examples), run.asked_as)
    return wording.cut_words(said, len(run.unread), len(run.unread_cut), run.max_new_tokens)


def tells_little(run: Asking) -> str:
    """Why no winner may be named over these answers; empty if one may."""
    return unbegun(run) or unread(run) or mispaired(run, more_than=len(run.examples) / 4)


def mispaired(run: Asking, *, more_than: float = 0) -> str:
    """That kept answers may be to other questions than those that they are held against; empty if no `more_than` so many seem so."""
    if not isinstance(run.model.engine, KeptEngine):
        return ""
    num, total = sum(map(run.has_other_target, run.examples)), len(run.examples)
    if num <= more_than:
        return ""
    return (
        f"{num:,} of {total:,} answers are paired by an id whose question had other right answers in `{run.model.engine.suite}`: "
        "it may be another question"
    )


def _kept_notes(run: Asking) -> Iterator[str]:
    """What has to be known of kept answers."""
    if not isinstance(run.model.engine, KeptEngine):
        return
    count = f"{len(run.kept(run.model.engine, run.suite.examples)):,} of {len(run.suite.examples):,}"
    yield f"`{run.model.ref}` is not asked: it has answered {count} of these questions before, and those answers are used"
    suite = run.model.engine.suite
    if num_other := sum(map(run.is_in_other_words, run.examples)):
        yield f"{num_other:,} of {len(run.examples):,} questions were asked in other words in `{suite}`: answers are paired by id"
    if (why := mispaired(run)) != tells_little(run):
        yield why
    if num_other := sum(map(run.has_other_room, run.examples)):
        total = len(run.examples)
        yield f"{num_other:,} of {total:,} questions had another limit of new tokens, or other stops, in `{suite}`"
    if run.version is not None:
        yield from named_otherwise(run.model.engine, run.version)


def _program_notes(run: Asking) -> Iterator[str]:
    """How the programs of answers of code ended, and which tests say nothing of an answer."""
    ended = Counter(ran.outcome for ran in run.ran.values())
    if ended.total() > ended["passed"]:
        yield (
            f"programs of `{run.model.ref}`: {ended['failed']:,} of {len(run.ran):,} failed, {ended['out of time']:,} ran out of time "
            f"and {ended['out of memory']:,} out of memory; `--json` shows what each said (in Python: `Outcome.said`)"
        )
        if kinds := Counter(re.split(r"[:(]", ran.said)[0].strip() for ran in run.ran.values() if ran.outcome == "failed"):
            said = first_few([f"{kind} {num:,}" for kind, num in kinds.most_common()], MOST_KINDS)
            yield f"programs of `{run.model.ref}` that failed said: {said}"
    if untested := [f"`{example_id}`" for example_id, passes in run.tried.items() if passes]:
        yield (
            f"the tests of {first_few(untested, MOST_KINDS)} pass without any answer: what is in functions that "
            "nothing calls, or below `if __name__ == '__main__':`, is not run"
        )


def notes(run: Asking, earlier: Sequence[Outcome] = ()) -> Iterator[str]:
    """A sentence each, those first that say that the score is of a part, or tells little. `earlier`: see `Asking.asked_earlier`."""
    if why := missing(run):
        total = len(run.suite.examples)
        yield f"PARTIAL: {len(run.examples):,} of {total:,} questions were answered by `{run.model.ref}`: {why}"
    for why in filter(None, (left_out(run), tells_little(run))):
        yield f"PARTIAL: {why}"
    yield from notes_of(run.model, run.store, num_reused=run.num_reused)
    yield from run.settings.spending.pricing(run.model).lost_note(run.model.ref, run.lost)
    yield from run.settings.spending.notes()
    if named := run.model.template:
        yield f"chat template of `{run.model.ref}`: {named.value}, {named.reason}"
    elif run.settings.template and references.names_weights(run.model.ref) and not isinstance(run.model.engine, KeptEngine):
        yield f"chat template of `{run.model.ref}`: its own; `{run.settings.template}` is used only for models that have none"
    if (effort := run.settings.reasoning_effort) is not None and any(request.reasoning_effort for request in run.asked):
        yield f"`{run.model.ref}` was asked for the reasoning effort `{effort}`"
    yield from _kept_notes(run)
    if run.num_filtered:
        yield (
            f"{run.num_filtered:,} of {len(run.examples):,} questions were stopped by the content filter of `{run.model.ref}`: "
            "what it wrote, or nothing, counts as its answer"
        )
    if run.num_cached_tokens and run.settings.spending.may_cost(run.model) and run.settings.spending.pricing(run.model).rates:
        yield (
            f"{run.num_cached_tokens:,} tokens of prompts were in the cache of `{run.model.ref}`, and are reckoned at the full price: "
            "its bill may be lower"
        )
    yield from other_room_note(run.model.ref, [outcome.cost_usd for outcome in earlier if outcome.cost_usd is not None])
    yield from run.settings.spending.uncounted_note(run.model, sum(outcome.cost_usd is None for outcome in run.outcomes))
    itself = "naming the model itself, " if isinstance(run.model.engine, KeptEngine) else ""
    if run.num_cut:
        yield (
            f"{run.num_cut:,} of {len(run.examples):,} answers of `{run.model.ref}` ended at the limit of "
            f"{run.max_new_tokens} new tokens ({itself}`--max-tokens`, in Python: `max_new_tokens`, gives more)"
        )
    if run.num_cut_before:
        yield (
            f"{run.num_cut_before:,} of {len(run.examples):,} answers of `{run.model.ref}` were cut off by its server, which "
            f"counted fewer new tokens than the limit of {run.max_new_tokens}: a limit of its own, or thinking that it "
            f"does not count ({itself}`--max-tokens`, in Python: `max_new_tokens`, gives more)"
        )
    yield from _program_notes(run)
    if run.writes_choices:
        how = "it wrote a letter" if run.lettered else "it wrote its choice"
        note = f"`{run.model.ref}` gives no likelihoods: {how}"
        yield f"{note}; {len(run.unread):,} of {len(run.outcomes):,} answers were none of them" if run.unread else note
