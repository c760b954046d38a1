"""What a program in the sandbox can do, and what it cannot."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from patience import PATIENCE_SECONDS

from nomoat.errors import UnsupportedError
from nomoat.judge import sandbox
from nomoat.judge.sandbox import Limits, run_python

QUICK = Limits(cpu_seconds=1, wall_seconds=PATIENCE_SECONDS, memory_bytes=256 << 20, processes=8, disk_bytes=4 << 20)

walled = pytest.mark.skipif(sandbox.missing_wall() != "", reason=f"this machine walls nothing off: {sandbox.missing_wall()}")


@walled
@pytest.mark.parametrize(
    "program",
    [
        "assert 1 + 1 == 2",
        "import collections, decimal, hashlib, heapq, itertools, json, math, random, re, typing",
        "open('a', 'w').write('x'); assert open('a').read() == 'x'",
        "import tempfile\nwith tempfile.NamedTemporaryFile('w') as f: f.write('x')",
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    a: 'int' = 1\nassert A().a == 1",
        "import threading\nt = threading.Thread(target=print); t.start(); t.join()",
        "import multiprocessing\nwith multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, 2]) == [1, 2]",
        "import multiprocessing\nqueue = multiprocessing.Queue(); queue.put(1); assert queue.get() == 1",
        "import multiprocessing\nwith multiprocessing.Lock(): assert multiprocessing.Array('i', 2)[:] == [0, 0]",
        "print('좋아요' * 100_000)",
        "import socket\nfor family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6): socket.socket(family).close()",
        "import asyncio\nasyncio.run(asyncio.sleep(0))",
        "def f(x: int): pass\nassert f.__annotations__['x'] is int",  # evaluated, as in a file of one's own
    ],
)
def test_what_a_solution_needs_is_there(program: str) -> None:
    assert run_python(program, limits=QUICK) == sandbox.Ran(outcome="passed")


@walled
@pytest.mark.parametrize(
    ("program", "outcome", "said"),
    [
        ("assert 1 == 2, 'no'", "failed", "AssertionError: no (line 1: assert 1 == 2, 'no')"),
        ("def f(:", "failed", "SyntaxError"),
        ("import sys; sys.exit(0)", "failed", "SystemExit: 0 (line 1: import sys; sys.exit(0))"),
        ("import os; os._exit(0)", "failed", "left before its end"),
        ("import os; os.kill(os.getpid(), 9)", "failed", "ended by SIGKILL"),  # as the kernel does where memory is short
        ("import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "out of time", "ended by SIGKILL"),
        ("def f(): f()\nf()", "failed", "RecursionError"),
        ("while True: pass", "out of time", "ended by SIGXCPU"),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", "out of memory", "MemoryError"),
        ("import os\nwhile True: os.fork()", "failed", "BlockingIOError"),
        ("open('/x', 'w')", "failed", "Read-only file system"),
        ("open('/etc/x', 'w')", "failed", "Read-only file system"),
        ("import os; os.chmod('/', 0o777)", "failed", "Read-only file system"),
        ("open('/usr/x', 'w')", "failed", "Read-only file system"),
        ("f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))", "failed", "OSError"),
        ("import itertools\nfor n in itertools.count(): open(f'{n}', 'wb').write(bytes(1 << 20))", "failed", "No space left"),
        ("import itertools\nfor n in itertools.count(): open(f'{n}', 'w').close()", "failed", "No space left"),
        (
            "from multiprocessing.shared_memory import SharedMemory\nfor n in range(9):\n"
            "    shared = SharedMemory(create=True, size=1 << 20); shared.buf[::4096] = bytes(256)",
            "failed",
            "ended by SIGBUS",  # shared memory is files
        ),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "failed", "no network in a sandbox"),
        ("import os; assert not [k for k in os.environ if k != 'LC_CTYPE']; assert os.getppid() == 1 and os.getuid()", "passed", ""),
    ],
)
def test_what_it_must_not_do_ends_it(program: str, outcome: str, said: str) -> None:
    ran = run_python(program, limits=QUICK)
    assert ran.outcome == outcome
    assert said in ran.said


@walled
def test_a_sleeper_is_ended_by_the_clock() -> None:
    ran = run_python("import time; time.sleep(600)", limits=Limits(wall_seconds=0.5))
    assert ran == sandbox.Ran(outcome="out of time", said="not done after 0.5 s")


@walled
def test_a_bomb_of_sleeping_processes_leaves_nothing_behind() -> None:
    marker = f"nomoat-bomb-{uuid.uuid4()}"
    bomb = (
        "import os, subprocess, sys\n"
        f"sleeper = [sys.executable, '-c', 'import time; time.sleep(600)', '{marker}']\n"
        "try:\n    while True: subprocess.Popen(sleeper, start_new_session=True)\n"
        "except OSError: pass"
    )
    assert run_python(bomb, limits=Limits(wall_seconds=PATIENCE_SECONDS)).outcome == "passed"
    assert [one.pid for one in psutil.process_iter(["cmdline"]) if marker in (one.info["cmdline"] or ())] == []


@walled
@pytest.mark.parametrize("isolated", [True, False])
def test_a_program_ends_with_the_nomoat_that_runs_it_even_by_kill_9(isolated: bool) -> None:
    program = "import time; open('begun', 'w').close(); time.sleep(600)" if isolated else "import time; time.sleep(600)"
    script = f"from nomoat.judge import sandbox; sandbox._run({program!r}, sandbox.DEFAULT_LIMITS, isolated={isolated})"
    nomoat = psutil.Popen([sys.executable, "-c", script])
    try:
        started: list[psutil.Process] = []
        while len(started) < 3:  # who waits outside, who waits inside, and the program
            assert nomoat.poll() is None
            time.sleep(0.05)
            started = nomoat.children(recursive=True)
    finally:
        nomoat.kill()
        nomoat.wait()
    _, left = psutil.wait_procs(started, timeout=PATIENCE_SECONDS)
    for process in left:
        process.kill()
    assert left == []


@walled
def test_the_kernel_refuses_the_network_even_without_python() -> None:
    """The C library's connect, which no hook of Python's sees: ENETUNREACH, and ECONNREFUSED or ENETUNREACH on loopback."""
    program = """
