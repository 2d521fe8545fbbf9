"""What SFENCE.VMA, HFENCE.VVMA and HFENCE.GVMA make the hardware forget, and the Svinval forms of them.

The address that a fence names has no size: the leaf that maps it is meant, whatever its size.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from nestmmu.addresses import HardwareTag, align_down, low_mask
from nestmmu.invalidation import HOST_OWN, Flush, FlushKind
from nestmmu_riscv.csrs import ASID_BITS, PAGE_SHIFT, VMID_BITS
from nestmmu_riscv.traps import HTVAL_SHIFT

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPCODE_SYSTEM = 0x73
_REGISTERS = 32


class FenceKind(enum.Enum):
    """Which instruction; the value has the funct7 of the fence, and of its Svinval form."""

    SFENCE_VMA = (0b0001001, 0b0001011)
    HFENCE_VVMA = (0b0010001, 0b0010011)
    HFENCE_GVMA = (0b0110001, 0b0110011)


_BY_FUNCT7 = {funct7: kind for kind in FenceKind for funct7 in kind.value}


@attrs.frozen
class Fence:
    """One fence, as it is executed."""

    kind: FenceKind
    address: int | None = None
    """The value of rs1: a virtual address, of HFENCE.GVMA a guest physical one shifted right by 2; None: rs1 is x0."""
    space: int | None = None
    """The value of rs2: an ASID, of HFENCE.GVMA a VMID; None: rs2 is x0."""
    vmid: int | None = None
    """hgatp.VMID; None: HS-mode's own SFENCE.VMA."""

    @classmethod
    def decode(cls, instruction: int, values: Sequence[int], vmid: int | None = None) -> Fence:
        """Return the fence in an instruction.

        :param values: of the registers x0 to x31.
        :param vmid: hgatp.VMID; None: SFENCE.VMA is HS-mode's own.
        :raises ValueError: for what is no fence.
        """
        kind = _BY_FUNCT7.get(instruction >> 25)
        if kind is None or instruction & low_mask(15) != _OPCODE_SYSTEM:
            message = f"{instruction:#010x} is no fence of address translation"
            raise ValueError(message)
        rs1, rs2 = instruction >> 15 & _REGISTERS - 1, instruction >> 20 & _REGISTERS - 1
        return cls(kind, values[rs1] if rs1 else None, values[rs2] if rs2 else None, vmid)

    @property
    def guest_address(self) -> int | None:
        """The guest physical address that an HFENCE.GVMA names, in bytes."""
        return None if self.address is None else self.address << HTVAL_SHIFT & low_mask(64)


def decode(request: Fence) -> list[Flush]:
    """Return what a fence invalidates: one scope.

    ASIDs and VMIDs are cut to the bits that they have. What is global (G) is no process's, so that a fence of an
    ASID leaves it.

    :raises ValueError: for a fence of a guest without hgatp.VMID.
    """
    if request.kind is FenceKind.HFENCE_GVMA:
        every = request.space is None
        tag = HardwareTag(0 if request.space is None else request.space & low_mask(VMID_BITS))
        if request.guest_address is None:
            return [Flush(tag, FlushKind.TAG, every=every)]
        start = align_down(request.guest_address, PAGE_SHIFT)
        return [Flush(tag, FlushKind.PAGE, start, PAGE_SHIFT, every=every)]
    if request.vmid is None and request.kind is FenceKind.HFENCE_VVMA:
        message = "HFENCE.VVMA is of a guest: name hgatp.VMID"
        raise ValueError(message)
    tag = HOST_OWN if request.vmid is None else HardwareTag(request.vmid)
    process = None if request.space is None else request.space & low_mask(ASID_BITS)
    if request.address is None:
        return [Flush(tag, FlushKind.ADDRESS_SPACE, process=process)]
    start = align_down(request.address, PAGE_SHIFT)
    return [Flush(tag, FlushKind.INPUT_PAGE, start, PAGE_SHIFT, process=process)]
