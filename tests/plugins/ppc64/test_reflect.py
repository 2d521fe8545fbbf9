"""What L1 and L2 see of a fault: sections 1.5 to 1.7 of the reference, and the scenarios TB."""

from __future__ import annotations

import pytest
from ppc64_fixture import (
    GPA_TO_HPA,
    HDAR,
    HOST_PTCR,
    HSRR1_FETCH,
    ISSTORE,
    LEAF_64K,
    MSR,
    NOHPTE,
    PATE_ADDRESS,
    PATE_DW0,
    PATE_DW1,
    PC,
    PMD_ENTRY,
    PTE_ENTRY,
    PUD_ENTRY,
    ROOT_ENTRY,
    SHADOW_LPID,
    CountingMemory,
    Fixture,
    N,
)

from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.faults import FaultKind
from nestmmu.memory import PhysicalMemory
from nestmmu.outcomes import Outcome, Verdict
from nestmmu.points import finish
from nestmmu_ppc64_radix.exits import ERRNO, HvExit, decode, inject, reflect, return_code
from nestmmu_ppc64_radix.guest_state import HvGuestState, PtRegs, save_return_state
from nestmmu_ppc64_radix.quirks import Quirk

RESUME_GUEST, RESUME_HOST = 0, 2


class PateMemory(PhysicalMemory):
    """A memory that counts how often L1's PATE for L2 is read."""

    pate_reads = 0

    def read(self, address: int, size: int) -> bytes:
        self.pate_reads += address == PATE_ADDRESS + GPA_TO_HPA
        return super().read(address, size)


def seen(fixture: Fixture, record: HvExit, quirks: Quirk = Quirk.LINUX_6_1) -> HvExit:
    """Handle an exit that is to be reflected, and return what L1 sees."""
    outcome = fixture.handle(record)
    assert outcome.verdict is Verdict.REFLECT
    assert return_code(outcome) == RESUME_HOST
    return reflect(outcome, record, quirks)


def test_pate_that_is_not_there_is_read_again_then_the_fault_goes_to_l1_tb1() -> None:
    memory = CountingMemory()
    fixture = Fixture(memory=memory)
    fixture.word(PATE_ADDRESS, 0)
    record = fixture.load()
    shown = seen(fixture, record)
    assert (shown.dsisr, shown.asdr) == (NOHPTE, 0x123456000)
    assert shown == record


def test_pate_is_read_once_for_a_fault_that_finds_none_cached_tb1() -> None:
    memory = PateMemory()
    fixture = Fixture(memory=memory)
    fixture.word(PATE_ADDRESS, 0)
    for reads in (1, 2):  # by the first fault and, as there was none, by the second
        fixture.handle(fixture.load())
        assert memory.pate_reads == reads
    fixture.word(PATE_ADDRESS, PATE_DW0)
    for _ in range(2):  # now it is cached
        fixture.handle(fixture.load())
        assert memory.pate_reads == 3


def test_zero_alone_means_that_there_is_no_pate_p5() -> None:
    fixture = Fixture()
    fixture.word(PATE_ADDRESS, 0x40000000020000AD)  # HR is 0
    assert fixture.handle(fixture.load()).verdict is Verdict.RESUME
    assert fixture.shadow() == (0xC000000580050107, 16)


@pytest.mark.parametrize(("lpid", "verdict"), [(255, Verdict.RESUME), (256, Verdict.REFLECT)])
def test_partition_table_of_256_entries_p1(lpid: int, verdict: Verdict) -> None:
    fixture = Fixture()
    fixture.guest.ptcr = 0x01000000
    fixture.word(0x01000000 + 16 * lpid, PATE_DW0)
    nested = fixture.host.add_nested(fixture.guest, AssignedTag(lpid), HardwareTag(9))
    outcome = finish(fixture.handler.handle(nested, decode(fixture.load())))
    assert outcome.verdict is verdict
    assert nested.gr_to_hr == (PATE_DW0 if lpid == 255 else 0)


@pytest.mark.parametrize("word", [ROOT_ENTRY, PUD_ENTRY, PMD_ENTRY, PTE_ENTRY])
def test_l1_cannot_tell_at_which_level_an_entry_is_missing(word: int) -> None:
    fixture = Fixture()
    fixture.word(word, 0)
    shown = seen(fixture, fixture.store())
    assert (shown.dsisr, shown.asdr) == (0x42000000, 0x123456000)


