"""What the machine itself can do: multiply-adds from registers, copies and reads of memory; each on n threads at once.

The loops are LLVM text, compiled by llvmlite alone, so that neither fastgrad nor any peer measures itself by itself.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from threading import Barrier
from time import perf_counter
from typing import Any

import numpy as np
from llvmlite import binding

ROUNDS = 15
LLVM = {"float32": "float", "float64": "double"}


def _features() -> dict[str, bool]:
    return dict(binding.get_host_cpu_features())


def bfloat16_ratio() -> int:
    """What bfloat16 products can do beside float32's peak, by the instructions: AMX's tiles 16 times, AVX512_BF16 twice."""
    return 16 if _features().get("amx-bf16") else 2


def _vector() -> tuple[int, int]:
    """Bytes of a vector register, and how many independent sums hide a multiply-add's latency without spilling."""
    on = _features()
    if on.get("avx512f"):
        return 64, 24
    return (32, 12) if on.get("avx2") else (16, 12)


def _multiply_adds(dtype: str) -> str:
    """``T fma_T(int64 trips, T x)``: ``trips`` times ``sum = sum * x + x`` for each of the vectors of sums."""
    size, count = _vector()
    scalar, lanes = LLVM[dtype], size // np.dtype(dtype).itemsize
    v = f"<{lanes} x {scalar}>"
    name = f"@llvm.fma.v{lanes}f{np.dtype(dtype).itemsize * 8}"
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
    fused = _features().get("fma", False) or not x86

    def step(i: int) -> str:
        if fused:
            return f"%b{i} = call {v} {name}({v} %a{i}, {v} %x, {v} %x)"
        return f"%t{i} = fmul {v} %a{i}, %x\n%b{i} = fadd {v} %t{i}, %x"

    starts = [f"%s{i} = fadd {v} {f'%s{i - 1}' if i else '%x'}, %x" for i in range(count)]
    sums = [f"%a{i} = phi {v} [%s{i}, %entry], [%b{i}, %loop]" for i in range(count)]
    totals = [f"%r{i} = fadd {v} {f'%r{i - 1}' if i else '%x'}, %b{i}" for i in range(count)]
    lines = [
        f"declare {v} {name}({v}, {v}, {v})",
        f"define {scalar} @fma_{dtype}(i64 %trips, {scalar} %one) {{",
        "entry:",
        f"%u = insertelement {v} zeroinitializer, {scalar} %one, i32 0",
        f"%x = shufflevector {v} %u, {v} zeroinitializer, <{lanes} x i32> zeroinitializer",
        *starts,
        "br label %loop",
        "loop:",
        "%k = phi i64 [0, %entry], [%next, %loop]",
        *sums,
        *map(step, range(count)),
        "%next = add i64 %k, 1",
        "%more = icmp slt i64 %next, %trips",
        "br i1 %more, label %loop, label %done",
        "done:",
        *totals,
        f"%result = extractelement {v} %r{count - 1}, i32 0",
        f"ret {scalar} %result\n}}",
    ]
    return "\n".join(lines)


def _reads() -> str:
    """``int64 read(int64 *from, int64 blocks)``: the sum of blocks of eight vectors."""
    size, _ = _vector()
    lanes = size // 8
    v = f"<{lanes} x i64>"
    lines = [
        "define i64 @read(ptr %from, i64 %blocks) {",
        "entry:",
        "br label %loop",
        "loop:",
        "%k = phi i64 [0, %entry], [%next, %loop]",
        *[f"%a{i} = phi {v} [zeroinitializer, %entry], [%b{i}, %loop]" for i in range(8)],
        f"%base = mul i64 %k, {8 * size}",
        "%at = getelementptr i8, ptr %from, i64 %base",
        *[
            f"%p{i} = getelementptr i8, ptr %at, i64 {size * i}\n%l{i} = load {v}, ptr %p{i}, align 8\n"
            f"%b{i} = add {v} %a{i}, %l{i}"
            for i in range(8)
        ],
        "%next = add i64 %k, 1",
        "%more = icmp slt i64 %next, %blocks",
        "br i1 %more, label %loop, label %done",
        "done:",
        *[f"%r{i} = add {v} {f'%r{i - 1}' if i > 1 else '%b0'}, %b{i}" for i in range(1, 8)],
        f"%result = extractelement {v} %r7, i32 0",
        "ret i64 %result\n}",
    ]
    return "\n".join(lines)


