"""Before anything leaves this machine: say what, show one text, and ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from nomoat.cli import console
from nomoat.errors import UsageError
from nomoat.money import dollars
from nomoat.words import counted

if TYPE_CHECKING:
    from nomoat.asking.preview import Preview
    from nomoat.judge.settings import RunSettings
    from nomoat.judge.suite import Suite
    from nomoat.route.policy import Policy

SHOWN_CHARACTERS = 300


def require_consent(
    models: Sequence[str],
    suites: Sequence[Suite],
    settings: RunSettings,
    *,
    yes: bool,
    judge: str | None = None,
    check: str | None = None,
) -> None:
    """Say what a run would send to servers outside, and go on only if the person agrees, or agreed with --yes.

    A judge is sent the questions with both sides' answers, which are not known yet: that is said without a number of bytes. `check` is
    what it is checked on before (`--judge-check`).
    Servers on this machine are not asked about. Raises UsageError where nobody can be asked; ends the command if the answer is no.
    """
    from nomoat.providers import is_remote

    if not any(is_remote(model) for model in (*models, judge or "")):
        return
    from nomoat.judge.judged import asked_for_a_judge
    from nomoat.judge.preview import previews

    asked = suites if judge is None else [asked_for_a_judge(suite) for suite in suites]
    with console.waiting("looking up what is answered already"):
        found = [preview for suite in asked for preview in previews(models, suite, settings)]
    further, shown = [], []
    if judge is not None and (host := _outside_host(judge)) is not None:
        from nomoat.judge.agreement import labels_sent
        from nomoat.judge.preview import shown_to_judge

        answers = "its answers, twice," if len(models) > 1 else "its answer"  # pairs are shown in both orders
        further.append(f"each question with {answers} would go to {host}, for the judge `{judge}`")
        shown += [text for suite in asked for text in shown_to_judge(suite, limit=settings.limit, seed=settings.seed)]
        if check is not None:
            num_pairs, texts = labels_sent(check, seed=settings.seed)
            further.append(f"{num_pairs:,} labelled pairs of `{check}`, each twice, would go to {host}, to check the judge")
            shown += texts
    agree(found, further=further, shown=shown, yes=yes)


def agree(found: Sequence[Preview], *, further: Sequence[str] = (), shown: Sequence[str] = (), yes: bool) -> None:
    """Show what would be sent, in `further` lines what cannot be counted, and what of the texts `shown` to a judge looks private; go
    on only if the person agrees; see above. Raises what `load_policy` raises: its names and patterns count as private.
    """
    from nomoat.route.policy import load_policy

    lines = [*(_line(preview) for preview in found), *further]
    if not lines:
        return
    has_person = console.has_person()
    if yes or has_person:
        for line in [*lines, *_example([*(preview.first for preview in found), *shown])]:
            console.say(line)  # before the search, which takes its time where there are many
    policy = load_policy()
    private = [
        *_private([text for preview in found if not preview.are_parts for text in preview.texts], "", policy),
        *_private([text for preview in found if preview.are_parts for text in preview.texts], " parts of these texts", policy),
        *_private(shown, " questions, reference answers and labelled texts for the judge", policy),
    ]
    if not yes and not has_person:
        raise UsageError("; ".join([*lines, *private]), hint="if that is meant, add --yes")
    for line in private:
        console.say(line)
    if not yes and not typer.confirm("Send them?", err=True):
        console.say("nothing was sent")
        raise typer.Exit(1)


def _line(preview: Preview) -> str:
    cost = "cost not known" if preview.most_usd is None else f"at most {dollars(preview.most_usd)}"
    texts = counted(preview.num_texts, "text")
    return f"{texts} ({preview.num_bytes:,} bytes) would go to {preview.host}, for `{preview.model}`; {cost}"


def _example(texts: Sequence[str]) -> list[str]:
    """A line that shows the first of them."""
    first = " ".join(next(iter(texts), "").split())
    shown = first if len(first) <= SHOWN_CHARACTERS else first[:SHOWN_CHARACTERS] + "…"
    return [f"one of them: {shown}"] if first else []


def _private(texts: Sequence[str], what: str, policy: Policy) -> list[str]:
    """A line that says how many of them look private, and of which kinds, without a word of them; none where none does."""
    from nomoat.route import pii

    different = list(dict.fromkeys(texts))
    private = []
    with console.waiting("looking for personal data") as progress:
        for done, text in enumerate(different):
            progress(done, len(different))
            if found := pii.find(text, names=policy.names, patterns=policy.patterns):
                private.append(found)
    kinds = dict.fromkeys(pii.KIND_TITLES[kind] for found in private for kind in found)
    said = f"{len(private):,} of {len(different):,}{what} hold what looks like personal data: {', '.join(kinds)}"
    return [said] if private else []


def _outside_host(ref: str) -> str | None:
    """The host of a server that is not this machine."""
    from nomoat.engine.remote import RemoteEngine
    from nomoat.providers import is_remote
    from nomoat.responder import load

    if not is_remote(ref):
        return None
    with load(ref) as responder:
        return None if responder.is_local or not isinstance(responder.engine, RemoteEngine) else responder.engine.place
