"""The hypercalls of a hash guest: section 3.5 of the reference, with every flag and code; TP7 to TP12, TP15, TP16."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import Access
from nestmmu.addresses import HardwareTag
from nestmmu.memory import GuestMemory, PhysicalMemory
from nestmmu.outcomes import RESUME, Verdict
from nestmmu.slots import LinearBacking, Slot, Slots, SlotTranslator
from nestmmu_ppc64_hpt.faults import MMIO, RETRY, TO_KERNEL, Judged, judge, mend
from nestmmu_ppc64_hpt.guest import HashGuest
from nestmmu_ppc64_hpt.hashing import make_v, segment_of, tlbie_rb, vsid_word
from nestmmu_ppc64_hpt.hcalls import (
    H_ANDCOND,
    H_AVPN,
    H_COPY_PAGE,
    H_EXACT,
    H_READ_4,
    H_ZERO_PAGE,
    HashHcalls,
)
from nestmmu_ppc64_hpt.resize import HashResize
from nestmmu_ppc64_hpt.table import HashTable

H_SUCCESS, H_CLOSED, H_FUNCTION, H_PARAMETER, H_PTEG_FULL, H_NOT_FOUND = 0, 2, -2, -4, -6, -7
H_AUTHORITY, H_RESOURCE, H_TOO_HARD, BUSY = -10, -16, 9999, 9902
TABLE, DISTANCE = 0x10_0000_0000, 0x4_0000_0000
ABSENT, VALID, BOLTED, LARGE = 0x20, 1, 0x10, 4
R, C, M = 0x100, 0x080, 0x010
KEY_31 = 0x3000000000000E00
SEGMENT = segment_of(vsid_word(0x123456))
V = 0x123456A80
"""Doubleword 0 of VSID 0x123456, offset 0x0ABC5000, without V; its PTEG begins at slot 0x4FC98 of 2^24 bytes."""
SLOT = 0x4FC98


class Nest:
    """A hash guest of 256 MiB and a table of order 24, in one piece in the host's memory."""

    def __init__(self, page_shift: int = 24, *, writable: bool = True, read_only: bool = False) -> None:
        self.memory = PhysicalMemory()
        self.slots = Slots((Slot(0, 1 << 28, read_only=read_only),))
        backing = LinearBacking(DISTANCE, page_shift, writable)
        own = GuestMemory(self.memory, SlotTranslator(self.slots, backing), "guest real")
        self.flushed: list[int] = []
        table = HashTable(self.memory, TABLE, 24)
        self.guest = HashGuest(HardwareTag(9), table, own, self.slots, backing, 16, self.flushed.append)
        self.calls = HashHcalls(self.guest)

    def enter(self, r: int = 0x5000 | M | 2, v: int = V, flags: int = 0, ptex: int = SLOT) -> tuple[int, ...]:
        return self.calls.enter(flags, ptex, v | VALID, r)

    def real(self, slot: int = SLOT) -> tuple[int, int]:
        return self.guest.table.read(slot)

    def hardware(self, bits: int, slot: int = SLOT) -> None:
        """Set R or C as the CPU does."""
        v, r = self.real(slot)
        self.guest.table.write(slot, v, r | bits)


