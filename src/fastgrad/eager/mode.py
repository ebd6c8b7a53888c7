"""Whether ops on tensors are recorded."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

_depth: ContextVar[int] = ContextVar("fastgrad_no_grad", default=0)
"""How many `no_grad` blocks are open; each thread and each asyncio task has its own count."""


def recording() -> bool:
    """Whether an op on a tensor that requires a gradient is recorded."""
    return not _depth.get()


class no_grad:
    """Inside, ops on tensors are computed and not recorded; results require no gradient, leaves may change in place.

    A context manager and a decorator, with or without parentheses (of functions, coroutines and generators of both
    kinds); nests; each thread and each asyncio task has its own mode.

    >>> w = Tensor([1.0, 2.0], requires_grad=True)
    >>> with no_grad():
    ...     w -= 0.5
    >>> w
    Tensor([0.5, 1.5], requires_grad=True)
    """

    def __new__(cls, f: Callable | None = None) -> Any:
        block = super().__new__(cls)
        return block if f is None else block(f)

    def __enter__(self) -> None:
        _depth.set(_depth.get() + 1)

    def __exit__(self, *_: Any) -> None:
        _depth.set(_depth.get() - 1)

    def __call__(self, f: Callable) -> Callable:
        """``f`` with recording off while its own code runs."""
        if not callable(f):
            raise TypeError(f"no_grad decorates functions, got {type(f).__name__}")
        if inspect.iscoroutinefunction(f):

            @functools.wraps(f)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with no_grad():
                    return await f(*args, **kwargs)

            return coroutine
        if inspect.isgeneratorfunction(f):
            return functools.wraps(f)(lambda *args, **kwargs: _quiet_steps(f(*args, **kwargs)))
        if inspect.isasyncgenfunction(f):
            return functools.wraps(f)(lambda *args, **kwargs: _quiet_async_steps(f(*args, **kwargs)))

        @functools.wraps(f)
        def function(*args: Any, **kwargs: Any) -> Any:
            with no_grad():
                return f(*args, **kwargs)

        return function


def _quiet_steps(generator: Any) -> Any:
    """``generator``, each of its steps with recording off; whoever consumes it keeps their own mode."""
    resume: Callable[[], Any] = partial(next, generator)
    while True:
        try:
            with no_grad():
                item = resume()
        except StopIteration as stop:
            return stop.value
        try:
            given = yield item
        except GeneratorExit:
            with no_grad():
                generator.close()
            raise
        except BaseException as error:
            resume = partial(generator.throw, error)
        else:
            resume = partial(generator.send, given)


async def _quiet_async_steps(generator: Any) -> Any:
    """`_quiet_steps` of an asynchronous generator."""
    resume: Callable[[], Any] = generator.__anext__
    while True:
        try:
            with no_grad():
                item = await resume()
        except StopAsyncIteration:
            return
        try:
            given = yield item
        except GeneratorExit:
            with no_grad():
                await generator.aclose()
            raise
        except BaseException as error:
            resume = partial(generator.athrow, error)
        else:
            resume = partial(generator.asend, given)
