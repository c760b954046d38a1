"""Runs in a process of its own, started by `sandbox.py` with nothing but the standard library: walls itself in, then runs a program.

Job on stdin, as JSON; the result as one JSON line on stdout. Linux only where `isolated` is asked for.

The wall: a new mount, process, network, IPC and host-name namespace; a root of its own in memory that holds the interpreter, the
system's libraries (both read-only) and a work folder; a user who owns nothing; no capabilities, and no way to get any.
"""

from __future__ import annotations

import ctypes
import errno
import json
import linecache
import os
import resource
import signal
import socket
import struct
import sys
import traceback
import types
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
SECCOMP_MODE_FILTER, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 2, 0x7FFF0000, 0x50000
BPF_LOAD_WORD, BPF_EQUAL, BPF_AT_LEAST, BPF_RETURN = 0x20, 0x15, 0x35, 0x06
SYSCALL_NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16  # in what a filter is given (`struct seccomp_data`)
FIRST_X32_CALL = 0x40000000  # the same calls once more, on x86-64
# Of each machine: its number (`AUDIT_ARCH_…`), calls that are refused, and `socket`. Those get memory which none of `set_limits`
# counts once it is not mapped: memfd_create, memfd_secret, shmget, msgget, semget; read and write the user's keys, which no namespace
# keeps apart: add_key, request_key, keyctl; or do what other calls do, unseen by a filter: io_uring_setup.
REFUSED = {
    "x86_64": (0xC000003E, (319, 447, 29, 68, 64, 248, 249, 250, 425), 41),
    "aarch64": (0xC00000B7, (279, 447, 194, 186, 190, 217, 218, 219, 425), 198),
    "riscv64": (0xC00000F3, (279, 447, 194, 186, 190, 217, 218, 219, 425), 198),
}
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)  # of sockets: AF_VSOCK reaches the host of a virtual machine
POINTER_BYTES = 8  # of those machines
M_ARENA_MAX = -8
MOUNT_ATTR_RDONLY_NOSUID_NODEV = 7
SYS_MOUNT_SETATTR = 442  # the same on every architecture; Linux 5.12
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
CAPABILITY_VERSION_3 = 0x20080522
SYSTEM_PATHS = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
WORK = "/nomoat-work"  # a name that no path to a Python begins with
FIRST_FREE_UID = 1_000_000_000  # root becomes one of these: a user that owns nothing and runs nothing else
NOBODY = 65534
NETWORK_EVENTS = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
MAX_SAID, MAX_LINE = 300, 100  # characters of an exception, and of the line it came from
OUTCOMES = ("passed", "failed", "out of memory")  # as a child says them


def main() -> None:
    """Read the job, do it, say how it went."""
    end_with_parent()
    job = json.load(sys.stdin)
    if job["isolated"]:
        try:
            enter_namespaces()
        except OSError as exc:
            say({"outcome": "no isolation", "said": str(exc)})
            return
        end_with_parent()
    # The first process of a new PID namespace: when it ends, the kernel ends every process in there.
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    end_with_parent()
    if job["isolated"]:
        try:
            build_root(Path(job["folder"]), job["paths"], job["disk_bytes"])
            become_nobody(job["user_number"])
        except OSError as exc:
            say({"outcome": "no isolation", "said": str(exc)})
            os._exit(0)
        end_with_parent()
    run_and_report(job)


def say(result: dict[str, str]) -> None:
    """The one line that the parent reads."""
    os.write(1, json.dumps(result).encode() + b"\n")


# ---------------------------------------------------------------- the wall
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise OSError if a call of the C library failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, value: int) -> int:
    return int(libc.prctl(option, value, 0, 0, 0))


def end_with_parent() -> None:
    """When whoever started this process ends, however it ends, so does this one. A change of user makes the kernel forget it."""
    if sys.platform == "linux":
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def enter_namespaces() -> None:
    """Namespaces of our own: as root directly, as anyone else through a user namespace."""
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    uid, gid = os.getuid(), os.getgid()
    if uid:
        flags |= CLONE_NEWUSER
    check(libc.unshare(flags), "unshare")
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, options)]
    check(libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def make_read_only(place: Path, flags: int = 0) -> None:
    """This mount, and those below it if it is AT_RECURSIVE."""
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY_NOSUID_NODEV, 0, 0, 0)
    result = libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, str(place).encode(), flags, attributes, len(attributes))
    check(result, f"make {place} read-only")