REPEATED = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define void @copy_times(ptr %to, ptr %from, i64 %bytes, i64 %times) {
entry:
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%next, %loop]
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  %next = add i64 %k, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %loop, label %done
done:
  ret void
}
define i64 @read_times(ptr %from, i64 %blocks, i64 %times) {
entry:
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%next, %loop]
  %a = phi i64 [0, %entry], [%b, %loop]
  %r = call i64 @read(ptr %from, i64 %blocks)
  %b = add i64 %a, %r
  %next = add i64 %k, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %loop, label %done
done:
  ret i64 %b
}
"""


@cache
def _compiled() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    text = "\n".join([*map(_multiply_adds, LLVM), _reads(), REPEATED])
    module = binding.parse_assembly(text)
    target = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3, jit=True
    )
    return binding.create_mcjit_compiler(module, target)


def _function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    return ctypes.CFUNCTYPE(result, *arguments)(_compiled().get_function_address(name))  # releases the GIL


def _fastest(works: list[Callable[[], Any]]) -> float:
    """Seconds of the fastest of `ROUNDS` rounds, in each of which all ``works`` run at once."""
    if len(works) == 1:
        times = []
        for _ in range(ROUNDS):
            start = perf_counter()
            works[0]()
            times.append(perf_counter() - start)
        return min(times)
    barrier = Barrier(len(works))

    def run(work: Callable[[], Any]) -> tuple[float, float]:
        barrier.wait()
        start = perf_counter()
        work()
        return start, perf_counter()

    times = []
    with ThreadPoolExecutor(len(works)) as pool:
        for _ in range(ROUNDS):
            starts, ends = zip(*pool.map(run, works), strict=True)
            times.append(max(ends) - min(starts))
    return min(times)


def flops(threads: int = 1, dtype: str = "float32", trips: int = 400_000) -> float:
    """GF/s of multiply-adds whose operands never leave the registers: no program does more."""
    size, count = _vector()
    kind = ctypes.c_float if dtype == "float32" else ctypes.c_double
    work = partial(_function(f"fma_{dtype}", kind, ctypes.c_int64, kind), trips, 0.5)
    done = 2.0 * trips * count * (size // np.dtype(dtype).itemsize) * threads
    return done / _fastest([work] * threads) / 1e9


def _repeats(nbytes: int) -> int:
    return max(1, 2**27 // nbytes)


def copies(nbytes: int, threads: int = 1) -> float:
    """GB/s, read and written bytes together, of C's ``memcpy`` of ``nbytes``, split over the threads."""
    part, repeats = nbytes // threads // 8, _repeats(nbytes)
    copy = _function("copy_times", None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)
    held = [(np.zeros(part), np.ones(part)) for _ in range(threads)]
    works = [partial(copy, to.ctypes.data, at.ctypes.data, 8 * part, repeats) for to, at in held]
    return 16.0 * part * threads * repeats / _fastest(works) / 1e9


def reads(nbytes: int, threads: int = 1) -> float:
    """GB/s of a sum of ``nbytes`` of integers, split over the threads."""
    size, _ = _vector()
    blocks, repeats = nbytes // threads // (8 * size), _repeats(nbytes)
    read = _function("read_times", ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_int64] * 2)
    held = [np.ones(blocks * size, np.int64) for _ in range(threads)]
    works = [partial(read, array.ctypes.data, blocks, repeats) for array in held]
    return 8.0 * size * blocks * threads * repeats / _fastest(works) / 1e9


if __name__ == "__main__":
    for n in (1, 2):
        print(f"{n} threads: float32 {flops(n):.0f} GF/s, float64 {flops(n, 'float64'):.0f}")
        for nbytes in (2**15, 2**18, 2**20, 2**26):
            print(f"  {nbytes:>10} bytes: copy {copies(nbytes, n):.1f} GB/s, read {reads(nbytes, n):.1f}")
