"""A hash page table in a memory: searched as hardware does, read and changed entry by entry as software does.

Entries are seen in the older format, whatever the table has: ``v`` and ``r`` are the doublewords.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from nestmmu.access import Access
from nestmmu.addresses import low_mask
from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.faults import Fault, FaultKind
from nestmmu.mappings import Mapping
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT, PhysicalMemory
from nestmmu_ppc64_hpt.hashing import HASH_MASK, Segment, VirtualPage, page_at, segment_of, vsid_word
from nestmmu_ppc64_hpt.hpte import (
    C_BYTE,
    GROUP_SLOTS,
    HPTE_BYTES,
    ISA_3_0,
    R_BYTE,
    R_C,
    R_R,
    R_SSIZE_SHIFT,
    R_WIMG,
    V_COMMON,
    V_SECONDARY,
    V_SSIZE_SHIFT,
    V_VALID,
    HpteFormat,
    real_page,
)
from nestmmu_ppc64_hpt.pages import SHIFT_4K, actual_shift
from nestmmu_ppc64_hpt.protection import execute_permissions, page_permissions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu.memory import Memory

STAGE = "hash"
SMALLEST_ORDER, LARGEST_ORDER = 18, 46
"""Log2 of the bytes of a table."""
GROUP_SHIFT = 7
"""Log2 of the bytes of a PTEG."""
GROUP_BYTES = 1 << GROUP_SHIFT
SEARCHED = 2 * GROUP_SLOTS
"""The entries that a search reads which finds none."""

_GROUP = struct.Struct(">16Q")
_ENTRY = struct.Struct(">2Q")


class FoundHpte(NamedTuple):
    """What a search found."""

    slot: int
    """Entry number in the table."""
    v: int
    r: int
    page_shift: int
    """Log2 of the actual page's bytes."""
    references: int
    """Entries read, this one included: 1 to 16 by its place in the primary and then the secondary PTEG."""

    def output(self, address: int) -> int:
        """Return the real address that ``address`` leads to."""
        return real_page(self.r, self.page_shift) | address & (1 << self.page_shift) - 1


def order_of(size_field: int) -> int:
    """Return log2 of the bytes of a table by HTABSIZE."""
    return size_field + SMALLEST_ORDER


