"""What is compiled by numba: where it is kept, and what numba does not have itself (bits of numbers, atomic numbers, a barrier)."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nomoat import cache, hardware, paths
from nomoat.errors import NomoatError, NotWritableError, UsageError

log = logging.getLogger("nomoat.jit")
# numba looks for changes in a function's own file alone, not in what it is made of
SOURCES = (
    "jit.py", "engine/amx.py", "engine/attention.py", "engine/attention_kernels.py", "engine/blocks.py", "engine/codes.py",
    "engine/emit.py", "engine/kernels.py", "engine/kv_cache.py", "engine/panels.py", "engine/program.py", "engine/steps.py",
    "engine/team.py", "engine/tiles.py", "engine/vectors.py", "tune/kernels.py",
)  # fmt: skip


def _version() -> str:
    """Of all that is compiled: its source, what compiles it, and this CPU. A home may be on several machines, which would race.

    And of this package's place, which numba goes by: what one environment has compiled another one's process would not find.
    """
    package = Path(__file__).parent
    made_by = f"{hardware.cpu_kind()} {hardware.amx().value} {numba.__version__} {sys.implementation.cache_tag} {package}"
    return hashlib.sha256(b"".join([*((package / name).read_bytes() for name in SOURCES), made_by.encode()])).hexdigest()[:12]


def _place(kept: Path) -> Path:
    """Where to keep what is compiled: there, or a folder of this process with a copy of it. Raises NotWritableError if neither can be.

    Where numba cannot write it falls back to a place beside the module, whose code may be of another version.
    """
    try:
        paths.require_writable(kept / "kernel")
    except (NomoatError, OSError) as exc:
        try:
            home = cache.temporary_folder()
        except OSError:
            message = f"neither `{kept}` nor a folder for temporary files can be written"
            raise NotWritableError(message, hint="set NOMOAT_HOME, or TMPDIR, to a folder of yours") from exc
        ours = home.joinpath(*kept.parts[-3:])
        with suppress(OSError):  # as in an image that was made with them
            shutil.copytree(kept, ours, dirs_exist_ok=True)
        ours.mkdir(parents=True, exist_ok=True)
        for folder in (ours, *filter(Path.is_dir, ours.rglob("*"))):  # nobody may write to what they are copies of
            folder.chmod(0o700)
        log.warning("note: `%s` cannot be written, so what is compiled is kept for this process alone", kept)
        return ours
    return kept


def _require_own_cpu() -> None:
    """Raise UsageError where numba is told to compile nothing, or for another CPU than this one, whose instructions are emitted."""
    for name in ("DISABLE_JIT", "CPU_NAME", "CPU_FEATURES"):
        if (told := getattr(numba.config, name)) not in (None, 0):
            raise UsageError(
                f"NUMBA_{name} is `{told}`, and nomoat needs what numba compiles for this CPU", hint=f"unset NUMBA_{name}"
            )  # fmt: skip


_require_own_cpu()
# not beside a module, which may not be ours to write to; the last name stands for any file there, in errors
CACHE = _place(paths.cache() / cache.KERNELS / _version()) / "kernel"
ARRIVED, PHASE = 8, 16  # numbers of a state that threads share, each in a cache line of its own
SPINS_BEFORE_YIELD = 64
PATIENCE_SECONDS = 300.0  # how long to wait for another process that compiles and has nothing done meanwhile
SECONDS_TO_NEXT_LOOK = 0.1
TOLD = re.compile(r"(\d+) (\d+)")
# Told where this package lies, and where what is compiled is to be kept.
SAME_PACKAGE = """
import sys
from importlib import util
place = sys.argv.pop(1)
spec = util.spec_from_file_location("nomoat", place + "/__init__.py", submodule_search_locations=[place])
sys.modules["nomoat"] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["nomoat"])
from nomoat import jit
if str(jit.CACHE) != sys.argv.pop(1):
    sys.exit(1)
