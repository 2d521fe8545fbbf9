"""Hashes, PTEGs, doubleword 0 and tlbie: the worked rows of the reference (3.2), and what holds for all pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu_ppc64_hpt.hashing import group_of, make_v, page_at, segment_of, tlbie_rb, vsid_word
from nestmmu_ppc64_hpt.pages import PENC, lp_bits

if TYPE_CHECKING:
    from nestmmu_ppc64_hpt.hashing import Segment

MIB_256, TIB = 28, 40
ORDER = 24
MASK = 0x1FFFF
"""PTEGs of a table of 2**24 bytes, less 1."""
PAIRS = [(12, 12), *PENC]


class Row(NamedTuple):
    """One worked row: a page, and all that is computed from it."""

    vsid: int
    offset: int
    base_shift: int
    segment_shift: int
    hashed: int
    primary: int
    v: int
    secondary: int
    rb: int


ROWS = {
    "TP1": Row(0x123456, 0x0ABC5000, 12, MIB_256, 0x129F93, 0x4FC98, 0x123456A81, 0xB0360, 0x123456ABC5000),
    "TP2": Row(0x123456, 0x0ABC0000, 16, MIB_256, 0x123EEA, 0x1F750, 0x123456A85, 0xE08A8, 0x123456ABC10C1),
    "TP3": Row(0x123456, 0x0A000000, 24, MIB_256, 0x12345C, 0x1A2E0, 0x123456A05, 0xE5D18, 0x123456A000001),
    "TP4": Row(0x123456, 0x123450000, 16, TIB, 0x68AC131713, 0x8B898, 0x4000123456012305, 0x74760, 0x1234560123451151),
    "TP5": Row(0x1FFFFFF, 0x400000, 24, TIB, 0x7FFFFFFFFF, 0xFFFF8, 0x4001FFFFFF000005, 0x0, 0xFFFFFF0000000101),
}


def segment(vsid: int, segment_shift: int, base_shift: int) -> Segment:
    found = segment_of(vsid_word(vsid, segment_shift, base_shift))
    assert found is not None
    return found


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in ROWS.items()])
class TestWorkedRows:
    def test_hash_and_both_ptegs(self, row: Row) -> None:
        hashed = segment(row.vsid, row.segment_shift, row.base_shift).hash(row.offset)
        assert hashed == row.hashed
        assert group_of(hashed, MASK, secondary=False) * 8 == row.primary
        assert group_of(hashed, MASK, secondary=True) * 8 == row.secondary

    def test_doubleword_0(self, row: Row) -> None:
        large = row.base_shift > 12
        one = segment(row.vsid, row.segment_shift, row.base_shift)
        assert make_v(one, row.offset, large=large) == row.v
        assert make_v(one, row.offset, large=large, secondary=True) == row.v | 2

    def test_rb_of_both_places_tp6(self, row: Row) -> None:
        r = lp_bits(row.base_shift, row.base_shift)[1]
        assert tlbie_rb(row.v, r, row.primary) == row.rb
        assert tlbie_rb(row.v | 2, r, row.secondary) == row.rb
        assert tlbie_rb(row.v, r, row.primary + 7) == row.rb, "whichever slot of the PTEG it is"

    def test_the_page_again_from_its_slot(self, row: Row) -> None:
        r = lp_bits(row.base_shift, row.base_shift)[1]
        expected = row.offset >> row.base_shift << row.base_shift
        for slot, v in ((row.primary + 3, row.v), (row.secondary + 5, row.v | 2)):
            page = page_at(slot, v, r, MASK)
            assert page is not None
            assert (page.vsid, page.offset, page.segment_shift) == (row.vsid, expected, row.segment_shift)


def test_reserved_words_are_no_segment() -> None:
    assert segment_of(0x8000000123456000) is None
    assert segment_of(0xC000000123456000) is None
    for llp in (0x10, 0x20, 0x30, 0x130):
        assert segment_of(0x123456000 | llp) is None, "L = 0 with an LP, and L = 1 with 1 MiB, are no page sizes"


def test_only_39_bits_are_hashed() -> None:
    assert segment((1 << 40) | 0x55, MIB_256, 12).hash(0) == 0x55
    assert segment(1 << 14, TIB, 12).hash(0) == 1 << 14, "bit 14 + 25 is the 40th"
    assert segment(1 << 13, TIB, 12).hash(0) == 1 << 38 | 1 << 13


@st.composite
def pages(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Draw (VSID, offset, segment shift, base shift, actual shift); the offset that of a base page."""
    base, actual = draw(st.sampled_from(PAIRS))
    shift = draw(st.sampled_from([MIB_256, TIB] if actual <= MIB_256 else [TIB]))
    vsid = draw(st.integers(0, (1 << (40 if shift == MIB_256 else 28)) - 1))
    return vsid, draw(st.integers(0, (1 << shift) - 1)) >> base << base, shift, base, actual


@given(pages(), st.integers(18, 46), st.integers(0, 7))
def test_an_entry_tells_its_page_wherever_it_lies(page: tuple[int, int, int, int, int], order: int, place: int) -> None:
    vsid, offset, shift, base, actual = page
    mask = (1 << order - 7) - 1
    large, penc = lp_bits(base, actual)
    one = segment(vsid, shift, base)
    found = []
    for secondary in (False, True):
        slot = group_of(one.hash(offset), mask, secondary=secondary) * 8 + place
        v = make_v(one, offset, large=bool(large), secondary=secondary)
        found.append((page_at(slot, v, penc, mask), tlbie_rb(v, penc, slot)))
    assert found[0] == found[1], "a page is one page in both of its places, and one tlbie names it"
    told, _ = found[0]
    assert told is not None
    assert (told.vsid, told.segment_shift, told.base_shift, told.page_shift) == (vsid, shift, base, actual)
    assert told.offset == offset
    assert told.address == vsid << shift | offset >> actual << actual


@given(pages(), pages())
def test_tlbies_tell_pages_apart(first: tuple[int, int, int, int, int], second: tuple[int, int, int, int, int]) -> None:
    """RB has 4 KiB pages of a 4 KiB base to the page: two of them have one RB only if they are one page."""
    rbs = []
    for vsid, offset, shift, _, _ in (first, second):
        one = segment(vsid & 0xFFFFFF, shift, 12)
        slot = group_of(one.hash(offset), MASK, secondary=False) * 8
        rbs.append((tlbie_rb(make_v(one, offset, large=False), 0, slot), (vsid & 0xFFFFFF, shift, offset >> 12)))
    assert (rbs[0][0] == rbs[1][0]) == (rbs[0][1] == rbs[1][1])


def test_no_tlbie_names_an_entry_of_no_page_size() -> None:
    with pytest.raises(ValueError, match="no page size"):
        tlbie_rb(0x123456A85, 0x2000, 0x1F750)
