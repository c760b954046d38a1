"""Privacy is a property that tests prove: what is local works without a network, and nothing knocks on a door outside."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import httpcore
import httpx
import pytest
from misbehaving import Server, say
from patience import PATIENCE_SECONDS

import nomoat
from nomoat import commands, net
from nomoat.catalog.fetch import fetch
from nomoat.errors import DownloadError, OfflineError, RedirectedError, RemoteError, UsageError
from nomoat.records import Source

NOMOAT = [sys.executable, "-m", "nomoat"]

STORY = """
set -eu
ip link set lo up 2>/dev/null || true
"$PYTHON" -m nomoat run "$MODEL" hello -n 8
"$PYTHON" -m nomoat tune "$MODEL" table.csv --input-column text --label-column label --name spam --epochs 1 --rank 4
"$PYTHON" -m nomoat duel "$MODEL+spam" "$MODEL" --suite table.csv --input-column text --label-column label --json > verdict.json
"$PYTHON" serve_and_ask.py "$MODEL"
"""

SERVE_AND_ASK = """
import re, signal, subprocess, sys
import openai
server = subprocess.Popen([sys.executable, "-m", "nomoat", "serve", sys.argv[1], "--port", "0"], stderr=subprocess.PIPE, text=True)
url = next(found.group() for line in server.stderr if (found := re.search(r"http://\\S+/v1", line)))
client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
question = [{"role": "user", "content": "hello"}]
answer = client.chat.completions.create(model="tiny.gguf", messages=question, max_tokens=5, temperature=0)
print("served", answer.usage.completion_tokens)
server.send_signal(signal.SIGINT)
assert server.wait(60) == 0
"""

# sitecustomize: every socket a process opens is written down, with what it is connected to.
WATCH = """
import os, socket, sys
def note(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["SOCKET_LOG"], "a") as log:
            log.write(f"{event} {arguments[-1] if event.startswith('socket.connect') else arguments[:2]}\\n")
sys.addaudithook(note)
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_gguf: Path) -> Path:
    """A tiny model, a table, and the script that asks a server."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(tiny_gguf, folder / "tiny.gguf")
    rows = [f"{'win money now' if n % 2 else 'see you at noon'} {n},{'spam' if n % 2 else 'ham'}" for n in range(20)]
    (folder / "table.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (folder / "serve_and_ask.py").write_text(SERVE_AND_ASK)
    return folder


def environment(**more: str) -> dict[str, str]:
    """The test's own, but for what would make the story easier: it runs without NOMOAT_OFFLINE."""
    kept = {key: value for key, value in os.environ.items() if key not in ("NOMOAT_OFFLINE", "NOMOAT_MIRROR")}
    return {**kept, "PYTHON": sys.executable, "MODEL": "tiny.gguf", **more}


