"""Walks: random tables, read by the plugin and by the slow reader; and many pages in a table of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.faults import FaultKind
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal
from nestmmu.testing.ends import ended
from nestmmu.testing.topic import Topic
from nestmmu.testing.topics.entries import agree

if TYPE_CHECKING:
    import random

    from nestmmu.testing.architecture import Table, TreeTable

_TABLES, _PAGES, _ADDRESSES = 6, 24, 60


class Walks(Topic):
    """Pages of all sizes at random places, and addresses in, beside and far from them."""

    needs = (Feature.LEVELS,)

    def _fill(self, table: TreeTable, chance: random.Random) -> list[int]:
        """Map random pages over each other and return their addresses."""
        bits, starts = self.form.input_bits, []
        home = chance.getrandbits(bits)
        for _ in range(_PAGES):
            shift = chance.choice(table.page_shifts)
            near = home ^ chance.getrandbits(chance.choice((shift + 2, shift + 5, bits)))
            start = self.canonical(near % (1 << bits) >> shift << shift)
            target = chance.getrandbits(self.form.output_bits) >> shift << shift
            flags = chance.random() < 0.5, chance.random() < 0.5  # noqa: PLR2004  (as often as not)
            table.map(start, target, shift, chance.choice(self.form.rights), accessed=flags[0], dirty=flags[1])
            starts.append(start)
        return starts

    def test_random_tables(self) -> None:
        for variant in self.arch.variants:
            for number in range(_TABLES):
                chance = self.random(f"walks {variant} {number}")
                table = self.trees.make_table(variant=variant)
                starts = self._fill(table, chance)
                for _ in range(_ADDRESSES):
                    within = chance.choice((chance.choice(starts), chance.getrandbits(self.form.input_bits)))
                    address = within ^ chance.getrandbits(chance.choice((3, *table.page_shifts)))
                    agree(
                        table,
                        self.canonical(address % (1 << self.form.input_bits)),
                        f"seed {self.seed}, table {variant}.{number}",
                    )

    def test_a_word_that_is_written_again_is_read_again(self) -> None:
        """Nothing may be remembered of where a word lies, only of what a word says."""
        for variant in self.arch.variants:
            chance = self.random(f"rewritten {variant}")
            table = self.trees.make_table(variant=variant)
            shift = table.page_shifts[-1]
            for number in range(8):
                address = chance.randrange(2) << shift
                table.map(address, number << shift, shift, chance.choice(self.form.rights))
                for page in range(2):
                    agree(table, page << shift, f"form {variant}, write {number}")


class ManyPages(Topic):
    """Many pages of one size in one table, of whatever shape it is: each is found, and nothing else."""

    def _sees(self, table: Table, pages: dict[int, int], what: str) -> None:
        """Look at every page, and beside each."""
        shift, rights = min(table.page_shifts), self.most_rights()
        access = self.access_for(rights)
        for number in {*pages, *(one ^ 1 for one in pages)}:
            end = ended(lambda at=number << shift | 5: table.translate(at, access))  # type: ignore[misc]
            target = pages.get(number)
            if target is None:
                equal(getattr(end, "kind", end), FaultKind.NOT_PRESENT, f"{what}, page {number:#x}, not mapped")
            else:
                equal(getattr(end, "address", end), target << shift | 5, f"{what}, page {number:#x}")

    def test_pages_at_every_stride(self) -> None:
        """Twelve at each: what is found by a hash of the address may find several of them in one place."""
        for variant in self.arch.variants:
            shift = min(self.arch.make_table(variant=variant).page_shifts)
            bits = min(self.form.input_bits, 63) - 1 - shift
            most = (1 << self.form.output_bits - shift) - 1
            for stride in range(max(bits - 3, 1)):
                table, pages = self.arch.make_table(variant=variant), {}
                for place in range(min(12, 1 << bits - stride)):
                    number = place << stride
                    pages[number] = (place + 1) * 3 & most
                    table.map(number << shift, pages[number] << shift, shift, self.most_rights())
                self._sees(table, pages, f"form {variant}, stride 2**{stride + shift}")

    def test_pages_that_are_mapped_again(self) -> None:
        for variant in self.arch.variants:
            chance = self.random(f"again {variant}")
            table, pages = self.arch.make_table(variant=variant), {}
            shift = min(table.page_shifts)
            numbers = [chance.getrandbits(min(self.form.input_bits, 63) - 1 - shift) for _ in range(12)]
            for _ in range(40):
                number = chance.choice(numbers)
                pages[number] = chance.getrandbits(self.form.output_bits - shift)
                table.map(number << shift, pages[number] << shift, shift, self.most_rights())
            self._sees(table, pages, f"seed {self.seed}, form {variant}, mapped again")
