"""L0 reads L1's partition table for a hash L2, and permits in a shadow no more than is permitted (3.8, 3.9)."""

from __future__ import annotations

import pytest

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.addresses import AssignedTag
from nestmmu.mappings import Mapping
from nestmmu.outcomes import Verdict
from nestmmu_ppc64_hpt.conformance import Ppc64Hpt
from nestmmu_ppc64_hpt.conformance_nest import L1_PARTITION_TABLE, L1_TABLES
from nestmmu_ppc64_hpt.nested import HashComposer, Marking
from nestmmu_ppc64_hpt.protection import limited

R, C, M, N, PP0 = 0x100, 0x080, 0x010, 0x004, 1 << 63
KIB64 = 0x1000


@pytest.mark.parametrize(
    ("word", "verdict"),
    [
        pytest.param(L1_TABLES, None, id="a table of 256 KiB"),
        pytest.param(0, Verdict.REFLECT, id="no entry"),
        pytest.param(L1_TABLES | 1, Verdict.REFLECT, id="of 512 KiB, twice the shadow"),
        pytest.param(L1_TABLES | 31, Verdict.REFLECT, id="of 2^49 bytes, as there is none"),
        pytest.param(1 << 63 | L1_TABLES, Verdict.REFLECT, id="HR: a radix tree"),
    ],
)
def test_l1s_partition_table_says_where_its_table_is(word: int, verdict: Verdict | None) -> None:
    nest = Ppc64Hpt().make_nest(16)
    nest.put_at(L1_PARTITION_TABLE + 16 * 7, word.to_bytes(8, "big"))
    nest.pages(AssignedTag(7)).map(0x5_0000, nest.data.base, 16, READ | WRITE)
    assert nest.access(AssignedTag(7), Access.LOAD, 0x5_0123).verdict is verdict


def test_an_entry_that_comes_later_is_read_at_the_next_fault() -> None:
    """Until then doubleword 0 is zero; once it is read, only a flush with RIC 2 has it read again."""
    nest = Ppc64Hpt().make_nest(16)
    one = AssignedTag(7)
    nest.pages(one).map(0x5_0000, nest.data.base, 16, READ)
    word = nest.word_at(L1_PARTITION_TABLE + 16 * one, 8)
    nest.put_at(L1_PARTITION_TABLE + 16 * one, bytes(8))
    assert nest.access(one, Access.LOAD, 0x5_0123).verdict is Verdict.REFLECT
    nest.put_at(L1_PARTITION_TABLE + 16 * one, word)
    assert nest.access(one, Access.LOAD, 0x5_0123).address == nest.backing.where(nest.data.base) + 0x123


@pytest.mark.parametrize(
    ("word", "permissions", "expected"),
    [
        (2, READ | WRITE | EXECUTE, 2),
        (2, READ | WRITE, 2 | N),
        (2, READ | EXECUTE, 3),
        (0, READ | EXECUTE, PP0 | 2),
        (3, READ, 3 | N),
        (PP0 | 2, READ, PP0 | 2 | N),
        (2, WRITE | EXECUTE, PP0),
        (PP0 | 3, READ | EXECUTE, PP0 | 3),
        (R | C | M | 1, 0, R | C | M | N | PP0),
    ],
)
def test_doubleword_1_with_no_more_than_is_permitted(word: int, permissions: int, expected: int) -> None:
    """With pp 000 key 1 may do nothing, and with 011 it could read; reserved values permit nothing still."""
    assert limited(word, permissions) == expected


@pytest.mark.parametrize(
    ("marking", "access", "dirty", "word"),
    [
        (Marking.FIRST_STORE, Access.LOAD, (True, True), R | 3),
        (Marking.FIRST_STORE, Access.STORE, (True, True), R | C | 2),
        (Marking.FIRST_STORE, Access.STORE, (True, False), R | 3),
        (Marking.FIRST_STORE, Access.STORE, (False, True), R | 3),
        (Marking.AT_MAP, Access.LOAD, (False, False), R | C | 2),
    ],
)
def test_what_is_not_dirty_is_read_only(marking: Marking, access: Access, dirty: tuple[bool, bool], word: int) -> None:
    """64 KiB at 0x7_0000 of L1 behind 2 MiB of L0 at 0x4020_0000."""
    inner = Mapping(0x3_0124, 0x7_0124, 16, 7, accessed=True, dirty=dirty[0], entry=0x7_0000 | KIB64 | M | 2)
    outer = Mapping(0x7_0124, 0x4027_0124, 21, 7, accessed=True, dirty=dirty[1])
    leaf = HashComposer(marking).compose(inner, outer, access)
    assert leaf.entry == 0x4027_0000 | KIB64 | M | word
    assert (leaf.input_address, leaf.output_address, leaf.page_shift) == (0x3_0124, 0x4027_0124, 16)
    assert leaf.dirty == bool(word & C)
