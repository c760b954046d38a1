"""`config.toml` and what it may say."""

from __future__ import annotations

import json
import os
import re
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import shell

import nomoat
from nomoat import config, hardware, net
from nomoat.catalog.fetch import fetch
from nomoat.cli.config import config as show_config
from nomoat.errors import OfflineError, UsageError
from nomoat.records import Source


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("threads = [", "is not TOML: Invalid value (at end of document)", "mend it or remove it"),
        ("foo = 1", "sets `foo`, which is not a setting", "known: offline, mirror, context_tokens, threads, quality, gateways"),
        ('threads = "abc"', "sets `threads` to 'abc'", "give a whole number of at least 1"),
        ("threads = 4.0", "sets `threads` to 4.0", "give a whole number of at least 1"),
        ("context_tokens = true", "sets `context_tokens` to True", "give a whole number of at least 1"),
        ("threads = 0", "sets `threads` to 0", "give a whole number of at least 1"),
        ("offline = 1", "sets `offline` to 1", "give true or false"),
        ('offline = "no"', "sets `offline` to 'no'", "give true or false"),
        ('quality = "best"', "sets `quality` to 'best'", "give high, default or small, in quotes"),
        ('gateways = ["http://u:p@h:1"]', """sets `gateways` to "['http://h:1']\"""", f"give {config.FROM_FILE['gateways'][1]}"),
        ('gateways = "http://u:p@h:1"', "sets `gateways` to 'http://h:1'", f"give {config.FROM_FILE['gateways'][1]}"),
        ('gateways = "localhost:4000"', "sets `gateways` to 'localhost:4000'", f"give {config.FROM_FILE['gateways'][1]}"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(empty_home: Path, text: str, message: str, hint: str) -> None:
    path = empty_home / "config.toml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        config.read_file()
    assert (caught.value.message, caught.value.hint) == (f"`{path}` {message}", hint)


def test_files_that_windows_saved_as_ansi_are_named_with_the_way_out(empty_home: Path, keys: Callable[..., Path]) -> None:
    empty_home.mkdir(exist_ok=True)
    settings, kept = empty_home / "config.toml", keys("")
    for path, read in ((settings, config.read_file), (kept, lambda: config.secret("OPENAI_API_KEY"))):
        path.write_bytes("# 설정\n".encode("cp949"))
        with pytest.raises(UsageError) as caught:
            read()
        assert caught.value.message == f"`{path}` is not UTF-8 text"
        assert caught.value.hint == "save it as UTF-8 (in Notepad: `Encoding`, in Korean `인코딩`)"


def test_a_file_that_windows_wrote_is_read(empty_home: Path) -> None:
    """Notepad puts a byte-order mark before it, and two signs at each end of a line."""
    empty_home.mkdir(exist_ok=True)
    (empty_home / "config.toml").write_bytes("\ufeffthreads = 1\r\n".encode())
    assert config.read_file() == {"threads": 1}


def test_a_folder_in_its_place_is_said(empty_home: Path) -> None:
    (empty_home / "config.toml").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"(?m)cannot be read: (Is a directory|Permission denied)$"):
        config.read_file()


