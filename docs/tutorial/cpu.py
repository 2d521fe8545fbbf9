"""A hart in U-mode: satp, and one load, store or fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.access import Access
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu_sv32.formats import SV32, WIDTHS

if TYPE_CHECKING:
    from nestmmu.mappings import Mapping
    from nestmmu.memory import Memory
    from nestmmu.protocols import WalkerFactory
    from nestmmu.radix import Step

# part cpu
PAGE_FAULTS = {Access.FETCH: 12, Access.LOAD: 13, Access.STORE: 15}
ACCESS_FAULTS = {Access.FETCH: 1, Access.LOAD: 5, Access.STORE: 7}


@attrs.frozen
class Trap:
    """scause and stval."""

    cause: int
    tval: int


class Hart:
    """A hart whose satp has MODE Sv32.

    :raises ValueError: if it has another.
    """

    def __init__(
        self,
        memory: Memory,
        satp: int,
        accessed_dirty: AccessedDirty = AccessedDirty.UPDATE,
        make_walker: WalkerFactory = RadixWalker,
    ) -> None:
        if satp >> 31 != 1:
            message = f"satp is {satp:#x}, and its MODE is not Sv32"
            raise ValueError(message)
        walker = make_walker(SV32, memory, "satp", accessed_dirty)
        self.table = RadixTable(walker, Root((satp & (1 << 22) - 1) << 12, WIDTHS[0]))

    def trace(self, steps: list[Step] | None) -> None:
        """Add the steps of every walk to ``steps`` from now on; None: stop."""
        self.table.walker.trace = steps

    def access(self, access: Access, address: int) -> Mapping | Trap:
        """Do one access."""
        try:
            return self.table.translate(address, access)
        except Fault as fault:
            causes = ACCESS_FAULTS if FaultKind.UNREADABLE in fault.kind else PAGE_FAULTS
            return Trap(causes[access], address)


# part end
