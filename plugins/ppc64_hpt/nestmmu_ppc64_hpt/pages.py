"""Page sizes of a hash guest: what SLB and HPTE say of the base and the actual page (Power ISA 3.0B, Book III, 5.7.7).

An actual page may be larger than the base page by which it is hashed; not every pair exists, and each that does has one
encoding (``penc``) in the low bits of the HPTE's page number.
"""

from __future__ import annotations

SLB_L = 0x100
SLB_LP = 0x030
SLB_LLP = SLB_L | SLB_LP
HPTE_V_LARGE = 0x4
HPTE_R_RPN = 0x0FFFFFFFFFFFF000
"""The page number of doubleword 1 without the segment size; the low bits of a large page's are its penc."""
RPN_SHIFT = 12

SHIFT_4K, SHIFT_64K, SHIFT_16M, SHIFT_16G = 12, 16, 24, 34

BASE_SHIFTS = {0x000: SHIFT_4K, 0x110: SHIFT_64K, 0x100: SHIFT_16M, 0x120: SHIFT_16G}
"""Log2 of the base page by L and LP of the SLB's VSID word; any other pair is no page size that POWER9 has."""
LLP = {shift: llp for llp, shift in BASE_SHIFTS.items()}
"""L and LP by log2 of the base page."""

PENC = {
    (SHIFT_4K, SHIFT_64K): 0x07,
    (SHIFT_4K, SHIFT_16M): 0x38,
    (SHIFT_64K, SHIFT_64K): 0x01,
    (SHIFT_64K, SHIFT_16M): 0x08,
    (SHIFT_16M, SHIFT_16M): 0x00,
    (SHIFT_16G, SHIFT_16G): 0x03,
}
"""The encoding of each pair of base and actual page with L = 1; 4 KiB in 4 KiB is L = 0."""
BY_BASE = {
    base: [
        (actual, (1 << actual) - 1 & HPTE_R_RPN, penc << RPN_SHIFT) for (of, actual), penc in PENC.items() if of == base
    ]
    for base in LLP
}
"""By base page, what each actual page's encoding looks like in doubleword 1: (log2 of its bytes, mask, value)."""
_BY_LP = {penc: pair for pair, penc in PENC.items()} | {
    high << 4 | penc: pair for pair, penc in PENC.items() for high in range(16) if pair[1] == SHIFT_64K
}
"""Pairs by bits 19:12 of doubleword 1: a 64 KiB page has its penc in four bits, and four of its address above."""


def actual_shift(base_shift: int, v: int, r: int) -> int | None:
    """Return log2 of the actual page of an HPTE, met in a segment of a base page; None if it is none of that base page.

    :param v: doubleword 0, for its L.
    :param r: doubleword 1 without the segment size, for its penc.
    """
    if not v & HPTE_V_LARGE:
        return SHIFT_4K if base_shift == SHIFT_4K else None
    for actual, mask, encoding in BY_BASE[base_shift]:
        if r & mask == encoding:
            return actual
    return None


def page_pair(v: int, r: int) -> tuple[int, int] | None:
    """Return log2 of (base, actual) page as an HPTE says them by itself; None for no penc of POWER9.

    The kernel's ``kvmppc_hpte_page_shifts``, which looks at eight bits whatever the size.
    """
    return _BY_LP.get(r >> RPN_SHIFT & 0xFF) if v & HPTE_V_LARGE else (SHIFT_4K, SHIFT_4K)


def lp_bits(base_shift: int, actual_shift: int) -> tuple[int, int]:
    """Return (L of doubleword 0, penc in place in doubleword 1) of a pair.

    :raises KeyError: for a pair that there is not.
    """
    if (base_shift, actual_shift) == (SHIFT_4K, SHIFT_4K):
        return 0, 0
    return HPTE_V_LARGE, PENC[base_shift, actual_shift] << RPN_SHIFT