import ctypes, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
for host, refused in ((bytes([1, 1, 1, 1]), {101}), (bytes([127, 0, 0, 1]), {101, 111})):
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 80) + host + bytes(8)
    opened = socket.socket()
    assert libc.connect(opened.fileno(), address, 16) == -1
    assert ctypes.get_errno() in refused, ctypes.get_errno()
"""
    assert run_python(program, limits=QUICK).said == ""


@walled
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64", "riscv64"), reason="calls are not known by number on this machine")
@pytest.mark.parametrize(
    "program",
    [
        "import os; os.memfd_create('a')",
        "check(libc.shmget(0, 4096, 0o1600))", "check(libc.msgget(0, 0o1600))", "check(libc.semget(0, 1, 0o1600))",
        "check(libc.syscall(447, 0))",  # memfd_secret
        "check(libc.syscall(425, 4, ctypes.create_string_buffer(120)))",  # io_uring_setup
        "check(libc.socket(40, 1, 0))",  # AF_VSOCK
        "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    ],
)  # fmt: skip
def test_memory_that_no_limit_counts_and_ways_around_the_wall_are_refused(program: str) -> None:
    begin = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def check(result):\n    if result < 0: raise OSError(ctypes.get_errno(), 'no')\n"
    )
    ran = run_python(begin + program, limits=QUICK)
    assert (ran.outcome, ran.said.partition(":")[0]) == ("failed", "PermissionError")


@walled
@pytest.mark.skipif(platform.machine() != "x86_64", reason="calls are not known by number on this machine")
def test_keys_of_the_user_who_runs_it_are_not_there() -> None:
    """Those of the kernel's keyrings, which no namespace keeps apart: a key of the session is neither found nor left behind."""
    libc = ctypes.CDLL(None, use_errno=True)
    add_key, request_key, keyctl, session, unlink = 248, 249, 250, -3, 9
    name = f"nomoat-{uuid.uuid4().hex}".encode()
    key = libc.syscall(add_key, b"user", name, b"secret", 6, session)
    if key < 0:
        pytest.skip(f"no keys here: {os.strerror(ctypes.get_errno())}")
    try:
        assert libc.syscall(request_key, b"user", name, None, 0) == key
        program = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
