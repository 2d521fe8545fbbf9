"""H_ENTER_NESTED and the exits of L2: sections 1.5 and 1.16 of the reference, the scenarios TJ7 to TJ15, TI10, TI11."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ppc64_fixture import ASDR, GPA_TO_HPA, HDAR, HSRR1_FETCH, MSR, PC, SLOT_BYTES, Fixture

from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.points import Point, finish
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_radix.exit_path import Circumstances, Handler, decide, flush_process
from nestmmu_ppc64_radix.exits import HvExit
from nestmmu_ppc64_radix.nested_entry import EntryResult, L1Vcpu, L2Exit, L2Vcpu, NestedEntry, l2_lpcr
from nestmmu_ppc64_radix.nested_hcalls import NestedHcalls, RptRequest
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.memory import ByteOrder
    from nestmmu_ppc64_radix.kvm import KvmNestedGuest

H_SUCCESS, H_NOT_AVAILABLE, H_FUNCTION, H_PARAMETER, H_BAD_MODE, H_AUTHORITY, H_P2 = 0, 3, -2, -4, -5, -10, -55
H_INTERRUPT, H_TOO_HARD = -69, 9999
RESUME_GUEST, RESUME_GUEST_NV, RESUME_HOST, EINTR = 0, 1, 2, -4
HV, REGS = 0x0500_0000, 0x0501_0000
WORDS = {
    "version": 0, "lpcr": 16, "pcr": 24, "amor": 32, "dpdes": 40, "hfscr": 48, "tb_offset": 56, "dawr0": 64,
    "dawrx0": 72, "ciabr": 80, "hdec_expiry": 88, "purr": 96, "spurr": 104, "ic": 112, "vtb": 120, "hdar": 128,
    "hdsisr": 136, "heir": 144, "asdr": 152, "srr0": 160, "srr1": 168, "pidr": 208, "cfar": 216, "ppr": 224,
    "dawr1": 232, "dawrx1": 240,
}  # fmt: skip
NIP, MSR_AT = 32 * 8, 33 * 8
TS_SUSPENDED, TS_TRANSACTIONAL = 1 << 33, 1 << 34
LEFT = HvExit(0xC00, MSR, 0, 0, 0, PC)
ORDERS: tuple[ByteOrder, ByteOrder] = ("big", "little")


def letter(order: ByteOrder) -> str:
    return ">" if order == "big" else "<"


class Entered(Fixture):
    """The fixture, with an L1 that has laid out the state of its L2 5; what L2 does is ``run``'s."""

    def __init__(
        self,
        quirks: Quirk = Quirk.LINUX_6_1,
        *,
        order: ByteOrder = "big",
        host_order: ByteOrder | None = None,
        hv: int = HV,
        msr: int = MSR,
        read_only: bool = False,
        **words: int,
    ) -> None:
        super().__init__(quirks, read_only=read_only)
        self.guest.nested.clear()
        self.order: ByteOrder = order
        self.hv = hv
        self.guests: NestedGuests[KvmNestedGuest] = NestedGuests(
            self.host, self.guest, TagAllocator(7, 4096), lambda: 1 << (self.guest.ptcr & 0x1F) + 8
        )
        self.vcpu = L1Vcpu(msr=MSR, byteorder=order)
        self.entry = NestedEntry(self.host, self.guest, self.guests, self.vcpu, byteorder=host_order or order)
        self.ran: list[L2Vcpu] = []
        self.put(hv + 8, words.pop("lpid", 5), "I")
        self.put(hv + 12, words.pop("vcpu_token", 0), "I")
        for name, value in ({"version": 2} | words).items():
            self.put(hv + WORDS[name], value)
        self.put(REGS + MSR_AT, msr)

    def put(self, gpa: int, value: int, code: str = "Q") -> None:
        self.memory.write(gpa + GPA_TO_HPA, struct.pack(letter(self.order) + code, value))

    def got(self, gpa: int) -> int:
        return int(struct.unpack(letter(self.order) + "Q", self.memory.read(gpa + GPA_TO_HPA, 8))[0])

    def state(self, name: str) -> int:
        return self.got(self.hv + WORDS[name])

    def run(self, *lefts: L2Exit, act: Callable[[L2Vcpu], None] | None = None) -> EntryResult:
        """Enter, and let L2 leave as ``lefts`` say, one after the other."""
        planned = list(lefts) or [L2Exit(RESUME_HOST, LEFT)]

        def once(cpu: L2Vcpu) -> L2Exit:
            self.ran.append(cpu)
            if act is not None:
                act(cpu)
            return planned.pop(0)

        return finish(self.entry.enter(self.hv, REGS, once))


