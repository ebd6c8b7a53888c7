"""Imports go one way: a file imports only from lower floors, and within its own floor only without cycles."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fastgrad

ROOT = Path(fastgrad.__file__).parent
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "locks", "machine", "version"),
    ("core",),
    ("interpreter", "ops"),
    ("numpy", "protocols", "array", "creation", "joining", "operators", "random", "trace", "views"),
    ("autodiff", "batching", "calls", "control", "passes", "pytree"),
    ("schedule", "memory", "placement"),
    ("codegen",),
    ("executor",),
    (
        "arguments",
        "api",
        "control_flow",
        "pullback",
        "graph_builder",
        "train_step",
        "minibatches",
        "optimizer",
        "signatures",
        "state",
        "step_signature",
        "step_loss",
        "step_update",
        "inspection",
        "selection",
        "forward",
        "jacobians",
        "mapped",
        "eager",
        "testing",
    ),
    ("nn", "optim", "scipy", "data", "train", "interop", "distributed", "viz", "bench", "cli", "__main__"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
JIT = {"numba", "llvmlite"}
FILES = sorted(ROOT.rglob("*.py"))
FACADE = (
    ROOT / "__init__.py"
)  # lists the public names: above every floor but the program itself and its bench
PROGRAM = ("bench", "cli", "__main__")
STANDARD = sys.stdlib_module_names


def room_of(path: Path) -> str:
    """The first part of a file's path below the package: ``core`` for core/graph.py, ``trace`` for trace.py."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path: Path) -> tuple[str, ...]:
    parts = ("fastgrad", *path.relative_to(ROOT).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _nodes(node: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node that runs, and whether it stands inside a function; blocks for type checkers are left out."""
    for child in ast.iter_child_nodes(node):
        if _type_checking(child):
            continue
        yield child, lazy
        yield from _nodes(child, lazy or isinstance(child, ast.FunctionDef | ast.Lambda))


@cache
def imports(path: Path) -> list[tuple[tuple[str, ...], int, bool]]:
    """The modules that a file imports: their names, the line, whether lazily (inside a function)."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
    found = []
    for node, lazy in _nodes(parsed(path)):
        if isinstance(node, ast.Import):
            found += [(tuple(alias.name.split(".")), node.lineno, lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = (*base, *(node.module.split(".") if node.module else ()))
            # ``from .x import y``: y may be a module of x, or a name in it.
            found += [(target(stem, alias.name), node.lineno, lazy) for alias in node.names]
    return found


def target(stem: tuple[str, ...], name: str) -> tuple[str, ...]:
    below = ROOT.joinpath(*stem[1:], name)
    is_module = stem[:1] == ("fastgrad",) and (below.is_dir() or below.with_suffix(".py").exists())
    return (*stem, name) if is_module else stem


def test_every_file_has_a_floor():
    assert {room_of(p) for p in FILES} - {"__init__"} <= set(FLOOR_OF)


@pytest.mark.parametrize("path", [p for p in FILES if p != FACADE], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path):
    mine = FLOOR_OF[room_of(path)]
    upwards = [
        f"{path.name}:{line} imports {'.'.join(module)} from floor {FLOOR_OF[module[1]]}, its own is {mine}"
        for module, line, _ in imports(path)
        if module[0] == "fastgrad" and len(module) > 1 and FLOOR_OF[module[1]] > mine
    ]
    assert not upwards, "\n".join(upwards)


def test_only_the_program_imports_the_public_names():
    users = {room_of(p) for p in FILES if any(module == ("fastgrad",) for module, _, _ in imports(p))}
    assert users <= set(PROGRAM)


def test_no_file_imports_itself_through_others():
    edges = {
        module_of(p): {m for m, _, _ in imports(p) if m[0] == "fastgrad" and m != module_of(p)} for p in FILES
    }
    TopologicalSorter(edges).prepare()  # raises CycleError


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_codegen_imports_the_jit(path: Path):
    if room_of(path) != "codegen":
        assert not [line for module, line, _ in imports(path) if module[0] in JIT]


def test_optional_packages_are_imported_where_they_are_used():
    core = {"numpy", "optree", "rich", "numba", "llvmlite", "fastgrad", "__future__"}
    for path in FILES:
        for module, line, lazy in imports(path):
            if module[0] not in core and not lazy:
                assert module[0] in STANDARD, f"{path.name}:{line} imports {module[0]} at the top"
