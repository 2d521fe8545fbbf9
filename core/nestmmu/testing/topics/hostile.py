"""Hostile tables: loops, random words, tables that are nowhere. Each access still ends, and nothing is broken."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.errors import NestmmuError
from nestmmu.faults import Fault
from nestmmu.outcomes import Verdict
from nestmmu.testing.architecture import TreeTable
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import NotApplicableError, equal, require
from nestmmu.testing.ends import Reached, Refused
from nestmmu.testing.topic import NO_TREES, Topic
from nestmmu.testing.topics.entries import agree
from nestmmu.testing.trees import Tree
from nestmmu.testing.world import OFFSET, World

if TYPE_CHECKING:
    from nestmmu.testing.nest import Pages

MOST_READS = 20_000
NO_LEAVES = "what translates lists no leaves"


class Hostile(Topic):
    """Tables as no sane owner writes them, walked by hardware."""

    needs = (Feature.LEVELS,)

    def test_tables_that_lead_back_to_themselves(self) -> None:
        for variant in self.arch.variants:
            levels = self.form.trees[variant]
            for above in range(len(levels)):
                table = self.trees.make_table(variant=variant)
                for depth in range(len(levels) - 1):
                    at = table.tree.place(0, depth)
                    base = table.tree.place(0, above) if depth >= above else None
                    if base is not None:
                        table.tree.put(at, self.trees.table_word(levels, depth, base))
                agree(table, 0, f"form {variant}: tables that lead back to level {above}")

    def test_random_words(self) -> None:
        for variant in self.arch.variants:
            chance = self.random(f"hostile {variant}")
            for number in range(20):
                table = self.trees.make_table(variant=variant)
                address = self.canonical(chance.getrandbits(self.form.input_bits))
                deepest = table.tree.place(address, len(table.levels) - 1)
                require(deepest, "there is a table at every level")
                for at in table.tree.places(address):
                    word = table.tree.word(at) ^ sum(
                        1 << chance.randrange(8 * self.form.entry_bytes) for _ in range(chance.randrange(3))
                    )
                    table.tree.put(at, word % (1 << 8 * self.form.entry_bytes))
                agree(table, address, f"seed {self.seed}, form {variant}, random words {number}")

    def test_every_leaf_is_listed_or_refused(self) -> None:
        """Who lists a table's leaves comes to an end, even where few tables seem to be many."""
        for variant in self.arch.variants:
            table = self.trees.make_table(variant=variant)
            shift = min(table.page_shifts)
            wanted = {(page << shift, page + 1 << shift) for page in (0, 1, 3)}
            for start, target in wanted:
                table.map(start, target, shift, self.most_rights())
            leaves = getattr(table.by_plugin, "leaves", None)
            if leaves is None:
                raise NotApplicableError(NO_LEAVES)
            found = {(leaf.page_start, leaf.target_start) for leaf in leaves()}
            equal(found, wanted, f"form {variant}: the leaves that are listed")
            self._share(table)

    def _share(self, table: TreeTable) -> None:
        """Let each table of a way lead to the next by every entry; who lists the leaves has to give up before long."""
        table.tree.place(0, len(table.levels) - 1)
        for depth, at in enumerate(table.tree.places(0)[:-1]):
            word = table.tree.word(at)
            for index in range(1 << table.levels[depth].index_bits):
                table.tree.put(at + index * self.form.entry_bytes, word)
        reads, read = [0], table.memory.read

        def counted(address: int, size: int) -> bytes:
            reads[0] += 1
            require(reads[0] < MOST_READS, f"tables that are shared are read {MOST_READS} times over")
            return read(address, size)

        table.memory.read = counted  # type: ignore[method-assign]
        with contextlib.suppress(Fault, NestmmuError):
            for _ in table.by_plugin.leaves():  # type: ignore[attr-defined]
                pass


class HostileGuest(Topic):
    """A guest hypervisor whose tables for its guests are such."""

    needs = (Feature.NEST,)

    def test_random_words_in_the_guest_hypervisors_tables(self) -> None:
        for number in range(40):
            chance = self.random(f"hostile guest {number}")
            world = World(self.arch, chance.choice(self.form.nest_shifts))
            pages = world.nest.pages(world.one)
            address = chance.randrange(1 << self.form.input_bits - 1) >> world.small << world.small | OFFSET
            target = world.at(chance.randrange(4), chance.randrange(8))
            pages.map(address - OFFSET, target, world.small, chance.choice(self.form.rights))
            for at in pages.places(address):
                word = int.from_bytes(world.nest.word_at(at, self.form.entry_bytes), self.form.byteorder)
                if word and chance.random() < 0.5:  # noqa: PLR2004  (every other)
                    word ^= 1 << chance.randrange(8 * self.form.entry_bytes)
                    world.nest.put_at(at, word.to_bytes(self.form.entry_bytes, self.form.byteorder))
            for access in Access:
                end = world.nest.access(world.one, access, address)
                what = f"seed {self.seed}, hostile guest {number}, a {access.label} of {address:#x}"
                found = end.verdict if end.address is None else end.address
                equal(found, self._expected(world, pages, access, address), what)
                require(len(end.faults) <= self.form.most_faults, f"{what}: {len(end.faults)} faults")

    def _expected(self, world: World, pages: Pages, access: Access, address: int) -> int | Verdict:
        end = pages.allowed(address, access)
        if isinstance(end, Refused):
            return Verdict.REFLECT
        if end.shift < world.small:
            return Verdict.FAIL
        slot = world.slot_of(end.address)
        if slot is None:
            return Verdict.EMULATE
        return Verdict.REFLECT if self._unset(end, access) else world.nest.backing.where(end.address)

    def _unset(self, end: Reached, access: Access) -> bool:
        """Tell whether accessed or dirty is missing, where that is the guest hypervisor's to mend."""
        if self.arch.lacks(Feature.ACCESSED_DIRTY) is not None or self.form.host_sets_flags:
            return False
        return not end.accessed or (access is Access.STORE and not end.dirty)


class HostileTree(Topic):
    """A guest hypervisor whose trees lead where nothing is."""

    needs = (Feature.LEVELS, Feature.NEST)

    def test_tables_that_are_nowhere(self) -> None:
        world = World(self.arch)
        tree = world.nest.pages(world.one)
        if not isinstance(tree, Tree):
            raise NotApplicableError(NO_TREES)
        for depth in range(len(tree.levels) - 1):
            address = depth + 1 << world.large
            tree.map(address, world.at(1), world.small, world.rights)
            world.leaves[world.one].clear()
            at = tree.place(address, depth)
            before = tree.word(at)
            tree.put(at, tree.words.table_word(tree.levels, depth, world.nest.data.end + (1 << world.large)))
            for access in Access:
                end = world.nest.access(world.one, access, address + OFFSET)
                equal(end.verdict, Verdict.REFLECT, f"level {depth} leads outside memory, a {access.label}")
            tree.put(at, before)
            world.check(f"level {depth} led outside memory")
