"""What comes out of a table that is extracted whole (:mod:`nestmmu.extract`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.extents import Extents

if TYPE_CHECKING:
    from numpy.typing import NDArray


@attrs.frozen(eq=False)
class Broken:
    """Entries that break the format, and tables that cannot be read, by address.

    Nothing under such entries was extracted; of such tables, what can be read was.
    """

    start: NDArray[np.uint64]
    """The first input addresses that they are about, in bytes."""
    kind: NDArray[np.uint8]
    """:func:`~nestmmu.translations.kind_number` of MALFORMED, or of UNREADABLE for a table, all or in part."""
    level: NDArray[np.uint8]
    entry_address: NDArray[np.uint64]
    """In the memory that holds the table; of a table, its first address that cannot be read."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.start)


@attrs.frozen(eq=False)
class TablePages:
    """The tables that a walk can reach, by level and then by input address; one that is shared, each time."""

    address: NDArray[np.uint64]
    """In the memory that holds them, in bytes."""
    size: NDArray[np.uint64]
    """In bytes."""
    level: NDArray[np.uint8]


@attrs.frozen(eq=False)
class Extraction:
    """What a table maps: one extent a leaf."""

    extents: Extents
    entries: NDArray[np.uint64]
    """The leaves' raw values, by extent; empty where they were not asked for."""
    entry_addresses: NDArray[np.uint64]
    """Where they lie, in the memory that holds the table, in bytes; empty likewise."""
    broken: Broken
    tables: TablePages
