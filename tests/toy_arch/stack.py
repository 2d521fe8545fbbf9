"""Toy hypervisors upon toy hypervisors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.formats import AccessedDirty
from nestmmu.host_faults import HostFaultHandler
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.outcomes import Exit, Outcome
from nestmmu.points import finish
from nestmmu.slots import Slot, Slots
from nestmmu.stack import Arrival, ChunkBacking, Layout, Left, Level, enter_nested
from toy_arch.cpu import ToyCpu, Trap
from toy_arch.formats import WIDE, WIDE_WIDTHS
from toy_arch.hypervisor import ToyHypervisor, decode, reflect

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.access import Access
    from nestmmu.guests import NestedGuest
    from nestmmu.memory import Memory

ROOTS = 0x1000


class ToyMachine:
    """A toy computer; a guest asks its host to flush by simply saying so."""

    layout = Layout(low=0x2000, tables=0x3E000, chunk=0x10000, work=0x40000)
    page_shifts: tuple[int, ...] = (12, 16)

    def level(self, number: int, memory: Memory, backing: ChunkBacking, slot: Slot, parent: Level | None) -> Level:
        low = self.layout.low
        host = ToyHypervisor(memory, PageAllocator(memory, low, low + self.layout.tables), ROOTS, WIDE, WIDE_WIDTHS)
        if parent is None:
            self.cpu = ToyCpu(memory, ROOTS, 0, AccessedDirty.FAULT, WIDE)
        else:
            parent.guest.root_table = ROOTS  # type: ignore[attr-defined]
            host.listeners.append(lambda flush: ask(parent, flush))
        tags = TagAllocator(1, 64)
        guest = host.create_guest(HardwareTag(tags.allocate() or 0), Slots((slot,)), backing)
        nested: NestedGuests[NestedGuest] = NestedGuests(host, guest, tags, lambda: 64)
        return Level(number, host, guest, nested, backing, HostFaultHandler(guest), host.handler(guest))

    def attempt(self, tag: HardwareTag, access: Access, address: int) -> Left:
        self.cpu.tag = tag
        result = self.cpu.access(access, address)
        return decode(result) if isinstance(result, Trap) else Arrival(result.output_address)

    def enter(self, parent: Level, tag: AssignedTag, serve: Callable[[NestedGuest], Left]) -> Left:
        return enter_nested(parent, tag, serve)

    def reflect(self, level: Level, outcome: Outcome, exit_: Exit) -> Exit:
        del level
        return decode(reflect(outcome, exit_.record))


def ask(parent: Level, flush: Flush) -> None:
    """Have a host do what its guest would do by an instruction, if there were no host."""
    parent.requests += 1
    nested = parent.guest.nested.get(AssignedTag(flush.tag))
    if nested is None or flush.kind is FlushKind.WALK_CACHE:
        return
    if flush.kind is FlushKind.TAG:
        finish(parent.nested.flush(nested))
        return
    for leaf in list(nested.shadow.table.leaves(flush.address, flush.address + (1 << flush.page_shift))):
        nested.shadow.remove(leaf.page_start)
