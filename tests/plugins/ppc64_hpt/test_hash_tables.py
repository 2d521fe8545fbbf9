"""Hash tables: hashes and entries by the reference's numbers, page sizes, search against brute force, whole tables."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestmmu.access import Access
from nestmmu.errors import NestmmuError
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory
from nestmmu.plugins import Plugins
from nestmmu.vectors import read_vectors
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_SF
from nestmmu_ppc64_hpt.cpu import VECTOR_MACHINE_CHECK
from nestmmu_ppc64_hpt.hashing import Segment, make_v, segment_of, tlbie_rb, vsid_word
from nestmmu_ppc64_hpt.hpte import ISA_2, ISA_3_0
from nestmmu_ppc64_hpt.pages import actual_shift, lp_bits, page_pair
from nestmmu_ppc64_hpt.replay import HashReplayer
from nestmmu_ppc64_hpt.table import HashTable

DATA = Path(__file__).resolve().parents[2] / "data"
BASE = 0x4000_0000
PAIRS = {(12, 12): None, (12, 16): 0x07, (12, 24): 0x38, (16, 16): 0x01, (16, 24): 0x08, (24, 24): 0x00, (34, 34): 0x03}
"""Every pair of base and actual page that POWER9 has, with its penc (reference 3.3); 4 KiB in 4 KiB has L = 0."""


def segment(vsid: int, shift: int = 28, base: int = 12) -> Segment:
    found = segment_of(vsid_word(vsid, shift, base))
    assert found is not None
    return found


def test_all_recorded_accesses_agree() -> None:
    vectors = read_vectors(DATA / "ppc64_hpt.json.gz")
    replayer = HashReplayer(vectors)
    agreed = 0
    for scene in vectors.scenes:
        for recorded in scene.accesses:
            fields, changed = replayer.perform(scene, recorded)
            assert changed == list(recorded.changed)
            left, right = replayer.comparable(dict(recorded.fields), fields)
            assert left == right
            agreed += 1
    assert agreed == 2400


WORKED = [
    pytest.param(0x123456, 0x0ABC5000, 12, 28, 0x129F93, 0x4FC98, 0x123456A81, 0xB0360, 0x123456ABC5000, id="TP1"),
    pytest.param(0x123456, 0x0ABC0000, 16, 28, 0x123EEA, 0x1F750, 0x123456A85, 0xE08A8, 0x123456ABC10C1, id="TP2"),
    pytest.param(0x123456, 0x0A000000, 24, 28, 0x12345C, 0x1A2E0, 0x123456A05, 0xE5D18, 0x123456A000001, id="TP3"),
    pytest.param(
        0x123456, 0x123450000, 16, 40, 0x68AC131713, 0x8B898, 0x4000123456012305, 0x74760, 0x1234560123451151, id="TP4"
    ),
    pytest.param(
        0x1FFFFFF, 0x400000, 24, 40, 0x7FFFFFFFFF, 0xFFFF8, 0x4001FFFFFF000005, 0x0, 0xFFFFFF0000000101, id="TP5"
    ),
]
"""The worked values of reference 3.2, for a table of order 24."""


@pytest.mark.parametrize(("vsid", "offset", "base", "shift", "hash_", "slot", "v", "secondary", "rb"), WORKED)
def test_worked_values(
    vsid: int, offset: int, base: int, shift: int, hash_: int, slot: int, v: int, secondary: int, rb: int
) -> None:
    table = HashTable(PhysicalMemory(), BASE, 24)
    one = segment(vsid, shift, base)
    assert one.hash(offset) == hash_
    assert table.candidates(one, offset) == (slot, secondary)
    assert make_v(one, offset, large=base != 12) == v
    assert tlbie_rb(v, lp_bits(base, base)[1], slot) == rb


@pytest.mark.parametrize(("vsid", "offset", "base", "shift", "hash_", "slot", "v", "secondary", "rb"), WORKED)
def test_rb_of_a_secondary_place_is_the_same_tp6(
    vsid: int, offset: int, base: int, shift: int, hash_: int, slot: int, v: int, secondary: int, rb: int
) -> None:
    del vsid, offset, shift, hash_, slot
    assert tlbie_rb(v | 2, lp_bits(base, base)[1], secondary) == rb


@pytest.mark.parametrize("pair", list(itertools.product((12, 16, 24, 34), repeat=2)))
def test_every_pair_of_page_sizes(pair: tuple[int, int]) -> None:
    if pair not in PAIRS:
        with pytest.raises(KeyError):
            lp_bits(*pair)
        return
    penc = PAIRS[pair]
    large, bits = lp_bits(*pair)
    assert (large, bits) == ((0, 0) if penc is None else (4, penc << 12))
    assert page_pair(large, bits) == pair
    assert actual_shift(pair[0], large, bits) == pair[1]
    others = [base for base in (12, 16, 24, 34) if base != pair[0]]
    assert [actual_shift(base, large, bits) for base in others] == [None] * 3


def test_pencs_that_there_are_not() -> None:
    """Of the 256 bytes, 16 are each of the two 64 KiB pages, and four are others."""
    known = [byte for byte in range(256) if page_pair(4, byte << 12)]
    expected = {byte for byte in range(256) if byte & 0xF in {7, 1}} | {0x38, 0x08, 0x00, 0x03}
    assert set(known) == expected


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_formats_convert_both_ways(v: int, r: int) -> None:
    """Of the older format, ISA 3.0's has no room for AVPN bits above its own, nor for doubleword 1's bits 59:58."""
    v &= 0xC00FFFFFFFFFFFFF
    r &= ~(3 << 58)
    stored = ISA_3_0.stored(v, r)
    assert stored == (v & 0x000FFFFFFFFFFFFF, r | v >> 62 << 58)
    assert ISA_3_0.loaded(*stored) == (v, r)
    assert ISA_2.loaded(*ISA_2.stored(v, r)) == (v, r)


def brute(table: HashTable, one: Segment, offset: int) -> tuple[int, int] | None:
    """Search a whole table by the ISA's words, and return (slot, page shift) of what hardware would find first."""
    raw = table.memory.read(table.base, 1 << table.order)
    groups = 1 << table.order - 7
    vsid, shift, base = one.vsid, one.shift, one.base_shift
    hash_ = (vsid ^ (vsid << 25 if shift == 40 else 0) ^ offset >> base) % (1 << 39)
    found = []
    for slot in range(table.slots):
        first, second = struct.unpack_from(">2Q", raw, 16 * slot)
        if not first & 1 or second >> 58 & 3 != (shift == 40):
            continue
        secondary = bool(first & 2)
        if slot // 8 != (~hash_ if secondary else hash_) % groups:
            continue
        wanted = (vsid << shift | offset >> base << base) >> 23
        if first >> 7 & ((1 << 45) - 1) != wanted % (1 << 45):
            continue
        large, lp = bool(first & 4), second >> 12
        for (of, actual), penc in PAIRS.items():
            low = (1 << actual - 12) - 1
            if of == base and (not large if penc is None else large and lp & low == penc & low and penc <= low):
                found.append((secondary, slot, actual))
    return min(found)[1:] if found else None


