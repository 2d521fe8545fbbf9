"""Reflection: what the hardware's record of a fault says to the host, and the host's to the guest hypervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import WRITE, Access
from nestmmu.faults import FaultKind
from nestmmu.outcomes import Exit, Verdict
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import applies, equal, require
from nestmmu.testing.topic import Topic
from nestmmu.testing.world import OFFSET, World

if TYPE_CHECKING:
    from nestmmu.testing.nest import Ended


class Reflection(Topic):
    """Records, read and written by the plugin."""

    needs = (Feature.NEST,)

    def _seen(self, world: World, exit_: Exit) -> tuple[FaultKind, Access, int, bool]:
        fault = exit_.fault
        kind = FaultKind[self.form.same_record.get(str(fault.kind.name), str(fault.kind.name))]
        return kind, fault.access, world.nest.named(fault.input_address), fault.implicit

    def _wanted(self, kind: FaultKind, access: Access, address: int) -> tuple[FaultKind, Access, int, bool]:
        return FaultKind[self.form.same_record.get(str(kind.name), str(kind.name))], access, address, False

    def _reflected(self, world: World, end: Ended, what: str) -> tuple[FaultKind, Access, int, bool]:
        equal(end.verdict, Verdict.REFLECT, what)
        exit_, outcome = end.faults[-1]
        return self._seen(world, world.nest.reflect(outcome, exit_))

    def test_what_the_host_reads_of_a_first_touch(self) -> None:
        for access in Access:
            world = World(self.arch)
            world.map(world.one, 0, world.small, world.at(0, 1))
            world.map(world.one, 1 << world.small, world.small, world.at(0, 2))
            world.access(world.one, access, (1 << world.small) + OFFSET)
            end = world.access(world.one, access, OFFSET)
            require(end.faults, "the first touch of a page faults")
            expected = self._wanted(FaultKind.NOT_PRESENT, access, OFFSET)
            equal(self._seen(world, end.faults[0][0]), expected, f"a {access.label} of a page that no shadow has")

    def test_a_page_that_is_not_there_is_the_guest_hypervisors(self) -> None:
        for access in Access:
            world = World(self.arch)
            world.map(world.one, 0, world.small, world.at(0, 1))
            address = (1 << world.small) + OFFSET
            end = world.access(world.one, access, address)
            found = self._reflected(world, end, f"a {access.label} beside all pages")
            equal(found, self._wanted(FaultKind.NOT_PRESENT, access, address), f"a {access.label} as reflected")

    def test_what_a_page_does_not_permit_is_the_guest_hypervisors(self) -> None:
        for rights in self.form.rights:
            for access in Access:
                if rights & access:
                    continue
                world = World(self.arch)
                world.map(world.one, 0, world.small, world.at(0, 1), rights)
                if rights:
                    world.access(world.one, self.access_for(rights), OFFSET)
                end = world.access(world.one, access, OFFSET)
                what = f"a {access.label} of a page that permits {rights}"
                found = self._reflected(world, end, what)
                equal(found, self._wanted(FaultKind.PERMISSION, access, OFFSET), f"{what}, as reflected")

    def test_a_missing_flag_is_the_guest_hypervisors_to_set(self) -> None:
        applies(self.arch.lacks(Feature.ACCESSED_DIRTY) is None, str(self.arch.lacks(Feature.ACCESSED_DIRTY)))
        applies(not self.form.host_sets_flags, "the host sets them itself")
        for accessed, dirty, access in ((False, False, Access.LOAD), (True, False, Access.STORE)):
            world = World(self.arch)
            world.map(world.one, 0, world.small, world.at(0, 1), accessed=accessed, dirty=dirty)
            end = world.access(world.one, access, OFFSET)
            found = self._reflected(world, end, f"a {access.label}, accessed {accessed}, dirty {dirty}")
            equal(found, self._wanted(FaultKind.ACCESSED_DIRTY, access, OFFSET), f"a {access.label} as reflected")
            world.map_again(world.one, 0, accessed=True, dirty=True)
            world.access(world.one, access, OFFSET)

    def test_a_store_to_read_only_memory_is_the_programs(self) -> None:
        world = World(self.arch)
        world.map(world.one, 0, world.small, world.at(0, 1))
        world.set_slot(read_only=True)
        end = world.access(world.one, Access.STORE, OFFSET)
        equal(end.verdict, Verdict.INJECT, "a store to a read-only slot")
        fault = None if end.outcome is None else end.outcome.fault
        require(fault is not None and fault.kind is FaultKind.PERMISSION, "the program sees a permission fault")
        for leaf in world.nest.host_pages(world.nest.enter(world.one)):
            require(not leaf.rights & WRITE, "the shadow of a read-only page does not permit stores")

    def test_a_devices_address_is_named(self) -> None:
        world = World(self.arch)
        device = world.nest.data.end
        world.map(world.one, 0, world.small, device)
        for access in Access:
            end = world.access(world.one, access, OFFSET)
            address = None if end.outcome is None else end.outcome.address
            equal(address, device + OFFSET, f"the device's address of a {access.label}")
