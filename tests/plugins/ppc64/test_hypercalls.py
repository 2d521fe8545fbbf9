"""L1's invalidations and hypercalls: sections 1.14 to 1.17 of the reference, and the scenarios TH, TI, TJ and TK."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ppc64_fixture import (
    GPA_TO_HPA,
    HOST_PTCR,
    L1_PTCR,
    LEAF_64K,
    PATE_ADDRESS,
    PATE_DW0,
    SLOT_BYTES,
    Fixture,
)

from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.guests import NestedGuest
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.points import Point, finish
from nestmmu_ppc64_book3s.tlbie import Tlbie
from nestmmu_ppc64_radix.kvm import KvmNestedGuest
from nestmmu_ppc64_radix.nested_hcalls import CopyRequest, NestedHcalls, RptRequest
from nestmmu_ppc64_radix.quirks import Quirk

H_SUCCESS, H_FUNCTION, H_PARAMETER, H_NOT_FOUND, H_NO_MEM = 0, -2, -4, -7, -9
H_P2, H_P4, H_P5, H_UNSUPPORTED = -55, -57, -58, -67
PAGE, LARGE = 0x123450000, 0x123400000
LEAF = 0xC000000580050187
ALL = (1 << 64) - 1


class Nest(Fixture):
    """The fixture with what L1 calls; L2's LPIDs come from an allocator that begins at 7."""

    def __init__(self, quirks: Quirk = Quirk.LINUX_6_1, tags: TagAllocator | None = None, **options: int) -> None:
        super().__init__(quirks, **options)  # type: ignore[arg-type]
        self.guest.nested.clear()
        self.tags = TagAllocator(7, 4096) if tags is None else tags
        self.guests: NestedGuests[KvmNestedGuest] = NestedGuests(
            self.host, self.guest, self.tags, lambda: 1 << (self.guest.ptcr & 0x1F) + 8
        )
        self.hcalls = NestedHcalls(self.host, self.guest, self.guests)
        self.nested = self.enter(5)
        finish(self.guests.put(self.nested))

    def enter(self, l1_lpid: int) -> KvmNestedGuest:
        found = finish(self.guests.get(AssignedTag(l1_lpid), create=True))
        assert found is not None
        return found

    def fill(self, address: int = PAGE, entry: int = LEAF, shift: int = 16) -> None:
        self.plant_shadow(address, entry, shift)
        self.flushes.clear()

    def tlbie(self, instruction: int, rs: int, rb: int) -> int:
        return finish(self.hcalls.tlb_invalidate(instruction, rs, rb))

    def rpt(self, kind: int, pages: int, start: int, end: int, *, lpid: int = 5, target: int = 1) -> int:
        return finish(self.hcalls.rpt_invalidate(RptRequest(lpid, target, kind, pages, start, end)))

    def leaves(self) -> list[int]:
        return [leaf.page_start for leaf in self.nested.shadow.table.leaves()]