def test_pate_that_came_later_is_taken_and_entered_in_l0s_table_tb2() -> None:
    fixture = Fixture()
    fixture.word(PATE_ADDRESS, 0)
    seen(fixture, fixture.load())
    fixture.word(PATE_ADDRESS, PATE_DW0)
    assert fixture.handle(fixture.load()).verdict is Verdict.RESUME
    assert (fixture.nested.gr_to_hr, fixture.nested.process_table) == (PATE_DW0, PATE_DW1)
    at = (HOST_PTCR & ~0xFFF) + 16 * SHADOW_LPID
    root = fixture.nested.tree.table.root.base
    assert int.from_bytes(fixture.memory.read(at, 8), "big") == 0xC0000000000000AD + root
    assert int.from_bytes(fixture.memory.read(at + 8, 8), "big") == 0x0000000003000004
    assert fixture.shadow() is not None


@pytest.mark.parametrize(
    ("leaf", "record", "dsisr"),
    [
        pytest.param(0, "load", 0x40000000, id="TB3"),
        pytest.param(0, "store", 0x42000000, id="TB4"),
        pytest.param(LEAF_64K & ~2, "store", 0x0A000000, id="TB7"),
        pytest.param(LEAF_64K & ~6, "load", 0x08000000, id="TB9"),
    ],
)
def test_what_l1s_table_does_not_allow_goes_to_l1(leaf: int, record: str, dsisr: int) -> None:
    fixture = Fixture()
    fixture.leaf(leaf)
    exit_ = fixture.load() if record == "load" else fixture.store()
    shown = seen(fixture, exit_)
    assert (shown.trap, shown.dsisr, shown.dar, shown.asdr) == (0xE00, dsisr, HDAR, 0x123456000)
    assert shown.msr == MSR
    assert fixture.shadow() is None
    assert len(fixture.guest.rmap) == 0


@pytest.mark.parametrize(
    ("leaf", "msr"),
    [
        pytest.param(0, 0x8000000040009033, id="TB5"),
        pytest.param(LEAF_64K & ~1, 0x8000000010009033, id="TB6"),
    ],
)
def test_a_fetch_is_shown_in_the_msr_image(leaf: int, msr: int) -> None:
    fixture = Fixture()
    fixture.leaf(leaf)
    shown = seen(fixture, fixture.fetch())
    assert (shown.trap, shown.msr, shown.asdr) == (0xE20, msr, 0x123456000)


@pytest.mark.parametrize(
    ("quirks", "msr"),
    [
        pytest.param(Quirk.LINUX_6_1, 0x800000000A009033, id="TB15-K"),
        pytest.param(Quirk.NONE, 0x8000000008019033, id="TB15-C"),
    ],
)
def test_a_fetch_that_needs_a_write(quirks: Quirk, msr: int) -> None:
    fixture = Fixture(quirks)
    fixture.leaf(LEAF_64K & ~2)
    assert seen(fixture, fixture.fetch(0x8000000040019033), quirks).msr == msr


def test_a_protection_fault_first_drops_the_shadows_entry_tb8() -> None:
    fixture = Fixture()
    fixture.handle(fixture.load())
    fixture.leaf(LEAF_64K & ~2)
    fixture.nested.shadow.remove(N)
    fixture.plant_shadow(0x123450000, 0xC000000580050105)
    fixture.flushes.clear()
    outcome = fixture.handle(fixture.store(0x0A000000))
    assert return_code(outcome) == RESUME_GUEST
    assert fixture.shadow() is None
    assert fixture.flush_log() == [(7, "page", 0x123450000, 16)]
    assert seen(fixture, fixture.store(0x42000000)).dsisr == 0x0A000000


@pytest.mark.parametrize("dsisr", [0x08000000, 0x04000000, 0x10000000, 0x8])
def test_the_causes_with_which_step_4_tries_again_first(dsisr: int) -> None:
    fixture = Fixture()
    fixture.leaf(0)
    assert fixture.handle(fixture.load(dsisr)).verdict is Verdict.RESUME
    assert fixture.handle(fixture.load()).verdict is Verdict.REFLECT


@pytest.mark.parametrize(
    ("record", "dsisr"),
    [pytest.param("load", 0x00080000, id="TB11-load"), pytest.param("store", 0x02080000, id="TB11-store")],
)
def test_a_tree_of_another_size_is_an_unsupported_configuration(record: str, dsisr: int) -> None:
    fixture = Fixture()
    fixture.word(PATE_ADDRESS, 0xC00000000200008D)
    assert seen(fixture, fixture.load() if record == "load" else fixture.store()).dsisr == dsisr


def test_a_table_outside_l1s_memory_is_shown_by_its_entrys_address_tb12() -> None:
    fixture = Fixture()
    fixture.word(PUD_ENTRY, 0x8000000900000009)
    shown = seen(fixture, fixture.load())
    assert (shown.dsisr, shown.asdr) == (0x00020000, 0x9000008D0)


