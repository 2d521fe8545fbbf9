"""A nest of toys: L0, an L1 with 256 bytes of memory, and its L2, whose tables are written by raw words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.formats import AccessedDirty
from nestmmu.hypervisor import Attempt
from nestmmu.memory import PhysicalMemory
from nestmmu.outcomes import Exit, Outcome
from nestmmu.points import finish
from nestmmu.slots import LinearBacking, Slot, Slots
from toy_arch.cpu import ToyCpu, Trap
from toy_arch.formats import GRUBBY, LOOK, PAGE, POKE, PRESENT, RUN, USED
from toy_arch.hypervisor import ToyHypervisor, decode

if TYPE_CHECKING:
    from nestmmu.access import Access
    from nestmmu.mappings import Mapping

L1_AT = 0x10000
"""Where L1's memory is in L0's."""
ROOTS = 0x8000
TABLES = 0x100000
L1_TAG, L2_TAG, L2_ASSIGNED = 1, 2, 5
L1_ROOTS, L1_UPPER, L1_LOWER = 0x00, 0x20, 0x30
"""L1's memory: a word a tag; its upper table for L2; four lower ones of 16 bytes, one for each entry above."""
DATA = 0x80
"""What L1's tables lead to begins here."""
ALL = LOOK | POKE | RUN | USED | GRUBBY


class ToyNest:
    """L1's upper table leads to four empty lower tables, until :meth:`upper` says otherwise."""

    def __init__(
        self, backing_shift: int = 4, accessed_dirty: AccessedDirty = AccessedDirty.UPDATE, tables: int = 1 << 20
    ) -> None:
        self.memory = PhysicalMemory(1 << 24)
        self.allocator = PageAllocator(self.memory, TABLES, TABLES + tables)
        self.host = ToyHypervisor(self.memory, self.allocator, ROOTS)
        self.slot = Slot(0, 256)
        self.guest = self.host.create_guest(
            HardwareTag(L1_TAG), Slots((self.slot,)), LinearBacking(L1_AT, backing_shift)
        )
        self.guest.root_table = L1_ROOTS
        self.nested = self.host.add_nested(self.guest, AssignedTag(L2_ASSIGNED), HardwareTag(L2_TAG))
        self.handler = self.host.handler(self.guest)
        self.cpu = ToyCpu(self.memory, ROOTS, L2_TAG, accessed_dirty)
        self.word(L1_ROOTS + 4 * L2_ASSIGNED, L1_UPPER)
        for index in range(4):
            self.upper(index, PRESENT | L1_LOWER + 16 * index)

    def word(self, address: int, value: int) -> None:
        """Store a word in L1's memory."""
        self.memory.write(address + L1_AT, value.to_bytes(4, "little"))

    def read_word(self, address: int) -> int:
        """Return a word of L1's memory."""
        return int.from_bytes(self.memory.read(address + L1_AT, 4), "little")

    def upper(self, index: int, entry: int) -> None:
        """Write an entry of L1's upper table for L2."""
        self.word(L1_UPPER + 4 * index, entry)

    def lower(self, page: int, entry: int) -> None:
        """Write the entry of L2's page number ``page`` in L1's lower tables."""
        self.word(L1_LOWER + 4 * page, entry)

    def map(self, page: int, target: int, flags: int = ALL) -> None:
        """Let L1 map a page of L2 to an address of its own."""
        self.lower(page, PRESENT | PAGE | target | flags)

    def handle(self, exit_: Exit) -> Outcome:
        """Handle one exit as L0."""
        return finish(self.handler.handle(self.nested, exit_))

    def access(self, access: Access, address: int) -> tuple[Mapping | Trap, Outcome | None, int]:
        """Let L2 make an access: what the CPU said last, what ended the loop, and how many faults were handled."""
        loop = Attempt(lambda: self.cpu.access(access, address), as_exit, self.handle)
        result, outcome = loop.run()
        return result, outcome, len(loop.faults)

    def flush_log(self) -> list[tuple[int, str, int, int]]:
        """Return the flushes so far: (tag, kind, address, page shift)."""
        return [(int(one.tag), one.kind.value, one.address, one.page_shift) for one in self.host.flushes]

    def shadow(self) -> dict[int, tuple[int, int, int]]:
        """Return the shadow: address to (target, page shift, entry)."""
        leaves = self.nested.shadow.table.leaves()
        return {leaf.page_start: (leaf.target_start, leaf.page_shift, leaf.entry or 0) for leaf in leaves}


def as_exit(result: Mapping | Trap) -> Exit | None:
    """Return the exit that a trap is."""
    return decode(result) if isinstance(result, Trap) else None
