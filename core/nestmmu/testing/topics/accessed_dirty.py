"""Accessed and dirty: what each policy sets, when it faults, and that nothing else in a word changes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from nestmmu.access import Access, permission_text
from nestmmu.faults import FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import applies, equal
from nestmmu.testing.ends import Reached, ended
from nestmmu.testing.stages import Landed, Stage, StageFault
from nestmmu.testing.topic import UPDATES_NOTHING, Topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu.testing.architecture import Table

FLAGS = ((False, False), (False, True), (True, False), (True, True))


def after(policy: AccessedDirty, access: Access, flags: tuple[bool, bool]) -> tuple[bool, bool] | None:
    """Return accessed and dirty after an access that is permitted; None for a fault."""
    wanted = (True, flags[1] or access is Access.STORE)
    if policy is AccessedDirty.UPDATE:
        return wanted
    return flags if policy is AccessedDirty.IGNORE or flags == wanted else None


class AccessedAndDirty(Topic):
    """Each policy, with each state of the two bits, for each access."""

    needs = (Feature.ACCESSED_DIRTY,)

    def _pages(self, policy: AccessedDirty) -> Iterator[tuple[Table, int, int, tuple[bool, bool], str]]:
        for variant in self.arch.variants:
            table = self.arch.make_table(policy, variant)
            for shift, rights, flags in itertools.product(table.page_shifts, self.form.rights, FLAGS):
                state = ("A" if flags[0] else "-") + ("D" if flags[1] else "-")
                yield (
                    table, shift, rights, flags,
                    f"{policy.value}, 2**{shift} bytes of {permission_text(rights)} {state}",
                )  # fmt: skip

    def test_each_policy_in_one_table(self) -> None:
        for policy in self.form.policies:
            for table, shift, rights, flags, what in self._pages(policy):
                for access in Access:
                    table.map(0, 1 << shift, shift, rights, accessed=flags[0], dirty=flags[1])
                    end = ended(lambda of=table, kind=access: of.translate(5, kind))  # type: ignore[misc]
                    permitted = bool(rights & access)
                    wanted = after(policy, access, flags) if permitted else None
                    name = f"{what}, a {access.label}"
                    if wanted is None:
                        kind = FaultKind.ACCESSED_DIRTY if permitted else FaultKind.PERMISSION
                        equal(getattr(end, "kind", end), kind, name)
                    else:
                        found = (end.address, end.rights, end.accessed, end.dirty) if isinstance(end, Reached) else end
                        equal(found, ((1 << shift) + 5, rights, *wanted), name)
                    equal(table.flags(0), flags if wanted is None else wanted, f"{name}: the word afterwards")
                    again = ended(lambda of=table, kind=access: of.translate(5, kind))  # type: ignore[misc]
                    equal(type(again), type(end), f"{name}, again")

    def test_only_the_page_that_was_accessed(self) -> None:
        applies(AccessedDirty.UPDATE in self.form.policies, UPDATES_NOTHING)
        for variant in self.arch.variants:
            table = self.arch.make_table(AccessedDirty.UPDATE, variant)
            shift, rights = min(table.page_shifts), self.most_rights()
            for page in range(3):
                table.map(page << shift, page + 1 << shift, shift, rights, accessed=False, dirty=False)
            table.translate(1 << shift, Access.STORE if rights & Access.STORE else self.access_for(rights))
            equal([table.flags(page << shift)[0] for page in range(3)], [False, True, False], "accessed, page by page")


class InBothStages(Topic):
    """Accessed and dirty of two stages."""

    needs = (Feature.ACCESSED_DIRTY, Feature.TWO_STAGES)

    def test_each_policy_in_both_stages(self) -> None:
        rights = self.most_rights()
        for policy in self.form.policies:
            both = self.arch.make_two_stages(policy)
            shift = min(both.page_shifts)
            middle = both.data
            for inner, outer, access in itertools.product(FLAGS, FLAGS, Access):
                both.map(Stage.INNER, 0, middle, shift, rights, accessed=inner[0], dirty=inner[1])
                both.map(Stage.OUTER, middle, 3 << shift, shift, rights, accessed=outer[0], dirty=outer[1])
                what = f"{policy.value}, inner {inner}, outer {outer}, a {access.label}"
                first, second = after(policy, access, inner), after(policy, access, outer)
                end = both.access(access, 5)
                expected: Landed | StageFault = Landed((3 << shift) + 5, shift, rights)
                if first is None:
                    expected = StageFault(Stage.INNER, FaultKind.ACCESSED_DIRTY, access, 5)
                elif second is None:
                    expected = StageFault(Stage.OUTER, FaultKind.ACCESSED_DIRTY, access, middle + 5)
                equal(end, expected, what)
                equal(both.flags(Stage.INNER, 0), first or inner, f"{what}: the inner word")
                if first is not None:
                    equal(both.flags(Stage.OUTER, middle), second or outer, f"{what}: the outer word")

    def test_reading_the_inner_table_makes_the_outer_page_accessed(self) -> None:
        rights = self.most_rights()
        for policy in self.form.policies:
            both = self.arch.make_two_stages(policy)
            shift = min(both.page_shifts)
            both.map(Stage.INNER, 0, both.data, shift, rights)
            both.map(Stage.OUTER, both.data, 3 << shift, shift, rights)
            for at in both.words_read(0):
                both.table_page(at, accessed=False)
                end = both.access(self.access_for(rights), 0)
                what = f"{policy.value}, a word at {at:#x} of the inner table"
                if policy is AccessedDirty.FAULT:
                    found = (end.stage, end.kind, end.access, end.implicit) if isinstance(end, StageFault) else end
                    tried = both.implicit_access(self.access_for(rights))
                    equal(found, (Stage.OUTER, FaultKind.ACCESSED_DIRTY, tried, True), what)
                else:
                    equal(end, Landed(3 << shift, shift, rights), what)
                accessed = policy is AccessedDirty.UPDATE
                equal(both.flags(Stage.OUTER, at), (accessed, False), f"{what}: its page's flags")
                both.table_page(at)
