"""Reverse map, unmap, ageing, dirty log, slots: sections 1.12 and 1.13 of the reference; the scenarios TF and TG."""

from __future__ import annotations

import numpy as np
import pytest
from ppc64_fixture import ISSTORE, LEAF_64K, SET_RC, Fixture, N

from nestmmu import upkeep
from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.outcomes import Verdict
from nestmmu.points import Point, finish
from nestmmu.rmap import ReverseEntry
from nestmmu.slots import Slot
from nestmmu_ppc64_radix import rmap_words
from nestmmu_ppc64_radix.exits import decode
from nestmmu_ppc64_radix.quirks import Quirk

K, C = Quirk.LINUX_6_1, Quirk.NONE
GFN = 0x18005
GPA = GFN << 16
PAGE = 0x123450000


def low(leaf: tuple[int, int] | None) -> int | None:
    return None if leaf is None else leaf[0] & 0xFFF


def stored(quirks: Quirk = K, backing_shift: int = 16, size: str = "64K") -> Fixture:
    """Return a nest after one store to N: L0's leaf and the shadow's are ...187."""
    fixture = Fixture(quirks, backing_shift=backing_shift)
    fixture.leaf({"64K": LEAF_64K, "2M": 0xC000000180000187}[size], size)
    fixture.handle(fixture.store())
    fixture.flushes.clear()
    return fixture


def with_log(fixture: Fixture, *, on: bool = True) -> Slot:
    slot = next(iter(fixture.guest.slots))
    return upkeep.set_dirty_log(fixture.guest, slot, on=on)


class TestReverseMap:
    def entries(self, fixture: Fixture) -> list[tuple[int, int]]:
        return fixture.rmap(GFN)

    def test_one_then_the_same_again_then_others_tf1_tf2_tf3(self) -> None:
        fixture = Fixture()
        insert = fixture.guest.rmap.insert
        assert insert(GFN, ReverseEntry(AssignedTag(5), PAGE))
        assert not insert(GFN, ReverseEntry(AssignedTag(5), PAGE))
        assert insert(GFN, ReverseEntry(AssignedTag(5), 0x223450000))
        assert insert(GFN, ReverseEntry(AssignedTag(9), 0x20000))
        assert self.entries(fixture) == [(9, 0x20000), (5, 0x223450000), (5, PAGE)]

    @pytest.mark.parametrize(
        ("lpid", "address", "word"),
        [
            pytest.param(5, PAGE, 0x0050000123450001, id="TF1"),
            pytest.param(4095, 0x000FFFFFFFFF0000, 0xFFFFFFFFFFFF0001, id="TF4"),
            pytest.param(5, 0x123456000, 0x0050000123456001, id="TF13"),
        ],
    )
    def test_the_kernels_words(self, lpid: int, address: int, word: int) -> None:
        fixture = Fixture()
        entry = ReverseEntry(AssignedTag(lpid), address)
        fixture.guest.rmap.insert(GFN, entry)
        assert rmap_words.words(fixture.guest.rmap, GFN) == [word]
        assert rmap_words.decode(word) == entry
        fixture.guest.rmap.insert(GFN, ReverseEntry(AssignedTag(9), 0x20000))
        assert rmap_words.words(fixture.guest.rmap, GFN) == [0x0090000000020000, word]

    def test_an_entry_of_lpid_0_is_one_like_any_other_tf14_m8(self) -> None:
        fixture = Fixture()
        for entry in (ReverseEntry(AssignedTag(5), PAGE), ReverseEntry(AssignedTag(0), 0)):
            fixture.guest.rmap.insert(GFN, entry)
        assert fixture.rmap(GFN) == [(0, 0), (5, PAGE)]

    def test_an_unmap_goes_from_l0_to_the_shadow_tf5(self) -> None:
        fixture = stored()
        assert upkeep.unmap(fixture.guest, GPA)
        assert fixture.flush_log() == [(1, "page", 0x180050000, 16), (7, "page", PAGE, 16)]
        assert (fixture.l0_leaf(GPA), fixture.shadow(), self.entries(fixture)) == (None, None, [])
        assert not upkeep.unmap(fixture.guest, GPA)

    @pytest.mark.parametrize("gfn", [0x18000, 0x18005, 0x1801F])
    def test_two_shadow_pages_in_one_page_of_l0_tf6_m10(self, gfn: int) -> None:
        fixture = stored(backing_shift=21)
        fixture.word(0x02012030, 0xC000000180060187)
        fixture.handle(fixture.store(asdr=0x123460000))
        assert fixture.rmap(0x18000) == [(5, 0x123460000), (5, PAGE)]
        upkeep.unmap(fixture.guest, gfn << 16)
        assert fixture.shadow(PAGE) is None
        assert fixture.shadow(0x123460000) is None
        assert len(fixture.guest.rmap) == 0

    def test_a_shadow_that_leads_elsewhere_by_now_is_left_tf7(self) -> None:
        fixture = stored()
        fixture.nested.shadow.remove(PAGE)
        fixture.plant_shadow(PAGE, 0xC000000590000187)
        upkeep.unmap(fixture.guest, GPA)
        assert fixture.shadow() == (0xC000000590000187, 16)
        assert self.entries(fixture) == []

    def test_a_guest_that_is_gone_tf8(self) -> None:
        fixture = stored()
        del fixture.guest.nested[AssignedTag(5)]
        upkeep.unmap(fixture.guest, GPA)
        assert {tag for tag, *_ in fixture.flush_log()} == {1}
        assert self.entries(fixture) == []

    def test_two_guests_of_one_frame_tf9(self) -> None:
        fixture = stored()
        other = fixture.host.add_nested(fixture.guest, AssignedTag(6), HardwareTag(8))
        fixture.word(0x01000060, 0xC0000000020000AD)
        finish(fixture.handler.handle(other, decode(fixture.store())))
        fixture.flushes.clear()
        upkeep.unmap(fixture.guest, GPA)
        assert fixture.shadow() is None
        assert other.shadow.lookup(N) is None
        assert sorted(tag for tag, *_ in fixture.flush_log()) == [1, 7, 8]

    def test_a_page_of_1g_of_l0_tf11(self) -> None:
        fixture = stored(backing_shift=30)
        assert fixture.shadow() == (0xC000000580050187, 16)
        upkeep.unmap(fixture.guest, GPA)
        assert fixture.shadow() is None

    @pytest.mark.parametrize(
        ("quirks", "tag"), [pytest.param(K, 5, id="TF12-K-B8"), pytest.param(C, 7, id="TF12-C-B8")]
    )
    def test_the_flush_of_cleared_flags(self, quirks: Quirk, tag: int) -> None:
        fixture = stored(quirks)
        assert upkeep.age(fixture.guest, GPA)
        assert fixture.flush_log() == [(tag, "page", PAGE, 16)]


