"""Regressions of sections 4.4 to 4.6 of the reference: what L1 hands over, its hypercalls, and the CPU's own walk.

Each is right in the model, and shows again as soon as its fix is taken out.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from ppc64_fixture import LEAF_64K, MSR, PC, PUD_ENTRY, SLOT_BYTES
from ppc64_nest import LARGE, PAGE_OF_PID, PROCESS_HPA, REAL, Nest
from ppc64_regressions import Regression

from nestmmu.access import Access
from nestmmu.outcomes import Verdict
from nestmmu.points import finish
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_IR, MSR_SF
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_radix import cpu, guest_state, nested_entry, nested_hcalls
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import HvExit, decode, inject, reflect
from nestmmu_ppc64_radix.formats import KVM_WALK
from nestmmu_ppc64_radix.guest_state import HvGuestState, PtRegs
from nestmmu_ppc64_radix.nested_entry import EntryResult, L1Vcpu, L2Exit, L2Vcpu, NestedEntry
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.faults import Fault
    from nestmmu.memory import ByteOrder

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
STATE, REGS = 0x0500_0000, 0x0501_0000
LPES, DPFD = 0xC, 7 << 52
LEAF_2M = 0xC000000180000187
Patch = pytest.MonkeyPatch


class Entered(Nest):
    """The nest, and an L1 that enters its L2 5."""

    def __init__(self, quirks: Quirk, order: ByteOrder = "big", at: int = STATE, **fields: int) -> None:
        super().__init__(quirks)
        self.order: ByteOrder = order
        self.at = at
        self.vcpu = L1Vcpu(msr=MSR, lpcr=LPES, byteorder=order)
        self.ran: list[HvGuestState] = []
        raw = struct.pack("<>"[order == "big"] + "QII29Q", *attrs.astuple(HvGuestState(lpid=5, **fields)))
        self.guest.memory.write(at, raw[: SLOT_BYTES - at])
        self.guest.memory.write(REGS, PtRegs(nip=PC, msr=MSR).to_bytes(order))

    def run(self, resume: int = 2, trap: int = 0xC00) -> EntryResult:
        """Enter; L2 does one instruction, and changes SRR0."""
        entry = NestedEntry(self.host, self.guest, self.guests, self.vcpu, byteorder="big")

        def once(vcpu: L2Vcpu) -> L2Exit:
            self.ran.append(attrs.evolve(vcpu.state))
            vcpu.state.srr0 = 0x1122334455667788
            return L2Exit(resume, HvExit(trap, vcpu.regs.msr, 0, 0, 0, vcpu.regs.nip + 4))

        return finish(entry.enter(self.at, REGS, once))

    def field(self, offset: int) -> int:
        """Return a doubleword of the state in L1's memory."""
        return int.from_bytes(self.l1(self.at + offset), self.order)

    def pc(self) -> int:
        """Return NIP of the registers in L1's memory."""
        return int.from_bytes(self.l1(REGS + 256), self.order)


# 4.4: H_ENTER_NESTED


def b26(quirks: Quirk) -> Any:
    """Enter from a little-endian L1 on a big-endian L0: r3, L2's SRR0 before and after, and where it goes on."""
    nest = Entered(quirks, "little", srr0=0x0102030405060708)
    r3 = nest.run().r3
    return r3, [state.srr0 for state in nest.ran], nest.field(160), nest.pc()


def b26_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(guest_state, "_struct", lambda _: struct.Struct(">QII29Q"))


def b27(quirks: Quirk) -> Any:
    """Ask for what L1 may not have: what L2 runs with (LPCR, DAWRX0, CIABR), and what L1's structure says after."""
    nest = Entered(quirks, lpcr=DPFD | 1 << 22, dawrx0=7, ciabr=PC | 3)
    nest.run()
    (state,) = nest.ran
    return (state.lpcr, state.dawrx0, state.ciabr), (nest.field(16), nest.field(72), nest.field(80))


def b27_undo_filter(monkeypatch: Patch) -> None:
    monkeypatch.setattr(nested_entry, "permitted_state", lambda asked, _: attrs.evolve(asked))


def b27_undo_copy(monkeypatch: Patch) -> None:
    right = nested_entry.permitted_state

    def in_place(asked: HvGuestState, vcpu: L1Vcpu) -> HvGuestState:
        made = right(asked, vcpu)
        asked.lpcr, asked.dawrx0, asked.ciabr = made.lpcr, made.dawrx0, made.ciabr
        return made

    monkeypatch.setattr(nested_entry, "permitted_state", in_place)