class TestEnter:
    def test_the_real_entry_has_the_hosts_page_without_r_and_c(self) -> None:
        nest = Nest()
        assert nest.enter(0x5000 | R | C | M | 2) == (H_SUCCESS, SLOT)
        assert nest.real() == (V | VALID, DISTANCE | 0x5000 | M | 2)
        assert nest.calls.read(0, SLOT) == (H_SUCCESS, V | VALID, 0x5000 | R | C | M | 2)

    def test_r_and_c_that_the_frame_has_already(self) -> None:
        nest = Nest()
        nest.guest.frame(0x5000).referenced = True
        nest.enter(0x5000 | R | C | M | 2)
        assert nest.real()[1] == DISTANCE | 0x5000 | R | M | 2

    def test_a_full_group_tp7(self) -> None:
        """The ninth has no place in the primary PTEG, and has one in the secondary."""
        nest = Nest()
        assert [nest.enter()[1] for _ in range(8)] == list(range(SLOT, SLOT + 8))
        assert nest.enter() == (H_PTEG_FULL,)
        assert nest.enter(v=V | 2, ptex=0xB0360) == (H_SUCCESS, 0xB0360)

    def test_exact(self) -> None:
        nest = Nest()
        assert nest.enter(flags=H_EXACT, ptex=SLOT + 5) == (H_SUCCESS, SLOT + 5)
        assert nest.enter(flags=H_EXACT, ptex=SLOT + 5) == (H_PTEG_FULL,)
        assert nest.enter(ptex=SLOT + 5) == (H_SUCCESS, SLOT)

    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param({"v": V | 2 << 62}, id="TP8: B = 2"),
            pytest.param({"v": V | 3 << 62}, id="B = 3"),
            pytest.param({"v": V | LARGE, "r": 0x2000 | M | 2}, id="TP9: LP nibble 2"),
            pytest.param({"ptex": 1 << 20}, id="beyond the table"),
            pytest.param({"v": V | LARGE, "r": 0xFFFF000 | 0x38000}, id="not aligned to the host's slot's end"),
        ],
    )
    def test_refusals(self, arguments: dict[str, int]) -> None:
        nest = Nest(page_shift=16)
        assert nest.enter(**arguments) == (H_PARAMETER,)
        assert nest.real() == (0, 0)

    def test_a_host_page_that_is_smaller(self) -> None:
        nest = Nest(page_shift=12)
        assert nest.enter(0x1_1000 | M | 2, V | LARGE) == (H_PARAMETER,)
        assert Nest(page_shift=16).enter(0x1_1000 | M | 2, V | LARGE) == (H_SUCCESS, SLOT)

    def test_a_device_is_absent_with_key_31_tp15(self) -> None:
        nest = Nest()
        assert nest.enter(0x4000_0000 | 2) == (H_SUCCESS, SLOT)
        assert nest.real() == (V | ABSENT, 0x4000_0000 | KEY_31 | 2)
        assert nest.guest.mmio_updates == 1
        assert nest.calls.read(0, SLOT) == (H_SUCCESS, V | VALID, 0x4000_0000 | 2)

    @pytest.mark.parametrize(("pp", "real"), [(0, 1 << 63 | 2), (1, 3), (2, 3), (3, 3)])
    def test_read_only_memory(self, pp: int, real: int) -> None:
        nest = Nest(read_only=True)
        nest.enter(0x5000 | M | pp)
        assert nest.real() == (V | VALID, DISTANCE | 0x5000 | M | real)

    def test_a_page_that_the_host_does_not_have_is_absent(self) -> None:
        nest = Nest(writable=False)
        nest.enter(0x5000 | M | 2)
        assert nest.real() == (V | ABSENT, 0x5000 | M | 2)

    @pytest.mark.parametrize(("wimg", "real"), [(0x10, 0x10), (0x70, 0x70), (0x28, 0x10), (0x20, 0x10), (0, 0x10)])
    def test_memory_is_cached(self, wimg: int, real: int) -> None:
        nest = Nest()
        nest.enter(0x5000 | wimg | 2)
        assert nest.real()[1] & 0x78 == real


class TestRemove:
    def test_what_comes_back(self) -> None:
        nest = Nest()
        nest.enter()
        nest.hardware(R | C)
        assert nest.calls.remove(0, SLOT, 0) == (H_SUCCESS, V | VALID, 0x5000 | R | C | M | 2)
        assert nest.real() == (0, 0)
        assert nest.flushed == [0x123456ABC5000]
        assert nest.guest.frame(0x5000).changed
        assert nest.guest.dirty == {0}

    def test_avpn_tp10(self) -> None:
        nest = Nest()
        nest.enter()
        before = nest.real()
        assert nest.calls.remove(H_AVPN, SLOT, V ^ 0x80) == (H_NOT_FOUND,)
        assert nest.real() == before
        assert nest.flushed == []
        assert nest.calls.remove(H_AVPN, SLOT, V)[0] == H_SUCCESS

    def test_andcond(self) -> None:
        nest = Nest()
        nest.enter(v=V | BOLTED)
        assert nest.calls.remove(H_ANDCOND, SLOT, BOLTED) == (H_NOT_FOUND,)
        assert nest.calls.remove(H_ANDCOND, SLOT, 0x8)[0] == H_SUCCESS

    def test_empty_and_beyond(self) -> None:
        nest = Nest()
        assert nest.calls.remove(0, SLOT, 0) == (H_NOT_FOUND,)
        assert nest.calls.remove(0, 1 << 20, 0) == (H_PARAMETER,)

    def test_an_absent_entry_is_reported_as_valid(self) -> None:
        nest = Nest()
        nest.enter(0x4000_0000 | 2)
        assert nest.calls.remove(0, SLOT, 0) == (H_SUCCESS, V | VALID, 0x4000_0000 | 2)
        assert nest.flushed == []
        assert nest.guest.mmio_updates == 2