@pytest.mark.parametrize(
    ("dsisr", "asdr", "address"),
    [
        pytest.param(0x40020000, 0x03000000, 0x03000000, id="TB13"),
        pytest.param(0x40000000, 0xF000000123456FFF, N, id="TB14"),
        pytest.param(0x40000000, 0x0000000123456000, N, id="step-2"),
    ],
)
def test_address_in_l2(dsisr: int, asdr: int, address: int) -> None:
    assert decode(HvExit(0xE00, MSR, HDAR, dsisr, asdr, PC)).fault.input_address == address


def test_an_address_outside_l1s_memory_is_a_devices_tb16() -> None:
    fixture = Fixture()
    fixture.leaf(0xC000000300000187)
    outcome = fixture.handle(fixture.load())
    assert outcome == Outcome(Verdict.EMULATE, address=0x300006789)
    assert fixture.shadow() is None


def test_a_table_of_l2s_outside_memory_is_l2s_own_fault_tb17() -> None:
    fixture = Fixture()
    fixture.leaf(0xC000000300000187)
    exit_ = decode(fixture.load(NOHPTE | 0x20000))
    outcome = fixture.handle_exit(exit_)
    assert return_code(outcome) == RESUME_GUEST
    interrupt = inject(outcome, exit_)
    assert interrupt.vector == 0x300
    assert (interrupt.get("dar"), interrupt.get("dsisr")) == (HDAR, NOHPTE | 0x20000)
    assert (interrupt.get("srr0"), interrupt.get("srr1")) == (PC, MSR)


def test_a_bad_access_outside_l1s_memory_is_l2s_own_fault_step_8() -> None:
    fixture = Fixture()
    fixture.leaf(0xC000000300000187)
    exit_ = decode(fixture.load(0x44000000))
    interrupt = inject(fixture.handle_exit(exit_), exit_)
    assert (interrupt.vector, interrupt.get("dsisr"), interrupt.get("dar")) == (0x300, 0x44000000, HDAR)


def test_a_store_to_a_read_only_slot_is_l2s_own_fault_tb18() -> None:
    fixture = Fixture(read_only=True)
    record = fixture.store()
    outcome = fixture.handle(record)
    interrupt = inject(outcome, decode(record))
    assert (interrupt.vector, interrupt.get("dsisr"), interrupt.get("dar")) == (0x300, 0x0A000000, HDAR)
    assert fixture.shadow() is None


def test_a_load_from_a_read_only_slot_is_shadowed_without_write_and_change_tb19() -> None:
    fixture = Fixture(read_only=True)
    fixture.handle(fixture.load())
    assert fixture.shadow() == (0xC000000580050105, 16)


@pytest.mark.parametrize(
    ("quirks", "vector"), [(Quirk.LINUX_6_1, 0x300), (Quirk.LINUX_6_1 & ~Quirk.DATA_INTERRUPT_FOR_FETCH, 0x400)]
)
def test_a_fetch_at_fault_gives_l2_a_dsi_quirk_b(quirks: Quirk, vector: int) -> None:
    fixture = Fixture(quirks)
    fixture.leaf(0xC000000300000187)
    exit_ = decode(fixture.fetch(0x8000000040029033))
    assert inject(fixture.handle_exit(exit_), exit_, quirks).vector == vector


def test_a_small_page_of_l1_under_a_host_of_64k_is_refused_again_and_again_tb20() -> None:
    fixture = Fixture()
    fixture.leaf(0xC000000180056187, "4K")
    for _ in range(3):
        record = fixture.load()
        outcome = fixture.handle(record)
        assert return_code(outcome) == ERRNO["EINVAL"] == -22
        assert reflect(outcome, record) == record


@pytest.mark.parametrize("leaf", [LEAF_64K, 0])
def test_a_bad_paste_is_mapped_where_l1_allows_it_tb22(leaf: int) -> None:
    fixture = Fixture()
    fixture.leaf(leaf)
    assert fixture.handle(fixture.load(0x8)).verdict is Verdict.RESUME
    assert (fixture.shadow() is not None) == (leaf != 0)


def test_a_host_without_a_page_fails_and_l1_sees_the_fault_as_it_was_tb23() -> None:
    fixture = Fixture()
    fixture.guest.backing = None
    record = fixture.load()
    outcome = fixture.handle(record)
    assert return_code(outcome) == -14
    assert reflect(outcome, record) == record