OFFSETS = st.sampled_from([page << 12 for page in (0, 1, 16, 17, 0x800, 0x1000, 0x8001)])
PAGES = st.tuples(
    st.integers(0, 3), OFFSETS, st.sampled_from(list(PAIRS)[:6]), st.sampled_from([28, 40]), st.booleans()
)


@settings(max_examples=60)
@given(st.lists(PAGES, min_size=1, max_size=40), st.data())
def test_a_search_finds_what_a_search_of_everything_finds(
    pages: list[tuple[int, int, tuple[int, int], int, bool]], data: st.DataObject
) -> None:
    """VSIDs that differ by multiples of the number of PTEGs collide in every PTEG."""
    table = HashTable(PhysicalMemory(), BASE, 18)
    segments = {(vsid, shift, base): segment(vsid << 11, shift, base)
                for vsid in range(4) for shift in (28, 40) for base in (12, 16, 24)}  # fmt: skip
    for number, (vsid, offset, pair, shift, secondary) in enumerate(pages):
        one = segments[vsid, shift, pair[0]]
        large, penc = lp_bits(*pair)
        first = table.candidates(one, offset)[secondary]
        slot = table.free_slot(first)
        if slot is not None:
            v = make_v(one, offset, large=bool(large), secondary=secondary)
            table.write(slot, v, number << 34 & 0x0FFFFFFFFFFFF000 | penc | 2)
    for (vsid, shift, base), one in segments.items():
        offset = data.draw(OFFSETS, label=f"{vsid} {shift} {base}")
        found = table.search(one, offset)
        assert (None if found is None else (found.slot, found.page_shift)) == brute(table, one, offset)


@pytest.mark.parametrize("place", range(16))
def test_references_by_the_place_in_both_ptegs(place: int) -> None:
    table = HashTable(PhysicalMemory(), BASE, 18)
    one = segment(0x123)
    first = table.candidates(one, 0x5000)[place >= 8]
    v = make_v(one, 0x5000, large=False, secondary=place >= 8)
    table.write(first + place % 8, v, 0x7000 | 2)
    found = table.search(one, 0x5000)
    assert found is not None
    assert (found.slot, found.references) == (first + place % 8, place + 1)


@pytest.mark.parametrize("order", [17, 47, 0, -1])
def test_orders_that_there_are_not(order: int) -> None:
    with pytest.raises(NestmmuError, match="from 18 to 46"):
        HashTable(PhysicalMemory(), 0, order)


def test_a_table_that_ends_beyond_the_memory() -> None:
    with pytest.raises(NestmmuError, match="beyond the memory"):
        HashTable(PhysicalMemory(1 << 20), 0, 21)


@pytest.mark.parametrize("dw0", [29, 0x1F, 1 << 63 | 6])
def test_a_pate_that_is_no_hash_table_is_a_machine_check(dw0: int) -> None:
    """HTABSIZE above 28, or HR."""
    memory = PhysicalMemory()
    memory.store(0x100_0000, dw0, 8, "big")
    cpu = Plugins().cpu("ppc64_hpt", {"msr": MSR_SF, "ptcr": 0x100_0000}, memory, AccessedDirty.UPDATE)
    result = cpu.access(Access.LOAD, 0)
    assert isinstance(result, Interrupt)
    assert result.vector == VECTOR_MACHINE_CHECK


@pytest.mark.parametrize("r", [0x2002, 0xF002, 0x9002])
def test_an_entry_of_no_page_size_maps_nothing(r: int) -> None:
    table = HashTable(PhysicalMemory(), BASE, 18)
    one = segment(0x123)
    table.write(table.candidates(one, 0)[0], make_v(one, 0, large=True), r)
    assert table.search(one, 0) is None
