"""H_RESIZE_HPT_PREPARE and H_RESIZE_HPT_COMMIT: a table of another size, with what was bolted.

Source: Linux's ``book3s_64_mmu_hv.c``; H_RESOURCE: QEMU's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.errors import OutOfPagesError
from nestmmu_ppc64_book3s import hcalls
from nestmmu_ppc64_hpt.guest import THERE
from nestmmu_ppc64_hpt.hashing import group_of
from nestmmu_ppc64_hpt.hpte import GROUP_SLOTS, R_RC, V_ABSENT, V_BOLTED, V_SECONDARY, V_VALID
from nestmmu_ppc64_hpt.table import LARGEST_ORDER, SMALLEST_ORDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu_ppc64_hpt.guest import HashGuest
    from nestmmu_ppc64_hpt.hcalls import Reply
    from nestmmu_ppc64_hpt.table import HashTable


class HashResize:
    """The resizing of one guest's table.

    :param make: returns an empty table of an order.
    :param suggested: the order for all of the guest's memory; one above it is the largest that is granted.
    """

    def __init__(self, guest: HashGuest, make: Callable[[int], HashTable], suggested: int = LARGEST_ORDER) -> None:
        self.guest = guest
        self.make = make
        self.suggested = suggested
        self.prepared: HashTable | None = None
        self._pending: int | None = None

    def prepare(self, flags: int, shift: int) -> Reply:
        """Do H_RESIZE_HPT_PREPARE: busy once, then done; a shift of 0 cancels."""
        if self.guest.radix:
            return (hcalls.H_AUTHORITY,)
        if flags or (shift and not SMALLEST_ORDER <= shift <= LARGEST_ORDER):
            return (hcalls.H_PARAMETER,)
        if shift == 0:
            self.prepared = self._pending = None
        if shift > self.suggested + 1:
            return (hcalls.H_RESOURCE,)
        return (self._prepare(shift) if shift else hcalls.H_SUCCESS,)

    def _prepare(self, shift: int) -> int:
        if self.prepared is not None and self.prepared.order == shift:
            return hcalls.H_SUCCESS
        if self._pending != shift:
            self._pending, self.prepared = shift, None
            return hcalls.H_LONG_BUSY_ORDER_100_MSEC
        try:
            self.prepared = self.make(shift)
        except OutOfPagesError:
            return hcalls.H_NO_MEM
        return hcalls.H_SUCCESS

    def commit(self, flags: int, shift: int) -> Reply:
        """Do H_RESIZE_HPT_COMMIT: only what is bolted moves; two such in one new slot are a failure."""
        if self.guest.radix:
            return (hcalls.H_AUTHORITY,)
        if flags:
            return (hcalls.H_PARAMETER,)
        new = self.prepared
        if new is None or new.order != shift:
            return (hcalls.H_CLOSED,)
        self.prepared = self._pending = None
        views: dict[int, int] = {}
        for slot, v, r in list(self.guest.table.valid(THERE)):
            if v & V_BOLTED and not self._move(slot, v, r, new, views):
                return (hcalls.H_PTEG_FULL,)
        self.guest.table, self.guest.guest_view = new, views
        self.guest.flush(-1)
        for state in self.guest.frames.values():
            state.slots.clear()
        return (hcalls.H_SUCCESS,)

    def _move(self, slot: int, v: int, r: int, new: HashTable, views: dict[int, int]) -> bool:
        """Put an entry where the new table has it, absent; False if another is there."""
        view = self.guest.guest_view.get(slot, r) | r & R_RC
        page = self.guest.table.page(slot, v, view)
        if page is None:
            return True
        group = group_of(page.segment.hash(page.offset), new.group_mask, secondary=bool(v & V_SECONDARY))
        place = group * GROUP_SLOTS + slot % GROUP_SLOTS
        if new.read(place)[0] & THERE:
            return False
        new.write(place, v & ~V_VALID | V_ABSENT, view)
        views[place] = view
        return True
