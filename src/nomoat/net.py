"""The one door to other machines: every outside connection names its purpose here, and is refused if it may not be made.

What this does not cover: a subprocess (`pip download`) makes its own connections; it is asked for here before it starts.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import os
import re
import socket
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from nomoat import commands, config
from nomoat.errors import OfflineError, RedirectedError, RemoteError, SettingError

if TYPE_CHECKING:
    import httpx

Purpose = Literal["pull a model", "pull a data set", "ask a model server", "use a Ray cluster"]

CONNECT_TIMEOUT_SECONDS = 20.0
READ_TIMEOUT_SECONDS = 120.0
UNKNOWN_SIGNER = frozenset({18, 19, 20, 21})  # X509_V_ERR_… of OpenSSL: signed by itself, by one that signed itself, by one not here
# `gpt-oss:120b-cloud`, `glm-4.6:cloud`. Source: ollama/ollama, internal/modelref/modelref.go (`parseSourceSuffix`).
OLLAMAS_CLOUD = re.compile(r":(?:\s*|[^:/]*-)cloud\s*\Z", re.IGNORECASE)
HEARTBEAT_SECONDS = 0.25  # between looks whether whoever asked has left


class _Waiting(threading.local):
    """For whom a thread asks, and until when: see `asking_for`, `waiting_at_most`."""

    stop: threading.Event | None = None
    asker = ""
    end: float | None = None
    late = ("", "")  # what is said at that end, and the hint


_thread = _Waiting()


def offline() -> str | None:
    """What forbids every outside connection: `NOMOAT_OFFLINE`, or `offline` in `config.toml`. None if nothing does.

    Raises SettingError for a value that says neither: whoever writes one wants to be offline, more often than not.
    """
    said = config.given("offline")
    value = said.value.strip().lower() if said else ""
    if said is None or value in config.NO:
        return None
    if value not in config.YES:
        raise SettingError(f"{said.reason} is `{said.value}`", hint="give 1 or 0, without quotes")
    return said.reason


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this very machine. A name that is not `localhost` is not looked up."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def own_address(*, is_ipv6: bool) -> str | None:
    """This machine's address for the machines of its network: the one by which its way outside leads. None where there is no way, and
    for one of IPv6 that is link-local: without a zone, which no browser takes, it leads nowhere.

    Nothing is sent: UDP has no handshake, and `connect` only chooses the way, here to an address that is kept for examples.
    Not covered: other networks that the machine is in, as by a VPN.
    """
    family, elsewhere = (socket.AF_INET6, "2001:db8::1") if is_ipv6 else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect((elsewhere, 9))
            found = ipaddress.ip_address(way.getsockname()[0])
    except OSError:
        return None
    return None if is_ipv6 and found.is_link_local else str(found)


def ipv6_takes_ipv4() -> bool:
    """Whether what is bound to all addresses of IPv6 is reached by those of IPv4, too, as this system has it."""
    try:
        with socket.socket(socket.AF_INET6) as bound:
            return not bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return False


def host_of(address: str) -> str:
    """The host of a server's address; empty if it has none."""
    return urlsplit(address).hostname or ""


def port_of(address: str) -> int:
    """The port of a server's address, said or its scheme's."""
    parts = urlsplit(address)
    return parts.port or config.DEFAULT_PORTS[parts.scheme]


def stays_here(address: str, model: str) -> bool:
    """Whether what a server's model is sent stays on this machine: it is on it, and no gateway. Raises what `gateway_note` raises."""
    return is_loopback(host_of(address)) and not gateway_note(address, model)


def gateway_note(address: str, model: str) -> str:
    """Why a server on this very machine counts as outside, to be said behind its name: the setting that names it as a gateway, by its
    port, or the name of a model that Ollama sends to its cloud. Empty of any other server.

    Raises SettingError for a setting that cannot be meant. Not covered: such a model under another name (`ollama cp`).
    """
    if not is_loopback(host_of(address)):
        return ""
    gateways = config.gateway_ports()
    if gateways is not None and port_of(address) in gateways.value:
        return f" (a gateway, as {gateways.reason} says)"
    return f" (a gateway to Ollama's cloud, as the name `{model}` says)" if OLLAMAS_CLOUD.search(model) else ""


def has_to_stay(shown: str, note: str, *, hint: str) -> RedirectedError:
    """The error for what has to stay on this machine and would go to a gateway, called `shown`; `note`: its `gateway_note`."""
    return RedirectedError(f"`{shown}`{note} sends on what it is asked: this has to stay here", hint=hint)


def require_allowed(purpose: Purpose, host: str, *, gateway: str = "") -> None:
    """Raise OfflineError if nomoat must not talk to this host now. Loopback is always allowed, but for a `gateway_note`'s server."""
    if (gateway or not is_loopback(host)) and (forbidden := offline()):
        raise OfflineError(
            f"refused to connect to `{host}`{gateway} to {purpose}: {forbidden} is set",
            hint=f"unset {forbidden} to allow it"
            + (", or set NOMOAT_MIRROR to a folder that holds the file" if purpose.startswith("pull") else ""),
        )