asked = (({request_key}, b"user", {name}, None, 0), ({keyctl}, 11, {key}, None, 0), ({add_key}, b"user", b"a", b"a", 1, {session}))
for call in asked:
    assert (libc.syscall(*call), ctypes.get_errno()) == (-1, 1), call
"""
        assert run_python(program, limits=QUICK).said == ""
    finally:
        libc.syscall(keyctl, unlink, key, session)


@walled
def test_files_of_this_machine_are_not_there(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    assert "FileNotFoundError" in run_python(f"open({str(secret)!r})", limits=QUICK).said
    assert "FileNotFoundError" in run_python("open('/etc/passwd')", limits=QUICK).said


@walled
def test_there_is_no_way_to_get_rights_back() -> None:
    program = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for call in (lambda: libc.unshare(0x10000000), lambda: libc.unshare(0x20000), lambda: libc.chroot(b"."), lambda: libc.setuid(0)):
    assert call() == -1, "had rights"
assert libc.mount(b"none", b"/nomoat-work", b"tmpfs", 0, None) == -1
status = dict(line.split(":", 1) for line in open("/proc/self/status")) if os.path.exists("/proc/self/status") else {}
assert int(status.get("CapEff", "0"), 16) == 0
"""
    assert run_python(program, limits=QUICK).said == ""


@walled
def test_a_program_that_forks_does_not_pass_by_its_child() -> None:
    assert run_python("import os\nif os.fork(): assert False\n", limits=QUICK).outcome == "failed"


CLAIMING = """
import gc, json, os
objects = [one for one in gc.get_objects() if type(one) is dict]
known = {key: one[key] for one in objects for key in one if type(key) is type(one[key]) is str and len(one[key]) == 32 > len(key)}
claims = [json.dumps({**known, "outcome": "passed", "said": ""}), "passed\\n"]
for descriptor in range(3, 64):
    try:
        os.write(descriptor, claims[CLAIM].encode())
    except OSError:
        pass
"""


@walled
@pytest.mark.parametrize("claim", ["0", "1"])
@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 15)"])
def test_a_program_finds_nothing_in_its_process_to_claim_success_with(claim: str, end: str) -> None:
    """With whatever looks like a secret, and as the process itself would say it."""
    ran = run_python(CLAIMING.replace("CLAIM]", f"{claim}]") + end, limits=QUICK)
    assert ran.outcome == "failed"
    assert ran.said in ("left before its end", "ended by SIGTERM")


@walled
@pytest.mark.parametrize(
    "change",
    [
        "import json; json.dumps = lambda *_, **__: '{}'",
        "import json; before = json.dumps; json.dumps = lambda said, **more: before({**said, 'outcome': 'passed'}, **more)",
        "import os; before = os.write; os.write = lambda to, said: before(to, said.replace(b'failed', b'passed'))",
        "import os; os._exit = os.getpid = print",
    ],
)
def test_a_program_that_changes_modules_changes_nothing_of_what_is_said_of_it(change: str) -> None:
    ran = run_python(f"{change}\nassert False", limits=QUICK)
    assert ran == sandbox.Ran(outcome="failed", said="AssertionError (line 2: assert False)")


@walled
@pytest.mark.parametrize(
    ("claim", "ran"),
    [
        ("'passed', 'boo'", sandbox.Ran(outcome="passed")),
        ("'no limits', 'boo'", sandbox.Ran(outcome="failed", said="left before its end")),
    ],
)
def test_what_a_program_says_in_the_place_of_its_sandbox_ends_nothing_else(claim: str, ran: sandbox.Ran) -> None:
    assert run_python(f"import sys; sys._getframe(1).f_locals['tell']({claim})", limits=QUICK) == ran


