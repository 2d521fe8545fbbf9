"""Silence: a guest hypervisor that changes its table and does not say so may be served the old page or the new one.

It is never served anything else, no cache of the host's falls behind the host's own tables, and when it does say so,
nothing old is left.
"""

from __future__ import annotations

import itertools

from nestmmu.access import Access, permission_text
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal, require
from nestmmu.testing.nest import Leaf
from nestmmu.testing.topic import Topic
from nestmmu.testing.world import OFFSET, World


class Silence(Topic):
    """One page after another in the same place, of any two sizes."""

    needs = (Feature.NEST,)

    def _cases(self) -> list[tuple[World, Leaf, Leaf, str]]:
        found = []
        loads = min((rights for rights in self.form.rights if rights & Access.LOAD), key=int.bit_count)
        for host, before, after, moved in itertools.product(*(self.form.nest_shifts,) * 3, (False, True)):
            world = World(self.arch, host)
            start = 1 << world.large
            old = Leaf(start, before, world.at(1), loads)
            new = Leaf(start, after, world.at(2) if moved else world.at(1), world.rights)
            what = f"2**{before} bytes, then 2**{after}{' elsewhere' if moved else ''}, behind 2**{host}"
            found.append((world, old, new, what))
        return found

    def _pages(self, world: World) -> list[int]:
        """Return small pages of the place: the first two, the last, and some between."""
        every = range(1 << world.large, 2 << world.large, 1 << world.small)
        return sorted({every[1], every[-1], *every[:: max(len(every) // 32, 1)]})

    def _either(self, world: World, leaves: tuple[Leaf, ...], page: int) -> dict[int, int]:
        """Return the rights that a page may have, by where it leads: those of all leaves that lead there."""
        rights: dict[int, int] = {}
        for leaf in leaves:
            if leaf.start <= page < leaf.start + (1 << leaf.shift):
                target = world.nest.backing.where(leaf.target + page - leaf.start)
                rights[target] = rights.get(target, 0) | leaf.rights
        return rights

    def _check(self, world: World, leaves: tuple[Leaf, ...], what: str) -> None:
        for leaf in world.nest.host_pages(world.nest.enter(world.one)):
            for offset in range(0, 1 << leaf.shift, 1 << world.small):
                either = self._either(world, leaves, leaf.start + offset)
                target = leaf.target + offset
                require(target in either, f"{what}: the shadow leads to {target:#x}, as no table ever did")
                more = leaf.rights & ~either.get(target, 0)
                require(not more, f"{what}: the shadow permits {permission_text(more)} that no table did")
        world.check_flushes(what)
        equal([str(stale) for stale in world.nest.stale], [], f"{what}: hits of caches that the shadow does not allow")

    def test_the_old_page_or_the_new_one(self) -> None:
        for world, old, new, what in self._cases():
            world.map(world.one, old.start, old.shift, old.target, old.rights)
            neighbour = old.start + (1 << world.small)
            extra = Leaf(neighbour, world.small, world.at(3, 1), old.rights)
            if old.shift == world.small:
                world.map(world.one, neighbour, world.small, extra.target, extra.rights)
            for page in self._pages(world):
                world.access(world.one, Access.LOAD, page + OFFSET, what)
            world.check(f"{what}: before")
            world.map_silently(world.one, new)
            world.access(world.one, Access.STORE, new.start + OFFSET, what)
            self._check(world, (old, new, extra), what)
            for page in self._pages(world):
                either = self._either(world, (old, new, extra), page)
                end = world.nest.access(world.one, Access.LOAD, page + OFFSET)
                if end.address is not None:
                    require(end.address - OFFSET in either, f"{what}: a load of {page:#x} ends at {end.address:#x}")
            self._check(world, (old, new, extra), f"{what}, loaded from")
            self._settle(world, (old, new, extra), what)

    def _settle(self, world: World, leaves: tuple[Leaf, ...], what: str) -> None:
        for leaf in leaves:
            world.nest.invalidate(self.form.scopes[0], world.one, leaf.start, leaf.shift)
        world.check(f"{what}: invalidated")
        world.access_all(what)
        world.check(what)
