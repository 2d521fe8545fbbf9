"""Tables on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from nestmmu.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns whose cells are all numbers are aligned to the right."""
    listed = [tuple(row) for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(columns):
        numeric = all(isinstance(row[index], int) for row in listed)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    console().print(table)
