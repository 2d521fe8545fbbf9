"""Control and status registers: the fields that translation looks at (privileged architecture; hypervisor extension).

Each name is that of the manual; a field is its mask, in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.addresses import low_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

MODE_SHIFT = 60
BARE, SV39, SV48, SV57 = 0, 8, 9, 10
"""MODE of satp, vsatp and hgatp; in hgatp they are Sv39x4, Sv48x4 and Sv57x4."""
MODES = (SV39, SV48, SV57)
PPN = low_mask(44)
ASID_SHIFT, ASID_BITS = 44, 16
VMID_SHIFT, VMID_BITS = 44, 14
PAGE_SHIFT = 12

STATUS_SUM = 1 << 18
"""sstatus, vsstatus, mstatus: S-mode loads and stores may reach pages of U-mode."""
STATUS_MXR = 1 << 19
"""sstatus, vsstatus, mstatus: what may be executed may be loaded."""
HSTATUS_GVA = 1 << 6
"""stval of the last trap into HS-mode is a guest virtual address."""
HSTATUS_SPV = 1 << 7
"""The last trap into HS-mode came out of a guest."""
HSTATUS_SPVP = 1 << 8
"""The privilege of the last trap out of a guest, and of HLV, HLVX and HSV: VS, else VU."""
ENVCFG_ADUE = 1 << 61
"""menvcfg, henvcfg: hardware sets accessed and dirty (Svadu); else it faults (Svade)."""
ENVCFG_PBMTE = 1 << 62
"""menvcfg, henvcfg: PBMT of an entry counts (Svpbmt); else it is reserved."""


def mode_of(atp: int) -> int:
    """Return MODE of satp, vsatp or hgatp."""
    return atp >> MODE_SHIFT


def root_of(atp: int) -> int:
    """Return the address of the root table, in bytes; hgatp's is aligned to 16 KiB (:data:`HGATP_PPN`)."""
    return (atp & PPN) << PAGE_SHIFT


def asid_of(satp: int) -> int:
    """Return ASID of satp or vsatp."""
    return satp >> ASID_SHIFT & low_mask(ASID_BITS)


def vmid_of(hgatp: int) -> int:
    """Return VMID of hgatp."""
    return hgatp >> VMID_SHIFT & low_mask(VMID_BITS)


def satp(mode: int, asid: int, root: int) -> int:
    """Return the value of satp or vsatp for a root table at ``root``, in bytes."""
    return mode << MODE_SHIFT | asid << ASID_SHIFT | root >> PAGE_SHIFT


HGATP_PPN = PPN & ~0b11
"""The two lowest bits of hgatp.PPN are always zero where the root has 16 KiB."""


def hgatp(mode: int, vmid: int, root: int) -> int:
    """Return the value of hgatp for a root table at ``root``, in bytes, a multiple of 16 KiB."""
    return mode << MODE_SHIFT | vmid << VMID_SHIFT | root >> PAGE_SHIFT & HGATP_PPN


def legal_hgatp(value: int, old: int, modes: tuple[int, ...] = (BARE, *MODES)) -> int:
    """Return what hgatp reads as after ``value`` was written over ``old``: each field by itself, unlike satp.

    A MODE that is not supported leaves MODE as it was: any supported one would be legal.

    :param modes: what the implementation supports.
    """
    mode = mode_of(value) if mode_of(value) in modes else mode_of(old)
    return mode << MODE_SHIFT | vmid_of(value) << VMID_SHIFT | value & HGATP_PPN


@attrs.define
class Registers:
    """The registers of one hart that translation looks at, by the manual's names, and the mode that it is in."""

    satp: int = 0
    vsatp: int = 0
    hgatp: int = 0
    mstatus: int = 0
    """Its SUM and MXR are those of sstatus: HS-mode's, whether or not a guest runs."""
    vsstatus: int = 0
    hstatus: int = 0
    menvcfg: int = 0
    henvcfg: int = 0
    virtual: bool = True
    """V: a guest runs."""
    user: bool = False
    """U-mode or VU-mode, else HS-mode or VS-mode."""

    @classmethod
    def from_recorded(cls, registers: Mapping[str, int]) -> Registers:
        """Return registers by name; ``mstatus_mxr``, ``virtual`` and ``user`` are 0 or 1.

        :raises ValueError: for a name that there is not.
        """
        known = {field.name for field in attrs.fields(cls)} | {"mstatus_mxr"}
        unknown = sorted(registers.keys() - known)
        if unknown:
            message = f"{unknown[0]} is no register of a RISC-V hart"
            raise ValueError(message)
        made = cls()
        for name, value in registers.items():
            if name == "mstatus_mxr":
                made.mstatus |= STATUS_MXR if value else 0
            elif name == "mstatus":
                made.mstatus |= value
            else:
                setattr(made, name, bool(value) if name in {"virtual", "user"} else value)
        return made

    def enabled(self, *, stage_of_guest: bool) -> tuple[bool, bool]:
        """Return (ADUE, PBMTE) of a stage: menvcfg's for HS-mode's and the G-stage, of both for the VS-stage.

        henvcfg's are read-only zero where menvcfg's are zero.
        """
        bits = self.menvcfg & (self.henvcfg if stage_of_guest else -1)
        return bool(bits & ENVCFG_ADUE), bool(bits & ENVCFG_PBMTE)
