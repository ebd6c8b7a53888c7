"""How folds print: into a number, ``f``, and into elements of memory, ``g``.

A sum is one line, ``f = accumulate_f32(f, v)``. Largest and smallest floats keep NaN apart, which a machine's own maximum
loses: into a number beside the number, as bits that only grow; into an element by one question to each pair of rows.

    f0, q0 = const_f32(4286578688), const_u32(0)            g0 = reload0_f32(z0k, i)
    for i in range(n):                                      g0 = max_or_nan_f32(g0, max_any_f32(v0, v0_1), nan_f32(v0, v0_1))
        f0 = max_any_f32(f0, v0)                            store0_f32(z0k, i, g0)
        q0 = nan_bits_f32(q0, v0)
    store0_f32(z0k, 0, nan_for_bits_f32(f0, q0))
"""

from __future__ import annotations

from collections.abc import Sequence

from .writer import Writer


def begin(w: Writer, k: int | str, combine: str, d: str, init: str) -> None:
    """Print the neutral element of fold ``k`` of dtype ``d``."""
    w(f"f{k} = {init}")
    if _keeps_nan_apart(combine, d):
        w(f"q{k} = const_u{d[1:]}(0)")


def take(w: Writer, k: int | str, combine: str, d: str, value: str) -> None:
    """Print one more value into fold ``k``."""
    if _keeps_nan_apart(combine, d):
        w(f"f{k} = {combine}_any_{d}(f{k}, {value})")
        w(f"q{k} = nan_bits_{d}(q{k}, {value})")
    else:
        w(f"f{k} = {combined(combine, d, f'f{k}', value)}")


def begin_lanes(w: Writer, k: int, combine: str, d: str, init: str, step: object) -> None:
    """Print the totals ``a`` of fold ``k`` in the lanes of a step, and what keeps NaN apart."""
    w(f"a{k} = each_{d}_{step}({init})")
    if _keeps_nan_apart(combine, d):
        w(f"b{k} = each_u{d[1:]}_{step}(const_u{d[1:]}(0))")


def take_lanes(w: Writer, k: int, combine: str, d: str, value: str, init: str, step: object) -> None:
    """Print a step of values, those under the mask ``m``, into the lanes of fold ``k``."""
    kept = f"kept_{d}_{step}(m, {value}, {init})"
    if _keeps_nan_apart(combine, d):
        w(f"u{k} = {kept}")
        w(f"a{k} = {combine}_any_{d}(a{k}, u{k})")
        w(f"b{k} = nan_bits_{d}(b{k}, u{k})")
    else:
        w(f"a{k} = {combined(combine, d, f'a{k}', kept)}")


def join_lanes(w: Writer, k: int, combine: str, d: str, step: object) -> None:
    """Print all lanes of fold ``k`` into its total."""
    if _keeps_nan_apart(combine, d):
        any_ = {"max": "most", "min": "least"}[combine]
        w(f"f{k} = {combine}_any_{d}(f{k}, total_{any_}_{d}_{step}(a{k}))")
        w(f"q{k} = max_(q{k}, total_max_u{d[1:]}_{step}(b{k}))")
    else:
        w(f"v{k}_all = total_{combine}_{d}_{step}(a{k})")
        take(w, k, combine, d, f"v{k}_all")


def result(k: int | str, combine: str, d: str) -> str:
    """The expression of fold ``k`` when all is in."""
    return f"nan_for_bits_{d}(f{k}, q{k})" if _keeps_nan_apart(combine, d) else f"f{k}"


def element(w: Writer, k: int, combine: str, d: str, values: Sequence[str]) -> None:
    """Print ``values`` into element ``g``."""
    if not _keeps_nan_apart(combine, d):
        for value in values:
            w(f"g{k} = {combined(combine, d, f'g{k}', value)}")
        return
    extreme, pairs = values[0], []
    for i in range(0, len(values), 2):
        pairs.append(f"nan_{d}({values[i]}, {values[min(i + 1, len(values) - 1)]})")
    for value in values[1:]:
        extreme = f"{combine}_any_{d}({extreme}, {value})"
    some = pairs[0]
    for pair in pairs[1:]:
        some = f"or_({some}, {pair})"
    w(f"g{k} = {combine}_or_nan_{d}(g{k}, {extreme}, {some})")


def _keeps_nan_apart(combine: str, d: str) -> bool:
    return combine in ("max", "min") and d in ("f32", "f64")


def combined(combine: str, d: str, total: str, value: str) -> str:
    """One more value into a total, by a line that orders it like any other."""
    return f"accumulate_{d}({total}, {value})" if combine == "add" else f"{combine}_({total}, {value})"
