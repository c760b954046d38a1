"""Functions as machine code of this CPU: compiled once an installation, kept in files, and found there by each later start.

`jit` compiles them, by numba, which takes longer to import than all else that a start needs: what is kept is read by LLVM alone.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

from nomoat import cache, child_process, hardware, paths, system_errors, whole_files
from nomoat.errors import NomoatError, NotWritableError
from nomoat.progress import Progress

log = logging.getLogger("nomoat.machine_code")
# what compiled code is made of
SOURCES = (
    "jit.py", "engine/amx.py", "engine/amx_bytes.py", "engine/attention.py", "engine/attention_amx.py",
    "engine/attention_amx_kernels.py", "engine/attention_kernels.py", "engine/attention_tables.py", "engine/blocks.py",
    "engine/codes.py", "engine/elementwise.py", "engine/emit.py", "engine/experts.py", "engine/kernels.py", "engine/kv_cache.py",
    "engine/panels.py", "engine/products.py", "engine/step_tables.py", "engine/steps.py", "engine/team.py", "engine/team_kernels.py",
    "engine/tiles.py", "tune/kernels.py",
)  # fmt: skip
PATIENCE_SECONDS = 300.0  # how long to wait for another process that compiles and has nothing done meanwhile
SECONDS_TO_NEXT_LOOK = 0.1
MOST_COMPILERS = 2  # of 0.3 GB each; the longest function takes as long as all others
TASK_BYTES = 2  # of a function's place, as it goes to who compiles it
SIGNAL_WHEN_ORPHANED = 1  # Linux's PR_SET_PDEATHSIG
# Told where what is compiled is to be kept.
SAME_PLACE = """
import sys
from nomoat import machine_code
if str(machine_code.place()) != sys.argv.pop(1):
    sys.exit(1)
"""
# In place of what frees an array that numba made. Ours lie elsewhere: the code for it is there, and is never reached.
FREE_ARRAY = "nomoat_free_array"


def _version() -> str:
    """Of all that is compiled: its source, what compiles it, and this CPU. A home may be on several machines, which would race.

    And of this package's place, which numba goes by: what one environment has compiled another one's process would not find.
    """
    package = Path(__file__).parent
    files = [*(package / name for name in SOURCES), *map(_version_file, ("numba", "llvmlite"))]
    made_by = f"{hardware.cpu_kind()} {hardware.amx().value} {sys.implementation.cache_tag} {package}"
    return hashlib.sha256(b"".join([*(file.read_bytes() for file in files), made_by.encode()])).hexdigest()[:12]


def _version_file(package: str) -> Path:
    """What tells its version: to import it, or to look it up among all packages, takes longer."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ImportError(f"`{package}` is not installed")
    return Path(found.origin).with_name("_version.py")


FOLDER = paths.cache() / cache.KERNELS / _version()  # what is kept; not beside a module, which may not be ours to write to
cache.use(FOLDER)
_places: dict[Path, Path] = {}  # where this process keeps what it compiles in place of FOLDER, which may be the same
_placing = threading.Lock()


def place() -> Path:
    """Where to keep what is compiled now: FOLDER, or a folder of this process with a copy of it. Asked only where something is.

    Raises NotWritableError if neither can be written. Where numba cannot write it falls back to a place beside the module, whose code
    may be of another version.
    """
    with _placing:
        if FOLDER not in _places:
            _places[FOLDER] = _place(FOLDER)
        return _places[FOLDER]


def _place(kept: Path) -> Path:
    try:
        system_errors.require_writable(kept / "kernel")
    except (NomoatError, OSError) as exc:
        try:
            ours = _place_of_this_process(kept)
        except OSError as failure:
            raise NotWritableError(
                f"code for this CPU is to be compiled, and neither can `{kept}` be written nor temporary files: {failure.strerror}",
                hint="start the model once where that home can be written, on a CPU of this kind, "
                "or set NOMOAT_HOME, or TMPDIR, to a folder of yours",
            ) from exc
        log.warning("note: `%s` cannot be written, so what is compiled is kept for this process alone", kept)
        return ours
    return kept


def _place_of_this_process(kept: Path) -> Path:
    """A new one, with a copy of what is kept: numba reads only where it may write, and a training would compile all again.

    Raises OSError, and leaves nothing then.
    """
    folder = cache.temporary_folder()
    try:
        ours = folder.joinpath(*kept.parts[-3:])
        ours.mkdir(parents=True)
        _copy(kept, ours)
    except OSError:
        cache.remove_temporary(folder)
        raise
    return ours


