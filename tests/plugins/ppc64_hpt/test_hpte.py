"""Page sizes, and the entry in both of its formats: section 3.3 of the reference."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu_ppc64_hpt.hpte import ISA_2, ISA_3_0, key_bits, key_of, malformation, real_page, segment_shift
from nestmmu_ppc64_hpt.pages import actual_shift, lp_bits, page_pair

L = 0x4
WORDS = st.integers(0, (1 << 64) - 1)
SHIFTS = (12, 16, 24, 34)
ENCODED = {
    (12, 12): (0, 0),
    (12, 16): (L, 0x07),
    (12, 24): (L, 0x38),
    (16, 16): (L, 0x01),
    (16, 24): (L, 0x08),
    (24, 24): (L, 0x00),
    (34, 34): (L, 0x03),
}
"""L, and the LP byte at r >> 12."""


@pytest.mark.parametrize(("base", "actual"), list(itertools.product(SHIFTS, SHIFTS)))
def test_each_pair_has_its_encoding_or_there_is_none(base: int, actual: int) -> None:
    if (base, actual) not in ENCODED:
        with pytest.raises(KeyError):
            lp_bits(base, actual)
        return
    large, penc = ENCODED[base, actual]
    assert lp_bits(base, actual) == (large, penc << 12)
    assert page_pair(large, penc << 12) == (base, actual)


@pytest.mark.parametrize(("base", "actual"), list(ENCODED))
def test_an_entry_is_of_one_base_page_alone(base: int, actual: int) -> None:
    large, penc = ENCODED[base, actual]
    met = {other: actual_shift(other, large, penc << 12) for other in SHIFTS}
    assert met == {other: actual if other == base else None for other in SHIFTS}


@pytest.mark.parametrize("high", range(16))
def test_a_64k_page_has_four_bits_of_its_address_above_its_encoding(high: int) -> None:
    r = high << 16 | 0x1000
    assert actual_shift(16, L, r) == 16
    assert page_pair(L, r) == (16, 16)
    assert real_page(r, 16) == high << 16


@pytest.mark.parametrize("nibble", [2, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15])
def test_encodings_that_mean_nothing(nibble: int) -> None:
    for high in range(16):
        r = high << 16 | nibble << 12
        assert page_pair(L, r) is None
        assert {actual_shift(base, L, r) for base in SHIFTS} == {None}


def test_page_number_bits_within_a_16m_page_match_no_page() -> None:
    assert actual_shift(24, L, 0x0300_0000) == 24
    assert actual_shift(24, L, 0x0310_0000) is None


class TestFormats:
    def test_the_segment_size_moves_between_the_doublewords(self) -> None:
        old = (0x4000123456012305, 0x3000000012341192)
        assert ISA_3_0.stored(*old) == (0x0000123456012305, 0x3400000012341192)
        assert ISA_3_0.loaded(0x0000123456012305, 0x3400000012341192) == old
        assert ISA_2.stored(*old) == old == ISA_2.loaded(*old)

    def test_reserved_bits_of_doubleword_0_are_not_seen(self) -> None:
        """ISA 3.0: IBM bits 0 to 11; where the older format has B and the top of AVPN."""
        assert ISA_3_0.loaded(0xFFF0000000000081, 0x192) == (0x81, 0x192)

    @given(st.integers(0, 3), st.integers(0, (1 << 52) - 1), WORDS)
    def test_there_and_back(self, size: int, common: int, r: int) -> None:
        v, r = size << 62 | common, r & ~0x0C00000000000000
        assert ISA_3_0.loaded(*ISA_3_0.stored(v, r)) == (v, r)

    @given(WORDS, WORDS)
    def test_back_and_there_keeps_all_but_reserved_bits(self, v: int, r: int) -> None:
        assert ISA_3_0.stored(*ISA_3_0.loaded(v, r)) == (v & 0x000FFFFFFFFFFFFF, r)


@pytest.mark.parametrize("key", range(32))
def test_the_key_is_five_bits_in_two_places(key: int) -> None:
    r = (key >> 3) << 60 | (key & 7) << 9
    assert key_bits(key) == r
    assert key_of(r) == key_of(r | 0xCFFFFFFFFFFFF1FF) == key


def test_segment_sizes() -> None:
    assert [segment_shift(size << 62) for size in range(4)] == [28, 40, None, None]


@pytest.mark.parametrize(
    ("v", "r", "problem"),
    [
        pytest.param(0x123456A81, 0x192, None, id="4K"),
        pytest.param(0x4000123456012305, 0x1192, None, id="64K"),
        pytest.param(0x8000000000000081, 0x192, "segment size", id="B = 2"),
        pytest.param(0xC000000000000081, 0x192, "segment size", id="B = 3"),
        pytest.param(0x123456A85, 0x2192, "penc", id="LP nibble 2"),
        pytest.param(0x123456A05, 0x192, None, id="16M"),
        pytest.param(0x123456A85, 0x192, "base page", id="16M with AVPN bit 0x80"),
    ],
)
def test_what_no_access_ever_uses(v: int, r: int, problem: str | None) -> None:
    told = malformation(v, r)
    assert (told is None) == (problem is None)
    assert problem is None or problem in str(told)
