"""A table in memory: what a search finds and how much it reads, entries by slot, and tables that cannot be."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.memory import PhysicalMemory
from nestmmu_ppc64_hpt.hashing import segment_of
from nestmmu_ppc64_hpt.slb import Slb
from nestmmu_ppc64_hpt.table import HashTable

if TYPE_CHECKING:
    from nestmmu_ppc64_hpt.hashing import Segment

BASE = 0x40_0000
ORDER = 18
PTEGS = 1 << ORDER - 7
VALID, SECONDARY, LARGE = 1, 2, 4
SIZES = {(12, 12): None, (12, 16): 7, (12, 24): 0x38, (16, 16): 1, (16, 24): 8, (24, 24): 0, (34, 34): 3}
"""The LP byte of each pair of base and actual page; None: L = 0."""
LLP = {12: 0, 16: 0x110, 24: 0x100, 34: 0x120}
VSID, OFFSET = 0x123456, 0x0ABC5000
WORD = VSID << 12
PRIMARY, OTHER = 0x129F93 & PTEGS - 1, ~0x129F93 & PTEGS - 1
"""The PTEGs of the first worked row, in a table of 2**18 bytes."""
V = VSID << 12 | 0xA80 | VALID
"""Its doubleword 0: AVPN is the virtual address without its low 23 bits, at bit 7."""


def raw(memory: PhysicalMemory, slot: int, first: int, second: int) -> None:
    """Store an entry as POWER9 has it in memory."""
    memory.write(BASE + 16 * slot, struct.pack(">QQ", first, second))


def table_of(*entries: tuple[int, int, int]) -> HashTable:
    memory = PhysicalMemory()
    for slot, first, second in entries:
        raw(memory, slot, first, second)
    return HashTable(memory, BASE, ORDER)


def segment(word: int = WORD) -> Segment:
    found = segment_of(word)
    assert found is not None
    return found


class TestReferences:
    @pytest.mark.parametrize("place", range(16))
    def test_entries_read_by_the_place_of_the_match(self, place: int) -> None:
        slot = PRIMARY * 8 + place if place < 8 else OTHER * 8 + place - 8
        table = table_of((slot, V | (SECONDARY if place > 7 else 0), 0x5000192))
        found = table.search(segment(), OFFSET)
        assert found is not None
        assert (found.slot, found.references, found.page_shift) == (slot, place + 1, 12)
        assert found.output(OFFSET | 0x123) == 0x5000123

    def test_the_first_match_counts_and_primary_before_secondary(self) -> None:
        table = table_of(
            (PRIMARY * 8 + 5, V, 0x3000192), (PRIMARY * 8 + 2, V, 0x2000192), (OTHER * 8, V | SECONDARY, 0x1000192)
        )
        found = table.search(segment(), OFFSET)
        assert found is not None
        assert (found.slot, found.references, found.r) == (PRIMARY * 8 + 2, 3, 0x2000192)

    def test_entries_that_almost_match(self) -> None:
        near = [
            (V & ~VALID, 0x192),
            (V | SECONDARY, 0x192),
            (V ^ 0x80, 0x192),
            (V ^ 1 << 51, 0x192),
            (V, 1 << 58 | 0x192),
            (V, 2 << 58 | 0x192),
            (V | LARGE, 0x192),
            (V | LARGE, 0x1192),
        ]
        """Not valid; secondary in the primary PTEG; AVPN; B = 1; B = 2; 16 MiB; 64 KiB in a segment of 4 KiB."""
        table = table_of(*((PRIMARY * 8 + place, *words) for place, words in enumerate(near)), (OTHER * 8, V, 0x192))
        assert table.search(segment(), OFFSET) is None
        raw(table.memory.physical, PRIMARY * 8 + 7, V, 0x7000192)
        found = table.search(segment(), OFFSET)
        assert found is not None
        assert found.references == 8

    def test_reserved_and_software_bits_hide_no_entry(self) -> None:
        """ISA 3.0: IBM bits 0 to 11 of doubleword 0 are reserved, 57 to 60 are software's."""
        table = table_of((PRIMARY * 8, V | 0xFFF0000000000078, 0x4000192))
        found = table.search(segment(), OFFSET)
        assert found is not None
        assert found.v == V | 0x78

    def test_a_vsid_that_no_entry_can_hold_finds_nothing(self) -> None:
        """An entry has 68 bits of virtual address: one for a VSID of 40 bits is not one for a larger VSID."""
        table = table_of(*((PRIMARY * 8 + place, V, 0x192) for place in range(8)))
        assert table.search(segment(WORD | 1 << 52), OFFSET) is None


