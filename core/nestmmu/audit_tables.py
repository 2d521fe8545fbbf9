"""What can be wrong with tables themselves, seen over all of their leaves and pages at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.access import WRITE
from nestmmu.extent_algebra import Places, invert, union
from nestmmu.faults import FaultKind
from nestmmu.translations import kind_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from nestmmu.extents import Extents
    from nestmmu.extraction import Extraction

MALFORMED = "malformed entry"
UNREADABLE = "table that cannot be read"
SHARED = "table page used twice"
ALIASED = "page written at one address and mapped at another"
EXPOSED = "table page mapped writable"
_ONE = np.uint64(1)
_SHIFT_BITS = 6
_SHIFT_MASK = (1 << _SHIFT_BITS) - 1
_AT_ONCE = 1 << 17


@attrs.frozen(eq=False)
class Findings:
    """Places of one table where one thing is wrong."""

    table: str
    problem: str
    addresses: NDArray[np.uint64]
    """What the table translates, in bytes: the first address that each is about, shape (n,)."""
    places: NDArray[np.uint64]
    """Where each is: an entry's or a table page's address in the memory that holds it; of an alias, what is reached."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.addresses)


def malformed(name: str, table: Extraction) -> Iterator[Findings]:
    """Yield what breaks the format, and tables that cannot be read."""
    broken, unreadable = table.broken, kind_number(FaultKind.UNREADABLE)
    for problem, chosen in ((MALFORMED, broken.kind != unreadable), (UNREADABLE, broken.kind == unreadable)):
        yield Findings(name, problem, broken.start[chosen], broken.entry_address[chosen])


def _parts(space: Extents) -> Iterator[Extents]:
    """Yield extents, as many at a time as are best looked at together."""
    for start in range(0, len(space), _AT_ONCE):
        yield space.take(slice(start, start + _AT_ONCE))


def _distinct(space: Extents) -> bool:
    """Tell, where it can be told fast, that no two extents lead to one place: by sorting plain numbers."""
    keys = np.empty(len(space), np.uint64)
    for index, part in enumerate(_parts(space)):
        shifts = part.page_shift.astype(np.uint64)
        if int(shifts.min()) < _SHIFT_BITS or not np.array_equal(part.length, _ONE << shifts):
            return False
        keys[index * _AT_ONCE :][: len(part)] = part.target | shifts
    keys.sort()
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE + 1]
        shifts = some & np.uint64(_SHIFT_MASK)
        targets = some ^ shifts
        if np.any(targets[1:] - targets[:-1] < _ONE << shifts[:-1]):
            return False
    return True


def aliased(name: str, space: Extents) -> Findings:
    """Return the extents that lead to what another one leads to too, where one of the two can be written by.

    What all can only read may be mapped anywhere: a page of zeros, a merged page.
    """
    none = np.zeros(0, np.uint64)
    if _distinct(space):
        return Findings(name, ALIASED, none, none)
    reverse = invert(space)
    found = reverse.extents
    writable = found.permissions & WRITE != 0
    lasts = found.target + (found.length - _ONE)
    again = np.zeros(len(found), np.bool_)
    if len(found) > 1:
        reach = np.maximum.accumulate(np.where(writable, lasts, 0))
        some = np.logical_or.accumulate(writable)
        again[1:] = writable[1:] & (found.target[1:] <= reverse.reach[:-1])
        again[1:] |= some[:-1] & (found.target[1:] <= reach[:-1])
    return Findings(name, ALIASED, found.start[again], found.target[again])


def _ranges(*tables: Extraction) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the first and the last address of each table page."""
    address = np.concatenate([table.tables.address for table in tables])
    return address, address + (np.concatenate([table.tables.size for table in tables]) - _ONE)


def shared(name: str, *tables: Extraction) -> Findings:
    """Return the table pages that lie, all or in part, where another table page of these does; all in one memory."""
    starts, lasts = _ranges(*tables)
    order = np.argsort(starts, kind="stable")
    again = np.zeros(len(starts), np.bool_)
    again[1:] = starts[order][1:] <= np.maximum.accumulate(lasts[order])[:-1]
    places = starts[order][again]
    return Findings(name, SHARED, places, places)


def exposed(name: str, space: Extents, *tables: Extraction) -> Findings:
    """Return the extents by which pages of these tables can be written, with the first such page of each.

    The tables lie in the memory that the space leads to.
    """
    pages = Places(union(*_ranges(*tables)))
    found = [np.zeros((2, 0), np.uint64)]
    for part in _parts(space):
        met, places = pages.first_meeting(part.target, part.target + (part.length - _ONE))
        chosen = np.flatnonzero((met >= 0) & (part.permissions & WRITE != 0))
        found.append(np.stack([part.start[chosen] + (places[chosen] - part.target[chosen]), places[chosen]]))
    addresses, places = np.concatenate(found, axis=1)
    return Findings(name, EXPOSED, addresses, places)
