"""The toy's CPU: one register, the tag, and one table, that of the tag in the root table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.radix import RadixTable, RadixWalker, Root, Step
from toy_arch.formats import TOY

if TYPE_CHECKING:
    from nestmmu.access import Access
    from nestmmu.formats import RadixFormat
    from nestmmu.mappings import Mapping
    from nestmmu.memory import Memory
    from nestmmu.protocols import WalkerFactory

NAMES = {
    FaultKind.NOT_PRESENT: "NOPE",
    FaultKind.PERMISSION: "KEEP OUT",
    FaultKind.MALFORMED: "GARBLED",
    FaultKind.UNREADABLE: "LOST",
    FaultKind.ACCESSED_DIRTY: "GRUBBY",
}
KINDS = {name: kind for kind, name in NAMES.items()}


@attrs.define
class Trap:
    """What the toy's CPU tells its hypervisor of a fault."""

    name: str
    tag: int
    address: int
    access: Access
    entry_address: int = 0


class ToyCpu:
    """A CPU; ``root_table`` is where the words of the roots are, four bytes a tag, in its memory."""

    def __init__(
        self,
        memory: Memory,
        root_table: int,
        tag: int,
        accessed_dirty: AccessedDirty = AccessedDirty.UPDATE,
        table_format: RadixFormat = TOY,
        make_walker: WalkerFactory = RadixWalker,
    ) -> None:
        self.memory = memory
        self.root_table = root_table
        self.tag = tag
        self.walker = make_walker(table_format, memory, "toy table", accessed_dirty)
        self.root_bits = min(table_format.levels[0].index_bits)

    def trace(self, steps: list[Step] | None) -> None:
        self.walker.trace = steps

    def access(self, access: Access, address: int) -> Mapping | Trap:
        self.walker.owner = self.tag
        base = self.memory.load(self.root_table + 4 * self.tag, 4, "little")
        try:
            return RadixTable(self.walker, Root(base, self.root_bits)).translate(address, access)
        except Fault as fault:
            return Trap(NAMES[fault.kind], self.tag, address, access)
