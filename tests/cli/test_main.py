"""What every verb shares: how it ends on Ctrl-C, what it says of places, and terminals that know few characters."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from patience import PATIENCE_SECONDS
from shell import NOMOAT, Done, sending
from typer.main import get_command
from typer.testing import CliRunner

from nomoat import cli, paths, system_errors
from nomoat.errors import NotEnoughDiskError, NotEnoughMemoryError, NotWritableError

Nomoat = Callable[..., Done]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


PRESSED = """
import signal, sys
from nomoat import cli
from nomoat.engine.fake import FakeEngine
def press(*_): signal.raise_signal(signal.SIGINT)
FakeEngine.__init__ = press
cli.main()
"""


def test_ctrl_c_ends_a_verb_with_a_word_and_exit_code_130() -> None:
    done = python(PRESSED, "run", "fake:", "x", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


BY_CTRL_C = 3 if sys.platform == "win32" else -signal.SIGINT  # what a process ends with that raises the signal itself
BEFORE_IT_BEGINS = """
import signal, sys
from importlib.abc import MetaPathFinder
class Press(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "nomoat.cli":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Press())
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv.pop(1) == "ignored" else signal.default_int_handler)
from nomoat.__main__ import main
main()
"""


def test_ctrl_c_before_anything_has_begun_shows_no_traceback() -> None:
    done = python(BEFORE_IT_BEGINS, "heard", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (BY_CTRL_C, "", "")


BEFORE_ITS_VERB = """
import signal, sys
from nomoat import cli
from nomoat.__main__ import main
def press(): signal.raise_signal(signal.SIGINT)
cli.console.print_what_it_can = press
main()
"""


def test_ctrl_c_before_a_verb_has_begun_shows_no_traceback() -> None:
    done = python(BEFORE_ITS_VERB, "run", "fake:", "x")
    assert (done.returncode, done.stdout, done.stderr) == (BY_CTRL_C, "", "")


def test_ctrl_c_that_is_ignored_stays_so() -> None:
    done = python(BEFORE_IT_BEGINS, "ignored", "--version")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("nomoat ")


LOST = """
import ctypes, signal, time
from nomoat import cli
from nomoat.engine.fake import FakeEngine
def press(): signal.raise_signal(signal.SIGINT)
def compile(*_):
    ctypes.CFUNCTYPE(None)(press)()
    time.sleep(30)
FakeEngine.__init__ = compile
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there it is lost: Windows has no pthread_kill")
def test_ctrl_c_within_a_callback_of_c_is_not_lost() -> None:
    """numba's compiler calls Python so: there Python can raise nothing, and would only print that it was ignored."""
    done = python(LOST, "run", "fake:", "x")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGHUP, and ends a process at SIGTERM")