@pytest.fixture
def file_alone(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `config.toml` that says all it can, and an environment that says nothing."""
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    path = empty_home / "config.toml"
    path.parent.mkdir()
    path.write_text('offline = true\nmirror = "/none"\ncontext_tokens = 512\nthreads = 1\nquality = "small"\n')
    return path


def test_the_file_holds_wherever_settings_are_read(file_alone: Path, tmp_path: Path) -> None:
    """In Python as on the command line: nobody has to apply it first."""
    assert config.threads() == hardware.Detected(1, f"`threads` in `{file_alone}`")
    assert (config.context_tokens(), config.quality().value) == (512, "small")
    with pytest.raises(OfflineError) as refused:
        nomoat.load("openai:gpt-4o-mini")
    assert refused.value.message == f"refused to connect to `api.openai.com` to ask a model server: `offline` in `{file_alone}` is set"
    with pytest.raises(UsageError) as lost:
        fetch(Source(url="mirror:x", file_name="x"), tmp_path / "x", purpose="pull a model")
    assert lost.value.message == f"`mirror` in `{file_alone}` is `/none`, which is no folder"


@pytest.mark.parametrize(
    ("name", "value", "give"),
    [
        ("threads", "abc", config.WHOLE),
        ("threads", "0", config.WHOLE),
        ("context_tokens", "1e3", config.WHOLE),
        ("quality", "Best", "high, default or small"),
        ("offline", "maybe", "true or false"),
        ("offline", "YES", ""),
        ("quality", "high", ""),
        ("gateways", "http://127.0.0.1:4OOO", "addresses as in http://127.0.0.1:4000, with spaces between them"),
        ("gateways", "http://127.0.0.1:65536", "addresses as in http://127.0.0.1:4000, with spaces between them"),
        ("gateways", "4000", "addresses as in http://127.0.0.1:4000, with spaces between them"),
        ("gateways", "http://127.0.0.1:4000 http://[::1]:8000/v1", ""),
    ],
)
def test_a_variable_that_cannot_be_meant_is_listed_as_such(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, give: str
) -> None:
    monkeypatch.setenv(config.variable(name), value)
    (found,) = (setting for setting in config.settings() if setting.name == name)
    assert (found.value, found.give_instead) == (value, give)
    show_config()
    assert (f"NOT VALID: give {give}" in capsys.readouterr().out) == bool(give)


def test_the_environment_is_above_the_file(file_alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_OFFLINE", "0")
    monkeypatch.setenv("NOMOAT_THREADS", "3")
    assert (net.offline(), config.threads().value) == (None, 3)
    origins = {setting.name: (setting.value, setting.origin) for setting in config.settings()}
    assert origins["threads"] == ("3", "environment (NOMOAT_THREADS)")
    assert origins["quality"] == ("small", str(file_alone))


def test_a_broken_file_stops_python_too(file_alone: Path) -> None:
    file_alone.write_text("offline = 1")
    with pytest.raises(UsageError, match="sets `offline` to 1"):
        nomoat.load("openai:gpt-4o-mini")


def test_a_number_of_thousands_of_digits_cannot_be_meant(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_THREADS", "9" * 5000)
    assert next(setting for setting in config.settings() if setting.name == "threads").give_instead == config.WHOLE
    with pytest.raises(UsageError, match="NOMOAT_THREADS is `9999"):
        config.threads()
    monkeypatch.delenv("NOMOAT_THREADS")
    empty_home.mkdir()
    (empty_home / "config.toml").write_text(f"threads = {'9' * 5000}")
    with pytest.raises(UsageError, match="is not TOML"):
        config.threads()
    (empty_home / "config.toml").write_text(f"threads = 0x{'f' * 5000}")
    with pytest.raises(UsageError, match=r"sets `threads` to 3.98e\+6020"):
        config.threads()


def test_more_threads_than_ever_get_anywhere_are_refused_and_some_more_than_cpus_are_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """99,999 were started, until nothing but SIGKILL ended them."""
    monkeypatch.setattr(hardware, "allowed_cores", lambda: {0, 1})
    monkeypatch.setattr(hardware, "threads", lambda: hardware.Detected(2, "2 physical cores"))
    monkeypatch.setenv("NOMOAT_THREADS", "8")
    assert config.threads().value == 8
    monkeypatch.setenv("NOMOAT_THREADS", "99999")
    with pytest.raises(UsageError) as refused:
        config.threads()
    assert refused.value.message == "NOMOAT_THREADS is `99999`, and the most here is 8: 4 for each CPU that this process may use"
    assert refused.value.hint == "give at most 8, or unset it: 2 is chosen, and more only wait for each other"
    show_config()
    assert "(environment (NOMOAT_THREADS))  NOT VALID: give at most 8" in capsys.readouterr().out


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_THREADS", "")
    monkeypatch.setenv("NOMOAT_CONTEXT_TOKENS", "")
    assert (config.threads(), config.context_tokens()) == (hardware.threads(), None)


@pytest.mark.parametrize("is_variable", [True, False])
def test_the_password_of_a_mirror_is_not_listed(empty_home: Path, monkeypatch: pytest.MonkeyPatch, is_variable: bool) -> None:
    address = "https://me:secret@mirror.example/pool@2"
    if is_variable:
        monkeypatch.setenv("NOMOAT_MIRROR", address)
    else:
        monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
        empty_home.mkdir()
        (empty_home / "config.toml").write_text(f'mirror = "{address}"')
    assert [row.value for row in config.settings() if row.name == "mirror"] == ["https://mirror.example/pool@2"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no thread on a core")
def test_a_thread_that_is_kept_on_one_core_counts_all_cores_of_the_process() -> None:
    """OpenVINO keeps its threads on a core each, and asks nomoat's products from them."""
    here, found = hardware.threads(), []

    def ask() -> None:
        os.sched_setaffinity(0, {min(hardware.allowed_cores())})
        found.append(hardware.threads())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [here]


# ---------------------------------------------------------------- secrets
@pytest.fixture
def keys(empty_home: Path) -> Callable[..., Path]:
    """Writes `keys.toml`, for its owner's eyes only unless told otherwise."""

    def write(text: str, mode: int = 0o600) -> Path:
        path = empty_home / "keys.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    return write


def test_a_key_is_the_environments_else_that_of_keys_toml(keys: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.secret("OPENAI_API_KEY") is None
    path = keys('OPENAI_API_KEY = " sk-of-the-file "\nHF_TOKEN = ""\n')
    assert config.secret("OPENAI_API_KEY") == hardware.Detected("sk-of-the-file", str(path))
    assert config.secret("HF_TOKEN") is None
    monkeypatch.setenv("OPENAI_API_KEY", "")  # is not set
    assert config.secret("OPENAI_API_KEY") == hardware.Detected("sk-of-the-file", str(path))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    assert config.secret("OPENAI_API_KEY") == hardware.Detected("sk-of-the-environment", "environment")


def test_of_two_names_of_one_key_the_environments_comes_before_the_files(
    keys: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keys('GOOGLE_API_KEY = "file"')
    assert config.secret("GOOGLE_API_KEY", "GEMINI_API_KEY") == hardware.Detected("file", str(path))
    monkeypatch.setenv("GEMINI_API_KEY", "environment")
    assert config.secret("GOOGLE_API_KEY", "GEMINI_API_KEY") == hardware.Detected("environment", "environment")


@pytest.mark.skipif(os.name != "posix", reason="this system's files have no modes")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602])
def test_keys_that_others_may_read_are_refused(keys: Callable[..., Path], mode: int) -> None:
    path = keys('OPENAI_API_KEY = "sk-1"', mode)
    with pytest.raises(UsageError) as caught:
        config.secret("OPENAI_API_KEY")
    assert caught.value.message == f"`{path}` holds keys, and others may read or change it (mode {mode:o})"
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.skipif(os.name != "posix", reason="this system's files have no modes")
def test_keys_of_another_user_may_be_read_by_their_group(keys: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As those that Kubernetes mounts are: root's, mode 440."""
    path = keys('OPENAI_API_KEY = "sk-1"', 0o440)
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    assert config.secret("OPENAI_API_KEY") == hardware.Detected("sk-1", str(path))
    for mode in (0o460, 0o444, 0o442):
        path.chmod(mode)
        with pytest.raises(UsageError) as caught:
            config.secret("OPENAI_API_KEY")
        assert caught.value.message == f"`{path}` holds keys, and others may read or change it (mode {mode:o})"
        assert caught.value.hint == f"its owner can keep it from others: chmod 640 {path}"


@pytest.mark.skipif(os.name != "posix", reason="this system's files have no modes")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_what_is_wrong_with_the_keys_is_said_after_all_else(
    keys: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    path = keys('OPENAI_API_KEY = "sk-1"', 0o644)
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    done = shell.nomoat("config", *form)
    assert (done.returncode, done.stderr) == (
        1, f"error: `{path}` holds keys, and others may read or change it (mode 644)\nhint: chmod 600 {path}\n"
    )  # fmt: skip
    told = [row["name"] for row in json.loads(done.stdout)] if form else [line.split()[0] for line in done.stdout.splitlines()]
    assert (told[0], told[-1]) == ("home", "HF_TOKEN")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("\nHF_TOKEN = hf_s3cret", "is not TOML (at line 2)", 'write a key a line: OPENAI_API_KEY = "…"'),
        ('openai_api_key = "s3cret"', "sets `openai_api_key`, which is no key", f"known: {', '.join(sorted(config.SECRETS))}"),
        ('OPENAI_KEY = "s3cret"', "sets `OPENAI_KEY`, which is no key", f"known: {', '.join(sorted(config.SECRETS))}"),
        ('sk_s3cret_0123456789 = "x"', "sets `…6789`, which is no key", f"known: {', '.join(sorted(config.SECRETS))}"),
        ("HF_TOKEN = ['hf_s3cret']", "sets `HF_TOKEN` to what is no text", 'write it in quotes: HF_TOKEN = "…"'),
    ],
)
def test_keys_that_cannot_be_meant_are_refused_and_not_shown(keys: Callable[..., Path], text: str, message: str, hint: str) -> None:
    path = keys(text)
    with pytest.raises(UsageError) as caught:
        config.secret("OPENAI_API_KEY")
    assert (caught.value.message, caught.value.hint) == (f"`{path}` {message}", hint)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_what_no_header_can_carry_is_no_key(keys: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = keys('HF_TOKEN = "hf_비밀"')
    with pytest.raises(UsageError) as caught:
        config.secret("HF_TOKEN")
    assert caught.value.message == f"HF_TOKEN holds characters that no key has ({path})"
    monkeypatch.setenv("HF_TOKEN", "a\nb")
    with pytest.raises(UsageError, match=r"(?m)^HF_TOKEN holds characters that no key has \(environment\)$"):
        config.secret("HF_TOKEN")


def test_the_keys_in_the_file_are_used_wherever_one_is_needed(keys: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but `secret` reads these variables: whoever does would not see the file."""
    keys('OPENAI_API_KEY = "sk-of-the-file"')
    monkeypatch.delenv("NOMOAT_OFFLINE")
    nomoat.load("openai:gpt-4o-mini").close()
    code = {path: path.read_text(encoding="utf-8") for path in Path(config.__file__).parent.rglob("*.py")}
    reading = re.compile(rf"(environ|getenv|envvar)[^\n]*(_API_KEY|{config.HUB_TOKEN})")
    assert [path.name for path, text in code.items() if reading.search(text)] == ["serve.py"]  # what it prints for its clients


def test_keys_of_the_file_are_listed_with_it_and_not_shown(keys: Callable[..., Path]) -> None:
    path = keys('ANTHROPIC_API_KEY = "sk-ant-0123456789abcdef"')
    (row,), wrong = config.keys()
    assert wrong is None
    assert (row.name, row.value, row.origin) == ("ANTHROPIC_API_KEY", "…cdef", str(path))


@pytest.mark.parametrize("name", ["NOMOAT_API_KEY", "NOMOAT_UPSTREAM_API_KEY", "GEMINI_API_KEY"])
def test_keys_are_listed_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0123456789abcdef")
    (row,), _ = config.keys()
    assert (row.value, row.origin) == ("…cdef", "environment")


# ---------------------------------------------------------------- addresses
def test_where_models_and_clusters_are_asked_is_listed_without_what_is_secret_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    before = config.settings()
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:s3cret@gateway.example/v1?key=s3cret")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    monkeypatch.setenv("RAY_ADDRESS", "")  # is not set
    added = [row for row in config.settings() if row not in before]
    assert [(row.name, row.value, row.origin) for row in added] == [
        ("HF_ENDPOINT", "https://hub.example", "environment"),
        ("OPENAI_BASE_URL", "https://gateway.example/v1", "environment"),
    ]