class TestTlbie:
    def test_one_page_th1(self) -> None:
        nest = Nest()
        nest.handle(nest.store())
        nest.flushes.clear()
        assert nest.tlbie(0x10000, 5, 0x1234500A0) == H_SUCCESS
        assert nest.leaves() == []
        assert nest.flush_log() == [(7, "page", PAGE, 16)]
        assert nest.rmap(0x18005) == [(5, PAGE)]

    def test_all_small_pages_of_a_large_one_th2(self) -> None:
        nest = Nest()
        for index in range(32):
            nest.fill(LARGE + (index << 16), LEAF)
        nest.flushes.clear()
        assert nest.tlbie(0x10000, 5, 0x123400020) == H_SUCCESS
        assert nest.leaves() == []
        assert nest.flush_log() == [(7, "page", LARGE + (index << 16), 16) for index in range(32)]

    def test_a_large_leaf_goes_whole_th3(self) -> None:
        nest = Nest()
        nest.fill(LARGE, 0xC000000580000187, 21)
        assert nest.tlbie(0x10000, 5, 0x1234500A0) == H_SUCCESS
        assert nest.flush_log() == [(7, "page", LARGE, 21)]

    def test_1g_of_nothing_th4(self) -> None:
        nest = Nest()
        assert nest.tlbie(0x10000, 5, 0x100000040) == H_SUCCESS
        assert nest.flush_log() == []

    @pytest.mark.parametrize("ap", [3, 4, 6, 7])
    @pytest.mark.parametrize("lpid", [5, 77])
    def test_an_illegal_page_size_th5(self, ap: int, lpid: int) -> None:
        assert Nest().tlbie(0x10000, lpid, 0x123450000 | ap << 5) == H_PARAMETER

    def test_a_4k_page_under_a_host_of_64k_th6(self) -> None:
        nest = Nest()
        nest.fill()
        assert nest.tlbie(0x10000, 5, 0x123456000) == H_SUCCESS
        assert nest.leaves() == []

    @pytest.mark.parametrize(
        ("instruction", "rb"),
        [
            pytest.param(0x00000, 0x1234500A0, id="R-0"),
            pytest.param(0x30000, 0x1234500A0, id="PRS-1"),
            pytest.param(0xD0000, 0x800, id="RIC-3"),
            pytest.param(0x10000, 0x400, id="IS-1"),
            pytest.param(0x50000, 0, id="RIC-1-IS-0"),
            pytest.param(0x90000, 0, id="RIC-2-IS-0"),
        ],
    )
    def test_forms_that_are_refused_th7(self, instruction: int, rb: int) -> None:
        nest = Nest()
        nest.fill()
        assert nest.tlbie(instruction, 5, rb) == H_PARAMETER
        assert nest.leaves() == [PAGE]
        assert nest.flush_log() == []

    def test_a_whole_lpid_th8(self) -> None:
        nest = Nest()
        nest.handle(nest.store())
        nest.flushes.clear()
        nest.word(PATE_ADDRESS, 0)
        assert nest.tlbie(0x10000, 5, 0x800) == H_SUCCESS
        assert nest.leaves() == []
        assert nest.flush_log() == [(7, "tag", 0, 0)]
        assert nest.nested.gr_to_hr == PATE_DW0
        assert nest.rmap(0x18005) == [(5, PAGE)]

    def test_walk_caches_alone_th9(self) -> None:
        nest = Nest()
        nest.fill()
        assert nest.tlbie(0x50000, 5, 0x800) == H_SUCCESS
        assert nest.leaves() == [PAGE]
        assert nest.flush_log() == []

    def test_with_the_partition_table_th10(self) -> None:
        nest = Nest()
        nest.handle(nest.store())
        nest.flushes.clear()
        nest.word(PATE_ADDRESS, PATE_DW0 + 0x10000)
        assert nest.tlbie(0x90000, 5, 0x800) == H_SUCCESS
        assert nest.flush_log() == [(7, "tag", 0, 0)]
        assert nest.nested.gr_to_hr == PATE_DW0 + 0x10000

    def test_a_partition_table_entry_that_is_gone_takes_the_guest_along_th11(self) -> None:
        nest = Nest()
        held = nest.enter(5)
        assert held.references == 2
        nest.word(PATE_ADDRESS, 0)
        assert nest.tlbie(0x90000, 5, 0x800) == H_SUCCESS
        assert nest.guest.nested == {}
        assert 7 in nest.tags.used
        finish(nest.guests.put(held))
        assert nest.tags.used == set()
        assert nest.memory.read((HOST_PTCR & ~0xFFF) + 16 * 7, 16) == bytes(16)

    def test_every_lpid_th12(self) -> None:
        nest = Nest()
        others = [nest.enter(lpid) for lpid in (6, 9)]
        nest.flushes.clear()
        assert nest.tlbie(0x10000, 0, 0xC00) == H_SUCCESS
        assert nest.flush_log() == [(7, "tag", 0, 0), (8, "tag", 0, 0), (9, "tag", 0, 0)]
        assert [one.references for one in others] == [2, 2]

    def test_a_guest_that_is_removed_while_every_lpid_is_flushed_th12_b18(self) -> None:
        nest = Nest()
        finish(nest.guests.put(nest.enter(6)))
        steps = nest.hcalls.tlb_invalidate(0x90000, 0, 0xC00)
        while next(steps) is not Point.LOCK_NESTED:
            pass
        finish(nest.guests.remove(nest.guest.nested[AssignedTag(6)]))  # type: ignore[arg-type]
        assert finish(steps) == H_SUCCESS
        assert 8 not in nest.tags.used

    @pytest.mark.parametrize("lpid", [pytest.param(77, id="TH13"), pytest.param(4096, id="TH14")])
    def test_an_unknown_lpid(self, lpid: int) -> None:
        assert Nest().tlbie(0x10000, lpid, 0x1234500A0) == H_SUCCESS

    def test_without_nesting_th15(self) -> None:
        nest = Nest()
        nest.guest.nesting_allowed = False
        assert nest.tlbie(0x10000, 5, 0x1234500A0) == H_FUNCTION

    def test_after_it_l2_faults_to_l1_th16_and_without_it_does_not_th17(self) -> None:
        nest = Nest()
        nest.handle(nest.load())
        nest.leaf(0)
        assert nest.leaves() == [PAGE]
        nest.tlbie(0x10000, 5, 0x1234500A0)
        assert nest.leaves() == []
        assert nest.handle(nest.load()).verdict.value == "reflect"

    def test_a_fault_under_way_holds_it_off_th18(self) -> None:
        nest = Nest()
        steps = nest.hcalls.tlb_invalidate(0x10000, 5, 0x1234500A0)
        points = list(steps)
        inner = [Point.LOCK_NESTED, Point.LOCK, Point.UNLOCK, Point.UNLOCK_NESTED]
        assert points == [Point.LOCK, Point.UNLOCK, *inner, Point.LOCK, Point.UNLOCK]


