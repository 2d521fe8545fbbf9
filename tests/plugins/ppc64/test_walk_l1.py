"""L1's table for L2, walked by L0's software: section 1.3 of the reference, rows W, and the scenarios TA."""

from __future__ import annotations

import pytest
from ppc64_fixture import (
    GPA_TO_HPA,
    LEAF_1G,
    LEAF_2M,
    LEAF_64K,
    PATE_DW0,
    PMD_ENTRY,
    PTE_ENTRY,
    PUD_ENTRY,
    ROOT_ENTRY,
    TO_PMD,
    TO_PTE,
    TO_PUD,
    CountingMemory,
    Fixture,
    N,
)

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.faults import Fault, FaultKind
from nestmmu_ppc64_radix.exits import walk_errno
from nestmmu_ppc64_radix.kvm import walk_tree

EINVAL, ENOENT, EFAULT = -22, -2, -14
RWX = READ | WRITE | EXECUTE


def refused(fixture: Fixture, address: int = N, root: int = PATE_DW0) -> Fault:
    with pytest.raises(Fault) as caught:
        walk_tree(fixture.guest.memory, address, root)
    return caught.value


@pytest.mark.parametrize(
    ("size", "entry", "raddr", "shift"),
    [
        pytest.param("64K", LEAF_64K, 0x1_8005_6789, 16, id="TA1"),
        pytest.param("4K", 0xC000_0001_8005_6187, 0x1_8005_6789, 12, id="TA2"),
        pytest.param("2M", LEAF_2M, 0x1_8005_6789, 21, id="TA3"),
        pytest.param("1G", LEAF_1G, 0x1_A345_6789, 30, id="TA4"),
        pytest.param("64K", 0xC000_0001_8005_0FB7, 0x1_8005_6789, 16, id="TA17"),
        pytest.param("64K", 0xC000_0001_8005_018F, 0x1_8005_6789, 16, id="TA18"),
    ],
)
def test_leaf_of_each_size_w1_w10(size: str, entry: int, raddr: int, shift: int) -> None:
    fixture = Fixture()
    fixture.leaf(entry, size)
    found = walk_tree(fixture.guest.memory, N, PATE_DW0)
    assert (found.output_address, found.page_shift) == (raddr, shift)
    assert found.permissions == RWX
    assert (found.accessed, found.dirty) == (True, True)


@pytest.mark.parametrize(
    ("size", "entry", "reads"),
    [
        pytest.param("64K", LEAF_64K, [ROOT_ENTRY, PUD_ENTRY, PMD_ENTRY, PTE_ENTRY], id="TA1-reads"),
        pytest.param("2M", LEAF_2M, [ROOT_ENTRY, PUD_ENTRY, PMD_ENTRY], id="TA3-reads"),
        pytest.param("1G", LEAF_1G, [ROOT_ENTRY, PUD_ENTRY], id="TA4-reads"),
    ],
)
def test_table_reads(size: str, entry: int, reads: list[int]) -> None:
    memory = CountingMemory()
    fixture = Fixture(memory=memory)
    fixture.leaf(entry, size)
    memory.loads.clear()
    walk_tree(fixture.guest.memory, N, PATE_DW0)
    assert [address - GPA_TO_HPA for address in memory.loads] == reads


@pytest.mark.parametrize(
    ("word", "value"),
    [
        pytest.param(ROOT_ENTRY, 0xC000_0000_0000_0187, id="TA5-W8"),
        pytest.param(PTE_ENTRY, 0x8000_0000_0201_3005, id="TA6-W8"),
        pytest.param(ROOT_ENTRY, TO_PUD - 1, id="TA10-8-W3"),
        pytest.param(ROOT_ENTRY, TO_PUD - 4, id="TA10-5-W3"),
        pytest.param(PMD_ENTRY, TO_PTE - 1, id="TA11-4-W3"),
        pytest.param(PMD_ENTRY, TO_PTE + 1, id="TA11-6-W3"),
        pytest.param(PMD_ENTRY, TO_PTE + 3, id="TA11-8-W3"),
        pytest.param(PMD_ENTRY, TO_PTE + 8, id="TA11-13-W3"),
        pytest.param(PUD_ENTRY, 0x8000_0000_0201_1809, id="TA12-W4"),
        pytest.param(PTE_ENTRY, 0xC000_0001_8005_1187, id="TA13-W9"),
    ],
)
def test_illegal_configuration(word: int, value: int) -> None:
    fixture = Fixture()
    fixture.word(word, value)
    assert walk_errno(refused(fixture)) == EINVAL


@pytest.mark.parametrize(
    "root",
    [
        pytest.param(0xC000_0000_0200_008D, id="TA7-W2"),
        pytest.param(0xC000_0000_0200_00AC, id="TA8-W3"),
        pytest.param(0xC000_0000_0200_10AD, id="TA9-W4"),
    ],
)
def test_illegal_root_is_refused_before_anything_is_read(root: int) -> None:
    memory = CountingMemory()
    fixture = Fixture(memory=memory)
    memory.loads.clear()
    assert walk_errno(refused(fixture, root=root)) == EINVAL
    assert memory.loads == []


