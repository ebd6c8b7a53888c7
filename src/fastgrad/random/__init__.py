"""Random numbers without hidden state: a key in, numbers out; the same key gives the same numbers.

    key = fg.random.key(0)
    key, sub = fg.random.split(key)
    x = fg.random.normal(sub, (3, 4))

Names, signatures and streams of bits are those of ``jax.random`` (its default generator, Threefry-2x32, in the form
that does not depend on how an array is cut up): `key`, `split`, `fold_in` and `bits` give what JAX gives. Floats differ
from JAX's in their last bits, as a float64 has 53 random bits here and a float32 has 24; they are float64 unless
``dtype`` says otherwise, as NumPy's are.

A key is an array ``u32[2]``, several keys are ``u32[n, 2]``: they pass through jit, vmap, scan carries and pytrees as any
array does. Use a key once: for a draw, or to make others of it (`split`, `fold_in`).

Element i of a draw depends on the key and on i alone. All draws have the same bits in the interpreter and compiled, on
every processor, at any number of threads, and under vmap (over keys it is a loop over keys). Draws of different shapes
from one key have no relation to rely on. No derivative passes through bits; it does through bounds, as through any op.
"""

from .continuous import exponential, gumbel, laplace, normal, truncated_normal, uniform
from .discrete import bernoulli, categorical, choice, permutation, randint
from .keys import bits, fold_in, key, split

__all__ = [
    "bernoulli",
    "bits",
    "categorical",
    "choice",
    "exponential",
    "fold_in",
    "gumbel",
    "key",
    "laplace",
    "normal",
    "permutation",
    "randint",
    "split",
    "truncated_normal",
    "uniform",
]
