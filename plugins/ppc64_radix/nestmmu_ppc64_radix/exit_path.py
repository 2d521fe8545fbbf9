"""What L0 does with an exit of L2: handle it, go back, or leave to L1 (``kvmppc_handle_nested_exit``)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from nestmmu_ppc64_book3s.hcalls import H_RPT_INVALIDATE, H_RPTI_TYPE_NESTED
from nestmmu_ppc64_book3s.interrupts import (
    VECTOR_HDSI,
    VECTOR_HEAI,
    VECTOR_HISI,
    VECTOR_SC,
)
from nestmmu_ppc64_book3s.registers import MSR_HV
from nestmmu_ppc64_radix.exits import RESUME_GUEST, RESUME_HOST
from nestmmu_ppc64_radix.guest_state import VECTOR_HFU
from nestmmu_ppc64_radix.nested_hcalls import process_scopes

if TYPE_CHECKING:
    from nestmmu.addresses import HardwareTag
    from nestmmu_ppc64_radix.exits import HvExit
    from nestmmu_ppc64_radix.nested_hcalls import NestedHcalls, RptRequest

VECTOR_SRESET = 0x100
VECTOR_HDEC = 0x980
VECTOR_HMI = 0xE60
VECTOR_H_DOORBELL = 0xE80
VECTOR_H_VIRT = 0xEA0
VECTOR_PERFMON = 0xF00
VECTOR_SOFTPATCH = 0x1500
NESTED_HDEC = 0x1980
"""The kernel's own: L1's hypervisor decrementer has run out, not L0's."""
RM_HARD = 0x5555
"""The kernel's own: what real mode could not finish."""
_CAUSE_SHIFT = 56


class Handler(enum.Enum):
    """Who has the next word on an exit."""

    NONE = "none"
    """Nobody: :attr:`Decision.resume` is final."""
    PAGE_FAULT = "page fault"
    """The ladder of a nested fault; its return code is the result."""
    RPT_INVALIDATE = "process-scoped flush"
    """:func:`flush_process`; then r3 is 0 and L2 goes on."""


@attrs.frozen
class Circumstances:
    """What an exit's handling depends on, beside the registers of :class:`~nestmmu_ppc64_radix.exits.HvExit`."""

    gpr3: int = 0
    """L2's r3: the number of its hypercall."""
    gpr6: int = 0
    """L2's r6: the kinds of flush that H_RPT_INVALIDATE asks for."""
    hfscr: int = 0
    """HFSCR as the CPU has it, the cause in its top byte."""
    hfscr_permitted: int = 0
    """The facilities that L0 lets L1 have."""
    nested_hfscr: int = 0
    """HFSCR as L1 asked for it."""
    instruction: int | None = None
    """The word at L2's pc; None: it could not be read."""
    emulated: bool = False
    """Whether a softpatch (an instruction of transactional memory) was emulated."""


@attrs.frozen
class Decision:
    """What becomes of an exit."""

    seen: HvExit
    """The exit, its trap and fault registers as the next in line gets them."""
    resume: int
    """RESUME_GUEST: back to L2; RESUME_HOST: L1's. Where there is a handler, what holds if it succeeds."""
    handler: Handler = Handler.NONE
    heir: int = 0
    """The instruction, for an exit that became an emulation assist."""


_ALWAYS = {
    VECTOR_HDEC: (RESUME_GUEST, Handler.NONE),
    VECTOR_H_DOORBELL: (RESUME_GUEST, Handler.NONE),
    VECTOR_H_VIRT: (RESUME_GUEST, Handler.NONE),
    VECTOR_HMI: (RESUME_GUEST, Handler.NONE),
    VECTOR_PERFMON: (RESUME_GUEST, Handler.NONE),
    VECTOR_SRESET: (RESUME_GUEST, Handler.NONE),
    RM_HARD: (RESUME_GUEST, Handler.NONE),
    VECTOR_HDSI: (RESUME_GUEST, Handler.PAGE_FAULT),
    VECTOR_HISI: (RESUME_GUEST, Handler.PAGE_FAULT),
}
"""What becomes of an exit by its trap alone; any other is L1's."""
_SHOWN_AS = {NESTED_HDEC: VECTOR_HDEC, RM_HARD: 0}


def decide(record: HvExit, about: Circumstances) -> Decision:
    """Return what becomes of an exit of L2 (``kvmppc_handle_nested_exit``); nothing is changed.

    :param record: as :meth:`~nestmmu_ppc64_radix.exits.HvExit.from_interrupt` makes it, an HISI prepared.
    """
    trap = record.trap
    if record.msr & MSR_HV:
        return Decision(record, RESUME_HOST)
    if trap == VECTOR_SC:
        return _hypercall(record, about)
    if trap == VECTOR_SOFTPATCH and about.emulated:
        return Decision(record, RESUME_GUEST)
    if trap in {VECTOR_SOFTPATCH, VECTOR_HFU}:
        return _facility(record, about)
    return Decision(
        attrs.evolve(record, trap=_SHOWN_AS.get(trap, trap)), *_ALWAYS.get(trap, (RESUME_HOST, Handler.NONE))
    )


def _hypercall(record: HvExit, about: Circumstances) -> Decision:
    if about.gpr3 != H_RPT_INVALIDATE or about.gpr6 & H_RPTI_TYPE_NESTED:
        return Decision(record, RESUME_HOST)
    return Decision(record, RESUME_GUEST, Handler.RPT_INVALIDATE)


def _facility(record: HvExit, about: Circumstances) -> Decision:
    """Leave to L1 a facility that L1 itself took away; any other is to L1 an instruction that does not exist."""
    bit = 1 << (about.hfscr >> _CAUSE_SHIFT)
    if about.hfscr_permitted & bit and not about.nested_hfscr & bit:
        return Decision(attrs.evolve(record, trap=VECTOR_HFU), RESUME_HOST)
    if about.instruction is None:
        return Decision(attrs.evolve(record, trap=VECTOR_HEAI), RESUME_GUEST)
    return Decision(attrs.evolve(record, trap=VECTOR_HEAI), RESUME_HOST, heir=about.instruction)


def flush_process(
    hcalls: NestedHcalls, lpid: HardwareTag, request: RptRequest
) -> list[tuple[HardwareTag, int, int, int, int, int]]:
    """Do the flushes of an H_RPT_INVALIDATE that L2 itself makes (``kvmppc_nested_h_rpt_invalidate``).

    Neither the target nor the order of start and end is looked at.

    :param hcalls: those of L1; its own log of process-scoped flushes stays as it is.
    :param lpid: the one that the CPU uses for L2: ``shadow_lpid``.
    :returns: (LPID, RIC, IS, PID, address, page shift), in order.
    """
    scopes = process_scopes(request)
    hcalls.emit(lpid, scopes)
    return [(lpid, *scope) for scope in scopes]
