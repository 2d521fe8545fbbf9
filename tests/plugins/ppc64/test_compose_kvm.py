"""Composition and the choice of level: section 1.9 of the reference, and the scenarios TC, with its numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ppc64_fixture import LEAF_64K, Fixture, N

from nestmmu.access import Access
from nestmmu.formats import AccessedDirty
from nestmmu.mappings import Mapping
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_SF, Registers
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_radix.composer import KvmComposer
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import HvExit
from nestmmu_ppc64_radix.formats import POWER9
from nestmmu_ppc64_radix.quirks import Quirk
from nestmmu_ppc64_radix.rmap_words import words

LEAVES = {"64K": LEAF_64K, "2M": 0xC000_0001_8000_0187, "1G": 0xC000_0001_8000_0187}
SHIFTS = {"4K": 12, "64K": 16, "2M": 21, "1G": 30}
K, C = Quirk.LINUX_6_1, Quirk.NONE


@pytest.mark.parametrize(
    ("l1", "l0", "quirks", "entry", "shift", "n_gpa", "frame"),
    [
        pytest.param("64K", "64K", K, 0xC000000580050187, 16, 0x123450000, 0x18005, id="TC1"),
        pytest.param("64K", "2M", K, 0xC000000580050187, 16, 0x123450000, 0x18000, id="TC2"),
        pytest.param("64K", "1G", K, 0xC000000580050187, 16, 0x123450000, 0x18000, id="TC3"),
        pytest.param("2M", "64K", K, 0xC000000580050187, 16, 0x123450000, 0x18005, id="TC4"),
        pytest.param("2M", "2M", K, 0xC000000580000187, 21, 0x123400000, 0x18000, id="TC5"),
        pytest.param("2M", "1G", K, 0xC000000580050187, 16, 0x123450000, 0x18000, id="TC6-K"),
        pytest.param("2M", "1G", C, 0xC000000580000187, 21, 0x123400000, 0x18000, id="TC6-C"),
        pytest.param("1G", "64K", K, 0xC0000005A3450187, 16, 0x123450000, 0x1A345, id="TC7"),
        pytest.param("1G", "2M", K, 0xC0000005A3400187, 21, 0x123400000, 0x1A340, id="TC8"),
        pytest.param("1G", "1G", K, 0xC000000580000187, 30, 0x100000000, 0x18000, id="TC9"),
        pytest.param(
            "2M", "1G", K & ~Quirk.BASE_PAGES_UNDER_GIGANTIC, 0xC000000580000187, 21, 0x123400000, 0x18000, id="TC23-C"
        ),
        pytest.param(
            "2M", "1G", Quirk.BASE_PAGES_UNDER_GIGANTIC, 0xC000000580050187, 16, 0x123450000, 0x18000, id="TC23-K"
        ),
    ],
)
def test_level_matrix_c6_c7_c8_c9(
    l1: str, l0: str, quirks: Quirk, entry: int, shift: int, n_gpa: int, frame: int
) -> None:
    fixture = Fixture(quirks, backing_shift=SHIFTS[l0])
    fixture.leaf(LEAVES[l1], l1)
    fixture.handle(fixture.store())
    assert fixture.shadow() == (entry, shift)
    assert fixture.shadow(n_gpa) == (entry, shift)
    assert fixture.rmap(frame) == [(5, n_gpa)]
    assert words(fixture.guest.rmap, frame) == [0x0050_0000_0000_0001 | n_gpa]
    assert len(fixture.guest.rmap) == 1
    assert fixture.flush_log() == []


@pytest.mark.parametrize(
    ("l1", "entry", "l0", "frame"),
    [
        pytest.param("64K", LEAF_64K, "2M", 0x180000, id="TC10-C10"),
        pytest.param("64K", LEAF_64K, "4K", 0x180056, id="TC11-64K"),
        pytest.param("4K", 0xC000000180056187, "4K", 0x180056, id="TC11-4K"),
    ],
)
def test_host_with_4k_pages(l1: str, entry: int, l0: str, frame: int) -> None:
    fixture = Fixture(page_shift=12, backing_shift=SHIFTS[l0])
    fixture.leaf(entry, l1)
    fixture.handle(fixture.store())
    assert fixture.shadow() == (0xC000000580056187, 12)
    assert fixture.rmap(frame) == [(5, 0x123456000)]


def after(bits: int, exit_kind: str, l0: int | None = None) -> int:
    """Return the low 12 bits of the shadow's leaf, for low bits of L1's leaf and of a leaf that L0 has already."""
    fixture = Fixture()
    fixture.leaf(LEAF_64K & ~0xFFF | bits)
    if l0 is not None:
        fixture.plant_l0(0x180050000, 0xC000000580050000 | l0)
    fixture.handle(fixture.store() if exit_kind == "store" else fixture.load())
    found = fixture.shadow()
    assert found is not None
    assert found[0] & ~0xFFF == 0xC000000580050000
    return found[0] & 0xFFF


@pytest.mark.parametrize(
    ("l1", "kind", "l0", "shadow"),
    [
        pytest.param(0x187, "load", None, 0x107, id="TC12-C4"),
        pytest.param(0x107, "store", None, 0x107, id="TC13-C5"),
        pytest.param(0x087, "load", None, 0x007, id="TC14-C3"),
        pytest.param(0x007, "store", None, 0x007, id="TC15-C3"),
        pytest.param(0x186, "store", None, 0x186, id="TC16-C2"),
        pytest.param(0x187, "load", 0x105, 0x105, id="TC17"),
        pytest.param(0x187, "store", 0x105, 0x187, id="TC18"),
        pytest.param(0x187, "load", 0x087, 0x007, id="TC19"),
        pytest.param(0x1B7, "store", None, 0x187, id="TC20-C1"),
        pytest.param(0x187, "store", 0x1A7, 0x1A7, id="TC21-C1"),
        pytest.param(0x18F, "store", None, 0x187, id="TC22"),
        pytest.param(0x185, "load", None, 0x105, id="C2-no-write"),
        pytest.param(0x182, "load", None, 0x102, id="TB10-C2-write-only"),
    ],
)
def test_permissions_reference_and_change(l1: int, kind: str, l0: int | None, shadow: int) -> None:
    assert after(l1, kind, l0) == shadow


def test_a_store_makes_l0s_entry_writable_first_tc18() -> None:
    fixture = Fixture()
    fixture.plant_l0(0x180050000, 0xC000000580050105)
    fixture.handle(fixture.store())
    assert fixture.l0_leaf(0x180050000) == (0xC000000580050187, 16)


def test_a_load_leaves_l0s_entry_alone_tc17() -> None:
    fixture = Fixture()
    fixture.plant_l0(0x180050000, 0xC000000580050105)
    fixture.handle(fixture.load())
    assert fixture.l0_leaf(0x180050000) == (0xC000000580050105, 16)


def test_an_aged_entry_of_l0_makes_the_cpu_ask_for_reference_tc19() -> None:
    fixture = Fixture()
    fixture.plant_l0(0x180050000, 0xC000000580050087)
    fixture.handle(fixture.load())
    registers = Registers(msr=MSR_SF, ptcr=fixture.host.ptcr, lpidr=7)
    cpu = Power9Radix(registers, fixture.memory, reference_change=AccessedDirty.FAULT)
    interrupt = cpu.access(Access.LOAD, N)
    assert isinstance(interrupt, Interrupt)
    assert (interrupt.vector, interrupt.get("hdsisr"), interrupt.get("asdr")) == (0xE00, 0x00040000, N)
    fixture.handle(HvExit.from_interrupt(interrupt))
    assert fixture.l0_leaf(0x180050000) == (0xC000000580050187, 16)
    assert fixture.shadow() == (0xC000000580050107, 16)
    reached = cpu.access(Access.LOAD, N)
    assert isinstance(reached, Reached)
    assert reached.address == 0x580056789


def mapping(address: int, entry: int, shift: int) -> Mapping:
    low = (1 << shift) - 1
    output = (entry & 0x01FFFFFFFFFFF000) & ~low | address & low
    return Mapping(
        address, output, shift, POWER9.permissions_of(entry), bool(entry & 0x100), bool(entry & 0x80), 0, 0, entry
    )


@given(
    l1=st.integers(0, 0x1FF),
    l0=st.integers(0, 0x1FF),
    sizes=st.tuples(st.sampled_from([16, 21, 30]), st.sampled_from([16, 21, 30])),
    access=st.sampled_from(list(Access)),
    quirks=st.sampled_from([Quirk.LINUX_6_1, Quirk.NONE]),
)
def test_never_more_than_both_allow_tc24(
    l1: int, l0: int, sizes: tuple[int, int], access: Access, quirks: Quirk
) -> None:
    inner = mapping(N, 0xC000_0001_8000_0000 | l1, sizes[0])
    outer = mapping(inner.output_address, 0xC000_0005_8000_0000 | l0, sizes[1])
    leaf = KvmComposer((16, 21, 30), quirks).compose(inner, outer, access)
    assert leaf.entry is not None
    assert leaf.permissions & ~(inner.permissions & outer.permissions) == 0
    assert leaf.entry & 0x180 & ~(l1 & l0) == 0
    assert leaf.page_shift <= min(sizes)
    assert leaf.output_address == outer.output_address
    assert not (leaf.dirty and access is not Access.STORE)
    if quirks is Quirk.NONE:
        assert leaf.permissions == inner.permissions & outer.permissions
        assert leaf.page_shift == min(sizes)
