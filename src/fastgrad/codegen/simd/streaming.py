"""A copy past the cache.

A store to a line that is not in the cache reads it from memory first; of what is written whole and read much later, that is
a third of all traffic of ``2 * x``. Stores with a hint write past the cache, if they are aligned and as wide as a line.
Beside each such store a line of what is read next may be asked for.
"""

from __future__ import annotations

from llvmlite import ir

from .blocks import I8, I64, define, fetch, least, loop

LINE = 64


def copy(module: ir.Module, ahead: int = 0) -> ir.Function:
    """``copy(target, source, nbytes)``: the aligned lines past the cache, what lies before and behind them as ever.

    With addresses of so many more operands their next ``nbytes`` are asked for meanwhile.
    """
    return define(f"stream {ahead}", 3 + ahead, _copy)(module)


def _copy(b: ir.IRBuilder) -> None:
    target, source, nbytes, *ahead = b.function.args
    line = ir.VectorType(I8, LINE)
    hint = b.module.add_metadata([ir.IntType(32)(1)])

    def move(first: ir.Value, stop: ir.Value, t: ir.Type, align: int) -> ir.Instruction:
        lines = isinstance(t, ir.VectorType)
        with loop(b, stop, t.count if lines else 1, first) as i:
            for there in ahead if lines else ():
                fetch(b, b.add(there, i))
            value = b.load(b.inttoptr(b.add(source, i), t.as_pointer()), align=1)
            return b.store(value, b.inttoptr(b.add(target, i), t.as_pointer()), align=align)

    head = least(b, b.and_(b.neg(target), I64(LINE - 1)), nbytes)
    whole = b.add(head, b.and_(b.sub(nbytes, head), I64(-LINE)))
    move(I64(0), head, I8, 1)
    move(head, whole, line, LINE).set_metadata("nontemporal", hint)
    move(whole, nbytes, I8, 1)
