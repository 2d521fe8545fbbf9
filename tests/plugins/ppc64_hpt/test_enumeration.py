"""A whole table at once: the same as entry by entry, and no more of memory than was ever written."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestmmu.errors import OutsideMemoryError, TooLargeError
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu_ppc64_hpt.enumeration import enumerate_table
from nestmmu_ppc64_hpt.hashing import page_at
from nestmmu_ppc64_hpt.table import HashTable

BASE, ORDER = 0x4000_0000, 24
WORDS = st.integers(0, (1 << 64) - 1)


def table_of(words: dict[int, tuple[int, int]], order: int = ORDER) -> HashTable:
    memory = PhysicalMemory()
    for slot, (first, second) in words.items():
        memory.write(BASE + 16 * slot, struct.pack(">QQ", first, second))
    return HashTable(memory, BASE, order)


def test_the_worked_rows_come_back_by_slot() -> None:
    """Section 3.2 of the reference: as POWER9 has them in memory; two in their secondary places."""
    table = table_of({
        0x4FC98: (0x123456A81, 0x0192),
        0x1F751: (0x123456A85, 0x4441192),
        0xE5D1F: (0x123456A07, 0x7000192),
        0x74764: (0x123456012307, 1 << 58 | 0x5551192),
        0xFFFFF: (0x1FFFFFF000005, 1 << 58 | 0x8000192),
        0x4FC99: (0x123456A80, 0x0192),
    })  # fmt: skip
    found = enumerate_table(table)
    rows = zip(found.slots.tolist(), found.vsids.tolist(), found.offsets.tolist(), found.real.tolist(), strict=True)
    assert list(rows) == [
        (0x1F751, 0x123456, 0x0ABC0000, 0x4440000),
        (0x4FC98, 0x123456, 0x0ABC5000, 0),
        (0x74764, 0x123456, 0x123450000, 0x5550000),
        (0xE5D1F, 0x123456, 0x0A000000, 0x7000000),
        (0xFFFFF, 0x1FFFFFF, 0, 0x8000000),
    ]
    assert found.segment_shifts.tolist() == [28, 28, 40, 28, 40]
    assert found.base_shifts.tolist() == found.page_shifts.tolist() == [16, 12, 16, 24, 24]
    assert found.v.tolist()[2] == 0x4000123456012307
    assert found.r.tolist()[2] == 0x5551192
    assert (found.slots.dtype, found.base_shifts.dtype) == (np.dtype(np.uint64), np.dtype(np.uint8))
    assert len(found) == 5


@settings(max_examples=50)
@given(st.dictionaries(st.integers(0, (1 << 14) - 1), st.tuples(WORDS, WORDS), max_size=40))
def test_any_words_are_read_as_each_entry_is(words: dict[int, tuple[int, int]]) -> None:
    table = table_of(words, 18)
    found = enumerate_table(table)
    assert found.slots.tolist() == sorted(slot for slot, (first, _) in words.items() if first & 1)
    for index, slot in enumerate(found.slots.tolist()):
        v, r = table.read(slot)
        assert (int(found.v[index]), int(found.r[index])) == (v, r)
        page = page_at(slot, v, r, table.group_mask)
        sizes = (int(found.base_shifts[index]), int(found.page_shifts[index]))
        if page is None:
            assert sizes == (0, 0)
            continue
        assert sizes == (page.base_shift, page.page_shift)
        assert (int(found.vsids[index]), int(found.offsets[index])) == (page.vsid, page.offset)
        assert int(found.real[index]) == (r & 0x0FFFFFFFFFFFF000) >> page.page_shift << page.page_shift


def test_an_empty_table_has_no_entries() -> None:
    assert len(enumerate_table(table_of({}))) == 0


def test_nothing_beyond_the_table_is_in_it() -> None:
    table = table_of({-1: (0x81, 0), 0: (0x101, 0), (1 << ORDER - 4) - 1: (0x181, 0), 1 << ORDER - 4: (0x201, 0)})
    assert enumerate_table(table).slots.tolist() == [0, (1 << ORDER - 4) - 1]


def test_the_largest_table_costs_what_was_written() -> None:
    memory = PhysicalMemory()
    memory.write((1 << 46) - 16, struct.pack(">QQ", 0x81, 0x192))
    assert enumerate_table(HashTable(memory, 0, 46)).slots.tolist() == [(1 << 42) - 1]
    assert memory.frame_count() == 1, "reading made no frames"


def test_a_table_in_a_guests_memory_has_a_limit() -> None:
    """What was ever written of a guest's memory is not known: all of it would be read."""

    class Identity:
        granule_shift = 16

        def locate(self, address: int, access: object) -> int:
            del access
            return address

    guest = TranslatedMemory(PhysicalMemory(), Identity(), "guest")  # type: ignore[arg-type]
    guest.write(5 * 16, struct.pack(">QQ", 0x81, 0x192))
    assert enumerate_table(HashTable(guest, 0, 18)).slots.tolist() == [5]
    with pytest.raises(TooLargeError, match="smaller"):
        enumerate_table(HashTable(guest, 0, 46))


def test_a_table_that_cannot_be_read() -> None:
    class Nowhere:
        granule_shift = 16

        def locate(self, address: int, access: object) -> int:
            del access
            raise OutsideMemoryError(address, 1)

    guest = TranslatedMemory(PhysicalMemory(), Nowhere(), "guest")  # type: ignore[arg-type]
    with pytest.raises(OutsideMemoryError):
        enumerate_table(HashTable(guest, 0, 18))
