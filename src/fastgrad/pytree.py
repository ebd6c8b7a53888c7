"""Nested arguments to flat lists and back (optree): dict, list, tuple, namedtuple, and plain dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import optree

NAMESPACE = "fastgrad"


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Leaves and structure; dict keys in sorted order, None is part of the structure."""
    leaves, structure = optree.tree_flatten(tree, namespace=NAMESPACE)
    if any(dataclasses.is_dataclass(leaf) and not isinstance(leaf, type) for leaf in leaves):
        for leaf in leaves:
            _register(type(leaf))
        return flatten(tree)
    return leaves, structure


def unflatten(structure: Any, leaves: Any) -> Any:
    """The nested value again."""
    return optree.tree_unflatten(structure, leaves)


def paths(tree: Any) -> list[str]:
    """A name a leaf: ``[0]['w']``."""
    flatten(tree)
    return ["".join(f"[{part!r}]" for part in path) for path in optree.tree_paths(tree, namespace=NAMESPACE)]


LEAF = optree.tree_structure(cast(Any, 0), namespace=NAMESPACE)
"""The structure of a single leaf."""

_known: set[type] = set()


def _register(kind: type) -> None:
    """Teach optree a dataclass the first time one is met: its init fields are children."""
    if kind in _known or not dataclasses.is_dataclass(kind):
        return
    names = tuple(f.name for f in dataclasses.fields(kind) if f.init)

    def to_children(value: Any) -> tuple[tuple, None, tuple]:
        return tuple(getattr(value, n) for n in names), None, names

    def from_children(_: Any, children: Any) -> Any:
        return kind(**dict(zip(names, children, strict=True)))

    optree.register_pytree_node(cast(Any, kind), to_children, from_children, namespace=NAMESPACE)
    _known.add(kind)


def map(f: Any, tree: Any) -> Any:
    """``f`` on every leaf, the nesting kept."""
    leaves, structure = flatten(tree)
    return unflatten(structure, [f(leaf) for leaf in leaves])