class HashTable:
    """A hash page table.

    :param memory: where it lies.
    :param base: its first byte; a multiple of 256 KiB, whatever its size, as CPUs from ISA 2.06 on have it.
    :param order: log2 of its bytes.
    :param form: how it keeps its entries.
    :raises NestmmuError: for an order below 18 or above 46, a base that is not aligned, or a table beyond the memory.
    """

    def __init__(self, memory: Memory, base: int, order: int, form: HpteFormat = ISA_3_0) -> None:
        if not SMALLEST_ORDER <= order <= LARGEST_ORDER:
            raise NestmmuError(f"a hash page table of order {order}: give one from {SMALLEST_ORDER} to {LARGEST_ORDER}")
        if base & low_mask(SMALLEST_ORDER):
            raise NestmmuError(f"a hash page table at {base:#x}: align it to {1 << SMALLEST_ORDER:#x} bytes")
        if isinstance(memory, PhysicalMemory) and base + (1 << order) > memory.size:
            raise NestmmuError(
                f"a hash page table of 2**{order} bytes at {base:#x} ends beyond the memory of {memory.size:#x} bytes: "
                f"make it smaller"
            )
        self.memory = memory
        self.base = base
        self.order = order
        self.form = form
        self.group_mask = (1 << order - GROUP_SHIFT) - 1
        self.slots = 1 << order - GROUP_SHIFT + 3
        """How many entries there are."""
        self._v_compared, self._r_compared = form.v_compared, form.r_compared
        self._read = memory.read
        self._frames = memory.readable_frames() if isinstance(memory, PhysicalMemory) else {}

    def search(self, segment: Segment, address: int) -> FoundHpte | None:
        """Return the first entry that maps an address of a segment, primary PTEG first, as hardware has it; or None.

        :param address: effective or virtual, in bytes.
        """
        hashed, wanted = segment.hash(address), segment.match(address)
        r_compared = self._r_compared
        r_wanted = 0
        if r_compared:
            r_wanted = wanted >> V_SSIZE_SHIFT << R_SSIZE_SHIFT
            wanted &= (1 << V_SSIZE_SHIFT) - 1
            if wanted > V_COMMON:
                return None
        v_compared = self._v_compared
        base_shift, frames = segment.base_shift, self._frames
        group = hashed & self.group_mask
        for before in (0, GROUP_SLOTS):
            at = self.base + (group << GROUP_SHIFT)
            frame = frames.get(at >> FRAME_SHIFT)
            if frame is None:
                words = _GROUP.unpack(self._read(at, GROUP_BYTES))
            else:
                words = _GROUP.unpack_from(frame, at & FRAME_BYTES - 1)
            for word in range(0, 2 * GROUP_SLOTS, 2):
                v = words[word]
                if v & v_compared == wanted:
                    r = words[word + 1]
                    if r & r_compared != r_wanted:
                        continue
                    v, r = self.form.loaded(v, r)
                    shift = actual_shift(base_shift, v, r)
                    if shift is not None:
                        place = word >> 1
                        return FoundHpte(group << 3 | place, v, r, shift, before + place + 1)
            wanted |= V_SECONDARY
            group = ~hashed & HASH_MASK & self.group_mask
        return None

    def candidates(self, segment: Segment, address: int) -> tuple[int, int]:
        """Return the first slots of the primary and the secondary PTEG of an address."""
        group = segment.hash(address) & self.group_mask
        return group * GROUP_SLOTS, (~group & self.group_mask) * GROUP_SLOTS

    def lookup(
        self, address: int, access: Access = Access.LOAD, *,
        base_shift: int = SHIFT_4K, segment_shift: int = 28, key: bool = False,
    ) -> Mapping:  # fmt: skip
        """Return the mapping of a virtual address, whatever it permits; nothing is updated.

        :param base_shift: log2 of the base page's bytes, and of the segment's: they are hashed with.
        :param key: the storage key, for the permissions.
        :raises Fault: NOT_PRESENT if there is none, UNREADABLE where the table cannot be read.
        """
        segment = segment_of(vsid_word(address >> segment_shift, segment_shift, base_shift))
        if segment is None:
            raise Fault(FaultKind.MALFORMED, STAGE, access, address)
        try:
            found = self.search(segment, address)
        except OutsideMemoryError:
            raise Fault(FaultKind.UNREADABLE, STAGE, access, address) from None
        if found is None:
            raise Fault(FaultKind.NOT_PRESENT, STAGE, access, address)
        return self._mapping(found.slot, found.r, found.page_shift, address, key=key)

    def _mapping(self, slot: int, r: int, page_shift: int, address: int, *, key: bool = False) -> Mapping:
        permissions = page_permissions(r, key=key) & execute_permissions(r)
        return Mapping(
            address, real_page(r, page_shift) | address & low_mask(page_shift), page_shift, permissions,
            accessed=bool(r & R_R), dirty=bool(r & R_C), attributes=r & R_WIMG, entry_address=self.slot_address(slot),
            entry=r,
        )  # fmt: skip

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[Mapping]:
        """Yield the page of every valid entry that maps virtual addresses in [``start``, ``end``), slot by slot.

        See :func:`~nestmmu_ppc64_hpt.enumeration.enumerate_table` for all of a table at once.
        """
        for slot, v, r in self.valid():
            page = self.page(slot, v, r)
            if (
                page is None
                or page.address + (1 << page.page_shift) <= start
                or (end is not None and page.address >= end)
            ):
                continue
            yield self._mapping(slot, r, page.page_shift, page.address)

    def valid(self, bits: int = V_VALID) -> Iterator[tuple[int, int, int]]:
        """Yield (slot, v, r) of the entries that have any of ``bits``, in frames that were ever written, by slot."""
        from nestmmu_ppc64_hpt.enumeration import kept_pieces  # noqa: PLC0415  (numpy, and only for whole tables)

        for first, data in kept_pieces(self):
            for offset, (v, r) in enumerate(_ENTRY.iter_unpack(data)):
                if v & bits:
                    yield first + offset, *self.form.loaded(v, r)

    def page(self, slot: int, v: int, r: int) -> VirtualPage | None:
        """Return the page that an entry maps; None if it has no page size."""
        return page_at(slot, v, r, self.group_mask)

    def slot_address(self, slot: int) -> int:
        """Return where an entry lies, in bytes."""
        return self.base + slot * HPTE_BYTES

    def read(self, slot: int) -> tuple[int, int]:
        """Return (v, r) of an entry."""
        return self.form.loaded(*_ENTRY.unpack(self._read(self.slot_address(slot), HPTE_BYTES)))

    def write(self, slot: int, v: int, r: int) -> None:
        """Store an entry, doubleword 1 first: whoever sees it valid sees all of it."""
        first, second = self.form.stored(v, r)
        at = self.slot_address(slot)
        self.memory.store(at + 8, second, 8, "big")
        self.memory.store(at, first, 8, "big")

    def write_v(self, slot: int, v: int) -> None:
        """Store doubleword 0 alone; its segment size, in doubleword 1 of ISA 3.0's format, stays."""
        self.memory.store(self.slot_address(slot), v & self.form.v_kept, 8, "big")

    def clear(self, slot: int) -> None:
        """Make an entry invalid."""
        self.write_v(slot, 0)

    def free_slot(self, first: int, taken: int = V_VALID) -> int | None:
        """Return the first slot of a PTEG whose entry has none of the bits ``taken``; None if it is full.

        :param first: the PTEG's first slot.
        """
        words = _GROUP.unpack(self._read(self.slot_address(first), GROUP_BYTES))
        return next((first + place for place in range(GROUP_SLOTS) if not words[2 * place] & taken), None)

    def set_flags(self, slot: int, r: int, *, reference: bool, change: bool) -> None:
        """Set R, and C, by the byte stores of hardware.

        :param r: doubleword 1 as it was read.
        """
        at = self.slot_address(slot)
        if reference:
            self.memory.store(at + R_BYTE, (r | R_R) >> 8 & 0xFF, 1, "big")
        if change:
            self.memory.store(at + C_BYTE, (r | R_C) & 0xFF, 1, "big")

    def clear_reference(self, slot: int, r: int) -> None:
        """Clear R by a byte store, so that no C is lost that hardware sets meanwhile (``kvmppc_clear_ref_hpte``)."""
        self.memory.store(self.slot_address(slot) + R_BYTE, (r & ~R_R) >> 8 & 0xFF, 1, "big")