def b28(quirks: Quirk) -> Any:
    """Have a signal of the host's end L2's run: r3, and where L2 goes on."""
    nest = Entered(quirks)
    return nest.run(resume=-4, trap=0).r3, nest.pc()


def b28_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(nested_entry, "_result", lambda left, _: EntryResult(left.resume, left.resume))


def b31(quirks: Quirk) -> Any:
    """Enter with version 1 of the state in the last 232 bytes of L1's memory."""
    return Entered(quirks, at=SLOT_BYTES - 232, version=1).run().r3


def b31_undo(monkeypatch: Patch) -> None:
    monkeypatch.setitem(guest_state.VERSION_BYTES, 1, 248)


def b33(quirks: Quirk) -> Any:
    """Enter from an L1 that asks for no LPES: L2's LPCR."""
    nest = Entered(quirks, lpcr=DPFD)
    nest.run()
    return nest.ran[0].lpcr


def b33_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(nested_entry, "l2_lpcr", lambda _, asked: asked)


# 4.5: copies, validation, and the quirks of the ladder


def b37(quirks: Quirk) -> Any:
    """Copy from process 3 of L2: the code, and what L1 gets."""
    nest = Nest(quirks)
    nest.with_processes()
    nest.memory.write(PAGE_OF_PID[3] + 0x1000, b"of pid 3")
    return nest.copy(), nest.l1(0x5000)


def b37_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(nested_hcalls, "_QUADRANT_PID", 0)


def b37_partial(quirks: Quirk) -> Any:
    """Copy two pages of which L2 has one: the code, and that L1 gets nothing."""
    nest = Nest(quirks)
    nest.with_processes()
    return nest.copy(eaddr=0xFFF8, size=16), nest.l1(0x5000, 16)


def b37_partial_undo(monkeypatch: Patch) -> None:
    right = Power9Radix.access

    def anywhere(self: Power9Radix, access: Access, address: int, at: int | None = None) -> Reached | Interrupt:
        result = right(self, access, address, at)
        return Reached(0, 16, 7) if isinstance(result, Interrupt) else result

    monkeypatch.setattr(Power9Radix, "access", anywhere)


def b38(quirks: Quirk) -> Any:
    """Copy 2**40 bytes."""
    return Nest(quirks).copy(size=1 << 40)


def b38_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(nested_hcalls, "LARGEST_COPY", 1 << 64)


def b39(quirks: Quirk) -> Any:
    """Move L1's partition table to where there is nothing for L2, and load."""
    nest = Nest(quirks)
    nest.access(LOAD)
    nest.hcalls.set_partition_table(0x05000004)
    return nest.access(LOAD)


def b40_vector(quirks: Quirk) -> Any:
    """Fetch where L2's process table leads nowhere: the vector that L2 gets."""
    nest = Nest(quirks)
    nest.leaf(0xC000000300000187)
    exit_ = decode(nest.fetch(0x8000000040029033))
    return inject(nest.handle_exit(exit_), exit_, quirks).vector


def b40_store(quirks: Quirk) -> Any:
    """Fetch where R needs a write that L1 does not allow: the MSR that L1 sees."""
    nest = Nest(quirks)
    nest.leaf(LEAF_64K & ~2)
    record = nest.fetch(0x8000000040019033)
    return reflect(nest.handle(record), record, quirks).msr


def b41(quirks: Quirk) -> Any:
    """Shadow 2 MiB of L1's under 1 GiB of L0's: log2 of the shadow's page."""
    nest = Nest(quirks, backing_shift=30)
    nest.leaf(LEAF_2M, "2M")
    nest.access(LOAD, LARGE)
    leaf = nest.shadow(LARGE)
    return leaf and leaf[1]


def b46(quirks: Quirk) -> Any:
    """Leave to a little-endian L1 from a big-endian L0: r3, SRR0 and where L2 goes on."""
    nest = Entered(quirks, "little")
    return nest.run().r3, nest.field(160), nest.pc()


# 4.6: the walk itself


def b44_directory(quirks: Quirk) -> Any:
    """Give L1's tree a directory that is not aligned to its size: what L1 is shown."""
    nest = Nest(quirks)
    nest.word(PUD_ENTRY, 0x8000000002011809)
    record = nest.load()
    return reflect(nest.handle(record), record, quirks).dsisr


def b44_directory_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr("nestmmu_ppc64_radix.kvm.KVM_WALK", attrs.evolve(KVM_WALK, strict_table=False))


