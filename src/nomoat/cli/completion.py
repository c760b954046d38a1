"""What a shell offers for what is being typed: models and suites by their names, and the values of an option.

A shell asks at every press of Tab: what takes long to import has no place here. Paths are the shell's own to offer. Not covered: bash
goes on with no reference once its `:` is typed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from nomoat.config import QUALITIES
from nomoat.errors import NomoatError


def _offer(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    def offer(incomplete: str) -> list[str]:
        try:
            return [name for name in names() if name.startswith(incomplete)]
        except (NomoatError, OSError, ValueError):  # the command itself says what is wrong
            return []

    return offer


def _tuned() -> list[str]:
    from nomoat.catalog import tuned

    found = []
    for folder in tuned.adapters():
        with suppress(NomoatError):  # a broken one says so when it is asked for
            if base := tuned.base_of(tuned.provenance_of(folder)):
                found.append(f"{base}+{folder.name}")
    return found


def _here() -> list[str]:
    from nomoat.catalog import pull

    return [*(model.ref for model in pull.installed()), *_tuned()]


def _to_pull() -> list[str]:
    from nomoat.catalog import cards

    return [card.id for card in cards.cards() if card.sources]


def _known() -> list[str]:
    from nomoat.catalog import cards

    return list(dict.fromkeys([*(card.id for card in cards.cards()), *_here()]))


def _own_suites() -> list[str]:
    from nomoat.judge.suite_files import own_suites

    return list(own_suites())


def _suites() -> list[str]:
    from nomoat.judge.builtin import BUILT_IN

    return [*BUILT_IN, *_own_suites()]


def _metrics() -> tuple[str, ...]:
    from nomoat.judge.metrics import WRITABLE

    return WRITABLE


def _templates() -> list[str]:
    from nomoat.engine.templates import NAMED

    return list(NAMED)


models_here, models_known, models_to_pull, models_tuned = map(_offer, (_here, _known, _to_pull, _tuned))
suites, own_suites = _offer(_suites), _offer(_own_suites)
metrics, qualities, templates = map(_offer, (_metrics, lambda: QUALITIES, _templates))
