"""Progress bars and text tables for the terminal. Both are drawn with rich, which is imported when used."""

import importlib.util
import io
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Self

TABLE_WIDTH = 100_000
"""Characters of a table's longest line; more than any table has, so that no cell is cut or wrapped."""


class ProgressBars:
    """Progress bars on standard error, one for each name that `show` is called with.

    No bar is drawn where standard error is no terminal or rich is not installed. With `announce`, a line is
    printed there for each task that is complete. `transient` bars disappear at the end.
    """

    def __init__(self, *, transient: bool = True, announce: bool = False):
        self.transient, self.announce = transient, announce
        self.is_drawn = sys.stderr.isatty() and importlib.util.find_spec("rich") is not None
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if self.is_drawn:
            from rich import console, progress

            columns = (
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[note]}", markup=False),
            )
            stderr = console.Console(stderr=True)
            self.progress = progress.Progress(*columns, console=stderr, transient=self.transient)
            self.progress.start()
        return self

    def show(self, name: str, done: int, total: int, note: str = "") -> None:
        """Set the bar of `name` to `done` of `total`, followed by `note`."""
        if not self.is_drawn:
            if self.announce and done == total:
                print(f"{name}: {total} done", file=sys.stderr)
            return

        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total, note="")
        self.progress.update(self.tasks[name], completed=done, total=total, note=note)

    def __exit__(self, *error: object) -> None:
        if self.is_drawn:
            self.progress.stop()


def table(
    rows: Iterable[Sequence[object]], *, header: Sequence[str] = (), align: str = "", indent: int = 0
) -> str:
    """The lines of a text table: columns two spaces apart, each as wide as its longest cell.

    `align` has one letter per column, "l" or "r"; columns without a letter are aligned left. A row may be
    shorter than the longest one. Wide characters (Chinese) count as two.
    """
    from rich import console, table, text

    cells = [[text.Text(str(cell)) for cell in row] for row in ([header] if header else []) + list(rows)]
    num_columns = max(map(len, cells), default=0)
    columns = [
        table.Column(justify="right" if align[i : i + 1] == "r" else "left", no_wrap=True)
        for i in range(num_columns)
    ]
    drawn = table.Table(*columns, box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for row in cells:
        drawn.add_row(*row)

    output = io.StringIO()
    console.Console(file=output, width=TABLE_WIDTH, color_system=None).print(drawn)
    return "\n".join(f"{' ' * indent}{line}".rstrip() for line in output.getvalue().splitlines())
