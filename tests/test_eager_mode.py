"""`fg.no_grad` as a decorator: without parentheses, and of generators of both kinds."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import fastgrad as fg


@pytest.fixture
def x() -> fg.Tensor:
    """A leaf: what is computed of it is recorded, or not."""
    return fg.Tensor([1.0], requires_grad=True)


def test_it_decorates_without_parentheses(x: fg.Tensor):
    @fg.no_grad
    def function() -> fg.Tensor:
        """Its words."""
        return x * 2

    @fg.no_grad
    async def coroutine() -> fg.Tensor:
        return x * 2

    @fg.no_grad
    def generator() -> Any:
        yield x * 2

    assert not function().requires_grad and function.__doc__ == "Its words."
    assert not asyncio.run(coroutine()).requires_grad
    assert not next(generator()).requires_grad
    assert (x * 2).requires_grad
    for nothing in (3, "f", x):
        with pytest.raises(TypeError, match="decorates functions"):
            fg.no_grad(nothing)


def test_an_exception_thrown_into_a_generator_reaches_it(x: fg.Tensor):
    seen: list[Any] = []

    @fg.no_grad()
    def generator() -> Any:
        for _ in range(2):
            try:
                yield x * 2
            except ValueError as error:
                seen.append((str(error), (x * 2).requires_grad))
        return "done"

    steps = generator()
    assert not next(steps).requires_grad
    assert not steps.throw(ValueError("first")).requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(StopIteration) as stop:
        steps.throw(ValueError("second"))
    assert stop.value.value == "done" and seen == [("first", False), ("second", False)]
    steps = generator()
    next(steps)
    with pytest.raises(KeyError):
        steps.throw(KeyError("not caught"))
    assert list(steps) == [] and (x * 2).requires_grad


def test_a_generator_may_be_a_context_manager(x: fg.Tensor):
    seen = []

    @contextlib.contextmanager
    @fg.no_grad()
    def block() -> Any:
        try:
            yield
        except ValueError:
            seen.append("handled")

    with block():
        assert (x * 2).requires_grad
        raise ValueError
    assert seen == ["handled"]


def test_a_generator_is_closed(x: fg.Tensor):
    seen = []

    @fg.no_grad()
    def generator() -> Any:
        try:
            yield x * 2
        finally:
            seen.append((x * 2).requires_grad)

    steps = generator()
    next(steps)
    steps.close()
    assert seen == [False]
    steps = generator()
    next(steps)
    del steps
    assert seen == [False, False] and (x * 2).requires_grad


def test_it_decorates_asynchronous_generators(x: fg.Tensor):
    seen: list[Any] = []

    @fg.no_grad()
    async def generator() -> Any:
        try:
            got = yield x * 2
            await asyncio.sleep(0)
            try:
                yield x * got
            except ValueError as error:
                seen.append((str(error), (x * 2).requires_grad))
                yield x * 4
        finally:
            await asyncio.sleep(0)
            seen.append((x * 2).requires_grad)

    async def main() -> None:
        steps = generator()
        for step in (steps.__anext__(), steps.asend(3.0), steps.athrow(ValueError("thrown"))):
            assert not (await step).requires_grad
            assert (x * 2).requires_grad  # the consumer records
        await steps.aclose()
        assert seen == [("thrown", False), False]
        steps = generator()
        assert not (await steps.__anext__()).requires_grad
        with pytest.raises(KeyError):
            await steps.athrow(KeyError("not caught"))
        with pytest.raises(StopAsyncIteration):
            await steps.__anext__()

    asyncio.run(main())
