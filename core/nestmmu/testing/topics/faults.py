"""Faults of two stages: whose they are, whether they were met while reading a table, and what their records say."""

from __future__ import annotations

import itertools

from nestmmu.access import Access
from nestmmu.addresses import align_down
from nestmmu.faults import FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal, require
from nestmmu.testing.stages import Landed, Stage, StageFault, TwoStages
from nestmmu.testing.topic import Topic


class Faults(Topic):
    """One thing wrong at a time, on the way through two tables."""

    needs = (Feature.TWO_STAGES,)

    def _both(self, variant: int = 0) -> tuple[TwoStages, int]:
        """Return two tables that map the page around 1 << shift, and the shift."""
        both = self.arch.make_two_stages(AccessedDirty.IGNORE, variant)
        shift, rights = min(both.page_shifts), self.most_rights()
        both.map(Stage.INNER, 1 << shift, both.data, shift, rights)
        both.map(Stage.OUTER, both.data, 3 << shift, shift, rights)
        return both, shift

    def test_a_page_that_the_inner_table_does_not_map(self) -> None:
        for variant in self.arch.variants:
            both, shift = self._both(variant)
            for access in Access:
                expected = StageFault(Stage.INNER, FaultKind.NOT_PRESENT, access, 5)
                equal(both.access(access, 5), expected, f"a {access.label} beside the page of 2**{shift} bytes")

    def test_a_page_that_the_outer_table_does_not_map(self) -> None:
        for variant in self.arch.variants:
            both, shift = self._both(variant)
            both.drop(both.data)
            for access in Access:
                expected = StageFault(Stage.OUTER, FaultKind.NOT_PRESENT, access, both.data + 5)
                equal(both.access(access, (1 << shift) + 5), expected, f"a {access.label}")

    def test_every_word_of_the_inner_table_is_read_through_the_outer_one(self) -> None:
        for variant in self.arch.variants:
            both, shift = self._both(variant)
            words = both.words_read(1 << shift)
            require(len(words) > 1, "a walk reads more than one word")
            for at, access in itertools.product(words, Access):
                both.drop(at)
                found = both.access(access, (1 << shift) + 5)
                what = f"a {access.label}, the word at {at:#x} not mapped"
                if isinstance(found, StageFault):
                    where = align_down(found.address, both.implicit_shift)
                    first = next(one for one in words if not (one ^ at) >> shift)
                    expected = (Stage.OUTER, FaultKind.NOT_PRESENT, True, align_down(first, both.implicit_shift))
                    equal((found.stage, found.kind, found.implicit, where), expected, what)
                    equal(found.access, both.implicit_access(access), what)
                else:
                    require(holds=False, what=f"{what}: it reached {found}")
                both.table_page(at)
            equal(both.access(Access.LOAD, 1 << shift), Landed(3 << shift, shift, self.most_rights()), "all mapped")

    def test_every_pair_of_page_sizes(self) -> None:
        """Address bits come from where each page leaves them; the smaller page of the two counts."""
        for variant in self.arch.variants:
            both = self.arch.make_two_stages(AccessedDirty.IGNORE, variant)
            access = self.access_for(self.most_rights())
            room = [shift for shift in both.page_shifts if shift < self.form.input_bits - 1]
            require(len(room) > 1, "there is room for pages of two sizes")
            for inner, outer in itertools.product(room, room):
                fresh = self.arch.make_two_stages(AccessedDirty.IGNORE, variant)
                self._pair(fresh, inner, outer, access)

    def _pair(self, both: TwoStages, inner: int, outer: int, access: Access) -> None:
        rights = self.most_rights()
        small, large = min(inner, outer), max(inner, outer)
        program = 1 << self.form.input_bits - 1
        middle = both.data + ((1 << large) - (1 << small) if inner == small else 0)
        both.map(Stage.INNER, program, middle, inner, rights)
        both.map(Stage.OUTER, align_down(middle, outer), 0, outer, rights)
        for offset in (0, 5, (1 << small) - 1):
            expected = Landed((middle + offset) % (1 << outer), small, rights)
            what = f"2**{inner} bytes behind 2**{outer}, a {access.label} at byte {offset:#x}"
            equal(both.access(access, program + offset), expected, what)
