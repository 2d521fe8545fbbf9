"""L0 as KVM HV would be on POWER9 with nested hash guests: radix L1s, whose L2s translate by hash (reference 3.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.errors import NestmmuError
from nestmmu_ppc64_hpt.cpu import hash_table
from nestmmu_ppc64_hpt.nested import HashComposer, HashNestedFaults, Marking
from nestmmu_ppc64_hpt.shadow import HashShadow, Placement, SameSlot
from nestmmu_ppc64_hpt.table import SMALLEST_ORDER, HashTable
from nestmmu_ppc64_hpt.virtual import NumberedTable
from nestmmu_ppc64_radix.kvm import KvmGuest, KvmHv, KvmNestedGuest

if TYPE_CHECKING:
    from nestmmu.addresses import HardwareTag
    from nestmmu.allocator import PageAllocator
    from nestmmu.guests import NestedGuest
    from nestmmu.memory import Memory
    from nestmmu_ppc64_radix.quirks import Quirk


class HashKvmFaults(HashNestedFaults):
    """The ladder of hash tables, each found by L1's partition table."""

    def __init__(self, host: HashKvm, guest: KvmGuest, marking: Marking = Marking.FIRST_STORE) -> None:
        super().__init__(guest, HashComposer(marking), host.tell)
        self.host = host

    def has_root(self, nested: NestedGuest) -> bool:
        """Tell whether L1 has a PATE for ``nested``."""
        return self.host.finds_root(self.guest, nested)


class HashKvm(KvmHv):
    """The host: a shadow table for each L2, in the memory for tables, and HR clear in the hardware's PATE (X3).

    :param order: log2 of the bytes of a shadow table: with the placement slot by slot, that of every L1's table too.
    :param placement: makes what says where a shadow's entries go; see :mod:`nestmmu_ppc64_hpt.shadow`.
    """

    def __init__(
        self, memory: Memory, allocator: PageAllocator, *, page_shift: int = 16, ptcr: int, quirks: Quirk,
        order: int = SMALLEST_ORDER, placement: type[Placement] = SameSlot,
    ) -> None:  # fmt: skip
        super().__init__(memory, allocator, page_shift=page_shift, ptcr=ptcr, quirks=quirks)
        self.order = order
        self.placement = placement

    def make_shadow(self, tag: HardwareTag) -> HashShadow:
        """Return an empty shadow table, entered in the hardware's partition table.

        :raises OutOfPagesError: if there is no room for it.
        """
        base = self.allocator.allocate(1 << self.order)
        self.set_pate(tag, base | self.order - SMALLEST_ORDER, 0)
        return HashShadow(HashTable(self.memory, base, self.order), tag, self.flush, self.placement(), self.allocator)

    def update_ptbl_cache(self, guest: KvmGuest, nested: KvmNestedGuest) -> None:
        """Read L1's PATE for ``nested``: one of radix, or of a table not as large as the shadow, gives no table."""
        nested.gr_to_hr, nested.process_table = self.partition_entry(guest, nested)
        nested.table = None
        try:
            table = hash_table(guest.memory, nested.gr_to_hr)
        except NestmmuError:
            return
        if table.order == self.order:
            nested.table = NumberedTable(table)

    def nested_faults(self, guest: KvmGuest) -> HashKvmFaults:
        """Return the handler of faults of ``guest``'s guests."""
        return HashKvmFaults(self, guest)
