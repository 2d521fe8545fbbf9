"""Events: what the host announces is what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.events import EventKind
from nestmmu.outcomes import Verdict
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal
from nestmmu.testing.topic import Topic
from nestmmu.testing.world import OFFSET, World

if TYPE_CHECKING:
    from nestmmu.events import Event


class Events(Topic):
    """Someone listens, and counts."""

    needs = (Feature.NEST,)

    def _listened(self, shift: int) -> tuple[World, list[Event]]:
        world = World(self.arch, shift)
        heard: list[Event] = []
        for page in range(3):
            world.map(world.one, page << world.small, world.small, world.at(0, page + 1))
        world.map(world.one, 1 << world.large, world.large, world.at(1))
        world.nest.enter(world.one)
        world.nest.host.announce = heard.append
        return world, heard

    def test_faults_and_reflections(self) -> None:
        for shift in self.form.nest_shifts:
            world, heard = self._listened(shift)
            for address in (OFFSET, OFFSET, (5 << world.small) + OFFSET):
                for access in Access:
                    heard.clear()
                    end = world.access(world.one, access, address)
                    kinds = [event.kind for event in heard]
                    what = f"a {access.label} of {address:#x}"
                    equal(kinds.count(EventKind.FAULT), len(end.faults), f"{what}: faults that were told")
                    reflected = end.verdict is Verdict.REFLECT
                    equal(kinds.count(EventKind.REFLECT), int(reflected), f"{what}: reflections that were told")
                    asked = [event for event in heard if event.kind in {EventKind.FAULT, EventKind.REFLECT}]
                    told = {world.nest.named(event.address) for event in asked}
                    equal(told, {address} if end.faults else set(), f"{what}: addresses that were told")

    def test_what_is_added_and_removed_is_all_that_there_is(self) -> None:
        for shift in self.form.nest_shifts:
            world, heard = self._listened(shift)
            shadow: set[int] = set()
            for start in (None, 0, 1 << world.large):
                if start is None:
                    world.access_all()
                else:
                    world.unmap(world.one, start)
                for event in heard:
                    if event.kind is EventKind.SHADOW_ADD:
                        shadow.add(world.nest.named(event.address))
                    elif event.kind is EventKind.SHADOW_REMOVE:
                        shadow.discard(world.nest.named(event.address))
                heard.clear()
                there = {leaf.start for leaf in world.nest.host_pages(world.nest.enter(world.one))}
                equal(shadow, there, "pages of the shadow, by what was told")

    def test_every_flush_is_told(self) -> None:
        world, heard = self._listened(self.form.nest_shifts[0])
        world.access_all()
        heard.clear()
        world.nest.host.flushes.clear()
        world.nest.unmap(world.at(0), 1 << world.large)
        told = [event.detail for event in heard if event.kind is EventKind.INVALIDATE]
        equal(told, world.nest.host.flushes, "invalidations that were told")
