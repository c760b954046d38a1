"""The models a server answers with: some loaded by others, some loaded when they are first asked for, within a memory budget.

When the budget is full, the model that has been idle the longest is unloaded; never one that is answering.
"""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from nomoat import bounds, hardware, references
from nomoat import responder as responders
from nomoat.catalog import memory
from nomoat.engine import KvCache
from nomoat.engine.source import open_source
from nomoat.errors import NO_TEMPLATE, NomoatError, NoTemplateError, SettingError, UnknownModelError, UsageError
from nomoat.records import Request
from nomoat.responder import Responder
from nomoat.serve.sharing import stopped
from nomoat.textfiles import composed
from nomoat.words import first_few

HEARTBEAT_SECONDS = 0.5  # between looks whether whoever waits has gone
NAMED = 5  # models in a line of the log
MEMORY_SHARE = 0.8  # of what is free when the server starts
Load = Callable[[Sequence[str]], Sequence[Responder]]

log = logging.getLogger("nomoat.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """Models that are loaded together, because they share their weights. `load` returns for each name, in order, a responder or
    the error that kept it from loading.

    `planned_bytes` is all they may hold, no more than the `memory_bytes` of their `Models`; `cache_bytes` of it are their KV cache's,
    where that is to be bounded. `is_local`: whether prompts for them stay on this machine; None where that is not known before they
    are loaded. `chats`, `question`: of a name that is not loaded, see `Models.chats`, `Models.questions`.
    """

    names: tuple[str, ...]
    planned_bytes: int
    load: Callable[[], Sequence[Responder | NomoatError]]
    cache_bytes: int | None = None
    is_local: Callable[[], bool | None] = lambda: None
    chats: Callable[[str], bool | None] = lambda name: None
    question: Callable[[str], str | None] = lambda name: None


def from_references(
    refs: Sequence[str], *, memory_bytes: int | None = None, context_tokens: int | None = None, load: Load | None = None,
    template: str | None = None, auto_local: str | None = None,
) -> Models:  # fmt: skip
    """The models of references, under their shown names, loaded when they are first asked for; several of one base on one copy of it.

    `memory_bytes` None: MEMORY_SHARE of what is free now. `load` loads references that share their weights, one or several; without
    it `auto` is refused, which only layers above can load. It sees to `context_tokens` itself, and to a chat template that is named
    for all of them, the `template`. `auto_local` is the model on this machine that `auto` answers with.
    Raises UnknownModelError for what is not there, NotEnoughMemoryError for what could never be loaded, UsageError for two that
    would have one name, SettingError for a server whose key is not set.
    """
    if load is None and references.AUTO in refs:
        raise UsageError(
            "`auto` cannot be loaded here", hint="`from nomoat.route.router import load_auto`, then `nomoat.serve(load_auto())`"
        )
    context_tokens = responders.checked_context(context_tokens)
    load = load or functools.partial(_load, context_tokens=context_tokens)
    memory_bytes = int(memory.room().value * MEMORY_SHARE) if memory_bytes is None else bounds.whole("memory_bytes", memory_bytes)
    _require_names_of_their_own(refs)
    for ref in filter(references.names_server, refs):
        references.require_key(ref)
    groups = responders.groups(refs)
    held = [auto_local if group[0] == references.AUTO and auto_local is not None else group[0] for group in groups]
    foreseen = [_foresee(ref, context_tokens) for ref in held]
    needs = [need for need, _ in foreseen]
    spare_bytes = _spare_bytes([need.total_bytes for need in needs if need is not None], memory_bytes)
    loaders = []
    for group, ref, (need, own) in zip(groups, held, foreseen, strict=True):
        names = tuple(references.shown_name(ref) for ref in group)
        refs_of = dict(zip(names, group, strict=True))
        planned, cache = 0, None
        if need is not None:
            memory.require_budget(names[0], need, memory_bytes)
            cache = need.cache_within(min(memory_bytes, need.total_bytes + spare_bytes))
            planned = need.total_bytes - need.kv_cache_bytes + cache
        loader = Loader(
            names=names, planned_bytes=planned, cache_bytes=cache, is_local=functools.partial(references.is_local, group[0]),
            load=functools.partial(_load_what_can_be, load, group),
            chats=functools.partial(_chats, refs_of, template, own),
            question=functools.partial(_question, refs_of | {names[0]: ref}),
        )  # fmt: skip
        loaders.append(loader)
    return Models(loaders=loaders, memory_bytes=memory_bytes)


def _foresee(ref: str, context_tokens: int | None) -> tuple[memory.MemoryNeed | None, str | None]:
    """Of weights on this disk the memory that they will take, and the chat template that they bring, "" where it cannot be read."""
    if not references.names_weights(ref):
        return None, None
    source = open_source(references.find_files(ref).weights)
    try:
        own = source.chat_template
    except NomoatError:
        own = ""
    return responders.memory_need(source, context_tokens), own


def _spare_bytes(needed: Sequence[int], memory_bytes: int) -> int:
    """How much more than its need each model may take, so that models which fit together do not push each other out: an equal part of
    what the budget has left beside as many models as can be in memory together, were they the largest. If no two fit, each has all.
    """
    num_together = sum(total <= memory_bytes for total in itertools.accumulate(sorted(needed)))
    if num_together <= 1:
        return memory_bytes
    largest = sum(sorted(needed)[-num_together:])
    return max(0, memory_bytes - largest) // num_together


def _require_names_of_their_own(refs: Sequence[str]) -> None:
    shown: dict[str, str] = {}
    for ref in dict.fromkeys(refs):
        name = references.shown_name(ref)
        if name in shown:
            raise UsageError(f"`{shown[name]}` and `{ref}` would both be called `{name}`", hint="rename one of the two")
        shown[name] = ref


def _is_local(loaded: Responder | None, loader: Loader) -> bool | None:
    try:
        return loader.is_local() if loaded is None else loaded.is_local
    except UsageError:
        return False


def _load(refs: Sequence[str], *, context_tokens: int | None) -> Sequence[Responder]:
    if len(refs) > 1:
        return responders.load_sharing(refs, context_tokens=context_tokens)
    return [responders.load(refs[0], context_tokens=context_tokens, as_client=False)]


def _load_what_can_be(load: Load, refs: Sequence[str]) -> Sequence[Responder | NomoatError]:
    """What `load` loads: where it fails for adapters that are gone or damaged, without these. Raises what else it fails for."""
    try:
        return load(refs)
    except NomoatError as error:
        if len(refs) == 1:
            raise
        failure = copy.copy(error)  # without frames, which hold what was loaded
    found = [responders.what_is_wrong(ref) for ref in refs]
    sound = [ref for ref, wrong in zip(refs, found, strict=True) if wrong is None]
    if len(sound) in (0, len(refs)):
        raise failure
    loaded = iter(load(sound))
    return [wrong or next(loaded) for wrong in found]


def _chats(refs: Mapping[str, str], template: str | None, own: str | None, name: str) -> bool | None:
    """None also where a template cannot be read: whoever loads it says so."""
    with suppress(NomoatError, OSError):
        if references.names_weights(refs[name]):
            found = references.find_files(refs[name]).template_text(asked=template, own=own)
            return None if found == "" else found is not None
    return None


def _question(refs: Mapping[str, str], name: str) -> str | None:
    """None also where the adapter's facts cannot be read: whoever loads it says so."""
    with suppress(NomoatError):
        return references.find_files(refs[name]).question if references.names_weights(refs[name]) else None
    return None


@contextmanager
def _of_this_server() -> Iterator[None]:
    """What cannot be meant of what is loaded, such as of a policy, was said here and not by the client that asks."""
    try:
        yield
    except UsageError as error:
        raise SettingError(error.message, hint=error.hint) from error


def _give_back_freed() -> None:
    """What was freed, to the system: other threads load the next model."""
    gc.collect()
    hardware.give_back_freed_memory()


@dataclass(slots=True, eq=False)
class _Unit:
    """Models that come and go together. One that is given stays: it is its maker's.

    `missing`: those that were not loaded when the others were last, and why.
    """

    loader: Loader
    responders: dict[str, Responder] = field(default_factory=dict)
    is_given: bool = False
    missing: dict[str, NomoatError] = field(default_factory=dict)
    users: int = 0
    is_loading: bool = False  # by one of its users
    used_at: int = 0  # when the last of its users left, by the clock of `Models`


@dataclass(slots=True, eq=False)
class _Turn:
    """Someone who wants a model, what is set when they have gone, and whether it is theirs to use or to load."""

    unit: _Unit
    stop: threading.Event
    has_come: bool = False


class Models:
    """See the module. Safe to call from several threads."""

    def __init__(
        self, given: Mapping[str, Responder] | None = None, loaders: Sequence[Loader] = (), *, memory_bytes: int | None = None
    ) -> None:  # fmt: skip
        self._units: dict[str, _Unit] = {}
        for name, responder in (given or {}).items():
            self._units[name] = _Unit(Loader(names=(name,), planned_bytes=0, load=tuple), {name: responder}, is_given=True)
        for loader in loaders:
            unit = _Unit(loader)
            self._units |= dict.fromkeys(loader.names, unit)
        if not self._units:
            raise UsageError("there is no model to serve", hint="name one: `nomoat serve smollm2-135m`; `nomoat models` lists them")
        self.on_unload: Callable[[Mapping[str, Responder]], None] | None = None  # told what is closed next; may not ask for models
        self._memory_bytes = memory_bytes
        self._changed = threading.Condition()
        self._has_freed = False  # what is not given back to the system yet
        self._listed = threading.Lock()  # held for a moment only: the server's event loop lists models
        self._waiting: list[_Turn] = []  # in the order in which they came
        self._clock = 0

    @property
    def names(self) -> list[str]:
        """What clients may ask for."""
        return list(self._units)

    def find(self, name: str | None) -> str:
        """The name a request means; None means the only one there is. Raises UnknownModelError."""
        if name is None and len(self._units) == 1:
            return next(iter(self._units))
        all_known = f"known: {', '.join(self._units)}"
        if name is None:
            raise UnknownModelError("the request names no model", hint=all_known)
        if name not in self._units:  # macOS writes Korean in parts
            name = next((known for known in self._units if composed(known) == composed(name)), name)
        if name not in self._units:
            raise UnknownModelError(f"there is no model `{name}` here", hint=all_known)
        return name

    def loaded(self) -> dict[str, Responder]:
        """The models in memory now, for what can be said of them; not to be asked anything."""
        with self._listed:
            return {name: unit.responders[name] for name, unit in self._units.items() if name in unit.responders}

    def local(self) -> dict[str, bool | None]:
        """Of each model whether prompts for it stay on this machine by now: see `Loader`; not where `gateways` cannot be meant."""
        there = self.loaded()
        return {name: _is_local(there.get(name), unit.loader) for name, unit in self._units.items()}

    def chats(self, names: Sequence[str]) -> dict[str, bool | None]:
        """Whether each of these models has a chat template, see `Responder.chats`; of those not in memory by their files."""
        there = self.loaded()
        return {name: there[name].chats if name in there else self._units[name].loader.chats(name) for name in names}

    def require_template(self, name: str, request: Request) -> None:
        """Raise NoTemplateError for a chat that this model, which is not in memory, would refuse: no other is unloaded for that.

        One with functions may have a template of its own, of which the model knows once it is loaded.
        """
        if request.messages and not request.tools and name not in self.loaded() and self.chats([name])[name] is False:
            hint = "use `POST /v1/completions`, or `--template NAME` (in Python: `template`) for the one it was tuned with"
            raise NoTemplateError(NO_TEMPLATE, hint=hint)

    def questions(self, names: Sequence[str]) -> dict[str, str]:
        """What those of these models learned to answer that were tuned on a table: see `labelling.kept_question`. Of those not in
        memory it is read from their files, which takes about a millisecond each."""
        there = self.loaded()
        known = {name: there[name].question if name in there else self._units[name].loader.question(name) for name in names}
        return {name: question for name, question in known.items() if question is not None}

    def kv_caches(self) -> dict[str, KvCache]:
        """What keys and values take of each model in memory; where models share them, of the first of these."""
        with self._listed:
            firsts = [next(iter(unit.responders.items())) for unit in dict.fromkeys(self._units.values()) if unit.responders]
        found = {name: responder.engine.kv_cache for name, responder in firsts}
        return {name: cache for name, cache in found.items() if cache is not None}

    @contextmanager
    def use(self, name: str, stop: threading.Event | None = None) -> Iterator[Responder]:
        """The model, loaded now if need be; it stays until the block ends. Who waits for room is served before all who come later, but
        for those who want the same model.

        Raises what loading raises (SettingError for UsageError: see `_of_this_server`), and StoppedError if `stop` is set before the
        model is there; then it is not loaded for nobody.
        """
        unit = self._units[name]
        with _of_this_server():
            self._begin(unit, stop)
        try:
            with _of_this_server():
                if name in unit.missing:
                    raise copy.copy(unit.missing[name])  # the kept one holds no frames, whoever asks
            yield unit.responders[name]
        finally:
            with self._changed:
                self._leave(unit)

    def close(self) -> None:
        """Unload what was loaded here."""
        with self._changed:
            for unit in self._units.values():
                if not unit.is_given:
                    self._unload(unit)

    def _begin(self, unit: _Unit, stop: threading.Event | None) -> None:
        """Become a user of it, once it is there."""
        stop = stop or threading.Event()
        turn = _Turn(unit, stop)
        with self._changed:
            if unit.is_given:  # needs no room, and makes none
                unit.users += 1
                return
            self._waiting.append(turn)
            try:
                self._admit()
                while not stop.is_set() and (unit.is_loading or not turn.has_come):
                    self._changed.wait(HEARTBEAT_SECONDS)
                if stop.is_set():
                    raise stopped()
            except BaseException:
                self._give_up(turn)
                raise
            if unit.responders:
                return
            unit.is_loading = True
        self._load(unit)

    def _load(self, unit: _Unit) -> None:
        began = time.perf_counter()
        try:
            if self._has_freed:
                self._has_freed = False
                _give_back_freed()
            found = dict(zip(unit.loader.names, unit.loader.load(), strict=True))
            made = {name: one for name, one in found.items() if isinstance(one, Responder)}
            missing = {name: copy.copy(one) for name, one in found.items() if isinstance(one, NomoatError)}
            for name, wrong in missing.items():
                log.warning("`%s` is not loaded, and the others of its base are: %s", name, wrong.message)
            if (cache_bytes := unit.loader.cache_bytes) is not None:
                for responder in made.values():
                    responder.bound_cache(cache_bytes)
            _give_back_freed()  # what was needed for loading only
        except BaseException:
            with self._changed:
                unit.is_loading = False
                self._leave(unit)
            raise
        log.info("loaded %s in %.1f s", first_few(list(made), NAMED), time.perf_counter() - began)
        with self._changed:
            with self._listed:
                unit.responders, unit.missing = made, missing
            unit.is_loading = False
            self._changed.notify_all()

    # The callers of what follows hold the lock.
    def _admit(self) -> None:
        """Give their turn to all who want the model of the first in the row, as long as there is room for that model."""
        self._waiting = [turn for turn in self._waiting if not turn.stop.is_set()]
        for unit in dict.fromkeys(turn.unit for turn in self._waiting):
            if not self._has_room(unit):
                break
            come = [turn for turn in self._waiting if turn.unit is unit]
            self._waiting = [turn for turn in self._waiting if turn.unit is not unit]
            for turn in come:
                turn.has_come = True
            unit.users += len(come)
        self._changed.notify_all()

    def _leave(self, unit: _Unit) -> None:
        unit.users -= 1
        self._clock += 1
        unit.used_at = self._clock
        self._admit()

    def _give_up(self, turn: _Turn) -> None:
        if turn.has_come:
            self._leave(turn.unit)
        else:
            self._waiting = [other for other in self._waiting if other is not turn]
            self._admit()

    def _has_room(self, unit: _Unit) -> bool:
        """Whether this one may be used now; unloads idle ones for it."""
        if self._memory_bytes is None or unit.responders or unit.users:
            return True
        while True:
            there = {one for one in self._units.values() if one.responders or one.users}
            if sum(one.loader.planned_bytes for one in [*there, unit]) <= self._memory_bytes:
                return True
            idle = [one for one in there if one.loader.planned_bytes and not one.users]
            if not idle:
                return False
            self._unload(min(idle, key=lambda one: one.used_at), why=f"to make room for {first_few(unit.loader.names, NAMED)}")

    def _unload(self, unit: _Unit, *, why: str | None = None) -> None:
        """`why`: for the log; None at the end, which tells of itself."""
        with self._listed:
            gone, unit.responders = unit.responders, {}
            if self.on_unload is not None:
                self.on_unload(gone)
        for responder in gone.values():
            responder.close()
        if gone:
            if why:
                log.info("unloaded %s %s", first_few(list(gone), NAMED), why)
            self._has_freed = True
