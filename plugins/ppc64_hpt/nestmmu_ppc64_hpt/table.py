"""A hash page table in a memory: searched for one virtual page, edited by slot, or read as a whole (5.7.9)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nestmmu.access import Access
from nestmmu.errors import NestmmuError
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT, GuestMemory
from nestmmu_ppc64_hpt.hashing import (
    GROUP,
    HPTE_BYTES,
    HPTE_V_AVPN,
    HPTE_V_B_SHIFT,
    HPTE_V_SECONDARY,
    HPTE_V_VALID,
    LARGEST_ORDER,
    SMALLEST_ORDER,
    VirtualPage,
    group_mask,
    groups,
)
from nestmmu_ppc64_hpt.hpte import R_B_3_0, V_COMMON, to_new, to_old
from nestmmu_ppc64_hpt.pages import actual_shift

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.memory import Memory

_GROUP_BYTES = GROUP * HPTE_BYTES
_MATCH = HPTE_V_AVPN & V_COMMON | HPTE_V_SECONDARY | HPTE_V_VALID
_B_SHIFT = 58
_OFFSET = FRAME_BYTES - 1
_R_BYTE, _C_BYTE = 14, 15
_CHUNK = 1 << 22


class Hit(NamedTuple):
    """An entry that a search found."""

    v: int
    """Doubleword 0, in the older format."""
    r: int
    """Doubleword 1, in the older format."""
    slot: int
    """From 0."""
    page_shift: int
    """Log2 of the actual page."""
    reads: int
    """HPTEs that were read on the way, 1 to 16."""


class HashTable:
    """A table of 2**``order`` bytes.

    :param base: address of the first slot, in bytes.
    :raises NestmmuError: for an order that there is not, or a base that is not aligned to it.
    """

    def __init__(self, memory: Memory, base: int, order: int) -> None:
        if not SMALLEST_ORDER <= order <= LARGEST_ORDER:
            message = f"a hash table of 2**{order} bytes: the order is {SMALLEST_ORDER} to {LARGEST_ORDER}"
            raise NestmmuError(message)
        if base & (1 << SMALLEST_ORDER) - 1:
            message = f"the hash table's base {base:#x} is not a multiple of 2**{SMALLEST_ORDER}"
            raise NestmmuError(message)
        self.memory = memory
        self.base = base
        self.order = order
        self.mask = group_mask(order)
        self.slots = 1 << order - 4
        self._unpack = struct.Struct(">16Q").unpack_from
        physical = memory.physical
        self._frames = physical.readable_frames() if memory is physical else {}

    def group(self, index: int) -> tuple[int, ...]:
        """Return the 16 doublewords of a PTEG, as they are in memory.

        :param index: of its first slot.
        :raises OutsideMemoryError: or a Fault, if it cannot be read.
        """
        at = self.base + index * HPTE_BYTES
        frame = self._frames.get(at >> FRAME_SHIFT)
        if frame is not None:
            return self._unpack(frame, at & _OFFSET)
        return self._unpack(self.memory.read(at, _GROUP_BYTES), 0)

    def search(self, page: VirtualPage) -> Hit | None:
        """Look for a virtual page in its primary, then in its secondary PTEG (5.7.9.2); the first match counts.

        An entry of another base page matches nothing.
        """
        vsid, offset, segment, base = page
        wanted, b = _wanted(vsid, offset, segment, base)
        primary, secondary = groups(page.hash, self.mask)
        found = self._scan(primary, wanted, b, base, 0)
        return found or self._scan(secondary, wanted | HPTE_V_SECONDARY, b, base, GROUP)

    def _scan(self, index: int, wanted: int, b: int, base_shift: int, before: int) -> Hit | None:
        words = self.group(index)
        for slot in range(0, 2 * GROUP, 2):
            if not (words[slot] ^ wanted) & _MATCH and (words[slot + 1] & R_B_3_0) == b:
                v, r = to_old(words[slot], words[slot + 1])
                shift = actual_shift(base_shift, v, r)
                if shift is not None:
                    return Hit(v, r, index + slot // 2, shift, before + slot // 2 + 1)
        return None

    def read(self, index: int) -> tuple[int, int]:
        """Return both doublewords of a slot in the older format."""
        raw = self.memory.read(self.base + index * HPTE_BYTES, HPTE_BYTES)
        return to_old(int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big"))

    def write(self, index: int, v: int, r: int) -> None:
        """Store a slot, given in the older format."""
        v, r = to_new(v, r)
        self.memory.write(self.base + index * HPTE_BYTES, v.to_bytes(8, "big") + r.to_bytes(8, "big"))

    def set_reference(self, index: int, r: int) -> None:
        """Set R as hardware does: by a store of one byte, the rest of it as it was read."""
        self._store_byte(index, _R_BYTE, r >> 8 & 0xFF | 1)

    def set_change(self, index: int, r: int) -> None:
        """Set C, likewise."""
        self._store_byte(index, _C_BYTE, r & 0xFF | 0x80)

    def _store_byte(self, index: int, byte: int, value: int) -> None:
        at = self.base + index * HPTE_BYTES + byte
        if isinstance(self.memory, GuestMemory):
            self.memory.physical.write(self.memory.locate(at, Access.STORE), bytes([value]))
        else:
            self.memory.write(at, bytes([value]))

    def entries(self) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64]]:
        """Return (index, v, r) of every valid entry, in the older format, in order; shapes (n,).

        The table is read in pieces: memory is bounded by the entries that there are.

        :raises OutsideMemoryError: if the table reaches beyond the memory.
        """
        found: list[tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64]]] = []
        for start in self._pieces():
            size = min(_CHUNK, (1 << self.order) - start)
            words = np.frombuffer(self.memory.read(self.base + start, size), ">u8").reshape(-1, 2)
            chosen = np.flatnonzero(words[:, 0] & np.uint64(HPTE_V_VALID))
            v, r = words[chosen, 0].astype(np.uint64), words[chosen, 1].astype(np.uint64)
            found.append((chosen + start // HPTE_BYTES, v, r))
        index = np.concatenate([one[0] for one in found]) if found else np.empty(0, np.int64)
        v = np.concatenate([one[1] for one in found]) if found else np.empty(0, np.uint64)
        r = np.concatenate([one[2] for one in found]) if found else np.empty(0, np.uint64)
        b = (r & np.uint64(R_B_3_0)) >> np.uint64(_B_SHIFT)
        old_v = v & np.uint64(V_COMMON) | b << np.uint64(HPTE_V_B_SHIFT)
        return index, old_v, r & np.uint64(~R_B_3_0 & (1 << 64) - 1)

    def _pieces(self) -> range:
        self.memory.read(self.base + (1 << self.order) - HPTE_BYTES, HPTE_BYTES)
        return range(0, 1 << self.order, _CHUNK)


def _wanted(vsid: int, offset: int, segment: int, base: int) -> tuple[int, int]:
    """Return (AVPN and V of doubleword 0, B of doubleword 1) in ISA 3.0's format."""
    page = vsid << segment | offset >> base << base
    return page >> 23 << 7 & HPTE_V_AVPN & V_COMMON | HPTE_V_VALID, (segment > 28) << _B_SHIFT  # noqa: PLR2004
