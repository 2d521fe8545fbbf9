"""L0 runs a nested hash guest: L1's hash table for L2 is walked, and what it says composed into the shadow.

The source is the proposal "Support for nested HPT guests" of 2019 (reference 3.9): unlike with radix, L0 itself sets R
and C in L1's entry, and a page is mapped read-only until a store, so that the first one is seen.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from nestmmu.access import WRITE, Access
from nestmmu.addresses import align_down
from nestmmu.faults import Fault, FaultKind
from nestmmu.mappings import Mapping
from nestmmu.nested_faults import NestedFaultHandler, Tell
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.points import Point
from nestmmu_ppc64_book3s.interrupts import (
    DSISR_ISSTORE,
    DSISR_NOHPTE,
    VECTOR_HDSI,
    VECTOR_HISI,
    Interrupt,
)
from nestmmu_ppc64_book3s.registers import MSR_PR
from nestmmu_ppc64_hpt.hashing import segment_of
from nestmmu_ppc64_hpt.hpte import HPTE_BYTES, R_C, R_I, R_M, R_R, R_W, R_WIMG
from nestmmu_ppc64_hpt.pages import HPTE_R_RPN
from nestmmu_ppc64_hpt.protection import (
    denial,
    execute_permissions,
    key_permissions,
    limited,
    page_permissions,
)
from nestmmu_ppc64_hpt.shadow import pack
from nestmmu_ppc64_hpt.table import STAGE
from nestmmu_ppc64_hpt.virtual import NumberedTable, number_of

if TYPE_CHECKING:
    from nestmmu.guests import Guest, NestedGuest
    from nestmmu.points import Steps
    from nestmmu.slots import Slot

SMALLER_HOST_PAGE = "EINVAL"


@attrs.define
class HashExit:
    """The registers with which L2 left."""

    fetch: bool
    msr: int
    address: int
    """HDAR; for HISI the address of the instruction."""
    cause: int
    """HDSISR, or the same bits of HSRR1."""
    segment: int
    """ASDR: the VSID word of the segment."""
    amr: int = 0
    iamr: int = 0


def decode(interrupt: Interrupt, *, amr: int = 0, iamr: int = 0) -> Exit | None:
    """Return an HDSI or HISI of a hash guest as a fault on a virtual page; None for what does not reach L0.

    :raises ValueError: for a segment that there is not.
    """
    if interrupt.vector not in {VECTOR_HDSI, VECTOR_HISI}:
        return None
    fetch = interrupt.vector == VECTOR_HISI
    address = interrupt.get("hsrr0" if fetch else "hdar")
    cause = interrupt.get("hsrr1") if fetch else interrupt.get("hdsisr")
    return exit_of(HashExit(fetch, interrupt.get("hsrr1"), address, cause, interrupt.get("asdr"), amr, iamr))


def exit_of(record: HashExit) -> Exit:
    """Return the fault on a virtual page that registers tell of.

    :raises ValueError: for a segment that there is not.
    """
    segment = segment_of(record.segment)
    if segment is None:
        message = f"ASDR {record.segment:#x} is no segment"
        raise ValueError(message)
    kind = FaultKind.NOT_PRESENT if record.cause & DSISR_NOHPTE else FaultKind.PERMISSION
    store = not record.fetch and record.cause & DSISR_ISSTORE
    access = Access.FETCH if record.fetch else Access.STORE if store else Access.LOAD
    return Exit(Fault(kind, STAGE, access, number_of(segment, record.address), original_address=record.address), record)


class Marking(enum.Enum):
    """When L0 counts a page that may be stored to as changed."""

    FIRST_STORE = "first store"
    """At the first store, which faults: until then it is mapped read-only (3.9, X5)."""
    AT_MAP = "when mapped"
    """When it is mapped, R and C preset and writable even by a load: no later store is seen, so that L1's own C stays
    clear (3.8, S3 and S10)."""


class HashComposer:
    """Makes the shadow's entry: L1's, with L0's page behind it, and no more than L0 permits."""

    def __init__(self, marking: Marking = Marking.FIRST_STORE) -> None:
        self.marking = marking

    def writable(self, inner: Mapping, outer: Mapping, access: Access) -> bool:
        """Tell whether the shadow lets the page be stored to."""
        if not outer.permissions & page_permissions(inner.entry or 0, key=False) & WRITE:
            return False
        return self.marking is Marking.AT_MAP or access is Access.STORE

    def compose(self, inner: Mapping, outer: Mapping, access: Access) -> Mapping:
        """Return the entry for the shadow, packed with its slot, for the whole of L1's page.

        R and C are those that both pages have: the walk has set L1's, and :meth:`HashNestedFaults.mark` L0's.

        :param inner: L1's: doubleword 1 as its ``entry``, slot and doubleword 0 from
            :func:`~nestmmu_ppc64_hpt.shadow.pack` as its ``attributes``.
        :param outer: L0's, at least as large.
        """
        preset, r = self.marking is Marking.AT_MAP, inner.entry or 0
        target = align_down(outer.output_address, inner.page_shift)
        r = r & ~(HPTE_R_RPN & -(1 << inner.page_shift)) & ~(R_WIMG | R_R | R_C) | target | self._wimg(r)
        accessed = preset or (inner.accessed and outer.accessed)
        dirty = self.writable(inner, outer, access) and (preset or (inner.dirty and outer.dirty))
        r |= (R_R if accessed else 0) | (R_C if dirty else 0)
        r = limited(r, outer.permissions if dirty else outer.permissions & ~WRITE)
        permissions = page_permissions(r, key=False) & execute_permissions(r)
        return Mapping(
            inner.input_address, outer.output_address, inner.page_shift, permissions, accessed, dirty,
            entry=inner.attributes | r,
        )  # fmt: skip

    @staticmethod
    def _wimg(r: int) -> int:
        """Return what L1 asks for of caching, where memory can have it; else that it is memory (3.4, KVM)."""
        asked = r & R_WIMG
        return asked if asked in {R_M, R_W | R_I | R_M} else R_M


