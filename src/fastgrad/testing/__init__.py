"""``fg.testing``: checks of derivatives and of batching that users run on their own functions and custom rules.

    check_vjp     reverse mode against differences        <ct, J t> = <J' ct, t>  for a random ct and a random t
    check_jvp     forward mode against differences        J t
    check_grads   both, of the function and of its derivatives up to an order
    check_vmap    batching against a Python loop

They pass in silence, or raise `errors.CheckError` (an AssertionError), which says which direction, argument and element
differ most.
"""

from .examples import check_vmap as check_vmap
from .gradients import check_grads as check_grads
from .gradients import check_jvp as check_jvp
from .gradients import check_vjp as check_vjp

__all__ = ["check_grads", "check_jvp", "check_vjp", "check_vmap"]
