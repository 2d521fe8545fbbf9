"""Walks: random tables, read by the plugin and by the slow reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.testing.capabilities import Feature
from nestmmu.testing.topic import Topic
from nestmmu.testing.topics.entries import agree

if TYPE_CHECKING:
    import random

    from nestmmu.testing.architecture import TreeTable

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
            start = near % (1 << bits) >> shift << shift
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
                    agree(table, address % (1 << self.form.input_bits), f"seed {self.seed}, table {variant}.{number}")

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
