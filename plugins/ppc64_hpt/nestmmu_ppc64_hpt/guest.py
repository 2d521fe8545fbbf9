"""A hash guest as KVM keeps it: the real table in the host's memory, and beside each slot what the guest has there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.addresses import HardwareTag
from nestmmu_ppc64_hpt.hashing import tlbie_rb
from nestmmu_ppc64_hpt.hpte import R_C, R_R, R_RC, V_ABSENT, V_VALID

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.memory import Memory
    from nestmmu.slots import Backing, Slots
    from nestmmu_ppc64_hpt.table import HashTable

THERE = V_VALID | V_ABSENT


@attrs.define
class FrameState:
    """What is remembered of a frame of the guest whatever table entries come and go."""

    referenced: bool = False
    changed: bool = False
    slots: set[int] = attrs.field(factory=set)
    """Slots of the table that lead to it."""


class HashGuest:
    """A guest with a hash table in its host's memory.

    :param tag: its LPID.
    :param memory: its own, as the host's software reads it.
    :param base_shift: log2 of the host's base page, by which frames are counted.
    :param flush: called with RB of each tlbie.
    """

    def __init__(
        self,
        tag: HardwareTag,
        table: HashTable,
        memory: Memory,
        slots: Slots,
        backing: Backing,
        base_shift: int,
        flush: Callable[[int], None],
    ) -> None:
        self.tag = tag
        self.table = table
        self.memory = memory
        self.slots = slots
        self.backing = backing
        self.base_shift = base_shift
        self.flush = flush
        self.radix = False
        self.guest_view: dict[int, int] = {}
        """Doubleword 1 of each slot as the guest has it (``guest_rpte``)."""
        self.frames: dict[int, FrameState] = {}
        self.dirty: set[int] = set()
        """Frames that were written since the dirty log was last taken."""
        self.mmio_updates = 0
        """Moves on with every change that could make a remembered device's page wrong."""
        self.sequence = 0

    def frame(self, address: int) -> FrameState:
        """Return what is remembered of the frame of an address."""
        return self.frames.setdefault(address >> self.base_shift, FrameState())

    def invalidate(self, index: int, v: int, r: int) -> None:
        """Do the tlbie of an entry."""
        self.flush(tlbie_rb(v, r, index))

    def harvest(self, index: int, r: int, address: int, bytes_: int) -> int:
        """Note R and C that hardware has set; return doubleword 1 as the guest has it."""
        rc = r & R_RC
        state = self.frame(address)
        state.referenced |= bool(rc & R_R)
        if rc & R_C:
            state.changed = True
            first = address >> self.base_shift
            self.dirty.update(range(first, first + max(bytes_ >> self.base_shift, 1)))
        self.guest_view[index] = self.guest_view.get(index, 0) | rc
        return self.guest_view[index]