@sending("SIGTERM", "SIGHUP")
def test_a_verb_stopped_by_the_system_ends_as_by_ctrl_c(name: str) -> None:
    code = PRESSED.replace("signal.SIGINT", f"signal.{name}")
    done = python(code, "run", "fake:", "x", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


UNDER_NOHUP = """
import signal, sys
from nomoat import cli
signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.stdin.isatty = lambda: signal.raise_signal(signal.SIGHUP) or True
cli.main()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without such terminals")
def test_a_terminal_that_is_closed_stops_nothing_under_nohup() -> None:
    done = python(UNDER_NOHUP, "run", "fake:", "x")
    assert (done.returncode, done.stdout) == (0, "x\n")


def in_posix_shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(f"{NOMOAT} {command}", shell=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell closes it")
@pytest.mark.parametrize("command", ["run fake: hi <&-", "run fake: hi 2>&-", "rm --cache >&- 2>&- <&-"])
def test_what_is_closed_is_read_as_nothing_and_words_to_a_person_may_be_lost(command: str) -> None:
    done = in_posix_shell(command)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell closes it")
@pytest.mark.parametrize("command", ["run fake: hi", "run fake: hi --json", "config --json", "models", "--version"])
def test_what_a_closed_stdout_loses_is_an_error(command: str) -> None:
    done = in_posix_shell(f"{command} >&-")
    assert (done.returncode, done.stderr.splitlines()[-2:]) == (
        1,
        [
            "error: stdout is closed (`>&-`), and what was to be written there is lost",
            "hint: where it is not wanted, `>/dev/null`",
        ],
    )
    assert in_posix_shell(f"{command} >&- 2>&-").returncode == 1


ENDED = """
import sys
from nomoat import cli
def end():
    print("lost")
    sys.exit(130)
cli.app = end
cli.main()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_an_end_that_was_an_error_stays_what_it_is_where_stdout_takes_nothing() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", ENDED], stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_SECONDS, check=False,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "")


def test_a_home_that_is_a_file_is_said_whatever_the_verb(nomoat: Nomoat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    for home in (file, file / "below"):
        monkeypatch.setenv("NOMOAT_HOME", str(home))
        done = nomoat("config")
        assert (done.returncode, done.stderr) == (
            1,
            f"error: NOMOAT_HOME is `{home}`, and `{file}` is a file\nhint: set it to a folder of yours\n",
        )


@pytest.mark.parametrize("home", [" ", '"/srv/nomoat"', "'/srv/nomoat'"])
def test_a_home_in_quotes_or_of_blanks_is_refused_whatever_the_verb(
    home: str, nomoat: Nomoat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a file of variables; a folder of that name would lie in the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOMOAT_HOME", home)
    done = nomoat("run", "smollm2-135m", "hi")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: NOMOAT_HOME is `{home}`\nhint: set it to a folder of yours, without quotes in the value, or unset it\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_home_on_a_disk_that_is_not_mounted_is_said_whatever_the_verb(
    nomoat: Nomoat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, disk = tmp_path / "link", tmp_path / "disk" / "nomoat"
    link.symlink_to(disk)
    for home in (link, link / "below"):
        monkeypatch.setenv("NOMOAT_HOME", str(home))
        done = nomoat("models", "--pulled")
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            f"error: NOMOAT_HOME is `{home}`, and `{link}` is a link to `{disk}`, which is not there\n"
            "hint: mount its disk, make that folder, or set NOMOAT_HOME to a folder of yours\n",
        )


def test_a_home_on_a_drive_that_is_not_there_is_said_whatever_the_verb(nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk of Windows that was unplugged: nothing above it is there, not even a root."""
    home, is_there = paths.home(), paths._is_there
    monkeypatch.setattr(paths, "_is_there", lambda place: place.is_relative_to(home) and is_there(place))
    done = nomoat("models", "--pulled")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"error: NOMOAT_HOME is `{home}`, and `{home.anchor}` is not there\n"
        "hint: connect its disk, or set NOMOAT_HOME to a folder of yours\n",
    )


def test_a_home_that_this_user_may_not_enter_is_said_whatever_the_verb(
    nomoat: Nomoat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `docker run -u 1000` of an image whose HOME is root's. root may enter all, so the system's refusal is put in its mouth."""
    theirs, link = tmp_path / "theirs", tmp_path / "link"
    link.symlink_to(theirs / "nomoat")
    stat = Path.stat

    def refused(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if (path == link and follow_symlinks) or theirs in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refused)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != theirs)
    for home in (theirs / ".nomoat", theirs / "more" / "nomoat", link):
        monkeypatch.setenv("NOMOAT_HOME", str(home))
        done = nomoat("config")
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            f"error: NOMOAT_HOME is `{home}`, and this user may not enter `{theirs}`\n"
            "hint: set NOMOAT_HOME to a folder of yours, or HOME to your own\n",
        )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows may say that it is not there")
@pytest.mark.parametrize("arguments", [["show"], ["run"], ["serve"], ["bench"], ["eval", "fake:"], ["suites", "show"]])
def test_a_text_in_the_place_of_a_name_is_two_lines(nomoat: Nomoat, arguments: list[str]) -> None:
    text = "why is that so " * 20
    done = nomoat(*arguments, text, *(["x"] if arguments == ["run"] else []))
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"error: `{text[:60]}…` is longer than the name of a file may be\nhint: is it a text, where a name is asked for?\n",
    )


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_place_that_may_not_be_looked_into_is_named(number: int) -> None:
    """root may look everywhere, so the system's refusal is put in its mouth."""
    found = system_errors.as_error(OSError(number, "", "/home/other/model.gguf"))
    assert found is not None
    assert found.message == f"`/home/other/model.gguf`: {os.strerror(number)}"
    assert found.hint == "check who may read and write there"


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_who_may_not_read_a_home_of_somebody_else_is_told_how_its_owner_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the user of an image that root has filled. What is open already is not what keeps others out."""
    paths.make_folder(paths.models())
    paths.home().chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: paths.home().stat().st_uid + 1)
    hint = "check who may read and write there, or set NOMOAT_HOME to a folder of yours"
    opened = f"; nomoat makes `{paths.home()}` for its owner alone, who may open it to others: chmod 755 {paths.home()}"
    for told in (hint + opened, hint):
        found = system_errors.as_error(OSError(errno.EACCES, "", str(paths.models() / "m.gguf")))
        assert found is not None and found.hint == told
        paths.home().chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_who_may_not_read_what_another_put_into_their_home_is_told_how_to_have_it_back() -> None:
    """As a service's user, for whom root has run a command: opening the home to others would not help."""
    paths.make_folder(paths.models())
    paths.home().chmod(0o700)
    found = system_errors.as_error(OSError(errno.EACCES, "", str(paths.models() / "m.gguf")))
    assert found is not None and found.hint == (
        "check who may read and write there, or set NOMOAT_HOME to a folder of yours; what lies there may be another user's, as after "
        f"a command of root's: sudo chown -R {os.geteuid()} {paths.home()}"
    )


def test_a_full_disk_is_said_and_other_errors_are_bugs() -> None:
    assert isinstance(system_errors.as_error(OSError(errno.ENOSPC, "")), NotEnoughDiskError)
    told = "Check 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\nFailed to allocate 207859712 bytes of memory"
    of_pytorch = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
    at_import = ImportError("failed to map segment from shared object")
    for exc in (OSError(errno.ENOMEM, ""), MemoryError(), RuntimeError(told), RuntimeError(of_pytorch), at_import):
        assert isinstance(system_errors.as_error(exc), NotEnoughMemoryError)
    assert system_errors.as_error(RuntimeError("another")) is None and system_errors.as_error(ImportError("another")) is None
    assert isinstance(system_errors.as_error(OSError(errno.EFBIG, "")), NotWritableError)
    assert system_errors.as_error(OSError(errno.EBADF, "", "x")) is None and system_errors.as_error(OSError(errno.EACCES, "")) is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has all homes beside each other")
def test_a_home_that_nobody_has_is_said(nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch) -> None:
    hint = "hint: give the whole path instead\n"
    assert nomoat("run", "~nobody-of-here/m.gguf", "x").stderr == (
        f"error: `~nobody-of-here/m.gguf`: no home folder is known for `~nobody-of-here`\n{hint}"
    )
    monkeypatch.setenv("NOMOAT_HOME", "~nobody-of-here/x")
    assert nomoat("models").stderr == f"error: `~nobody-of-here/x`: no home folder is known for `~nobody-of-here`\n{hint}"


@pytest.mark.parametrize("encoding", ["ascii", "ascii:surrogateescape"])  # the second where the locale is C
def test_what_knows_few_characters_gets_a_sign_for_the_others_and_a_file_is_noted(
    program: Nomoat, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done, note = program("run", "fake:", "a 한글 이"), "note: in what is written `?` stands for characters that ascii lacks"
    assert (done.stdout, done.stderr.count(note)) == ("? ?? a\n", 1)
    done = program("run", "fake:", "a 한글", "--json")
    assert (json.loads(done.stdout)["text"], note in done.stderr) == ("한글 a", False)
    assert note not in program("run", "fake:", "a b").stderr


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell closes it")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "fake:", "hello"], 0, ""),
        (["run", "fake:"], 1, "error: "),
        (["rm", "smollm2-135m"], 1, "error: no model called `smollm2-135m` is pulled"),
        (["pull", "falcon-40b"], 1, "error: "),
    ],
)
def test_a_closed_stdin_is_nobody(arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    command = ["sh", "-c", 'exec "$0" "$@" <&-', NOMOAT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, cwd=tmp_path)
    assert "Traceback" not in done.stderr and done.stderr.splitlines()[-2 if code else 0].startswith(said)
    assert done.returncode == code


def test_a_verb_of_another_tool_is_told_its_name_here() -> None:
    root = get_command(cli.app)
    names = set(root.list_commands(typer.Context(root)))  # type: ignore[attr-defined]
    assert set(cli.CALLED_ELSEWHERE.values()) <= names
    assert not names & set(cli.CALLED_ELSEWHERE)
    done = CliRunner().invoke(cli.app, ["list"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "No such command 'list'. Here that is 'nomoat models'." in done.stderr


def test_a_verb_of_another_tool_that_nothing_is_here_is_told_what_to_do_instead() -> None:
    root = get_command(cli.app)
    assert not {*root.list_commands(typer.Context(root)), *cli.CALLED_ELSEWHERE} & set(cli.NOT_HERE)  # type: ignore[attr-defined]
    done = CliRunner().invoke(cli.app, ["help", "run"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "No such command 'help'. 'nomoat -h' lists the verbs, 'nomoat VERB -h' tells of one." in done.stderr


@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize("group", [[], ["suites"], ["route"]])
def test_help_cuts_no_command_s_sentence_however_narrow_the_terminal(nomoat: Nomoat, columns: str, group: list[str]) -> None:
    done = nomoat(*group, "--help", COLUMNS=columns)
    _, _, commands = done.stdout.partition("Commands:\n")
    # No line of help is made shorter than 50 for a terminal that is.
    assert commands and "..." not in commands
    assert all(len(line) <= max(int(columns), 50) for line in commands.splitlines())


def test_a_misspelt_variable_is_told_its_name_once_and_one_of_somebody_else_is_left_alone(nomoat: Nomoat) -> None:
    done = nomoat("run", "fake:", "a", NOMOAT_THREAD="1", NOMOAT_CONTEXT="5", NOMOAT_DATA="x", NOMOAT_HOST="y")
    assert (done.returncode, done.stdout) == (0, "a\n")
    assert done.stderr.splitlines()[:-1] == [
        "note: NOMOAT_CONTEXT is set, and nomoat knows no such variable; did you mean NOMOAT_CONTEXT_TOKENS?",
        "note: NOMOAT_THREAD is set, and nomoat knows no such variable; did you mean NOMOAT_THREADS?",
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone bounds what is mapped")
@pytest.mark.parametrize("kilobytes", [250_000, 400_000])
def test_with_little_room_to_map_a_verb_ends_by_itself(nomoat: Nomoat, kilobytes: int) -> None:
    """OpenBLAS would ask for more for ever, and no signal end it."""
    command = ["sh", "-c", f'ulimit -v {kilobytes}; exec "$0" duel fake: fake:2 --suite sms_spam', NOMOAT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith("error: ") and "Traceback" not in done.stderr


FILLING = """
import resource
from nomoat import cli

held = []

def fill():
    resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
    size = 1 << 20
    while size:
        try:
            held.append(bytearray(size))
        except MemoryError:
            size //= 2
    while True:
        held.append([object()])

cli.app = fill
cli.main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone bounds what is mapped")
def test_where_no_memory_is_left_at_all_the_words_of_the_error_have_some() -> None:
    done = subprocess.run([sys.executable, "-c", FILLING], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: the system gives no more memory\nhint: "), done.stderr


def test_a_password_in_an_address_is_not_shown_again(nomoat: Nomoat) -> None:
    done = nomoat("show", "http://kim:blue42sky@127.0.0.1:1/v1#m")
    told = "error: `http://127.0.0.1:1/v1#m` is asked on its server, and nothing of it is here\n"
    assert (done.returncode, done.stderr.splitlines(keepends=True)[0]) == (1, told)
