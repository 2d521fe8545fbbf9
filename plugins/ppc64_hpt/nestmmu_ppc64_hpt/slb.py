"""The segment lookaside buffer, and the instructions that change it (Power ISA 3.0B, Book III, 5.7.8 and 5.9.3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.errors import NestmmuError
from nestmmu_ppc64_hpt.hashing import SLB_C, Segment, segment_of
from nestmmu_ppc64_hpt.hpte import SEGMENT_SHIFTS

if TYPE_CHECKING:
    from collections.abc import Iterable

SLB_ENTRIES = 32
ESID_V = 0x08000000
ESID_INDEX = 0xFFF
ESIDS = {28: 0xFFFFFFFFF0000000, 40: 0xFFFFFF0000000000}
"""The bits of an effective address that say its segment, by log2 of the segment's bytes."""
SLBIE_B_SHIFT = 25
SLBIE_B = 3 << SLBIE_B_SHIFT
SLBIE_C = 1 << 27
"""RB of slbie: the class, which software gives as it is in the entry."""
_KEEP_FIRST = {0: True, 1: True, 2: True, 3: False, 4: False, 6: True}
"""IH of slbia: whether entry 0 stays. 7 forgets what was looked up, and no entry; 5 is reserved, and is taken as 0."""
_IH_CLASS = 3
_IH_NO_ENTRY = 7


class SlbRefusedError(NestmmuError):
    """An slbmte whose operands POWER9 does not take: its interrupt is a program interrupt."""


@attrs.frozen
class SlbEntry:
    """A valid entry."""

    esid: int
    """First effective address of the segment."""
    segment: Segment


class Slb:
    """An SLB, of which a lookup takes the first match: two that match are a mistake of software.

    :param entries: (ESID word, VSID word) pairs for the entries from 0 on.
    :raises SlbRefusedError: for a pair that slbmte would not take.
    """

    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        self.entries: list[SlbEntry | None] = [None] * SLB_ENTRIES
        for index, (esid, vsid) in enumerate(entries):
            if esid & ESID_V:
                self.slbmte(vsid, esid & ~ESID_INDEX | index)

    def slbmte(self, rs: int, rb: int) -> None:
        """Write an entry.

        :param rs: B, VSID, Ks, Kp, N, L, C, LP.
        :param rb: ESID, V, index.
        :raises SlbRefusedError: for an index of 32 or more, reserved bits, B above 1, or L and LP of no page size.
        """
        index, segment = rb & ESID_INDEX, segment_of(rs)
        if index >= SLB_ENTRIES:
            raise SlbRefusedError(f"SLB entry {index}: POWER9 has {SLB_ENTRIES}; give an index below that")
        if rb & ~(ESIDS[28] | ESID_V | ESID_INDEX):
            raise SlbRefusedError(f"SLB entry {index}: ESID word {rb:#x} has reserved bits; clear all but ESID and V")
        if segment is None:
            raise SlbRefusedError(
                f"SLB entry {index}: VSID word {rs:#x} has no segment or page size of POWER9; use another"
            )
        valid = rb & ESID_V
        self.entries[index] = SlbEntry(rb & ESIDS[segment.shift], segment) if valid else None

    def lookup(self, address: int) -> Segment | None:
        """Return the segment that an effective address lies in; None if no entry has it."""
        for entry in self.entries:
            if entry is not None and entry.esid == address & ESIDS[entry.segment.shift]:
                return entry.segment
        return None

    def slbie(self, rb: int) -> None:
        """Invalidate the entries of a segment.

        :param rb: ESID, class, B. The class is what software knows the entry's to be: it tells an implementation where
            to look for what it has looked up, and no entry is spared by it.
        """
        shift = SEGMENT_SHIFTS.get((rb & SLBIE_B) >> SLBIE_B_SHIFT)
        if shift is None:
            return
        for index, entry in enumerate(self.entries):
            if entry is not None and entry.segment.shift == shift and entry.esid == rb & ESIDS[shift]:
                self.entries[index] = None

    def slbia(self, ih: int = 0) -> None:
        """Invalidate entries by IH: 0, 1, 2 and 6 all but entry 0; 3 those of class 1; 4 all; 7 none."""
        if ih == _IH_NO_ENTRY:
            return
        for index in range(1 if _KEEP_FIRST.get(ih, True) else 0, SLB_ENTRIES):
            entry = self.entries[index]
            if entry is not None and (ih != _IH_CLASS or entry.segment.word & SLB_C):
                self.entries[index] = None

    def slbfee(self, address: int) -> int:
        """Return the VSID word of the segment that an effective address lies in; 0 if there is none."""
        segment = self.lookup(address)
        return 0 if segment is None else segment.word

    def words(self) -> list[tuple[int, int]]:
        """Return (ESID word, VSID word) of all entries, (0, 0) for an invalid one: slbmfee and slbmfev."""
        return [(0, 0) if entry is None else (entry.esid | ESID_V, entry.segment.word) for entry in self.entries]


def slbieg(slbs: Iterable[tuple[int, Slb]], rs: int, rb: int) -> None:
    """Invalidate the entries of a segment in every SLB of a partition.

    :param slbs: each with the LPID that its thread runs.
    :param rs: the LPID, in the low 32 bits; above it the PID, of which an SLB that software writes knows nothing.
    :param rb: as :meth:`Slb.slbie` has it.
    """
    for lpid, slb in slbs:
        if lpid == rs & 0xFFFFFFFF:
            slb.slbie(rb)
