"""L0 as Linux's KVM HV is on POWER9: its partition table, its guests, the shadow tables of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nestmmu.access import Access
from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.faults import Fault, FaultKind
from nestmmu.guests import Guest, NestedGuest
from nestmmu.host_faults import HostFaultHandler
from nestmmu.hypervisor import Hypervisor
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.memory import GuestMemory
from nestmmu.nested_faults import NestedFaultHandler
from nestmmu.outcomes import RESUME, Exit, Outcome, Verdict
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.slots import SlotTranslator
from nestmmu_ppc64_book3s.interrupts import DSISR_BAD_FAULT_64S, DSISR_BADACCESS, DSISR_NOHPTE, DSISR_PROTFAULT
from nestmmu_ppc64_book3s.partition import (
    PATE_GR,
    PATE_HR,
    pate_address,
    radix_root,
    read_pair,
    root_word,
    tree_bits,
    write_pair,
)
from nestmmu_ppc64_radix.composer import KvmComposer
from nestmmu_ppc64_radix.exits import PROTECTION_CAUSES, STAGE, HvExit
from nestmmu_ppc64_radix.formats import INPUT_BITS, KVM_WALK, POWER9
from nestmmu_ppc64_radix.quirks import Quirk, habits_of

if TYPE_CHECKING:
    from nestmmu.allocator import PageAllocator
    from nestmmu.mappings import Mapping
    from nestmmu.memory import Memory
    from nestmmu.slots import Backing, Slots


class KvmGuest(Guest):
    """L1, with the partition table that it gave to H_SET_PARTITION_TABLE."""

    ptcr: int = 0
    """L1's partition table: base in L1's memory and size, as a PTCR has them; 0: it does not nest."""
    radix = True
    """Whether L1 translates by radix, or by a hash table."""
    nesting_allowed = True
    """Whether user space has given the VM the capability to nest."""
    process_table = PATE_GR
    """Doubleword 1 of L1's PATE, as L1 registered it."""

    @property
    def nesting(self) -> bool:
        """Whether L1 may nest: allowed, and by radix (``nesting_enabled``)."""
        return self.nesting_allowed and self.radix


class KvmNestedGuest(NestedGuest):
    """L2, with the partition-table entry that L0 caches of it (``struct kvm_nested_guest``)."""

    gr_to_hr: int = 0
    """Cached doubleword 0 of L1's PATE; 0: not read, or not there."""
    process_table: int = 0
    """Cached doubleword 1: where L2's process table is, in L2's memory."""


def walk_tree(memory: Memory, address: int, root: int) -> Mapping:
    """Walk a radix tree in L1's memory by software (``kvmppc_mmu_walk_radix_tree``).

    :param root: doubleword 0 of a PATE or PRTE.
    :raises Fault: MALFORMED (-EINVAL), NOT_PRESENT (-ENOENT), UNREADABLE (-EFAULT, with the entry's address).
    """
    walker = RadixWalker(KVM_WALK, memory, STAGE)
    if tree_bits(root) != INPUT_BITS:
        raise Fault(FaultKind.MALFORMED, STAGE, Access.LOAD, address)
    return RadixTable(walker, Root(*radix_root(root))).lookup(address)


class KvmNestedFaults(NestedFaultHandler):
    """The ladder with what is KVM's own (``__kvmhv_nested_page_fault``)."""

    def __init__(self, host: KvmHv, guest: KvmGuest) -> None:
        super().__init__(guest, KvmComposer(guest.table.depths, host.quirks), host.tell)
        self.host = host

    def has_root(self, nested: NestedGuest) -> bool:
        """Step 1: L1 has a PATE for ``nested``."""
        return self.host.finds_root(self.guest, nested)

    def walk(self, nested: NestedGuest, exit_: Exit) -> Mapping:
        """Step 3: a root of another size than 52 bits is refused before anything is read."""
        if nested.table is None:
            fault = exit_.fault
            raise Fault(FaultKind.MALFORMED, STAGE, fault.access, fault.input_address)
        return super().walk(nested, exit_)

    def retries_first(self, exit_: Exit) -> bool:
        """Step 4: a protection fault may come of a shadow that is out of date."""
        return bool(exit_.record.dsisr & PROTECTION_CAUSES)

    def mends(self, exit_: Exit) -> bool:
        """Step 6: tell whether nothing but R or C was missing."""
        return not exit_.record.dsisr & (DSISR_BAD_FAULT_64S | DSISR_NOHPTE | DSISR_PROTFAULT)

    def outside(self, exit_: Exit, inner: Mapping) -> Outcome:
        """Step 8: a device's address, unless it is a table of L2's that lies there."""
        if exit_.fault.implicit or exit_.record.dsisr & DSISR_BADACCESS:
            return Outcome(Verdict.INJECT, fault=exit_.fault)
        return Outcome(Verdict.EMULATE, address=inner.output_address)

    def out_of_tables(self) -> Outcome:
        """Step 18: -ENOMEM."""
        if Quirk.NO_MEMORY_TO_GUEST in self.host.quirks:
            return Outcome(Verdict.FAIL, error="ENOMEM")
        return RESUME


