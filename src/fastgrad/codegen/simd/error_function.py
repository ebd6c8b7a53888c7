"""erf, ndtr, and the two forms of gelu.

The tail of the normal distribution is T(t) = exp(-t^2/2) R(v) / (t + 5) with v = t / (t + 5), for every t >= 0 (after M. M.
Shepherd and J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x", Math. Comp. 36, 1981); t^2 and the
factors are in two floats each, as a relative error of t^2 is an absolute one of the exponent. The error function, which
needs no tail, has x + x P(x^2) below 1 and 1 - exp(-Q(x)) above. Near-minimax fits, made with mpmath at 60 digits and
rounded to the dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from llvmlite import ir

from . import pairs, vec
from .exponential import reduce_exp
from .formats import power_of_two, scale

SHIFT = 5.0
GELU_CUBE = Fraction("0.044715")
"""The tanh form of gelu is x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))."""
_GELU_SLOPE = Fraction("1.59576912160573071175978423973752747390239451874")  # 2 sqrt(2/pi)


TAIL_LIMIT32, GELU_LIMIT32 = 14.75, 11.5
"""Above, t T(t) rounds to 0 in float32, and so does its counterpart in the tanh form."""


@dataclass(frozen=True)
class _Fit:
    small: tuple[float, ...]  # P = erf(x)/x - 1  in x^2, for x in [0, 1]
    middle: float
    large: tuple[
        float, ...
    ]  # Q = -log(erfc(x))  in x - middle, for x in [1, limit], to within the rounding of erf
    limit: float  # above: erf rounds to 1
    tail: tuple[float, ...]  # R  in v - 1/2
    tail_low: float  # what its first coefficient lacks
    tail_limit: float  # above: t T(t) rounds to 0
    gelu_limit: float  # likewise, of the tanh form


_F32 = _Fit(
    small=(
        0.12837916612625122,
        -0.3761262595653534,
        0.1128358244895935,
        -0.026853643357753754,
        0.005187962669879198,
        -0.0008006793214008212,
        7.842288323445246e-05,
    ),
    middle=1.5,
    large=(
        3.3844921588897705,
        3.5088014602661133,
        0.8926408886909485,
        0.025816792622208595,
        -0.006018555723130703,
        0.0012766217114403844,
        -0.00019105346291325986,
    ),
    limit=4.0,
    tail=(
        0.7691930532455444,
        -1.3307650089263916,
        1.9812225103378296,
        -2.5082650184631348,
        2.640322685241699,
        -2.211801052093506,
        1.330955147743225,
        -0.3831862211227417,
        -0.2050517499446869,
        0.2811325788497925,
        -0.052219852805137634,
        -0.11876419931650162,
    ),
    tail_low=-3.495481459836469e-09,
    tail_limit=TAIL_LIMIT32,
    gelu_limit=GELU_LIMIT32,
)
_F64 = _Fit(
    small=(
        0.1283791670955126,
        -0.37612638903183876,
        0.11283791670958743,
        -0.02686617064561954,
        0.005223977629095658,
        -0.0008548327189606624,
        0.00012055337777810952,
        -1.4925738504204218e-05,
        1.646308709483387e-06,
        -1.637063829093387e-07,
        1.4786548418167036e-08,
        -1.1830590465705277e-09,
        6.684830822627492e-11,
    ),
    middle=2.5,
    large=(
        7.8068152727272535,
        5.352680750986474,
        0.9438937335255919,
        0.010858072740845154,
        -0.002165476914001675,
        0.00042093251615281694,
        -7.703079393942545e-05,
        1.2756004582528517e-05,
        -1.7688523603979902e-06,
        1.557910571361976e-07,
        1.2330567200005419e-08,
        -1.0921582605519997e-08,
        3.7082056424381454e-09,
        -7.712139993948102e-10,
        1.1126938739516967e-10,
        -5.565011132308626e-11,
        4.411558166214649e-12,
        4.779712983602238e-12,
    ),
    limit=6.0,
    tail=(
        0.769193049750063,
        -1.3307650057801135,
        1.9812224638799074,
        -2.5082652533703937,
        2.640325858725642,
        -2.211796438607876,
        1.330884275238716,
        -0.38315222625514184,
        -0.20425456796094657,
        0.27898830847560074,
        -0.060800700346233236,
        -0.10191397877252638,
        0.06832565081385523,
        0.03260803813883634,
        -0.04536718469652621,
        -0.011000451856000517,
        0.028371096321811097,
        0.005385021136125929,
        -0.017298904508790517,
        -0.004421915962492712,
        0.008283726768393528,
        0.003089758894412558,
        -0.0011906169658587036,
    ),
    tail_low=-1.4111732346705386e-17,
    tail_limit=39.0,
    gelu_limit=22.0,
)


def _fit(t: ir.Type) -> _Fit:
    return _F32 if vec.width(t) == 32 else _F64


def erf(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The error function 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    t, fit = x.type, _fit(x.type)
    magnitude = vec.at_most(b, vec.intrinsic(b, "fabs", x), fit.limit)
    z = vec.mul(b, x, x)
    near = vec.fma(b, x, vec.horner(b, z, fit.small), x)
    q = vec.horner(b, vec.sub(b, magnitude, vec.const(t, fit.middle)), fit.large)
    n, r, tail = reduce_exp(b, b.fneg(q))
    power, one = power_of_two(b, n), vec.const(t, 1.0)
    far = vec.sub(b, one, vec.fma(b, power, vec.add(b, tail, r), power))
    y = b.select(vec.compare(b, "<", magnitude, one), near, far)
    return vec.intrinsic(b, "copysign", y, x)


def _tail(b: ir.IRBuilder, t: ir.Value, times: ir.Value | None = None) -> ir.Value:
    """T(t), or ``times`` T(t), for t from 0 to the format's limit."""
    zero = vec.const(t.type, 0.0)
    inverse = pairs.reciprocal(b, pairs.exact_sum(b, t, vec.const(t.type, SHIFT)))
    v = pairs.product(b, (t, zero), inverse)
    high, low = pairs.product(b, v if times is not None else inverse, _series(b, v))
    square, square_low = pairs.square(b, t)
    half = vec.const(t.type, -0.5)
    n, head, rest = _exp(b, vec.mul(b, square, half), vec.mul(b, square_low, half))
    y, y_low = pairs.product(b, (high, low), (head, rest))
    return scale(b, vec.add(b, y, y_low), n)


