"""A POWER9 CPU that translates by hash: one load, store or fetch (Power ISA 3.0B, Book III, 5.7.7 to 5.7.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import ALL_PERMISSIONS, EXECUTE, Access
from nestmmu.addresses import HardwareTag
from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.tlb import Translation, page_of
from nestmmu_ppc64_book3s.interrupts import (
    DSISR_ISSTORE,
    DSISR_NOEXEC_OR_G,
    DSISR_NOHPTE,
    Interrupt,
    segment_interrupt,
    storage_interrupt,
)
from nestmmu_ppc64_book3s.partition import PATE_HR, pate_address
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_HV, MSR_IR, MSR_PR, Registers
from nestmmu_ppc64_book3s.threads import REAL_ADDRESS, Reached, Thread
from nestmmu_ppc64_hpt.hashing import Segment, segment_of
from nestmmu_ppc64_hpt.hpte import R_C, R_R
from nestmmu_ppc64_hpt.protection import denial, execute_permissions, key_permissions, page_permissions
from nestmmu_ppc64_hpt.slb import Slb
from nestmmu_ppc64_hpt.table import STAGE, FoundHpte, HashTable, order_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from nestmmu.batch_memory import Stage
    from nestmmu.batch_stages import Batch
    from nestmmu.memory import Memory
    from nestmmu.radix import Step

LPCR_VPM1 = 1 << 62
PATE_HTABORG = 0x0FFFFFFFFFFC0000
PATE_HTABSIZE = 0x1F
PATE_PS_SHIFT = 5
VECTOR_MACHINE_CHECK = 0x200
VRMA_WORD = 0x4001FFFFFF000000
"""VSID word of the virtual real mode area: VSID 0x1FFFFFF of 1 TiB."""
_NOTHING = 64
_LOAD, _STORE, _FETCH = Access.LOAD, Access.STORE, Access.FETCH


def hash_table(memory: Memory, dw0: int) -> HashTable:
    """Return the hash table that a partition-table entry names.

    :raises NestmmuError: if it is none: of radix, or larger than there is.
    """
    if dw0 & PATE_HR:
        message = f"PATE {dw0:#x} has HR set: the partition translates by radix"
        raise NestmmuError(message)
    return HashTable(memory, dw0 & PATE_HTABORG, order_of(dw0 & PATE_HTABSIZE))


def vrma_segment(page_size_field: int) -> Segment | None:
    """Return the segment that guest real mode uses, None where its page size is none.

    :param page_size_field: PS of the partition-table entry: L, then LP.
    """
    return segment_of(VRMA_WORD | (page_size_field & 4) << 6 | (page_size_field & 3) << 4)


class Power9Hash(Thread):
    """A CPU whose partition table and hash tables lie in ``memory``.

    :param slb: what its segments are; empty where absent.
    :param reference_change: UPDATE: the CPU sets R and C; IGNORE: it does not, for looking without changing anything.
    :param real_mode_keys: whether AMR and IAMR count in guest real mode, as on the emulated CPU that the recorded data
        come from; the ISA has no keys in the virtual real mode area.
    """

    def __init__(
        self,
        registers: Registers,
        memory: Memory,
        slb: Slb | None = None,
        *,
        reference_change: AccessedDirty = AccessedDirty.UPDATE,
        real_mode_keys: bool = False,
    ) -> None:
        self.registers = registers
        self.memory = memory
        self.slb = Slb() if slb is None else slb
        self.reference_change = reference_change
        self.real_mode_keys = real_mode_keys
        self.hit: FoundHpte | None = None
        """What the last search of a table found."""
        self._load = memory.loader(8, "big")
        self._tables: dict[int, HashTable] = {}

    def trace(self, steps: list[Step] | None) -> None:
        """Do nothing: a search of a hash table has no steps of a walk."""

    def access(self, access: Access, address: int, at: int | None = None) -> Reached | Interrupt:
        """Do one access as the hardware does it.

        :param address: effective address, in bytes.
        :param at: the address of the instruction, for SRR0; a fetch's own where absent.
        :returns: where it ended, or the interrupt with every register that it writes.
        """
        registers, fetch = self.registers, access is _FETCH
        msr = registers.msr
        at = address if at is None or fetch else at
        if msr & (MSR_IR if fetch else MSR_DR):
            segment = self.slb.lookup(address)
            if segment is None:
                return segment_interrupt(fetch, address, at, msr)
            return self._translate(access, address, at, segment, vpm=bool(registers.lpcr & LPCR_VPM1))
        real = address & REAL_ADDRESS
        if msr & MSR_HV:
            return Reached(real if address >> 63 else real | registers.hrmor, _NOTHING, ALL_PERMISSIONS)
        segment = self.real_segment()
        if segment is None:
            return self._machine_check(at, msr)
        return self._translate(access, address, at, segment, vpm=True)

    def _translate(self, access: Access, address: int, at: int, segment: Segment, *, vpm: bool) -> Reached | Interrupt:
        """Translate an address in a segment; ``vpm``: the hypervisor takes storage interrupts of a guest."""
        registers, fetch = self.registers, access is _FETCH
        hypervisor = vpm and not registers.msr & MSR_HV

        def interrupt(cause: int) -> Interrupt:
            if access is _STORE:
                cause |= DSISR_ISSTORE
            return storage_interrupt(
                hypervisor=hypervisor, fetch=fetch, cause=cause, address=address, at=at, msr=registers.msr,
                asdr=segment.word,
            )  # fmt: skip

        if fetch and segment.no_execute:
            return interrupt(DSISR_NOEXEC_OR_G)
        try:
            table = self.table(access, address)
            hit = self.hit = None if table is None else table.search(segment, address)
        except (OutsideMemoryError, Fault):
            return self._machine_check(at, registers.msr)
        if table is None or hit is None:
            return interrupt(DSISR_NOHPTE)
        pages = page_permissions(hit.r, key=segment.key(problem=bool(registers.msr & MSR_PR)))
        execution = execute_permissions(hit.r)
        keyed = self.real_mode_keys or registers.msr & (MSR_IR if fetch else MSR_DR)
        keys = key_permissions(hit.r, registers.amr, registers.iamr) if keyed else ALL_PERMISSIONS
        cause = denial(access, pages, execution, keys)
        if cause:
            return interrupt(cause)
        self._touch(table, hit, access)
        permissions = pages & execution & keys & (~EXECUTE if segment.no_execute else ALL_PERMISSIONS)
        return Reached(
            hit.output(address), min(hit.page_shift, segment.shift), permissions, segment.virtual(address)
        )  # fmt: skip

    def _touch(self, table: HashTable, hit: FoundHpte, access: Access) -> None:
        if self.reference_change is not AccessedDirty.IGNORE:
            change = access is _STORE and not hit.r & R_C
            table.set_flags(hit.slot, hit.r, reference=not hit.r & R_R, change=change)

    def real_segment(self) -> Segment | None:
        """Return the segment that guest real mode uses; None where the partition-table entry says none."""
        found = self._pate()
        return None if found is None else vrma_segment(found >> PATE_PS_SHIFT & 7)

    def table(self, access: Access, address: int = 0) -> HashTable | None:
        """Return the table of LPIDR's partition-table entry; None where there is no such entry.

        :param address: what a fault is to be about.
        :raises Fault: MALFORMED, if the entry names no table.
        """
        dw0 = self._pate()
        if dw0 is None:
            return None
        table = self._tables.get(dw0)
        if table is None:
            if len(self._tables) > 4096:  # noqa: PLR2004  (as many as there are LPIDs)
                self._tables.clear()
            try:
                table = self._tables[dw0] = hash_table(self.memory, dw0)
            except NestmmuError:
                raise Fault(FaultKind.MALFORMED, STAGE, access, address) from None
        return table

    def _pate(self) -> int | None:
        """Return doubleword 0 of the partition-table entry of LPIDR; None beyond the table or the memory."""
        where = pate_address(self.registers.ptcr, self.registers.lpidr)
        try:
            return None if where is None else self._load(where)
        except (OutsideMemoryError, Fault):
            return None

    @staticmethod
    def _machine_check(at: int, msr: int) -> Interrupt:
        return Interrupt(VECTOR_MACHINE_CHECK, {"srr0": at, "srr1": msr}, hv=True)

    def probe(self, access: Access, address: int) -> Reached | Interrupt:
        """Return what :meth:`access` would, and change nothing: neither R nor C."""
        silent = Power9Hash(
            self.registers,
            self.memory,
            self.slb,
            reference_change=AccessedDirty.IGNORE,
            real_mode_keys=self.real_mode_keys,
        )
        return silent.access(access, address)

    def batch_stage(self, batch: Batch) -> Stage:
        """Return what makes many accesses at once (:mod:`nestmmu.batch`)."""
        from nestmmu_ppc64_hpt.many import HashStage  # noqa: PLC0415  (numpy, and only for batches)

        return HashStage(self, batch)

    def context(self, access: Access, address: int) -> tuple[HardwareTag, Hashable] | None:
        """Return the LPID, and what else a translation hangs on: the segment, MSR, AMR, IAMR."""
        registers = self.registers
        relocated = bool(registers.msr & (MSR_IR if access is _FETCH else MSR_DR))
        if not relocated and registers.msr & MSR_HV:
            return None
        segment = self.slb.lookup(address) if relocated else None
        keys = (relocated, registers.msr & (MSR_HV | MSR_PR), registers.amr, registers.iamr)
        return HardwareTag(registers.lpidr), (segment, *keys)

    def translation(self, access: Access, address: int, result: Reached | Interrupt) -> Translation | None:
        """Return a result as something for a TLB to keep; None for an interrupt, and for what no table translated."""
        place = self.context(access, address)
        if place is None or isinstance(result, Interrupt) or result.guest is None:
            return None
        start, output, guest = page_of(address, result.address, result.guest, result.page_shift)
        return Translation(*place, start, result.page_shift, output, guest, result.permissions)

    def on_table(self, result: Reached | Interrupt) -> bool:
        """Return False: one table translates, and it is the host's."""
        del result
        return False

    def reached(self, translation: Translation, address: int) -> Reached:
        """Return a kept translation as an access would have ended."""
        offset = address - translation.input_start
        real, guest = translation.output_start + offset, translation.guest_start + offset
        return Reached(real, translation.page_shift, translation.permissions, guest)