class TestRefusals:
    """Rows 1 to 8, in their order: nothing runs, nothing is written."""

    @pytest.mark.parametrize("version", [0, 3, 0xFFFF])
    def test_versions_tj7(self, version: int) -> None:
        nest = Entered(version=version)
        assert nest.run() == EntryResult(H_PARAMETER, H_PARAMETER)
        assert nest.ran == []

    @pytest.mark.parametrize(
        ("version", "code"), [(0x100000001, H_P2), (0x100000003, H_PARAMETER), (0x10001, H_PARAMETER)]
    )
    def test_the_size_is_looked_up_by_the_low_half_of_the_version(self, version: int, code: int) -> None:
        assert Entered(version=version).run() == EntryResult(code, code)

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            pytest.param({"vcpu_token": 2047}, 0xC00, id="TJ10-last"),
            pytest.param({"vcpu_token": 2048}, H_PARAMETER, id="TJ10"),
            pytest.param({"lpid": 4095}, 0xC00, id="row-8-last"),
            pytest.param({"lpid": 4096}, H_PARAMETER, id="row-8"),
        ],
    )
    def test_ranges(self, words: dict[str, int], code: int) -> None:
        assert Entered(**words).run().r3 == code  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("l1", "l2", "code"),
        [
            pytest.param(TS_TRANSACTIONAL, TS_TRANSACTIONAL, H_BAD_MODE, id="L1-transactional"),
            pytest.param(TS_SUSPENDED, 0, H_BAD_MODE, id="suspended-L2-inactive"),
            pytest.param(0, TS_TRANSACTIONAL, H_BAD_MODE, id="L2-alone"),
            pytest.param(0, TS_SUSPENDED, H_BAD_MODE, id="L2-alone-suspended"),
            pytest.param(TS_SUSPENDED | TS_TRANSACTIONAL, TS_SUSPENDED, H_BAD_MODE, id="reserved"),
            pytest.param(TS_SUSPENDED, TS_TRANSACTIONAL, 0xC00, id="both"),
            pytest.param(0, 0, 0xC00, id="neither"),
        ],
    )
    def test_transactional_memory_tj11_b30(self, l1: int, l2: int, code: int) -> None:
        nest = Entered(msr=MSR | l2)
        nest.vcpu.msr |= l1
        assert nest.run().r3 == code
        assert bool(nest.ran) == (code == 0xC00)

    def test_each_comes_before_the_next(self) -> None:
        nest = Entered(version=0, vcpu_token=2048, msr=TS_SUSPENDED)
        nest.vcpu.msr = TS_TRANSACTIONAL
        nest.guest.nesting_allowed, nest.guest.ptcr = False, 0
        assert nest.run().r3 == H_FUNCTION
        nest.guest.nesting_allowed = True
        assert nest.run().r3 == H_NOT_AVAILABLE
        nest.guest.ptcr = 0x01000004
        assert nest.run().r3 == H_BAD_MODE
        nest.vcpu.msr = 0
        assert nest.run().r3 == H_PARAMETER
        nest.put(HV, 2)
        assert nest.run().r3 == H_PARAMETER
        nest.put(HV + 12, 0, "I")
        assert nest.run().r3 == H_BAD_MODE
        assert nest.ran == []
        assert nest.guest.nested == {}

    def test_a_version_that_changes_between_the_two_reads_row_5(self) -> None:
        nest = Entered()
        steps = nest.entry.enter(HV, REGS, lambda _: L2Exit(RESUME_HOST, LEFT))
        assert next(steps) is Point.PREEMPT
        nest.put(HV, 3)
        assert finish(steps).r3 == H_P2

    @pytest.mark.parametrize(
        ("hv", "regs"), [(SLOT_BYTES, REGS), (SLOT_BYTES - 240, REGS), (HV, SLOT_BYTES - 344), ((1 << 64) - 8, REGS)]
    )
    def test_what_is_not_in_memory_tj14(self, hv: int, regs: int) -> None:
        nest = Entered()
        if hv == SLOT_BYTES - 240:
            nest.put(hv, 2)
        result = finish(nest.entry.enter(hv, regs, lambda _: L2Exit(RESUME_HOST, LEFT)))
        assert result == EntryResult(H_PARAMETER, H_PARAMETER)

    def test_what_cannot_be_written_at_exit_tj14(self) -> None:
        nest = Entered(read_only=True)
        assert nest.run() == EntryResult(H_AUTHORITY, H_AUTHORITY)
        assert len(nest.ran) == 1
        assert nest.guest.nested[nest.ran[0].nested.assigned].references == 1

    def test_the_state_stays_written_where_the_registers_cannot_be(self) -> None:
        nest = Entered()

        def once(cpu: L2Vcpu) -> L2Exit:
            cpu.state.srr0 = 9
            return L2Exit(RESUME_HOST, LEFT)

        steps = nest.entry.enter(HV, REGS, once)
        slot = next(iter(nest.slots))
        for point in steps:
            if point is Point.LOCK_NESTED:
                nest.slots.remove(slot)
                nest.slots.add(attrs.evolve(slot, size=REGS))
        assert nest.state("srr0") == 9
        assert nest.got(REGS + NIP) == 0