def _series(b: ir.IRBuilder, v: pairs.Pair) -> pairs.Pair:
    """R(v), the last step of Horner's rule in two floats."""
    t, fit = v[0].type, _fit(v[0].type)
    first, *others = fit.tail
    u, u_low = pairs.exact_sum(b, v[0], vec.const(t, -0.5))
    p = vec.horner(b, u, tuple(others))
    last = vec.mul(b, u, p)
    high, low = pairs.exact_sum(b, vec.const(t, first), last)
    low = vec.add(b, low, vec.const(t, fit.tail_low))
    lost = vec.fma(b, vec.add(b, v[1], u_low), p, vec.fma(b, u, p, b.fneg(last)))
    return high, vec.add(b, low, lost)


def _exp(b: ir.IRBuilder, x: ir.Value, low: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """exp(x + low) as 2**n (head + rest): n, head, rest."""
    n, r, tail = reduce_exp(b, x, low)
    one = vec.const(x.type, 1.0)
    head = vec.add(b, r, one)
    return n, head, vec.add(b, tail, vec.sub(b, r, vec.sub(b, head, one)))


def ndtr(
    b: ir.IRBuilder, x: ir.Value, tail_of: Callable[[ir.IRBuilder, ir.Value], ir.Value] = _tail
) -> ir.Value:
    """The normal distribution function: T(-x) left of 0, 1 - T(x) right of it."""
    t = x.type
    tail = tail_of(b, vec.at_most(b, vec.intrinsic(b, "fabs", x), _fit(t).tail_limit))
    right = vec.compare(b, ">", x, vec.const(t, 0.0))
    return b.select(right, vec.sub(b, vec.const(t, 1.0), tail), tail)


def gelu(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x ndtr(x): -|x| T(|x|) left of 0, x - x T(x) right of it."""
    magnitude = vec.at_most(b, vec.intrinsic(b, "fabs", x), _fit(x.type).tail_limit)
    y = less(b, x, _tail(b, magnitude, magnitude))
    tiny = vec.compare(
        b, "<", magnitude, vec.const(x.type, 2.0**-60)
    )  # where subnormal products would round on the way
    return b.select(tiny, vec.mul(b, x, vec.const(x.type, 0.5)), y)


def tanh_argument(b: ir.IRBuilder, t: ir.Value) -> pairs.Pair:
    """2 sqrt(2/pi) (t + 0.044715 t^3) of t >= 0."""
    kind, zero = t.type, vec.const(t.type, 0.0)
    cubic = pairs.product(b, pairs.square(b, t), pairs.constant(kind, _GELU_SLOPE * GELU_CUBE))
    slope = pairs.constant(kind, _GELU_SLOPE)
    high, low = pairs.exact_sum(b, cubic[0], slope[0])
    factor = (high, vec.add(b, low, vec.add(b, cubic[1], slope[1])))
    return pairs.product(b, (t, zero), factor)


def gelu_tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x sigmoid(w), w = 2 sqrt(2/pi) (x + 0.044715 x^3): -|x| e / (1 + e) left of 0, x more right of it, e = exp(-|w|)."""
    t = x.type
    zero, one = vec.const(t, 0.0), vec.const(t, 1.0)
    magnitude = vec.at_most(b, vec.intrinsic(b, "fabs", x), _fit(t).gelu_limit)
    w = tanh_argument(b, magnitude)
    n, head, rest = _exp(b, b.fneg(w[0]), b.fneg(w[1]))
    head, rest = pairs.total(b, (head, zero), (rest, zero))
    # e = 2**n (head + rest), which below 2**-100 is nothing beside 1.
    power = power_of_two(b, vec.intrinsic(b, "smax", n, vec.const(n.type, -100)))
    e = vec.mul(b, head, power)
    below = vec.add(b, one, e)
    below_low = vec.fma(b, rest, power, vec.sub(b, e, vec.sub(b, below, one)))
    above = pairs.product(b, (magnitude, zero), (head, rest))
    y, y_low = pairs.product(b, above, pairs.reciprocal(b, (below, below_low)))
    return less(b, x, scale(b, vec.add(b, y, y_low), n))


def less(b: ir.IRBuilder, x: ir.Value, lost: ir.Value) -> ir.Value:
    """max(x, 0) - lost, for lost >= 0; -0.0 stays, and so does NaN."""
    left = vec.compare(b, "<", x, vec.const(x.type, 0.0))
    return b.select(left, b.fneg(lost), vec.sub(b, x, lost))
