"""Storage interrupts: their vectors, their cause bits, and the registers that they write.

Power ISA 3.0B, Book III, 6.5 (interrupt definitions); names of bits as in the kernel's reg.h.
"""

from __future__ import annotations

import attrs

VECTOR_DSI = 0x300
VECTOR_DSEG = 0x380
VECTOR_ISI = 0x400
VECTOR_ISEG = 0x480
VECTOR_SC = 0xC00
VECTOR_HDSI = 0xE00
VECTOR_HISI = 0xE20
VECTOR_HEAI = 0xE40

VECTOR_NAMES = {
    VECTOR_DSI: "DSI", VECTOR_DSEG: "DSEG", VECTOR_ISI: "ISI", VECTOR_ISEG: "ISEG",
    VECTOR_HDSI: "HDSI", VECTOR_HISI: "HISI", VECTOR_HEAI: "HEAI",
}  # fmt: skip

DSISR_NOHPTE = 0x40000000
"""No translation found."""
DSISR_NOEXEC_OR_G = 0x10000000
"""A fetch from a page that is no-execute or guarded."""
DSISR_PROTFAULT = 0x08000000
DSISR_BADACCESS = 0x04000000
DSISR_ISSTORE = 0x02000000
DSISR_KEYFAULT = 0x00200000
DSISR_UNSUPP_MMU = 0x00080000
"""Unsupported radix tree configuration."""
DSISR_SET_RC = 0x00040000
"""The CPU could not set reference or change."""
DSISR_PRTABLE_FAULT = 0x00020000
"""Partition-scoped, while reading a process table or a process-scoped entry."""
HSRR1_HISI_WRITE = 0x00010000
"""A fetch whose process-scoped R or C update the partition scope does not let store."""
DSISR_BAD_COPYPASTE = 0x00000008
DSISR_BAD_FAULT_64S = 0xA41A400E
"""The causes that no mapping mends."""
DSISR_SRR1_MATCH_64S = 0x582E0000
"""The bits of HSRR1 that stand for the same causes as those of HDSISR."""
SRR1_CAUSES = 0x783F0000
"""The bits of SRR1 and HSRR1 that an instruction storage interrupt overwrites."""


@attrs.frozen
class Interrupt:
    """One storage interrupt, with every register that it writes."""

    vector: int
    registers: dict[str, int]
    """By lower-case name; what is absent was not written."""
    hv: bool
    """MSR[HV] of the handler."""

    @property
    def name(self) -> str:
        """The interrupt's short name, such as ``HDSI``."""
        return VECTOR_NAMES.get(self.vector, f"{self.vector:#x}")

    def get(self, register: str) -> int:
        """Return a register that the interrupt wrote, 0 for one that it did not."""
        return self.registers.get(register, 0)


def segment_interrupt(fetch: bool, address: int, at: int, msr: int) -> Interrupt:  # noqa: FBT001  (a kind of access)
    """Return the interrupt for an effective address that no quadrant or segment translates.

    :param at: the address of the instruction.
    """
    registers = {"srr0": at, "srr1": msr & ~SRR1_CAUSES if fetch else msr}
    if not fetch:
        registers["dar"] = address
    return Interrupt(VECTOR_ISEG if fetch else VECTOR_DSEG, registers, hv=bool(msr & (1 << 60)))


def storage_interrupt(
    *, hypervisor: bool, fetch: bool, cause: int, address: int, at: int, msr: int, asdr: int | None = None
) -> Interrupt:
    """Return DSI, ISI, HDSI or HISI with its registers (6.5.3, 6.5.5, 6.5.16, 6.5.17).

    :param cause: DSISR bits; DSISR_ISSTORE included where it belongs.
    :param address: the effective address of the access.
    :param at: the address of the instruction.
    :param asdr: for HDSI and HISI, the guest real address at fault.
    """
    prefix = "h" if hypervisor else ""
    registers = {f"{prefix}srr0": at}
    if fetch:
        registers[f"{prefix}srr1"] = msr & ~SRR1_CAUSES | cause & SRR1_CAUSES
        vector = VECTOR_HISI if hypervisor else VECTOR_ISI
    else:
        registers[f"{prefix}srr1"] = msr
        registers[f"{prefix}dar"] = address
        registers[f"{prefix}dsisr"] = cause
        vector = VECTOR_HDSI if hypervisor else VECTOR_DSI
    if hypervisor and asdr is not None:
        registers["asdr"] = asdr
    return Interrupt(vector, registers, hv=hypervisor or bool(msr & (1 << 60)))
