"""L0's handling of a guest-page fault of L2: what L1's machine would have done, and then the shadow."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs

from nestmmu.access import Access
from nestmmu.errors import OutsideMemoryError
from nestmmu.faults import Fault, FaultKind
from nestmmu.nested_faults import NestedFaultHandler
from nestmmu.points import Point
from nestmmu.radix import RadixTable
from nestmmu_riscv.csrs import STATUS_MXR
from nestmmu_riscv.stages import permits
from nestmmu_riscv.traps import G_STAGE

if TYPE_CHECKING:
    from nestmmu.guests import NestedGuest
    from nestmmu.mappings import Mapping
    from nestmmu.outcomes import Exit
    from nestmmu.points import Steps
    from nestmmu_riscv.hypervisor import RiscvGuest


class RiscvNestedFaults(NestedFaultHandler):
    """The ladder. A guest-page fault does not say what is missing, so A and D are seen to on every one."""

    def walk(self, nested: NestedGuest, exit_: Exit) -> Mapping:
        """Return what L1's table says, A and D as L1's machine leaves them (Svadu), or demands them (Svade).

        :raises Fault: if L1's table does not let the access pass.
        """
        fault, guest = exit_.fault, cast("RiscvGuest", self.guest)
        address, access = fault.input_address, fault.access
        if nested.table is None:
            return super().walk(nested, exit_)
        inner = nested.table.lookup(address, access)
        mxr = not fault.implicit and bool(guest.registers.mstatus & STATUS_MXR)
        if not permits(inner.permissions, access, mxr=mxr):
            raise self._refused(FaultKind.PERMISSION, fault, inner)
        if inner.accessed and (inner.dirty or access is not Access.STORE):
            return inner
        if not guest.hardware_sets_flags:
            raise self._refused(FaultKind.ACCESSED_DIRTY, fault, inner)
        return self._as_hardware(cast("RadixTable", nested.table), inner, fault)

    def _refused(self, kind: FaultKind, fault: Fault, inner: Mapping) -> Fault:
        return Fault(
            kind, G_STAGE, fault.access, fault.input_address, entry_address=inner.entry_address, entry=inner.entry
        )

    def _as_hardware(self, table: RadixTable, inner: Mapping, fault: Fault) -> Mapping:
        """Set A and D in L1's entry; the frame that it lies in is written thereby.

        :raises Fault: UNREADABLE, if L1's table lies where L1 cannot write.
        """
        guest, form = self.guest, table.format
        at, entry = inner.entry_address or 0, inner.entry or 0
        entry |= form.accessed | (form.dirty if fault.access is Access.STORE else 0)
        try:
            guest.memory.store(at, entry, form.entry_bytes, form.byteorder)
        except OutsideMemoryError:
            raise self._refused(FaultKind.UNREADABLE, fault, inner) from None
        slot = guest.slots.find(at)
        if not guest.table.add_flags(at, accessed=True, dirty=True) and slot is not None and slot.dirty_log:
            guest.dirty.add(at >> guest.base_shift)
        return attrs.evolve(inner, accessed=True, dirty=bool(entry & form.dirty), entry=entry)

    def mark(self, inner: Mapping, outer: Mapping, fault: Fault) -> Steps[Mapping]:
        """Set A and D in L0's own entry, as the access will have them: hardware sets them in the shadow alone."""
        del inner
        store = fault.access is Access.STORE
        if outer.accessed and (outer.dirty or not store):
            return outer
        yield Point.LOCK
        self.guest.table.add_flags(outer.input_address, accessed=True, dirty=store)
        yield Point.UNLOCK
        return attrs.evolve(outer, accessed=True, dirty=outer.dirty or store)
