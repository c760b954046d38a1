"""The models a server answers with: some loaded by others, some loaded when they are first asked for, within a memory budget.

When the budget is full, the model that has been idle the longest is unloaded; never one that is answering.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from nomoat import hardware
from nomoat import responder as responders
from nomoat.errors import NotEnoughMemoryError, UnknownModelError, UsageError
from nomoat.responder import Responder

MEMORY_SHARE = 0.8  # of what is free when the server starts
Load = Callable[[Sequence[str]], Sequence[Responder]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """Models that are loaded together, because they share their weights. `load` gives one responder for each name."""

    names: tuple[str, ...]
    planned_bytes: int
    load: Callable[[], Sequence[Responder]]


def from_references(
    refs: Sequence[str], *, memory_bytes: int | None = None, context_tokens: int | None = None, load: Load | None = None
) -> Models:  # fmt: skip
    """The models of references, under their shown names, loaded when they are first asked for; several of one base on one copy of it.

    `memory_bytes` None: MEMORY_SHARE of what is free now. `load` loads references that share their weights, one or several.
    Raises UnknownModelError for what is not there, NotEnoughMemoryError for what could never be loaded.
    """
    if memory_bytes is None:
        memory_bytes = int(hardware.memory_available_bytes().value * MEMORY_SHARE)
    loaders = []
    for group in responders.groups(refs):
        names = tuple(responders.shown_name(ref) for ref in group)
        planned = responders.planned_bytes(group[0], context_tokens)
        loaders.append(Loader(names=names, planned_bytes=planned, load=functools.partial(load or _load, group)))
    return Models(loaders=loaders, memory_bytes=memory_bytes)


def _load(refs: Sequence[str]) -> Sequence[Responder]:
    return responders.load_sharing(refs) if len(refs) > 1 else [responders.load(refs[0])]


@dataclass(slots=True)
class _Unit:
    """Models that come and go together. Without a loader they stay: they are their maker's."""

    loader: Loader | None
    responders: dict[str, Responder] = field(default_factory=dict)
    users: int = 0
    is_loading: bool = False
    used_at: int = 0

    @property
    def planned_bytes(self) -> int:
        return self.loader.planned_bytes if self.loader else 0


class Models:
    """See the module. Safe to call from several threads."""

    def __init__(
        self, given: Mapping[str, Responder] | None = None, loaders: Sequence[Loader] = (), *, memory_bytes: int | None = None
    ) -> None:  # fmt: skip
        self._units = {name: _Unit(None, {name: responder}) for name, responder in (given or {}).items()}
        for loader in loaders:
            if memory_bytes is not None and loader.planned_bytes > memory_bytes:
                raise NotEnoughMemoryError(
                    f"`{loader.names[0]}` needs about {loader.planned_bytes / 1e9:.1f} GB, "
                    f"and the budget is {memory_bytes / 1e9:.1f} GB",
                    hint="give more with `--memory`, or shorten the context with `-c`",
                )
            unit = _Unit(loader)
            self._units |= dict.fromkeys(loader.names, unit)
        if not self._units:
            raise UsageError("there is no model to serve")
        self._memory_bytes = memory_bytes
        self._changed = threading.Condition()
        self._clock = 0

    @property
    def names(self) -> list[str]:
        """What clients may ask for."""
        return list(self._units)

    def find(self, name: str | None) -> str:
        """The name a request means; None means the only one there is. Raises UnknownModelError."""
        if name is None and len(self._units) == 1:
            return next(iter(self._units))
        known = f"known: {', '.join(self._units)}"
        if name is None:
            raise UnknownModelError("the request names no model", hint=known)
        if name not in self._units:
            raise UnknownModelError(f"there is no model `{name}` here", hint=known)
        return name

    def loaded(self) -> dict[str, Responder]:
        """The models in memory now, for what can be said of them; not to be asked anything."""
        with self._changed:
            return {name: unit.responders[name] for name, unit in self._units.items() if name in unit.responders}

    @contextmanager
    def use(self, name: str) -> Iterator[Responder]:
        """The model, loaded now if need be; it stays until the block ends. Raises what loading raises."""
        unit = self._units[name]
        self._begin(unit)
        try:
            yield unit.responders[name]
        finally:
            with self._changed:
                unit.users -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Unload what was loaded here."""
        with self._changed:
            for unit in self._units.values():
                if unit.loader is not None:
                    _unload(unit)

    def _begin(self, unit: _Unit) -> None:
        with self._changed:
            while not unit.responders:
                if unit.is_loading or not self._has_room(unit):
                    self._changed.wait()
                else:
                    unit.is_loading = True
                    break
            self._clock += 1
            unit.used_at = self._clock
            unit.users += 1
            if not unit.is_loading:
                return
        self._load(unit)

    def _load(self, unit: _Unit) -> None:
        assert unit.loader is not None
        try:
            made = dict(zip(unit.loader.names, unit.loader.load(), strict=True))
        except BaseException:
            with self._changed:
                unit.users -= 1
                unit.is_loading = False
                self._changed.notify_all()
            raise
        with self._changed:
            unit.responders = made
            unit.is_loading = False
            self._changed.notify_all()

    def _has_room(self, unit: _Unit) -> bool:
        """Whether this one may be loaded now; unloads idle ones for it. The caller holds the lock."""
        if self._memory_bytes is None:
            return True
        while True:
            there = list({id(one): one for one in self._units.values() if one.responders or one.is_loading}.values())
            if sum(one.planned_bytes for one in [*there, unit]) <= self._memory_bytes:
                return True
            idle = [one for one in there if one.loader and not one.users]
            if not idle:
                return False
            _unload(min(idle, key=lambda one: one.used_at))


def _unload(unit: _Unit) -> None:
    for responder in unit.responders.values():
        responder.close()
    unit.responders = {}