def in_a_namespace() -> list[str]:
    """What begins a command that is to have loopback alone; nothing where this machine lets nobody make a network namespace."""
    prefix = ["unshare", "-rn"]
    has_it = shutil.which(prefix[0]) is not None
    return prefix if has_it and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0 else []


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_the_whole_local_story_works_with_loopback_alone_and_opens_no_socket_to_anywhere(folder: Path, tmp_path: Path) -> None:
    """Watched in Python's own audit events, in every process of the story; loopback is the server and its client.

    Skipped at the end, when all but loopback alone has held, where this machine lets nobody make a network namespace.
    """
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "sockets.log"
    watched = environment(PYTHONPATH=str(tmp_path / "watch"), SOCKET_LOG=str(log))
    namespace = in_a_namespace()
    command = [*namespace, "sh", "-c", STORY]
    told = subprocess.run(command, cwd=folder, env=watched, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert told.returncode == 0, told.stderr
    assert re.search(r"served [1-5]\n", told.stdout), told.stdout
    assert json.loads((folder / "verdict.json").read_text())["num_examples"] == 20
    lines = log.read_text().splitlines()
    assert any("127.0.0.1" in line for line in lines), "the watch saw nothing, not even the server's own client"
    assert [line for line in lines if "127.0.0.1" not in line and "localhost" not in line] == []
    if not namespace:
        pytest.skip("the story was watched, but not with loopback alone: this machine lets nobody make a network namespace")


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_not_even_compiled_code_connects_anywhere(folder: Path, tmp_path: Path) -> None:
    """The audit events see Python only; strace sees OpenVINO and PyTorch too."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "trace.log"
    watching = [strace, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(log)]
    command = [*watching, *NOMOAT, "run", "tiny.gguf", "hello", "-n", "4"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in log.read_text().splitlines() if "AF_INET" in line] == []


def test_offline_refuses_every_host_but_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_OFFLINE", "1")
    with net.client("pull a model") as client, pytest.raises(OfflineError) as caught:
        client.get("https://example.com/model.gguf")
    assert caught.value.message == "refused to connect to `example.com` to pull a model: NOMOAT_OFFLINE is set"
    net.require_allowed("ask a model server", "127.0.0.1")
    net.require_allowed("ask a model server", "[::1]")


@pytest.mark.parametrize("value", ["1", "true", "YES", "on", " 1 "])
def test_offline_is_whatever_means_yes(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_OFFLINE", value)
    assert net.offline() == "NOMOAT_OFFLINE"


@pytest.mark.parametrize("value", ["0", "false", "No", "off", "", " "])
def test_online_is_whatever_means_no(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_OFFLINE", value)
    assert net.offline() is None


@pytest.mark.parametrize("value", ["y", "enabled", "2", '"1"', "'0'"])
def test_offline_that_says_neither_lets_nothing_out(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker --env-file` keeps quotes."""
    monkeypatch.setenv("NOMOAT_OFFLINE", value)
    with net.client("pull a model") as client, pytest.raises(UsageError) as caught:
        client.get("https://example.com/model.gguf")
    assert (caught.value.message, caught.value.hint) == (f"NOMOAT_OFFLINE is `{value}`", "give 1 or 0, without quotes")


def test_a_client_for_one_server_talks_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOMOAT_OFFLINE")
    with net.client("ask a model server", hosts=["127.0.0.1"]) as client, pytest.raises(RedirectedError) as caught:
        client.get("https://example.com/v1/models")
    assert caught.value.message == "refused to connect to `example.com` to ask a model server: only 127.0.0.1 was asked for"


@pytest.fixture
def proxied(serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> tuple[Server, Server]:
    """A proxy for all of http, and the one server that every name and address leads to."""
    proxy, server = serving(say(200, "proxied")), serving(say(200, "direct"))
    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *more, **named: found("127.0.0.1", *more, **named))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("NOMOAT_OFFLINE")
    return proxy, server


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("gpu1.corp", ".corp"),
        ("GPU1.corp", "other.example, corp"),
        ("gpu1.corp", "gpu1.corp:PORT"),
        ("gpu1.corp", "*"),
        ("gpu1.corp", "*.corp"),
        ("gpu1.corp", "other.example, *.Corp:PORT"),
        ("corp", "*.corp"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", "localhost,10.0.0.0/8"),
        ("[fd00::7]", "fd00::7"),
        ("[fd00::7]", "[fd00::7]"),
        ("[fd00::7]", "fd00::/8"),
        ("localhost", ""),
        ("127.8.9.1", ""),
        ("[::1]", ""),
    ],
)
def test_what_needs_no_proxy_is_asked_without(
    host: str, no_proxy: str, proxied: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = proxied
    port = urlsplit(server.url).port
    monkeypatch.setenv("no_proxy", no_proxy.replace("PORT", str(port)))
    with net.client("ask a model server", hosts=[host.strip("[]"), "elsewhere.example"]) as client:
        assert client.post(f"http://{host}:{port}/v1/x", json={}, headers={"authorization": "Bearer secret"}).json() == "direct"
    assert (len(proxy.paths), server.paths) == (0, ["/v1/x"])


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [("corp.example", ".corp"), ("11.1.2.3", "10.0.0.0/8"), ("gpu1.corp", "gpu1.corp:1"), ("gpu1.corp", ""), ("evilcorp", "*.corp")],
)
def test_all_else_goes_through_the_proxy(
    host: str, no_proxy: str, proxied: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = proxied
    monkeypatch.setenv("no_proxy", no_proxy)
    with net.client("ask a model server", hosts=[host]) as client:
        assert client.post(f"http://{host}:81/v1/x", content=b"12345").json() == "proxied"
    assert (proxy.paths, server.paths) == ([f"http://{host}:81/v1/x"], [])
    assert proxy.bodies == [12345]


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("before", ["", "http://", "me:secret@", "http://me:secret@"])
def test_a_proxy_may_be_given_without_its_scheme_and_for_all_schemes(
    variable: str, before: str, proxied: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = proxied
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv(variable, before + urlsplit(proxy.url).netloc)
    with net.client("ask a model server", hosts=["gpu1.corp"]) as client:
        assert client.get("http://gpu1.corp:81/v1/x").json() == "proxied"
    assert (proxy.paths, server.paths) == (["http://gpu1.corp:81/v1/x"], [])
    assert ("proxy-authorization" in proxy.headers[0]) == ("secret" in before)


PROXY_FORMS = "give http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"


@pytest.mark.parametrize(
    ("variable", "value", "message", "hint"),
    [
        ("https_proxy", "ftp://me:secret@proxy.corp:3128", "`https_proxy` is no proxy that can be used", PROXY_FORMS),
        ("HTTP_PROXY", "me:secret@proxy.corp:http", "`http_proxy` is no proxy that can be used", PROXY_FORMS),
        ("ALL_PROXY", "socks://me:secret@proxy.corp:1080", "`all_proxy` is no proxy that can be used", PROXY_FORMS),
        (
            "all_proxy",
            "socks5h://me:secret@proxy.corp:1080",
            "`all_proxy` names a SOCKS proxy, and the package for these is not installed",
            commands.installing("httpx[socks]"),
        ),
    ],
)
@pytest.mark.usefixtures("proxied")
def test_a_proxy_that_cannot_be_used_is_told_by_its_variable_and_not_shown(
    variable: str, value: str, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv(variable, value)
    monkeypatch.setitem(sys.modules, "socksio", None)
    scheme = "https" if variable == "https_proxy" else "http"
    with net.client("ask a model server", hosts=["gpu1.corp"]) as client, pytest.raises(UsageError) as caught:
        client.get(f"{scheme}://gpu1.corp/")
    assert (caught.value.message, caught.value.hint, caught.value.__cause__) == (message, hint, None)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("variable", "no_proxy"), [("http_proxy", ".corp"), ("all_proxy", ".corp"), ("https_proxy", "")])
def test_a_proxy_that_cannot_be_used_stops_nothing_that_does_not_go_through_it(
    variable: str, no_proxy: str, proxied: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, server = proxied
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv(variable, "ftp://proxy.corp:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    with net.client("ask a model server", hosts=["gpu1.corp"]) as client:
        assert client.get(f"http://gpu1.corp:{urlsplit(server.url).port}/v1/x").json() == "direct"


def too_late(*_: object, **__: object) -> None:
    raise httpcore.ConnectTimeout


DEAD = "http://me:secret@127.0.0.1:9"  # nobody listens there


@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
@pytest.mark.usefixtures("proxied")
def test_where_no_connection_comes_about_the_proxy_it_was_asked_through_is_named_and_not_shown(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("http_proxy")
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    monkeypatch.setenv(variable, DEAD)
    hint = f"it was asked through the proxy that `{variable.lower()}` names: check that, or put `10.1.2.3` into `no_proxy`"
    with nomoat.load("http://10.1.2.3:8000/v1#m") as model, pytest.raises(RemoteError) as asked:
        model.complete("hi")
    with pytest.raises(DownloadError) as pulled:
        fetch(Source(url="http://10.1.2.3:8000/m.gguf", file_name="m.gguf"), tmp_path / "m.gguf", purpose="pull a model")
    monkeypatch.setattr(net._Backend, "connect_tcp", too_late)
    with nomoat.load("http://10.1.2.3:8000/v1#m") as model, pytest.raises(RemoteError, match="did not answer within") as late:
        model.complete("hi")
    for error in (asked.value, pulled.value, late.value):
        assert error.hint == hint
        assert "secret" not in "".join(traceback.format_exception(error))
    monkeypatch.setenv("no_proxy", "10.0.0.0/8")
    assert net.proxy_hint("http://10.1.2.3:8000/v1") is None
    assert net.proxy_hint("http://127.0.0.1:8000/v1") is None


def test_what_goes_around_the_proxy_is_guarded_all_the_same(proxied: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    _, server = proxied
    monkeypatch.setenv("no_proxy", ".corp")
    with (
        net.client("ask a model server", hosts=["gpu1.corp"]) as client,
        pytest.raises(OfflineError, match=r"only gpu1\.corp was asked for"),
    ):
        client.get("http://gpu2.corp/")
    monkeypatch.setenv("NOMOAT_OFFLINE", "1")
    with net.client("ask a model server", hosts=["gpu1.corp"]) as client, pytest.raises(OfflineError, match="NOMOAT_OFFLINE is set"):
        client.get("http://gpu1.corp/")
    assert server.paths == []


def test_a_name_that_only_looks_like_this_machine_is_outside() -> None:
    for host in ("localhost", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"):
        assert net.is_loopback(host), host
    for host in ("localhost.example.com", "127.0.0.1.example.com", "0.0.0.0", "192.168.0.1", "::ffff:192.168.0.1", ""):
        assert not net.is_loopback(host), host


@pytest.mark.parametrize(
    ("is_ipv6", "own", "told"),
    [
        (False, "192.0.2.7", "192.0.2.7"), (False, "169.254.3.4", "169.254.3.4"),
        (True, "2001:db8::7", "2001:db8::7"), (True, "fe80::d498:f9ff:feb4:76e2", None),
    ],
)  # fmt: skip
def test_this_machine_s_address_for_others_is_that_of_its_way_outside_and_none_where_it_has_no_network(
    is_ipv6: bool, own: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = mock.MagicMock()
    way.__enter__.return_value = way
    way.getsockname.return_value = (own, 50000, 0, 2) if is_ipv6 else (own, 50000)
    made = mock.Mock(return_value=way)
    monkeypatch.setattr(socket, "socket", made)
    assert net.own_address(is_ipv6=is_ipv6) == told
    made.assert_called_once_with(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    assert [call[0] for call in way.method_calls] == ["connect", "getsockname"], "nothing is sent"
    way.connect.side_effect = OSError(errno.ENETUNREACH, "Network is unreachable")
    assert net.own_address(is_ipv6=is_ipv6) is None


@pytest.mark.parametrize(("only", "takes"), [(0, True), (1, False)])
def test_whether_addresses_of_ipv6_take_ipv4_is_as_the_system_has_it(only: int, takes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = mock.MagicMock()
    bound.__enter__.return_value.getsockopt.return_value = only
    monkeypatch.setattr(socket, "socket", mock.Mock(return_value=bound))
    assert net.ipv6_takes_ipv4() is takes
    monkeypatch.setattr(socket, "socket", mock.Mock(side_effect=OSError(errno.EAFNOSUPPORT, "no IPv6")))
    assert not net.ipv6_takes_ipv4()


def test_only_the_door_makes_http_clients() -> None:
    """A module that made its own client would go around the guard."""
    import nomoat

    root = Path(nomoat.__file__).parent
    makers = ("httpx.Client(", "httpx.AsyncClient(", "httpx.get(", "httpx.stream(", "import requests", "urlopen(", "aiohttp")
    found = {p.name for p in root.rglob("*.py") if any(maker in p.read_text(encoding="utf-8") for maker in makers)}
    assert found == {"net.py"}
    assert issubclass(net.guarded_transport(), httpx.BaseTransport)
