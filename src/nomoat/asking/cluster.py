"""How a Ray cluster is reached, here or elsewhere, and which of its machines work. Raises WorkerError for what is not there."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from dataclasses import dataclass
from typing import Any

import psutil

from nomoat import net
from nomoat.errors import MissingExtraError, UsageError, WorkerError

OBJECT_STORE_BYTES = 100 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a worker runs. `share` is how many workers that machine has, `wave` which of them this one is."""

    node_id: str
    host: str
    address: str
    cpus: float
    share: int
    wave: int


def import_ray(*, on_loopback: bool) -> Any:
    net.silence_telemetry()
    # Ray would print what it says of a dead worker on stdout, where `--json` prints; the notes say it.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    if on_loopback:
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
        raise MissingExtraError(extra="ray", what="answering on several workers") from exc
    return ray


def checked_address(given: str) -> str:
    """`auto` or HOST:PORT. Raises UsageError for any other address, OfflineError for a machine that may not be asked."""
    address = (os.environ.get("RAY_ADDRESS") or given) if given == "auto" else given  # as Ray reads it
    if address == "auto":
        return address
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        what = "Ray Client, which nomoat does not use" if address.startswith("ray://") else "no cluster"
        raise UsageError(
            f"`{address}` is the address of {what}",
            hint="run nomoat on a machine of the cluster, with --ray auto or --ray HOST:PORT (its head's, often 6379)",
        )
    _require_allowed(host)
    return address


def connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    found = address
    try:
        if address is None:
            ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        else:
            found = _found(address)
            _require_listening(found)
            ray.init(address=found, **quiet)
    except (OSError, RuntimeError, ValueError) as exc:
        where = "on this machine" if address is None else f"at `{found or address}`"
        ended = "; `ray stop` ends what is left of one that has ended" if found != address else ""
        raise WorkerError(
            f"no Ray cluster {where}: {last_line(exc)}",
            hint=f"`ray start --head` starts one{ended}; --ray takes auto or HOST:PORT",
        ) from exc
    finally:
        # Ray would end this process by it, with a list of addresses, before what is under way is kept or swept.
        if threading.current_thread() is threading.main_thread() and on_sigterm is not None:
            signal.signal(signal.SIGTERM, on_sigterm)


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


def last_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
