"""The shadow is the truth: what a guest's guest reaches is what both tables, read one by one, lead to."""

from __future__ import annotations

import itertools

from nestmmu.access import Access, permission_text
from nestmmu.outcomes import Verdict
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import NotApplicableError, applies, equal, require
from nestmmu.testing.nest import Leaf
from nestmmu.testing.topic import NO_TREES, ONE_WORD, Topic
from nestmmu.testing.trees import Tree
from nestmmu.testing.world import OFFSET, World


class Shadow(Topic):
    """A host, its guest, and two guests of that."""

    needs = (Feature.NEST,)

    def test_every_pair_of_page_sizes(self) -> None:
        for inner, outer in itertools.product(self.form.nest_shifts, repeat=2):
            for access in Access:
                world = World(self.arch, outer)
                start = 1 << world.large
                world.map(world.one, start, inner, world.at(1, 0 if inner == world.large else 1))
                what = f"2**{inner} bytes behind 2**{outer}"
                for page in range(start, start + (1 << inner), 1 << world.small):
                    world.access(world.one, access, page + OFFSET, what)
                    again = world.access(world.one, access, page + OFFSET, what)
                    equal(len(again.faults), 0, f"{what}: faults of a {access.label} that was done before")
                shifts = {leaf.shift for leaf in world.nest.host_pages(world.nest.enter(world.one))}
                equal(shifts, {self.form.shadow_shift(inner, outer)}, f"{what}: the size of the shadow's pages, log2")
                world.check(what)

    def test_every_byte_order_of_the_way(self) -> None:
        """Bytes that are written where an access ended are read where the model says that they are."""
        world = World(self.arch)
        world.map(world.one, 0, world.small, world.at(2, 3))
        end = world.access(world.one, Access.STORE, OFFSET)
        require(end.address is not None, "the access ended in an address")
        world.nest.memory.write(end.address or 0, b"\x01\x02")
        equal(world.nest.word_at(world.at(2, 3) + OFFSET, 2), b"\x01\x02", "what was stored")

    def test_the_product_of_rights(self) -> None:
        world = World(self.arch)
        world.nest.backing.gone.update(world.chunks)
        pages = 1 << world.large - world.small
        pairs = list(itertools.product(self.form.rights, repeat=2))
        for number, (inner, outer) in enumerate(pairs[: pages * len(world.chunks)]):
            target = world.at(*divmod(number, pages))
            real = world.nest.backing.where(target)
            world.nest.plant(Leaf(target, world.small, real, outer))
            world.map(world.one, number << world.small, world.small, target, inner)
            for access in Access:
                end = world.nest.access(world.one, access, (number << world.small) + OFFSET)
                what = f"{permission_text(inner)} behind {permission_text(outer)}, a {access.label}"
                expected: int | Verdict = real + OFFSET
                if not inner & access:
                    expected = Verdict.REFLECT
                elif not outer & access:
                    expected = Verdict.FAIL
                equal(end.verdict if end.address is None else end.address, expected, what)
        for leaf in world.nest.host_pages(world.nest.enter(world.one)):
            inner, outer = pairs[leaf.start >> world.small]
            what = f"{permission_text(inner)} behind {permission_text(outer)}: the shadow"
            require(not leaf.rights & ~(inner & outer), f"{what} permits {permission_text(leaf.rights)}")

    def test_pages_at_every_stride(self) -> None:
        """Twelve at each, then every other one taken away: what is found by a hash finds several in one place."""
        bits = self.form.input_bits - 5
        for stride in range(self.form.nest_shifts[0], bits, 3):
            world = World(self.arch, self.form.nest_shifts[-1])
            starts = [place << stride for place in range(12)]
            for place, start in enumerate(starts):
                world.map(world.one, start, world.small, world.at(place % len(world.chunks), place // 4))
            world.access_all(f"pages every 2**{stride} bytes")
            for start in starts[::2]:
                world.unmap(world.one, start)
            world.check(f"pages every 2**{stride} bytes, every other one taken away")
            for start in starts:
                world.access(world.one, Access.LOAD, start + OFFSET, f"pages every 2**{stride} bytes")

    def test_a_page_larger_than_the_hosts(self) -> None:
        """Where it is shadowed whole or not at all."""
        applies(self.form.whole_pages, "a page that is larger than the host's is shadowed in part")
        larger = [shift for shift in self.form.entry_shifts if shift > self.form.nest_shifts[-1]]
        applies(larger, "no page of the guest hypervisor's is larger than the host's")
        for shift in larger:
            world = World(self.arch)
            world.nest.pages(world.one).map(0, world.nest.data.base >> shift << shift, shift, world.rights)
            offset = world.nest.data.base % (1 << shift)
            for access in Access:
                end = world.nest.access(world.one, access, offset + OFFSET)
                equal(end.verdict, Verdict.FAIL, f"a {access.label} of a page of 2**{shift} bytes")
            equal(world.nest.host_pages(world.nest.enter(world.one)), [], "pages of the shadow")

    def test_two_guests_are_apart(self) -> None:
        for shift in self.form.nest_shifts:
            world = World(self.arch, shift)
            for place, tag in enumerate((world.one, world.other)):
                world.map(tag, 0, world.small, world.at(place, 1))
                world.map(tag, 1 << world.large, world.large, world.at(2 + place))
            world.access_all(f"the host's pages of 2**{shift} bytes")
            world.check(f"the host's pages of 2**{shift} bytes")

    def test_words_that_mean_the_same(self) -> None:
        """Also where the host can only read the page."""
        others = 0
        for rights, sealed in itertools.product(self.form.rights, (False, True)):
            world = World(self.arch, self.form.nest_shifts[0])
            world.nest.backing.sealed.update({0} if sealed else set())
            tree = world.nest.pages(world.one)
            if not isinstance(tree, Tree):
                raise NotApplicableError(NO_TREES)
            world.map(world.one, 0, world.small, world.at(0, 1), rights)
            at = tree.place(0, tree.depth_of(world.small))
            for word in self.trees.other_words(tree.word(at)):
                others += 1
                tree.put(at, word)
                world.nest.invalidate(self.form.scopes[0], world.one, 0, world.small)
                for access in Access:
                    world.access(world.one, access, OFFSET, f"word {word:#x}")
                world.check(f"word {word:#x}")
        applies(others, ONE_WORD)

    def test_what_the_hardware_reaches_without_the_host(self) -> None:
        """After all faults were taken, a probe that changes nothing reaches just what the model permits."""
        world = World(self.arch, self.form.nest_shifts[0])
        for number, rights in enumerate(self.form.rights):
            world.map(world.one, number << world.small, world.small, world.at(0, number), rights)
        for number, rights in enumerate(self.form.rights):
            for access in (one for one in Access if one & rights):
                world.access(world.one, access, (number << world.small) + OFFSET)
        nested = world.nest.enter(world.one)
        for number, rights in enumerate(self.form.rights):
            for access in Access:
                address = (number << world.small) + OFFSET
                found = world.nest.probe(nested.tag, access, address)
                expected = (world.nest.backing.where(world.at(0, number)) + OFFSET, rights) if rights & access else None
                equal(found, expected, f"{permission_text(rights)}, a {access.label} of {address:#x} by hardware alone")

    def test_random_nests(self) -> None:
        for number, shift in enumerate(self.form.nest_shifts * 2):
            chance = self.random(f"nests {number}")
            world = World(self.arch, shift)
            for _ in range(14):
                tag, size = chance.choice(world.nest.assigned), chance.choice(self.form.nest_shifts)
                start = chance.randrange(4 << world.large) >> size << size
                target = world.at(0) + (chance.randrange(4 << world.large) >> size << size)
                rights = chance.choice(self.form.rights)
                world.map(tag, start, size, target, rights, accessed=chance.random() < 0.9, dirty=chance.random() < 0.8)  # noqa: PLR2004  (mostly)
                address = chance.randrange(4 << world.large) & ~0xFFF | OFFSET
                world.access(tag, chance.choice(list(Access)), address, f"seed {self.seed}, nest {number}")
            world.access_all(f"seed {self.seed}, nest {number}")
            world.check(f"seed {self.seed}, nest {number}")
