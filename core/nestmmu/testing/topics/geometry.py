"""Geometry: which address bits choose an entry, which pass through, how large a page is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.addresses import ADDRESS_BITS, low_mask
from nestmmu.faults import FaultKind
from nestmmu.formats import InputRule
from nestmmu.testing.checks import equal, require
from nestmmu.testing.ends import Reached, Refused, ended
from nestmmu.testing.topic import Topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu.testing.architecture import Table


def look(table: Table, address: int, access: Access) -> int | FaultKind:
    """Return where an access ends, or why it does not."""
    end = ended(lambda: table.translate(address, access))
    return end.address if isinstance(end, Reached) else end.kind


class Geometry(Topic):
    """One page at a time in an empty table: it, all of it, and nothing else is mapped."""

    def _tables(self) -> Iterator[tuple[Table, int, str]]:
        """Yield an empty table for each form and page size."""
        for variant in self.arch.variants:
            for shift in self.arch.make_table(variant=variant).page_shifts:
                yield self.arch.make_table(variant=variant), shift, f"form {variant}, page of 2**{shift} bytes"

    def _target(self, shift: int) -> int:
        """Return an address of the output space, every bit of it set that a page of this size may have."""
        return low_mask(self.form.output_bits) >> shift << shift

    def test_every_page_reaches_from_its_first_byte_to_its_last(self) -> None:
        rights = self.most_rights()
        access = self.access_for(rights)
        for table, shift, what in self._tables():
            page = 1 << shift
            start, target = page, self._target(shift)
            table.map(self.canonical(start), target, shift, rights)
            for offset in {0, 1, page - 1, *(1 << bit for bit in range(shift))}:
                equal(look(table, start + offset, access), target + offset, f"{what}, byte {offset:#x}")
            mapping = table.translate(start + 5, access)
            found = mapping.page_shift, mapping.page_start, mapping.target_start, mapping.permissions
            equal(found, (shift, start, target, rights), f"{what}: the mapping's size, start, target and permissions")
            for outside in (start - 1, start + page):
                equal(look(table, outside, access), FaultKind.NOT_PRESENT, f"{what}, beside it at {outside:#x}")

    def test_every_bit_of_an_address_chooses_an_entry(self) -> None:
        rights = self.most_rights()
        access = self.access_for(rights)
        for table, shift, what in self._tables():
            wanted = {}
            for place, bit in enumerate(range(shift, self.form.input_bits)):
                address = self.canonical(1 << bit)
                wanted[address] = (place + 1) << shift
                if wanted[address] <= low_mask(self.form.output_bits):
                    table.map(address, wanted[address], shift, rights)
            for address, target in wanted.items():
                if target <= low_mask(self.form.output_bits):
                    equal(look(table, address, access), target, f"{what} at {address:#x}")
            equal(look(table, 0, access), FaultKind.NOT_PRESENT, f"{what}: address 0")

    def test_the_first_and_the_last_page_of_all(self) -> None:
        rights = self.most_rights()
        access = self.access_for(rights)
        for table, shift, what in self._tables():
            last = (1 << self.form.input_bits) - (1 << shift)
            table.map(0, 1 << shift, shift, rights)
            table.map(self.canonical(last), 2 << shift, shift, rights)
            equal(look(table, (1 << shift) - 1, access), (2 << shift) - 1, f"{what}: the first")
            equal(look(table, self.canonical(last) + 1, access), (2 << shift) + 1, f"{what}: the last")

    def test_every_bit_of_a_target_is_kept(self) -> None:
        rights = self.most_rights()
        access = self.access_for(rights)
        for table, shift, what in self._tables():
            for bit in range(shift, self.form.output_bits):
                table.map(0, 1 << bit, shift, rights)
                equal(look(table, 0, access), 1 << bit, f"{what}, target {1 << bit:#x}")

    def test_address_bits_above_the_input(self) -> None:
        rights = self.most_rights()
        access = self.access_for(rights)
        rule, bits = self.form.above_input, self.form.input_bits
        for table, shift, what in self._tables():
            table.map(0, 1 << shift, shift, rights)
            for bit in range(bits, ADDRESS_BITS):
                end = ended(lambda at=1 << bit, of=table: of.translate(at, access))  # type: ignore[misc]
                if rule is InputRule.ANY:
                    equal(getattr(end, "address", end), 1 << shift, f"{what}, address {1 << bit:#x}: ignored")
                else:
                    require(isinstance(end, Refused), f"{what}: address {1 << bit:#x} has to fault, and is {end}")
