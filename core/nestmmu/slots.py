"""Memory slots: which of a guest's addresses are memory, and what its host keeps behind them."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Protocol

import attrs

from nestmmu.access import ALL_PERMISSIONS, Access
from nestmmu.addresses import ADDRESS_LIMIT, align_down, low_mask
from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.mappings import Mapping
from nestmmu.memory import FRAME_SHIFT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@attrs.frozen
class Slot:
    """A range of a guest's addresses that is memory; the rest is for devices."""

    base: int
    """First address, in bytes."""
    size: int
    """In bytes."""
    read_only: bool = False
    dirty_log: bool = False
    """Whether the host follows which pages are written: only base pages are mapped then."""
    name: str = ""

    @property
    def end(self) -> int:
        """The first address after the slot."""
        return self.base + self.size


@attrs.frozen
class HostPage:
    """What a host keeps behind an address of a guest."""

    address: int
    """Where that very address is, in the host's memory, in bytes."""
    page_shift: int
    """Log2 of the bytes around it that are contiguous and aligned in the host's memory."""
    writable: bool = True


class Backing(Protocol):
    """The host's memory management: finds, or makes, the page behind a guest's address."""

    def page(self, slot: Slot, address: int, *, write: bool) -> HostPage | None:
        """Return the page behind ``address``, which lies in ``slot``; None if the host has none to give."""
        ...


@attrs.frozen
class LinearBacking:
    """A backing that keeps a guest's memory in one piece, at a fixed distance."""

    offset: int
    """What to add to a guest's address, in bytes."""
    page_shift: int
    writable: bool = True

    def page(self, slot: Slot, address: int, *, write: bool) -> HostPage | None:
        """Return the page behind ``address``; None for a write to what cannot be written."""
        del slot
        if write and not self.writable:
            return None
        return HostPage(address + self.offset, self.page_shift, self.writable)


class Slots:
    """The memory slots of one guest, by address."""

    def __init__(self, slots: tuple[Slot, ...] = ()) -> None:
        self._bases: list[int] = []
        self._slots: list[Slot] = []
        for slot in slots:
            self.add(slot)

    def __iter__(self) -> Iterator[Slot]:
        """Iterate over the slots by address."""
        return iter(self._slots)

    def add(self, slot: Slot) -> None:
        """Add a slot.

        :raises NestmmuError: if it is empty, overlaps another, or ends beyond 2**64.
        """
        if slot.size <= 0 or slot.base < 0 or slot.end > ADDRESS_LIMIT:
            message = f"a slot of {slot.size:#x} bytes at {slot.base:#x} is not a range of addresses"
            raise NestmmuError(message)
        at = bisect.bisect(self._bases, slot.base)
        after = self._slots[at] if at < len(self._slots) else None
        before = self._slots[at - 1] if at else None
        if (before and before.end > slot.base) or (after and slot.end > after.base):
            message = f"the slot at {slot.base:#x} overlaps another"
            raise NestmmuError(message)
        self._bases.insert(at, slot.base)
        self._slots.insert(at, slot)

    def remove(self, slot: Slot) -> None:
        """Remove a slot that was added."""
        at = self._slots.index(slot)
        del self._slots[at], self._bases[at]

    def find(self, address: int) -> Slot | None:
        """Return the slot that holds ``address``, or None."""
        at = bisect.bisect(self._bases, address) - 1
        if at < 0 or address >= self._slots[at].end:
            return None
        return self._slots[at]


class SlotTranslator:
    """A guest's memory as its host's software finds it: by slot and backing, whatever any table says.

    :param granule_shift: log2 of the smallest page that the backing gives, and of what slots are aligned to.
    """

    def __init__(self, slots: Slots, backing: Backing, granule_shift: int = FRAME_SHIFT) -> None:
        self.slots = slots
        self.backing = backing
        self.granule_shift = granule_shift

    def locate(self, address: int, access: Access) -> int:
        """Return where ``address`` is in the host's memory.

        :raises OutsideMemoryError: if it is in no slot, may not be written, or the host has no page for it.
        """
        slot, store = self.slots.find(address), access is Access.STORE
        page = None
        if slot is not None and not (store and slot.read_only):
            page = self.backing.page(slot, address, write=store)
        if page is None:
            raise OutsideMemoryError(address, 1)
        return page.address

    def locator(self) -> Callable[[int, Access], int]:
        """Return :meth:`locate`."""
        return self.locate

    def translate(self, address: int, access: Access) -> Mapping:
        """Return :meth:`locate` as a mapping of the smallest page."""
        target = self.locate(address, access)
        return Mapping(address, target, self.granule_shift, ALL_PERMISSIONS, accessed=True, dirty=True)


def congruent(address: int, target: int, shift: int) -> bool:
    """Tell whether ``address`` and ``target`` lie alike in a page of 2**shift bytes."""
    return (address ^ target) & low_mask(shift) == 0


def fits(slot: Slot, address: int, shift: int) -> bool:
    """Tell whether the page of 2**shift bytes around ``address`` lies inside ``slot``."""
    start = align_down(address, shift)
    return slot.base <= start and start + (1 << shift) <= slot.end
