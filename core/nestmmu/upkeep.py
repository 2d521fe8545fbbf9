"""What a host does behind its guest's memory: take pages away, ask which were used, follow which were written.

The source of each order is Linux's ``book3s_64_mmu_radix.c``: ``kvm_unmap_radix``, ``kvm_age_radix``,
``kvm_test_age_radix``, ``kvm_radix_test_clear_dirty``, ``kvmppc_radix_flush_memslot``. A change to what is behind the
memory goes on between :meth:`Guest.begin_invalidation` and :meth:`Guest.end_invalidation`, so that a fault that looked
before it looks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.addresses import HardwareTag, align_down
from nestmmu.invalidation import Flush, FlushKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.guests import Guest
    from nestmmu.mappings import Mapping
    from nestmmu.slots import Slot


def unmap(guest: Guest, address: int) -> bool:
    """Take the host's page behind ``address`` out of every table; tell whether there was one.

    The host's own entry is cleared and flushed first, then every shadow entry that led there.
    """
    return guest.table.remove(align_down(address, guest.base_shift)) is not None


def unmap_range(guest: Guest, start: int, end: int) -> int:
    """Take the host's pages behind [``start``, ``end``) away, and return how many there were."""
    guest.begin_invalidation()
    try:
        return sum(unmap(guest, address) for address in range(start, end, 1 << guest.base_shift))
    finally:
        guest.end_invalidation()


def age(guest: Guest, address: int) -> bool:
    """Tell whether the page at ``address`` was accessed since it was last asked, in any table, and forget it."""
    leaf = guest.table.lookup(address)
    if leaf is None or not leaf.accessed:
        return False
    guest.table.clear_flags(address, accessed=True, dirty=False)
    first = address if guest.habits.ages_asked_frame_only else leaf.page_start
    _clear_shadows(guest, first, leaf, accessed=True, dirty=False)
    return True


def is_young(guest: Guest, address: int) -> bool:
    """Tell whether the page at ``address`` was accessed since :func:`age`; nothing changes.

    The shadows need not be asked: accessed is set in one only where the host's own entry has it.
    """
    leaf = guest.table.lookup(address)
    return leaf is not None and leaf.accessed


def take_dirty(guest: Guest, address: int) -> bool:
    """Tell whether the base page at ``address`` was written since it was last asked, and forget it, in all tables."""
    leaf = guest.table.lookup(address)
    if leaf is None or not leaf.dirty:
        return False
    guest.table.clear_flags(address, accessed=False, dirty=True)
    guest.table.flush(Flush(guest.tag, FlushKind.PAGE, leaf.page_start, leaf.page_shift))
    _clear_shadows(guest, leaf.page_start, leaf, accessed=False, dirty=True)
    return True


def _clear_shadows(guest: Guest, address: int, leaf: Mapping, *, accessed: bool, dirty: bool) -> None:
    """Clear flags in the shadow entries that the reverse map has for the frame of ``address``.

    An entry counts only where the shadow still leads into the page of ``leaf``; setting a flag again is then a fault.
    """
    if not guest.habits.flags_keep_sequence:
        guest.sequence += 1
    for entry in guest.rmap.entries(align_down(address, guest.base_shift) >> guest.base_shift):
        nested = guest.nested.get(entry.tag)
        found = None if nested is None else nested.shadow.lookup(entry.address)
        if nested is None or found is None or align_down(found.output_address, leaf.page_shift) != leaf.target_start:
            continue
        nested.shadow.clear_flags(entry.address, accessed=accessed, dirty=dirty)
        tag = HardwareTag(int(entry.tag)) if guest.habits.flushes_flags_by_assigned_tag else nested.tag
        nested.shadow.flush(Flush(tag, FlushKind.PAGE, found.page_start, found.page_shift))


def dirty_log(guest: Guest, slot: Slot) -> NDArray[np.uint8]:
    """Return which pages of a slot were written since the last time, and begin anew.

    :returns: uint8, a bit a base page from the slot's first, least significant first (as KVM_GET_DIRTY_LOG has it on
        a little-endian host).
    """
    shift = guest.base_shift
    first = slot.base >> shift
    bits = np.zeros(slot.size >> shift, np.uint8)
    for leaf in list(guest.table.table.leaves(slot.base, slot.end)):
        if take_dirty(guest, leaf.page_start):
            start = (leaf.page_start >> shift) - first
            bits[max(start, 0) : start + (1 << leaf.page_shift >> shift)] = 1
    written = guest.dirty & set(range(first, slot.end >> shift))
    bits[[frame - first for frame in written]] = 1
    guest.dirty -= written
    return np.packbits(bits, bitorder="little")


def flush_slot(guest: Guest, slot: Slot) -> None:
    """Take every page of a slot out of every table; a fault that read the slot before tries again."""
    for leaf in list(guest.table.table.leaves(slot.base, slot.end)):
        unmap(guest, leaf.page_start)
    guest.sequence += 1


def replace_slot(guest: Guest, old: Slot | None, new: Slot | None) -> None:
    """Create (``old`` is None), delete (``new`` is None), move or change a slot.

    What was mapped through the old one is gone afterwards, from the reverse map too.

    :raises NestmmuError: if the new one is no range of addresses, or overlaps another; nothing is changed then.
    """
    if old is not None:
        guest.slots.remove(old)
    try:
        if new is not None:
            guest.slots.add(new)
    except Exception:
        if old is not None:
            guest.slots.add(old)
        raise
    if old is not None:
        flush_slot(guest, old)
        for frame in range(old.base >> guest.base_shift, old.end >> guest.base_shift):
            guest.rmap.take(frame)


def set_dirty_log(guest: Guest, slot: Slot, *, on: bool) -> Slot:
    """Begin or end to follow which pages of a slot are written; return the slot as it is then.

    Either way everything is unmapped: base pages while the log is on, large ones again afterwards.
    """
    changed = attrs.evolve(slot, dirty_log=on)
    guest.slots.remove(slot)
    guest.slots.add(changed)
    flush_slot(guest, slot)
    if not on:
        guest.dirty -= set(range(slot.base >> guest.base_shift, slot.end >> guest.base_shift))
    return changed
