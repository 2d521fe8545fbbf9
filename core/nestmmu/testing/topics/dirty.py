"""Dirty: no store goes unseen, by the host's log or by the guest hypervisor's own table."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal, require
from nestmmu.testing.topic import Topic
from nestmmu.testing.world import OFFSET, World

if TYPE_CHECKING:
    from nestmmu.addresses import AssignedTag

STEPS = 12
"""More than the points at which another CPU can come into a handler."""
LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH


class Dirty(Topic):
    """The log is on, or a page is asked; what was written is told, once."""

    needs = (Feature.NEST,)

    def _world(self, inner: int, outer: int) -> World:
        world = World(self.arch, outer)
        world.map(world.one, 0, inner, world.at(1))
        world.map(world.other, 1 << world.large, inner, world.at(2))
        return world

    def _logged(self, world: World) -> set[int]:
        """Return the small pages of the guest's data that the log reports, by number, and begin anew."""
        import numpy as np  # noqa: PLC0415  (slow to import)

        require(world.data is not None, "there is a slot to follow")
        bits = np.unpackbits(world.nest.dirty_log(world.data or world.nest.data), bitorder="little")
        return {int(bit) for bit in np.flatnonzero(bits)}

    def _number(self, world: World, tag: AssignedTag, address: int) -> int:
        found = world.find(tag, address)
        return 0 if found is None else (found[1] - world.nest.data.base) >> world.small

    def test_the_log_reports_each_store_and_nothing_else(self) -> None:
        for inner, outer in itertools.product(self.form.nest_shifts, repeat=2):
            world = self._world(inner, outer)
            what = f"2**{inner} bytes behind 2**{outer}"
            world.access_all(what)
            world.set_log(on=True)
            world.check(f"{what}: the log is on")
            last = (1 << inner) - (1 << world.small)
            for page in (0, last):  # a host may map at once, for any access, what it can write
                world.access(world.one, LOAD, page + OFFSET, what)
                world.access(world.other, LOAD, (1 << world.large) + page + OFFSET, what)
            self._logged(world)
            for one, other in ((0, last), (last, 0), (0, 0)):
                for access in (LOAD, FETCH):
                    world.access(world.one, access, one + OFFSET, what)
                    world.access(world.other, access, (1 << world.large) + other + OFFSET, what)
                equal(self._logged(world), set(), f"{what}: what is logged after loads and fetches")
                world.access(world.one, STORE, one + OFFSET, what)
                world.access(world.other, STORE, (1 << world.large) + other + OFFSET, what)
                wanted = {
                    self._number(world, world.one, one),
                    self._number(world, world.other, (1 << world.large) + other),
                }
                equal(self._logged(world), wanted, f"{what}: what is logged after two stores")
                world.check(what)
            equal(self._logged(world), set(), f"{what}: what is logged when nothing was stored")

    def test_a_store_right_after_the_log_was_taken_is_in_the_next(self) -> None:
        """The page is still in the TLB, and in the shadow."""
        for outer in self.form.nest_shifts:
            world = self._world(self.form.nest_shifts[0], outer)
            world.set_log(on=True)
            for _ in range(3):
                world.access(world.one, STORE, OFFSET)
                equal(self._logged(world), {self._number(world, world.one, 0)}, "what is logged after a store")
                world.check("the log was taken")

    def test_what_was_stored_to_before_the_page_was_taken_away(self) -> None:
        world = self._world(self.form.nest_shifts[0], self.form.nest_shifts[0])
        world.set_log(on=True)
        world.access(world.one, STORE, OFFSET)
        world.nest.unmap(world.at(1), 1 << world.large)
        equal(self._logged(world), {self._number(world, world.one, 0)}, "what is logged of a page that is gone")
        equal(self._logged(world), set(), "what is logged of it the next time")

    def test_one_page_is_asked_again_and_again(self) -> None:
        for inner, outer in itertools.product(self.form.nest_shifts, repeat=2):
            world = self._world(inner, outer)
            what = f"2**{inner} bytes behind 2**{outer}"
            world.access(world.one, STORE, OFFSET, what)
            for _ in range(3):
                require(world.nest.take_dirty(world.at(1)), f"{what}: the page was stored to")
                require(not world.nest.take_dirty(world.at(1)), f"{what}: nothing was stored since")
                world.access(world.one, LOAD, OFFSET, what)
                require(not world.nest.take_dirty(world.at(1)), f"{what}: only loads were made since")
                world.check(what)
                world.nest.age(world.at(1))
                world.access(world.one, LOAD, OFFSET, what)
                world.check(f"{what}, aged and loaded from")
                require(not world.nest.take_dirty(world.at(1)), f"{what}: old again, and only loads were made since")
                world.access(world.one, STORE, OFFSET, what)

    def test_a_store_is_not_forgotten_with_the_use(self) -> None:
        """The host asks whether a page was used, and only then whether it was written."""
        for inner, outer in itertools.product(self.form.nest_shifts, repeat=2):
            world = self._world(inner, outer)
            what = f"2**{inner} bytes behind 2**{outer}"
            world.access(world.one, STORE, OFFSET, what)
            end = world.nest.access_own(STORE, world.at(2) + OFFSET)
            require(end.address is not None, f"{what}: the guest's own store")
            for chunk in (1, 2):
                require(world.nest.age(world.at(chunk)), f"{what}: chunk {chunk} was used")
                world.check(f"{what}: asked")
                require(
                    world.nest.take_dirty(world.at(chunk)), f"{what}: chunk {chunk} was written, though it is old now"
                )

    def test_a_large_page_is_logged_whole(self) -> None:
        """Where no one follows single pages, the host knows no better; nothing beyond it was written."""
        for chunk, outer in itertools.product((0, 3), self.form.nest_shifts):
            world = World(self.arch, outer)
            world.map(world.one, 0, world.small, world.at(chunk))
            world.access(world.one, STORE, OFFSET)
            first = chunk << world.large - world.small
            wanted = set(range(first, first + (1 << outer - world.small)))
            equal(self._logged(world), wanted, f"what is logged of a page of 2**{outer} bytes, chunk {chunk}")
            equal(self._logged(world), set(), "what is logged when nothing was stored since")

    def test_the_log_begins_anew(self) -> None:
        world = self._world(self.form.nest_shifts[0], self.form.nest_shifts[0])
        world.set_log(on=True)
        world.access(world.one, STORE, OFFSET)
        world.nest.unmap(world.at(1), 1 << world.large)
        world.set_log(on=False)
        world.set_log(on=True)
        equal(self._logged(world), set(), "what is logged of the time before")
        world.access(world.one, STORE, OFFSET)
        equal(self._logged(world), {self._number(world, world.one, 0)}, "what is logged since")

    def test_two_guests_that_share_a_page(self) -> None:
        world = World(self.arch, self.form.nest_shifts[0])
        for tag in (world.one, world.other):
            world.map(tag, 0, world.small, world.at(0, 1))
            world.access(tag, STORE, OFFSET)
        world.nest.take_dirty(world.at(0, 1))
        for tag in (world.other, world.one):
            world.access(tag, STORE, OFFSET)
            require(world.nest.take_dirty(world.at(0, 1)), f"guest {tag} stored to the page")

    def test_the_guest_hypervisors_own_stores(self) -> None:
        """Those that it makes itself, to its own memory."""
        world = World(self.arch, self.form.nest_shifts[0])
        world.set_log(on=True)
        for access in (LOAD, FETCH, STORE):
            end = world.nest.access_own(access, world.at(2, 1) + OFFSET)
            equal(end.address, world.nest.backing.where(world.at(2, 1)) + OFFSET, f"the guest's own {access.label}")
        number = (world.at(2, 1) - world.nest.data.base) >> world.small
        require(number in self._logged(world), "the guest's own store is logged")

    def test_the_guest_hypervisors_changed_bit(self) -> None:
        """A page that it has not marked dirty is never stored to, whatever was mapped for loads."""
        for inner, outer in itertools.product(self.form.nest_shifts, repeat=2):
            world = self._world(inner, outer)
            world.change(world.one, 0, dirty=False)
            what = f"2**{inner} bytes behind 2**{outer}, not dirty"
            for access in (LOAD, STORE, FETCH, STORE):
                world.access(world.one, access, OFFSET, what)
                world.check(what)
            world.map_again(world.one, 0, dirty=True)
            world.access(world.one, STORE, OFFSET, what)
            world.change(world.one, 0, dirty=False)
            world.access(world.one, STORE, OFFSET, f"{what} any more")
            world.check(f"{what} any more")

    def test_who_sets_the_guest_hypervisors_flags(self) -> None:
        """The host, or the guest hypervisor that gets the fault; what is not permitted makes nothing dirty."""
        for rights, accessed, outer in itertools.product(self.form.rights, (False, True), self.form.nest_shifts):
            for first in Access:
                world = World(self.arch, outer)
                world.map(world.one, 0, world.small, world.at(1), rights, accessed=accessed, dirty=False)
                for access in (first, LOAD, STORE, FETCH, first):
                    world.access(world.one, access, OFFSET, f"a page of rights {rights}")
                world.check(f"a page of rights {rights}, a {first.label} first")

    def test_more_rights_make_nothing_dirty(self) -> None:
        """A page that was loaded from is executed, or the other way about, when its owner permits that too."""
        for fewer, access in itertools.product(self.form.rights, (LOAD, FETCH)):
            if not fewer or fewer & access:
                continue
            world = World(self.arch)
            world.map(world.one, 0, world.small, world.at(1), fewer, dirty=False)
            world.access(world.one, LOAD if access is FETCH else FETCH, OFFSET)
            world.nest.take_dirty(world.at(1))
            world.map_again(world.one, 0, rights=world.rights)
            world.access(world.one, access, OFFSET, "more is permitted")
            world.check("more is permitted")

    def test_a_page_looks_young_when_it_was_used_and_not_otherwise(self) -> None:
        for inner, outer, dirty in itertools.product(*(self.form.nest_shifts,) * 2, (True, False)):
            world = self._world(inner, outer)
            world.change(world.one, 0, dirty=dirty)
            what = f"2**{inner} bytes behind 2**{outer}{'' if dirty else ', not dirty'}"
            for _ in range(2):
                world.access(world.one, LOAD, OFFSET, what)
                require(world.nest.age(world.at(1)), f"{what}: the page was used")
                require(not world.nest.age(world.at(1)), f"{what}: it was not used since")
                world.check(what)
            world.access(world.one, LOAD, (1 << inner) - (1 << world.small) + OFFSET, what)
            asked = world.at(1) + (1 << inner) - (1 << world.small)
            require(world.nest.age(asked), f"{what}: the page was used, asked at its end")
            world.access(world.one, LOAD, (1 << inner) - (1 << world.small) + OFFSET, what)
            require(world.nest.age(asked), f"{what}: the page was used again, asked at its end")

    def _race(self, world: World, steps: int, what: str) -> None:
        """Take the log in the middle of the handling of a store; the store must not be lost."""
        nested = world.nest.enter(world.one)
        left = world.nest.attempt(nested.tag, STORE, OFFSET)
        require(not isinstance(left, int), "a store to a page that was not stored to faults")
        if isinstance(left, int):
            return
        handler = world.nest.nested_faults.handle(nested, left)
        for _ in range(steps):
            next(handler, None)
        world.nest.take_dirty(world.at(1))
        for _ in handler:
            pass
        world.check(what)
        world.access(world.one, STORE, OFFSET, what)
        require(world.nest.take_dirty(world.at(1)), f"{what}: the store is seen")
        world.check(what)

    def test_the_log_is_taken_while_a_flag_is_set(self) -> None:
        for shift in self.form.nest_shifts:
            for steps in range(STEPS):
                world = self._world(self.form.nest_shifts[0], shift)
                world.access(world.one, LOAD, OFFSET)
                world.nest.take_dirty(world.at(1))
                self._race(world, steps, f"the log taken after {steps} steps of setting a flag")

    def test_the_log_is_taken_while_a_page_is_mapped(self) -> None:
        """The host's own page is there, and dirty."""
        for shift in self.form.nest_shifts:
            for steps in range(STEPS):
                world = self._world(self.form.nest_shifts[0], shift)
                world.map(world.other, 0, world.small, world.at(1))
                world.access(world.other, STORE, OFFSET)
                world.access(world.one, LOAD, (1 << world.small) + OFFSET)
                self._race(world, steps, f"the log taken after {steps} steps of mapping a page")
