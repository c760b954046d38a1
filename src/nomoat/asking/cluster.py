"""How a Ray cluster is reached, here or elsewhere, and which of its machines work. Raises WorkerError for what is not there."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import nomoat
from nomoat import bounds, config, net, references
from nomoat.catalog import tuned
from nomoat.errors import MissingExtraError, NomoatError, UnknownModelError, UsageError, WorkerError
from nomoat.textfiles import as_named
from nomoat.words import counted

OBJECT_STORE_BYTES = 100 * 2**20
START_SECONDS = 120.0  # for a worker's process, without any model
LOOK_SECONDS = 5.0  # from one look at a cluster's head to the next
GONE_SECONDS = 15.0  # it does not answer for so long, and has gone; after 60 Ray itself ends this process, and nothing is kept
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
NOBODY = "http://127.0.0.1:9"  # only root could listen there
OWN_PROXIES = "NOMOAT_OWN_PROXIES"  # in the environment of what Ray starts: what `PROXIES` were, as JSON
ADVICE = "Some common causes include"  # begins what Ray says to its own users of a worker that died
SENT_SETTINGS = ("quality", "context_tokens", "offline")  # what changes answers, or who may be asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a worker runs. `share` is how many workers that machine has, `wave` which of them this one is."""

    node_id: str
    host: str
    address: str
    cpus: float
    share: int
    wave: int


@dataclass(slots=True, kw_only=True)
class Hand:
    """A worker as this process sees it."""

    actor: Any
    place: Place
    num_under_way: int = 0
    is_alive: bool = True


@contextmanager
def connection(num_workers: int | None, address: str | None, *, what: str) -> Iterator[Any]:
    """Ray, connected to the cluster at `address`, or to one of this process. It ends with the block, unless it was there before.

    Raises UsageError for no workers or no address, MissingExtraError (`what` needs it), OfflineError for machines that may not be
    asked, WorkerError, also where somebody imported Ray first and it would begin here.
    """
    if num_workers is not None and bounds.whole("workers", num_workers) < 1:
        raise UsageError(f"the number of workers is {num_workers}", hint="give a whole number of at least 1")
    address = None if address is None else _checked_address(address)
    ray = import_ray(on_loopback=address is None, what=what)
    was_connected = ray.is_initialized()
    session = None if was_connected else connect(ray, address)
    try:
        yield ray
    finally:
        begun = [] if session is None else _begun(session)
        if not was_connected:
            ray.shutdown()
        for process in begun:  # where its head has gone, Ray leaves some behind
            with suppress(psutil.Error):
                process.kill()
        if session is not None:
            _remove(session)


