"""What numba compiles for `machine_code`, and what it does not have itself (bits of numbers, atomic numbers, a barrier)."""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nomoat import hardware, machine_code
from nomoat.errors import UsageError


def _require_own_cpu() -> None:
    """Raise UsageError where numba is told to compile nothing, or for another CPU than this one, whose instructions are emitted."""
    for name in ("DISABLE_JIT", "CPU_NAME", "CPU_FEATURES"):
        if (told := getattr(numba.config, name)) not in (None, 0):
            raise UsageError(
                f"NUMBA_{name} is `{told}`, and nomoat needs what numba compiles for this CPU", hint=f"unset NUMBA_{name}"
            )  # fmt: skip


_require_own_cpu()
ARRIVED, PHASE = 8, 16  # numbers of a state that threads share, each in a cache line of its own
SPINS_BEFORE_YIELD = 64
FREES_ARRAY = "NRT_MemInfo_call_dtor"  # numba's
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
GIVE_WAY = "SwitchToThread" if sys.platform == "win32" else "sched_yield"  # of the system; both give a whole number
FAST = {"reassoc", "contract", "arcp", "nsz"}  # sums in vectors; numbers that are none stay so

Decorator = Callable[[Callable[..., Any]], Any]
in_llvm: Decorator = intrinsic
# for other functions that are compiled, none of Python's
kernel: Decorator = numba.njit(fastmath=FAST, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

numba.config.CACHE_DIR = str(machine_code.place())  # of what tuning uses


def _features() -> str:
    """This CPU's, for LLVM. On ARM it knows products of bytes only of CPUs that it knows by name."""
    found = str(binding.get_host_cpu_features().flatten())
    return ",".join(filter(None, [found, "+dotprod"])) if hardware.has_dotprod() else found


if hardware.has_dotprod():
    # numba forgets it when it compiles after a NUMBA_ variable of the environment was changed: nothing here does that.
    numba.config.CPU_FEATURES = _features()


def emitted(emit: Callable[..., None]) -> Any:
    """What `emit` writes in LLVM, given a builder, addresses and whole numbers: a function that other compiled ones may call."""

    @functools.wraps(emit)
    def told(typing: Any, *numbers: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit(builder, *args)
            return context.get_dummy_value()

        return types.void(*[types.intp] * len(numbers)), generate

    return in_llvm(told)


@in_llvm
def as_float(typing: Any, bits: Any) -> Any:
    """The f32 of these 32 bits."""
    return types.float32(types.uint32), lambda context, builder, signature, args: builder.bitcast(args[0], ir.FloatType())


@in_llvm
def as_bits(typing: Any, number: Any) -> Any:
    """The reverse."""
    return types.uint32(types.float32), lambda context, builder, signature, args: builder.bitcast(args[0], ir.IntType(32))


@kernel
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


@kernel
def longs_at(address: Any, count: Any) -> Any:
    """The whole numbers of 64 bits that lie there."""
    return numba.carray(_long_pointer(address), (count,))


@kernel
def table_at(address: Any, rows: Any, columns: Any) -> Any:
    """The same in rows and columns."""
    return numba.carray(_long_pointer(address), (rows, columns))


@kernel
def floats_at(address: Any, count: Any) -> Any:
    """The numbers of 32 bits that lie there."""
    return numba.carray(_float_pointer(address), (count,))


# -------------------------------------------------------------------- functions at an address
def _call(builder: Any, at: Any, *args: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(args))
    builder.call(builder.inttoptr(at, kind.as_pointer()), args)


@emitted
def call_with_9(builder: Any, at: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> None:
    """Call what lies at an address, see `machine_code.Compiled`."""
    _call(builder, at, a, b, c, d, e, f, g, h, i)


@emitted
def call_with_5(builder: Any, at: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> None:
    """The same with fewer arguments."""
    _call(builder, at, a, b, c, d, e)


@emitted
def call_with_3(builder: Any, at: Any, a: Any, b: Any, c: Any) -> None:
    """The same with fewer arguments."""
    _call(builder, at, a, b, c)


def machine_code_of(function: Callable[..., Any], count: int, symbol: str, *, gives_number: bool) -> tuple[bytes, list[str]]:
    """A function of so many addresses and numbers, by that name, for `machine_code.Compiled`; and the names that it needs of others.

    What is called by name instead is compiled once more for each function around it, which takes seconds where it is long.
    """
    result = types.intp if gives_number else types.void
    made = numba.cfunc(result(*[types.intp] * count), error_model="numpy")(function)
    module = binding.parse_assembly(made.inspect_llvm())
    module.link_in(binding.parse_assembly(_entry(made.native_name.removeprefix("cfunc."), count, symbol, gives_number=gives_number)))
    for part in (*module.functions, *module.global_variables):
        if part.name != symbol and not part.is_declaration:
            part.linkage = "internal"  # other files may have other functions by one name
    _remove_unused(module)
    for part in module.functions:
        if part.name == FREES_ARRAY:
            part.name = machine_code.FREE_ARRAY
    needed = [part.name for part in (*module.functions, *module.global_variables) if part.is_declaration]
    return _target().emit_object(module), [name for name in needed if not name.startswith("llvm.")]


def _entry(inner: str, count: int, symbol: str, *, gives_number: bool) -> str:
    """A function that calls numba's, which gives its result by a pointer, another for errors, and says whether there was one.

    None of ours ever has one. numba's own entry would raise it, by way of much that only numba has.
    """
    pointer, number = ir.PointerType(), ir.IntType(64)
    module = ir.Module()
    module.triple, module.data_layout = binding.get_process_triple(), str(_target().target_data)
    told = [number] * count
    theirs = ir.Function(module, ir.FunctionType(ir.IntType(32), [pointer, pointer, *told]), inner)
    ours = ir.Function(module, ir.FunctionType(number if gives_number else ir.VoidType(), told), symbol)
    builder = ir.IRBuilder(ours.append_basic_block())
    found, error = builder.alloca(number), builder.alloca(pointer)
    builder.call(theirs, [found, error, *ours.args])
    if gives_number:
        builder.ret(builder.load(found, typ=number))
    else:
        builder.ret_void()
    return str(module)


def _remove_unused(module: Any) -> None:
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, binding.create_pass_builder(_target(), binding.create_pipeline_tuning_options(speed_level=0)))


@functools.cache
def _target() -> Any:
    """This CPU, as numba has it."""
    cpu = binding.get_host_cpu_name()
    told = {"cpu": cpu, "features": _features(), "opt": 3, "reloc": "static" if IS_X86 else "default", "jit": True}
    return binding.Target.from_triple(binding.get_process_triple()).create_target_machine(**told)


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
        return builder.load_atomic(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), "seq_cst", 8)

    return types.int64(types.intp), generate


@emitted
def pause(builder: Any) -> None:
    """Let the other thread of this core work for a moment; nothing on CPUs that are not x86."""
    if IS_X86:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])


@emitted
def give_way(builder: Any) -> None:
    """Let another thread have this core, if one waits for it."""
    kind = ir.FunctionType(ir.IntType(32), [])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, GIVE_WAY), [])


@kernel
def wait_a_moment(spins: Any) -> Any:
    """Once more; the number of times so far."""
    pause()
    if spins % SPINS_BEFORE_YIELD == SPINS_BEFORE_YIELD - 1:
        give_way()
    return spins + 1


@kernel
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