class TestRptInvalidate:
    @pytest.mark.parametrize(
        ("end", "single"), [pytest.param(0x123610000, True, id="TI1"), pytest.param(0x123620000, False, id="TI2")]
    )
    def test_33_pages_one_by_one_and_34_at_once(self, end: int, *, single: bool) -> None:
        nest = Nest()
        nest.fill()
        nest.plant_shadow(0x200000000, LEAF)
        nest.flushes.clear()
        assert nest.rpt(3, 2, LARGE, end) == H_SUCCESS
        assert nest.leaves() == ([0x200000000] if single else [])
        assert nest.flush_log() == ([(7, "page", PAGE, 16)] if single else [(7, "tag", 0, 0)])

    @pytest.mark.parametrize(
        ("kind", "pages", "start", "end", "target", "code"),
        [
            pytest.param(3, 2, 0x20000, 0x10000, 1, H_P5, id="TI3"),
            pytest.param(3, 2, 0, 0x10000, 2, H_P2, id="TI4"),
            pytest.param(3, 0x10, 0, 0x10000, 1, H_P4, id="TI7"),
        ],
    )
    def test_what_is_refused(self, kind: int, pages: int, start: int, end: int, target: int, code: int) -> None:
        assert Nest().rpt(kind, pages, start, end, target=target) == code

    def test_all_kinds_read_the_partition_table_again_ti5(self) -> None:
        nest = Nest()
        nest.fill()
        nest.word(PATE_ADDRESS, PATE_DW0 + 0x10000)
        assert nest.rpt(0xF, 0, 0, 0x1000) == H_SUCCESS
        assert nest.nested.gr_to_hr == PATE_DW0 + 0x10000
        assert nest.leaves() == []

    @pytest.mark.parametrize(
        ("quirks", "end", "left"),
        [
            pytest.param(Quirk.LINUX_6_1, ALL, [], id="TI6-K"),
            pytest.param(Quirk.NONE, ALL, [PAGE], id="TI6-C"),
            pytest.param(Quirk.LINUX_6_1, 0x1000, [PAGE], id="TI6-range"),
        ],
    )
    def test_walk_caches_alone(self, quirks: Quirk, end: int, left: list[int]) -> None:
        nest = Nest(quirks)
        nest.fill()
        assert nest.rpt(5, 0, 0, end) == H_SUCCESS
        assert nest.leaves() == left

    def test_an_empty_range_is_one_page_ti8(self) -> None:
        nest = Nest()
        nest.fill()
        nest.plant_shadow(PAGE + 0x10000, LEAF)
        assert nest.rpt(3, 2, PAGE, PAGE) == H_SUCCESS
        assert nest.leaves() == [PAGE + 0x10000]

    def test_an_unknown_lpid_ti9(self) -> None:
        assert Nest().rpt(3, 2, 0, 0x10000, lpid=77) == H_SUCCESS

    def test_an_l1_that_translates_by_hash_ti12(self) -> None:
        nest = Nest()
        nest.guest.radix = False
        assert nest.rpt(3, 2, 0x20000, 0x10000) == H_UNSUPPORTED

    def test_two_page_sizes_ti13(self) -> None:
        nest = Nest()
        for index in range(32):
            nest.fill(LARGE + (index << 16), LEAF)
        assert nest.rpt(3, 6, LARGE, LARGE + (1 << 21)) == H_SUCCESS
        assert nest.leaves() == []

    @pytest.mark.parametrize(
        ("kind", "pages", "start", "end", "flushes"),
        [
            (0xE, 0, 0, 0, [(2, 1, 3, 0, 0)]),
            (4, 0, 0, 0, [(1, 1, 3, 0, 0)]),
            (2, 0, 0, ALL, [(0, 1, 3, 0, 0)]),
            (2, 2, 0, 0x20000, [(0, 0, 3, 0, 16), (0, 0, 3, 0x10000, 16)]),
            (2, 2, 0, 0x220000, [(0, 1, 3, 0, 0)]),
        ],
    )
    def test_l1s_own_processes_h7(
        self, kind: int, pages: int, start: int, end: int, flushes: list[tuple[int, ...]]
    ) -> None:
        nest = Nest()
        assert nest.rpt(kind, pages, start, end, lpid=3) == H_SUCCESS
        assert nest.hcalls.process_flushes == flushes