class TestEntry:
    @pytest.mark.parametrize("order", ORDERS)
    def test_version_1_at_the_end_of_the_slot_tj8_b31(self, order: ByteOrder) -> None:
        nest = Entered(order=order, hv=SLOT_BYTES - 232, version=1)
        nest.memory.write(SLOT_BYTES + GPA_TO_HPA, b"\xa5" * 16)
        assert nest.run(act=lambda cpu: setattr(cpu.state, "ppr", 0x77)).r3 == 0xC00
        assert nest.state("ppr") == 0x77
        assert nest.memory.read(SLOT_BYTES + GPA_TO_HPA, 16) == b"\xa5" * 16
        assert (nest.ran[0].state.dawr1, nest.ran[0].state.dawrx1) == (0, 0)

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize(
        ("quirks", "code"),
        [
            pytest.param(Quirk.LINUX_6_1, H_AUTHORITY, id="TJ9-K-B46"),
            pytest.param(Quirk.NONE, 0xC00, id="TJ9-C"),
        ],
    )
    def test_an_l1_of_the_other_byte_order(self, order: ByteOrder, quirks: Quirk, code: int) -> None:
        other: ByteOrder = "little" if order == "big" else "big"
        nest = Entered(quirks, order=order, host_order=other, lpid=6, vcpu_token=3, pcr=0x8, srr0=0x1122334455667788)
        nest.put(REGS + 8 * 3, 0x0102030405060708)
        assert nest.run(act=lambda cpu: setattr(cpu.state, "srr1", 0xABCD)).r3 == code
        cpu = nest.ran[0]
        assert (cpu.nested.assigned, cpu.state.vcpu_token) == (6, 3)
        assert (cpu.state.srr0, cpu.regs.gpr[3]) == (0x1122334455667788, 0x0102030405060708)
        assert cpu.state.pcr == 0x8 | ~0xF00000000000001E & (1 << 64) - 1
        written = code == 0xC00
        assert nest.state("srr1") == (0xABCD if written else 0)
        assert nest.got(REGS + NIP) == (PC if written else 0)
        assert nest.state("pcr") == (cpu.state.pcr if written else 0x8)

    @pytest.mark.parametrize("order", ORDERS)
    def test_the_same_byte_order_is_no_trouble_b26(self, order: ByteOrder) -> None:
        nest = Entered(order=order, pcr=0x8)
        assert nest.run() == EntryResult(0xC00, 0xC00)
        assert (nest.got(REGS + NIP), nest.got(REGS + MSR_AT)) == (PC, MSR)
        assert nest.state("pcr") == 0x8

    def test_hv_is_off_and_me_is_on_tj12(self) -> None:
        nest = Entered(msr=(MSR | 1 << 60) & ~0x1000)
        nest.run()
        assert nest.ran[0].regs.msr == MSR == 0x8000000000009033

    def test_lpcr_tj13_b33(self) -> None:
        taken = 0x0070000000000000 | 0x02000000 | 0x200 | 0x01800000 | 0x20000 | 0x800
        hr, uprt, gtse, vpm0 = 1 << 20, 1 << 22, 1 << 10, 1 << 63
        assert l2_lpcr(0, (1 << 64) - 1) == taken
        assert l2_lpcr(hr | uprt, gtse | vpm0) == hr | uprt
        assert l2_lpcr(taken | hr, 0) == hr
        nest = Entered(lpcr=(1 << 64) - 1)
        nest.vcpu.lpcr = hr
        nest.run()
        assert nest.ran[0].state.lpcr == (taken | hr) & ~0x200
        assert nest.state("lpcr") == (1 << 64) - 1

    @pytest.mark.parametrize(("ail", "kept"), [(0, 0), (1, 0), (2, 0), (3, 3)])
    def test_ail_is_three_or_none(self, ail: int, kept: int) -> None:
        nest = Entered(lpcr=ail << 23)
        nest.run()
        assert nest.ran[0].state.lpcr == kept << 23

    def test_what_l1_may_not_have_is_filtered_and_its_structure_is_not_b27(self) -> None:
        asked = {"hfscr": 0x0B000000000000FF, "dawrx0": 7, "dawrx1": 6, "ciabr": 0x1003}
        nest = Entered(**asked)  # type: ignore[arg-type]
        nest.vcpu.hfscr_permitted = 0x0F
        nest.run()
        state = nest.ran[0].state
        assert (state.hfscr, state.dawrx0, state.dawrx1, state.ciabr) == (0x0B0000000000000F, 3, 2, 0x1000)
        assert nest.ran[0].hfscr == asked["hfscr"]
        assert {name: nest.state(name) for name in asked} == asked

    @pytest.mark.parametrize("privilege", [0, 1, 2])
    def test_ciabr_of_other_states_stays(self, privilege: int) -> None:
        nest = Entered(ciabr=0x1000 | privilege)
        nest.run()
        assert nest.ran[0].state.ciabr == 0x1000 | privilege

    def test_time_row_10(self) -> None:
        nest = Entered(hdec_expiry=1000, tb_offset=30)
        nest.vcpu.tb_offset, nest.vcpu.dec_expires = 400, 50
        nest.run(act=lambda cpu: setattr(cpu, "dec_expires", cpu.dec_expires + 7))
        cpu = nest.ran[0]
        assert (cpu.hdec_expiry, cpu.tb_offset) == (600, 430)
        assert (nest.vcpu.tb_offset, nest.vcpu.dec_expires) == (400, 57)

    def test_counters_row_15(self) -> None:
        nest = Entered(purr=100, spurr=(1 << 64) - 1, ic=5, vtb=7)
        nest.vcpu.purr, nest.vcpu.spurr, nest.vcpu.ic = 1000, 2000, (1 << 64) - 1

        def count(cpu: L2Vcpu) -> None:
            cpu.state.purr, cpu.state.spurr, cpu.state.ic = 130, 4, 6

        nest.run(act=count)
        assert (nest.vcpu.purr, nest.vcpu.spurr, nest.vcpu.ic, nest.vcpu.vtb) == (1030, 2005, 0, 0)
        assert (nest.state("purr"), nest.state("spurr"), nest.state("ic"), nest.state("vtb")) == (130, 4, 6, 7)

    @pytest.mark.parametrize(("left", "l1"), [(TS_TRANSACTIONAL, TS_SUSPENDED), (TS_SUSPENDED, TS_SUSPENDED), (0, 0)])
    def test_l1_is_suspended_if_l2_ended_within_a_transaction_row_15(self, left: int, l1: int) -> None:
        nest = Entered(msr=MSR | TS_SUSPENDED)
        nest.vcpu.msr = MSR | TS_SUSPENDED
        nest.run(L2Exit(RESUME_HOST, attrs.evolve(LEFT, msr=MSR | left)))
        assert nest.vcpu.msr == MSR | l1

    def test_l2_goes_on_until_something_is_l1s_row_14(self) -> None:
        nest = Entered()
        again = [L2Exit(RESUME_GUEST, LEFT), L2Exit(RESUME_GUEST_NV, LEFT)]
        assert nest.run(*again, L2Exit(RESUME_HOST, attrs.evolve(LEFT, trap=0x500))).r3 == 0x500
        assert len(nest.ran) == 3
        assert nest.ran[0] is nest.ran[2]

    def test_a_partition_table_entry_that_was_not_there_is_read_again_row_9(self) -> None:
        nest = Entered()
        nest.run()
        nested = nest.ran[0].nested
        assert (nested.gr_to_hr, nested.process_table, nested.tag) == (0xC0000000020000AD, 0x03000004, 7)
        nest.word(0x01000050, 0xC0000000020100AD)
        nest.run()
        assert nested.gr_to_hr == 0xC0000000020000AD
        nested.gr_to_hr = 0
        nest.run()
        assert nested.gr_to_hr == 0xC0000000020100AD
        assert nested.references == 1

    def test_without_a_partition_table_entry_l2_runs_all_the_same_row_9(self) -> None:
        nest = Entered(lpid=6)
        assert nest.run().r3 == 0xC00
        assert nest.ran[0].nested.gr_to_hr == 0

    def test_a_fault_of_l2_reaches_l1(self) -> None:
        nest = Entered(hdar=1, hdsisr=2, asdr=3, heir=4)
        seen = HvExit(0xE00, MSR, HDAR, 0x40000000, ASDR, PC)
        assert nest.run(L2Exit(RESUME_HOST, seen)) == EntryResult(0xE00, 0xE00)
        assert [nest.state(name) for name in ("hdar", "hdsisr", "asdr", "heir")] == [HDAR, 0x40000000, ASDR, 4]

    @pytest.mark.parametrize("error", [-2, -12, -14, -22])
    def test_an_error_of_the_ladder_reaches_l1_as_the_fault_itself(self, error: int) -> None:
        nest = Entered()
        assert nest.run(L2Exit(error, HvExit(0xE20, HSRR1_FETCH, PC, 0, ASDR, PC))).r3 == 0xE20
        assert (nest.state("asdr"), nest.got(REGS + MSR_AT)) == (ASDR, HSRR1_FETCH)

    def test_a_signal_of_the_host_tj15_b28(self) -> None:
        nest = Entered()
        interrupted = L2Exit(EINTR, HvExit(0, MSR, 0, 0, 0, PC + 4), mmio=True)
        result = nest.run(interrupted, act=lambda cpu: setattr(cpu.state, "srr0", 0x77))
        assert result == EntryResult(H_INTERRUPT, 0, EINTR)
        assert (nest.state("srr0"), nest.got(REGS + NIP)) == (0x77, PC + 4)

    @pytest.mark.parametrize(("register", "slot"), [(5, REGS + 40), (0, REGS), (None, None)])
    def test_a_device_of_l1s_row_18(self, register: int | None, slot: int | None) -> None:
        seen = HvExit(0xE00, MSR, HDAR, 0x40000000, ASDR, PC)
        result = Entered().run(L2Exit(RESUME_HOST, seen, mmio=True, mmio_gpr=register))
        assert result == EntryResult(H_TOO_HARD, 0, RESUME_HOST, slot)