class TestBulkRemove:
    def test_result_byte_tp11(self) -> None:
        nest = Nest()
        nest.enter(ptex=8, flags=H_EXACT)
        nest.hardware(R | C, 8)
        code, first, second = nest.calls.bulk_remove([(1 << 62 | 8, 0), (3 << 62, 0)])
        assert code == H_SUCCESS
        assert (first >> 56, first & 0xFFFF) == (0x8C, 8)
        assert second == 3 << 62

    def test_every_kind_of_result(self) -> None:
        nest = Nest()
        for slot in (8, 9, 10):
            nest.enter(v=V | BOLTED, ptex=slot, flags=H_EXACT)
        request = 1 << 62
        pairs = [(request | 1 << 56 | 8, BOLTED), (request | 2 << 56 | 9, V), (request | 10, 0), (request | 11, 0)]
        code, *results = nest.calls.bulk_remove(pairs)
        assert code == H_SUCCESS
        assert [one >> 56 for one in results] == [0x91, 0x82, 0x80, 0x90]
        assert nest.real(8)[0] & VALID
        assert nest.real(9) == nest.real(10) == (0, 0)

    @pytest.mark.parametrize("first", [0, 2 << 62 | 8, 1 << 62 | 3 << 56 | 8, 1 << 62 | 1 << 20])
    def test_a_bad_request_ends_it(self, first: int) -> None:
        nest = Nest()
        nest.enter(ptex=8, flags=H_EXACT)
        code, result, after = nest.calls.bulk_remove([(first, 0), (1 << 62 | 8, 0)])
        assert code == H_PARAMETER
        assert result >> 56 == 0xA0 | first >> 56 & 3
        assert after == 1 << 62 | 8
        assert nest.real(8)[0] & VALID


class TestProtect:
    def test_read_write_waits_for_the_fault_tp12(self) -> None:
        nest = Nest()
        nest.enter(0x5000 | M | 3)
        assert nest.calls.protect(2, SLOT, 0) == (H_SUCCESS,)
        assert nest.calls.read(0, SLOT)[2] & 3 == 2
        assert nest.real()[1] & 3 == 3

    def test_every_field(self) -> None:
        """pp0 from bit 8 of the flags, the key's high bits from 13:12, the rest in place."""
        nest = Nest()
        nest.enter(0x5000 | M | 2)
        nest.hardware(R)
        flags = 1 << 8 | 3 << 12 | 0xE00 | 0x4 | 2
        assert nest.calls.protect(flags, SLOT, 0) == (H_SUCCESS,)
        assert nest.real()[1] == DISTANCE | 0x5000 | 1 << 63 | KEY_31 | 4 | R | M | 2
        assert nest.flushed == [0x123456ABC5000]

    def test_nothing_that_changes_flushes_nothing(self) -> None:
        nest = Nest()
        nest.enter()
        assert nest.calls.protect(2, SLOT, 0) == (H_SUCCESS,)
        assert nest.flushed == []

    def test_refusals(self) -> None:
        nest = Nest()
        assert nest.calls.protect(0, SLOT, 0) == (H_NOT_FOUND,)
        assert nest.calls.protect(0, 1 << 20, 0) == (H_PARAMETER,)
        nest.enter()
        assert nest.calls.protect(H_AVPN, SLOT, V ^ 0x80) == (H_NOT_FOUND,)


