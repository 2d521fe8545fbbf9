"""The shadow hash table of a nested hash guest, for the core's fault loop and reverse map.

Where an entry goes is a placement's to say: the very slot that it has in the guest hypervisor's table, or wherever the
hash of a virtual segment that the host chose leads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from nestmmu.edit import Insertion, Place
from nestmmu.invalidation import Flush, FlushKind
from nestmmu_ppc64_hpt.hashing import segment_of, tlbie_groups, tlbie_rb, vsid_word
from nestmmu_ppc64_hpt.hpte import GROUP_SLOTS, HPTE_BYTES, R_C, R_R, V_SECONDARY, V_VALID, real_page
from nestmmu_ppc64_hpt.pages import PENC, SHIFT_4K, page_pair
from nestmmu_ppc64_hpt.protection import is_writable
from nestmmu_ppc64_hpt.virtual import leaf, page_number, segment_and_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nestmmu.addresses import HardwareTag
    from nestmmu.allocator import PageAllocator
    from nestmmu.mappings import Mapping
    from nestmmu_ppc64_hpt.hashing import Segment
    from nestmmu_ppc64_hpt.table import FoundHpte, HashTable

_WORD = (1 << 64) - 1
_V_AT, _SLOT_AT = 64, 128


def pack(slot: int, v: int, r: int) -> int:
    """Return an entry and the slot that it has in the guest hypervisor's table as one number."""
    return slot << _SLOT_AT | v << _V_AT | r


def unpack(entry: int) -> tuple[int, int, int]:
    """Return (slot, v, r) of what :func:`pack` made."""
    return entry >> _SLOT_AT, entry >> _V_AT & _WORD, entry & _WORD


class Placement(Protocol):
    """Where entries of the shadow go."""

    def segment(self, segment: Segment) -> Segment:
        """Return the segment that hardware has to search with, for one of the nested guest."""
        ...

    def original(self, vsid: int, segment_shift: int) -> int | None:
        """Return the nested guest's VSID for one that hardware searches with; None for one that is no one's."""
        ...

    def place(self, table: HashTable, segment: Segment, address: int, wanted: int) -> tuple[int, bool]:
        """Return (slot, whether it is in the secondary PTEG) for an entry; what is there gives way.

        :param wanted: its slot in the guest hypervisor's table.
        """
        ...


class SameSlot:
    """One to one: slot i of the guest hypervisor's table is slot i of the shadow, which is as large (3.9, X1)."""

    def segment(self, segment: Segment) -> Segment:
        """Return the segment itself."""
        return segment

    def original(self, vsid: int, segment_shift: int) -> int | None:
        """Return the VSID itself."""
        del segment_shift
        return vsid

    def place(self, table: HashTable, segment: Segment, address: int, wanted: int) -> tuple[int, bool]:
        """Return the slot in the guest hypervisor's table."""
        primary, _ = table.candidates(segment, address)
        return wanted, wanted // GROUP_SLOTS != primary // GROUP_SLOTS


class MappedSegments:
    """A table of the host's own size, under VSIDs that the host chose (3.8, S1 and S3).

    :param first: the lowest VSID that the host gives away; ``count``: how many it has.
    :param exhausted: called when all are given away: everything in the shadow has to go.
    """

    SLOTS = 512

    def __init__(self, first: int, count: int, exhausted: Callable[[], None] | None = None) -> None:
        self.first = first
        self.count = count
        self.exhausted = exhausted
        self._next = 0
        self._mirror = False
        self._slots: list[tuple[int, int, int] | None] = [None] * self.SLOTS

    @staticmethod
    def fold(vsid: int) -> int:
        """Return the slot that a VSID falls to: its pieces of nine bits, XORed (``kvmppc_sid_hash``)."""
        slot = 0
        while vsid:
            slot ^= vsid & 0x1FF
            vsid >>= 9
        return slot

    def mapped(self, vsid: int, segment_shift: int) -> int:
        """Return the host's VSID for a guest's, a new one where there is none."""
        slot = self.fold(vsid)
        for one in (slot, self.SLOTS - 1 - slot):
            found = self._slots[one]
            if found is not None and found[:2] == (vsid, segment_shift):
                return found[2]
        if self._next == self.count:
            self.forget()
            if self.exhausted is not None:
                self.exhausted()
        chosen = self.first + self._next
        self._next += 1
        self._mirror = not self._mirror
        self._slots[self.SLOTS - 1 - slot if self._mirror else slot] = (vsid, segment_shift, chosen)
        return chosen

    def forget(self) -> None:
        """Take every VSID back."""
        self._next = 0
        self._slots = [None] * self.SLOTS

    def segment(self, segment: Segment) -> Segment:
        """Return the segment under the host's VSID."""
        word = vsid_word(
            self.mapped(segment.vsid, segment.shift), segment.shift, segment.base_shift, segment.word & 0xE80
        )
        found = segment_of(word)
        if found is None:
            message = f"segment {word:#x} is none"
            raise ValueError(message)
        return found

    def original(self, vsid: int, segment_shift: int) -> int | None:
        """Return the guest's VSID for one of the host's, None for one that is not given away any more."""
        known = (one for one in self._slots if one is not None)
        return next((one[0] for one in known if one[1:] == (segment_shift, vsid)), None)

    def place(self, table: HashTable, segment: Segment, address: int, wanted: int) -> tuple[int, bool]:
        """Return a slot that is free in the primary, then in the secondary PTEG; else one that gives way."""
        primary, secondary = table.candidates(segment, address)
        for first in (primary, secondary):
            free = table.free_slot(first)
            if free is not None:
                return free, first == secondary
        return primary + wanted % GROUP_SLOTS, False