class TestExits:
    @pytest.mark.parametrize(
        ("trap", "resume", "handler", "shown"),
        [
            pytest.param(0x980, RESUME_GUEST, Handler.NONE, 0x980, id="HDEC"),
            pytest.param(0x500, RESUME_HOST, Handler.NONE, 0x500, id="EXT"),
            pytest.param(0xE80, RESUME_GUEST, Handler.NONE, 0xE80, id="H_DOORBELL"),
            pytest.param(0xEA0, RESUME_GUEST, Handler.NONE, 0xEA0, id="H_VIRT"),
            pytest.param(0xE60, RESUME_GUEST, Handler.NONE, 0xE60, id="HMI"),
            pytest.param(0xF00, RESUME_GUEST, Handler.NONE, 0xF00, id="PERFMON"),
            pytest.param(0x100, RESUME_GUEST, Handler.NONE, 0x100, id="SRESET"),
            pytest.param(0x1980, RESUME_HOST, Handler.NONE, 0x980, id="nested-HDEC"),
            pytest.param(0x200, RESUME_HOST, Handler.NONE, 0x200, id="MCE"),
            pytest.param(0xE00, RESUME_GUEST, Handler.PAGE_FAULT, 0xE00, id="HDSI"),
            pytest.param(0xE20, RESUME_GUEST, Handler.PAGE_FAULT, 0xE20, id="HISI"),
            pytest.param(0xC00, RESUME_HOST, Handler.NONE, 0xC00, id="SC"),
            pytest.param(0x5555, RESUME_GUEST, Handler.NONE, 0, id="real-mode-hard"),
            pytest.param(0x700, RESUME_HOST, Handler.NONE, 0x700, id="else-B36"),
        ],
    )
    def test_by_trap_e2(self, trap: int, resume: int, handler: Handler, shown: int) -> None:
        decision = decide(attrs.evolve(LEFT, trap=trap), Circumstances())
        assert (decision.resume, decision.handler, decision.seen.trap) == (resume, handler, shown)
        in_hypervisor_state = decide(attrs.evolve(LEFT, trap=trap, msr=MSR | 1 << 60), Circumstances())
        assert (in_hypervisor_state.resume, in_hypervisor_state.handler) == (RESUME_HOST, Handler.NONE)

    @pytest.mark.parametrize(("write", "dsisr"), [(0, 0x40000000), (0x10000, 0x42000000)])
    def test_a_fetch_e3(self, write: int, dsisr: int) -> None:
        hisi = Interrupt(0xE20, {"hsrr0": PC, "hsrr1": HSRR1_FETCH | write, "asdr": ASDR}, hv=True)
        seen = decide(HvExit.from_interrupt(hisi), Circumstances()).seen
        assert (seen.dar, seen.dsisr, seen.asdr) == (PC, dsisr, ASDR)

    @pytest.mark.parametrize("trap", [0xF80, 0x1500])
    @pytest.mark.parametrize(
        ("permitted", "asked", "word", "resume", "shown"),
        [
            pytest.param(0x20, 0x00, 0x7C, RESUME_HOST, 0xF80, id="L1-took-it-away"),
            pytest.param(0x20, 0x20, 0x7C, RESUME_HOST, 0xE40, id="L1-gave-it"),
            pytest.param(0xDF, 0x00, 0x7C, RESUME_HOST, 0xE40, id="not-L1s-to-give"),
            pytest.param(0xDF, 0x00, None, RESUME_GUEST, 0xE40, id="unreadable"),
        ],
    )
    def test_a_facility_e4_b34(
        self, trap: int, permitted: int, asked: int, word: int | None, resume: int, shown: int
    ) -> None:
        about = Circumstances(hfscr=5 << 56, hfscr_permitted=permitted, nested_hfscr=asked, instruction=word)
        decision = decide(attrs.evolve(LEFT, trap=trap), about)
        assert (decision.resume, decision.seen.trap) == (resume, shown)
        assert decision.heir == (word if word and shown == 0xE40 else 0)

    def test_a_cause_beyond_the_register_is_no_facility(self) -> None:
        about = Circumstances(hfscr=64 << 56, hfscr_permitted=(1 << 64) - 1, instruction=1)
        assert decide(attrs.evolve(LEFT, trap=0xF80), about).seen.trap == 0xE40

    def test_an_emulated_instruction_goes_on(self) -> None:
        assert decide(attrs.evolve(LEFT, trap=0x1500), Circumstances(emulated=True)).resume == RESUME_GUEST