def build_root(root: Path, needed: list[str], disk_bytes: int) -> None:
    """A root in memory, at `root`, and go there."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", str(root), "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in needed:
        origin, place = Path(path), root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_symlink():
            place.symlink_to(origin.readlink())
            continue
        if origin.is_dir():
            place.mkdir(exist_ok=True)
        else:
            place.touch()
        mount(path, str(place), None, MS_BIND | MS_REC)
        if path not in DEVICES:
            make_read_only(place, AT_RECURSIVE)
    work = root / WORK.lstrip("/")
    work.mkdir()
    mount("tmpfs", str(work), "tmpfs", MS_NOSUID | MS_NODEV, f"size={disk_bytes},nr_inodes=4096,mode=777")
    for name in ("tmp", "dev/shm"):  # multiprocessing's locks and queues are files in the latter
        if not (root / name).exists():  # there is one where Python itself lies below it
            (root / name).symlink_to(WORK)
    make_read_only(root)  # in a user namespace the root belongs to the user who runs the program
    os.chroot(root)  # who has no capabilities cannot leave it, nor make a user namespace in it
    os.chdir(WORK)


def become_nobody(number: int) -> None:
    """No user (root becomes the free one of that number), no group, no capability, and none to be had from any program."""
    if os.getuid() == 0:
        free = FIRST_FREE_UID + number
        os.setgroups([])
        os.setresgid(free, free, free)
        os.setresuid(free, free, free)
    for capability in range(64):
        prctl(PR_CAPBSET_DROP, capability)  # fails for those this kernel does not know
    header, nothing = struct.pack("Ii", CAPABILITY_VERSION_3, 0), struct.pack("IIIIII", 0, 0, 0, 0, 0, 0)
    check(libc.capset(header, nothing), "capset")
    check(prctl(PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
    refuse_calls()


def refuse_calls() -> None:
    """Refuse the calls in REFUSED, sockets of other FAMILIES, and all calls of other architectures, with EPERM, to this process and
    all that it starts.

    Not covered: machines that REFUSED does not name, and programs of 32 bits.
    """
    machine = os.uname().machine
    if machine not in REFUSED or struct.calcsize("P") != POINTER_BYTES:
        return
    architecture, calls, make_socket = REFUSED[machine]
    allow = 6 + len(calls) + len(FAMILIES)  # where the last instruction but one is; the last one refuses
    steps = [
        (BPF_LOAD_WORD, 0, 0, ARCHITECTURE_AT),
        (BPF_EQUAL, 0, allow - 1, architecture),
        (BPF_LOAD_WORD, 0, 0, SYSCALL_NUMBER_AT),
        (BPF_AT_LEAST, allow - 3, 0, FIRST_X32_CALL),
        *((BPF_EQUAL, allow - at, 0, call) for at, call in enumerate(calls, start=4)),
        (BPF_EQUAL, 0, len(FAMILIES) + 1, make_socket),
        (BPF_LOAD_WORD, 0, 0, FIRST_ARGUMENT_AT),  # its lower half, which is all that the kernel looks at
        *((BPF_EQUAL, len(FAMILIES) - at, int(at == len(FAMILIES)), family) for at, family in enumerate(FAMILIES, start=1)),
        (BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
        (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    described = struct.pack("HP", len(steps), ctypes.addressof(program))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0), "seccomp")


# ---------------------------------------------------------------- the program
def run_and_report(job: dict[str, Any]) -> NoReturn:
    """Run the program in a child and wait for it, so that whatever it does to itself is noticed here.

    The child says how the program ended into a pipe whose end it does not hold while the program runs: that lies in the kernel, in a
    message to the child, who takes it out afterwards. What a program writes to every file there is does not come here, and its memory
    holds no secret. Which message to take, and how, can be read in this file, by whoever writes a program for it.
    """
    read_end, write_end = os.pipe()
    ours, childs = socket.socketpair()
    socket.send_fds(ours, [b"."], [write_end])
    ours.close()
    os.close(write_end)
    try:
        set_limits(job)  # here, for what a child says may be the program's own words
        child = os.fork()  # one process more than there is within them, maybe
    except (OSError, ValueError) as exc:  # that is no fault of the program
        say({"outcome": "no limits", "said": said_of(exc)})
        os._exit(0)
    if not child:
        os.close(read_end)
        run(job, childs)
    childs.close()
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read(10_000)
    _, status, used = os.wait4(child, 0)
    say(judged(said, status, had_its_time=used.ru_utime + used.ru_stime >= job["cpu_seconds"]))
    os._exit(0)


def judged(said: bytes, status: int, *, had_its_time: bool) -> dict[str, str]:
    """What the child's last words, an outcome and a line about it, and its end mean.

    `had_its_time`: with the children that it waited for it took as much CPU time as one process may. Not covered: a program whose
    children took that, and that is killed for another reason, counts as out of time.
    """
    outcome, _, words = said.decode(errors="replace").partition("\n")
    if outcome in OUTCOMES:
        return {"outcome": outcome, "said": "" if outcome == "passed" else words}
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        is_late = number == signal.SIGXCPU or (had_its_time and number == signal.SIGKILL)
        return {"outcome": "out of time" if is_late else "failed", "said": f"ended by {signal.Signals(number).name}"}
    return {"outcome": "failed", "said": "left before its end"}


def run(job: dict[str, Any], channel: socket.socket) -> NoReturn:
    """Run the program, and write how it ended to the pipe that is in a message in `channel`."""
    # A program may change any function of any module: what is called after it is looked up before it.
    receive, own_pid, write, close, leave = channel.recvmsg, os.getpid, os.write, os.close, os._exit
    space, unpack, ignored = socket.CMSG_SPACE(4), struct.Struct("i").unpack, suppress(OSError)
    pid = own_pid()

    def tell(outcome: str, said: str) -> NoReturn:
        try:
            if own_pid() == pid:  # a program may fork: its children have no say
                with ignored:
                    close(0)  # a program may have as many files open as it may have
                _, ((_, _, descriptors),), _, _ = receive(1, space)
                write(unpack(descriptors[:4])[0], f"{outcome}\n{said}".encode(errors="backslashreplace"))
        finally:
            leave(0)

    end_with_parent()
    if not job["isolated"]:
        os.chdir(job["folder"])
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    tell_of_few_cpus(job["processes"] // 2 or 1)
    try:
        lines = [f"{line}\n" for line in job["program"].split("\n")]  # not at all that `splitlines` splits at
        linecache.cache["answer.py"] = (len(job["program"]), None, lines, "answer.py")  # for `said_of`, and `inspect.getsource`
        code = compile(job["program"], "answer.py", "exec", dont_inherit=True)  # not with this file's own `__future__`
        sys.addaudithook(refuse_network)
        module = types.ModuleType("answer")
        sys.modules["answer"] = module  # dataclasses and pickle look there
        exec(code, module.__dict__)
        outcome, said = "passed", ""
    except MemoryError:
        outcome, said = "out of memory", "MemoryError"
    except BaseException as exc:  # noqa: BLE001 - an answer may raise anything, SystemExit too
        outcome, said = "failed", said_of(exc)
    tell(outcome, said)


def said_of(exc: BaseException) -> str:
    """Kind and words of an exception, and the program's line with its number, on one line."""
    try:
        words = " ".join(str(exc).split())
        lines = [frame for frame in traceback.extract_tb(exc.__traceback__, limit=-20) if frame.filename == "answer.py"]
        where = f" (line {lines[-1].lineno}: {(lines[-1].line or '')[:MAX_LINE]})" if lines else ""
        return f"{type(exc).__name__}{': ' if words else ''}{words}"[:MAX_SAID] + where
    except BaseException:  # noqa: BLE001 - its __str__ is the answer's code too
        return "an exception that cannot be shown"


