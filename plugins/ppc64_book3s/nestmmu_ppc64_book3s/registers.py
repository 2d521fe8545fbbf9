"""The registers of a POWER9 CPU that address translation reads (Power ISA 3.0B, Book III, 5.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

MSR_SF = 1 << 63
MSR_HV = 1 << 60
MSR_EE = 0x8000
MSR_PR = 0x4000
MSR_ME = 0x1000
MSR_IR = 0x20
MSR_DR = 0x10

LPCR_GTSE = 1 << 10
LPCR_HR = 1 << 20
LPCR_UPRT = 1 << 22

LPIDR_LIMIT = 1 << 12
PIDR_LIMIT = 1 << 20

KEY0_NO_WRITE = 1 << 63
"""AMR: the bit of key 0 that denies stores."""
KEY0_NO_READ = 1 << 62
"""AMR: the bit of key 0 that denies loads; IAMR: the one that denies fetches."""


@attrs.define
class Registers:
    """A CPU's registers, by their names in the manual; each is 64 bits wide."""

    msr: int = MSR_SF
    lpcr: int = LPCR_HR | LPCR_UPRT
    lpidr: int = 0
    pidr: int = 0
    ptcr: int = 0
    amr: int = 0
    iamr: int = 0
    hrmor: int = 0

    @classmethod
    def from_recorded(cls, values: Mapping[str, int]) -> Registers:
        """Return the registers that a mapping names; ``pid`` is accepted for ``pidr``.

        :raises ValueError: naming a register that this model does not have.
        """
        known = {("pidr" if name == "pid" else name): value for name, value in values.items()}
        unknown = set(known) - {field.name for field in attrs.fields(cls)}
        if unknown:
            message = f"unknown register {min(unknown)}"
            raise ValueError(message)
        return cls(**known)


def returned_to(msr: int) -> int:
    """Return the MSR that a CPU has after a return-from-interrupt with ``msr``.

    MSR[PR] implies external interrupts and both relocation bits (3.3.1, rfid and hrfid).
    """
    return msr | MSR_EE | MSR_IR | MSR_DR if msr & MSR_PR else msr


def machine_state(*, hv: bool, pr: bool, real: bool, fetch: bool) -> int:
    """Return the MSR of a recorded access; the instruction of a load or store is fetched without relocation."""
    msr = MSR_SF | (MSR_HV if hv else 0) | (MSR_PR if pr else 0)
    if not real:
        msr |= MSR_DR | (MSR_IR if fetch else 0)
    return returned_to(msr)