"""
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
GIVE_WAY = "SwitchToThread" if sys.platform == "win32" else "sched_yield"  # of the system; both give a whole number
FAST = {"reassoc", "contract", "arcp", "nsz"}  # sums in vectors; numbers that are none stay so

Decorator = Callable[[Callable[..., Any]], Any]
in_llvm: Decorator = intrinsic
in_llvm_by_name: Decorator = intrinsic(prefer_literal=True)  # told a name, known when it is compiled, as its first argument
inline: Decorator = numba.njit(fastmath=FAST, error_model="numpy")
kernel: Decorator = numba.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")  # for threads of a team
kept: Decorator = numba.njit(cache=True)  # for what Python calls at each start


numba.config.CACHE_DIR = str(CACHE.parent)
cache.use(CACHE.parent)


def _find_blas_alone() -> None:
    """Let numba see that scipy has BLAS without all else of `scipy.linalg`, a tenth of each start. Others get that as ever."""
    folder = importlib.util.find_spec("scipy")
    if folder is None or not folder.submodule_search_locations or "scipy.linalg" in sys.modules:
        return
    empty = ModuleType("scipy.linalg")
    empty.__path__ = [str(Path(folder.submodule_search_locations[0]) / "linalg")]
    sys.modules["scipy.linalg"] = empty
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        for name in ("scipy.linalg", "scipy.linalg.cython_blas"):
            sys.modules.pop(name, None)


_find_blas_alone()


@in_llvm
def as_float(typing: Any, bits: Any) -> Any:
    """The f32 of these 32 bits."""
    return types.float32(types.uint32), lambda context, builder, signature, args: builder.bitcast(args[0], ir.FloatType())


@in_llvm
def as_bits(typing: Any, number: Any) -> Any:
    """The reverse."""
    return types.uint32(types.float32), lambda context, builder, signature, args: builder.bitcast(args[0], ir.IntType(32))


@inline
def exp(x: Any) -> Any:
    """e^x to about 1e-6, without a call, so that loops of it become vectors. Cephes' polynomial."""
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    whole = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - whole * np.float32(0.693359375) - whole * np.float32(-2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * r + np.float32(1.3981999507e-3)
    y = y * r + np.float32(8.3334519073e-3)
    y = y * r + np.float32(4.1665795894e-2)
    y = y * r + np.float32(1.6666665459e-1)
    y = y * r + np.float32(5.0000001201e-1)
    y = y * r * r + r + np.float32(1.0)
    return y * as_float(np.uint32(np.int32(whole) + np.int32(127)) << np.uint32(23))


# -------------------------------------------------------------------- numbers at an address
def _pointer_to(number: Any) -> Any:
    kind = types.CPointer(number)

    @in_llvm
    def pointer(typing: Any, address: Any) -> Any:
        return kind(types.intp), lambda context, builder, signature, args: builder.inttoptr(args[0], context.get_value_type(kind))

    return pointer


_float_pointer, _long_pointer = _pointer_to(types.float32), _pointer_to(types.int64)


@inline
def longs_at(address: Any, count: Any) -> Any:
    """The whole numbers of 64 bits that lie there."""
    return numba.carray(_long_pointer(address), (count,))


@inline
def floats_at(address: Any, count: Any) -> Any:
    """The numbers of 32 bits that lie there."""
    return numba.carray(_float_pointer(address), (count,))


# -------------------------------------------------------------------- functions at an address
def _call(arguments: int) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * arguments)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * (arguments + 1)), generate