@pytest.mark.parametrize(
    ("word", "value", "reads"),
    [
        pytest.param(ROOT_ENTRY, 0x8000_0009_0000_0008, [ROOT_ENTRY], id="TA10-8"),
        pytest.param(PMD_ENTRY, 0x8000_0009_0000_0004, [ROOT_ENTRY, PUD_ENTRY, PMD_ENTRY], id="TA11-4"),
    ],
)
def test_a_table_of_a_wrong_width_is_refused_before_it_is_read_w3(word: int, value: int, reads: list[int]) -> None:
    memory = CountingMemory()
    fixture = Fixture(memory=memory)
    fixture.word(word, value)  # the table lies outside memory: to read it were -EFAULT
    memory.loads.clear()
    assert walk_errno(refused(fixture)) == EINVAL
    assert [address - GPA_TO_HPA for address in memory.loads] == reads


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(0x4000_0001_8005_0187, id="TA14"),
        pytest.param(0x6000_0001_8005_0187, id="TA14-SW0"),
        pytest.param(0, id="TA14-zero"),
    ],
)
def test_invalid_leaf(entry: int) -> None:
    fixture = Fixture()
    fixture.leaf(entry)
    assert walk_errno(refused(fixture)) == ENOENT


@pytest.mark.parametrize("word", [ROOT_ENTRY, PUD_ENTRY, PMD_ENTRY])
def test_invalid_directory_is_as_an_invalid_leaf_w7(word: int) -> None:
    fixture = Fixture()
    fixture.word(word, 0x4000_0000_0000_0000)
    assert walk_errno(refused(fixture)) == ENOENT


@pytest.mark.parametrize(("nls", "shift"), [pytest.param(5, 16, id="TA11-5"), pytest.param(9, 12, id="TA11-9")])
def test_last_directory_may_have_5_or_9_bits(nls: int, shift: int) -> None:
    fixture = Fixture()
    fixture.leaf(0xC000_0001_8005_0187 if nls == 5 else 0xC000_0001_8005_6187, "64K" if nls == 5 else "4K")
    assert walk_tree(fixture.guest.memory, N, PATE_DW0).page_shift == shift


def test_unreadable_table_reports_the_entry_w6_ta15() -> None:
    fixture = Fixture()
    fixture.word(PUD_ENTRY, 0x8000_0009_0000_0009)
    fault = refused(fixture)
    assert walk_errno(fault) == EFAULT
    assert fault.entry_address == 0x9_0000_08D0


def test_address_bits_above_52_are_not_looked_at_w5_ta16() -> None:
    fixture = Fixture()
    found = walk_tree(fixture.guest.memory, 0x0010_0001_2345_6789, PATE_DW0)
    assert found.output_address == 0x1_8005_6789  # TA16


def test_a_leaf_in_the_other_byte_order_is_not_a_leaf_ta20() -> None:
    fixture = Fixture()
    fixture.leaf(int.from_bytes(LEAF_64K.to_bytes(8, "little"), "big"))
    assert walk_errno(refused(fixture)) in {ENOENT, EINVAL}


@pytest.mark.parametrize(
    ("nibble", "permissions"),
    [(0x7, RWX), (0x6, READ | WRITE), (0x5, READ | EXECUTE), (0x4, READ), (0x1, EXECUTE), (0x0, 0)],
)
def test_permissions_are_the_bits_of_the_leaf_w10(nibble: int, permissions: int) -> None:
    fixture = Fixture()
    fixture.leaf(LEAF_64K & ~0xF | nibble)
    assert walk_tree(fixture.guest.memory, N, PATE_DW0).permissions == permissions


@pytest.mark.parametrize(("bits", "expected"), [(0x187, (True, True)), (0x107, (True, False)), (0x087, (False, True))])
def test_reference_and_change_are_the_bits_of_the_leaf_w10(bits: int, expected: tuple[bool, bool]) -> None:
    fixture = Fixture()
    fixture.leaf(LEAF_64K & ~0xFFF | bits)
    found = walk_tree(fixture.guest.memory, N, PATE_DW0)
    assert (found.accessed, found.dirty) == expected


def test_levels_lead_where_the_fixture_says() -> None:
    fixture = Fixture()
    assert [fixture.read_word(at) for at in (ROOT_ENTRY, PUD_ENTRY, PMD_ENTRY)] == [TO_PUD, TO_PMD, TO_PTE]


def test_shadow_leaf_is_found_by_the_lpid_that_l1_assigned_w13() -> None:
    fixture = Fixture()
    fixture.handle(fixture.load())
    assert sorted(fixture.guest.nested) == [5]
    assert fixture.guest.nested[fixture.nested.assigned].shadow.lookup(N) is not None


@pytest.mark.parametrize(
    ("entry", "shift"),
    [(0xC000_0005_8005_0187, 16), (0xC000_0005_8000_0187, 21), (0xC000_0005_8000_0187, 30)],
)
def test_l0s_leaf_is_found_with_its_size_w14(entry: int, shift: int) -> None:
    fixture = Fixture()
    assert fixture.guest.table.lookup(0x1_8005_6789) is None
    fixture.plant_l0(0x1_8005_6789, entry, shift)
    found = fixture.guest.table.lookup(0x1_8005_6789)
    assert found is not None
    assert (found.output_address, found.page_shift, found.entry) == (0x5_8005_6789, shift, entry)


def test_a_fault_of_an_unmapped_root_kind() -> None:
    fixture = Fixture()
    fixture.word(ROOT_ENTRY, 0)
    assert refused(fixture).kind is FaultKind.NOT_PRESENT