def _copy(kept: Path, ours: Path) -> None:
    """All that can be read of it, and nothing of its rights: nobody may write to what they are copies of."""
    for folder, _, names in os.walk(kept):
        there = ours / Path(folder).relative_to(kept)
        there.mkdir(exist_ok=True)
        for name in names:
            try:
                content = Path(folder, name).read_bytes()
            except OSError:  # it is compiled anew
                continue
            (there / name).write_bytes(content)


class Compiled:
    """A function of addresses and whole numbers. To `call` it lets other threads of Python run; compiled code needs its `address`.

    It is compiled where it is not kept, which takes seconds: `compile_elsewhere` is for doing so beforehand. Both raise
    NotEnoughDiskError, NotWritableError, and SettingError where no code of its own is run.
    """

    def __init__(self, module: str, name: str, arguments: int, *, kind: str = "", gives_number: bool = False) -> None:
        """`module`: of this package. With `kind`, what has this name there makes the function, one for each kind."""
        self._module, self._name, self._kind = f"nomoat.{module}", name, kind
        self._arguments, self._gives_number = arguments, gives_number
        self.symbol = "_".join(filter(None, (module.rpartition(".")[2], name, kind)))

    @functools.cached_property
    def address(self) -> int:
        with _one_at_a_time:
            _llvm()  # which says first, in our words, where nothing may run that is made here
            return _load(self.symbol, self._kept() or self._compile())

    @functools.cached_property
    def call(self) -> Callable[..., Any]:
        result = ctypes.c_int64 if self._gives_number else None
        return ctypes.CFUNCTYPE(result, *[ctypes.c_int64] * self._arguments)(self.address)

    @property
    def is_kept(self) -> bool:
        """Whether nothing is left to compile of it."""
        return "address" in vars(self) or self._kept() is not None

    @property
    def _file_name(self) -> str:
        return f"{self.symbol}.o"

    @property
    def _facts(self) -> dict[str, Any]:
        """Whose code it is."""
        return {"module": self._module, "symbol": self.symbol, "arguments": self._arguments, "gives_number": self._gives_number}

    def _kept(self) -> bytes | None:
        """Its code; None where there is none, it is not whole, or it needs what this process does not have: LLVM would end that."""
        try:
            head, _, code = (_read_from() / self._file_name).read_bytes().partition(b"\n")
            told = json.loads(head)
            is_ours = told == self._facts | {"needs": told["needs"], "sha256": hashlib.sha256(code).hexdigest()}
            return code if is_ours and not _missing(told["needs"]) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _compile(self) -> bytes:
        from nomoat import jit

        function = getattr(importlib.import_module(self._module), self._name)
        function = function(self._kind) if self._kind else function
        code, needs = jit.machine_code_of(function, self._arguments, self.symbol, gives_number=self._gives_number)
        told = self._facts | {"needs": needs, "sha256": hashlib.sha256(code).hexdigest()}
        try:
            with whole_files.whole_file(place() / self._file_name) as part:
                part.write_bytes(json.dumps(told).encode() + b"\n" + code)
        except NotWritableError:
            if self._kept() is None:  # else another process has kept it meanwhile, and Windows replaces nothing that is open
                raise
        if missing := _missing(needs):
            raise RuntimeError(f"`{self.symbol}` needs {', '.join(missing)}, which this process does not have")
        return code


def _read_from() -> Path:
    """`place`, where that was asked for, else what is there already."""
    return _places.get(FOLDER, FOLDER)


_one_at_a_time = threading.RLock()  # what is compiled may load others


@functools.cache
def _llvm() -> Any:
    """What has all that is loaded, for as long as the process lives. Raises SettingError where the system runs nothing made here."""
    from llvmlite import binding

    try:
        binding.check_jit_execution()
    except OSError as exc:  # else the first call would end the process
        if (want := system_errors.as_want(exc)) is None:
            raise
        raise want from exc
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.add_symbol(FREE_ARRAY, ctypes.cast(ctypes.pythonapi.PyMem_RawFree, ctypes.c_void_p).value)
    target = binding.Target.from_triple(binding.get_process_triple()).create_target_machine()
    return binding.create_mcjit_compiler(binding.parse_assembly(""), target)


def _missing(needs: Sequence[str]) -> list[str]:
    """Those names that this process does not know."""
    from llvmlite import binding

    _llvm()
    return [name for name in needs if binding.address_of_symbol(name) is None]