@pytest.mark.parametrize(("base", "actual"), list(SIZES))
class TestPageSizes:
    def page(self, base: int, actual: int) -> tuple[Segment, int, int, int]:
        """Return (segment, offset, doubleword 0, doubleword 1) of a page of 1 TiB segment 0x765."""
        lp = SIZES[base, actual]
        offset = 0x9A_BCDE_F123
        address = 0x765 << 40 | offset >> base << base
        v = address >> 23 << 7 | VALID | (0 if lp is None else LARGE)
        real = 0x55_5555_5555_5555 >> actual << actual
        return segment(1 << 62 | 0x765 << 24 | LLP[base]), offset, v, 1 << 58 | real | (lp or 0) << 12 | 0x192

    def test_is_found_and_leads_to_its_page(self, base: int, actual: int) -> None:
        one, offset, v, r = self.page(base, actual)
        hashed = 0x765 ^ 0x765 << 25 ^ offset >> base
        table = table_of(((hashed & PTEGS - 1) * 8 + 1, v, r))
        found = table.search(one, 0x1234_0000_0000_0000 | offset)
        assert found is not None
        assert (found.page_shift, found.references) == (actual, 2)
        assert found.output(offset) == 0x55_5555_5555_5555 >> actual << actual | offset & (1 << actual) - 1

    def test_is_not_found_by_a_segment_of_another_base_page(self, base: int, actual: int) -> None:
        _, offset, v, r = self.page(base, actual)
        for other, llp in LLP.items():
            if other != base:
                hashed = 0x765 ^ 0x765 << 25 ^ offset >> other
                address = 0x765 << 40 | offset >> other << other
                match = address >> 23 << 7 | v & 0x7F
                table = table_of(((hashed & PTEGS - 1) * 8, match, r))
                assert table.search(segment(1 << 62 | 0x765 << 24 | llp), offset) is None


@pytest.mark.parametrize("nibble", [2, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15])
def test_an_entry_of_no_page_size_is_passed_over(nibble: int) -> None:
    table = table_of((PRIMARY * 8, V | LARGE, nibble << 12 | 0x192), (PRIMARY * 8 + 1, V, 0x6000192))
    found = table.search(segment(), OFFSET)
    assert found is not None
    assert (found.slot, found.references) == (PRIMARY * 8 + 1, 2)


class TestTablesThatCannotBe:
    @pytest.mark.parametrize("order", [-1, 0, 17, 47, 64])
    def test_orders_below_18_and_above_46(self, order: int) -> None:
        with pytest.raises(NestmmuError, match="order") as error:
            HashTable(PhysicalMemory(), 0, order)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("order", [18, 46])
    def test_the_smallest_and_the_largest(self, order: int) -> None:
        table = HashTable(PhysicalMemory(), 0, order)
        assert table.slots == 1 << order - 4
        assert table.search(segment(), OFFSET) is None

    def test_a_large_table_need_not_be_aligned_to_its_size(self) -> None:
        """CPUs from ISA 2.06 on ask for 256 KiB alone (the kernel's ``HPT_ALIGN_PAGES``)."""
        memory = PhysicalMemory()
        memory.write(0x4_0000 + 16 * 0x4FC98, struct.pack(">QQ", V, 0x5000192))
        found = HashTable(memory, 0x4_0000, 24).search(segment(), OFFSET)
        assert found is not None
        assert (found.slot, found.r) == (0x4FC98, 0x5000192)

    def test_a_base_within_256_kib(self) -> None:
        with pytest.raises(NestmmuError, match="align"):
            HashTable(PhysicalMemory(), 0x2_0000, 18)

    def test_a_table_larger_than_the_memory(self) -> None:
        HashTable(PhysicalMemory(1 << 24), 0, 24)
        with pytest.raises(NestmmuError, match="beyond"):
            HashTable(PhysicalMemory((1 << 24) - 16), 0, 24)
        with pytest.raises(NestmmuError, match="beyond"):
            HashTable(PhysicalMemory(1 << 24), 1 << 24, 24)


class TestEntries:
    def test_are_kept_as_power9_has_them(self) -> None:
        table = table_of()
        table.write(9, 0x4000123456012305, 0x12341192)
        assert table.memory.read(BASE + 9 * 16, 16) == struct.pack(">QQ", 0x123456012305, 1 << 58 | 0x12341192)
        assert table.read(9) == (0x4000123456012305, 0x12341192)

    def test_r_and_c_are_stores_of_one_byte(self) -> None:
        memory = PhysicalMemory()
        raw(memory, 3, V, 0x12345E7F)
        stores = []
        memory.store = lambda *call: stores.append(call)  # type: ignore[method-assign]
        table = HashTable(memory, BASE, ORDER)
        table.set_flags(3, 0x12345E7F, reference=True, change=False)
        table.set_flags(3, 0x12345E7F, reference=False, change=True)
        assert stores == [(BASE + 62, 0x5F, 1, "big"), (BASE + 63, 0xFF, 1, "big")]

    def test_beyond_the_memory(self) -> None:
        memory = PhysicalMemory(BASE + (1 << ORDER))
        table = HashTable(memory, BASE, ORDER)
        with pytest.raises(OutsideMemoryError):
            table.read(table.slots)


