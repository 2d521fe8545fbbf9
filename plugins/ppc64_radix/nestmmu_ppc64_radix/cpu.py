"""A POWER9 CPU that translates by radix: one load, store or fetch (Power ISA 3.0B, Book III, 5.7.8 to 5.7.12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import ALL_PERMISSIONS, EXECUTE, READ, WRITE, Access
from nestmmu.addresses import HardwareTag
from nestmmu.errors import OutsideMemoryError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.memory import TranslatedMemory
from nestmmu.radix import Found, RadixTable, RadixWalker, Root, Step
from nestmmu.tlb import Translation, page_of
from nestmmu_ppc64_book3s.interrupts import (
    DSISR_ISSTORE,
    DSISR_NOEXEC_OR_G,
    DSISR_NOHPTE,
    DSISR_PROTFAULT,
    DSISR_PRTABLE_FAULT,
    DSISR_SET_RC,
    DSISR_UNSUPP_MMU,
    HSRR1_HISI_WRITE,
    VECTOR_HDSI,
    VECTOR_HISI,
    Interrupt,
    segment_interrupt,
    storage_interrupt,
)
from nestmmu_ppc64_book3s.partition import (
    LARGEST_TABLE_FIELD,
    PATE_BYTES,
    PATE_HR,
    PRTB,
    PRTS,
    RPDB,
    RPDS,
    RTS,
    RTS_52_BITS,
    pate_address,
    radix_root,
    table_bytes,
)
from nestmmu_ppc64_book3s.registers import KEY0_NO_READ, KEY0_NO_WRITE, MSR_DR, MSR_HV, MSR_IR, MSR_PR, Registers
from nestmmu_ppc64_book3s.threads import REAL_ADDRESS, Reached, Thread
from nestmmu_ppc64_radix.formats import ATT, ATT_NON_IDEMPOTENT, CHANGE, EAA_PRIV, POWER9, REFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from nestmmu.batch_memory import Stage
    from nestmmu.batch_stages import Batch
    from nestmmu.memory import Memory

PARTITION = "partition-scoped"
PROCESS = "process-scoped"
EA_UNUSED = 0x3FF0000000000000
"""Effective address bits 2:11 (IBM numbering), which must be zero."""
EA_WITHOUT_QUADRANT = 0x3FFFFFFFFFFFFFFF
_PAGE_OF_NOTHING = 64
NO_TREE = 0
"""Index bits of a root that translates nothing: a tree of another size than 52 bits is a configuration fault."""

_LOAD, _STORE, _FETCH = Access.LOAD, Access.STORE, Access.FETCH
_RC = REFERENCE | CHANGE

_CAUSES = {
    FaultKind.NOT_PRESENT: DSISR_NOHPTE,
    FaultKind.MALFORMED: DSISR_UNSUPP_MMU,
    FaultKind.UNREADABLE: DSISR_UNSUPP_MMU,
    FaultKind.PERMISSION: DSISR_PROTFAULT,
    FaultKind.ATTRIBUTE: DSISR_NOEXEC_OR_G,
    FaultKind.ACCESSED_DIRTY: DSISR_SET_RC,
}


def prte_address(dw1: int, pid: int) -> int | FaultKind:
    """Return where the process-table entry of ``pid`` lies, in bytes, by doubleword 1 of the PATE; or what is wrong."""
    size, base = table_bytes(dw1), dw1 & PRTB
    if dw1 & PRTS > LARGEST_TABLE_FIELD or base & (size - 1):
        return FaultKind.MALFORMED
    return FaultKind.NOT_PRESENT if pid * PATE_BYTES >= size else base + pid * PATE_BYTES


class _Partition:
    """The tables of one partition-table entry: built once, used by every access."""

    def __init__(self, cpu: Power9Radix, dw0: int) -> None:
        base, bits = radix_root(dw0)
        if dw0 & RTS != RTS_52_BITS:
            bits = NO_TREE
        self.table = RadixTable(cpu.partition_walker, Root(base, bits))
        self.memory = TranslatedMemory(cpu.memory, self.table, "guest real")
        self.locate = self.memory.locator()
        self.process_walker = cpu.make_walker(POWER9, self.memory, PROCESS, cpu.reference_change)
        self.process_walker.trace = cpu.partition_walker.trace


class Power9Radix(Thread):
    """A CPU whose partition table, process tables and trees lie in ``memory``.

    :param reference_change: whether the CPU sets R and C itself (UPDATE) or takes a storage interrupt with
        DSISR bit 0x00040000 (FAULT). Both are POWER9.
    :param guarded_updates: whether the CPU's own store of R and C to a process-scoped entry needs write permission,
        and sets C, in
        the partition scope, as the ISA has it. The emulated CPUs that the recorded data come from do not do so.
    :param real_guest_tables: whether, in quadrants 1 and 2 with MSR[HV], process-scoped entries are read from host
        real addresses, as
        the emulated CPUs that the recorded data come from do; the ISA has them guest real.
    :param make_walker: what to walk with; a hook may have wrapped it.
    """

    def __init__(
        self,
        registers: Registers,
        memory: Memory,
        *,
        reference_change: AccessedDirty = AccessedDirty.UPDATE,
        guarded_updates: bool = False,
        real_guest_tables: bool = False,
        make_walker: Callable[..., RadixWalker] = RadixWalker,
    ) -> None:
        self.registers = registers
        self.memory = memory
        self.reference_change = reference_change
        self.guarded_updates = guarded_updates
        self.real_guest_tables = real_guest_tables
        self.make_walker = make_walker
        self.partition_walker = make_walker(POWER9, memory, PARTITION, reference_change)
        self.real_walker = make_walker(POWER9, memory, PROCESS, reference_change)
        self._load = memory.loader(8, "big")
        self._load_physical = memory.physical.loader(8, "big")
        self._partitions: dict[int, _Partition] = {}

    def trace(self, steps: list[Step] | None) -> None:
        """Add the steps of every walk to ``steps`` from now on; None: stop."""
        self.partition_walker.trace = self.real_walker.trace = steps
        for partition in self._partitions.values():
            partition.process_walker.trace = steps

    def access(self, access: Access, address: int, at: int | None = None) -> Reached | Interrupt:
        """Do one access as the hardware does it.

        :param address: effective address, in bytes.
        :param at: the address of the instruction, for SRR0; a fetch's own where absent.
        :returns: where it ended, or the interrupt with every register that it writes.
        """
        registers = self.registers
        msr = registers.msr
        fetch = access is Access.FETCH
        at = address if at is None or fetch else at
        hv = msr & MSR_HV
        if not msr & (MSR_IR if fetch else MSR_DR):
            if hv:
                real = address & REAL_ADDRESS
                return Reached(real if address >> 63 else real | registers.hrmor, _PAGE_OF_NOTHING, ALL_PERMISSIONS)
            lpid, quadrant = registers.lpidr, None
        else:
            quadrant = address >> 62
            if address & EA_UNUSED or (not hv and quadrant in {1, 2}):
                return segment_interrupt(fetch, address, at, msr)
            lpid = registers.lpidr if not hv or quadrant in {1, 2} else 0
        try:
            found = self._translate(access, address, lpid, quadrant)
        except Fault as fault:
            if fault.original_address is None:
                fault.original_address, fault.original_access = address, access
            return self.interrupt(fault, address, at, msr, fetch=fetch)
        return found

    def probe(self, access: Access, address: int) -> Reached | Interrupt:
        """Return what :meth:`access` would, and change nothing: neither R nor C."""
        silent = Power9Radix(
            self.registers,
            self.memory,
            reference_change=AccessedDirty.IGNORE,
            real_guest_tables=self.real_guest_tables,
        )
        return silent.access(access, address)

    def batch_stage(self, batch: Batch) -> Stage:
        """Return what makes many accesses at once (:mod:`nestmmu.batch`)."""
        from nestmmu_ppc64_radix.many import CpuStage  # noqa: PLC0415  (numpy, and only for batches)

        return CpuStage(self, batch)

    def context(self, access: Access, address: int) -> tuple[HardwareTag, Hashable] | None:
        """Return the LPID, and what else a translation hangs on: PID, relocation, MSR[HV, PR], AMR, IAMR."""
        registers = self.registers
        hv = bool(registers.msr & MSR_HV)
        relocated = bool(registers.msr & (MSR_IR if access is _FETCH else MSR_DR))
        quadrant = address >> 62
        if hv and (not relocated or quadrant in {0, 3}):
            return None
        keys = (relocated, hv, registers.msr & MSR_PR, registers.amr, registers.iamr)
        return HardwareTag(registers.lpidr), (self._process(access, address), *keys)

    def translation(self, access: Access, address: int, result: Reached | Interrupt) -> Translation | None:
        """Return a result as something for a TLB to keep; None for an interrupt, and for what no table translated."""
        place = self.context(access, address)
        if place is None or isinstance(result, Interrupt) or result.guest is None:
            return None
        start, output, guest = page_of(address, result.address, result.guest, result.page_shift)
        process = self._process(access, address)
        return Translation(*place, start, result.page_shift, output, guest, result.permissions, process)

    def on_table(self, result: Reached | Interrupt) -> bool:
        """Tell whether a result is an HDSI or HISI on the process table, or on a table of the process."""
        if not isinstance(result, Interrupt) or result.vector not in {VECTOR_HDSI, VECTOR_HISI}:
            return False
        cause = result.get("hsrr1" if result.vector == VECTOR_HISI else "hdsisr")
        return bool(cause & DSISR_PRTABLE_FAULT)

    def _process(self, access: Access, address: int) -> int | None:
        """Return the PID whose tree translates an access; None without relocation."""
        if not self.registers.msr & (MSR_IR if access is _FETCH else MSR_DR):
            return None
        return self.registers.pidr if address >> 62 in {0, 1} else 0

    def reached(self, translation: Translation, address: int) -> Reached:
        """Return a kept translation as an access would have ended."""
        offset = address - translation.input_start
        real, guest = translation.output_start + offset, translation.guest_start + offset
        return Reached(real, translation.page_shift, translation.permissions, guest)

    def interrupt(self, fault: Fault, address: int, at: int, msr: int, *, fetch: bool) -> Interrupt:
        """Return the storage interrupt that a fault of either scope is (2.3 of the reference; ISA 6.5)."""
        cause = _CAUSES[fault.kind]
        if fetch and fault.kind is FaultKind.PERMISSION and not fault.implicit:
            cause = DSISR_NOEXEC_OR_G
        if fault.access is Access.STORE:
            cause |= HSRR1_HISI_WRITE if fetch else DSISR_ISSTORE
        if fault.implicit:
            cause |= DSISR_PRTABLE_FAULT
        partition = fault.stage == PARTITION
        asdr = fault.input_address if partition else None
        return storage_interrupt(
            hypervisor=partition, fetch=fetch, cause=cause, address=address, at=at, msr=msr, asdr=asdr
        )

    def _translate(self, access: Access, address: int, lpid: int, quadrant: int | None) -> Reached:
        hv = self.registers.msr & MSR_HV
        dw0, dw1 = self.pate(lpid, address, access)
        partition = self._partitions.get(dw0)
        if partition is None:
            self._bound_cache()
            partition = self._partitions[dw0] = _Partition(self, dw0)
        self.partition_walker.owner = lpid
        if quadrant is None:
            guest = address & EA_WITHOUT_QUADRANT
            return Reached(*self._partition_scoped(partition, guest, access), guest)
        pid = 0 if quadrant in {2, 3} else self.registers.pidr
        own = hv and lpid == 0
        walker = self.real_walker if own or (hv and self.real_guest_tables) else partition.process_walker
        guest, inner_shift, inner_permissions = self._process_scoped(partition, walker, dw1, pid, address, access)
        if own:
            return Reached(guest, inner_shift, inner_permissions)
        real, shift, permissions = self._partition_scoped(partition, guest, access)
        return Reached(real, min(shift, inner_shift), permissions & inner_permissions, guest)

    def _bound_cache(self) -> None:
        if len(self._partitions) > 4096:  # noqa: PLR2004  (as many as there are LPIDs)
            self._partitions.clear()

    def pate(self, lpid: int, address: int, access: Access) -> tuple[int, int]:
        """Return the partition-table entry of ``lpid``; its configuration checked."""
        where = pate_address(self.registers.ptcr, lpid)
        try:
            dw0 = 0 if where is None else self._load(where)
            dw1 = 0 if where is None else self._load(where + PATE_BYTES // 2)
        except OutsideMemoryError:
            dw0 = dw1 = 0
        guest_of_none = lpid == 0 and not self.registers.msr & MSR_HV
        if not dw0 & PATE_HR or guest_of_none:
            raise Fault(FaultKind.MALFORMED, PARTITION, access, address, entry_address=where, entry=dw0)
        return dw0, dw1

    def _partition_scoped(self, partition: _Partition, guest: int, access: Access) -> tuple[int, int, int]:
        """Translate a guest real address to (host real address, page shift, permissions)."""
        walker = self.partition_walker
        raw = walker.descend(partition.table.node(guest, access), guest, access)
        if access is _FETCH and raw[2] & ATT == ATT_NON_IDEMPOTENT:
            raise walker.fault(FaultKind.ATTRIBUTE, guest, access, Found._make(raw))
        needed = _RC if access is _STORE else REFERENCE
        if not raw[6] & access or raw[2] & needed != needed:
            walker.settle(raw, guest, access)
        return raw[0], raw[1], raw[6]

    def _process_scoped(
        self, partition: _Partition, walker: RadixWalker, dw1: int, pid: int, address: int, access: Access
    ) -> tuple[int, int, int]:
        """Translate an effective address to (guest real address, page shift, permissions)."""
        where = prte_address(dw1, pid)
        if isinstance(where, FaultKind):
            raise walker.fault(where, address, access)
        try:
            word = self._load_physical(partition.locate(where, _LOAD))
        except OutsideMemoryError:
            raise walker.fault(FaultKind.UNREADABLE, address, access) from None
        except Fault as fault:
            fault.implicit = True
            raise
        if word & RTS != RTS_52_BITS:
            raise walker.fault(FaultKind.MALFORMED, address, access)
        raw = walker.find_raw(word & RPDB, word & RPDS, address & EA_WITHOUT_QUADRANT, access)
        entry = raw[2]
        if access is _FETCH and entry & ATT == ATT_NON_IDEMPOTENT:
            raise walker.fault(FaultKind.ATTRIBUTE, address, access, Found._make(raw))
        permissions = self._process_permissions(entry, raw[6])
        if not permissions & access:
            raise walker.fault(FaultKind.PERMISSION, address, access, Found._make(raw))
        needed = _RC if access is _STORE else REFERENCE
        if entry & needed != needed:
            found = Found._make(raw)
            walker.touch(self._guarded(partition, walker, found), address, access)
        return raw[0], raw[1], permissions

    def _process_permissions(self, entry: int, permissions: int) -> int:
        """Return a process-scoped leaf's permissions under MSR[PR] and key 0 of AMR and IAMR (5.7.12)."""
        registers = self.registers
        if entry & EAA_PRIV:
            return 0 if registers.msr & MSR_PR else permissions
        if not registers.msr & MSR_PR:
            if registers.amr & KEY0_NO_READ:
                permissions &= ~READ
            if registers.amr & KEY0_NO_WRITE:
                permissions &= ~WRITE
            if registers.iamr & KEY0_NO_READ:
                permissions &= ~EXECUTE
        return permissions

    def _guarded(self, partition: _Partition, walker: RadixWalker, found: Found) -> Found:
        """Return a process-scoped leaf as the partition scope lets the CPU store its R and C."""
        if not self.guarded_updates or walker is self.real_walker:
            return found
        try:
            return found._replace(where=partition.memory.locate(found.entry_address, _STORE))
        except Fault as fault:
            fault.implicit = True
            raise