class TestAge:
    def test_age_clears_reference_in_both_tables_tg1_tg2(self) -> None:
        fixture = stored()
        assert upkeep.is_young(fixture.guest, GPA)
        assert upkeep.age(fixture.guest, GPA)
        assert (low(fixture.l0_leaf(GPA)), low(fixture.shadow())) == (0x087, 0x087)
        assert not upkeep.age(fixture.guest, GPA)
        assert not upkeep.is_young(fixture.guest, GPA)

    @pytest.mark.parametrize(
        ("quirks", "shadow"), [pytest.param(K, 0x187, id="TG3-K-B9"), pytest.param(C, 0x087, id="TG3-C-B9")]
    )
    def test_in_the_middle_of_a_large_page(self, quirks: Quirk, shadow: int) -> None:
        fixture = stored(quirks, 21)
        assert upkeep.age(fixture.guest, GPA)
        assert low(fixture.l0_leaf(GPA)) == 0x087
        assert low(fixture.shadow()) == shadow


class TestDirtyLog:
    def bit(self, fixture: Fixture, slot: Slot, gfn: int = GFN) -> bool:
        bits = np.unpackbits(upkeep.dirty_log(fixture.guest, slot), bitorder="little")
        return bool(bits[gfn])

    def logged(self, quirks: Quirk = C) -> tuple[Fixture, Slot]:
        fixture = Fixture(quirks)
        slot = with_log(fixture)
        fixture.handle(fixture.store())
        fixture.flushes.clear()
        return fixture, slot

    def test_a_written_page_is_reported_once_and_again_after_the_next_store_tg4_tg5_tg6(self) -> None:
        fixture, slot = self.logged()
        assert self.bit(fixture, slot)
        assert (low(fixture.l0_leaf(GPA)), low(fixture.shadow())) == (0x107, 0x107)
        assert fixture.flush_log() == [(1, "page", GPA, 16), (7, "page", PAGE, 16)]
        assert not self.bit(fixture, slot)
        assert fixture.handle(fixture.store(SET_RC | ISSTORE)).verdict is Verdict.RESUME
        assert (low(fixture.l0_leaf(GPA)), low(fixture.shadow())) == (0x187, 0x187)
        assert self.bit(fixture, slot)

    def test_switching_it_on_drops_large_pages_tg7_and_off_allows_them_again_tg8(self) -> None:
        fixture = stored(backing_shift=21, size="2M")
        assert fixture.shadow() == (0xC000000580000187, 21)
        before = fixture.guest.sequence
        slot = with_log(fixture)
        assert (fixture.l0_leaf(GPA), fixture.shadow()) == (None, None)
        assert fixture.guest.sequence == before + 1
        fixture.handle(fixture.store())
        assert fixture.shadow() == (0xC000000580050187, 16)
        upkeep.set_dirty_log(fixture.guest, slot, on=False)
        assert fixture.shadow() is None
        fixture.handle(fixture.store())
        assert fixture.shadow() == (0xC000000580000187, 21)

    def test_a_written_page_that_is_unmapped_is_reported_over_all_its_size_tg9(self) -> None:
        fixture = stored(C, backing_shift=21, size="2M")
        slot = next(iter(fixture.guest.slots))
        fixture.guest.slots.remove(slot)
        fixture.guest.slots.add(Slot(slot.base, slot.size, dirty_log=True))
        upkeep.unmap(fixture.guest, GPA)
        slot = next(iter(fixture.guest.slots))
        bits = np.unpackbits(upkeep.dirty_log(fixture.guest, slot), bitorder="little")
        assert np.nonzero(bits)[0].tolist() == list(range(0x18000, 0x18020))

    @pytest.mark.parametrize(
        ("quirks", "shadow"),
        [pytest.param(K, 0x187, id="TG10-K-B7"), pytest.param(C & ~K | Quirk.NONE, None, id="TG10-C-B7")],
    )
    def test_a_fault_under_way_while_the_log_is_taken(self, quirks: Quirk, shadow: int | None) -> None:
        fixture = Fixture(quirks)
        slot = with_log(fixture)
        fixture.plant_l0(GPA, 0xC000000580050187)
        steps = fixture.handler.handle(fixture.nested, decode(fixture.store()))
        seen = [next(steps)]
        while seen.count(Point.UNLOCK) < 1 or seen[-1] is not Point.PREEMPT:
            seen.append(next(steps))
        assert self.bit(fixture, slot)
        finish(steps)
        assert low(fixture.shadow()) == shadow


