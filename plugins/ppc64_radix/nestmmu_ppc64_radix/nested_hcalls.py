"""The hypercalls by which an L1 runs an L2, in the order in which KVM validates them (``book3s_hv_nested.c``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.access import Access
from nestmmu.addresses import AssignedTag
from nestmmu.errors import OutsideMemoryError
from nestmmu.memory import FRAME_BYTES
from nestmmu.points import Point
from nestmmu_ppc64_book3s import hcalls
from nestmmu_ppc64_book3s.partition import KVM_NESTED_PATS, PATB, PATS
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_HV, MSR_SF, Registers
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_book3s.tlbie import IS_LPID, IS_PAGE, IS_PID, RIC_ALL, RIC_PWC, RIC_TLB, SHIFT_APS, Tlbie
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.nested_tlbie import NestedTlbie
from nestmmu_ppc64_radix.quirks import Quirk
from nestmmu_ppc64_radix.scopes import decode as decode_tlbie

if TYPE_CHECKING:
    from nestmmu.addresses import HardwareTag
    from nestmmu.nested_guests import NestedGuests
    from nestmmu.points import Steps
    from nestmmu_ppc64_radix.kvm import KvmGuest, KvmHv, KvmNestedGuest

LARGEST_COPY = 1 << 22
"""Bytes that H_COPY_TOFROM_GUEST can find a buffer for: the largest that the kernel's allocator gives in one piece."""
MOST_PAGES = 33
"""A range of more pages than this is flushed as a whole (``tlb_range_flush_page_ceiling``)."""
_EADDR_UNUSED = 0xFFF0000000000000
_QUADRANT_PID, _QUADRANT_KERNEL = 1 << 62, 2 << 62
_ALL_ADDRESSES = (1 << 64) - 1


@attrs.frozen
class CopyRequest:
    """The arguments of H_COPY_TOFROM_GUEST, r4 to r9."""

    l1_lpid: int
    pid: int
    eaddr: int
    """In L2."""
    to: int
    """In L1's memory: where to copy what is read from L2; 0: nowhere."""
    source: int
    """In L1's memory: what to write to L2; 0: nothing."""
    size: int


@attrs.frozen
class RptRequest:
    """The arguments of H_RPT_INVALIDATE, r4 to r9."""

    identity: int
    """An LPID where ``type`` says NESTED, else a PID."""
    target: int
    type: int
    pages: int
    """A bit for each page size (:data:`~nestmmu_ppc64_book3s.hcalls.H_RPTI_PAGES`)."""
    start: int
    end: int


ProcessScope = tuple[int, int, int, int, int]
"""A process-scoped flush: (RIC, IS, PID, address, page shift)."""


def process_scopes(request: RptRequest) -> list[ProcessScope]:
    """Return the flushes of a process that a request comes to, in order."""
    pid, kinds = request.identity, request.type
    if kinds & hcalls.H_RPTI_TYPE_ALL == hcalls.H_RPTI_TYPE_ALL:
        return [(RIC_ALL, IS_PID, pid, 0, 0)]
    found = [(RIC_PWC, IS_PID, pid, 0, 0)] if kinds & hcalls.H_RPTI_TYPE_PWC else []
    if not kinds & hcalls.H_RPTI_TYPE_TLB:
        return found
    whole = (RIC_TLB, IS_PID, pid, 0, 0)
    if request.start == 0 and request.end == _ALL_ADDRESSES:
        return [*found, whole]
    for shift in (shift for shift, bit in hcalls.H_RPTI_PAGES.items() if request.pages & bit):
        if (request.end - request.start) >> shift > MOST_PAGES:
            return [*found, whole]
        addresses = range(request.start, max(request.end, request.start + 1), 1 << shift)
        found += [(RIC_TLB, IS_PAGE, pid, address, shift) for address in addresses]
    return found