def _begun(session: Path) -> list[psutil.Process]:
    """The processes of a Ray of ours: those that name its folder, and theirs, which have other names."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(session.name in word for word in child.cmdline()):
                found += [child, *child.children(recursive=True)]
    return found


def _remove(session: Path) -> None:
    """The folder of a Ray of ours that has ended: logs that nobody reads; and the link that says it is the latest."""
    shutil.rmtree(session, ignore_errors=True)
    latest = session.with_name("session_latest")
    with suppress(OSError):  # another Ray may begin or end at any time, and the link be its own
        if latest.readlink().name == session.name:
            latest.unlink()


def import_ray(*, on_loopback: bool, what: str) -> Any:
    """The module `ray`, without its telemetry. `on_loopback`: only processes of this machine will be able to reach it.

    Raises MissingExtraError, for `what`, where it is not installed.
    """
    net.silence_telemetry()
    # Ray would print what it says of a dead worker on stdout, where `--json` prints; the notes say it.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    if on_loopback:
        _require_unread(sys.modules.get("ray"))
        # Whoever reaches the ports of Ray may run code here: they are on 127.0.0.1 (as on Windows and macOS, where Ray does this by
        # itself), and ask for a token, which keeps other users of this machine out. Ray reads all this at its import.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as exc:
        raise MissingExtraError(extra="ray", what=what) from exc
    return ray


def _require_unread(ray: Any) -> None:
    """Raise WorkerError where Ray was imported by others, who did not have it ask for a token, and it has not begun yet."""
    if ray is not None and not ray.is_initialized() and os.environ.get("RAY_AUTH_MODE") != "token":
        raise WorkerError(
            "Ray was imported before its workers could be kept to this machine, and reads its settings only then",
            hint="import ray after nomoat's first workers; or start a cluster yourself (`ray start --head`) and name its address",
        )


def _checked_address(given: str) -> str:
    """`auto` or HOST:PORT. Raises UsageError for any other address, OfflineError for a machine that may not be asked."""
    address = (os.environ.get("RAY_ADDRESS") or given) if given == "auto" else given  # as Ray reads it
    if address == "auto":
        return address
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        what = "Ray Client, which nomoat does not use" if address.startswith("ray://") else "no cluster"
        raise UsageError(
            f"`{address}` is the address of {what}",
            hint="run nomoat on a machine of the cluster, with --ray (in Python: `ray`) auto or HOST:PORT (its head's, often 6379)",
        )
    _require_allowed(host)
    return address


def connect(ray: Any, address: str | None) -> Path | None:
    """Begin. Returns the folder of a Ray that was started here and is nobody else's. Raises WorkerError."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    found = address
    try:
        if address is None:
            with _reaching_nobody():
                began = ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
            session = began.address_info.get("session_dir")
            return Path(session) if session else None
        found = _found(address)
        _require_listening(found)
        ray.init(address=found, **quiet)
        return None
    except NomoatError:
        raise
    except Exception as exc:  # where Ray does not start in time it raises just that
        if address is None:
            hint = "if this machine is too busy to start Ray, try again, or leave out --workers (in Python: `workers`)"
            raise WorkerError(f"Ray did not start on this machine: {last_line(exc)}", hint=hint) from exc
        if isinstance(exc, getattr(ray.exceptions, "AuthenticationError", ())):
            hint = "set RAY_AUTH_TOKEN to the cluster's token, or RAY_AUTH_TOKEN_PATH to the file that holds it"
            raise WorkerError(
                f"the Ray cluster at `{found}` asks for a token, and the one here is missing or wrong", hint=hint
            ) from exc
        ended = "; `ray stop` ends what is left of one that has ended" if found != address else ""
        raise WorkerError(
            f"no Ray cluster at `{found or address}`: {last_line(exc)}",
            hint=f"`ray start --head` starts one{ended}; --ray (in Python: `ray`) takes auto or HOST:PORT",
        ) from exc
    finally:
        # Ray would end this process by it, with a list of addresses, before what is under way is kept or swept.
        if threading.current_thread() is threading.main_thread() and on_sigterm is not None:
            signal.signal(signal.SIGTERM, on_sigterm)


@contextmanager
def _reaching_nobody() -> Iterator[None]:
    """What starts meanwhile gets nowhere by HTTP but on this machine.

    Ray (2.60) starts a part of its dashboard that nobody asked for, and that asks the metadata servers of three clouds where it is,
    before it looks whether it may report that. Workers have the user's proxies back: see `settle`.
    """
    own = {name: os.environ[name] for name in PROXIES if name in os.environ}
    _set_proxies({name: "127.0.0.1,localhost" if name.lower() == "no_proxy" else NOBODY for name in PROXIES})
    os.environ[OWN_PROXIES] = json.dumps(own)
    try:
        yield
    finally:
        _set_proxies(own)
        del os.environ[OWN_PROXIES]


def _set_proxies(values: Mapping[str, str]) -> None:
    for name in PROXIES:
        os.environ.pop(name, None)
    os.environ.update(values)