class TestPartitionTable:
    @pytest.mark.parametrize(
        ("ptcr", "code"),
        [
            pytest.param(L1_PTCR, H_SUCCESS, id="TJ1"),
            pytest.param(0x01000005, H_PARAMETER, id="TJ2"),
            pytest.param(0x300000004, H_PARAMETER, id="TJ3"),
            pytest.param(0, H_SUCCESS, id="TJ4"),
        ],
    )
    def test_what_is_taken(self, ptcr: int, code: int) -> None:
        nest = Nest()
        assert nest.hcalls.set_partition_table(ptcr) == code
        assert nest.guest.ptcr == (ptcr if code == H_SUCCESS else L1_PTCR)

    @pytest.mark.parametrize(
        ("quirks", "reflected"),
        [pytest.param(Quirk.LINUX_6_1, False, id="TJ5-K-B39"), pytest.param(Quirk.NONE, True, id="TJ5-C-B39")],
    )
    def test_a_new_table_while_an_entry_of_the_old_one_is_cached(self, quirks: Quirk, *, reflected: bool) -> None:
        nest = Nest(quirks)
        nest.handle(nest.load())
        assert nest.hcalls.set_partition_table(0x05000004) == H_SUCCESS
        nest.nested.shadow.remove(PAGE)
        assert (nest.handle(nest.load()).verdict.value == "reflect") == reflected

    @pytest.mark.parametrize(
        ("lpid", "there"), [pytest.param(255, True, id="TJ6-255"), pytest.param(256, False, id="TJ6-256")]
    )
    def test_the_tables_size_limits_lpids(self, lpid: int, *, there: bool) -> None:
        nest = Nest()
        nest.hcalls.set_partition_table(0x01000000)
        assert (finish(nest.guests.get(AssignedTag(lpid), create=True)) is not None) == there


class TestCopy:
    DATA = bytes(range(64))

    def nest(self, quirks: Quirk = Quirk.LINUX_6_1) -> Nest:
        """Return a nest whose L2 has a process 3 with one page: effective address 0 is L2 real 0x123450000."""
        nest = Nest(quirks)
        nest.handle(nest.store())
        nest.nested.process_table = 0
        return nest

    def copy(self, nest: Nest, **values: int) -> int:
        request = {"l1_lpid": 5, "pid": 3, "eaddr": 0x1000, "to": 0x5000, "source": 0, "size": 8} | values
        return finish(nest.hcalls.copy_tofrom_guest(CopyRequest(**request)))

    @pytest.mark.parametrize(
        ("values", "code"),
        [
            pytest.param({"source": 0x6000}, H_PARAMETER, id="TJ16"),
            pytest.param({"eaddr": 0x0010000000000000}, H_PARAMETER, id="TJ17"),
            pytest.param({"l1_lpid": 77}, H_PARAMETER, id="TJ18"),
            pytest.param({}, H_NOT_FOUND, id="TJ19"),
            pytest.param({"size": 1 << 40}, H_NO_MEM, id="TJ22"),
        ],
    )
    def test_what_is_refused(self, values: dict[str, int], code: int) -> None:
        nest = self.nest()
        before = nest.memory.read(0x5000 + GPA_TO_HPA, 8)
        assert self.copy(nest, **values) == code
        assert nest.memory.read(0x5000 + GPA_TO_HPA, 8) == before

    @pytest.mark.parametrize(
        ("quirks", "code"),
        [pytest.param(Quirk.LINUX_6_1, H_NOT_FOUND, id="TJ21-K"), pytest.param(Quirk.NONE, H_PARAMETER, id="TJ21-C")],
    )
    def test_neither_pointer(self, quirks: Quirk, code: int) -> None:
        assert self.copy(self.nest(quirks), to=0) == code


