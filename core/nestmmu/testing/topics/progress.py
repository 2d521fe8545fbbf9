"""Progress: an access ends after few faults, whatever happens meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.outcomes import Exit, Verdict
from nestmmu.points import finish
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal, require
from nestmmu.testing.topic import Topic
from nestmmu.testing.world import OFFSET, World

if TYPE_CHECKING:
    from collections.abc import Callable


class Progress(Topic):
    """Faults are counted, and the world changes while one is handled."""

    needs = (Feature.NEST,)

    def test_more_rights_need_no_invalidation(self) -> None:
        for rights in self.form.rights:
            world = World(self.arch)
            world.map(world.one, 0, world.small, world.at(0, 1), rights)
            for access in Access:
                world.access(world.one, access, OFFSET)
            world.map_again(world.one, 0, rights=world.rights)
            for access in Access:
                world.access(world.one, access, OFFSET, f"more rights than {rights}")
            world.check(f"more rights than {rights}")

    def test_a_page_that_appears_needs_no_invalidation(self) -> None:
        world = World(self.arch)
        for access in Access:
            world.access(world.one, access, OFFSET)
        world.map(world.one, 0, world.small, world.at(0, 1))
        for access in Access:
            world.access(world.one, access, OFFSET)

    def test_how_each_access_ends(self) -> None:
        world = World(self.arch, self.form.nest_shifts[0])
        for page, target in enumerate((world.at(0, 1), world.at(1), world.at(2), world.nest.data.end)):
            world.map(world.one, page << world.small, world.small, target)
        world.nest.backing.sealed.add(1)
        world.nest.backing.gone.add(2)
        wanted: list[Verdict | None] = [None, Verdict.FAIL, Verdict.FAIL, Verdict.EMULATE, Verdict.REFLECT]
        for page, verdict in enumerate(wanted):
            end = world.access(world.one, Access.STORE, (page << world.small) + OFFSET)
            equal(end.verdict, verdict, f"page {page}, a store")
        end = world.access(world.one, Access.LOAD, (1 << world.small) + OFFSET)
        equal(end.verdict, None, "a load of a page that the host can only read")
        world.check("every end")

    def test_the_guest_hypervisors_own_faults(self) -> None:
        for shift in self.form.nest_shifts:
            world = World(self.arch, shift)
            world.nest.backing.sealed.add(1)
            for access in Access:
                for chunk in (0, 1):
                    end = world.nest.access_own(access, world.at(chunk, 1) + OFFSET)
                    fails = chunk == 1 and access is Access.STORE
                    real = world.nest.backing.where(world.at(chunk, 1)) + OFFSET
                    found = end.verdict if end.address is None else end.address
                    equal(found, Verdict.FAIL if fails else real, f"the guest's own {access.label}")
                    require(len(end.faults) <= self.form.most_faults, "the guest's own faults are few")
                end = world.nest.access_own(access, world.nest.data.end + OFFSET)
                equal(end.verdict, Verdict.EMULATE, f"the guest's own {access.label} of a device")
            world.set_slot(read_only=True)
            address = world.at(0, 1) + OFFSET
            end = world.nest.access_own(Access.STORE, address)
            equal(end.verdict, Verdict.INJECT, "the guest's own store to a read-only slot")
            end = world.nest.access_own(Access.LOAD, address)
            equal(end.address, world.nest.backing.where(address), "the guest's own load of a read-only slot")
            world.check("the guest's own accesses")

    def test_the_guest_hypervisors_own_pages_are_asked(self) -> None:
        """Whether it used them, and whether it wrote them: each access says so once, if no TLB makes it alone."""
        for shift in self.form.nest_shifts:
            world = World(self.arch, shift)
            for access in (Access.LOAD, Access.FETCH, Access.STORE, Access.LOAD, Access.STORE):
                end = world.nest.access_own(access, world.at(1) + OFFSET)
                equal(end.address, world.nest.backing.where(world.at(1)) + OFFSET, f"the guest's own {access.label}")
                require(len(end.faults) <= self.form.most_faults, "the guest's own faults are few")
                again = world.nest.access_own(access, world.at(1) + OFFSET)
                equal(len(again.faults), 0, f"faults of the guest's own {access.label} that was made before")
                require(world.nest.age(world.at(1)), f"the guest's own {access.label} is a use")
                if access is Access.STORE:
                    require(world.nest.take_dirty(world.at(1)), "the guest's own store is seen")
                    require(not world.nest.take_dirty(world.at(1)), "and seen once")
                world.check(f"the guest's own {access.label}")
                world.nest.tlb.tlb.flush(Flush(world.nest.guest.tag, FlushKind.TAG))

    def _interrupt(self, change: Callable[[World], None], what: str, *, begun: bool = False) -> None:
        """Let ``change`` happen at each point of a handler at which another CPU can come in.

        :param begun: whether the tables are emptied at that point, and the change itself comes after the handler.
        """
        for shift in self.form.nest_shifts:
            for access in (Access.LOAD, Access.STORE):
                steps, left = 0, True
                while left:
                    world = World(self.arch, shift)
                    world.map(world.one, 0, world.small, world.at(0, 1))
                    world.map(world.one, 1 << world.small, world.small, world.at(3, 1))
                    world.access(world.one, access, (1 << world.small) + OFFSET)
                    left = self._once(world, access, steps, change, begun=begun)
                    name = f"{what} after {steps} steps of the handler of a {access.label}"
                    world.check(name)
                    world.access(world.one, access, OFFSET, name)
                    steps += 1
                require(steps > 1, "a handler has points at which another CPU can come in")

    def _once(self, world: World, access: Access, steps: int, change: Callable[[World], None], *, begun: bool) -> bool:
        """Do one access with a change in the middle; return whether the handler had that many steps."""
        nested = world.nest.enter(world.one)
        left = world.nest.attempt(nested.tag, access, OFFSET)
        require(isinstance(left, Exit), "the first touch of a page faults")
        if not isinstance(left, Exit):
            return False
        handler = world.nest.nested_faults.handle(nested, left)
        more = all(next(handler, None) is not None for _ in range(steps))
        if begun:
            world.nest.guest.begin_invalidation()
            world.nest.sweep(world.at(0), 1 << world.large)
            outcome = finish(handler)
            change(world)
            world.nest.guest.end_invalidation()
        else:
            change(world)
            outcome = finish(handler)
        expected = world.expected(world.one, access, OFFSET)
        # What a handler said that had ended before is lost.
        fine = not more or outcome.verdict in {Verdict.RESUME, expected}
        require(fine, f"the host says {outcome}, and {expected} is what it comes to")
        return more

    def test_a_page_that_the_host_moves_meanwhile(self) -> None:
        def move(world: World) -> None:
            world.nest.backing.move(0)
            world.nest.unmap(world.at(0), 1 << world.large)

        self._interrupt(move, "the page moved")

    def test_a_page_that_the_host_is_about_to_move(self) -> None:
        self._interrupt(lambda world: world.nest.backing.move(0), "the page is about to move", begun=True)

    def test_a_page_that_the_host_may_no_longer_write(self) -> None:
        def seal(world: World) -> None:
            world.nest.backing.sealed.add(0)
            world.nest.unmap(world.at(0), 1 << world.large)

        self._interrupt(seal, "the page sealed")

    def test_a_slot_that_goes_meanwhile(self) -> None:
        self._interrupt(lambda world: world.set_slot(gone=True), "the slot gone")

    def test_without_pages_for_tables(self) -> None:
        """The host says to try again, or gives up; it keeps nothing, and goes on when there are pages again."""
        world = World(self.arch)
        nested = world.nest.enter(world.one)
        world.map(world.one, 0, world.small, world.at(0, 1))
        limit, used = world.nest.allocator.limit, set(world.nest.allocator.used)
        world.nest.allocator.limit = 0
        for _ in range(2):
            left = world.nest.attempt(nested.tag, Access.LOAD, OFFSET)
            require(isinstance(left, Exit), "without a shadow the access faults")
            if isinstance(left, Exit):
                verdict = world.nest.handle(nested, left).verdict
                require(verdict in {Verdict.RESUME, Verdict.FAIL, Verdict.REFLECT}, f"the host says {verdict}")
        equal(set(world.nest.allocator.used), used, "tables in use while there are no pages")
        world.check("without pages for tables")
        world.nest.allocator.limit = limit
        world.access(world.one, Access.LOAD, OFFSET)
        world.check("with pages again")
