"""Exits of L2 to L0, and what L1 and L2 see of them: the registers of HDSI and HISI, decoded and encoded again."""

from __future__ import annotations

import attrs

from nestmmu.access import Access
from nestmmu.errors import NestmmuError
from nestmmu.faults import Fault, FaultKind
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu_ppc64_book3s.interrupts import (
    DSISR_BAD_COPYPASTE,
    DSISR_BADACCESS,
    DSISR_ISSTORE,
    DSISR_NOEXEC_OR_G,
    DSISR_NOHPTE,
    DSISR_PROTFAULT,
    DSISR_PRTABLE_FAULT,
    DSISR_SET_RC,
    DSISR_SRR1_MATCH_64S,
    DSISR_UNSUPP_MMU,
    HSRR1_HISI_WRITE,
    SRR1_CAUSES,
    VECTOR_HDSI,
    VECTOR_HISI,
    Interrupt,
    storage_interrupt,
)
from nestmmu_ppc64_radix.quirks import Quirk

STAGE = "L1's table for L2"
ASDR_INVALID = 0xF000000000000FFF
"""The bits of ASDR that hardware does not promise."""
PROTECTION_CAUSES = DSISR_PROTFAULT | DSISR_BADACCESS | DSISR_NOEXEC_OR_G | DSISR_BAD_COPYPASTE
"""Causes with which an entry of the shadow was there: it may only be out of date."""
RESUME_GUEST, RESUME_HOST = 0, 2
ERRNO = {"": 0, "ENOENT": -2, "EAGAIN": -11, "ENOMEM": -12, "EFAULT": -14, "EINVAL": -22}

_KINDS = (
    (DSISR_NOHPTE, FaultKind.NOT_PRESENT),
    (DSISR_PROTFAULT, FaultKind.PERMISSION),
    (DSISR_NOEXEC_OR_G, FaultKind.PERMISSION),
    (DSISR_BADACCESS | DSISR_BAD_COPYPASTE, FaultKind.ATTRIBUTE),
    (DSISR_UNSUPP_MMU, FaultKind.MALFORMED),
    (DSISR_SET_RC, FaultKind.ACCESSED_DIRTY),
)
_WALK_ERRNO = {FaultKind.MALFORMED: "EINVAL", FaultKind.NOT_PRESENT: "ENOENT", FaultKind.UNREADABLE: "EFAULT"}


@attrs.define
class HvExit:
    """The registers with which L2 left, as L0's exit path has them (``kvmppc_handle_nested_exit``)."""

    trap: int
    """The vector."""
    msr: int
    """L2's MSR as HSRR1 has it; for HISI the cause is in it."""
    dar: int
    """HDAR; for HISI the address of the instruction."""
    dsisr: int
    """HDSISR; for HISI its image, made of HSRR1."""
    asdr: int
    pc: int
    """Where L2 goes on."""

    @classmethod
    def from_interrupt(cls, interrupt: Interrupt) -> HvExit:
        """Return the exit that an HDSI or HISI is (``kvmhv_p9_guest_entry``; the HISI's image as in step E3)."""
        msr, pc = interrupt.get("hsrr1"), interrupt.get("hsrr0")
        if interrupt.vector == VECTOR_HDSI:
            return cls(VECTOR_HDSI, msr, interrupt.get("hdar"), interrupt.get("hdsisr"), interrupt.get("asdr"), pc)
        if interrupt.vector != VECTOR_HISI:
            message = f"{interrupt.name} does not reach the hypervisor"
            raise NestmmuError(message)
        dsisr = msr & DSISR_SRR1_MATCH_64S | (DSISR_ISSTORE if msr & HSRR1_HISI_WRITE else 0)
        return cls(VECTOR_HISI, msr, pc, dsisr, interrupt.get("asdr"), pc)

    @property
    def fetch(self) -> bool:
        """Whether an instruction fetch left."""
        return self.trap == VECTOR_HISI

    @property
    def clean_msr(self) -> int:
        """L2's MSR without a cause."""
        return self.msr & ~SRR1_CAUSES if self.fetch else self.msr


