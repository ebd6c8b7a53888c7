"""Backward: one sweep over the recorded nodes, newest first (Speelpenning 1980), without recursion.

Nothing is changed before every rule has run: an error leaves all ``.grad`` and the recording as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.graph import Literal
from ..errors import ArgumentError, user_line
from .recording import Node

Key = tuple[
    int, int
]  # of a value: the id of its node (of the tensor itself for a leaf), the number of the output
Cotangents = dict[Key, tuple[Any, bool]]  # the cotangent, and whether its memory is nobody else's


def key_of(tensor: Any) -> Key:
    """Where the cotangent of ``tensor`` adds up."""
    node = tensor._node
    return (id(tensor), 0) if node is None else (id(node), tensor._index)


def backward(root: Any, seed: Any, retain_graph: bool) -> None:
    """Add the cotangents of all leaves of ``root`` (and of tensors that retain theirs) to their ``.grad``."""
    nodes, leaves = _reachable(root)
    cts: Cotangents = {key_of(root): (seed, False)}
    kept: list[tuple[Any, Any]] = []
    with np.errstate(all="ignore"):
        for node in nodes:
            key = id(node)
            got = [cts.pop((key, i), None) for i in range(len(node.outs))]
            if node.retained:
                kept += [(ref(), got[i]) for i, ref in node.retained.items()]
            if any(got):
                _step(node, [pair and pair[0] for pair in got], cts)
    for leaf in leaves:
        # A leaf whose every cotangent is zero by rule (of floor, of sign) has a gradient all the same.
        pair = cts.get(key_of(leaf)) or (np.zeros(leaf.aval.shape, leaf.aval.dtype), True)
        leaf._add_grad(*pair)
    for tensor, pair in kept:
        if tensor is not None and pair is not None:
            tensor._add_grad(pair[0], False)
    if not retain_graph:
        for node in nodes:
            node.free()


def _reachable(root: Any) -> tuple[list[Node], list[Any]]:
    """The nodes under ``root``, newest first, and the leaves that want a gradient."""
    if root._node is None:
        return [], [root]
    seen, stack = {root._node}, [root._node]
    leaves: dict[int, Any] = {}
    while stack:
        node = stack.pop()
        if node.args is None:
            raise ArgumentError(
                "backward: the recording was freed by an earlier backward()",
                hint="backward(retain_graph=True) the first time, or compute the loss anew",
                at=user_line(),
            )
        for i in node.wanted:
            arg = node.args[i]
            parent = arg._node
            if parent is None:
                if arg._requires:
                    leaves[id(arg)] = arg
            elif parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=lambda node: node.number, reverse=True), list(leaves.values())


def _step(node: Node, out_cts: Sequence[Any], cts: Cotangents) -> None:
    """Hand the cotangents of one node on to its inputs."""
    rule = node.op.rule(node.wanted)
    changed = node.changed()
    if changed and rule.needs(changed):
        raise ArgumentError(
            f"backward: {node.op.prim.name} needs a value that was changed in place after it was used",
            hint="change it after backward(), or compute on x.clone()",
            at=user_line(),
        )
    args = node.args
    assert args is not None
    if rule.run is None:
        # Constants go in as they were then: numbers as the literals they are, arrays as the copies that were kept.
        operands = [a if isinstance(a, Literal) else v for a, v in zip(args, node.values, strict=True)]
        given = rule(out_cts, node.outs, operands, node.values)
    else:
        given = rule.run(*out_cts, *node.outs, *node.values)
    for i, ct, fresh in zip(node.wanted, given, rule.fresh, strict=True):
        if ct is not None:
            key = key_of(args[i])
            have = cts.get(key)
            cts[key] = (ct, fresh) if have is None else (have[0] + ct, True)
