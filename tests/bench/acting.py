"""A contestant's program for tests: ``python -P acting.py NAME MODEL DTYPE THREADS`` acts out what NAME stands for.

``interpreter`` works; ``torch`` raises in its first step; ``torch-compile`` is killed in it; ``jax`` sleeps through it;
``autograd`` dies in its second round; ``tensor`` computes another loss.
"""

import os
import signal
import sys
import time

from fastgrad.bench.timing import Contestant, serve


def make():
    """The contestant."""
    name, calls = sys.argv[1], 0
    print("a library that prints to stdout")

    def step():
        nonlocal calls
        calls += 1
        if name == "torch":
            raise ValueError("no such operator\nand a long explanation")
        if name == "torch-compile":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "jax":
            time.sleep(600)
        if name == "autograd" and calls > 10:
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(7)
        time.sleep(0.001)
        return 2.0 if name == "tensor" else 1.0

    return Contestant(step, lambda: "rested")


serve(make)
