"""A nest of wide toys for the conformance suite; its CPU can be put behind a TLB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nestmmu.access import Access
from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.formats import AccessedDirty
from nestmmu.host_faults import HostFaultHandler
from nestmmu.mappings import Mapping
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.outcomes import Exit, Outcome
from nestmmu.points import finish
from nestmmu.slots import Slot
from nestmmu.testing import Scope
from nestmmu.testing.nest import TreeNest
from nestmmu.testing.trees import Tree, Upwards
from nestmmu.tlb import CachedCpu, Translation, page_of
from toy_arch.cpu import ToyCpu, Trap
from toy_arch.formats import WIDE, WIDE_WIDTHS
from toy_arch.hypervisor import ToyHypervisor, decode, reflect

if TYPE_CHECKING:
    from collections.abc import Hashable

    from nestmmu.guests import NestedGuest

L0_ROOTS, L1_ROOTS = 0x8000, 0x100


class CacheableToyCpu(ToyCpu):
    """The CPU, with what a TLB wants to know."""

    def probe(self, access: Access, address: int) -> Mapping | Trap:
        silent = ToyCpu(self.memory, self.root_table, self.tag, AccessedDirty.IGNORE, WIDE)
        return silent.access(access, address)

    def context(self, access: Access, address: int) -> tuple[HardwareTag, Hashable] | None:
        del access, address
        return HardwareTag(self.tag), None

    def translation(self, access: Access, address: int, result: Mapping | Trap) -> Translation | None:
        del access
        if isinstance(result, Trap):
            return None
        start, output, guest = page_of(address, result.output_address, address, result.page_shift)
        return Translation(HardwareTag(self.tag), None, start, result.page_shift, output, guest, result.permissions)

    def on_table(self, result: Mapping | Trap) -> bool:
        del result
        return False

    def reached(self, translation: Translation, address: int) -> Mapping:
        output = translation.output_start + address - translation.input_start
        return Mapping(address, output, translation.page_shift, translation.permissions, accessed=True, dirty=True)


class WideToyNest(TreeNest):
    """Chunks of 64 KiB."""

    memory_bytes = 1 << 24
    host_tables = range(0x10_0000, 0x20_0000)
    tables, tables_at = Slot(0, 0x1_0000), 0x20_0000
    data, data_at = Slot(0x1_0000, 0x4_0000), 0x40_0000
    assigned = (AssignedTag(7), AssignedTag(3))

    def build(self) -> None:
        self.host = ToyHypervisor(self.memory, self.allocator, L0_ROOTS, WIDE, WIDE_WIDTHS)
        guest = self.host.create_guest(HardwareTag(1), self.slots, self.backing)
        guest.root_table = L1_ROOTS
        self.guest = guest
        self.guests = NestedGuests(self.host, guest, TagAllocator(3, 64), lambda: 64)
        self.host_faults = HostFaultHandler(guest)
        self.nested_faults = self.host.handler(guest)
        toy = CacheableToyCpu(self.memory, L0_ROOTS, 0, AccessedDirty.FAULT, WIDE, make_walker=self.make_walker)
        self.toy, self.cpu = toy, CachedCpu(toy, self.tlb.tlb, self.tlb.stale.append)
        self.trees: dict[AssignedTag, Tree] = {}
        for number, tag in enumerate(self.assigned):
            upwards = Upwards(0x1000 + 0x6000 * number)
            tree = Tree(self.architecture, self.levels, self.word_at, self.put_at, upwards)
            self.trees[tag] = tree
            self.put_at(L1_ROOTS + 4 * tag, tree.root.to_bytes(4, "little"))

    def attempt(self, tag: HardwareTag, access: Access, address: int) -> int | Exit:
        self.toy.tag = tag
        end: Any = self.cpu.access(access, address)
        return decode(end) if isinstance(end, Trap) else int(end.output_address)

    def probe(self, tag: HardwareTag, access: Access, address: int) -> tuple[int, int] | None:
        self.toy.tag = tag
        end = self.toy.probe(access, address)
        return None if isinstance(end, Trap) else (end.output_address, end.permissions)

    def reflect(self, outcome: Outcome, exit_: Exit) -> Exit:
        return decode(reflect(outcome, exit_.record))

    def pages(self, assigned: AssignedTag) -> Tree:
        return self.trees[assigned]

    def invalidate(self, scope: Scope, assigned: AssignedTag, start: int, shift: int) -> None:
        nested: NestedGuest | None = self.guest.nested.get(assigned)
        if nested is None:
            return
        if scope is Scope.TAG:
            finish(self.guests.flush(nested))
            return
        for leaf in list(nested.tree.table.leaves(start, start + (1 << shift))):
            nested.shadow.remove(leaf.page_start)