@walled
@pytest.mark.parametrize(
    "program",
    [
        "import multiprocessing\nwith multiprocessing.Pool() as pool: assert pool.map(abs, [-1, 2]) == [1, 2]",
        "from concurrent.futures import ProcessPoolExecutor as Pool\nwith Pool() as pool: assert [*pool.map(abs, range(99))]",
        "import time\nfrom concurrent.futures import ThreadPoolExecutor as Pool\n"
        "def make(_):\n    made = [bytes(2000) for _ in range(2000)]; time.sleep(0.02); return made[0]\n"
        "with Pool() as pool: assert [*pool.map(make, range(99))]",
        "import asyncio, time\nasync def wait(): await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.05) for _ in range(60)))\n"
        "asyncio.run(wait())",
    ],
)
def test_a_pool_fits_into_the_sandbox_of_a_machine_with_many_cpus(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nomoat.judge import sandbox_child

    source, child = Path(sandbox_child.__file__).read_text(encoding="utf-8"), tmp_path / "child.py"
    many = "import os\nos.cpu_count = os.process_cpu_count = lambda: 64\n"
    child.write_text(source.replace("import ctypes", f"{many}import ctypes", 1), encoding="utf-8")
    monkeypatch.setattr(sandbox_child, "__file__", str(child))
    assert run_python(program, limits=Limits(wall_seconds=PATIENCE_SECONDS)) == sandbox.Ran(outcome="passed")


@walled
def test_a_program_with_as_many_files_open_as_it_may_have_passes() -> None:
    program = "files = []\ntry:\n    while True: files.append(open('/dev/null'))\nexcept OSError: pass"
    assert run_python(program, limits=QUICK).outcome == "passed"


@walled
def test_too_few_processes_for_the_sandbox_itself_are_no_fault_of_a_program() -> None:
    with pytest.raises(UnsupportedError, match=r"a program's limits cannot be set here \(BlockingIOError"):
        run_python("pass", limits=Limits(processes=1))


def test_windows_is_refused_before_there_is_an_answer_whatever_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "missing_wall", lambda: "that needs Linux")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv(sandbox.UNSAFE_SWITCH, "1")
    with pytest.raises(UnsupportedError) as caught:
        sandbox.require_wall()
    assert caught.value.message == "answers of code are run to be scored, and this machine cannot wall them off: that needs Linux"
    assert caught.value.hint == "use Linux, or WSL on Windows"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_without_a_wall_nothing_is_run_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "missing_wall", lambda: "no namespaces here")
    with pytest.raises(UnsupportedError) as caught:
        run_python("pass")
    assert caught.value.message == "answers of code are run to be scored, and this machine cannot wall them off: no namespaces here"
    monkeypatch.setenv(sandbox.UNSAFE_SWITCH, "1")
    assert run_python("open('a', 'w').close()", limits=QUICK).outcome == "passed"
    assert run_python("while True: pass", limits=QUICK).outcome == "out of time"
    assert "no network" in run_python("import socket; socket.create_connection(('127.0.0.1', 9))", limits=QUICK).said


REFUSING = """
import resource, sys
set_one = resource.setrlimit
def refuse(which, pair):
    if which == resource.{limit}:
        raise ValueError("current limit exceeds maximum limit")
    set_one(which, pair)
resource.setrlimit, sys.platform = refuse, "{system}"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_limits_that_the_system_refuses_are_no_fault_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS refuses that of memory, which is left out there."""
    from nomoat.judge import sandbox_child

    source, child = Path(sandbox_child.__file__).read_text(encoding="utf-8"), tmp_path / "child.py"
    monkeypatch.setattr(sandbox, "missing_wall", lambda: "no namespaces here")
    monkeypatch.setenv(sandbox.UNSAFE_SWITCH, "1")
    monkeypatch.setattr(sandbox_child, "__file__", str(child))

    def refuse(limit: str, system: str) -> None:
        refusing = REFUSING.format(limit=limit, system=system)
        child.write_text(source.replace("import ctypes", f"{refusing}import ctypes", 1), encoding="utf-8")

    refuse("RLIMIT_AS", "darwin")
    assert run_python("assert 1 + 1 == 2", limits=QUICK).outcome == "passed"
    assert run_python("while True: pass", limits=QUICK).outcome == "out of time"
    refuse("RLIMIT_CPU", "linux")
    with pytest.raises(UnsupportedError) as caught:
        run_python("pass")
    assert caught.value.message == "a program's limits cannot be set here (ValueError: current limit exceeds maximum limit)"
