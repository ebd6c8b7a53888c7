"""Run the notebooks in full and save them with their outputs: ``python notebooks/run.py [NOTEBOOK...]``.

Nothing is saved of when and where a notebook ran. One that fails is left as it was.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
LIMIT_S = 1200


def run(path: Path) -> None:
    """Execute one notebook in its folder and write it back."""
    notebook = nbformat.read(path, as_version=4)
    metadata = dict(notebook.metadata)
    client = NotebookClient(
        notebook,
        timeout=LIMIT_S,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(metadata)  # without the version of Python
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_empty(output)]
    nbformat.write(notebook, path)


def _is_empty(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a progress line that has been wiped."""
    return output.output_type == "display_data" and output.data == {"text/plain": ""}


def main() -> None:
    """Run the notebooks named on the command line, by default all."""
    os.environ.pop("FASTGRAD_NOTEBOOK_SHORT", None)
    for path in [Path(name).resolve() for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        start = perf_counter()
        run(path)
        print(f"{path.name}: {perf_counter() - start:.0f} s, {path.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