class TestReadAndClear:
    def test_four_entries(self) -> None:
        nest = Nest()
        nest.enter()
        assert nest.calls.read(H_READ_4, SLOT + 3) == (H_SUCCESS, V | VALID, 0x5000 | M | 2, 0, 0, 0, 0, 0, 0)
        assert nest.calls.read(0, 1 << 20) == (H_PARAMETER,)

    @pytest.mark.parametrize(("name", "flag", "other"), [("clear_ref", R, C), ("clear_mod", C, R)])
    def test_one_flag_goes_and_is_remembered(self, name: str, flag: int, other: int) -> None:
        nest = Nest()
        nest.enter()
        nest.hardware(R | C)
        assert getattr(nest.calls, name)(SLOT) == (H_SUCCESS, 0x5000 | R | C | M | 2)
        assert nest.real() == (V | VALID, DISTANCE | 0x5000 | other | M | 2)
        assert nest.flushed == [0x123456ABC5000]
        state = nest.guest.frame(0x5000)
        assert (state.referenced, state.changed) == (flag == R, flag == C)
        assert getattr(nest.calls, name)(SLOT) == (H_SUCCESS, 0x5000 | other | M | 2)
        assert len(nest.flushed) == 1

    @pytest.mark.parametrize("name", ["clear_ref", "clear_mod"])
    def test_refusals(self, name: str) -> None:
        nest = Nest()
        assert getattr(nest.calls, name)(SLOT) == (H_NOT_FOUND,)
        assert getattr(nest.calls, name)(1 << 20) == (H_PARAMETER,)


class TestPageInit:
    def test_copying_wins_over_zeros(self) -> None:
        nest = Nest()
        nest.guest.memory.write(0x2000, b"x" * 4096)
        assert nest.calls.page_init(H_COPY_PAGE | H_ZERO_PAGE, 0x5000, 0x2000) == (H_SUCCESS,)
        assert nest.guest.memory.read(0x5000, 4096) == b"x" * 4096
        assert nest.calls.page_init(H_ZERO_PAGE, 0x5000, 1) == (H_SUCCESS,)
        assert nest.guest.memory.read(0x5000, 4096) == bytes(4096)

    @pytest.mark.parametrize(
        ("flags", "dest", "src"),
        [(1, 0, 0), (H_ZERO_PAGE, 8, 0), (H_COPY_PAGE, 0, 8), (H_ZERO_PAGE, 1 << 28, 0), (H_COPY_PAGE, 0, 1 << 28)],
    )
    def test_refusals(self, flags: int, dest: int, src: int) -> None:
        assert Nest().calls.page_init(flags, dest, src) == (H_PARAMETER,)

    def test_the_host_has_no_page(self) -> None:
        assert Nest(writable=False).calls.page_init(H_ZERO_PAGE, 0, 0) == (H_TOO_HARD,)

    def test_a_radix_guest_may(self) -> None:
        nest = Nest()
        nest.guest.radix = True
        assert nest.calls.page_init(H_ZERO_PAGE, 0, 0) == (H_SUCCESS,)


def test_a_radix_guest_has_none_of_the_others() -> None:
    nest = Nest()
    nest.guest.radix = True
    calls = nest.calls
    replies = [
        calls.enter(0, 0, V, 0), calls.remove(0, 0, 0), calls.bulk_remove([]), calls.protect(0, 0, 0),
        calls.read(0, 0), calls.clear_ref(0), calls.clear_mod(0),
    ]  # fmt: skip
    assert replies == [(H_FUNCTION,)] * 7


def resizing(nest: Nest, suggested: int = 46) -> HashResize:
    return HashResize(nest.guest, lambda order: HashTable(nest.memory, 0x20_0000_0000, order), suggested)