def decode(record: HvExit) -> Exit:
    """Return an exit as a fault: the address in L2's memory, the access, the kinds (steps 2 and 3 of the ladder)."""
    dsisr = record.dsisr
    implicit = bool(dsisr & DSISR_PRTABLE_FAULT)
    address = record.asdr & ~ASDR_INVALID
    if not implicit:
        address += record.dar & 0xFFF
    kind = FaultKind(0)
    for bits, one in _KINDS:
        if dsisr & bits:
            kind |= one
    access = Access.STORE if dsisr & DSISR_ISSTORE else Access.FETCH if record.fetch else Access.LOAD
    return Exit(Fault(kind, STAGE, access, address, implicit=implicit, original_address=record.dar), record)


def walk_errno(fault: Fault) -> int:
    """Return what ``kvmppc_mmu_walk_radix_tree`` returns for a fault of L1's table."""
    return ERRNO[_WALK_ERRNO[fault.kind]]


def return_code(outcome: Outcome) -> int:
    """Return what the kernel's fault handler returns for an outcome."""
    if outcome.verdict is Verdict.REFLECT:
        return RESUME_HOST
    return ERRNO[outcome.error] if outcome.verdict is Verdict.FAIL else RESUME_GUEST


def reflect_flags(fault: Fault, record: HvExit) -> int:
    """Return the DSISR image that L1 gets for a fault of its own table (``kvmhv_translate_addr_nested``)."""
    store = record.dsisr & DSISR_ISSTORE
    if fault.kind is FaultKind.PERMISSION:
        return store | (DSISR_NOEXEC_OR_G if record.fetch and not store else DSISR_PROTFAULT)
    causes = {
        FaultKind.MALFORMED: DSISR_UNSUPP_MMU,
        FaultKind.NOT_PRESENT: DSISR_NOHPTE,
        FaultKind.UNREADABLE: DSISR_PRTABLE_FAULT,
    }
    return store | causes[fault.kind]


def reflect(outcome: Outcome, record: HvExit, quirks: Quirk = Quirk.LINUX_6_1) -> HvExit:
    """Return the exit as L1 sees it; a fault of its own table rewrites DSISR (HDSI) or the MSR image (HISI)."""
    fault = outcome.fault
    if outcome.verdict is not Verdict.REFLECT or fault is None:
        return attrs.evolve(record)
    flags = reflect_flags(fault, record)
    asdr = record.asdr
    if fault.kind is FaultKind.UNREADABLE and fault.entry_address is not None:
        asdr = fault.entry_address
    msr = record.msr
    if record.fetch:
        image = flags
        if Quirk.FETCH_REFLECTED_AS_STORE not in quirks:
            image = flags & SRR1_CAUSES | record.msr & HSRR1_HISI_WRITE
        msr = record.msr & ~SRR1_CAUSES | image
    return attrs.evolve(record, dsisr=flags, asdr=asdr, msr=msr)


def inject(outcome: Outcome, exit_: Exit, quirks: Quirk = Quirk.LINUX_6_1) -> Interrupt:
    """Return the interrupt that L2 gets for a fault that neither hypervisor mends (``kvmppc_core_queue_data_storage``).

    It carries the causes that hardware gave, but for a store to a read-only slot, which is a protection fault.
    """
    if outcome.verdict is not Verdict.INJECT or outcome.fault is None:
        message = "only an outcome INJECT makes an interrupt of L2"
        raise NestmmuError(message)
    record: HvExit = exit_.record
    cause = record.dsisr if outcome.fault is exit_.fault else DSISR_PROTFAULT | DSISR_ISSTORE
    as_fetch = record.fetch and Quirk.DATA_INTERRUPT_FOR_FETCH not in quirks
    return storage_interrupt(
        hypervisor=False, fetch=as_fetch, cause=cause, address=record.dar, at=record.pc, msr=record.clean_msr
    )
