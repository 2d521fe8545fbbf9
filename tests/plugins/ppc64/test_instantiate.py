"""L0's own table for L1: section 1.11 of the reference, rows I."""

from __future__ import annotations

import pytest
from ppc64_fixture import HDAR, ISSTORE, MSR, NOHPTE, PC, SET_RC, Fixture

from nestmmu.outcomes import Outcome, Verdict
from nestmmu.points import Point, finish
from nestmmu.slots import LinearBacking, Slot, Slots
from nestmmu_ppc64_radix.exits import HvExit, decode, inject, return_code
from nestmmu_ppc64_radix.kvm import KvmHostFaults
from nestmmu_ppc64_radix.quirks import Quirk

GPA = 0x1_8005_6789


def fault(fixture: Fixture, dsisr: int = NOHPTE, gpa: int = GPA) -> Outcome:
    """Handle a fault of L1 itself."""
    return finish(KvmHostFaults(fixture.guest).handle(decode(exit_of(dsisr, gpa))))


def exit_of(dsisr: int, gpa: int = GPA) -> HvExit:
    return HvExit(0xE00, MSR, HDAR & ~0xFFF | gpa & 0xFFF, dsisr, gpa & ~0xFFF, PC)


@pytest.mark.parametrize(
    ("shift", "entry", "mapped"),
    [
        pytest.param(16, 0xC000000580050187, 16, id="64K"),
        pytest.param(21, 0xC000000580000187, 21, id="2M"),
        pytest.param(30, 0xC000000580000187, 30, id="1G"),
    ],
)
def test_pages_of_each_size_i3_i4(shift: int, entry: int, mapped: int) -> None:
    fixture = Fixture(backing_shift=shift)
    assert return_code(fault(fixture)) == 0
    assert fixture.l0_leaf(GPA) == (entry, mapped)
    assert fixture.flush_log() == []


@pytest.mark.parametrize(
    ("offset", "shift", "mapped"),
    [
        pytest.param(0x4_0001_0000, 30, 16, id="alike-in-64K-only"),
        pytest.param(0x4_0020_0000, 30, 21, id="alike-in-2M"),
        pytest.param(0x4_4000_0000, 30, 30, id="alike-in-1G"),
        pytest.param(0x4_0001_0000, 21, 16, id="2M-page-not-alike"),
    ],
)
def test_a_large_page_needs_both_memories_to_lie_alike_i3(offset: int, shift: int, mapped: int) -> None:
    fixture = Fixture()
    fixture.guest.backing = LinearBacking(offset, shift)
    fault(fixture)
    leaf = fixture.l0_leaf(GPA)
    assert leaf is not None
    assert leaf[1] == mapped
    low = (1 << mapped) - 1
    assert leaf[0] & 0x01FFFFFFFFFFF000 == (GPA + offset) & ~low


def test_base_pages_while_the_dirty_log_is_on_i3() -> None:
    fixture = Fixture(backing_shift=30)
    slot = next(iter(fixture.slots))
    fixture.slots.remove(slot)
    fixture.slots.add(Slot(slot.base, slot.size, dirty_log=True))
    fault(fixture)
    assert fixture.l0_leaf(GPA) == (0xC000000580050187, 16)


@pytest.mark.parametrize(("quirks", "mapped"), [(Quirk.LINUX_6_1, 21), (Quirk.NONE, 16)])
def test_a_large_page_that_reaches_beyond_its_slot_i3(quirks: Quirk, mapped: int) -> None:
    fixture = Fixture(quirks, backing_shift=21)
    fixture.guest.slots = Slots((Slot(0x1_8001_0000, 0x10_0000),))
    fault(fixture)
    leaf = fixture.l0_leaf(GPA)
    assert leaf is not None
    assert leaf[1] == mapped


@pytest.mark.parametrize(("writable", "read_only"), [(False, False), (True, True)])
def test_what_may_not_be_written_is_mapped_without_write_and_change_i4(*, writable: bool, read_only: bool) -> None:
    fixture = Fixture(writable=writable, read_only=read_only)
    fault(fixture)
    assert fixture.l0_leaf(GPA) == (0xC000000580050105, 16)


