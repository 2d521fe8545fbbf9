"""Virtual pages as single numbers: what a nested hash guest's shadow is addressed by.

A virtual address alone does not say how it is hashed. So a number has, above the 78 bits of the address, the segment's
size and the base page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.errors import OutsideMemoryError
from nestmmu.faults import Fault, FaultKind
from nestmmu.mappings import Mapping
from nestmmu_ppc64_hpt.hashing import Segment, segment_of, vsid_word
from nestmmu_ppc64_hpt.hpte import R_C, R_R, R_WIMG, real_page
from nestmmu_ppc64_hpt.protection import execute_permissions, page_permissions
from nestmmu_ppc64_hpt.table import STAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu_ppc64_hpt.hashing import VirtualPage
    from nestmmu_ppc64_hpt.table import HashTable

ADDRESS_BITS = 78
ADDRESS = (1 << ADDRESS_BITS) - 1
_1T_BIT = 90
_BASE_SHIFT = 96
_SEGMENT_256M, _SEGMENT_1T = 28, 40


def number_of(segment: Segment, address: int) -> int:
    """Return the number of an effective or virtual address in a segment."""
    return _number(segment.virtual(address), segment.shift, segment.base_shift)


def page_number(page: VirtualPage) -> int:
    """Return the number of a page's first address."""
    return _number(page.address, page.segment_shift, page.base_shift)


def _number(address: int, segment_shift: int, base_shift: int) -> int:
    return address | (segment_shift == _SEGMENT_1T) << _1T_BIT | base_shift << _BASE_SHIFT


def segment_and_address(number: int) -> tuple[Segment | None, int]:
    """Return (segment without keys, virtual address) of a number; None for a page size that there is not."""
    address = number & ADDRESS
    shift = _SEGMENT_1T if number >> _1T_BIT & 1 else _SEGMENT_256M
    try:
        return segment_of(vsid_word(address >> shift, shift, number >> _BASE_SHIFT)), address
    except KeyError:
        return None, address


class NumberedTable:
    """A hash table, looked up by numbers: L1's for an L2, as its host reads it."""

    def __init__(self, table: HashTable) -> None:
        self.hash_table = table

    def lookup(self, address: int, access: Access = Access.LOAD) -> Mapping:
        """Return the mapping of a virtual page, whatever it permits; nothing is updated.

        :param address: its number.
        :raises Fault: NOT_PRESENT, UNREADABLE, or MALFORMED for a page size that there is not.
        """
        segment, virtual = segment_and_address(address)
        if segment is None:
            raise Fault(FaultKind.MALFORMED, STAGE, access, address)
        try:
            found = self.hash_table.search(segment, virtual)
        except OutsideMemoryError:
            raise Fault(FaultKind.UNREADABLE, STAGE, access, address) from None
        if found is None:
            raise Fault(FaultKind.NOT_PRESENT, STAGE, access, address)
        return leaf(self.hash_table, found.slot, found.r, found.page_shift, address)

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[Mapping]:
        """Yield the page of every valid entry that maps numbers in [``start``, ``end``), slot by slot."""
        for slot, v, r in list(self.hash_table.valid()):
            page = self.hash_table.page(slot, v, r)
            if page is None:
                continue
            number = page_number(page)
            if number + (1 << page.page_shift) > start and (end is None or number < end):
                yield leaf(self.hash_table, slot, r, page.page_shift, number)


def leaf(table: HashTable, slot: int, r: int, page_shift: int, number: int) -> Mapping:
    """Return an entry as a mapping of a number; its permissions are those of storage key 0."""
    offset = number & (1 << page_shift) - 1
    return Mapping(
        number, real_page(r, page_shift) | offset, page_shift,
        page_permissions(r, key=False) & execute_permissions(r), bool(r & R_R), bool(r & R_C), r & R_WIMG,
        table.slot_address(slot), r,
    )  # fmt: skip
