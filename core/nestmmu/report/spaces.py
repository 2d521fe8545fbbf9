"""Whole address spaces, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import typer

from nestmmu.access import permission_text
from nestmmu.extents import ACCESSED, DIRTY
from nestmmu.nests import size_text
from nestmmu.report.tables import show_table

if TYPE_CHECKING:
    from nestmmu.cli.diff import SpaceDifference
    from nestmmu.extents import Extents


def _rows(extents: Extents) -> list[tuple[str, ...]]:
    names = ("start", "length", "target", "permissions", "flags", "page_shift")
    rows: list[tuple[str, ...]] = []
    for row in zip(*(getattr(extents, name).tolist() for name in names), strict=True):
        start, length, target, permissions, flags, shift = row
        marks = permission_text(permissions) + (" R" if flags & ACCESSED else " -") + ("C" if flags & DIRTY else "-")
        rows.append((f"{start:#x}", f"{start + length - 1:#x}", f"{target:#x}", marks, size_text(shift)))
    return rows


_COLUMNS = ("first", "last", "leads to", "may", "page")


def show_extents(extents: Extents, malformed: int, shown: int) -> None:
    """Print a space: how much of it is mapped in pages of each size, and its first extents."""
    sizes = []
    for shift in np.unique(extents.page_shift).tolist():
        part = extents.take(extents.page_shift == shift)
        sizes.append((size_text(shift), len(part), part.bytes_mapped))
    show_table("Mapped", ("page", "extents", "bytes"), sizes)
    if len(extents):
        title = f"The first {shown} of {len(extents):,} extents" if len(extents) > shown else "Extents"
        show_table(title, _COLUMNS, _rows(extents.take(slice(shown))))
    if malformed:
        typer.echo(f"{malformed:,} malformed entries map nothing; `nestmmu audit` says where they are")


def show_difference(difference: SpaceDifference, shown: int) -> None:
    """Print how two spaces differ."""
    if difference.equal:
        typer.echo(f"{difference.space}: equal")
        return
    one, other = difference.changed
    kinds = (("only in A", difference.only_a), ("only in B", difference.only_b))
    counts = [(what, len(extents), extents.bytes_mapped) for what, extents in (*kinds, ("not alike", one))]
    show_table(difference.space, ("", "ranges", "bytes"), counts)
    rows = [(what, *row) for what, extents in kinds for row in _rows(extents.take(slice(shown)))]
    for left, right in zip(_rows(one.take(slice(shown))), _rows(other.take(slice(shown))), strict=True):
        rows += [("in A", *left), ("in B", *right)]
    show_table(f"The first {shown} of each", ("", *_COLUMNS), rows)