def test_no_page_i1() -> None:
    fixture = Fixture()
    fixture.guest.backing = None
    assert return_code(fault(fixture)) == -14


def test_a_race_means_again_i5_i14() -> None:
    fixture = Fixture()
    steps = KvmHostFaults(fixture.guest).handle(decode(exit_of(NOHPTE)))
    assert next(steps) is Point.PREEMPT
    fixture.guest.begin_invalidation()
    fixture.guest.end_invalidation()
    assert finish(steps).verdict is Verdict.RESUME
    assert fixture.l0_leaf(GPA) is None


def test_an_unmap_clears_flushes_then_drops_what_was_shadowed_i7_i8() -> None:
    fixture = Fixture()
    fixture.handle(fixture.store())
    fixture.flushes.clear()
    assert fixture.guest.table.remove(GPA) is not None
    assert fixture.flush_log() == [(1, "page", 0x180050000, 16), (7, "page", 0x123450000, 16)]
    assert fixture.l0_leaf(GPA) is None
    assert fixture.shadow() is None
    assert fixture.rmap(0x18005) == []


def test_the_shadow_leaves_its_reverse_map_behind_i7() -> None:
    fixture = Fixture()
    fixture.handle(fixture.store())
    fixture.nested.shadow.remove(0x123450000)
    assert fixture.rmap(0x18005) == [(5, 0x123450000)]


def test_freeing_a_whole_tree_flushes_no_page_i9() -> None:
    fixture = Fixture()
    before = len(fixture.allocator.used)
    fixture.handle(fixture.store())
    fixture.flushes.clear()
    fixture.nested.shadow.clear_tree()
    fixture.guest.table.clear_tree()
    assert fixture.flush_log() == []
    assert len(fixture.allocator.used) == before


class TestNativeFault:
    """I14."""

    @pytest.mark.parametrize("dsisr", [0x00080000, 0x040C0000], ids=["alone", "before-any-other-cause"])
    def test_unsupported_configuration(self, dsisr: int) -> None:
        assert return_code(fault(Fixture(), dsisr)) == -14

    def test_bad_access_is_the_guests_own(self) -> None:
        fixture = Fixture()
        exit_ = decode(exit_of(0x04000000))
        outcome = finish(KvmHostFaults(fixture.guest).handle(exit_))
        assert inject(outcome, exit_).get("dsisr") == 0x04000000

    def test_a_device(self) -> None:
        assert fault(Fixture(), gpa=0x3_0000_6789) == Outcome(Verdict.EMULATE, address=0x3_0000_6789)

    @pytest.mark.parametrize("cause", [0x00020000, SET_RC])
    def test_a_table_or_a_flag_outside_memory_is_the_guests_own(self, cause: int) -> None:
        assert fault(Fixture(), NOHPTE | cause, gpa=0x3_0000_6000).verdict is Verdict.INJECT

    def test_a_store_to_a_read_only_slot(self) -> None:
        fixture = Fixture(read_only=True)
        exit_ = decode(exit_of(NOHPTE | ISSTORE))
        outcome = finish(KvmHostFaults(fixture.guest).handle(exit_))
        assert inject(outcome, exit_).get("dsisr") == 0x0A000000

    def test_reference_and_change_are_set_where_there_is_an_entry(self) -> None:
        fixture = Fixture()
        fixture.plant_l0(GPA, 0xC000000580050007)
        assert fault(fixture, SET_RC | ISSTORE).verdict is Verdict.RESUME
        assert fixture.l0_leaf(GPA) == (0xC000000580050187, 16)

    def test_and_the_page_is_mapped_where_there_is_none(self) -> None:
        fixture = Fixture()
        assert fault(fixture, SET_RC | ISSTORE).verdict is Verdict.RESUME
        assert fixture.l0_leaf(GPA) == (0xC000000580050187, 16)