class HashShadow:
    """A shadow table; see :class:`~nestmmu.shadow.ShadowTable`. Addresses are numbers of virtual pages.

    :param hash_table: where entries are kept, in the host's memory.
    :param tell: gives an invalidation to the hardware, by virtual address.
    """

    depths = dict.fromkeys([SHIFT_4K, *(actual for _, actual in PENC)], 0)
    """Every page size goes to the one level that there is."""

    def __init__(
        self,
        hash_table: HashTable,
        tag: HardwareTag,
        tell: Callable[[Flush], None],
        placement: Placement | None = None,
        allocator: PageAllocator | None = None,
    ) -> None:
        self.hash_table = hash_table
        self.tag = tag
        self.tell = tell
        self.placement: Placement = SameSlot() if placement is None else placement
        self.allocator = allocator
        self.removed: Callable[[Mapping], None] | None = None
        self.heard: Callable[[], bool] | None = None
        self.most: int | None = None
        """How many entries it may have; all go when there would be more (S5)."""
        self.count = 0

    @property
    def table(self) -> HashShadow:
        """The table itself."""
        return self

    def flush(self, flush: Flush) -> None:
        """Give an invalidation to the hardware: a page by the virtual address that hardware has for it."""
        segment, address = segment_and_address(flush.address)
        if flush.kind is FlushKind.PAGE and segment is not None:
            flush = attrs.evolve(flush, address=self.placement.segment(segment).virtual(address))
        self.tell(flush)

    def _find(self, number: int) -> FoundHpte | None:
        segment, address = segment_and_address(number)
        if segment is None:
            return None
        searched = self.placement.segment(segment)
        return self.hash_table.search(searched, address & searched.offset_mask)

    def lookup(self, address: int) -> Mapping | None:
        """Return the entry that maps a number, or None."""
        found = self._find(address)
        if found is None:
            return None
        return leaf(self.hash_table, found.slot, found.r, found.page_shift, address)

    def finder(self) -> Callable[[int], Place | None]:
        """Return a lookup for many numbers."""
        return self._place

    def _place(self, number: int) -> Place | None:
        found = self._find(number)
        if found is None:
            return None
        shift = found.page_shift
        at = self.hash_table.slot_address(found.slot)
        return Place(number >> shift << shift, real_page(found.r, shift), shift, found.r, at)

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[Mapping]:
        """Yield every entry that maps a number in [``start``, ``end``), slot by slot."""
        for slot, v, r in list(self.hash_table.valid()):
            page = self.hash_table.page(slot, v, r)
            vsid = None if page is None else self.placement.original(page.vsid, page.segment_shift)
            if page is None or vsid is None:
                continue
            number = page_number(attrs.evolve(page, vsid=vsid))
            if number + (1 << page.page_shift) > start and (end is None or number < end):
                yield leaf(self.hash_table, slot, r, page.page_shift, number)

    def prepare(self, address: int, depth: int) -> dict[int, int]:
        """Do nothing: all memory that there is was given at the beginning."""
        del address, depth
        return {}

    def release(self, spares: dict[int, int]) -> None:
        """Do nothing."""

    def insert(self, address: int, entry: int, depth: int, spares: dict[int, int]) -> Insertion:
        """Put an entry that :func:`pack` made in place; what is there, or maps the same, is removed and flushed."""
        del depth, spares
        wanted, v, r = unpack(entry)
        segment, virtual = segment_and_address(address)
        pair = page_pair(v, r)
        if segment is None or pair is None:
            return Insertion.AGAIN
        old = self._place(address)
        if old is not None:
            if old.entry == r:
                return Insertion.SAME
            self.remove_place(old)
        if self.most is not None and self.count >= self.most:
            self._drop_all()
        searched = self.placement.segment(segment)
        offset = virtual & searched.offset_mask
        slot, secondary = self.placement.place(self.hash_table, searched, offset, wanted)
        there = self.hash_table.read(slot)
        if there[0] & V_VALID:
            self._evict(slot, *there)
        large = v & ~(V_SECONDARY | V_VALID) & 0x7F
        word = searched.match(offset) | large | (V_SECONDARY if secondary else 0)
        self.hash_table.write(slot, word, r)
        self.count += 1
        return Insertion.ADDED

    def _drop_all(self) -> None:
        for one in list(self.leaves()):
            self.remove(one.input_address)

    def _evict(self, slot: int, v: int, r: int) -> None:
        page = self.hash_table.page(slot, v, r)
        vsid = None if page is None else self.placement.original(page.vsid, page.segment_shift)
        if page is None or vsid is None:
            self.hash_table.clear(slot)
            self.flush(Flush(self.tag, FlushKind.TAG))
            return
        start = page_number(attrs.evolve(page, vsid=vsid))
        target = real_page(r, page.page_shift)
        self.remove_place(Place(start, target, page.page_shift, r, self.hash_table.slot_address(slot)))

    def remove(self, address: int) -> Mapping | None:
        """Remove the entry that maps a number, flush its page, and return it as it was."""
        found, place = self.lookup(address), self._place(address)
        if place is not None:
            self.remove_place(place)
        return found

    def remove_place(self, place: Place) -> None:
        """Remove an entry that was just found, and flush its page."""
        slot = (place.entry_address - self.hash_table.base) // HPTE_BYTES
        self.hash_table.clear(slot)
        self.count -= 1
        self.flush(Flush(self.tag, FlushKind.PAGE, place.start, place.shift))
        if self.removed is not None and (self.heard is None or self.heard()):
            self.removed(leaf(self.hash_table, slot, place.entry, place.shift, place.start))

    def add_flags(self, address: int, *, accessed: bool, dirty: bool) -> bool:
        """Set R or C in the entry of a number; False if there is none, or C is wanted of one that is read-only."""
        found = self._find(address)
        if found is None or (dirty and not is_writable(found.r)):
            return False
        r = found.r | (R_R if accessed else 0) | (R_C if dirty else 0)
        self.hash_table.set_flags(found.slot, r, reference=accessed, change=dirty)
        return True

    def clear_flags(self, address: int, *, accessed: bool, dirty: bool) -> Mapping | None:
        """Remove the entry of a number: hardware would set R and C again where no one saw it (3.9, X7)."""
        del accessed, dirty
        return self.remove(address)

    def invalidate(self, rb: int) -> int:
        """Remove every entry that a tlbie with R=0 names, and return how many there were.

        RB lacks the top of the virtual address, so more than one pair of PTEGs may have to be searched (3.9, X8).

        :raises ValueError: for a page that POWER9 does not have.
        """
        groups = tlbie_groups(rb, self.hash_table.group_mask)
        if groups is None:
            near = self.hash_table.valid()
        else:
            slots = (group * GROUP_SLOTS + place for group in sorted(groups) for place in range(GROUP_SLOTS))
            near = ((slot, *self.hash_table.read(slot)) for slot in slots)
        gone = [one for one in near if one[1] & V_VALID and _tlbie_of(one) == rb]
        for slot, v, r in gone:
            self._evict(slot, v, r)
        return len(gone)

    def clear_tree(self) -> None:
        """Empty the table. The caller flushes."""
        for slot, _, _ in list(self.hash_table.valid()):
            self.hash_table.clear(slot)
        self.count = 0

    def free(self) -> None:
        """Give back the memory of the table."""
        if self.allocator is not None:
            self.allocator.free(self.hash_table.base)


def _tlbie_of(entry: tuple[int, int, int]) -> int | None:
    slot, v, r = entry
    return None if page_pair(v, r) is None else tlbie_rb(v, r, slot)
