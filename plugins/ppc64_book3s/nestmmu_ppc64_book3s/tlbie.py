"""The operands of tlbie (Power ISA 3.0B, Book III, 5.9.3.3), as the instruction and as H_TLB_INVALIDATE have them."""

from __future__ import annotations

import attrs

RIC_TLB, RIC_PWC, RIC_ALL, RIC_RESERVED = 0, 1, 2, 3
IS_PAGE, IS_PID, IS_LPID, IS_ALL = 0, 1, 2, 3
AP_SHIFTS = {0: 12, 5: 16, 1: 21, 2: 30}
"""Log2 of the page size by AP; the other encodings are illegal."""
SHIFT_APS = {shift: ap for ap, shift in AP_SHIFTS.items()}


@attrs.frozen
class Tlbie:
    """One tlbie."""

    ric: int
    prs: int
    r: int
    scope: int
    """IS."""
    ap: int
    epn: int
    """The page's address without its low 12 bits, shifted down by 12."""
    lpid: int
    pid: int = 0

    @classmethod
    def decode(cls, instruction: int, rs: int, rb: int) -> Tlbie:
        """Return the operands in an instruction image and the values of its registers RS and RB."""
        return cls(
            ric=instruction >> 18 & 3,
            prs=instruction >> 17 & 1,
            r=instruction >> 16 & 1,
            scope=rb >> 10 & 3,
            ap=rb >> 5 & 7,
            epn=rb >> 12 & ((1 << 52) - 1),
            lpid=rs & 0xFFFFFFFF,
            pid=rs >> 32,
        )

    def encode(self) -> tuple[int, int, int]:
        """Return (instruction image, RS, RB)."""
        instruction = self.ric << 18 | self.prs << 17 | self.r << 16
        return instruction, self.pid << 32 | self.lpid, self.epn << 12 | self.scope << 10 | self.ap << 5

    @property
    def legal(self) -> bool:
        """Whether hardware takes the form (QEMU's ``helper_tlbie_isa300``)."""
        refused = (
            (self.ric == RIC_RESERVED and self.r == 1)
            or (self.ric in {RIC_PWC, RIC_ALL} and self.scope == IS_PAGE)
            or (self.prs == 0 and self.scope == IS_PID)
        )
        return not refused

    @property
    def page_shift(self) -> int | None:
        """Log2 of the page's bytes; None for an illegal AP."""
        return AP_SHIFTS.get(self.ap)


TLB_SETS = 128
"""Sets of POWER9's TLB where it translates by radix (``POWER9_TLB_SETS_RADIX``)."""


def flush_core() -> list[Tlbie]:
    """Return the tlbiel by which a core forgets the guest that it is in (``flush_guest_tlb``, radix).

    Each has its set where a page's address else is. A ptesync and the invalidation of the ERAT follow.
    """
    return [Tlbie(RIC_TLB if each else RIC_ALL, 1, 1, IS_LPID, 0, each, 0) for each in range(TLB_SETS)]