def set_limits(job: dict[str, Any]) -> None:
    """Hard limits, which a program can lower and not raise. macOS lets nobody limit memory below what it maps for every process.

    Raises OSError or ValueError for what the system refuses, as for what is above a hard limit of this process.
    """
    seconds = int(job["cpu_seconds"])
    limits = {
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_FSIZE: (job["disk_bytes"], job["disk_bytes"]),
        resource.RLIMIT_NOFILE: (64, 64),
        resource.RLIMIT_CORE: (0, 0),
    }
    if sys.platform != "darwin":
        limits[resource.RLIMIT_AS] = (job["memory_bytes"], job["memory_bytes"])
        with suppress(AttributeError):  # only glibc has it
            libc.mallopt(M_ARENA_MAX, 1)  # each thread's own arena maps 64 MB
    if job["isolated"]:  # counted for a user: outside a sandbox that would count what else this user runs
        limits[resource.RLIMIT_NPROC] = (job["processes"], job["processes"])
    for which, pair in limits.items():
        resource.setrlimit(which, pair)


def tell_of_few_cpus(most: int) -> None:
    """Pools make a process or a thread for each CPU: what a program does within its limits is not to depend on the machine."""
    few = min(os.cpu_count() or 1, most)
    for name in ("cpu_count", "process_cpu_count"):  # the latter from Python 3.13 on
        if hasattr(os, name):
            setattr(os, name, lambda: few)


def refuse_network(event: str, _arguments: object) -> None:
    """Python's own sockets refuse at once and say why, instead of waiting for an answer that cannot come."""
    if event in NETWORK_EVENTS:
        raise PermissionError("no network in a sandbox")


if __name__ == "__main__":
    main()