class NestedHcalls:
    """The hypercalls of one L1."""

    def __init__(self, host: KvmHv, guest: KvmGuest, nested: NestedGuests[KvmNestedGuest]) -> None:
        self.host = host
        self.guest = guest
        self.nested = nested
        self.tlbie = NestedTlbie(host, guest, nested)
        self.process_flushes: list[ProcessScope] = []
        """Process-scoped flushes that L1 asked for: (RIC, IS, PID, address, page shift), in order."""

    def set_partition_table(self, ptcr: int) -> int:
        """Take L1's partition table (``kvmhv_set_partition_table``). Nothing is flushed, nothing read again.

        Zero is taken where it lies in memory, and ends nesting.
        """
        if not self.guest.nesting:
            return hcalls.H_FUNCTION
        if ptcr & PATS > KVM_NESTED_PATS or self.guest.slots.find(ptcr & PATB) is None:
            return hcalls.H_PARAMETER
        self.guest.ptcr = ptcr
        if Quirk.PARTITION_TABLE_STAYS_CACHED not in self.host.quirks:
            for one in self.guest.nested.values():
                self.host.forget_root(one)
        return hcalls.H_SUCCESS

    def tlb_invalidate(self, instruction: int, rs: int, rb: int) -> Steps[int]:
        """Do H_TLB_INVALIDATE (``kvmhv_do_nested_tlbie``)."""
        if not self.guest.nesting:
            return hcalls.H_FUNCTION
        return (yield from self.tlbie.emulate(Tlbie.decode(instruction, rs, rb)))

    def rpt_invalidate(self, request: RptRequest) -> Steps[int]:
        """Do H_RPT_INVALIDATE (``kvmppc_h_rpt_invalidate``)."""
        if not self.guest.radix:
            return hcalls.H_UNSUPPORTED
        if request.end < request.start:
            return hcalls.H_P5
        if not request.type & hcalls.H_RPTI_TYPE_NESTED:
            self.process_scoped(request)
            return hcalls.H_SUCCESS
        if not self.guest.nesting:
            return hcalls.H_FUNCTION
        if request.target != hcalls.H_RPTI_TARGET_CMMU:
            return hcalls.H_P2
        return (yield from self._rpt_nested(request))

    def _rpt_nested(self, request: RptRequest) -> Steps[int]:
        found = yield from self.nested.get(AssignedTag(request.identity), create=False)
        if found is None:
            return hcalls.H_SUCCESS
        result = yield from self._rpt_scope(found, request)
        yield from self.nested.put(found)
        return result

    def _rpt_scope(self, nested: KvmNestedGuest, request: RptRequest) -> Steps[int]:
        if request.type & hcalls.H_RPTI_TYPE_ALL == hcalls.H_RPTI_TYPE_ALL:
            yield from self.tlbie.whole(nested, RIC_ALL)
            return hcalls.H_SUCCESS
        if request.start == 0 and request.end == _ALL_ADDRESSES:
            only_walks = not request.type & hcalls.H_RPTI_TYPE_TLB
            if not only_walks or Quirk.WALK_FLUSH_FLUSHES_ALL in self.host.quirks:
                yield from self.tlbie.whole(nested, RIC_TLB)
            return hcalls.H_SUCCESS
        if not request.type & hcalls.H_RPTI_TYPE_TLB:
            return hcalls.H_SUCCESS
        return (yield from self._rpt_pages(nested, request))

    def _rpt_pages(self, nested: KvmNestedGuest, request: RptRequest) -> Steps[int]:
        shifts = [shift for shift, bit in hcalls.H_RPTI_PAGES.items() if request.pages & bit]
        for shift in shifts:
            if (request.end - request.start) >> shift > MOST_PAGES:
                yield from self.tlbie.whole(nested, RIC_TLB)
                return hcalls.H_SUCCESS
            address = request.start
            while True:
                yield from self.tlbie.pages(nested, address, 1 << shift)
                address += 1 << shift
                if address >= request.end:
                    break
        return hcalls.H_SUCCESS if shifts else hcalls.H_P4

    def process_scoped(self, request: RptRequest) -> None:
        """Flush translations of one of L1's processes (``do_tlb_invalidate`` of the kernel's H7)."""
        found = process_scopes(request)
        self.process_flushes += found
        self.emit(self.guest.tag, found)

    def emit(self, lpid: HardwareTag, scopes: list[ProcessScope]) -> None:
        """Give process-scoped flushes of one LPID to the hardware."""
        for ric, scope, pid, address, shift in scopes:
            operands = Tlbie(ric, 1, 1, scope, SHIFT_APS.get(shift, 0), address >> 12, lpid, pid)
            for flush in decode_tlbie(operands):
                self.host.flush(flush)

    def copy_tofrom_guest(self, request: CopyRequest) -> Steps[int]:
        """Do H_COPY_TOFROM_GUEST (``kvmhv_copy_tofrom_guest_nested``): what is not in the shadow is not there."""
        if request.to and request.source:
            return hcalls.H_PARAMETER
        if not request.to and not request.source and Quirk.COPY_FROM_ZERO not in self.host.quirks:
            return hcalls.H_PARAMETER
        if request.eaddr & _EADDR_UNUSED:
            return hcalls.H_PARAMETER
        if request.size > LARGEST_COPY:
            return hcalls.H_NO_MEM
        found = yield from self.nested.get(AssignedTag(request.l1_lpid), create=False)
        if found is None:
            return hcalls.H_PARAMETER
        yield Point.LOCK_NESTED
        done = self._copy(found, request)
        yield Point.UNLOCK_NESTED
        yield from self.nested.put(found)
        return hcalls.H_SUCCESS if done else hcalls.H_NOT_FOUND

    def _copy(self, nested: KvmNestedGuest, request: CopyRequest) -> bool:
        pid = request.pid & 0xFFFFFFFF
        registers = Registers(msr=MSR_SF | MSR_HV | MSR_DR, ptcr=self.host.ptcr, lpidr=nested.tag, pidr=pid)
        cpu = Power9Radix(registers, self.host.memory)
        quadrant = _QUADRANT_PID if pid else _QUADRANT_KERNEL
        access = Access.LOAD if request.to else Access.STORE
        places = []
        address, left = request.eaddr, request.size
        while left:
            reached = cpu.access(access, quadrant | address)
            if not isinstance(reached, Reached):
                return False
            size = min(left, FRAME_BYTES - address % FRAME_BYTES)
            places.append((reached.address, size))
            address, left = address + size, left - size
        try:
            if request.to:
                self.guest.memory.write(request.to, b"".join(self.host.memory.read(*place) for place in places))
                return True
            data = self.guest.memory.read(request.source, request.size)
        except OutsideMemoryError:
            return False
        for real, size in places:
            self.host.memory.write(real, data[:size])
            data = data[size:]
        return True

    def as_tlbie(self, address: int, shift: int, l1_lpid: int) -> tuple[int, int, int]:
        """Return the operands by which an L1 on this host flushes one page of its L2."""
        return Tlbie(RIC_TLB, 0, 1, IS_PAGE, SHIFT_APS[shift], address >> 12, l1_lpid).encode()

    def as_tlbie_all(self, l1_lpid: int) -> tuple[int, int, int]:
        """Return the operands by which an L1 on this host flushes all of its L2, its partition-table entry included."""
        return Tlbie(RIC_ALL, 0, 1, IS_LPID, 0, 0, l1_lpid).encode()