def _found(address: str) -> str:
    """HOST:PORT of `auto`, maybe that of a cluster whose processes or file have outlived it; `auto` again where Ray does not say.

    Raises OSError where there is none, OfflineError for a machine that may not be asked.
    """
    from ray._private import services

    find = getattr(services, "get_ray_address_from_environment", None)  # not Ray's public surface: a release may not have it
    if address != "auto" or find is None:
        return address
    found = str(find(address, None))
    _require_allowed(found.rpartition(":")[0])
    return found


def _require_listening(address: str) -> None:
    """Raise OSError where nobody is at HOST:PORT: Ray would try for more than ten minutes, and print that it does."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=net.CONNECT_TIMEOUT_SECONDS).close()


def _require_allowed(address: str) -> None:
    if not is_here(address):
        net.require_allowed("use a Ray cluster", address)


def is_here(address: str) -> bool:
    """Whether an address is this very machine's, on any of its networks."""
    own = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses}
    return net.is_loopback(address) or address in own


def places(ray: Any, num_workers: int | None) -> list[Place]:
    """Each worker goes to the machine that has the most CPUs for it; the workers of a machine share them."""
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1}
    if not nodes:
        raise WorkerError("the Ray cluster has no machine with a CPU", hint="`ray status` shows what it has")
    counts = dict.fromkeys(nodes, 1 if num_workers is None else 0)
    for _ in range(num_workers or 0):
        counts[max(nodes, key=lambda each: nodes[each]["Resources"]["CPU"] / (counts[each] + 1))] += 1
    found = []
    for node_id, count in counts.items():
        node = nodes[node_id]
        if count:
            _require_allowed(node["NodeManagerAddress"])
        cpus = node["Resources"]["CPU"] / max(1, count)
        found += [
            Place(
                node_id=node_id,
                host=node["NodeManagerHostname"],
                address=node["NodeManagerAddress"],
                cpus=cpus if cpus < 1 else int(cpus),
                share=count,
                wave=wave,
            )
            for wave in range(count)
        ]
    return found


def hands(ray: Any, places: Sequence[Place], kind: type, *, concurrency: int) -> list[Hand]:
    """A process for each place, with an object of `kind`, made of what `settle` takes. They may not have started yet."""
    settings = {config.variable(name): said.value for name in SENT_SETTINGS if (said := config.given(name))}
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    return [
        Hand(
            actor=ray.remote(kind)
            .options(
                num_cpus=place.cpus,
                max_concurrency=concurrency,
                scheduling_strategy=strategy(node_id=place.node_id, soft=False),
            )
            .remote(settings, place.cpus, place.share),
            place=place,
        )
        for place in places
    ]