def of_process(quirks: Quirk, access: Access, spoil: Callable[[Nest], None]) -> Any:
    """Let process 3 of L2 make an access to its address 0x1000."""
    nest = Nest(quirks)
    nest.with_processes()
    spoil(nest)
    nest.cpu.registers.msr, nest.cpu.registers.pidr = MSR_SF | MSR_IR | MSR_DR, 3
    return nest.cpu.access(access, 0x1000)


def b44_process_table(quirks: Quirk) -> Any:
    """Give L2 a process table of 64 KiB that begins in the middle of 64 KiB: DSISR, or where the access ends."""

    def spoil(nest: Nest) -> None:
        nest.host.set_pate(nest.nested.tag, int.from_bytes(nest.memory.read(0x8_0000_0070, 8), "big"), 0x03001004)
        nest.memory.write(PROCESS_HPA + 0x1000, nest.memory.read(PROCESS_HPA, 0x1000))

    result = of_process(quirks, LOAD, spoil)
    return result.get("dsisr") if isinstance(result, Interrupt) else result.address


def b44_process_table_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(cpu, "prte_address", lambda dw1, pid: (dw1 & 0x0FFFFFFFFFFFF000) + 16 * pid)


def b45(quirks: Quirk) -> Any:
    """Fetch where the shadow lacks L2's process table: the vector."""
    return of_process(quirks, FETCH, lambda nest: nest.nested.shadow.clear_tree()).vector


def b45_undo(monkeypatch: Patch) -> None:
    right = Power9Radix.interrupt

    def as_data(self: Power9Radix, fault: Fault, address: int, at: int, msr: int, *, fetch: bool) -> Interrupt:
        return right(self, fault, address, at, msr, fetch=fetch and not fault.implicit)

    monkeypatch.setattr(Power9Radix, "interrupt", as_data)


CHANGED = 0x1122334455667788
ASKED = (DPFD | 1 << 22, 7, PC | 3)
PERMITTED = (DPFD | LPES, 3, PC & ~3)
REGRESSIONS = {
    "B26": Regression(b26, (0xC00, [0x0102030405060708], CHANGED, PC + 4), (-55, [], 0x0102030405060708, PC), b26_undo),
    "B27-filter": Regression(b27, (PERMITTED, ASKED), (ASKED, ASKED), b27_undo_filter),
    "B27-copy": Regression(b27, (PERMITTED, ASKED), (PERMITTED, PERMITTED), b27_undo_copy),
    "B28": Regression(b28, (0, PC + 4), (-4, PC + 4), b28_undo),
    "B31": Regression(b31, 0xC00, -4, b31_undo),
    "B33": Regression(b33, DPFD | LPES, DPFD, b33_undo),
    "B37": Regression(b37, (0, b"of pid 3"), (-7, bytes(8)), b37_undo),
    "B37-partial": Regression(b37_partial, (-7, bytes(16)), (0, bytes(16)), b37_partial_undo),
    "B38": Regression(b38, -9, -7, b38_undo),
    "B39": Regression(b39, Verdict.REFLECT, REAL, Quirk.PARTITION_TABLE_STAYS_CACHED),
    "B40-vector": Regression(b40_vector, 0x400, 0x300, Quirk.DATA_INTERRUPT_FOR_FETCH),
    "B40-store": Regression(b40_store, 0x8000000008019033, 0x800000000A009033, Quirk.FETCH_REFLECTED_AS_STORE),
    "B41": Regression(b41, 21, 16, Quirk.BASE_PAGES_UNDER_GIGANTIC),
    "B44-directory": Regression(b44_directory, 0x00080000, 0x40000000, b44_directory_undo),
    "B44-process-table": Regression(b44_process_table, 0x00080000, PAGE_OF_PID[3] + 0x1000, b44_process_table_undo),
    "B45": Regression(b45, 0xE20, 0xE00, b45_undo),
    "B46": Regression(b46, (0xC00, CHANGED, PC + 4), (-10, 0, PC), Quirk.MIXED_ENDIAN_EXIT_FAILS),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_it_is_right(name: str) -> None:
    assert REGRESSIONS[name].with_fix() == REGRESSIONS[name].right


@pytest.mark.parametrize("name", REGRESSIONS)
def test_it_shows_with_the_fix_taken_out(name: str, monkeypatch: Patch) -> None:
    assert REGRESSIONS[name].without_fix(monkeypatch) == REGRESSIONS[name].wrong != REGRESSIONS[name].right