@st.composite
def crowded(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[tuple[int, int, int]], list[int]]:
    """Draw (SLB entries, raw entries by slot, addresses), all of few PTEGs.

    The addresses' pages are put into slots of their own PTEGs, primary and secondary, often several into one,
    with bits of them changed; the rest of these PTEGs is filled with words that are almost right.
    """
    slb, addresses, entries = [], [], {}
    for index in range(draw(st.integers(1, 4))):
        shift = draw(st.sampled_from([28, 40]))
        base = draw(st.sampled_from([12, 16, 24] if shift == 28 else [12, 16, 24, 34]))
        vsid = draw(st.integers(0, 7) | st.integers(0, (1 << 28) - 1))
        esid = index << 40 | draw(st.integers(0, 3)) << 28 if shift == 28 else index << 40
        slb.append((esid | 0x08000000, (shift == 40) << 62 | vsid << (24 if shift == 40 else 12) | LLP[base]))
        for _ in range(draw(st.integers(1, 6))):
            offset = draw(st.integers(0, 3)) << draw(st.sampled_from([12, 16, 23, 24, 27])) & (1 << shift) - 1
            addresses.append(esid | offset | 0x123)
            hashed = vsid ^ (vsid << 25 if shift == 40 else 0) ^ offset >> base
            secondary = draw(st.booleans())
            slot = ((~hashed if secondary else hashed) & PTEGS - 1) * 8 + draw(st.integers(0, 7))
            right = [lp for (of, _), lp in SIZES.items() if of == base]
            lp = draw(st.sampled_from(right) | st.sampled_from([None, 0, 1, 2, 3, 7, 8, 0x38, 0x31]))
            v = (vsid << shift | offset >> base << base) >> 23 << 7 | VALID | (SECONDARY if secondary else 0)
            v ^= draw(st.sampled_from([0, 0, 0, 0, VALID, SECONDARY, 0x80, 0x8, 1 << 40, 1 << 55]))
            r = (shift == 40) << 58 | draw(st.integers(0, 255)) << 34 | (lp or 0) << 12
            r ^= draw(st.sampled_from([0, 0, 0, 0, 1 << 58, 1 << 59, 1 << 20]))
            entries[slot] = (v | (0 if lp is None else LARGE), r | 0x192)
    return slb, [(slot, *words) for slot, words in entries.items()], addresses


def brute_force(table: list[tuple[int, int, int]], slb: list[tuple[int, int]], address: int) -> tuple[int, int] | None:
    """Return (slot, actual page shift), having looked at every entry of the table: by the ISA's words alone.

    An entry maps an address if it is valid, of the segment's size, virtual address and base page, and lies in one of
    the two PTEGs of the address; of those that do, the least in (primary before secondary, place) counts.
    """
    matches = []
    for esid, word in slb:
        size = word >> 62
        shift = 40 if size else 28
        if address >> shift != esid >> shift:
            continue
        vsid = (word & (1 << 62) - 1) >> (24 if size else 12)
        base = next(base for base, llp in LLP.items() if llp == word & 0x130)
        offset = address & (1 << shift) - 1
        virtual = (vsid << shift | offset) >> base << base
        hashed = vsid ^ offset >> base ^ (vsid << 25 if size else 0)
        for slot, v, r in table:
            actual = _actual(base, v, r)
            avpn = (v & 0x000FFFFFFFFFFF80) << 16
            if not v & VALID or r >> 58 & 3 != size or avpn != virtual >> 23 << 23 or actual is None:
                continue
            secondary = bool(v & SECONDARY)
            if slot >> 3 == (~hashed if secondary else hashed) % PTEGS:
                matches.append((secondary, slot & 7, slot, actual))
        break
    return min(matches)[2:] if matches else None


def _actual(base: int, v: int, r: int) -> int | None:
    if not v & LARGE:
        return 12 if base == 12 else None
    page = r & 0x03FFFFFFFFFFF000
    for (of, actual), lp in SIZES.items():
        if of == base and lp is not None and page % (1 << actual) == lp << 12:
            return actual
    return None


@given(crowded())
def test_a_search_agrees_with_looking_at_every_entry(
    case: tuple[list[tuple[int, int]], list[tuple[int, int, int]], list[int]],
) -> None:
    slb, entries, addresses = case
    table = table_of(*entries)
    lookup = Slb(slb).lookup
    for address in addresses:
        one = lookup(address)
        assert one is not None
        found = table.search(one, address)
        expected = brute_force(entries, slb, address)
        assert (None if found is None else (found.slot, found.page_shift)) == expected
        if found is not None:
            secondary = 8 if found.v & SECONDARY else 0
            assert found.references == secondary + found.slot % 8 + 1
