"""The SLB: lookups, and slbmte, slbie and slbia (section 3.1 of the reference; Power ISA 3.0B, Book III, 5.9.3.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.errors import NestmmuError
from nestmmu_ppc64_hpt.slb import Slb

V = 0x08000000
B_1T = 1 << 62
KS, KP, N, L, CLASS = 0x800, 0x400, 0x200, 0x100, 0x80


def vsid(slb: Slb, address: int) -> int | None:
    segment = slb.lookup(address)
    return None if segment is None else segment.vsid


class TestLookup:
    def test_256_mib(self) -> None:
        slb = Slb([(0xC00000001_0000000 | V, 0x123456 << 12)])
        assert vsid(slb, 0xC00000001_0000000) == vsid(slb, 0xC00000001_FFFFFFF) == 0x123456
        assert vsid(slb, 0xC00000002_0000000) is None
        assert vsid(slb, 0x400000001_0000000) is None, "all 36 bits count"

    def test_1_tib(self) -> None:
        slb = Slb([(0xC0000F_0000000000 | V, B_1T | 0x123456 << 24)])
        assert vsid(slb, 0xC0000F_0000000000) == vsid(slb, 0xC0000F_FFFFFFFFFF) == 0x123456
        assert vsid(slb, 0xC00010_0000000000) is None

    def test_the_first_entry_that_matches(self) -> None:
        slb = Slb([(0, 0), (V, B_1T | 7 << 24), (V | 0x1_0000000, 8 << 12), (V, 9 << 12)])
        assert vsid(slb, 0x1_0000000) == 7
        slb.slbmte(0, 1)
        assert (vsid(slb, 0x1_0000000), vsid(slb, 0)) == (8, 9)

    def test_what_a_segment_says(self) -> None:
        segment = Slb([(V, B_1T | 5 << 24 | KP | N | L | 0x10)]).lookup(0x1234)
        assert segment is not None
        assert (segment.shift, segment.base_shift, segment.no_execute) == (40, 16, True)
        assert (segment.key(problem=True), segment.key(problem=False)) == (True, False)
        assert segment.virtual(0x77_0000_1234) == 5 << 40 | 0x77_0000_1234

    def test_the_last_of_32_entries(self) -> None:
        slb = Slb()
        slb.slbmte(3 << 12, V | 31)
        assert vsid(slb, 0) == 3


class TestSlbmte:
    @pytest.mark.parametrize(
        ("rs", "rb"),
        [
            pytest.param(0, V | 32, id="index 32"),
            pytest.param(0, V | 0xFFF, id="index 4095"),
            pytest.param(2 << 62, V, id="B = 2"),
            pytest.param(3 << 62, V, id="B = 3"),
            pytest.param(L | 0x30, V, id="1 MiB"),
            pytest.param(0x10, V, id="LP without L"),
            pytest.param(0, V | 0x1000, id="a reserved bit of RB"),
        ],
    )
    def test_what_power9_does_not_take_changes_nothing(self, rs: int, rb: int) -> None:
        slb = Slb([(V, 1 << 12)])
        before = slb.words()
        with pytest.raises(NestmmuError) as error:
            slb.slbmte(rs, rb)
        assert "\n" not in str(error.value)
        assert slb.words() == before

    def test_more_entries_than_there_are(self) -> None:
        with pytest.raises(NestmmuError, match="32"):
            Slb([(V | index << 28, index << 12) for index in range(33)])

    def test_reads_back(self) -> None:
        slb = Slb([(V | 0x5_0000000, 0x123456 << 12 | KS | KP)])
        assert slb.words()[:2] == [(V | 0x5_0000000, 0x123456 << 12 | KS | KP), (0, 0)]
        assert len(slb.words()) == 32
        assert slb.slbfee(0x5_1234567) == 0x123456 << 12 | KS | KP
        assert slb.slbfee(0x6_0000000) == 0


class TestSlbie:
    """RB: ESID, class at 0x08000000, B at 0x06000000."""

    def entries(self) -> Slb:
        return Slb([(V, 1 << 12), (V | 0x1_0000000, 2 << 12 | CLASS), (V | 1 << 40, B_1T | 3 << 24)])

    def test_the_entry_of_the_address_alone(self) -> None:
        slb = self.entries()
        slb.slbie(0x1_0000000 | CLASS << 20)
        assert [vsid(slb, address) for address in (0, 0x1_0000000, 1 << 40)] == [1, None, 3]

    def test_entry_0_as_well(self) -> None:
        slb = self.entries()
        slb.slbie(0)
        assert [vsid(slb, address) for address in (0, 0x1_0000000, 1 << 40)] == [None, 2, 3]

    def test_a_segment_of_1_tib_by_any_of_its_addresses(self) -> None:
        slb = self.entries()
        slb.slbie(1 << 40 | 0x35_5000_0000 | 1 << 25)
        assert [vsid(slb, address) for address in (0, 0x1_0000000, 1 << 40)] == [1, 2, None]

    def test_no_entry_of_another_size(self) -> None:
        slb = self.entries()
        slb.slbie(1 << 40)
        slb.slbie(1 << 25)
        assert [vsid(slb, address) for address in (0, 0x1_0000000, 1 << 40)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("ih", "left"),
    [
        (0, [0]),
        (1, [0]),
        (2, [0]),
        (3, [2]),
        (4, []),
        (6, [0]),
        (7, [0, 1, 2]),
    ],
)
def test_slbia_by_its_hint(ih: int, left: list[int]) -> None:
    """Entries 0 and 1 are of class 1, entry 2 is not: 3 is for those of class 1, 4 for all, 7 for none."""
    slb = Slb([(V, 1 << 12 | CLASS), (V | 0x1_0000000, 2 << 12 | CLASS), (V | 0x2_0000000, 3 << 12)])
    slb.slbia(ih)
    assert [index for index in range(3) if vsid(slb, index << 28) is not None] == left


@given(
    st.lists(st.tuples(st.integers(0, 31), st.integers(0, 7), st.booleans(), st.booleans()), max_size=40),
    st.builds(lambda esid, shift: esid << shift | 0xFFF_FFFF, st.integers(0, 7), st.sampled_from([28, 40])),
)
def test_a_lookup_is_a_search_by_index(writes: list[tuple[int, int, bool, bool]], address: int) -> None:
    slb, model = Slb(), dict[int, tuple[int, int, int]]()
    for number, (index, esid, large, valid) in enumerate(writes):
        shift = 40 if large else 28
        slb.slbmte(
            (B_1T if large else 0) | number << (24 if large else 12), esid << shift | (V if valid else 0) | index
        )
        model.pop(index, None)
        if valid:
            model[index] = (esid, shift, number)
    expected = [number for _, (esid, shift, number) in sorted(model.items()) if address >> shift == esid]
    assert vsid(slb, address) == (expected[0] if expected else None)