class TestRptInvalidateOfL2:
    def test_process_scoped_ti10_e5(self) -> None:
        decision = decide(LEFT, Circumstances(gpr3=0x448, gpr6=2))
        assert (decision.resume, decision.handler) == (RESUME_GUEST, Handler.RPT_INVALIDATE)
        nest = Entered()
        nest.run()
        hcalls = NestedHcalls(nest.host, nest.guest, nest.guests)
        flushes = flush_process(hcalls, nest.ran[0].nested.tag, RptRequest(3, 1, 2, 2, 0, 0x20000))
        assert flushes == [(7, 0, 0, 3, 0, 16), (7, 0, 0, 3, 0x10000, 16)]
        assert hcalls.process_flushes == []

    def test_neither_target_nor_order_is_looked_at_e5(self) -> None:
        nest = Entered()
        hcalls = NestedHcalls(nest.host, nest.guest, nest.guests)
        request = RptRequest(3, 9, 2, 2, 0x20000, 0x10000)
        assert flush_process(hcalls, nest.nested.tag, request) == [(7, 0, 0, 3, 0x20000, 16)]

    def test_partition_scoped_is_l1s_ti11(self) -> None:
        assert decide(LEFT, Circumstances(gpr3=0x448, gpr6=3)).resume == RESUME_HOST

    def test_another_hypercall_is_l1s(self) -> None:
        assert decide(LEFT, Circumstances(gpr3=0x44C, gpr6=2)).resume == RESUME_HOST


