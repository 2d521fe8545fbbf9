"""H_REGISTER_PROC_TBL: L1 says where its process table is, and by that whether it translates by radix or by hash.

User space has the hypercall (QEMU's ``h_register_process_table``) and gives what it made of it to the kernel
(``kvmhv_configure_mmu``), which switches the VM from one translation to the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.invalidation import Flush, FlushKind
from nestmmu.points import Point
from nestmmu_ppc64_book3s import hcalls
from nestmmu_ppc64_book3s.partition import LARGEST_TABLE_FIELD, PATE_GR, PRTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.addresses import HardwareTag
    from nestmmu.nested_guests import NestedGuests
    from nestmmu.points import Steps
    from nestmmu_ppc64_radix.kvm import KvmGuest, KvmHv, KvmNestedGuest

FLAG_GTSE, FLAG_SEGMENT_TABLES, FLAG_RADIX, FLAG_REGISTER, FLAG_MODIFY = 0x01, 0x02, 0x04, 0x08, 0x10
FLAGS = FLAG_GTSE | FLAG_SEGMENT_TABLES | FLAG_RADIX | FLAG_REGISTER | FLAG_MODIFY
_RADIX_BASE_BITS, _HASH_BASE_BITS = 60, 38
_HASH_BASE_SHIFT, _PAGE_SIZE_SHIFT = 25, 5
_PAGE_SIZES = 7
EINVAL, EBUSY = -22, -16
_CODES = {0: hcalls.H_SUCCESS, EINVAL: hcalls.H_PARAMETER}


def process_table_word(flags: int, base: int, page_size: int, size: int, current: int) -> int:
    """Return doubleword 1 of the PATE that the hypercall's arguments ask for, or a return code below zero.

    :param base: of the process table in bytes; with a hash guest's segment tables, in units of 2**25.
    :param current: the doubleword as it is.
    """
    if flags & ~FLAGS:
        return hcalls.H_PARAMETER
    if not flags & FLAG_MODIFY:
        return current if bool(flags & FLAG_RADIX) == bool(current & PATE_GR) else hcalls.H_PARAMETER
    if not flags & FLAG_REGISTER:
        return current & PATE_GR
    refused: tuple[tuple[int, int], ...]
    if flags & FLAG_RADIX:
        refused = ((base & 0xFFF or base >> _RADIX_BASE_BITS, hcalls.H_P2), (page_size, hcalls.H_P3))
        word = PATE_GR | base | size
    elif flags & FLAG_SEGMENT_TABLES:
        return hcalls.H_PARAMETER
    else:
        refused = ((base >> _HASH_BASE_BITS, hcalls.H_P2), (page_size & ~_PAGE_SIZES, hcalls.H_P3))
        word = base << _HASH_BASE_SHIFT | page_size << _PAGE_SIZE_SHIFT | size
    refused = (*refused, (size > LARGEST_TABLE_FIELD, hcalls.H_P4))
    return next((code for wrong, code in refused if wrong), word)


class MmuModes:
    """The translation of one L1, which it may change.

    :param nested: its L2s; a hash L1 has none.
    :param hash_pate: makes the PATE's doubleword 0 of a hash L1, its hash table made anew; None: L0 has no hash tables.
    :param nested_host: whether L0 is a guest itself: such a one has only radix guests.
    """

    def __init__(
        self,
        host: KvmHv,
        guest: KvmGuest,
        nested: NestedGuests[KvmNestedGuest],
        hash_pate: Callable[[HardwareTag], int] | None = None,
        *,
        nested_host: bool = False,
    ) -> None:
        self.host = host
        self.guest = guest
        self.nested = nested
        self.hash_pate = hash_pate
        self.nested_host = nested_host
        self.running = 0
        """How many of L1's vcpus are in it: while any is, its translation cannot change."""
        self.guest_tlbie = False
        """LPCR[GTSE]: whether L1 may invalidate translations itself."""

    def register(self, flags: int, base: int, page_size: int, size: int) -> Steps[int]:
        """Do H_REGISTER_PROC_TBL, r4 to r7, and return its code."""
        word = process_table_word(flags, base, page_size, size, self.guest.process_table)
        if word < 0:
            return word
        deregisters = flags & (FLAG_MODIFY | FLAG_REGISTER) == FLAG_MODIFY
        radix = bool(word & PATE_GR) if deregisters else bool(flags & FLAG_RADIX)
        code = yield from self.configure(word, radix=radix, guest_tlbie=bool(flags & FLAG_GTSE))
        return _CODES.get(code, hcalls.H_HARDWARE)

    def configure(self, word: int, *, radix: bool, guest_tlbie: bool) -> Steps[int]:
        """Set doubleword 1 of L1's PATE, its translation and GTSE (``kvmhv_configure_mmu``).

        :returns: 0, -EINVAL or -EBUSY; nothing has changed then.
        """
        if bool(word & PATE_GR) != radix or word & PRTS > LARGEST_TABLE_FIELD:
            return EINVAL
        if not radix and (self.nested_host or self.hash_pate is None):
            return EINVAL
        if radix != self.guest.radix:
            if self.running:
                return EBUSY
            yield from self._switch(radix=True) if radix else self._to_hash()
        self.guest.process_table = word
        self._set_pate()
        self.guest_tlbie = guest_tlbie
        return 0

    def _to_hash(self) -> Steps[None]:
        """Drop all that is radix: every L2, the reverse map, L0's tree (``kvmppc_switch_mmu_to_hpt``)."""
        guest = self.guest
        yield from self.nested.release_all()
        yield from self._switch(radix=False)
        guest.table.clear_tree()
        guest.table.flush(Flush(guest.tag, FlushKind.TAG))

    def _switch(self, *, radix: bool) -> Steps[None]:
        """Change the translation under the lock: who unmaps for the one must not meet the other."""
        guest = self.guest
        guest.rmap.clear()
        yield Point.LOCK
        guest.radix = radix
        guest.sequence += 1
        yield Point.UNLOCK

    def _set_pate(self) -> None:
        host, guest = self.host, self.guest
        if guest.radix:
            host.set_up_pate(guest)
        elif self.hash_pate is not None and host.ptcr:
            host.set_pate(guest.tag, self.hash_pate(guest.tag), guest.process_table)
