"""Batch: many translations at once come to what they come to one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nestmmu.access import Access
from nestmmu.addresses import ADDRESS_BITS
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import applies, equal, require
from nestmmu.testing.topic import UPDATES_NOTHING, Topic

if TYPE_CHECKING:
    import random

    from nestmmu.testing.architecture import Table
    from nestmmu.translations import Translations

_PAGES, _FAR, _ADDRESSES = 30, 12, 400


class Batch(Topic):
    """Random tables, and addresses in, beside and far from their pages."""

    needs = (Feature.BATCH,)

    def _fill(self, variant: int, chance: random.Random, policy: AccessedDirty) -> tuple[Table, list[int]]:
        table, starts = self.arch.make_table(policy, variant), []
        bits = self.form.input_bits
        # Pages far apart come together where pages are found by a hash of the address.
        far = [page << max(bits - 5, table.page_shifts[-1]) for page in range(_FAR)]
        for place in range(_PAGES + _FAR):
            shift = chance.choice(table.page_shifts)
            start = far[place] if place < _FAR else chance.getrandbits(chance.choice((shift + 3, bits)))
            start = self.canonical(start % (1 << bits) >> shift << shift)
            flags = {"accessed": chance.random() < 0.7, "dirty": chance.random() < 0.7}  # noqa: PLR2004  (mostly)
            target = chance.getrandbits(self.form.output_bits) >> shift << shift
            table.map(start, target, shift, chance.choice(self.form.rights), **flags)
            starts.append(start)
        return table, starts

    def _addresses(self, chance: random.Random, starts: list[int]) -> list[int]:
        near = [chance.choice(starts) ^ chance.getrandbits(14) for _ in range(_ADDRESSES)]
        # One in eight may be an address that the architecture does not take.
        bits, found = self.form.input_bits, []
        for place, one in enumerate(near):
            at = one % (1 << bits)
            if place % 8:
                at = self.canonical(at)
            elif place % 16 == 0 and bits < ADDRESS_BITS:
                at |= 1 << chance.randrange(bits, ADDRESS_BITS)
            found.append(at)
        return found

    def _one(self, table: Table, address: int, access: Access) -> tuple[Any, ...]:
        try:
            found = table.translate(address, access)
        except Fault as fault:
            return (fault.kind, fault.level, fault.implicit)
        return found.output_address, found.page_shift, found.permissions

    def _of_many(self, many: Translations, index: int) -> tuple[Any, ...]:
        fault = many.fault(index)
        if fault is not None:
            return (fault.kind, fault.level, fault.implicit)
        return int(many.outputs[index]), int(many.shifts[index]), int(many.permissions[index])

    def test_many_are_as_one_by_one(self) -> None:
        for policy in (AccessedDirty.IGNORE, AccessedDirty.FAULT):
            if policy not in self.form.policies:
                continue
            for variant in self.arch.variants:
                chance = self.random(f"batch {policy.value} {variant}")
                table, starts = self._fill(variant, chance, policy)
                addresses = self._addresses(chance, starts)
                for access in Access:
                    many = table.translate_many(np.array(addresses, np.uint64), access, update=False)
                    equal(len(many), len(addresses), "results of a batch")
                    for index, address in enumerate(addresses):
                        what = f"seed {self.seed}, form {variant}, {policy.value}, a {access.label} of {address:#x}"
                        equal(self._of_many(many, index), self._one(table, address, access), what)

    def test_flags_that_many_accesses_set(self) -> None:
        applies(AccessedDirty.UPDATE in self.form.policies, UPDATES_NOTHING)
        for variant in self.arch.variants:
            chance = self.random(f"batch, updated {variant}")
            table, starts = self._fill(variant, chance, AccessedDirty.UPDATE)
            addresses = self._addresses(chance, starts)
            before = [table.flags(address) for address in addresses]
            for access in (Access.LOAD, Access.STORE):
                table.translate_many(np.array(addresses, np.uint64), access, update=False)
                equal([table.flags(address) for address in addresses], before, "flags, where nothing is to be updated")
                many = table.translate_many(np.array(addresses, np.uint64), access, update=True)
                for index, address in enumerate(addresses):
                    if many.fault(index) is None:
                        wanted = (True, access is Access.STORE or before[index][1])
                        what = f"seed {self.seed}, form {variant}: flags after a {access.label} of {address:#x}"
                        equal(table.flags(address), wanted, what)
                before = [table.flags(address) for address in addresses]

    def test_an_empty_table_and_no_addresses(self) -> None:
        table = self.arch.make_table()
        none = table.translate_many(np.zeros(0, np.uint64), Access.LOAD, update=False)
        equal(len(none), 0, "results of an empty batch")
        one = table.translate_many(np.zeros(1, np.uint64), Access.LOAD, update=False)
        fault = one.fault(0)
        require(fault is not None and fault.kind is FaultKind.NOT_PRESENT, "an empty table maps nothing")
