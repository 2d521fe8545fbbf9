"""The segment lookaside buffer of a POWER9 thread, and the instructions that change it (5.7.8, 5.9.3.1)."""

from __future__ import annotations

import attrs

from nestmmu_ppc64_hpt.hashing import SEGMENT_1T, SEGMENT_256M, VirtualPage
from nestmmu_ppc64_hpt.pages import BASE_SHIFTS, SHIFT_4K, SLB_LLP

ENTRIES = 32
ESID = 0xFFFFFFFFF0000000
ESID_1T = 0xFFFFFF0000000000
ESID_VALID = 0x08000000
ESID_INDEX = 0xFFF
VSID_B = 3 << 62
VSID_B_1T = 1 << 62
KS, KP, N, CLASS = 0x800, 0x400, 0x200, 0x80
_VSID_SHIFT = {SEGMENT_256M: 12, SEGMENT_1T: 24}
_VSID_FIELD = 0x3FFFFFFFFFFFF000
VRMA_WORD = 0x4001FFFFFF000000
"""VSID word of the virtual real mode area: VSID 0x1FFFFFF of 1 TiB."""
IH_CLASS, IH_ALL, IH_NONE = 3, 4, 7
"""slbia's hints that say which entries go: those of class 1, all, none; with any other all but the first."""


@attrs.frozen
class Segment:
    """One SLB entry, as slbmte was given it."""

    esid: int
    """The ESID word without index: ESID and V."""
    vsid: int
    """The VSID word."""

    @property
    def valid(self) -> bool:
        """Whether it takes part in lookups."""
        return bool(self.esid & ESID_VALID)

    @property
    def is_class(self) -> bool:
        """C: the class that slbie and slbia look at."""
        return bool(self.vsid & CLASS)

    @property
    def segment_shift(self) -> int:
        """Log2 of the segment's bytes."""
        return SEGMENT_1T if self.vsid & VSID_B == VSID_B_1T else SEGMENT_256M

    @property
    def base_shift(self) -> int | None:
        """Log2 of the base page; None for an encoding that POWER9 does not have."""
        return BASE_SHIFTS.get(self.vsid & SLB_LLP)

    @property
    def number(self) -> int:
        """The VSID."""
        return (self.vsid & _VSID_FIELD) >> _VSID_SHIFT[self.segment_shift]

    def covers(self, address: int) -> bool:
        """Tell whether an effective address lies in the segment."""
        mask = ESID_1T if self.segment_shift == SEGMENT_1T else ESID
        return self.valid and not (address ^ self.esid) & mask

    def page(self, address: int) -> VirtualPage:
        """Return the virtual page of an effective address."""
        shift = self.segment_shift
        return VirtualPage(self.number, address & (1 << shift) - 1, shift, self.base_shift or SHIFT_4K)


EMPTY = Segment(0, 0)


def vrma_segment(page_size_field: int) -> Segment | None:
    """Return the segment that guest real mode uses, None where its page size is none.

    :param page_size_field: PS of the partition-table entry, its three bits from the top: L, then LP.
    """
    llp = (page_size_field & 4) << 6 | (page_size_field & 3) << 4
    return None if llp not in BASE_SHIFTS else Segment(ESID_VALID, VRMA_WORD | llp)


class Slb:
    """The entries of one thread.

    :raises ValueError: for more entries than there are.
    """

    def __init__(self, entries: list[tuple[int, int]] | None = None) -> None:
        self.entries = [EMPTY] * ENTRIES
        for index, (esid, vsid) in enumerate(entries or []):
            if not self.write(esid & ~ESID_INDEX | index, vsid):
                message = f"SLB entry {index} is ({esid:#x}, {vsid:#x})"
                raise ValueError(message)

    def lookup(self, address: int) -> Segment | None:
        """Return the first entry that covers an effective address, None for a segment fault."""
        for entry in self.entries:
            if entry.covers(address):
                return entry
        return None

    def write(self, rb: int, rs: int) -> bool:
        """Do slbmte.

        :returns: False, and nothing is changed, for an index, a segment size or a base page that there is not.
        """
        index = rb & ESID_INDEX
        entry = Segment(rb & (ESID | ESID_VALID), rs)
        if index >= ENTRIES or rs & VSID_B not in {0, VSID_B_1T} or entry.base_shift is None:
            return False
        self.entries[index] = entry
        return True

    def read(self, index: int) -> tuple[int, int]:
        """Do slbmfee and slbmfev: return (ESID word, VSID word) of an entry; zeros beyond the last."""
        return (self.entries[index].esid, self.entries[index].vsid) if index < ENTRIES else (0, 0)

    def invalidate(self, rb: int) -> None:
        """Do slbie: the entry that translates the address, of the class and the size that RB names."""
        b_1t, is_class = bool(rb >> 25 & 3 == 1), bool(rb >> 27 & 1)
        for index, entry in enumerate(self.entries):
            if entry.covers(rb & ESID) and entry.is_class == is_class and (entry.segment_shift == SEGMENT_1T) == b_1t:
                self.entries[index] = attrs.evolve(entry, esid=entry.esid & ~ESID_VALID)

    def invalidate_all(self, ih: int = 0) -> None:
        """Do slbia with its invalidation hint IH; a reserved one is taken as 0."""
        first = 0 if ih in {IH_CLASS, IH_ALL} else 1
        for index, entry in enumerate(self.entries[first:], first):
            if ih != IH_NONE and (ih != IH_CLASS or entry.is_class):
                self.entries[index] = attrs.evolve(entry, esid=entry.esid & ~ESID_VALID)
