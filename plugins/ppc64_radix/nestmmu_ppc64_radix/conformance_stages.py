"""Both scopes of a POWER9 for the conformance suite: a process-scoped tree behind a partition-scoped one, on the CPU.

The partition table, the process table and the registers are raw words of the manual (Book III, 5.7.6 and 6.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.faults import FaultKind
from nestmmu.testing.stages import Landed, Stage, StageFault, TreeStages
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import Registers
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import HvExit, decode

if TYPE_CHECKING:
    from nestmmu.formats import AccessedDirty

LPID, PID = 3, 2
PARTITION_TABLE, PROCESS_TABLE = 0x1000, 0x10_0000_0000
"""Of 4 KiB each: where in the machine's memory, and where in the guest's."""
RELOCATED = 1 << 63 | 0x30
"""MSR: SF, IR, DR."""
RTS_52 = 0b10 << 61 | 0b101 << 5
_ISI, _HDSI, _HISI = 0x400, 0xE00, 0xE20
_NOEXEC, _PROTFAULT = 0x1000_0000, 0x0800_0000
_CAUSES = {
    0x4000_0000: FaultKind.NOT_PRESENT,
    0x0008_0000: FaultKind.MALFORMED,
    0x0004_0000: FaultKind.ACCESSED_DIRTY,
}
"""DSISR bits, as the interrupts' definitions have them."""


class PowerStages(TreeStages):
    """A CPU in a guest with relocation, quadrant 0."""

    implicit_shift = 12

    def make_translators(self, policy: AccessedDirty) -> None:
        """Point the registers and the two tables in memory at the trees."""
        self.word(PARTITION_TABLE + 16 * LPID, 1 << 63 | RTS_52 | self.outer.root | self.outer.root_bits)
        self.word(PARTITION_TABLE + 16 * LPID + 8, PROCESS_TABLE)
        self._store(PROCESS_TABLE + 16 * PID, (RTS_52 | self.inner.root | self.inner.root_bits).to_bytes(8, "big"))
        registers = Registers(msr=RELOCATED, ptcr=PARTITION_TABLE, lpidr=LPID, pidr=PID)
        self.cpu = Power9Radix(registers, self.memory, reference_change=policy)

    def word(self, address: int, value: int) -> None:
        """Store a doubleword in the machine's memory."""
        self.memory.write(address, value.to_bytes(8, "big"))

    def words_read(self, address: int) -> list[int]:
        """Return the process-table entry and the words of the process-scoped tree, in the guest's memory."""
        return [PROCESS_TABLE + 16 * PID, *super().words_read(address)]

    def implicit_access(self, access: Access) -> Access:
        """Return FETCH for a fetch: HISI says that a table was read, and not how."""
        return Access.FETCH if access is Access.FETCH else Access.LOAD

    def access(self, access: Access, address: int) -> Landed | StageFault:
        """Do one access on the CPU; what the hypervisor gets is decoded by the plugin, what the guest gets here."""
        end = self.cpu.access(access, address)
        if not isinstance(end, Interrupt):
            return Landed(end.address, end.page_shift, end.permissions)
        if end.vector in {_HDSI, _HISI}:
            fault = decode(HvExit.from_interrupt(end)).fault
            return StageFault(Stage.OUTER, fault.kind, fault.access, fault.input_address, fault.implicit)
        fetch = end.vector == _ISI
        cause = end.get("srr1") if fetch else end.get("dsisr")
        permission = _NOEXEC if fetch else _PROTFAULT
        causes = {permission: FaultKind.PERMISSION, **_CAUSES}
        kind = next((kind for bit, kind in causes.items() if cause & bit), FaultKind.ATTRIBUTE)
        tried = Access.FETCH if fetch else Access.STORE if cause & 0x0200_0000 else Access.LOAD
        return StageFault(Stage.INNER, kind, tried, end.get("srr0") if fetch else end.get("dar"))
