"""What `fastgrad train` prints at its end."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


def show(console: Console, confusion: np.ndarray, summary: dict[str, Any]) -> None:
    """Print int64[classes, classes] `confusion` as a table, then the figures of `summary` (the JSON object)."""
    console.print(confusion_table(confusion))
    compiled, interpreted = summary["steps_per_s"], summary["interpreted_steps_per_s"]
    console.print(f"test accuracy  {summary['test_accuracy']:.2%}", highlight=False)
    console.print(
        f"steps/s        {compiled:,.0f} ({summary['backend']}), {interpreted:,.0f} interpreted: "
        f"{compiled / interpreted:.1f} times",
        highlight=False,
    )
    console.print(
        f"seconds        {summary['compile_s']:.2f} to trace and compile, {summary['train_s']:.2f} for "
        f"{summary['steps']:,} steps, {summary['wall_s']:.2f} in all",
        highlight=False,
    )


def confusion_table(confusion: np.ndarray) -> Table:
    """Rows are the true classes, columns the predicted ones; zeros are left as dots, hits are bold."""
    table = Table(title="confusion matrix (rows: true, columns: predicted)", title_justify="left")
    table.add_column("", justify="right", style="bold")
    for label in range(len(confusion)):
        table.add_column(str(label), justify="right")
    for label, row in enumerate(confusion.tolist()):
        cells = [f"[bold]{n}[/bold]" if i == label else str(n) if n else "·" for i, n in enumerate(row)]
        table.add_row(str(label), *cells)
    return table
