"""Lifetime: a table page is freed once, when nothing leads to it, and not used afterwards."""

from __future__ import annotations

from nestmmu.errors import PoisonedError
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal, require
from nestmmu.testing.topic import Topic
from nestmmu.testing.world import World


class Lifetime(Topic):
    """Tables come and go; what is freed is poisoned, and shows."""

    needs = (Feature.NEST,)

    def _fill(self, world: World) -> None:
        for place, tag in enumerate((world.one, world.other)):
            world.map(tag, 0, world.small, world.at(place, 1))
            world.map(tag, 1 << world.large, world.large, world.at(2 + place))
            world.map(tag, world.far, world.small, world.at(place, 2))
        world.access_all()

    def test_all_is_given_back(self) -> None:
        for shift in self.form.nest_shifts:
            world = World(self.arch, shift)
            before = set(world.nest.allocator.used)
            self._fill(world)
            require(len(world.nest.allocator.used) > len(before), "tables are in use")
            for tag in (world.one, world.other):
                world.nest.release(tag)
                world.check(f"guest {tag} released")
            world.nest.unmap(world.nest.data.base, world.nest.data.size)
            own = len(world.nest.host_table_pages())
            equal(len(world.nest.allocator.used), own, "tables in use when all guests of the guest are released")

    def test_nothing_is_lost_over_and_over(self) -> None:
        world = World(self.arch)
        counts = []
        for _ in range(4):
            self._fill(world)
            world.map(world.one, 0, world.large, world.at(1))
            world.access_all("a large page in place of a table")
            world.check("a large page in place of a table")
            for tag in (world.one, world.other):
                for start in list(world.leaves[tag]):
                    world.unmap(tag, start)
                world.nest.release(tag)
            counts.append(len(world.nest.allocator.used))
        equal(counts[1:], counts[:1] * 3, "tables in use after each round")

    def test_a_freed_page_is_not_freed_again_nor_used(self) -> None:
        world = World(self.arch)
        self._fill(world)
        page = world.nest.allocator.allocate(1 << 12)
        world.nest.memory.store(page, 1, 4, self.form.byteorder)
        world.nest.allocator.free(page)
        for what, use in (
            ("a second free", lambda: world.nest.allocator.free(page)),
            ("a load", lambda: world.nest.memory.load(page, 4, self.form.byteorder)),
            ("a store", lambda: world.nest.memory.store(page, 1, 4, self.form.byteorder)),
        ):
            try:
                use()
            except PoisonedError:
                continue
            require(holds=False, what=f"{what} of a freed page shows")
        again = world.nest.allocator.allocate(1 << 12)
        equal(world.nest.memory.load(again, 4, self.form.byteorder), 0, "the first word of a page that is given again")

    def test_a_page_that_is_used_again_has_nothing_of_its_first_use(self) -> None:
        """Another guest's tables get the pages of one that was released; page-walk caches still know the first."""
        world = World(self.arch)
        self._fill(world)
        for tag, other in ((world.one, world.other), (world.other, world.one), (world.one, world.other)):
            world.nest.release(tag)
            world.access_all(f"guest {tag} was released, and {other} not")
            world.check(f"guest {tag} was released, and {other} not")
