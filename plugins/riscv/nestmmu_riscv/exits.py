"""Guest-page faults as they reach a hypervisor, and what the hypervisor below it sees: decoded, and written again."""

from __future__ import annotations

import attrs

from nestmmu.access import Access
from nestmmu.errors import NestmmuError
from nestmmu.faults import Fault, FaultKind
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu_riscv.traps import (
    ACCESS_FAULT,
    G_STAGE,
    GUEST_PAGE_FAULT,
    HTVAL_SHIFT,
    PSEUDO_READ,
    PSEUDO_WRITE,
    Trap,
)

_LOW = (1 << HTVAL_SHIFT) - 1


def decode(record: Trap) -> Exit:
    """Return a guest-page fault: its guest physical address, and what was tried there.

    Hardware does not say what is wrong with the entry: every fault is NOT_PRESENT. The low bits that htval lacks are
    stval's, but of an implicit access, whose address is a multiple of 8.

    :raises NestmmuError: for another exception.
    """
    if GUEST_PAGE_FAULT[record.access] != record.cause:
        message = f"{record.name} is the guest's own: it does not reach the hypervisor"
        raise NestmmuError(message)
    implicit = record.tinst in {PSEUDO_READ, PSEUDO_WRITE}
    address, access = record.tval2 << HTVAL_SHIFT, record.access
    if implicit:
        access = Access.STORE if record.tinst == PSEUDO_WRITE else Access.LOAD
    else:
        address |= record.tval & _LOW
    fault = Fault(
        FaultKind.NOT_PRESENT, G_STAGE, access, address,
        original_access=record.access, implicit=implicit, original_address=record.tval,
    )  # fmt: skip
    return Exit(fault, record)


def _access_fault(record: Trap) -> Trap:
    return attrs.evolve(record, cause=ACCESS_FAULT[record.access], tval2=0, tinst=0)


def reflect(outcome: Outcome, record: Trap) -> Trap:
    """Return the exception as L1 gets it: the guest-page fault that L0 got.

    But an entry of L1's table that lies outside L1's memory is an access fault, as it would be on L1's own machine.
    """
    fault = outcome.fault
    if outcome.verdict is Verdict.REFLECT and fault is not None and fault.kind is FaultKind.UNREADABLE:
        return _access_fault(record)
    return record


def inject(outcome: Outcome, exit_: Exit) -> Trap:
    """Return the exception that the guest itself gets for a fault which no hypervisor mends: an access fault.

    It is one on what is no memory, by a table walk, or a store to what is read-only.
    """
    if outcome.verdict is not Verdict.INJECT:
        message = "only an outcome INJECT is the guest's own exception"
        raise NestmmuError(message)
    return _access_fault(exit_.record)