@contextmanager
def asking_for(stop: threading.Event, asker: str = "") -> Iterator[None]:
    """What this thread asks of other machines within the block is for somebody who has left once `stop` is set, and called `asker`.

    It then ends soon, with RemoteError, and its connection is closed, so that the other machine may end its work, too.

    Not covered: a connection that is still being made, and a request that is still being sent.
    """
    _thread.stop, _thread.asker = stop, asker
    try:
        yield
    finally:
        _thread.stop, _thread.asker = None, ""


@contextmanager
def waiting_at_most(seconds: float, *, hint: str) -> Iterator[None]:
    """What this thread waits for from other machines within the block ends with RemoteError, and this hint, after so many seconds,
    though something comes now and then, such as comments in a stream.

    Not covered: what `asking_for` does not cover.
    """
    _thread.late = f"no answer began within {seconds:g} s", hint
    _thread.end = time.monotonic() + seconds
    try:
        yield
    finally:
        _thread.end = None


def asker_has_left() -> bool:
    """Whether whoever this thread asks for has left: see `asking_for`."""
    return _thread.stop is not None and _thread.stop.is_set()


def asker() -> str:
    """Whom this thread asks for; empty for itself, and where nobody said so: see `asking_for`."""
    return _thread.asker


def asks_for_another() -> bool:
    """Whether this thread asks for somebody, such as a client of a server, whose words are not for those who read what is logged."""
    return _thread.stop is not None


def require_asker() -> None:
    """Raise RemoteError if whoever this thread asks for has left, or waits no longer: see `waiting_at_most`."""
    if asker_has_left():
        raise RemoteError("nobody waits for this answer any more", hint=None, fate="lost")
    if _thread.end is not None and time.monotonic() >= _thread.end:
        message, hint = _thread.late
        raise RemoteError(message, hint=hint, fate="lost")


class _Around:
    """One of httpcore's objects, but for what subclasses do otherwise."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Backend(_Around):
    """httpcore's way to make connections, which are `_Connection`s here."""

    def connect_tcp(self, *args: Any, **kwargs: Any) -> _Connection:
        return _Connection(self._inner.connect_tcp(*args, **kwargs))


class _Connection(_Around):
    """One of httpcore's connections, but nothing more is read from it for somebody who has left, or waits no longer: see `asking_for`.

    Closing a socket does not wake a thread that reads from it, so that thread itself looks up now and then.
    """

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        import httpcore

        if _thread.stop is None and _thread.end is None:
            return cast(bytes, self._inner.read(max_bytes, timeout))
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            require_asker()
            left = end - time.monotonic()
            try:
                return cast(bytes, self._inner.read(max_bytes, min(max(left, 0.001), HEARTBEAT_SECONDS)))
            except httpcore.ReadTimeout:
                if left <= HEARTBEAT_SECONDS:
                    raise

    def start_tls(self, *args: Any, **kwargs: Any) -> _Connection:
        return _Connection(self._inner.start_tls(*args, **kwargs))


@functools.cache
def guarded_transport() -> Callable[..., httpx.HTTPTransport]:
    """The class of every client's transport. Made when it is first needed: other starts do not wait for `import httpx`."""
    import httpx

    class GuardedTransport(httpx.HTTPTransport):
        """Checks each request, redirects included, against what its client may do.

        `direct` is asked what must not go through `proxy`; `unusable` is raised for all else. Who asks bounds how much goes at once.
        """

        def __init__(
            self,
            purpose: Purpose,
            hosts: Iterable[str] | None,
            *,
            proxy: str | None = None,
            direct: GuardedTransport | None = None,
            unusable: SettingError | None = None,
            https_only: bool = False,
        ) -> None:
            super().__init__(proxy=proxy, limits=httpx.Limits(max_connections=None, max_keepalive_connections=20))
            self._direct, self._unusable, self._https_only = direct, unusable, https_only
            # httpx (0.28, and httpx2 2.16) has no other way to say how its pool makes connections; a release that calls this otherwise
            # sees nobody leave.
            pool: Any = getattr(self, "_pool", None)
            if hasattr(pool, "_network_backend"):
                pool._network_backend = _Backend(pool._network_backend)
            self._purpose: Purpose = purpose
            self._hosts = None if hosts is None else {host.lower() for host in hosts}

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            host = request.url.host.lower()
            if self._direct is not None and _bypasses_proxy(request.url):
                return self._direct.handle_request(request)
            require_allowed(self._purpose, host)
            if self._hosts is not None and host not in self._hosts:
                raise RedirectedError(
                    f"refused to connect to `{host}` to {self._purpose}: only {', '.join(sorted(self._hosts))} was asked for",
                    hint="name that server in the model reference if you want to use it",
                )
            if self._https_only and request.url.scheme != "https":
                raise RedirectedError(
                    f"refused to go on to `{host}` over {request.url.scheme} to {self._purpose}: what was asked for over https would "
                    "come as anybody on the way may have made it",
                    hint="name an address that stays with https; or the http one itself, if you trust the network there",
                )
            if self._unusable is not None:
                raise self._unusable
            return super().handle_request(request)

    return GuardedTransport