class KvmHostFaults(HostFaultHandler):
    """A fault of L1 on L0's table for it (``kvmppc_book3s_radix_page_fault``)."""

    def refuses(self, exit_: Exit) -> Outcome | None:
        """Return the outcome of an unsupported configuration, or of a bad access, which is the guest's own."""
        record: HvExit = exit_.record
        refused = super().refuses(exit_)
        if refused is None and record.dsisr & DSISR_BADACCESS:
            return Outcome(Verdict.INJECT, fault=exit_.fault)
        return refused


class KvmHv(Hypervisor):
    """The host.

    :param memory: the host's.
    :param allocator: pages of it for tables.
    :param page_shift: log2 of the kernel's base page: 16 or 12.
    :param ptcr: the partition table that the hardware reads, as PTCR has it.
    """

    nested_type = KvmNestedGuest
    threads = 4

    def __init__(
        self,
        memory: Memory,
        allocator: PageAllocator,
        *,
        page_shift: int = 16,
        ptcr: int = 0,
        quirks: Quirk = Quirk.LINUX_6_1,
    ) -> None:
        super().__init__(memory, allocator, POWER9, POWER9.widths(page_shift))
        self.ptcr = ptcr
        self.quirks = quirks
        self.habits = habits_of(quirks)

    def set_pate(self, tag: HardwareTag, dw0: int, dw1: int) -> None:
        """Write an entry of the hardware's partition table (``kvmhv_set_ptbl_entry``)."""
        address = pate_address(self.ptcr, tag)
        if address is None:
            message = f"LPID {tag} lies outside the partition table of PTCR {self.ptcr:#x}"
            raise NestmmuError(message)
        write_pair(self.memory, address, dw0, dw1)

    def create_guest(
        self, lpid: HardwareTag, slots: Slots, backing: Backing | None, root: Root | None = None
    ) -> KvmGuest:
        """Begin to keep an L1.

        :param root: a table for it that is there already; None: an empty one, entered in the partition table.
        """
        table = self.edit(self.new_root() if root is None else root, lpid)
        memory = GuestMemory(self.memory, table.table if backing is None else SlotTranslator(slots, backing), "L1 real")
        guest = KvmGuest(lpid, table, memory, slots, backing, self.base_shift)
        guest.habits = self.habits
        table.removed = guest.page_removed
        if root is None:
            self.set_up_pate(guest)
        return guest

    def set_up_pate(self, guest: KvmGuest) -> None:
        """Write the hardware's PATE of a radix L1 (``kvmppc_setup_partition_table``)."""
        if self.ptcr:
            self.set_pate(guest.tag, PATE_HR | root_word(guest.table.table.root.base), guest.process_table)

    def add_nested(self, guest: Guest, assigned: AssignedTag, tag: HardwareTag) -> KvmNestedGuest:
        """Begin to keep an L2 (``kvmhv_alloc_nested``); its PATE is read when it is first needed."""
        return cast("KvmNestedGuest", super().add_nested(guest, assigned, tag))

    def release_nested(self, nested: NestedGuest) -> None:
        """Free an L2's shadow, and clear the hardware's PATE (``kvmhv_release_nested``)."""
        super().release_nested(nested)
        if self.ptcr:
            self.set_pate(nested.tag, 0, 0)

    def forget_root(self, nested: NestedGuest) -> None:
        """Drop what was read of L1's PATE, and all that was made of it."""
        if isinstance(nested, KvmNestedGuest):
            nested.gr_to_hr = nested.process_table = 0
        nested.table = None
        nested.shadow.clear_tree()
        self.flush(Flush(nested.tag, FlushKind.TAG))

    def finds_root(self, guest: Guest, nested: NestedGuest) -> bool:
        """Read L1's PATE if it was not there when it was last read; zero alone means that it is not."""
        if not isinstance(nested, KvmNestedGuest) or not isinstance(guest, KvmGuest):
            return nested.table is not None
        if nested.gr_to_hr == 0:
            self.update_ptbl_cache(guest, nested)
        return nested.gr_to_hr != 0

    @staticmethod
    def partition_entry(guest: KvmGuest, nested: NestedGuest) -> tuple[int, int]:
        """Return both doublewords of L1's PATE for ``nested``; zeros where it has none, or has it nowhere."""
        address = pate_address(guest.ptcr, nested.assigned)
        try:
            return (0, 0) if address is None else read_pair(guest.memory, address)
        except OutsideMemoryError:
            return 0, 0

    def update_ptbl_cache(self, guest: KvmGuest, nested: KvmNestedGuest) -> None:
        """Read L1's PATE for ``nested`` and rewrite the hardware's (``kvmhv_update_ptbl_cache``)."""
        pair = nested.gr_to_hr, nested.process_table = self.partition_entry(guest, nested)
        nested.table = None
        if tree_bits(pair[0]) == INPUT_BITS:
            nested.table = RadixTable(RadixWalker(KVM_WALK, guest.memory, STAGE), Root(*radix_root(pair[0])))
        if self.ptcr:
            self.set_pate(nested.tag, PATE_HR | root_word(nested.tree.table.root.base), nested.process_table)

    def nested_faults(self, guest: KvmGuest) -> NestedFaultHandler:
        """Return the handler of faults of ``guest``'s guests."""
        return KvmNestedFaults(self, guest)
