"""Exceptions of address translation, and the registers that they write (hypervisor extension, "Traps")."""

from __future__ import annotations

import attrs

from nestmmu.access import Access
from nestmmu.faults import Fault, FaultKind

ACCESS_FAULT = {Access.FETCH: 1, Access.LOAD: 5, Access.STORE: 7}
PAGE_FAULT = {Access.FETCH: 12, Access.LOAD: 13, Access.STORE: 15}
GUEST_PAGE_FAULT = {Access.FETCH: 20, Access.LOAD: 21, Access.STORE: 23}
"""Exception codes by the access that the program made, whatever was tried on the table at fault."""
_KINDS = (
    (ACCESS_FAULT, "access fault"),
    (PAGE_FAULT, "page fault"),
    (GUEST_PAGE_FAULT, "guest-page fault"),
)
NAMES = {cause: f"{access.label} {what}" for codes, what in _KINDS for access, cause in codes.items()}
ACCESSES = {cause: access for codes, _ in _KINDS for access, cause in codes.items()}
PSEUDO_READ, PSEUDO_WRITE = 0x3000, 0x3020
"""htinst and mtinst of a guest-page fault on an implicit access: a VS-stage entry of 64 bits was read, or written."""
HTVAL_SHIFT = 2
"""htval and mtval2 have the guest physical address shifted right by this."""

S_STAGE, VS_STAGE, G_STAGE = "S-stage", "VS-stage", "G-stage"


@attrs.frozen
class Trap:
    """One exception, with what it writes, whichever mode it is taken into."""

    cause: int
    tval: int
    """The virtual address of the access, in bytes."""
    tval2: int = 0
    """The guest physical address of a guest-page fault, shifted right by 2; else 0."""
    tinst: int = 0
    """A pseudo-instruction of a guest-page fault on an implicit access; else 0: no instruction is transformed."""
    gva: bool = True
    """Whether ``tval`` is a guest's virtual address."""
    user: bool = False
    """Whether the access had the privilege of U-mode or VU-mode."""

    @property
    def name(self) -> str:
        """The manual's name of the cause."""
        return NAMES[self.cause]

    @property
    def access(self) -> Access:
        """What the program did."""
        return ACCESSES[self.cause]

    def written(self, mode: str) -> dict[str, int]:
        """Return the registers that the trap writes.

        :param mode: what it is taken into: ``m``, ``hs`` or ``vs``, which has no register for a guest's address.
        """
        if mode == "m":
            return {
                "mcause": self.cause, "mtval": self.tval, "mtval2": self.tval2, "mtinst": self.tinst,
                "gva": int(self.gva),
            }  # fmt: skip
        if mode == "hs":
            return {
                "scause": self.cause, "stval": self.tval, "htval": self.tval2, "htinst": self.tinst,
                "gva": int(self.gva),
            }  # fmt: skip
        return {"vscause": self.cause, "vstval": self.tval}


def trap_of(fault: Fault, access: Access, address: int, *, virtual: bool, user: bool) -> Trap:
    """Return the exception that a fault is: its code is that of the program's access, at its address.

    :param virtual: whether the access was a guest's, or made as one (HLV, HLVX, HSV).
    """
    if fault.kind is FaultKind.UNREADABLE:
        return Trap(ACCESS_FAULT[access], address, gva=virtual, user=user)
    if fault.stage != G_STAGE:
        return Trap(PAGE_FAULT[access], address, gva=virtual, user=user)
    tinst = 0
    if fault.implicit:
        tinst = PSEUDO_WRITE if fault.access is Access.STORE else PSEUDO_READ
    return Trap(GUEST_PAGE_FAULT[access], address, fault.input_address >> HTVAL_SHIFT, tinst, gva=virtual, user=user)