class TestReturnStateTB21:
    """TB21, and the second table of 1.7: what goes back to L1, and what keeps L1's own values."""

    def given(self) -> tuple[HvGuestState, PtRegs]:
        return HvGuestState(hdar=1, hdsisr=2, asdr=3, heir=4, hfscr=0xAA << 56 | 5), PtRegs()

    def test_hdsi(self) -> None:
        state, regs = self.given()
        save_return_state(state, regs, HvExit(0xE00, MSR, HDAR, NOHPTE, 0x123456000, PC), heir=9, hfscr=9 << 56)
        assert (state.hdar, state.hdsisr, state.asdr) == (HDAR, NOHPTE, 0x123456000)
        assert (state.heir, state.hfscr) == (4, 0xAA << 56 | 5)
        assert (regs.msr, regs.nip) == (MSR, PC)

    def test_hisi_keeps_hdar_and_hdsisr(self) -> None:
        state, regs = self.given()
        save_return_state(state, regs, HvExit(0xE20, HSRR1_FETCH, PC, NOHPTE, 0x123456000, PC))
        assert (state.hdar, state.hdsisr, state.asdr) == (1, 2, 0x123456000)
        assert regs.msr == HSRR1_FETCH

    def test_emulation_assist_gives_the_instruction_alone(self) -> None:
        state, regs = self.given()
        save_return_state(state, regs, HvExit(0xE40, MSR, 0, 0, 0, PC), heir=0x7C0004AC)
        assert (state.heir, state.hdar, state.hdsisr, state.asdr) == (0x7C0004AC, 1, 2, 3)

    def test_facility_unavailable_gives_the_cause_alone(self) -> None:
        state, regs = self.given()
        save_return_state(state, regs, HvExit(0xF80, MSR, 0, 0, 0, PC), hfscr=0x0B << 56 | 0xFF)
        assert state.hfscr == 0x0B << 56 | 5


@pytest.mark.parametrize(("version", "size"), [(1, 232), (2, 248)])
@pytest.mark.parametrize("order", ["big", "little"])
def test_layout_of_the_state(version: int, size: int, order: str) -> None:
    state = HvGuestState(version=version, lpid=5, vcpu_token=3, hdar=0x1122, asdr=0x3344, srr0=0x55, pidr=0x66)
    raw = state.to_bytes(order)  # type: ignore[arg-type]
    assert len(raw) == size

    def word(at: int, size: int = 8) -> int:
        return int.from_bytes(raw[at : at + size], order)  # type: ignore[arg-type]

    fields = [word(0), word(8, 4), word(12, 4), word(128), word(152), word(160), word(208)]
    assert fields == [version, 5, 3, 0x1122, 0x3344, 0x55, 0x66]
    assert HvGuestState.from_bytes(raw, order) == state  # type: ignore[arg-type]


OFFSETS = {
    "version": 0, "lpcr": 16, "pcr": 24, "amor": 32, "dpdes": 40, "hfscr": 48, "tb_offset": 56, "dawr0": 64,
    "dawrx0": 72, "ciabr": 80, "hdec_expiry": 88, "purr": 96, "spurr": 104, "ic": 112, "vtb": 120, "hdar": 128,
    "hdsisr": 136, "heir": 144, "asdr": 152, "srr0": 160, "srr1": 168, "sprg0": 176, "sprg1": 184, "sprg2": 192,
    "sprg3": 200, "pidr": 208, "cfar": 216, "ppr": 224, "dawr1": 232, "dawrx1": 240,
}  # fmt: skip
"""Of the 64-bit fields, in bytes; section 1.2."""


@pytest.mark.parametrize("name", OFFSETS)
def test_offset_of_each_field_of_the_state(name: str) -> None:
    at = OFFSETS[name]
    raw = bytearray(248)
    raw[at : at + 8] = (0x1122334455667788).to_bytes(8, "big")
    assert getattr(HvGuestState.from_bytes(bytes(raw), "big"), name) == 0x1122334455667788


@pytest.mark.parametrize("order", ["big", "little"])
def test_layout_of_pt_regs(order: str) -> None:
    """The kernel's ``struct pt_regs``: r0 to r31, then NIP at byte 256 and MSR at byte 264; 44 words."""
    raw = PtRegs(gpr=list(range(100, 132)), nip=PC, msr=MSR).to_bytes(order)  # type: ignore[arg-type]
    words = [int.from_bytes(raw[at : at + 8], order) for at in range(0, len(raw), 8)]  # type: ignore[arg-type]
    assert words == [*range(100, 132), PC, MSR, *[0] * 10]


def test_kinds_of_a_fault_are_read_out_of_hdsisr() -> None:
    fault = decode(HvExit(0xE00, MSR, HDAR, 0x42040000, 0x123456000, PC)).fault
    assert fault.kind == FaultKind.NOT_PRESENT | FaultKind.ACCESSED_DIRTY
    assert decode(HvExit(0xE00, MSR, HDAR, ISSTORE, 0, PC)).fault.kind == FaultKind(0)
