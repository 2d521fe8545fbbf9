"""H_ENTER_NESTED: L1 has L0 run its L2 (``kvmhv_enter_nested_guest``), in the order in which KVM does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.addresses import AssignedTag
from nestmmu.errors import OutsideMemoryError
from nestmmu.points import Point
from nestmmu_ppc64_book3s import hcalls
from nestmmu_ppc64_book3s.registers import MSR_HV, MSR_ME
from nestmmu_ppc64_radix.exits import RESUME_GUEST, RESUME_HOST
from nestmmu_ppc64_radix.guest_state import (
    HFSCR_CAUSE,
    PT_REGS_BYTES,
    VERSION_BYTES,
    HvGuestState,
    PtRegs,
    save_return_state,
)
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.memory import ByteOrder
    from nestmmu.nested_guests import NestedGuests
    from nestmmu.points import Steps
    from nestmmu_ppc64_radix.exits import HvExit
    from nestmmu_ppc64_radix.kvm import KvmGuest, KvmHv, KvmNestedGuest

NR_CPUS = 2048
"""Vcpus that the kernel has room for, by ``vcpu_token``."""
MSR_TS_SUSPENDED = 1 << 33
MSR_TS_TRANSACTIONAL = 1 << 34
MSR_TS = MSR_TS_SUSPENDED | MSR_TS_TRANSACTIONAL
LPCR_DPFD = 7 << 52
LPCR_ILE = 0x0200_0000
LPCR_AIL = 0x0180_0000
LPCR_LD = 0x0002_0000
LPCR_MER = 0x0800
LPCR_TC = 0x0200
LPCR_OF_L1 = LPCR_DPFD | LPCR_ILE | LPCR_TC | LPCR_AIL | LPCR_LD | LPCR_MER
"""The bits of L2's LPCR that L1 chooses."""
DAWRX_HYP = 4
CIABR_PRIV = CIABR_PRIV_HYPER = 3
PCR_RESERVED = 0x0FFF_FFFF_FFFF_FFE1
"""``PCR_MASK``: all but the bits for vector, VSX, TM, MMA and the architecture levels 2.05 to 3.0."""
RESUME_GUEST_NV = 1
EINTR = -4
_WORD = (1 << 64) - 1
_RETURNED = (
    "dpdes", "purr", "spurr", "ic", "vtb", "srr0", "srr1", "sprg0", "sprg1", "sprg2", "sprg3", "pidr", "cfar", "ppr",
)  # fmt: skip
"""The fields of ``hv_guest_state`` that L1 always gets as L2 left them."""
_COUNTERS = ("purr", "spurr", "ic", "vtb")


@attrs.define
class L1Vcpu:
    """The registers of L1's vcpu that entering an L2 reads or changes."""

    msr: int = 0
    lpcr: int = 0
    cpu: int = 0
    """Which of L0's CPUs it runs on."""
    byteorder: ByteOrder = "big"
    """Of L1: what LPCR[ILE] made of its interrupts' MSR[LE]."""
    hfscr_permitted: int = _WORD
    tb_offset: int = 0
    dec_expires: int = 0
    purr: int = 0
    spurr: int = 0
    ic: int = 0
    vtb: int = 0


@attrs.define
class L2Vcpu:
    """What L2 runs with; running it changes :attr:`state` and :attr:`regs`."""

    nested: KvmNestedGuest
    state: HvGuestState
    """A copy of what L1 asked for, without what L1 may not ask for."""
    regs: PtRegs
    hdec_expiry: int
    """In L0's time base."""
    tb_offset: int
    dec_expires: int
    hfscr: int
    """As L1 asked for it: what tells L1's refusal of a facility from L0's."""


@attrs.frozen
class L2Exit:
    """What running L2 once came to."""

    resume: int
    """RESUME_GUEST(_NV): run it again; anything else ends it: RESUME_HOST, -EINTR, an error of the fault handler."""
    seen: HvExit
    """The exit as L1 sees it: (:func:`~nestmmu_ppc64_radix.exits.reflect`); trap 0: none."""
    heir: int = 0
    hfscr: int = 0
    mmio: bool = False
    """Whether L2's access is one to a device of L1's, for user space to emulate."""
    mmio_gpr: int | None = None
    """The register that a load of such goes to; None: a store, or no general register."""