class TestLife:
    def test_references_tk1_tk2(self) -> None:
        nest = Nest()
        first = nest.enter(6)
        assert first.references == 2
        finish(nest.guests.put(first))
        assert first.references == 1
        assert nest.enter(6) is first

    def test_release_all_while_one_is_held_tk3(self) -> None:
        nest = Nest()
        held = nest.enter(5)
        finish(nest.guests.release_all())
        assert nest.guest.nested == {}
        assert held.references == 1
        assert 7 in nest.tags.used
        finish(nest.guests.put(held))
        assert nest.tags.used == set()
        assert nest.enter(6).tag == 7

    def test_out_of_lpids_tk4(self) -> None:
        nest = Nest(tags=TagAllocator(7, 8))
        used = dict(nest.allocator.used)
        assert finish(nest.guests.get(AssignedTag(6), create=True)) is None
        assert nest.allocator.used == used

    @pytest.mark.parametrize(
        ("quirks", "both"),
        [pytest.param(Quirk.LINUX_6_1, False, id="TK5-K-B24"), pytest.param(Quirk.NONE, True, id="TK5-C-B24")],
    )
    def test_two_enter_a_new_guest_at_once(self, quirks: Quirk, *, both: bool) -> None:
        nest = Nest(quirks)
        one = nest.guests.get(AssignedTag(6), create=True)
        two = nest.guests.get(AssignedTag(6), create=True)
        for steps in (one, two):
            assert [next(steps), next(steps)] == [Point.LOCK, Point.UNLOCK]
        assert next(one) is Point.LOCK
        second = finish(two)
        first = finish(one)
        assert first is not None
        assert (second is first) == both
        assert (second is not None) == both
        assert len(nest.tags.used) == 2

    def test_the_next_lpid_l8(self) -> None:
        nest = Nest()
        nest.enter(9)
        assert [nest.guests.after(lpid) for lpid in (0, 5, 9)] == [5, 9, -1]

    def test_two_guests_are_apart_tk10(self) -> None:
        nest = Nest()
        other: NestedGuest = nest.enter(6)
        nest.fill()
        nest.plant(other.shadow, PAGE, LEAF, 16)
        nest.flushes.clear()
        nest.tlbie(0x10000, 5, 0x1234500A0)
        assert {tag for tag, *_ in nest.flush_log()} == {7}
        assert other.shadow.lookup(PAGE) is not None


@settings(max_examples=200)
@given(
    instruction=st.integers(0, (1 << 64) - 1),
    rs=st.integers(0, (1 << 64) - 1),
    rb=st.integers(0, (1 << 64) - 1),
    arguments=st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 15), min_size=6, max_size=6),
    ptcr=st.integers(0, (1 << 64) - 1),
)
def test_hypercalls_are_hostile_by_nature(instruction: int, rs: int, rb: int, arguments: list[int], ptcr: int) -> None:
    """Whatever the registers hold: a code of the reference, nothing raised, nothing touched outside L1's slot."""
    nest = Nest()
    nest.fill()
    outside = nest.memory.read(SLOT_BYTES + GPA_TO_HPA, 4096)
    codes = {H_SUCCESS, H_FUNCTION, H_PARAMETER, H_NOT_FOUND, H_NO_MEM, H_P2, H_P4, H_P5, H_UNSUPPORTED}
    assert nest.tlbie(instruction, rs, rb) in codes
    assert finish(nest.hcalls.rpt_invalidate(RptRequest(*arguments))) in codes
    assert finish(nest.hcalls.copy_tofrom_guest(CopyRequest(*arguments))) in codes
    assert nest.hcalls.set_partition_table(ptcr) in codes
    assert nest.memory.read(SLOT_BYTES + GPA_TO_HPA, 4096) == outside


def test_operands_go_there_and_back() -> None:
    operands = Tlbie.decode(0x10000, 5, 0x1234500A0)
    assert (operands.ric, operands.prs, operands.r, operands.scope, operands.ap, operands.lpid) == (0, 0, 1, 0, 5, 5)
    assert operands.epn == 0x123450
    assert operands.page_shift == 16
    assert operands.encode() == (0x10000, 5, 0x1234500A0)


def test_a_page_of_l2s_is_flushed_by_these_operands_i11() -> None:
    nest = Nest()
    assert nest.hcalls.as_tlbie(PAGE, 16, 5) == (0x10000, 5, 0x1234500A0)
    assert nest.hcalls.as_tlbie(LARGE, 21, 5) == (0x10000, 5, 0x123400020)
    assert nest.hcalls.as_tlbie_all(5) == (0x90000, 5, 0x800)
    assert HardwareTag(7) == nest.nested.tag
    assert LEAF_64K >> 62 == 3
