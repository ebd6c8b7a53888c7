"""Scalar lines that are one call into C's mathematical library, lane by lane: correct to about an ulp, never vectorised.

``arctan2`` of doubles prints as ``call double @atan2(double %y, double %x)``, of floats as ``@atan2f``. The functions are
those of C99; the process has them already, as Python's ``math`` module is linked to them.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ...core.expr import LIBM
from . import vec


def call(name: str) -> Callable[..., ir.Value]:
    """The rule of a line: ``name`` in C, applied to scalars or to each lane of vectors."""

    def rule(b: ir.IRBuilder, *args: ir.Value) -> ir.Value:
        scalar = vec.element(args[0].type)
        function = _declared(b.module, name if scalar == vec.F64 else name + "f", scalar, len(args))
        if not vec.lanes(args[0].type):
            return b.call(function, args)
        out: ir.Value = ir.Constant(args[0].type, ir.Undefined)
        for k in range(vec.lanes(args[0].type)):
            lane = ir.Constant(ir.IntType(32), k)
            out = b.insert_element(out, b.call(function, [b.extract_element(a, lane) for a in args]), lane)
        return out

    return rule


def _declared(module: ir.Module, name: str, scalar: ir.Type, count: int) -> ir.Function:
    """The C function, declared once per module as reading nothing but its arguments (``errno`` is no matter here)."""
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(scalar, [scalar] * count), name)
        function.attributes.add("readnone")
        function.attributes.add("nounwind")
    return function


RULES = {name: call(c_name) for name, c_name in LIBM.items()}
"""The rules of these lines on floats, as in `lines`."""
