"""`nomoat serve` as a process: it starts, answers, says why it cannot, and ends on Ctrl-C."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from unittest import mock

import httpx
import pytest
import shell
from homes import write_policy
from leaving import asking
from misbehaving import FINE, Server, Silent, say
from patience import PATIENCE_SECONDS, wait_until
from tiny import write_tiny_gguf

from nomoat import commands, config
from nomoat.engine.fake import FakeEngine
from nomoat.responder import Responder
from nomoat.route.policy import default_path
from nomoat.serve import app, connections
from nomoat.serve.listening import bind
from nomoat.serve.models import Models, from_references

pytestmark = pytest.mark.usefixtures("plain_httpx")
TEMPLATES = {"base": None, "chat": "{{ messages[0]['content'] }}"}
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} (INFO|WARNING|ERROR): ")
BODY = {"messages": [{"role": "user", "content": "해자가 없다"}]}


def of_log(written: str) -> str:
    """What lines of a log say, each of which has its time and level."""
    lines = written.splitlines(keepends=True)
    assert all(map(STAMP.match, lines)), written
    return "".join(STAMP.sub("", line) for line in lines)


class Served:
    """A running `nomoat serve`. `said`: the lines from when it is ready, up to Python's; `url`: the base URL in the first."""

    def __init__(self, *arguments: str) -> None:
        self.child = subprocess.Popen([shell.NOMOAT, "serve", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.child.stderr is not None
        self.before, self.said = [], [of_log(self.child.stderr.readline())]
        while self.said[-1] and "openai.OpenAI" not in self.said[-1]:
            if " at http" not in self.said[0]:
                self.before.append(self.said.pop())
            self.said.append(of_log(self.child.stderr.readline()))
        found = re.search(r" at (http://\S+/v1) ", self.said[0])
        assert found, self.said
        self.url = found.group(1).replace("0.0.0.0", "127.0.0.1")

    def interrupt(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Ctrl-C, or another signal: exit code, stdout and the rest of stderr."""
        self.child.send_signal(number)
        out, err = self.child.communicate(timeout=PATIENCE_SECONDS)
        return self.child.returncode, out, of_log(err)


sends = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signal to one process alone")


@pytest.fixture
def served() -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(*arguments: str) -> Served:
        running.append(Served(*arguments))
        return running[-1]

    yield start
    for one in running:
        one.child.kill()
        one.child.communicate()


def refused(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; what goes on to serve after all fails, and blocks nothing."""
    with mock.patch.object(app.Server, "run", side_effect=AssertionError("it is not refused, and would serve")):
        done = shell.nomoat("serve", *arguments)
    return done.returncode, done.stdout, done.stderr


@sends
def test_serve_answers_as_the_line_for_curl_asks_and_ends_on_ctrl_c_with_a_word_and_exit_code_0(served: Callable[..., Served]) -> None:
    server = served("fake:", "--port", "0")
    assert server.said == [
        f"fake: at {server.url} (Ctrl-C stops)\n",
        f"  in a browser: {server.url.removesuffix('v1')}\n",
        f'  curl {server.url}/chat/completions -H "Content-Type: application/json" '
        '-d \'{"model": "fake:", "messages": [{"role": "user", "content": "What is a moat?"}], "max_tokens": 200}\'\n',
        f'  openai.OpenAI(base_url="{server.url}", api_key="none")\n',
    ]
    answer = httpx.post(f"{server.url}/chat/completions", json=BODY)
    assert answer.json()["choices"][0]["message"]["content"] == "없다 해자가"
    done = subprocess.run(["bash", "-c", f"{server.said[2].strip()} --silent --noproxy '*'"], capture_output=True, check=True)
    assert '"content":"moat? a is What"' in done.stdout.decode()
    assert server.interrupt() == (0, "", "stopped\n")


def test_what_the_server_is_told() -> None:
    """What it does with that is in `tests/serve/test_app.py`."""
    pages = ["https://chat.example", "app://obsidian.md"]
    with mock.patch.object(app, "serve") as begun:
        shell.nomoat("serve", "fake:", "fake:", "--max-tokens", "500", "--api-key", "k", "--cors", pages[0], "--cors", pages[1])
    (models,), told = begun.call_args
    assert models.names == ["fake:"]
    assert (told["max_tokens"], told["api_key"], told["cors"]) == (500, "k", pages)


@sends
@shell.sending("SIGINT", "SIGTERM", "SIGHUP")
def test_it_ends_in_order_while_the_model_is_loaded_too(name: str) -> None:
    script = """
import sys, time
from nomoat import cli, responder
def load(*_given, **_named):
    print("loading", flush=True)
    time.sleep(600)
responder.load = load
sys.argv = ["nomoat", "serve", "fake:", "--port", "0"]
cli.main()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "loading\n"
        child.send_signal(getattr(signal, name))
        out, err = child.communicate(timeout=PATIENCE_SECONDS)
        assert (out, of_log(err)) == ("", "stopped\n")
    assert child.returncode == 0


@sends
def test_with_time_to_drain_an_answer_under_way_goes_on_until_a_second_signal(
    served: Callable[..., Served], serving: Callable[..., Server]
) -> None:
    silent = Silent()
    server = served(f"{serving(silent).url}#m", "--port", "0", "--drain", "600")
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(httpx.post, f"{server.url}/chat/completions", json=BODY)
        assert silent.asked.wait(PATIENCE_SECONDS)
        ended = pool.submit(server.interrupt, signal.SIGTERM)
        with pytest.raises(httpx.TransportError):
            while True:  # until nothing more is taken
                httpx.get(f"{server.url}/models")
        assert not waiting.done() and not ended.done()
        time.sleep(connections.ONE_SIGNAL_SECONDS)
        server.child.send_signal(signal.SIGTERM)  # a second one ends it
        told = "draining: 1 answer under way may take 600 seconds\nending 1 answer under way\nstopped\n"
        assert ended.result() == (0, "", told)
        assert waiting.result().json()["error"]["code"] == "shutting_down"


@sends
def test_it_serves_where_nobody_can_be_told_so(tmp_path: Path) -> None:
    """Neither of what is imported, nor which template a model has, at the start and later."""
    models = [str(write_tiny_gguf(tmp_path / f"{name}.gguf", called=name)) for name in "ab"]
    read, write = os.pipe()
    os.close(read)
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"

    def serves() -> bool:
        assert child.poll() is None, "it has ended"
        with suppress(httpx.TransportError):
            return httpx.get(f"{url}/health").status_code == 200
        return False

    command = [shell.NOMOAT, "serve", *models, "--template", "alpaca", "--port", str(port)]
    with subprocess.Popen(command, stderr=write, env={**os.environ, "PYTHONUNBUFFERED": ""}) as child:
        os.close(write)
        wait_until(serves, "the server")
        for model in ("a.gguf", "b.gguf"):
            asked = {"model": model, "max_tokens": 2, **BODY}
            assert httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=PATIENCE_SECONDS).status_code == 200
        child.terminate()
        assert child.wait(PATIENCE_SECONDS) == 0


def test_a_thread_that_hangs_does_not_keep_the_process_nor_its_temporary_folder(tmp_path: Path) -> None:
    script = """
import threading
from nomoat import cache
from nomoat.cli.serve import _end_without
cache.temporary_folder()
threading.Thread(target=threading.Event().wait, name="answer-1").start()
_end_without("answer")
"""
    settings = os.environ | {"TMPDIR": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", script], env=settings, timeout=PATIENCE_SECONDS, check=False).returncode == 0
    assert list(tmp_path.iterdir()) == []


@sends
def test_ctrl_c_ends_a_stream_that_is_being_read(served: Callable[..., Served]) -> None:
    server = served("fake:", "--port", "0")
    with httpx.stream("POST", f"{server.url}/chat/completions", json={**BODY, "stream": True}) as answer:
        next(answer.iter_bytes())
        assert server.interrupt()[0] == 0


@pytest.mark.parametrize("place", ["environment", "keys.toml", "--api-key"])
@sends
def test_key_that_is_found_opens_to_other_machines_and_is_never_printed(
    served: Callable[..., Served], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The lines printed ask with it: those of Python and curl name the variable that holds it, or leave it to who copies them."""
    if place == "environment":
        monkeypatch.setenv("NOMOAT_API_KEY", "s3cret-key")
    elif place == "keys.toml":
        config.keys_path().parent.mkdir()
        config.keys_path().write_text('NOMOAT_API_KEY = "s3cret-key"')
        config.keys_path().chmod(0o600)
    server = served("fake:", "--port", "0", "--host", "0.0.0.0", *(["--api-key", "s3cret-key"] if place == "--api-key" else []))
    assert httpx.post(f"{server.url}/chat/completions", json=BODY).status_code == 401
    answer = httpx.post(f"{server.url}/chat/completions", json=BODY, headers={"authorization": "Bearer s3cret-key"})
    assert answer.status_code == 200
    curl = f"{server.said[-2].strip().replace('Bearer KEY', 'Bearer s3cret-key')} --silent --noproxy '*'"
    done = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True)
    assert '"content":"moat? a is What"' in done.stdout
    key = 'os.environ["NOMOAT_API_KEY"]' if place == "environment" else '"KEY"'
    assert f"api_key={key})" in server.said[-1]
    if place != "environment":
        assert server.child.stderr is not None
        origin = config.keys_path() if place == "keys.toml" else "--api-key"
        assert of_log(server.child.stderr.readline()) == f"  KEY: the one of {origin}\n"
    code, _, err = server.interrupt()
    assert (code, err) == (0, "stopped\n")
    assert "s3cret-key" not in "".join(server.said) + err


def test_key_of_clients_is_not_sent_to_the_server_behind(
    served: Callable[..., Served], serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMOAT_API_KEY", "s3cret-key")
    behind = serving(say(200, {"data": [{"id": "m"}]}), FINE)
    server = served(behind.url, "--port", "0")
    answer = httpx.post(f"{server.url}/chat/completions", json=BODY, headers={"authorization": "Bearer s3cret-key"})
    assert answer.status_code == 200
    assert [headers["authorization"] for headers in behind.headers] == ["Bearer none", "Bearer none"]


def before_silence(served: Callable[..., Served], serving: Callable[..., Server]) -> tuple[Served, Silent]:
    """A server whose model is on another one, which never answers."""
    silent = Silent()
    return served(f"{serving(silent).url}#m", "--port", "0"), silent


@shell.sending("SIGINT", "SIGTERM", "SIGHUP")
@sends
def test_it_ends_in_order_while_the_server_behind_is_silent(
    served: Callable[..., Served], serving: Callable[..., Server], name: str
) -> None:
    server, silent = before_silence(served, serving)
    with asking(f"{server.url}/chat/completions", BODY):
        assert silent.asked.wait(PATIENCE_SECONDS)
    silent.asked.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.post, f"{server.url}/chat/completions", json=BODY)
        assert silent.asked.wait(PATIENCE_SECONDS)
        code, out, told = server.interrupt(getattr(signal, name))
        assert (code, out) == (0, "") and re.fullmatch(r"ending \d answers? under way\nstopped\n", told)
        # the server behind would be silent for ten times as long as we wait
        answer = waiting.result()
        assert answer.status_code == 503
        assert answer.json()["error"] == {
            "message": "the answer was stopped; the server is shutting down", "type": "server_error", "param": None,
            "code": "shutting_down",
        }  # fmt: skip


@shell.sending("SIGINT")
@sends
def test_a_second_ctrl_c_leaves_no_traceback_in_the_log(
    served: Callable[..., Served], serving: Callable[..., Server], name: str
) -> None:
    server, silent = before_silence(served, serving)
    with asking(f"{server.url}/chat/completions", BODY):
        assert silent.asked.wait(PATIENCE_SECONDS)
        server.child.send_signal(getattr(signal, name))
        assert server.child.stderr is not None
        assert of_log(server.child.stderr.readline()) == "ending 1 answer under way\n"
        assert server.interrupt(getattr(signal, name))[1:] == ("", "stopped\n")


@sends
def test_lines_of_its_log_have_time_and_level(served: Callable[..., Served]) -> None:
    write_policy('local = "fake:"')
    server = served("auto", "--port", "0")
    write_policy('local = "fake:"\nthreshold = 2')
    httpx.post(f"{server.url}/chat/completions", json=BODY)
    written = server.interrupt()[2].splitlines()
    assert re.fullmatch(r"loaded auto in \d+\.\d s\n", server.before[-1])
    assert re.fullmatch(r"the policy `.*` sets `threshold` to 2; nothing is sent .*; give a number from 0 .*", written[0])
    assert written[1:] == ["stopped"]


def test_which_models_have_to_be_asked_in_a_table_s_words_is_said_once_and_curl_does(capsys: pytest.CaptureFixture[str]) -> None:
    def said(**questions: str | None) -> list[str]:
        models = {name: Responder(name, FakeEngine(), question=question) for name, question in questions.items()}
        importlib.import_module("nomoat.cli.serve")._say_ready("http://127.0.0.1:1/v1", Models(models), None)
        return capsys.readouterr().err.splitlines()

    question = "Text: {text}\nColour:"
    assert not [line for line in said(plain=None) if "note: " in line]
    lines = said(t=question, plain=None)
    assert commands.as_line([json.dumps("Text: What is a moat?\nColour:")])[1:-1] in lines[2]
    assert [line for line in lines if "note: " in line] == [
        "note: t was tuned on a table, and has to be asked in its words, which `nomoat show MODEL` prints and `v1/models` has as "
        "`question`; an answer to other words says so in the header `x-nomoat-notes`"
    ]
    assert said(auto=question)[-1].startswith("note: the model that `auto` answers with here was tuned on a table, and has to be")
    assert said(plain=None, **{f"t{at}": question for at in range(7)})[-1].startswith(
        "note: t0, t1, t2, t3, t4 and 2 more were each tuned on a table, and have to be asked in its words"
    )


def test_on_windows_curl_asks_in_ascii(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of Korean words a curl may send what CP949 makes of them, which is no JSON."""
    monkeypatch.setattr(sys, "platform", "win32")
    models = Models({"smollm2-135m+문의": Responder("smollm2-135m+문의", FakeEngine())})
    importlib.import_module("nomoat.cli.serve")._say_ready("http://127.0.0.1:1/v1", models, None)
    curl = capsys.readouterr().err.splitlines()[2]
    assert curl.isascii() and r'-d "{\"model\": \"smollm2-135m+\ubb38\uc758\", ' in curl


def test_models_without_a_chat_template_are_named_and_curl_has_the_first_complete_a_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base, chat = (str(write_tiny_gguf(tmp_path / f"{name}.gguf", template=template)) for name, template in TEMPLATES.items())

    def said(*refs: str, **settings: str) -> list[str]:
        importlib.import_module("nomoat.cli.serve")._say_ready("http://127.0.0.1:1/v1", from_references(refs, **settings), None)
        return capsys.readouterr().err.splitlines()

    note = (
        "note: base.gguf has no chat template: it completes texts (`v1/completions`), and chats are refused, the page's too; "
        "`--template NAME` gives one, to all models of a server, and `nomoat run MODEL hi` says which fits"
    )
    lines = said(base, chat, "fake:")
    assert lines[2].startswith("  curl http://127.0.0.1:1/v1/completions ") and lines[-1] == note
    assert commands.as_line([json.dumps({"model": "base.gguf", "prompt": "A moat is"})]) in lines[2]
    lines = said(chat, base)
    assert lines[2].startswith("  curl http://127.0.0.1:1/v1/chat/completions ") and lines[-1] == note
    assert "note: " not in "".join(said(chat) + said(base, template="alpaca"))


@pytest.mark.parametrize(
    ("bound", "ipv4", "ipv6", "takes_ipv4", "shown"),
    [
        ("0.0.0.0", "192.168.0.5", "fd00::5", True, "192.168.0.5"),
        ("0.0.0.0", None, "fd00::5", True, None),
        ("[::]", "192.168.0.5", "fd00::5", True, "[fd00::5]"),
        ("[::]", "192.168.0.5", None, True, "192.168.0.5"),
        ("[::]", "192.168.0.5", None, False, None),
        ("[::]", None, None, True, None),
        ("192.168.0.5", "192.168.0.5", "fd00::5", True, None),
        ("[fd00::5]", "192.168.0.5", "fd00::5", True, None),
        ("127.0.0.1", "192.168.0.5", "fd00::5", True, None),
    ],
)
def test_a_server_for_other_machines_says_where_they_reach_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    bound: str, ipv4: str | None, ipv6: str | None, takes_ipv4: bool, shown: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr("nomoat.net.own_address", lambda *, is_ipv6: ipv6 if is_ipv6 else ipv4)
    monkeypatch.setattr("nomoat.net.ipv6_takes_ipv4", lambda: takes_ipv4)
    models = Models({"m": Responder("m", FakeEngine())})
    importlib.import_module("nomoat.cli.serve")._say_ready(f"http://{bound}:1/v1", models, "--api-key")
    lines = capsys.readouterr().err.splitlines()
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(bound, bound)
    assert lines[1] == f"  in a browser: http://{here}:1/"
    others = [line for line in lines if "from other machines" in line]
    assert others == ([f"  from other machines: http://{shown}:1/"] if shown else [])


def test_auto_whose_model_is_not_here_or_not_named_is_refused_at_the_start() -> None:
    assert refused("fake:", "auto", "--port", "0")[2].startswith("error: `auto` does not know the model on this machine: ")
    default_path().parent.mkdir(parents=True)
    default_path().write_text('local = "gone.gguf"')
    assert refused("fake:", "auto", "--port", "0")[2] == (
        "error: no file at `gone.gguf`\nhint: check the path, or see what there is with `nomoat models`\n"
    )


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("models", [("openai:big",), ("fake:", "openai:big"), ("auto",), ("fake:", "auto")])
def test_a_cloud_without_its_key_is_refused_at_the_start_wherever_it_is_listed(models: tuple[str, ...]) -> None:
    write_policy('local = "fake:"\ncloud = "openai:big"')
    assert refused(*models, "--port", "0")[2] == (
        "error: `openai:big` needs a key, and OPENAI_API_KEY is not set\n"
        f'hint: export OPENAI_API_KEY=…, or write OPENAI_API_KEY = "…" into `{config.keys_path()}`, then try again\n'
    )


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("policy", "environment", "why"),
    [
        ('cloud = "openai:gpt-99"\nmax_usd_per_day = 2', {"OPENAI_API_KEY": "k"}, "the price of `openai:gpt-99` is not known, and"),
        (
            'cloud = "openai:big"\nallowed = ["openai"]',
            {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "https://evil.example.com/v1"},
            "the policy does not allow to ask `evil.example.com`: `allowed` is openai",
        ),
        ("", {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, "`openai:m` needs a key, and OPENAI_API_KEY is not set"),
    ],
)
def test_auto_that_could_not_be_loaded_is_refused_at_the_start(
    policy: str, environment: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each request to it would load the whole model on this machine, and fail."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    write_policy(f'local = "{"fake:" if policy else "openai:m"}"\n{policy}')
    assert refused("fake:", "auto", "--port", "0")[2].startswith(f"error: {why}")


def test_a_chat_template_that_none_of_the_models_would_use_is_refused() -> None:
    assert refused("fake:", "http://127.0.0.1:9/v1#m", "--port", "0", "--template", "falcon")[2] == (
        "error: `fake:` takes no chat template, and `falcon` is named\n"
        "hint: leave out `--template` (in Python: `template`), which is for weights on this disk\n"
    )


def test_what_the_policy_of_auto_does_not_keep_here_is_said_before_it_is_served() -> None:
    default_path().parent.mkdir(parents=True)
    default_path().write_text('local = "gone.gguf"\ncloud = "openai:big"\nnever_leaves = ["phone", "name"]')
    left_out = (
        "resident_number, identity_document, number_plate, business_number, customs_code, bank_account, card, email, address, api_key"
    )
    note, error, _ = shell.program("serve", "auto", "--port", "0").stderr.splitlines()
    assert of_log(note) == f"note: never_leaves does not name {left_out}: such data may leave"
    assert error == "error: no file at `gone.gguf`"


def test_other_machines_need_a_key() -> None:
    assert refused("fake:", "--host", "0.0.0.0") == (
        1,
        "",
        "error: `0.0.0.0` can be reached from other machines, and there is no API key\n"
        "hint: set NOMOAT_API_KEY or add `--api-key KEY`, or serve this machine only with `--host 127.0.0.1` "
        "(in Python: `api_key`, `host`)\n",
    )


def test_an_empty_key_is_refused_and_the_variable_is_not_taken_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_API_KEY", "s3cret-key")
    assert refused("no such model", "--api-key", "") == (
        1, "",
        "error: the API key is empty\nhint: give one (is a variable unset?), or leave it out to serve this machine without a key\n",
    )  # fmt: skip


@pytest.mark.parametrize("given", ["inf", "nan", "1e+300"])
def test_memory_without_end_is_refused(given: str) -> None:
    assert refused("fake:", "--memory", given) == (1, "", f"error: --memory is {given}\nhint: give it in GB, such as 4\n")


def test_port_in_use_is_said_with_another_to_try() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert refused("fake:", "--port", str(port)) == (
            1, "", f"error: port {port} of `127.0.0.1` is in use\nhint: choose another: `--port {port + 1}` (in Python: `port`)\n",
        )  # fmt: skip


def test_address_of_another_machine_cannot_be_bound() -> None:
    assert refused("fake:", "--host", "192.0.2.1", "--port", "0", "--api-key", "k") == (
        1, "",
        "error: cannot serve at `192.0.2.1` port 0: Cannot assign requested address\n"
        "hint: try `--host 127.0.0.1` (in Python: `host`)\n",
    )  # fmt: skip
