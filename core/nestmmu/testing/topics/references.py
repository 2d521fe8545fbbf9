"""References: a guest's guest lives as long as anyone holds it, and its tag is given out once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nestmmu.access import Access
from nestmmu.addresses import AssignedTag
from nestmmu.errors import NestmmuError
from nestmmu.points import finish
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal, require
from nestmmu.testing.topic import Topic
from nestmmu.testing.world import OFFSET, World

if TYPE_CHECKING:
    from nestmmu.guests import NestedGuest


class References(Topic):
    """Found, held, let go of, removed: in every order that can be."""

    needs = (Feature.NEST,)

    def _alive(self, world: World, nested: NestedGuest, what: str, *, alive: bool = True) -> None:
        """Look whether the shadow's root and the tag are in use."""
        equal(world.nest.in_use(nested), alive, f"{what}: the shadow's root is in use")
        equal(nested.tag in world.nest.guests.tags.used, alive, f"{what}: the tag is in use")

    def _hold(self, world: World, *, create: bool = True) -> Any:  # noqa: ANN401  (the architecture's own)
        return finish(world.nest.guests.get(world.one, create=create))

    def test_held_while_it_is_removed(self) -> None:
        world = World(self.arch)
        world.map(world.one, 0, world.small, world.at(0, 1))
        world.access(world.one, Access.LOAD, OFFSET)
        first, second = self._hold(world), self._hold(world)
        require(first is second, "one tag is one guest")
        equal(first.references, 3, "who holds it: the guest's table, and two")
        world.nest.release(world.one)
        self._alive(world, first, "removed, and held twice")
        require(world.one not in world.nest.guest.nested, "it is not found any more")
        finish(world.nest.guests.put(first))
        self._alive(world, first, "removed, and held once")
        finish(world.nest.guests.put(first))
        self._alive(world, first, "let go of by all", alive=False)

    def test_removed_twice(self) -> None:
        world = World(self.arch)
        held = self._hold(world)
        for _ in range(2):
            finish(world.nest.guests.remove(held))
        equal(held.references, 1, "who holds it when it was removed twice")
        self._alive(world, held, "removed twice, and held")
        finish(world.nest.guests.put(held))
        self._alive(world, held, "let go of", alive=False)

    def test_let_go_of_too_often(self) -> None:
        world = World(self.arch)
        held = self._hold(world)
        finish(world.nest.guests.put(held))
        self._alive(world, held, "let go of once")
        world.nest.release(world.one)
        try:
            finish(world.nest.guests.put(held))
        except NestmmuError:
            return
        require(holds=False, what="letting go of what no one holds is an error")

    def test_what_is_not_there_is_not_made_unless_it_is_wanted(self) -> None:
        world = World(self.arch)
        equal(self._hold(world, create=False), None, "a guest that is not there")
        equal(
            finish(world.nest.guests.get(AssignedTag(world.nest.guests.limit()), create=True)),
            None,
            "a tag beyond the limit",
        )
        last = finish(world.nest.guests.get(AssignedTag(world.nest.guests.limit() - 1), create=True))
        require(last is not None, "the last tag that the guest may give")
        require(self._hold(world) is not None, "a guest that is wanted")

    def test_tags_are_apart_and_used_again(self) -> None:
        world = World(self.arch)
        one, other = world.nest.enter(world.one), world.nest.enter(world.other)
        equal(len({one.tag, other.tag, world.nest.guest.tag}), 3, "tags of a guest and of two in it")
        world.nest.release(world.one)
        self._alive(world, other, "the other released")
        equal(world.nest.enter(world.one).tag, one.tag, "the tag that was free is given out")

    def test_every_one_is_held_and_released(self) -> None:
        world = World(self.arch)
        one, other = world.nest.enter(world.one), world.nest.enter(world.other)
        held = finish(world.nest.guests.each())
        equal({nested.assigned for nested in held}, {world.one, world.other}, "who is there")
        equal([nested.references for nested in held], [2, 2], "who holds each")
        finish(world.nest.guests.release_all())
        for nested in held:
            self._alive(world, nested, "all released, and held")
            finish(world.nest.guests.put(nested))
        for nested in (one, other):
            self._alive(world, nested, "let go of", alive=False)
        equal(len(world.nest.guest.nested), 0, "guests of the guest")
        equal(len(world.nest.guest.rmap), 0, "entries of the reverse map")

    def test_two_cpus_that_make_one_at_once(self) -> None:
        for steps in range(6):
            world = World(self.arch)
            making = world.nest.guests.get(world.one, create=True)
            for _ in range(steps):
                if next(making, None) is None:
                    break
            second = self._hold(world)
            first: Any = finish(making)
            require(second is not None, f"the second gets one, after {steps} steps of the first")
            require(first is None or first is second, f"both get the same, after {steps} steps of the first")
            used = {nested.tag for nested in world.nest.guest.nested.values()}
            equal(set(world.nest.guests.tags.used), used, f"tags in use, after {steps} steps of the first")
            world.check(f"made twice, after {steps} steps of the first")