@attrs.frozen
class EntryResult:
    """What the hypercall came to."""

    code: int
    """A return code, or the trap with which L2 left; H_INTERRUPT and H_TOO_HARD stay within L0."""
    r3: int
    """What L1 finds in r3."""
    resume: int = RESUME_GUEST
    """RESUME_GUEST: L1 goes on; RESUME_HOST, -EINTR: user space is asked first."""
    load_slot: int | None = None
    """In L1's memory: where what a device's load returns goes, L2's registers being there already."""


def l2_lpcr(own: int, asked: int) -> int:
    """Return the LPCR that L2 runs with, before the platform's limits: L1's own but for a few bits."""
    return own & ~LPCR_OF_L1 | asked & LPCR_OF_L1


def platform_lpcr(lpcr: int) -> int:
    """Return an LPCR without what a radix guest cannot have: TC, and any AIL but 3 (``kvmppc_filter_lpcr_hv``)."""
    lpcr &= ~LPCR_TC
    return lpcr if lpcr & LPCR_AIL == LPCR_AIL else lpcr & ~LPCR_AIL


def permitted_state(asked: HvGuestState, vcpu: L1Vcpu) -> HvGuestState:
    """Return a copy of what L1 asked for, without what it may not have (``load_l2_hv_regs``)."""
    ciabr = asked.ciabr
    if ciabr & CIABR_PRIV == CIABR_PRIV_HYPER:
        ciabr &= ~CIABR_PRIV
    return attrs.evolve(
        asked,
        lpcr=platform_lpcr(l2_lpcr(vcpu.lpcr, asked.lpcr)),
        pcr=asked.pcr | PCR_RESERVED,
        hfscr=asked.hfscr & (HFSCR_CAUSE | vcpu.hfscr_permitted),
        dawrx0=asked.dawrx0 & ~DAWRX_HYP,
        dawrx1=asked.dawrx1 & ~DAWRX_HYP,
        ciabr=ciabr,
    )


def _refused(code: int) -> EntryResult:
    return EntryResult(code, code)


