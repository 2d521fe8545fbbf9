"""L0, an L1 in HS-mode as it believes, and its L2s for the conformance suite; L1's tables are raw words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.errors import NestmmuError
from nestmmu.faults import Fault, FaultKind
from nestmmu.host_faults import HostFaultHandler
from nestmmu.outcomes import Exit
from nestmmu.points import finish
from nestmmu.slots import Slot
from nestmmu.testing.capabilities import Scope
from nestmmu.testing.nest import TreeNest
from nestmmu.testing.trees import Tree, Upwards
from nestmmu.tlb import CachedCpu
from nestmmu_riscv.cpu import RiscvCpu
from nestmmu_riscv.csrs import ENVCFG_ADUE, SV39, Registers, hgatp
from nestmmu_riscv.exits import decode, reflect
from nestmmu_riscv.fences import Fence, FenceKind
from nestmmu_riscv.hypervisor import RiscvHypervisor
from nestmmu_riscv.traps import ACCESS_FAULT, G_STAGE, Trap

if TYPE_CHECKING:
    from nestmmu.access import Access
    from nestmmu.guests import NestedGuest
    from nestmmu.outcomes import Outcome
    from nestmmu.testing.architecture import RadixArchitecture
    from nestmmu_riscv.hypervisor import RiscvNestedGuest

L1_TREES, L1_TREE_BYTES = 0x20_0000, 0x20_0000
L1_TAG = HardwareTag(900)


class RiscvNest(TreeNest):
    """Chunks of 2 MiB.

    :param architecture: whose trees L1 writes.
    :param mode: of hgatp, L0's and L1's.
    :param svadu: whether harts, L1's among them, set A and D by themselves; else what lacks them faults.
    """

    host_tables = range(0x9_0000_0000, 0x9_4000_0000)
    tables, tables_at = Slot(0, 0x100_0000), 0x4_0000_0000
    data, data_at = Slot(0x100_0000, 0x80_0000), 0x6_0000_0000
    assigned = (AssignedTag(7), AssignedTag(3))

    def __init__(self, architecture: RadixArchitecture, shift: int, mode: int = SV39, *, svadu: bool = False) -> None:
        self.mode, self.menvcfg = mode, ENVCFG_ADUE if svadu else 0
        super().__init__(architecture, shift)

    def build(self) -> None:
        """Make L0, L1, and a hart in VS-mode with vsatp Bare."""
        host = RiscvHypervisor(self.memory, self.allocator, mode=self.mode, menvcfg=self.menvcfg)
        guest = host.create_guest(L1_TAG, self.slots, self.backing)
        self.l0, self.l1 = host, guest
        self.host, self.guest, self.guests = host, guest, host.nested_guests(guest)
        self.host_faults, self.nested_faults = HostFaultHandler(guest), host.handler(guest)
        self.hart = RiscvCpu(Registers(menvcfg=self.menvcfg), self.memory, make_walker=self.make_walker)
        self.cpu = CachedCpu(self.hart, self.tlb.tlb, self.tlb.stale.append)
        self.trees: dict[AssignedTag, Tree] = {}
        for number, tag in enumerate(self.assigned):
            upwards = Upwards(L1_TREES + number * L1_TREE_BYTES, 0x1000)
            self.trees[tag] = Tree(self.architecture, self.levels, self.word_at, self.put_at, upwards)

    def enter(self, assigned: AssignedTag) -> NestedGuest:
        """Have L1 write its hgatp and enter an L2."""
        self.l0.write_hgatp(self.l1, hgatp(self.mode, assigned, self.trees[assigned].root))
        nested: RiscvNestedGuest | None = finish(self.l0.enter(self.l1, self.guests))
        if nested is None:
            message = f"L0 cannot make guest {assigned} of L1: no VMID, or no page for its root"
            raise NestmmuError(message)
        finish(self.guests.put(nested))
        return nested

    def attempt(self, tag: HardwareTag, access: Access, address: int) -> int | Exit:
        """Do one access with that VMID."""
        self._run(tag)
        end: Any = self.cpu.access(access, address)
        return decode(end) if isinstance(end, Trap) else int(end.address)

    def probe(self, tag: HardwareTag, access: Access, address: int) -> tuple[int, int] | None:
        """Return (physical address, rights) of what the hart would do."""
        self._run(tag)
        end = self.hart.probe(access, address)
        return None if isinstance(end, Trap) else (end.address, end.permissions)

    def _run(self, tag: HardwareTag) -> None:
        tables = {nested.tag: nested.tree for nested in self.guest.nested.values()}
        root = tables.get(tag, self.guest.table).table.root
        self.hart.registers.hgatp = hgatp(self.mode, tag, root.base)

    def reflect(self, outcome: Outcome, exit_: Exit) -> Exit:
        """Return the guest-page fault, or the access fault, that L1 gets."""
        seen = reflect(outcome, exit_.record)
        if seen.cause != ACCESS_FAULT[seen.access]:
            return decode(seen)
        return Exit(Fault(FaultKind.UNREADABLE, G_STAGE, seen.access, seen.tval), seen)

    def pages(self, assigned: AssignedTag) -> Tree:
        """Return L1's tree for an L2."""
        return self.trees[assigned]

    def invalidate(self, scope: Scope, assigned: AssignedTag, start: int, shift: int) -> None:
        """Do an HFENCE.GVMA: of a page by its first address, whatever its size."""
        del shift
        address = start >> 2 if scope is Scope.PAGE else None
        vmid = None if scope is Scope.ALL else int(assigned)
        self.l0.fence(self.l1, Fence(FenceKind.HFENCE_GVMA, address, vmid))