ANY_WORD = st.integers(0, (1 << 64) - 1)
PLACE = ANY_WORD | st.sampled_from([HV, REGS, HV + 4, SLOT_BYTES - 232, SLOT_BYTES - 8, (1 << 64) - 4, 0, 0x01000000])


@settings(max_examples=200, deadline=None)
@given(
    raw=st.binary(min_size=248, max_size=248),
    head=st.sampled_from([None, 1, 2, 0x100000001]),
    lpid=st.none() | st.integers(0, 5000),
    regs=st.binary(min_size=352, max_size=352),
    places=st.tuples(PLACE, PLACE) | st.just((HV, REGS)),
    msr=ANY_WORD,
    order=st.sampled_from(ORDERS),
    resume=st.sampled_from([RESUME_HOST, EINTR, -12]),
    quirks=st.sampled_from([Quirk.LINUX_6_1, Quirk.NONE]),
)
@example(
    raw=bytes(248), head=0x100000001, lpid=5, regs=bytes(352), places=(HV, REGS), msr=0, order="big",
    resume=RESUME_HOST, quirks=Quirk.NONE,
)  # fmt: skip
def test_what_l1_hands_over_is_hostile_by_nature(
    raw: bytes,
    head: int | None,
    lpid: int | None,
    regs: bytes,
    places: tuple[int, int],
    msr: int,
    order: ByteOrder,
    resume: int,
    quirks: Quirk,
) -> None:
    """Whatever the bytes and registers: a code of the reference or L2's trap, nothing outside L1's slot, no leak."""
    nest = Entered(quirks, order=order, host_order="little")
    nest.memory.write(HV + GPA_TO_HPA, raw)
    nest.memory.write(REGS + GPA_TO_HPA, regs)
    if head is not None:
        nest.put(HV, head)
    if lpid is not None:
        nest.put(HV + 8, lpid, "I")
        nest.put(HV + 12, lpid // 2, "I")
    nest.vcpu.msr = msr
    outside = nest.memory.read(SLOT_BYTES + GPA_TO_HPA, 4096)
    result = finish(nest.entry.enter(*places, lambda cpu: L2Exit(resume, attrs.evolve(LEFT, msr=cpu.regs.msr))))
    codes = {H_PARAMETER, H_BAD_MODE, H_AUTHORITY, H_P2}
    assert (result.code in codes and result.r3 == result.code) or (result.code, result.r3) in {
        (0xC00, 0xC00),
        (H_INTERRUPT, 0),
    }
    assert nest.memory.read(SLOT_BYTES + GPA_TO_HPA, 4096) == outside
    assert all(one.references == 1 for one in nest.guest.nested.values())


def test_a_vcpu_token_on_another_core_has_the_first_one_flush_tk6() -> None:
    """Token 3 on CPUs 0, 8 and 0 again; L2 has LPID 7: core 0 is flushed before L2 runs there again."""
    nest = Entered(vcpu_token=3)
    for cpu in (0, 8, 0):
        nest.vcpu.cpu = cpu
        nest.run()
    (found,) = nest.guest.nested.values()
    assert found.placement.pending == {1, 2, 3, 8, 9, 10, 11}
    assert [(flush.tag, flush.kind.name) for flush in nest.flushes if flush.cpu == 0] == [(7, "TAG")]


def test_a_vcpu_token_on_the_same_core_flushes_nothing_tk7() -> None:
    nest = Entered(vcpu_token=3)
    for cpu in (0, 1):
        nest.vcpu.cpu = cpu
        nest.run()
    (found,) = nest.guest.nested.values()
    assert found.placement.pending == set()
    assert [flush for flush in nest.flushes if flush.cpu is not None] == []
