"""Hypervisors in HS-mode upon each other: each but the first a guest, whose hypervisor instructions its parent does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.addresses import HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.errors import NestmmuError
from nestmmu.formats import AccessedDirty
from nestmmu.host_faults import HostFaultHandler
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.points import finish
from nestmmu.slots import Slot, Slots
from nestmmu.stack import Arrival, ChunkBacking, Layout, Left, Level
from nestmmu_riscv.csrs import HSTATUS_SPV, HSTATUS_SPVP, SV39, SV48, hgatp
from nestmmu_riscv.exits import decode, reflect
from nestmmu_riscv.fences import Fence, FenceKind
from nestmmu_riscv.hypervisor import RiscvGuest, RiscvHypervisor, RiscvNestedGuest
from nestmmu_riscv.traps import HTVAL_SHIFT, Trap

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.access import Access
    from nestmmu.addresses import AssignedTag
    from nestmmu.events import Event
    from nestmmu.guests import NestedGuest
    from nestmmu.memory import Memory
    from nestmmu.nested_guests import NestedGuests
    from nestmmu.outcomes import Exit, Outcome
    from nestmmu.protocols import CpuFactory

ARCH = "riscv"


@attrs.define(eq=False)
class RiscvLevel(Level):
    """A hypervisor; what it keeps is of RISC-V."""

    host: RiscvHypervisor = attrs.field(kw_only=True)
    l1: RiscvGuest = attrs.field(kw_only=True)
    """Its guest."""
    l2s: NestedGuests[RiscvNestedGuest] = attrs.field(kw_only=True)
    """What runs in that."""


def fence_for(flush: Flush) -> Fence:
    """Return the HFENCE.GVMA of a hypervisor that wants something flushed.

    A page is always one leaf of its own table: the fence names the first address, and has no size.
    """
    if flush.kind is FlushKind.PAGE:
        return Fence(FenceKind.HFENCE_GVMA, flush.address >> HTVAL_SHIFT, flush.tag)
    return Fence(FenceKind.HFENCE_GVMA, None, flush.tag)


class RiscvMachine:
    """A hart, and a hypervisor for each level.

    :param make_cpu: makes the hart, its caches included: :meth:`~nestmmu.plugins.Plugins.cpu`.
    :param announce: is told of events.
    :param accessed_dirty: whether harts, L0's and those that each L0 shows its L1, have Svadu (UPDATE) or
        Svade (FAULT).
    """

    layout = Layout(low=0x4000, tables=4 << 20, chunk=2 << 20, work=4 << 20)
    page_shifts: tuple[int, ...] = (12, 21)
    """Log2 of the pages with which a level may map its guest."""

    def __init__(
        self,
        make_cpu: CpuFactory,
        announce: Callable[[Event], None] | None = None,
        *,
        accessed_dirty: AccessedDirty = AccessedDirty.UPDATE,
    ) -> None:
        self.make_cpu = make_cpu
        self.announce = announce
        self.accessed_dirty = accessed_dirty
        self.levels: list[RiscvLevel] = []

    def level(self, number: int, memory: Memory, backing: ChunkBacking, slot: Slot, parent: Level | None) -> RiscvLevel:
        """Return a hypervisor in ``memory`` that runs one guest: Sv48x4 on the machine, Sv39x4 further in."""
        low = self.layout.low
        allocator = PageAllocator(memory, low, low + self.layout.tables)
        if isinstance(parent, RiscvLevel):
            host = RiscvHypervisor(memory, allocator, mode=SV39, menvcfg=parent.l1.registers.menvcfg)
            host.listeners.append(lambda flush: ask(parent, flush))
        else:
            self.cpu = self.make_cpu(ARCH, {}, memory, self.accessed_dirty)
            host = RiscvHypervisor(memory, allocator, mode=SV48, menvcfg=self.cpu.registers.menvcfg)
        host.announce = self.announce
        tag = host.tags.allocate()
        if tag is None:
            message = "there is no VMID for a guest"
            raise NestmmuError(message)
        guest = host.create_guest(tag, Slots((slot,)), backing)
        nested = host.nested_guests(guest)
        made = RiscvLevel(
            number, host, guest, nested, backing, HostFaultHandler(guest), host.handler(guest),
            host=host, l1=guest, l2s=nested,
        )  # fmt: skip
        self.levels.append(made)
        return made

    def attempt(self, tag: HardwareTag, access: Access, address: int) -> Left:
        """Do one access in VS-mode, vsatp Bare, behind the G-stage table that L0 has for that VMID."""
        level = self.levels[0]
        nested = next((one for one in level.l1.nested.values() if one.tag == tag), None)
        wanted = level.host.registers_of(level.l1, nested if isinstance(nested, RiscvNestedGuest) else None)
        registers = self.cpu.registers
        for field in attrs.fields(type(registers)):
            setattr(registers, field.name, getattr(wanted, field.name))
        result = self.cpu.access(access, address)
        return decode(result) if isinstance(result, Trap) else Arrival(result.address)

    def enter(self, parent: Level, tag: AssignedTag, serve: Callable[[NestedGuest], Left]) -> Left:
        """Do what a guest does to run a guest: write hgatp, and SRET; and read from its registers how that has left.

        :raises NestmmuError: if the parent has no VMID or no memory for the nested guest.
        """
        level, child = self.levels[parent.number], self.levels[parent.number + 1]
        host, guest = level.host, level.l1
        host.write_hgatp(guest, hgatp(child.host.mode, tag, root_of(child, HardwareTag(tag))))
        guest.registers.hstatus |= HSTATUS_SPV | HSTATUS_SPVP
        nested = finish(host.enter(guest, level.l2s))
        if nested is None:
            message = f"L{parent.number} cannot run guest {tag} of its guest: no VMID, or no page for its root"
            raise NestmmuError(message)
        try:
            left = serve(nested)
        finally:
            finish(level.l2s.put(nested))
        if isinstance(left, Arrival):
            guest.registers.virtual = False
            return left
        found = host.deliver(guest, left.record)
        user = not found["hstatus"] & HSTATUS_SPVP
        return decode(
            Trap(found["scause"], found["stval"], found["htval"], found["htinst"], gva=bool(found["gva"]), user=user)
        )

    def reflect(self, level: Level, outcome: Outcome, exit_: Exit) -> Exit:
        """Return an exit as the next hypervisor sees it."""
        del level
        return decode(reflect(outcome, exit_.record))


def root_of(level: RiscvLevel, tag: HardwareTag) -> int:
    """Return the root of the table that a hypervisor has for one of its VMIDs, in bytes, in its own memory.

    :raises NestmmuError: if it has none.
    """
    if tag == level.l1.tag:
        return level.l1.table.table.root.base
    for nested in level.l1.nested.values():
        if nested.tag == tag:
            return nested.tree.table.root.base
    message = f"L{level.number} has no guest of VMID {tag}"
    raise NestmmuError(message)


def ask(parent: RiscvLevel, flush: Flush) -> None:
    """Have a host do a fence of its guest, which traps."""
    parent.requests += 1
    parent.host.fence(parent.l1, fence_for(flush))
