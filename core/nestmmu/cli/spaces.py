"""Whole address spaces that commands are given: a level of an image, or extents in a file."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from nestmmu.errors import InputError, NestmmuError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nestmmu.extents import Extents
    from nestmmu.memory import TranslatedMemory
    from nestmmu.nests import NestTables
    from nestmmu.radix import RadixTable

EXTENT_FILES = frozenset({".npz", ".parquet"})
"""How the names of files of extents end."""


class Space(enum.StrEnum):
    """Whose addresses."""

    L1 = "l1"
    L2 = "l2"
    SHADOW = "shadow"


def table_of(path: Path, tables: NestTables, space: Space) -> RadixTable | TranslatedMemory:
    """Return what translates a space of an image down to the machine's memory.

    :raises InputError: if the image has no such table.
    """
    found = tables.named(space.value)
    if found is None:
        raise InputError(path, "l0", "is null: there is neither a table for L1 nor a shadow", "ask for --space l2")
    return found


def extents_of_image(path: Path, tables: NestTables, space: Space) -> tuple[Extents, int]:
    """Return a space of an image, and how many malformed entries were met on the way: nothing is mapped by these.

    :raises InputError: if the image has no such table, or one cannot be read as a whole.
    """
    from nestmmu.extent_algebra import compose  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.extract import extract  # noqa: PLC0415
    from nestmmu.faults import Fault  # noqa: PLC0415

    table_of(path, tables, space)
    chain = {Space.L1: [tables.outer], Space.SHADOW: [tables.shadow], Space.L2: [tables.inner, tables.outer]}[space]
    try:
        parts = [extract(table, words=False) for table in chain if table is not None]
        found = parts[0].extents if len(parts) == 1 else compose(parts[0].extents, parts[1].extents)
    except (NestmmuError, Fault) as error:
        raise InputError(path, space.value, f"cannot be read: {error}", "take the image again") from error
    return found, sum(len(part.broken) for part in parts)


def extent_json(extents: Extents) -> Iterator[dict[str, Any]]:
    """Yield extents as ``--json`` prints them: all integers, permissions sums of 4 (r), 2 (w) and 1 (x)."""
    from nestmmu.extents import ACCESSED, ATTRIBUTE_SHIFT, DIRTY  # noqa: PLC0415  (lazy: see the package)

    names = ("start", "length", "target", "permissions", "flags", "page_shift")
    for row in zip(*(getattr(extents, name).tolist() for name in names), strict=True):
        values = dict(zip(names, row, strict=True))
        flags = values.pop("flags")
        yield values | {
            "accessed": bool(flags & ACCESSED),
            "dirty": bool(flags & DIRTY),
            "attributes": flags >> ATTRIBUTE_SHIFT,
        }