class TestResize:
    @pytest.mark.parametrize(
        ("vsid", "offset", "base", "shift"),
        [(0x123456, 0x0ABC5000, 12, 28), (0x123456, 0x0ABC0000, 16, 28), (0x1FFFFFF, 0x0300_0000, 24, 40),
         (0x123456, 0x12_3450_0000, 16, 40)],
    )  # fmt: skip
    def test_what_is_bolted_is_where_its_hash_leads_tp16(self, vsid: int, offset: int, base: int, shift: int) -> None:
        """From order 24 to 25, by the hash of the whole address; what is not bolted is dropped."""
        nest = Nest()
        one = segment_of(vsid_word(vsid, shift, base))
        assert one is not None
        old = nest.guest.table.candidates(one, offset)[0]
        v = make_v(one, offset, large=base != 12) & ~VALID
        r = {12: 0x5000, 16: 0x1000, 24: 0}[base] | M | 2
        assert nest.enter(r, v | BOLTED, H_EXACT, old + 3) == (H_SUCCESS, old + 3)
        assert nest.enter(r, v, H_EXACT, old + 4) == (H_SUCCESS, old + 4)
        sizes = resizing(nest)
        assert [sizes.prepare(0, 25), sizes.prepare(0, 25), sizes.prepare(0, 25)] == [
            (BUSY,),
            (H_SUCCESS,),
            (H_SUCCESS,),
        ]
        assert sizes.commit(0, 25) == (H_SUCCESS,)
        new = nest.guest.table
        assert new.order == 25
        (only,) = new.valid(ABSENT | VALID)
        assert only == (new.candidates(one, offset)[0] + 3, v | BOLTED | ABSENT, r)
        assert nest.calls.read(0, only[0])[1:] == (v | BOLTED | VALID, r)

    def test_codes_of_prepare(self) -> None:
        sizes = resizing(Nest(), suggested=26)
        assert sizes.prepare(1, 25) == (H_PARAMETER,)
        assert sizes.prepare(0, 17) == (H_PARAMETER,)
        assert sizes.prepare(0, 47) == (H_PARAMETER,)
        assert sizes.prepare(0, 28) == (H_RESOURCE,)
        assert sizes.prepare(0, 27) == (BUSY,)

    def test_a_shift_of_zero_cancels(self) -> None:
        sizes = resizing(Nest())
        sizes.prepare(0, 25)
        sizes.prepare(0, 25)
        assert sizes.prepare(0, 0) == (H_SUCCESS,)
        assert sizes.commit(0, 25) == (H_CLOSED,)

    def test_codes_of_commit(self) -> None:
        sizes = resizing(Nest())
        assert sizes.commit(1, 25) == (H_PARAMETER,)
        assert sizes.commit(0, 25) == (H_CLOSED,)
        sizes.prepare(0, 25)
        sizes.prepare(0, 25)
        assert sizes.commit(0, 26) == (H_CLOSED,)

    def test_two_that_are_bolted_in_one_new_slot(self) -> None:
        """VSIDs that differ by the PTEGs of the smaller table."""
        nest = Nest()
        for vsid in (0x100, 0x100 + (1 << 11)):
            one = segment_of(vsid_word(vsid))
            assert one is not None
            nest.enter(v=make_v(one, 0, large=False) & ~VALID | BOLTED, ptex=nest.guest.table.candidates(one, 0)[0])
        sizes = resizing(nest)
        sizes.prepare(0, 18)
        sizes.prepare(0, 18)
        assert sizes.commit(0, 18) == (H_PTEG_FULL,)
        assert nest.guest.table.order == 24

    def test_a_radix_guest(self) -> None:
        nest = Nest()
        nest.guest.radix = True
        assert resizing(nest).prepare(0, 25) == (H_AUTHORITY,)
        assert resizing(nest).commit(0, 25) == (H_AUTHORITY,)


MSR = 0x8000_0000_0000_0030
"""SF, IR and DR."""
AT = 0x0ABC5008
NOHPTE, PROT, STORE_BIT, KEY_BIT, NO_EXECUTE = 0x4000_0000, 0x0800_0000, 0x0200_0000, 0x0020_0000, 0x1000_0000
LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH


