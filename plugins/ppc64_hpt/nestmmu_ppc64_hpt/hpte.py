"""The hash page table entry: ISA 3.0's, as POWER9 has it, and the older one (Power ISA 3.0B, Book III, 5.7.7).

Software, hypercalls among it, speaks the older format; the newer one has the segment size in doubleword 1. Here as
there, ``v`` is doubleword 0 and ``r`` is doubleword 1.
"""

from __future__ import annotations

import attrs

from nestmmu_ppc64_hpt.pages import HPTE_R_RPN, SHIFT_16M, page_pair

HPTE_BYTES = 16
GROUP_SLOTS = 8
"""Entries of a PTEG."""

V_VALID = 0x1
V_SECONDARY = 0x2
V_BOLTED = 0x10
"""Software's: what a change of the table's size must keep."""
V_ABSENT = 0x20
"""KVM's: valid for the guest, but not for hardware."""
V_LOCKED = 0x40
"""KVM's (``HPTE_V_HVLOCK``)."""
V_AVPN = 0x3FFFFFFFFFFFFF80
V_SSIZE = 0xC000000000000000
V_SSIZE_SHIFT = 62
V_COMMON = 0x000FFFFFFFFFFFFF
"""The bits of doubleword 0 that both formats have."""
V_NOT_AVPN = 0x7F

R_PP0 = 1 << 63
R_TS = 1 << 62
R_KEY_HI = 0x3000000000000000
R_SSIZE = 0x0C00000000000000
"""ISA 3.0: the segment size."""
R_SSIZE_SHIFT = 58
R_KEY_LO = 0xE00
R_KEY = R_KEY_HI | R_KEY_LO
R_R = 0x100
R_C = 0x080
R_RC = R_R | R_C
R_W, R_I, R_M, R_G = 0x40, 0x20, 0x10, 0x08
R_WIMG = R_W | R_I | R_M | R_G
R_N = 0x4
R_PP = 0x3
R_BYTE, C_BYTE = 14, 15
"""Offsets of the bytes of an entry by which hardware stores R, and C."""

SEGMENT_1T = 1
SEGMENT_SHIFTS = {0: 28, SEGMENT_1T: 40}
"""Log2 of a segment's bytes by B; the other two are reserved."""


@attrs.frozen
class HpteFormat:
    """How a table keeps its entries: what a search compares."""

    name: str
    v_compared: int
    r_compared: int
    v_kept: int
    """The bits of doubleword 0 in the older format that the format has room for, the segment size aside."""

    def stored(self, v: int, r: int) -> tuple[int, int]:
        """Return the doublewords in memory of an entry in the older format."""
        return (old_to_new_v(v), old_to_new_r(v, r)) if self.r_compared else (v, r)

    def loaded(self, v: int, r: int) -> tuple[int, int]:
        """Return an entry in the older format from its doublewords in memory."""
        return (new_to_old_v(v, r), new_to_old_r(r)) if self.r_compared else (v, r)


_H_V = V_SECONDARY | V_VALID
ISA_3_0 = HpteFormat("isa_3_0", V_AVPN & V_COMMON | _H_V, R_SSIZE, V_COMMON)
ISA_2 = HpteFormat("isa_2", V_SSIZE | V_AVPN | _H_V, 0, (1 << 64) - 1)


def old_to_new_v(v: int) -> int:
    """Return doubleword 0 in ISA 3.0's format (``hpte_old_to_new_v``)."""
    return v & V_COMMON


def old_to_new_r(v: int, r: int) -> int:
    """Return doubleword 1 in ISA 3.0's format, the segment size from doubleword 0 of the older one."""
    return r & ~R_SSIZE | v >> V_SSIZE_SHIFT << R_SSIZE_SHIFT


def new_to_old_v(v: int, r: int) -> int:
    """Return doubleword 0 in the older format."""
    return v & V_COMMON | (r & R_SSIZE) >> R_SSIZE_SHIFT << V_SSIZE_SHIFT


def new_to_old_r(r: int) -> int:
    """Return doubleword 1 in the older format."""
    return r & ~R_SSIZE


def key_of(r: int) -> int:
    """Return the virtual page class key, 0 to 31."""
    return (r & R_KEY_HI) >> 57 | (r & R_KEY_LO) >> 9


def key_bits(key: int) -> int:
    """Return a key, 0 to 31, in its places in doubleword 1."""
    return key << 57 & R_KEY_HI | key << 9 & R_KEY_LO


def real_page(r: int, page_shift: int) -> int:
    """Return the first byte of the page that an entry in the older format leads to."""
    return (r & HPTE_R_RPN) >> page_shift << page_shift


def segment_shift(v: int) -> int | None:
    """Return log2 of the segment's bytes of an entry in the older format; None for a reserved B."""
    return SEGMENT_SHIFTS.get(v >> V_SSIZE_SHIFT)


def malformation(v: int, r: int) -> str | None:
    """Return what is wrong with a valid entry in the older format, so that no access ever uses it; None if nothing is.

    Hardware never faults on such an entry: it matches nothing, and so is passed over.
    """
    if segment_shift(v) is None:
        return "segment size is reserved"
    pair = page_pair(v, r)
    if pair is None:
        return "no page size of POWER9 has this penc"
    base = pair[0]
    if base >= SHIFT_16M and (v & V_AVPN) << 16 & (1 << base) - 1:
        return "page number has bits within the base page"
    return None