def client(purpose: Purpose, *, hosts: Iterable[str] | None = None, https_only: bool = False) -> httpx.Client:
    """An HTTP client for one purpose. `hosts` limits whom it may talk to; without it redirects may lead anywhere, with
    `https_only` not to http. Both raise RedirectedError.

    Proxies of the environment are used for outside hosts (they, too, are outside), but for those that NO_PROXY names, and never for
    this machine's own. What would go through one that cannot be used raises SettingError, without its value: there may be a password.
    """
    import httpx

    hosts = None if hosts is None else tuple(hosts)
    local_only = hosts is not None and all(is_loopback(host) for host in hosts)
    proxies = {} if local_only else urllib.request.getproxies()
    transport = functools.partial(guarded_transport(), purpose, hosts, https_only=https_only)
    direct = transport()
    mounts = {}
    for scheme in config.DEFAULT_PORTS:
        name = _proxy_name(scheme, proxies)
        if proxy := proxies.get(name):
            try:
                proxied = transport(proxy=proxy if "://" in proxy else f"http://{proxy}", direct=direct)
            except (ImportError, ValueError, httpx.InvalidURL) as exc:
                proxied = transport(direct=direct, unusable=_unusable(f"{name}_proxy", exc))
            mounts[f"{scheme}://"] = proxied
    return httpx.Client(
        transport=direct,
        mounts=mounts,
        trust_env=False,
        follow_redirects=True,
        timeout=httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
        headers={"user-agent": "nomoat"},
    )


def _proxy_name(scheme: str, proxies: Mapping[str, str]) -> str:
    return scheme if proxies.get(scheme) else "all"


def proxy_hint(address: str) -> str | None:
    """What to do where no connection came about, if this address is asked through a proxy, which may be at fault; else None."""
    import httpx

    url, proxies = httpx.URL(address), urllib.request.getproxies()
    name = _proxy_name(url.scheme, proxies)
    if not proxies.get(name) or _bypasses_proxy(url):
        return None
    return f"it was asked through the proxy that `{name}_proxy` names: check that, or put `{url.host}` into `no_proxy`"


def _unusable(variable: str, exc: Exception) -> SettingError:
    """For a proxy that httpx cannot use, by its variable: what httpx says of it holds the whole address."""
    if isinstance(exc, ImportError):
        what, hint = "names a SOCKS proxy, and the package for these is not installed", commands.installing("httpx[socks]")
    else:
        what, hint = "is no proxy that can be used", "give http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"
    return SettingError(f"`{variable}` {what}", hint=hint)


def _bypasses_proxy(url: httpx.URL) -> bool:
    """Whether this is a host that no proxy may be asked for: this machine, and what NO_PROXY names by name, address or network."""
    host = url.host.lower()
    if is_loopback(host):
        return True
    place = f"{f'[{host}]' if ':' in host else host}:{url.port or config.DEFAULT_PORTS[url.scheme]}"
    if urllib.request.proxy_bypass(place):
        return True
    entries = [entry.strip().lower() for entry in urllib.request.getproxies().get("no", "").split(",")]
    return any(_is_within(host, entry) or _is_below(host, entry) or _is_below(place, entry) for entry in entries)


def _is_below(place: str, entry: str) -> bool:
    """Whether an entry such as `*.corp`, which urllib does not know, means this host; as it takes `.corp` to mean it."""
    return entry.startswith("*.") and f".{place}".endswith(entry[1:])


def _is_within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network.strip("[]"), strict=False)
    except ValueError:  # one of them is a name
        return False


def certificate_hint(error: BaseException) -> str | None:
    """What to do where a connection failed because a server's certificate is not trusted; None where it failed for anything else."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ssl.SSLCertVerificationError):
        seen = seen.__cause__ or seen.__context__
    if seen is None:
        return None
    if seen.verify_code in UNKNOWN_SIGNER:
        return "if you trust whoever signed its certificate (a company's proxy, yourself), name theirs: SSL_CERT_FILE=FILE.pem"
    return "its certificate is for another name, or out of date: check the address, and this machine's clock"


def silence_telemetry() -> None:
    """Switch off what dependencies would send about their use. Has to be called before they are imported.

    `import openvino` (2026.4) sends an event to Google Analytics from a process of its own, without asking; it knows no variable to
    refuse that, but does without the package that sends, so that package is made impossible to import.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # the documented way to make an import fail
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