class TestFaults:
    def judged(self, nest: Nest, access: Access = LOAD, status: int = NOHPTE, msr: int = MSR, amr: int = 0) -> Judged:
        assert SEGMENT is not None
        return judge(nest.guest, SEGMENT, AT, access, status, msr, amr)

    def test_no_entry_is_the_guests_f2(self) -> None:
        assert self.judged(Nest()).code == NOHPTE
        assert self.judged(Nest(), STORE, PROT | STORE_BIT).code == RETRY

    def test_an_entry_that_is_there_by_now_is_tried_again(self) -> None:
        nest = Nest()
        nest.enter()
        assert self.judged(nest).code == RETRY

    @pytest.mark.parametrize(
        ("r", "access", "status", "code"),
        [
            pytest.param(3, STORE, PROT | STORE_BIT, PROT | STORE_BIT, id="read-only"),
            pytest.param(0xA00 | 2, STORE, PROT | STORE_BIT, PROT | STORE_BIT | KEY_BIT, id="key 5"),
            pytest.param(4 | 2, FETCH, PROT, PROT | NO_EXECUTE, id="no-execute"),
        ],
    )
    def test_what_the_guest_itself_forbids(self, r: int, access: Access, status: int, code: int) -> None:
        nest = Nest()
        nest.enter(0x5000 | M | r)
        assert self.judged(nest, access, status, amr=0x0020_0000_0000_0000).code == code

    def test_the_store_after_h_protect_is_mended_tp12(self) -> None:
        nest = Nest()
        nest.enter(0x5000 | M | 3)
        nest.hardware(R)
        nest.calls.protect(2, SLOT, 0)
        judged = self.judged(nest, STORE, PROT | STORE_BIT)
        assert judged.code == TO_KERNEL
        assert mend(nest.guest, judged, STORE) == RESUME
        assert nest.real() == (V | VALID, DISTANCE | 0x5000 | R | M | 2)
        assert nest.flushed == [0x123456ABC5000]

    def test_a_device_is_for_emulation_tp15(self) -> None:
        nest = Nest()
        nest.enter(0x4000_0000 | 2)
        judged = self.judged(nest)
        assert judged.code == MMIO
        assert mend(nest.guest, judged, LOAD).verdict is Verdict.EMULATE
        assert self.judged(nest, msr=0x8000_0000_0000_0010).code == TO_KERNEL

    def test_a_page_that_comes_after_its_entry(self) -> None:
        nest = Nest(writable=False)
        nest.enter()
        nest.guest.backing = LinearBacking(DISTANCE, 24)
        judged = self.judged(nest, STORE, NOHPTE | STORE_BIT)
        assert mend(nest.guest, judged, STORE) == RESUME
        assert nest.real() == (V | VALID, DISTANCE | 0x5000 | M | 2)

    def test_an_entry_that_changed_meanwhile_is_left_f4(self) -> None:
        nest = Nest()
        nest.enter(0x5000 | M | 3)
        nest.calls.protect(2, SLOT, 0)
        judged = self.judged(nest, STORE, PROT | STORE_BIT)
        nest.calls.remove(0, SLOT, 0)
        assert mend(nest.guest, judged, STORE) == RESUME
        assert nest.real() == (0, 0)

    def test_the_host_cannot(self) -> None:
        nest = Nest(writable=False)
        nest.enter()
        assert mend(nest.guest, self.judged(nest, STORE, NOHPTE | STORE_BIT), STORE).error == "EFAULT"
        other = Nest(read_only=True)
        other.enter(0x5000 | M | 2)
        assert mend(other.guest, self.judged(other, STORE, PROT | STORE_BIT), STORE).verdict is Verdict.INJECT


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=4, max_size=4))
def test_anything_is_a_code(words: list[int]) -> None:
    calls = Nest().calls
    codes = {
        calls.enter(*words)[0], calls.remove(*words[:3])[0], calls.bulk_remove([(words[0], words[1])] * 4)[0],
        calls.protect(*words[:3])[0], calls.read(*words[:2])[0], calls.clear_ref(words[0])[0],
        calls.clear_mod(words[0])[0], calls.page_init(*words[:3])[0],
    }  # fmt: skip
    assert codes <= {H_SUCCESS, H_PARAMETER, H_NOT_FOUND, H_PTEG_FULL}


def test_rb_of_the_worked_entry() -> None:
    assert tlbie_rb(V | VALID, 0x5000, SLOT) == 0x123456ABC5000
