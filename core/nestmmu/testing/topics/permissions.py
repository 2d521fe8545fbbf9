"""Permissions: what each set of rights lets each kind of access do, by one table and by two."""

from __future__ import annotations

from nestmmu.access import Access, permission_text
from nestmmu.faults import FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import equal
from nestmmu.testing.ends import Reached, ended
from nestmmu.testing.stages import Landed, Stage, StageFault
from nestmmu.testing.topic import Topic


class Permissions(Topic):
    """The full product of rights and accesses, at every page size."""

    def test_one_table(self) -> None:
        for variant in self.arch.variants:
            table = self.arch.make_table(variant=variant)
            for shift in table.page_shifts:
                for rights in self.form.rights:
                    table.map(0, 1 << shift, shift, rights)
                    for access in Access:
                        end = ended(lambda kind=access, of=table: of.translate(5, kind))  # type: ignore[misc]
                        what = f"2**{shift} bytes of {permission_text(rights)}, a {access.label}"
                        found = end.rights if isinstance(end, Reached) else end.kind
                        equal(found, rights if rights & access else FaultKind.PERMISSION, what)
                table.map(0, 1 << shift, shift, 0)


class BothStages(Topic):
    """The full product of the rights of two stages and accesses."""

    needs = (Feature.TWO_STAGES,)

    def test_the_product_of_both_stages(self) -> None:
        both = self.arch.make_two_stages(AccessedDirty.IGNORE)
        shift = min(both.page_shifts)
        middle, real = both.data, 3 << shift
        for inner in self.form.rights:
            both.map(Stage.INNER, 0, middle, shift, inner)
            for outer in self.form.rights:
                both.map(Stage.OUTER, middle, real, shift, outer)
                for access in Access:
                    what = f"{permission_text(inner)} behind {permission_text(outer)}, a {access.label}"
                    expected: Landed | StageFault = Landed(real + 5, shift, inner & outer)
                    if not inner & access:
                        expected = StageFault(Stage.INNER, FaultKind.PERMISSION, access, 5)
                    elif not outer & access:
                        expected = StageFault(Stage.OUTER, FaultKind.PERMISSION, access, middle + 5)
                    equal(both.access(access, 5), expected, what)
