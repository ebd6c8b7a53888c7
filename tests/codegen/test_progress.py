"""The progress line of compiling, where somebody looks."""

import sys
from types import ModuleType

from fastgrad.codegen import progress


def test_in_a_notebook_it_is_one_line_of_plain_text_that_is_wiped(monkeypatch):
    shown = []

    class Handle:
        def update(self, data, raw):
            assert raw
            shown.append(data["text/plain"])

    display = ModuleType("IPython.display")
    display.display = lambda data, raw, display_id: Handle()
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(progress, "AFTER_S", -1.0)
    with progress.Progress(3) as done:
        done(1)
        done(2)
    assert shown == [
        "fastgrad: compiling 3 kernels, 1 done",
        "fastgrad: compiling 3 kernels, 2 done",
        "",
    ]