class HashNestedFaults(NestedFaultHandler):
    """The ladder with what is of hash tables."""

    def __init__(self, guest: Guest, composer: HashComposer, tell: Tell | None = None) -> None:
        super().__init__(guest, composer, tell)
        self.writable = composer.writable

    def walk(self, nested: NestedGuest, exit_: Exit) -> Mapping:
        """Search L1's table, check its protection, and set R, and C for a store, in L1's entry (X4, X5)."""
        fault, record = exit_.fault, exit_.record
        if not isinstance(nested.table, NumberedTable):
            raise Fault(FaultKind.NOT_PRESENT, STAGE, fault.access, fault.input_address)
        table = nested.table.hash_table
        found = nested.table.lookup(fault.input_address, fault.access)
        r = found.entry or 0
        if denial(fault.access, *rights(r, record)):
            raise Fault(
                FaultKind.PERMISSION, STAGE, fault.access, fault.input_address,
                entry_address=found.entry_address, entry=r,
            )  # fmt: skip
        store = fault.access is Access.STORE
        slot = ((found.entry_address or 0) - table.base) // HPTE_BYTES
        table.set_flags(slot, r, reference=not r & R_R, change=store and not r & R_C)
        r |= R_R | (R_C if store else 0)
        v = table.read(slot)[0]
        return attrs.evolve(found, entry=r, accessed=True, dirty=bool(r & R_C), attributes=pack(slot, v, 0))

    def too_small(self, exit_: Exit, inner: Mapping) -> Outcome | None:
        """Return None: a page of any size can be shadowed, if L0's is as large."""
        del exit_, inner
        return None

    def _host_entry(self, slot: Slot, fault: Fault, inner: Mapping, snapshot: int) -> Steps[Mapping | Outcome]:
        outer = yield from super()._host_entry(slot, fault, inner, snapshot)
        if isinstance(outer, Mapping) and outer.page_shift < inner.page_shift:
            return Outcome(Verdict.FAIL, error=SMALLER_HOST_PAGE)
        return outer

    def mark(self, inner: Mapping, outer: Mapping, fault: Fault) -> Steps[Mapping]:
        """Set R, and C where it will be writable, in L0's entry for L1: hardware will not fault for them (X5)."""
        store = self.writable(inner, outer, fault.access)
        yield Point.LOCK
        self.guest.table.add_flags(outer.input_address, accessed=True, dirty=store)
        yield Point.UNLOCK
        return attrs.evolve(outer, accessed=True, dirty=outer.dirty or store)


def rights(r: int, record: HashExit) -> tuple[int, int, int]:
    """Return what pp, what N and G, and what the storage keys leave of an entry to who left."""
    segment = segment_of(record.segment)
    key = segment is not None and segment.key(problem=bool(record.msr & MSR_PR))
    return page_permissions(r, key=key), execute_permissions(r), key_permissions(r, record.amr, record.iamr)


def reflect(outcome: Outcome, record: HashExit) -> HashExit:
    """Return the registers that L1 sees: those of the exit, the cause by L1's own table."""
    if outcome.fault is None:
        return record
    return attrs.evolve(record, cause=reflected_cause(outcome.fault, record))


def reflected_cause(fault: Fault, record: HashExit) -> int:
    """Return the bits of DSISR, or of SRR1, that L1 sees for a fault of its own table (X4; 3.8, S8)."""
    if fault.kind is FaultKind.PERMISSION:
        return denial(fault.access, *rights(fault.entry or 0, record))
    return DSISR_NOHPTE | (DSISR_ISSTORE if fault.access is Access.STORE else 0)
