"""The reverse map: from each page of the guest, every shadow entry that leads to it is found."""

from __future__ import annotations

import itertools

from nestmmu.access import Access
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal, require
from nestmmu.testing.topic import Topic
from nestmmu.testing.world import OFFSET, World


class ReverseMap(Topic):
    """Pages of the guest that many lead to, taken away one by one."""

    needs = (Feature.NEST,)

    def _aliased(self, inner: int, outer: int) -> World:
        """Return a nest in which every chunk is mapped three times, twice by one guest."""
        world = World(self.arch, outer)
        for tag, base in ((world.one, 0), (world.one, 4), (world.other, 2)):
            for chunk in world.chunks:
                start = base + chunk << world.large
                for page in (
                    range(0, 1 << world.large, 1 << inner) if inner == world.large else (0, 1 << inner, 3 << inner)
                ):
                    world.map(tag, start + page, inner, world.at(chunk) + page)
        return world

    def _leads_to(self, world: World, start: int, size: int) -> list[tuple[int, int]]:
        """Return (tag, address) of each shadow page that leads into a range of the machine's memory."""
        return [
            (nested.assigned, leaf.start)
            for nested in world.nest.guest.nested.values()
            for leaf in world.nest.host_pages(nested)
            if leaf.target < start + size and start < leaf.target + (1 << leaf.shift)
        ]

    def test_entries_that_were_made_in_any_order(self) -> None:
        """The same page of the guest is found at the same place of several tables."""
        for number, outer in enumerate(self.form.nest_shifts * 2):
            chance = self.random(f"reverse map {number}")
            world = self._aliased(self.form.nest_shifts[0], outer)
            places = [(tag, start) for tag, leaves in world.leaves.items() for start in leaves]
            for tag, start in chance.sample(places, len(places)):
                world.access(tag, Access.LOAD, start + OFFSET)
            for chunk in world.chunks:
                real = world.nest.backing.where(world.at(chunk))
                world.nest.unmap(world.at(chunk), 1 << world.large)
                what = f"seed {self.seed}, {number}: what leads to chunk {chunk} that was taken away"
                equal(self._leads_to(world, real, 1 << world.large), [], what)
                world.check(what)

    def test_nothing_leads_to_a_page_that_was_taken_away(self) -> None:
        for inner, outer in itertools.product(self.form.nest_shifts, repeat=2):
            world = self._aliased(inner, outer)
            world.access_all()
            for chunk in world.chunks:
                address = world.at(chunk, 3 if inner == world.small else 5)
                real = world.nest.backing.where(address)
                what = f"2**{inner} bytes behind 2**{outer}, the page at {address:#x}"
                size = 1 << min(world.small, outer)
                if self.form.shadow_shift(inner, outer) == inner:
                    require(self._leads_to(world, real, size), f"{what}: something leads to it")
                world.nest.unmap(address, size)
                equal(self._leads_to(world, real, size), [], f"{what}: what leads to it afterwards")
                world.check(what)
            world.access_all("mapped again")
            world.check("mapped again")

    def test_what_leads_elsewhere_stays(self) -> None:
        """Not for correctness: a host that drops everything for each page would never be found wanting elsewhere."""
        world = self._aliased(self.form.nest_shifts[0], self.form.nest_shifts[0])
        world.access_all()
        before = self._leads_to(world, world.nest.backing.where(world.at(1)), 1 << world.large)
        world.nest.unmap(world.at(0), 1 << world.large)
        after = self._leads_to(world, world.nest.backing.where(world.at(1)), 1 << world.large)
        equal(after, before, "what leads to another chunk")

    def test_it_does_not_grow_when_a_page_comes_and_goes(self) -> None:
        world = self._aliased(self.form.nest_shifts[0], self.form.nest_shifts[0])
        world.access_all()
        entries = len(world.nest.guest.rmap)
        start = next(iter(world.leaves[world.one]))
        for _ in range(4):
            world.change(world.one, start)
            world.access(world.one, Access.LOAD, start + OFFSET)
            equal(len(world.nest.guest.rmap), entries, "entries of the reverse map")

    def test_without_room_nothing_is_shadowed(self) -> None:
        world = World(self.arch)
        world.map(world.one, 0, world.small, world.at(0, 1))
        world.map(world.one, 1 << world.small, world.small, world.at(1, 1))
        world.access(world.one, Access.LOAD, OFFSET)
        nested, rmap = world.nest.enter(world.one), world.nest.guest.rmap
        rmap.capacity = len(rmap)
        left = world.nest.attempt(nested.tag, Access.LOAD, (1 << world.small) + OFFSET)
        if not isinstance(left, int):
            world.nest.handle(nested, left)
        equal(len(world.nest.host_pages(nested)), 1, "pages of the shadow, with the reverse map full")
        world.check("with the reverse map full")
        rmap.capacity = None
        world.access(world.one, Access.LOAD, (1 << world.small) + OFFSET)
