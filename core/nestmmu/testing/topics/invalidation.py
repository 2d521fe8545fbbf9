"""Invalidation: whatever is taken away, no shadow, TLB or page-walk cache has anything of it left."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from nestmmu.access import Access
from nestmmu.testing.capabilities import Feature, Scope
from nestmmu.testing.checks import applies, equal, require
from nestmmu.testing.topic import Topic
from nestmmu.testing.world import OFFSET, World

Change: TypeAlias = Callable[[World, Scope], None]


def unmap_small(world: World, scope: Scope) -> None:
    """Unmap one of two small pages."""
    world.unmap(world.one, 1 << world.small, scope)


def unmap_large(world: World, scope: Scope) -> None:
    """Unmap a large page."""
    world.unmap(world.one, 1 << world.large, scope)


def move_both(world: World, scope: Scope) -> None:
    """Let a small and a large page lead elsewhere."""
    world.change(world.one, 1 << world.small, scope, target=world.at(2, 5))
    world.change(world.one, 1 << world.large, scope, target=world.at(3))


def forbid(world: World, scope: Scope) -> None:
    """Take stores and fetches from a small page, and everything from a large one."""
    world.change(world.one, 1 << world.small, scope, rights=min(filter(None, world.form.rights)))
    world.change(world.one, 1 << world.large, scope, rights=min(world.form.rights))


def grow(world: World, scope: Scope) -> None:
    """Map a large page where small ones were."""
    world.map(world.one, 0, world.large, world.at(2), scope=scope)


def shrink(world: World, scope: Scope) -> None:
    """Map a small page where a large one was."""
    world.map(world.one, (1 << world.large) + (2 << world.small), world.small, world.at(2, 4), scope=scope)


CHANGES: tuple[Change, ...] = (unmap_small, unmap_large, move_both, forbid, grow, shrink)


class Invalidation(Topic):
    """Caches are filled, something is taken away, and nothing may be left of it."""

    needs = (Feature.NEST,)

    def _warm(self, shift: int) -> World:
        """Return a nest that has translated everything twice."""
        world = World(self.arch, shift)
        for tag, chunk in ((world.one, 0), (world.other, 2)):
            for page in range(3):
                world.map(tag, page << world.small, world.small, world.at(chunk, page + 1))
            world.map(tag, 1 << world.large, world.large, world.at(chunk + 1))
            world.map(tag, world.far, world.small, world.at(chunk, 4))
        world.access_all("before")
        hits = world.nest.tlb.tlb.hits
        world.access_all("before, again")
        require(world.nest.tlb.tlb.hits > hits, "the second time, a TLB is hit")
        return world

    def test_every_page_of_a_large_one(self) -> None:
        """A large page of the guest hypervisor's over small ones of the host's is many in the shadow."""
        for scope in self.form.scopes:
            world = World(self.arch, self.form.nest_shifts[0])
            start = 1 << world.large
            world.map(world.one, start, world.large, world.at(1))
            world.map(world.one, start - (1 << world.small), world.small, world.at(0))
            world.map(world.one, start + (1 << world.large), world.small, world.at(2))
            for page in range(start - (1 << world.small), start + (1 << world.large) + 1, 1 << world.small):
                world.access(world.one, Access.LOAD, page + OFFSET)
            world.unmap(world.one, start, scope)
            world.check(f"a large page by {scope.value}")
            for page in range(start - (1 << world.small), start + (1 << world.large) + 1, 1 << world.small):
                world.access(world.one, Access.LOAD, page + OFFSET, f"a large page by {scope.value}")

    def test_what_the_host_takes_away(self) -> None:
        for shift in self.form.nest_shifts:
            for chunk in range(4):
                world = self._warm(shift)
                what = f"chunk {chunk} moved, host's pages of 2**{shift} bytes"
                world.nest.backing.move(chunk)
                world.nest.unmap(world.at(chunk), 1 << world.large)
                world.check(f"{what}: at once")
                world.access_all(what)
                world.check(what)

    def test_what_the_host_may_no_longer_write(self) -> None:
        for shift in self.form.nest_shifts:
            world = self._warm(shift)
            world.nest.backing.sealed.update((0, 1))
            world.nest.unmap(world.at(0), 2 << world.large)
            world.check("sealed, at once")
            world.access_all("sealed")
            world.check("sealed")

    def test_what_happens_to_a_slot(self) -> None:
        for shift in self.form.nest_shifts:
            world = self._warm(shift)
            for change in ({"gone": True}, {}, {"read_only": True}, {"dirty_log": True}, {}):
                world.set_slot(**change)
                world.check(f"slot {change}, at once")
                equal(len(world.nest.guest.rmap), 0, f"slot {change}, at once: entries of the reverse map")
                world.access_all(f"slot {change}")
                world.check(f"slot {change}")

    def test_a_guest_that_is_released_and_another_that_gets_its_tag(self) -> None:
        for shift in self.form.nest_shifts:
            world = self._warm(shift)
            gone = world.nest.enter(world.one).tag
            for tag in (world.one, world.other):
                world.nest.release(tag)
                world.check(f"guest {tag} released")
            world.leaves[world.other], world.leaves[world.one] = {}, {}
            for tag in (world.other, world.one):
                for page in range(3):
                    world.nest.pages(tag).clear(page << world.small, world.small)
                world.nest.pages(tag).clear(1 << world.large, world.large)
                world.nest.pages(tag).clear(world.far, world.small)
                world.map(tag, 0, world.small, world.at(3, 2 if tag == world.one else 3))
            again = world.nest.enter(world.other).tag
            equal(again, gone, "the tag that is free is given out again")
            for tag in (world.other, world.one):
                for page in (0, 1, 1 << world.large - world.small):
                    world.access(tag, Access.LOAD, (page << world.small) + OFFSET, "after a release")
                world.access(tag, Access.LOAD, world.far + OFFSET, "after a release")
            world.check("after a release")

    def test_a_vcpu_that_moves_is_flushed_where_it_comes_back(self) -> None:
        world = self._warm(self.form.nest_shifts[0])
        nested = world.nest.enter(world.one)
        host, threads = world.nest.host, world.nest.host.threads
        host.flushes.clear()
        for cpu in (0, threads, 0):
            host.arrive(nested, 0, cpu)
        flushed = [(flush.tag, flush.cpu) for flush in host.flushes]
        equal(flushed, [(nested.tag, 0)], "flushes of a core that a vcpu left and comes back to")
        world.access_all("after a move")
        world.check("after a move")
        other = world.nest.enter(world.other)
        if threads > 2:  # noqa: PLR2004  (the core that is come back to is entered by two of its CPUs)
            host.flushes.clear()
            for cpu in (1, 2, threads + 1, 2, 1):
                host.arrive(other, 0, cpu)
            flushed = [(flush.tag, flush.cpu) for flush in host.flushes]
            equal(flushed, [(other.tag, 2)], "flushes of a core of several CPUs: by the first that comes back")

    def test_a_table_that_gives_way_is_forgotten_by_page_walk_caches(self) -> None:
        for shift in self.form.nest_shifts:
            world = self._warm(shift)
            for _ in range(2):
                grow(world, self.form.scopes[0])
                world.access_all("grown")
                world.check("grown")
                for page in range(3):
                    world.map(world.one, page << world.small, world.small, world.at(0, page + 2))
                world.access_all("shrunk")
                world.check("shrunk")
            if self.arch.lacks(Feature.LEVELS) is None:
                require(world.nest.walks.cache.hits, "a page-walk cache is hit")

    def test_a_range_of_small_pages(self) -> None:
        applies(Scope.RANGE in self.form.scopes, "a guest hypervisor cannot invalidate a range")
        for shift in self.form.nest_shifts:
            world = World(self.arch, shift)
            for page in range(7):
                world.map(world.one, page << world.small, world.small, world.at(1, page))
            world.access_all("before")
            for page in range(1, 6):
                leaf = world.leaves[world.one].pop(page << world.small)
                world.nest.pages(world.one).clear(leaf.start, leaf.shift)
            world.nest.invalidate_range(world.one, 1 << world.small, 5 << world.small)
            world.check("a range of pages")
            kept = {leaf.start >> world.small for leaf in world.nest.host_pages(world.nest.enter(world.one))}
            equal(kept, {0, 6}, "pages of the shadow beside the range, by number")
            for page in range(7):
                world.access(world.one, Access.LOAD, (page << world.small) + OFFSET, "a range of pages")

    def test_what_is_another_guests_stays(self) -> None:
        """Not for correctness: who invalidates everything is never found wanting, and slow."""
        for scope in (one for one in self.form.scopes if one is not Scope.ALL):
            for shift in self.form.nest_shifts:
                world = self._warm(shift)
                other = world.nest.enter(world.other)
                before = world.nest.host_pages(other)
                for start in sorted(world.leaves[world.one]):
                    world.unmap(world.one, start, scope)
                equal(
                    world.nest.host_pages(other), before, f"pages of guest {world.other}, by {scope.value} of another"
                )

    def test_one_invalidation_for_all_guests(self) -> None:
        """Pages of both are taken away, and then one invalidation is made for all that there are."""
        applies(Scope.ALL in self.form.scopes, "a guest hypervisor cannot invalidate all of all its guests at once")
        for shift in self.form.nest_shifts:
            world = self._warm(shift)
            for tag in (world.one, world.other):
                for page in (0, 2):
                    leaf = world.leaves[tag].pop(page << world.small)
                    world.nest.pages(tag).clear(leaf.start, leaf.shift)
            world.nest.invalidate(Scope.ALL, world.one, 0, world.small)
            world.check("all guests at once")
            for tag in (world.one, world.other):
                for page in range(3):
                    for access in Access:
                        world.access(tag, access, (page << world.small) + OFFSET, "all guests at once")

    def test_what_the_guest_hypervisor_invalidates(self) -> None:
        for scope in self.form.scopes:
            for shift in self.form.nest_shifts:
                for change in CHANGES:
                    world = self._warm(shift)
                    what = f"{change.__name__.replace('_', ' ')}, by {scope.value}, host's pages of 2**{shift} bytes"
                    change(world, scope)
                    world.check(f"{what}: at once")
                    world.access_all(what)
                    world.check(what)
