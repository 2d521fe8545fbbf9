"""Hash page-table entries: the format of ISA 3.0 in memory, the older one that software computes with, and the fields.

Source: Power ISA 3.0B, Book III, 5.7.9.1; Linux's ``hpte_old_to_new_v``, ``hpte_old_to_new_r`` and their inverses.
"""

from __future__ import annotations

from nestmmu_ppc64_hpt.hashing import (
    HPTE_V_AVPN,
    HPTE_V_B_SHIFT,
    HPTE_V_SECONDARY,
    HPTE_V_VALID,
)
from nestmmu_ppc64_hpt.pages import HPTE_R_RPN

V_BOLTED, V_LOCK = 0x10, 0x08
V_HVLOCK, V_ABSENT = 0x40, 0x20
"""KVM's own: being changed; the guest's entry is valid, and nothing is mapped."""
V_COMMON = 0x000FFFFFFFFFFFFF
"""The bits of doubleword 0 that both formats have."""
R_PP0 = 1 << 63
R_TS = 1 << 62
R_KEY_HI = 0x3000000000000000
R_KEY_LO = 0xE00
R_R, R_C, R_W, R_I, R_M, R_G, R_N, R_PP = 0x100, 0x080, 0x040, 0x020, 0x010, 0x008, 0x004, 0x003
R_WIMG = R_W | R_I | R_M | R_G
R_B_3_0 = 3 << 58
_B_SHIFT_3_0 = 58
_R_COMMON = ~R_B_3_0 & (1 << 64) - 1
_MATCH = HPTE_V_AVPN | 3 << HPTE_V_B_SHIFT | HPTE_V_SECONDARY | HPTE_V_VALID


def to_old(v: int, r: int) -> tuple[int, int]:
    """Return both doublewords in the older format: B at the top of the first."""
    return v & V_COMMON | (r & R_B_3_0) >> _B_SHIFT_3_0 << HPTE_V_B_SHIFT, r & _R_COMMON


def to_new(v: int, r: int) -> tuple[int, int]:
    """Return both doublewords in ISA 3.0's format: B in the second."""
    return v & V_COMMON, r & _R_COMMON | (v >> HPTE_V_B_SHIFT & 3) << _B_SHIFT_3_0


def matches(v: int, wanted: int) -> bool:
    """Tell whether B, AVPN, H and V of an entry (older format) are as wanted; L is not looked at here."""
    return not (v ^ wanted) & _MATCH


def key_of(r: int) -> int:
    """Return the storage key, 0 to 31."""
    return (r & R_KEY_HI) >> 57 | (r & R_KEY_LO) >> 9


def pp_of(r: int) -> int:
    """Return pp0 and pp as three bits."""
    return (r & R_PP0) >> 61 | r & R_PP


def real_page(r: int, actual_shift: int) -> int:
    """Return the first real address of the page, in bytes."""
    return r & HPTE_R_RPN & ~((1 << actual_shift) - 1)