@in_llvm
def call_with_9(typing: Any, at: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> Any:
    """Call what lies at an address, see `compiled`."""
    return _call(9)


@in_llvm
def call_with_5(typing: Any, at: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """The same with fewer arguments."""
    return _call(5)


@in_llvm
def call_with_3(typing: Any, at: Any, a: Any, b: Any, c: Any) -> Any:
    """The same with fewer arguments."""
    return _call(3)


@functools.cache
def compiled(function: Callable[..., None], count: int) -> Any:
    """A function of so many addresses and numbers, compiled by itself: `address` is where it lies, for `call_with_9` and its like.

    What is called by name instead is compiled once more for each function around it, which takes seconds where it is long. Raises
    NotEnoughDiskError, NotWritableError.
    """
    with paths.translate_disk_errors(CACHE):
        return numba.cfunc(types.void(*[types.intp] * count), cache=True)(function)


def compile_elsewhere(what: str, code: str, *arguments: str, progress: Callable[[int, int], None] | None = None) -> None:
    """Let another process compile all that `code` uses, once an installation. `what`: a name for that; it becomes part of a file's.

    What numba has just compiled computes sums in another order than what it then keeps: only a process that finds all kept gives what
    every later one gives, to the last bit. Where this cannot be had, each function is compiled at its first use. One process at a time
    compiles, and others wait for as long as it keeps anything new. `progress` is told (functions done, functions) as `code` tells by
    `tell`; who asks for it is told by a note that another process is at it.
    """
    done, busy = CACHE.parent / f"{what}.done", NomoatError("another process compiles")
    seen, patience_ends = -1, 0.0
    while not done.exists() and sys.executable:
        try:
            with paths.alone(CACHE.parent, busy=busy, locks=CACHE.parents[2] / "locks"):
                if done.exists() or _has_compiled(code, arguments, progress):
                    done.touch()
            return
        except (NomoatError, OSError) as error:
            if error is not busy:
                return
            busy.__traceback__ = None  # it would grow each time
        if seen < 0 and progress is not None:
            log.warning("note: another process compiles for this CPU (once), and this one waits for it")
        if (size := paths.bytes_below(CACHE.parent)) != seen:
            seen, patience_ends = size, time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > patience_ends:
            waited = "note: another process that compiles has kept nothing new for %.0f s, so what is used is compiled here, too"
            log.warning(waited, PATIENCE_SECONDS)
            return
        time.sleep(SECONDS_TO_NEXT_LOOK)


def _has_compiled(code: str, arguments: Sequence[str], progress: Callable[[int, int], None] | None) -> bool:
    """Whether another process did so, of this very package, whatever others its Python would find, and for the same place and CPU."""
    package = Path(__file__).parent
    # -P: what lies in the current folder is no module of ours
    command = [sys.executable, "-P", "-c", SAME_PACKAGE + code, str(package), str(CACHE), *arguments]
    quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": os.environ | {"NOMOAT_HOME": str(CACHE.parents[3])}}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **quiet) as compiler:  # type: ignore[call-overload]
        try:
            for line in compiler.stdout:
                if progress is not None and (told := TOLD.fullmatch(line.strip())):
                    progress(*map(int, told.groups()))
            return bool(compiler.wait() == 0)
        finally:
            compiler.kill()


def tell(done: int, total: int) -> None:
    """To whoever waits for this process, see `compile_elsewhere`."""
    print(done, total, flush=True)


# -------------------------------------------------------------------- threads that meet
@in_llvm
def add_atomic(typing: Any, address: Any, value: Any) -> Any:
    """Add to the whole number of 64 bits that lies there, and give what it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(args[0], ir.IntType(64).as_pointer()), args[1], "seq_cst")

    return types.int64(types.intp, types.int64), generate


@in_llvm
def load_atomic(typing: Any, address: Any) -> Any:
    """The number that lies there now."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), "acquire", 8)

    return types.int64(types.intp), generate


@kept
def add_here(numbers: Any, place: Any, value: Any) -> None:
    """Add to a number of an array, atomically."""
    add_atomic(numbers.ctypes.data + 8 * place, value)


@in_llvm
def pause(typing: Any) -> Any:
    """Let the other thread of this core work for a moment; nothing on CPUs that are not x86."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if IS_X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), generate


@in_llvm
def give_way(typing: Any) -> Any:
    """Let another thread have this core, if one waits for it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, GIVE_WAY), [])
        return context.get_dummy_value()

    return types.void(), generate


@inline
def wait_a_moment(spins: Any) -> Any:
    """Once more; the number of times so far."""
    pause()
    if spins % SPINS_BEFORE_YIELD == SPINS_BEFORE_YIELD - 1:
        give_way()
    return spins + 1


@inline
def meet(state: Any, threads: Any) -> None:
    """Wait until so many threads are here. `state`: the address of the numbers they share."""
    phase = load_atomic(state + 8 * PHASE)
    if add_atomic(state + 8 * ARRIVED, 1) == threads - 1:
        add_atomic(state + 8 * ARRIVED, -threads)
        add_atomic(state + 8 * PHASE, 1)
        return
    spins = 0
    while load_atomic(state + 8 * PHASE) == phase:
        spins = wait_a_moment(spins)
