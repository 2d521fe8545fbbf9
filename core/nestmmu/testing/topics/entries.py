"""Entries: what each bit of a word says, at every level, against the author's own reading of the manual."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.faults import FaultKind
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal, require
from nestmmu.testing.ends import ended
from nestmmu.testing.topic import Topic
from nestmmu.testing.trees import Leads, Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu.testing.architecture import Table, TreeTable


def agree(table: Table, address: int, what: str) -> None:
    """Compare the plugin with the author's reading of the words, access by access.

    :raises ConformanceError: where they differ.
    """
    for access in Access:
        found = ended(lambda kind=access: table.translate(address, kind))  # type: ignore[misc]
        equal(found, table.allowed(address, access), f"{what}, a {access.label} of {address:#x}")


class Entries(Topic):
    """A word at each level, then the same with each bit flipped."""

    needs = (Feature.LEVELS,)

    def _levels(self) -> Iterator[tuple[TreeTable, int, str]]:
        for variant in self.arch.variants:
            for depth, level in enumerate(self.form.trees[variant]):
                yield self.trees.make_table(variant=variant), depth, f"form {variant}, level {level.name}"

    def _address(self, table: TreeTable) -> int:
        """Return an address with another index at every level, and an odd offset."""
        address = 0b101
        for place, level in enumerate(table.levels):
            address |= (place + 2) % (1 << level.index_bits) << level.shift
        return address % (1 << self.form.input_bits - 1)

    def _flip_each(self, table: TreeTable, depth: int, word: int, what: str) -> None:
        address = self._address(table)
        at = table.tree.place(address, depth)
        for bit in range(8 * self.form.entry_bytes):
            table.tree.put(at, word ^ 1 << bit)
            agree(table, address, f"{what}, {word:#x} with bit {bit} flipped")
        table.tree.put(at, word)
        agree(table, address, f"{what}, {word:#x}")

    def test_a_leaf_with_each_bit_flipped(self) -> None:
        for table, depth, what in self._levels():
            shift = table.levels[depth].shift
            if table.levels[depth].leaf:
                for rights in self.form.rights:
                    word = self.trees.entry_word(table.levels, depth, 3 << shift, rights, accessed=True, dirty=False)
                    self._flip_each(table, depth, word, f"{what}, leaf")
                    for other in self.trees.other_words(word):
                        same = self.trees.decode(depth, shift, other)
                        equal(same, self.trees.decode(depth, shift, word), f"{what}, {other:#x} and {word:#x}")

    def test_a_directory_entry_with_each_bit_flipped(self) -> None:
        for table, depth, what in self._levels():
            if depth + 1 < len(table.levels):
                below = table.tree.place(self._address(table), depth + 1)
                shift = table.levels[-1].shift
                table.map(self._address(table) >> shift << shift, 5 << shift, shift, self.most_rights())
                at = table.tree.place(self._address(table), depth)
                require(below, "a table has an address")
                self._flip_each(table, depth, table.tree.word(at), f"{what}, directory entry")

    def test_a_leaf_at_every_level_whether_legal_or_not(self) -> None:
        for table, depth, what in self._levels():
            for legal in range(len(table.levels)):
                if table.levels[legal].leaf:
                    shift = table.levels[legal].shift
                    word = self.trees.entry_word(
                        table.levels, legal, 3 << shift, self.most_rights(), accessed=True, dirty=True
                    )
                    table.tree.put(table.tree.place(self._address(table), depth), word)
                    agree(table, self._address(table), f"{what}, the word of a leaf of 2**{shift} bytes")

    def test_a_directory_entry_where_there_is_nothing_below(self) -> None:
        for variant in self.arch.variants:
            table = self.trees.make_table(variant=variant)
            depth = len(table.levels) - 1
            word = self.trees.table_word(table.levels, depth - 1, table.tree.root)
            table.tree.put(table.tree.place(self._address(table), depth), word)
            agree(table, self._address(table), f"form {variant}: a directory entry at the last level")

    def test_words_of_one_bit_and_of_all_but_one(self) -> None:
        bits = 8 * self.form.entry_bytes
        for table, depth, what in self._levels():
            at = table.tree.place(self._address(table), depth)
            for word in (0, (1 << bits) - 1, *(1 << bit for bit in range(bits))):
                table.tree.put(at, word)
                agree(table, self._address(table), f"{what}, word {word:#x}")

    def test_the_author_reads_back_what_the_author_wrote(self) -> None:
        """Else the tests above compare nothing."""
        for table, depth, what in self._levels():
            level = table.levels[depth]
            if level.leaf:
                for rights in self.form.rights:
                    for accessed, dirty in ((False, False), (True, False), (True, True)):
                        word = self.trees.entry_word(
                            table.levels, depth, 3 << level.shift, rights, accessed=accessed, dirty=dirty
                        )
                        found = self.trees.decode(depth, level.shift, word)
                        if self.arch.lacks(Feature.ACCESSED_DIRTY) is None:
                            equal(found, Page(3 << level.shift, rights, accessed, dirty), f"{what}, {word:#x}")
            if depth + 1 < len(table.levels):
                word = self.trees.table_word(table.levels, depth, table.tree.root)
                bits = table.levels[depth + 1].index_bits
                equal(self.trees.decode(depth, level.shift, word), Leads(table.tree.root, bits), f"{what}, {word:#x}")

    def test_an_empty_table_maps_nothing(self) -> None:
        for variant in self.arch.variants:
            table = self.trees.make_table(variant=variant)
            agree(table, self._address(table), f"form {variant}, empty")
            found = ended(lambda of=table: of.translate(0, Access.LOAD))  # type: ignore[misc]
            equal(getattr(found, "kind", found), FaultKind.NOT_PRESENT, f"form {variant}, empty: address 0")


class EveryWord(Topic):
    """An entry of a table of any shape: with each bit flipped, wherever it may stand, beside others, and at random."""

    def _tables(self, *most: int) -> Iterator[tuple[Table, int, int, bytes, str]]:
        """Yield a table, an address in its one page, where the entry of that is, its bytes, and what it is.

        :param most: of which rights; none: all that an entry can have.
        """
        for variant in self.arch.variants:
            for shift in self.arch.make_table(variant=variant).page_shifts:
                for rights in most or self.form.rights:
                    table = self.arch.make_table(variant=variant)
                    start = (
                        (5 << self.form.input_bits - 5 | 3 << shift) % (1 << self.form.input_bits - 1) >> shift << shift
                    )
                    table.map(start, 3 << shift, shift, rights, accessed=True, dirty=False)
                    at = [place for place in table.places(start) if any(self._entry(table, place))][-1]
                    entry = self._entry(table, at)
                    yield table, start | 5, at, entry, f"form {variant}, page of 2**{shift} bytes, rights {rights}"

    def _entry(self, table: Table, at: int) -> bytes:
        return table.memory.read(at, self.form.entry_bytes)

    def _flipped(self, entry: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield an entry with each bit flipped, counted from the low end of it all."""
        word = int.from_bytes(entry, self.form.byteorder)
        for bit in range(8 * len(entry)):
            yield f"bit {bit} flipped", (word ^ 1 << bit).to_bytes(len(entry), self.form.byteorder)

    def test_an_entry_with_each_bit_flipped(self) -> None:
        for table, address, at, entry, what in self._tables():
            agree(table, address, what)
            for how, changed in self._flipped(entry):
                table.memory.write(at, changed)
                agree(table, address, f"{what}, {how}")

    def test_an_entry_wherever_it_may_stand(self) -> None:
        for table, address, at, entry, what in self._tables(self.most_rights()):
            places = table.places(address)
            for number, place in enumerate(places):
                before = self._entry(table, place)
                table.memory.write(at, bytes(len(entry)))
                for how, changed in (("as it was", entry), *self._flipped(entry)):
                    table.memory.write(place, changed)
                    agree(table, address, f"{what}, at place {number}, {how}")
                table.memory.write(place, before)
                table.memory.write(at, entry)
            agree(table, address, what)

    def test_which_of_two_entries(self) -> None:
        """The first that a search finds, whatever stands behind it; one that is no match hides nothing."""
        for table, address, at, entry, what in self._tables(self.most_rights()):
            for number, place in enumerate(table.places(address)):
                before = self._entry(table, place)
                for how, changed in self._flipped(entry):
                    table.memory.write(place, changed)
                    agree(table, address, f"{what}, and at place {number} with {how}")
                table.memory.write(place, before)
                table.memory.write(at, entry)

    def test_random_entries(self) -> None:
        for case, (table, address, _, entry, what) in enumerate(self._tables()):
            chance, word = self.random(f"entries {case}"), int.from_bytes(entry, self.form.byteorder)
            places = table.places(address)
            for number in range(40):
                for place in places:
                    flips = (1 << chance.randrange(8 * len(entry)) for _ in range(chance.randrange(4)))
                    changed = functools.reduce(operator.xor, flips, word) if chance.random() < 0.7 else 0  # noqa: PLR2004  (most)
                    table.memory.write(place, changed.to_bytes(len(entry), self.form.byteorder))
                agree(table, address, f"seed {self.seed}, {what}, random entries {number}")
