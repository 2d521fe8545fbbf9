"""Isolation: no guest's guest gets at anything but the memory slots of its hypervisor."""

from __future__ import annotations

import itertools

from nestmmu.access import Access
from nestmmu.addresses import align_down
from nestmmu.outcomes import Verdict
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal, require
from nestmmu.testing.topic import Topic
from nestmmu.testing.world import OFFSET, World


class Isolation(Topic):
    """A guest hypervisor whose pages lead where nothing of its own is."""

    needs = (Feature.NEST,)

    def test_a_page_that_leads_outside_the_slots(self) -> None:
        for shift in self.form.nest_shifts:
            world = World(self.arch, shift)
            top = 1 << min(self.form.output_bits, self.form.input_bits)
            targets = [
                world.nest.data.end, align_down(world.nest.host_tables.start, world.large), world.nest.data_at,
                top - (1 << world.large), top // 2,
            ]  # fmt: skip
            outside = [one for one in targets if world.slot_of(one) is None]
            require(len(outside) > 1, "some of these are no memory of the guest")
            for number, target in enumerate(outside):
                for size in self.form.nest_shifts:
                    world.map(world.one, number << world.large, size, target)
                    for access in Access:
                        end = world.access(world.one, access, (number << world.large) + OFFSET)
                        equal(end.verdict, Verdict.EMULATE, f"a page that leads to {target:#x}, a {access.label}")
            equal(world.nest.host_pages(world.nest.enter(world.one)), [], "pages of the shadow")

    def test_a_large_page_across_the_end_of_a_slot(self) -> None:
        """What is behind the end in the machine's memory is another's."""
        for inner, outer in itertools.product(self.form.nest_shifts, repeat=2):
            for less in (1 << self.form.nest_shifts[0], 3 << self.form.nest_shifts[0]):
                world = World(self.arch, outer)
                world.set_slot(less=less)
                last = len(world.chunks) - 1
                pages = (1 << world.large) - 2 * less, (1 << world.large) - less
                for page in pages if inner == world.small else (0,):
                    world.map(world.one, page, inner, world.at(last) + page)
                what = f"2**{inner} bytes behind 2**{outer}, a slot that ends {less:#x} bytes early"
                for page in pages:
                    for access in Access:
                        world.access(world.one, access, page + OFFSET, what)
                        world.check(what)
                end = world.nest.access_own(Access.STORE, world.at(last) + pages[1] + OFFSET)
                equal(end.verdict, Verdict.EMULATE, f"{what}: the guest's own store beyond its end")
                end = world.nest.access_own(Access.STORE, world.at(last) + pages[0] + OFFSET)
                equal(end.address, world.nest.backing.where(world.at(last) + pages[0]) + OFFSET, f"{what}: before it")
                world.check(what)

    def test_a_slot_that_begins_late(self) -> None:
        world = World(self.arch)
        late = world.nest.data.base + (1 << world.small)
        data = world.data
        world.nest.replace_slot(data, None)
        slot = type(world.nest.data)(late, world.nest.data.end - late)
        world.nest.replace_slot(None, slot)
        world.data = slot
        world.map(world.one, 0, world.large, world.at(0))
        for page in (0, 1, 2):
            world.access(world.one, Access.STORE, (page << world.small) + OFFSET, "a slot that begins late")
            world.check("a slot that begins late")

    def test_pages_that_do_not_lie_alike_in_both_memories(self) -> None:
        """A host's large page can stand for one of the guest only where both begin alike."""
        world = World(self.arch, self.form.nest_shifts[-1])
        for chunk in world.chunks:
            world.nest.backing.homes[chunk] += 1 << world.small
        for chunk in world.chunks:
            world.map(world.one, chunk << world.large, world.large, world.at(chunk))
        world.access_all("chunks that lie one small page further on")
        world.check("chunks that lie one small page further on")

    def test_nothing_of_the_hosts_tables_is_reached(self) -> None:
        world = World(self.arch)
        for chunk in world.chunks:
            world.map(world.one, chunk << world.large, world.large, world.at(chunk))
        world.access_all()
        for nested in [None, *world.nest.guest.nested.values()]:
            for leaf in world.nest.host_pages(nested):
                end = leaf.target + (1 << leaf.shift)
                apart = end <= world.nest.host_tables.start or leaf.target >= world.nest.host_tables.stop
                require(apart, f"a page that leads to {leaf.target:#x} leads to the host's tables")