def _load(symbol: str, code: bytes) -> int:
    from llvmlite import binding

    llvm = _llvm()
    llvm.add_object_file(binding.ObjectFileRef.from_data(code))
    llvm.finalize_object()
    return int(llvm.get_function_address(symbol))


def compile_elsewhere(what: str, code: str, *arguments: str, progress: Progress | None = None) -> None:
    """Let another process compile all that `code` uses, once an installation. `what`: a name for that; it becomes part of a file's.

    So the compiler's memory goes with it, and Ctrl-C ends it at once. And what numba itself keeps, for tuning, computes sums in
    another order than what it has just compiled: only a process that finds all kept gives what every later one gives, to the last
    bit. Where this cannot be had, each function is compiled at its first use. One process at a time compiles, and others wait for as
    long as it keeps anything new. `progress` is told (functions done, functions) as `code` tells by `child_process.tell`; who asks for
    it is told by a note that another process is at it. Raises what `place` raises.
    """
    if (_read_from() / f"{what}.done").exists() or not child_process.can_run():
        return
    folder = place()
    done, busy = folder / f"{what}.done", NomoatError("another process compiles", hint=None)
    seen, patience_ends = -1, 0.0
    while not done.exists():
        with ExitStack() as held:
            try:
                held.enter_context(whole_files.alone(folder, busy=busy, locks=folder.parents[1] / "locks"))
            except (NomoatError, OSError) as error:
                if error is not busy:
                    return
                busy.__traceback__ = None  # it would grow each time
            else:
                if done.exists() or _has_compiled(folder, code, arguments, progress):
                    with suppress(OSError):
                        done.touch()
                return
        if seen < 0 and progress is not None:
            log.warning("note: another process compiles for this CPU (once), and this one waits for it")
        if (size := paths.bytes_below(folder)) != seen:
            seen, patience_ends = size, time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > patience_ends:
            waited = "note: another process that compiles has kept nothing new for %.0f s, so what is used is compiled here, too"
            log.warning(waited, PATIENCE_SECONDS)
            return
        time.sleep(SECONDS_TO_NEXT_LOOK)


def _has_compiled(folder: Path, code: str, arguments: Sequence[str], progress: Progress | None) -> bool:
    """Whether another process did so, for the same place and CPU."""
    try:
        return child_process.run(SAME_PLACE + code, str(folder), *arguments, home=folder.parents[2], progress=progress)
    except NomoatError as error:
        log.info("another process has not compiled all: %s", error)
        return False


def compile_all(functions: Sequence[Compiled]) -> None:
    """As `compile_by`."""
    compile_by([functools.partial(getattr, function, "address") for function in functions])


def compile_by(calls: Sequence[Callable[[], object]]) -> None:
    """For a process that does nothing else, see `compile_elsewhere`: two copies of it work side by side, under Linux.

    No two calls may compile the same. Raises RuntimeError where a copy is killed or fails, and what it was to do is not done.
    """
    child_process.tell(0, len(calls))
    for done, _ in enumerate(_done_beside_each_other(calls) or (call() for call in calls), 1):
        child_process.tell(done, len(calls))


def _done_beside_each_other(calls: Sequence[Callable[[], object]]) -> Iterator[None] | None:
    """One for each that is done. None where no copy of this process can be made."""
    if sys.platform != "linux":
        return None
    (tasks, put), (told, tell_done) = os.pipe(), os.pipe()
    os.write(put, b"".join(at.to_bytes(TASK_BYTES) for at in range(len(calls))))
    os.close(put)  # none come after these
    copies, parent = 0, os.getpid()
    with suppress(OSError):  # as many as the system allows
        for _ in range(min(MOST_COMPILERS, hardware.cpus())):
            if os.fork() == 0:
                _do_tasks(calls, tasks, tell_done, parent)
            copies += 1
    os.close(tell_done)
    return _told(told, len(calls)) if copies else None


def _told(told: int, count: int) -> Iterator[None]:
    done = 0
    while os.read(told, 1):  # until no copy is left
        done += 1
        yield
    if done < count:
        raise RuntimeError(f"{done} of {count} functions are compiled")


def _do_tasks(calls: Sequence[Callable[[], object]], tasks: int, tell_done: int, parent: int) -> NoReturn:
    """What a copy does until no task is left; it ends with whoever made it, and with the thread that did."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(SIGNAL_WHEN_ORPHANED, signal.SIGKILL)
        while os.getppid() == parent and (task := os.read(tasks, TASK_BYTES)):
            calls[int.from_bytes(task)]()
            os.write(tell_done, b".")
        status = 0
    finally:
        os._exit(status)
