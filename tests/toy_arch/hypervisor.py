"""The toy's hypervisor: the core's, and where its roots are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.compose import RadixComposer
from nestmmu.errors import OutsideMemoryError
from nestmmu.faults import Fault
from nestmmu.guests import Guest, NestedGuest
from nestmmu.hypervisor import Hypervisor
from nestmmu.memory import GuestMemory
from nestmmu.nested_faults import NestedFaultHandler
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.slots import SlotTranslator
from toy_arch.cpu import KINDS, NAMES, Trap
from toy_arch.formats import TOY, WIDTHS

if TYPE_CHECKING:
    from nestmmu.allocator import PageAllocator
    from nestmmu.formats import RadixFormat
    from nestmmu.memory import Memory
    from nestmmu.slots import Backing, Slots


def decode(trap: Trap) -> Exit:
    """Return a trap as the core handles it."""
    return Exit(Fault(KINDS[trap.name], "toy table", trap.access, trap.address), trap)


def reflect(outcome: Outcome, trap: Trap) -> Trap:
    """Return the trap as the guest hypervisor sees it."""
    fault = outcome.fault
    if outcome.verdict is not Verdict.REFLECT or fault is None:
        return trap
    return Trap(NAMES[fault.kind], trap.tag, trap.address, trap.access, fault.entry_address or 0)


class ToyFaults(NestedFaultHandler):
    """The ladder; it reads the guest hypervisor's root afresh each time, and tries KEEP OUT again first."""

    def has_root(self, nested: NestedGuest) -> bool:
        base = 0
        if isinstance(self.guest, ToyGuest):
            try:
                base = self.guest.memory.load(self.guest.root_table + 4 * nested.assigned, 4, "little")
            except OutsideMemoryError:
                base = 0
        walker = RadixWalker(nested.tree.format, self.guest.memory, "toy table")
        nested.table = RadixTable(walker, Root(base, nested.tree.widths[0])) if base else None
        return base != 0

    def retries_first(self, exit_: Exit) -> bool:
        return bool(exit_.record.name == "KEEP OUT")


class ToyGuest(Guest):
    """A guest hypervisor, with its own table of roots."""

    root_table = 0


class ToyHypervisor(Hypervisor):
    """Keeps a word a tag in its root table."""

    def __init__(
        self,
        memory: Memory,
        allocator: PageAllocator,
        root_table: int,
        table_format: RadixFormat = TOY,
        widths: tuple[int, ...] = WIDTHS,
    ) -> None:
        super().__init__(memory, allocator, table_format, widths)
        self.root_table = root_table

    def set_root(self, tag: int, base: int) -> None:
        self.memory.store(self.root_table + 4 * tag, base, 4, "little")

    def create_guest(self, tag: HardwareTag, slots: Slots, backing: Backing) -> ToyGuest:
        table = self.edit(self.new_root(), tag)
        memory = GuestMemory(self.memory, SlotTranslator(slots, backing, self.base_shift), "toy guest")
        guest = ToyGuest(tag, table, memory, slots, backing, self.base_shift)
        table.removed = guest.page_removed
        self.set_root(tag, table.table.root.base)
        return guest

    def make_nested(self, assigned: AssignedTag, tag: HardwareTag) -> NestedGuest:
        nested = super().make_nested(assigned, tag)
        self.set_root(tag, nested.tree.table.root.base)
        return nested

    def release_nested(self, nested: NestedGuest) -> None:
        super().release_nested(nested)
        self.set_root(nested.tag, 0)

    def handler(self, guest: ToyGuest) -> ToyFaults:
        return ToyFaults(guest, RadixComposer(self.walker.format, self.widths), self.tell)