class NestedEntry:
    """H_ENTER_NESTED of one vcpu of L1.

    :param byteorder: L0's own.
    """

    def __init__(
        self,
        host: KvmHv,
        guest: KvmGuest,
        nested: NestedGuests[KvmNestedGuest],
        vcpu: L1Vcpu,
        *,
        byteorder: ByteOrder = "little",
    ) -> None:
        self.host = host
        self.guest = guest
        self.nested = nested
        self.vcpu = vcpu
        self.byteorder = byteorder

    def enter(self, hv_gpa: int, regs_gpa: int, run: Callable[[L2Vcpu], L2Exit]) -> Steps[EntryResult]:
        """Do H_ENTER_NESTED.

        :param hv_gpa: where ``hv_guest_state`` is, in L1's memory.
        :param regs_gpa: where ``pt_regs`` is.
        :param run: runs L2 until it leaves, once, and handles what L0 handles.
        """
        taken = yield from self._admit(hv_gpa, regs_gpa)
        if isinstance(taken, int):
            return _refused(taken)
        state, regs = taken
        found = yield from self.nested.get(AssignedTag(state.lpid), create=True)
        if found is None:
            return _refused(hcalls.H_PARAMETER)
        if found.gr_to_hr == 0:
            yield Point.LOCK_NESTED
            self.host.update_ptbl_cache(self.guest, found)
            yield Point.UNLOCK_NESTED
        left = yield from self._run(found, state, regs, run)
        yield from self.nested.put(found)
        if not self._write(hv_gpa, regs_gpa, state, regs):
            return _refused(hcalls.H_AUTHORITY)
        return _result(left, regs_gpa)

    def _admit(self, hv_gpa: int, regs_gpa: int) -> Steps[int | tuple[HvGuestState, PtRegs]]:
        """Return what L1 asks for, or the code with which it is refused before L2 is looked for."""
        if not self.guest.nesting:
            return hcalls.H_FUNCTION
        if self.guest.ptcr == 0:
            return hcalls.H_NOT_AVAILABLE
        if self.vcpu.msr & MSR_TS == MSR_TS_TRANSACTIONAL:
            return hcalls.H_BAD_MODE
        taken = yield from self._read(hv_gpa, regs_gpa)
        if taken is None:
            return hcalls.H_PARAMETER
        return self._check(*taken) or taken

    def _read(self, hv_gpa: int, regs_gpa: int) -> Steps[tuple[HvGuestState, PtRegs] | None]:
        """Take both structures out of L1's memory; None if one is not there, or of no known version.

        The version is read twice, and L1 may change it in between. The first time only its low 32 bits count.
        """
        memory, order = self.guest.memory, self.vcpu.byteorder
        try:
            size = VERSION_BYTES.get(int.from_bytes(memory.read(hv_gpa, 8), order) & 0xFFFFFFFF)
            if size is None:
                return None
            yield Point.PREEMPT
            state = HvGuestState.from_bytes(memory.read(hv_gpa, size), order)
            regs = PtRegs.from_bytes(memory.read(regs_gpa, PT_REGS_BYTES), order)
        except OutsideMemoryError:
            return None
        if order != self.byteorder:
            state.pcr |= PCR_RESERVED
        return state, regs

    def _check(self, state: HvGuestState, regs: PtRegs) -> int:
        if state.version > max(VERSION_BYTES):
            return hcalls.H_P2
        if state.vcpu_token >= NR_CPUS:
            return hcalls.H_PARAMETER
        if bool(self.vcpu.msr & MSR_TS) != bool(regs.msr & MSR_TS):
            return hcalls.H_BAD_MODE
        return hcalls.H_BAD_MODE if self.vcpu.msr & MSR_TS == MSR_TS else hcalls.H_SUCCESS

    def _run(
        self, nested: KvmNestedGuest, state: HvGuestState, regs: PtRegs, run: Callable[[L2Vcpu], L2Exit]
    ) -> Steps[L2Exit]:
        """Run L2 until it leaves to L1, and put what is returned into ``state`` and ``regs``."""
        vcpu = self.vcpu
        cpu = L2Vcpu(
            nested=nested,
            state=permitted_state(state, vcpu),
            regs=attrs.evolve(regs, msr=(regs.msr | MSR_ME) & ~MSR_HV),
            hdec_expiry=state.hdec_expiry - vcpu.tb_offset & _WORD,
            tb_offset=vcpu.tb_offset + state.tb_offset & _WORD,
            dec_expires=vcpu.dec_expires + state.tb_offset & _WORD,
            hfscr=state.hfscr,
        )
        while True:
            self.host.arrive(nested, state.vcpu_token, vcpu.cpu)
            left = run(cpu)
            if left.resume not in {RESUME_GUEST, RESUME_GUEST_NV}:
                break
            yield Point.PREEMPT
        for name in _COUNTERS:
            delta = getattr(cpu.state, name) - getattr(state, name)
            setattr(vcpu, name, getattr(vcpu, name) + delta & _WORD)
        vcpu.dec_expires = cpu.dec_expires - state.tb_offset & _WORD
        for name in _RETURNED:
            setattr(state, name, getattr(cpu.state, name))
        regs.gpr, regs.rest = cpu.regs.gpr, cpu.regs.rest
        save_return_state(state, regs, left.seen, heir=left.heir, hfscr=left.hfscr)
        vcpu.msr = vcpu.msr & ~MSR_TS | (MSR_TS_SUSPENDED if regs.msr & MSR_TS else 0)
        return left

    def _write(self, hv_gpa: int, regs_gpa: int, state: HvGuestState, regs: PtRegs) -> bool:
        """Write both structures back; what of them is writable stays written though the rest be not."""
        order = self.vcpu.byteorder
        swapped_too_early = order != self.byteorder and Quirk.MIXED_ENDIAN_EXIT_FAILS in self.host.quirks
        if state.version not in VERSION_BYTES or swapped_too_early:
            return False
        try:
            self.guest.memory.write(hv_gpa, state.to_bytes(order))
            self.guest.memory.write(regs_gpa, regs.to_bytes(order))
        except OutsideMemoryError:
            return False
        return True


def _result(left: L2Exit, regs_gpa: int) -> EntryResult:
    if left.resume == EINTR:
        return EntryResult(hcalls.H_INTERRUPT, 0, EINTR)
    if left.mmio:
        slot = None if left.mmio_gpr is None else regs_gpa + 8 * left.mmio_gpr
        return EntryResult(hcalls.H_TOO_HARD, 0, RESUME_HOST, slot)
    return EntryResult(left.seen.trap, left.seen.trap)