def settle(settings: dict[str, str], cpus: float, share: int) -> None:
    """In a worker's process: have the settings of whoever asks, and this worker's part of the machine's threads."""
    if OWN_PROXIES in os.environ:
        _set_proxies(json.loads(os.environ.pop(OWN_PROXIES)))
    os.environ.update(settings)
    os.environ["NOMOAT_THREADS"] = str(max(1, min(int(cpus), config.threads().value // share)))


def require_started(ray: Any, hands: Sequence[Hand], *, extras: str) -> None:
    """Wait until every worker's process is there. Raises WorkerError for one that is not, or has another nomoat.

    Each has a method `hello`, which says the version of nomoat there. `extras` are named where one cannot start.
    """
    calls = [hand.actor.hello.remote() for hand in hands]
    for hand, call in zip(hands, calls, strict=True):
        if not wait(ray, [call], seconds=START_SECONDS)[0]:
            raise WorkerError(
                f"the worker on `{hand.place.host}` did not start within {START_SECONDS:.0f} s",
                hint=f"`ray status` tells whether {hand.place.cpus:g} of its CPUs are free; "
                "fewer --workers (in Python: `workers`) take fewer machines",
            )
        try:
            version = ray.get(call)
        except ray.exceptions.RayError as exc:
            raise WorkerError(
                f"the worker on `{hand.place.host}` could not start: {last_line(exc)}",
                hint=f"has that machine's Python the same nomoat, with its {extras}?",
            ) from exc
        if version != nomoat.__version__:
            raise WorkerError(
                f"`{hand.place.host}` has nomoat {version}, and this machine {nomoat.__version__}",
                hint="install the same version on both",
            )


def waves(hands: Sequence[Hand]) -> list[list[Hand]]:
    """One worker a machine at a time: the first imports the file, and those after it see how much memory is left."""
    return [[hand for hand in hands if hand.place.wave == wave] for wave in sorted({hand.place.wave for hand in hands})]


def wait(ray: Any, calls: Sequence[Any], *, seconds: float = math.inf) -> tuple[list[Any], list[Any]]:
    """The first call to end, and the others; after so many seconds none has. Raises WorkerError where the cluster's head has gone."""
    until = time.monotonic() + seconds
    while True:
        _require_head(ray)
        left = until - time.monotonic()
        done, waiting = ray.wait(list(calls), num_returns=1, timeout=max(0.0, min(LOOK_SECONDS, left)))
        if done or left <= LOOK_SECONDS:
            return done, waiting


class _Looked:
    """When a head was last found there: Ray is connected to one cluster at a time."""

    at = 0.0


def _require_head(ray: Any) -> None:
    """Raise WorkerError if the cluster's head has gone: calls go on without it for a minute. It is looked for now and then."""
    if time.monotonic() - _Looked.at < LOOK_SECONDS:
        return
    address, until = ray.get_runtime_context().gcs_address, time.monotonic() + GONE_SECONDS
    while True:
        try:
            _require_listening(address)
            _Looked.at = time.monotonic()
            return
        except OSError as exc:
            if time.monotonic() >= until:
                raise WorkerError(
                    f"the head of the Ray cluster, at `{address}`, has gone: {exc.strerror or exc}",
                    hint="that machine or its `gcs_server` has ended: start again",
                ) from exc
        time.sleep(1.0)


def result(ray: Any, call: Any) -> Any:
    """What a worker's method returned. Raises its NomoatError as that, WorkerError as `wait`, and any other as Ray does."""
    wait(ray, [call])
    try:
        return ray.get(call)
    except ray.exceptions.RayTaskError as exc:
        if isinstance(exc.cause, NomoatError):
            raise exc.cause from None
        raise


def opened(ray: Any, hand: Hand, call: Any, ref: str) -> Any:
    """`result` of a call that opens a model; its errors name the machine. Raises WorkerError for a worker that dies over it."""
    wait(ray, [call])  # where the head has gone, it is no error of that machine
    try:
        return result(ray, call)
    except NomoatError as error:
        error.begin_with(f"on `{hand.place.host}`")
        if isinstance(error, UnknownModelError) and error.hint:
            error.hint = f"on that machine: {error.hint}"
        raise
    except ray.exceptions.RayError as exc:
        raise WorkerError(
            f"the worker on `{hand.place.host}` died while it opened `{ref}`: {last_line(exc)}",
            hint="has that machine the memory for it? `nomoat show` tells what it takes",
        ) from exc


def portable(ref: str) -> str:
    """The reference as workers understand it, who have another working folder: what is a path to `find_files` is a whole one."""
    base, adapter = references.split(ref)
    if references.is_path(base):
        base = str(as_named(base).absolute())
    if adapter and (place := tuned.place_of(adapter)) and place == as_named(adapter):
        adapter = str(place.absolute())
    return f"{base}+{adapter}" if adapter else base


def names_of(hands: Sequence[Hand]) -> str:
    """`2 workers on a (10.0.0.5), b (10.0.0.6)`."""
    hosts = dict.fromkeys(f"{hand.place.host} ({hand.place.address})" for hand in hands)
    return f"{counted(len(hands), 'worker')} on {', '.join(hosts)}"


def last_line(exc: BaseException) -> str:
    """What went wrong, without Ray's advice for its own users."""
    lines = [line.strip() for line in str(exc).partition(ADVICE)[0].splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