class TestSlots:
    def test_a_slot_that_is_deleted_takes_everything_with_it_tg11_b25(self) -> None:
        fixture = stored()
        slot = next(iter(fixture.guest.slots))
        upkeep.replace_slot(fixture.guest, slot, None)
        assert (fixture.l0_leaf(GPA), fixture.shadow()) == (None, None)
        assert len(fixture.guest.rmap) == 0
        assert fixture.handle(fixture.load()).verdict is Verdict.REFLECT  # L1's table for L2 was in that slot as well

    def test_a_slot_where_there_was_a_device_tg12(self) -> None:
        fixture = Fixture()
        fixture.leaf(0xC000000300000187)
        assert fixture.handle(fixture.load()).verdict is Verdict.EMULATE
        upkeep.replace_slot(fixture.guest, None, Slot(0x300000000, 0x10000000))
        assert fixture.handle(fixture.load()).verdict is Verdict.RESUME
        assert fixture.shadow() == (0xC000000700000107, 16)

    def test_a_fault_that_read_the_old_slot_tries_again_b19(self) -> None:
        fixture = Fixture()
        steps = fixture.handler.handle(fixture.nested, decode(fixture.store()))
        while next(steps) is not Point.LOCK:
            pass
        slot = next(iter(fixture.guest.slots))
        upkeep.replace_slot(fixture.guest, slot, Slot(slot.base, slot.size, read_only=True))
        assert finish(steps).verdict is Verdict.RESUME
        assert fixture.shadow() is None


def test_unmapping_a_range_is_one_change() -> None:
    fixture = stored()
    before = fixture.guest.sequence
    assert upkeep.unmap_range(fixture.guest, GPA - 0x20000, GPA + 0x20000) == 1
    assert (fixture.guest.sequence, fixture.guest.invalidating) == (before + 1, 0)
