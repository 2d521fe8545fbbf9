"""Where the entry of a virtual page is looked for: hashes, PTEGs, and the tlbie of an entry (5.7.9.2, 5.9.3.3)."""

from __future__ import annotations

from typing import NamedTuple

from nestmmu_ppc64_hpt.pages import HPTE_R_RPN, HPTE_V_LARGE, SHIFT_4K, SHIFT_16M, SHIFT_64K, page_pair

SEGMENT_256M, SEGMENT_1T = 28, 40
"""Log2 of a segment's bytes."""
HASH_MASK = 0x7FFFFFFFFF
HPTE_V_1T = 1 << 62
HPTE_V_B_SHIFT = 62
HPTE_V_AVPN = 0x3FFFFFFFFFFFFF80
HPTE_V_SECONDARY = 0x2
HPTE_V_VALID = 0x1
PTEG_SHIFT = 7
GROUP = 8
"""HPTEs in a PTEG."""
HPTE_BYTES = 16
SMALLEST_ORDER, LARGEST_ORDER = 18, 46
_AVPN_LOW = 23
"""AVPN leaves out the low bits of the virtual page number that the hash tells."""


class VirtualPage(NamedTuple):
    """A virtual address and the segment that it lies in."""

    vsid: int
    offset: int
    """In the segment, in bytes."""
    segment_shift: int
    base_shift: int
    """Log2 of the base page by which it is hashed."""

    @property
    def hash(self) -> int:
        """The primary hash."""
        return page_hash(self.vsid, self.offset, self.segment_shift, self.base_shift)

    @property
    def avpn_word(self) -> int:
        """B and AVPN as in doubleword 0 of the older format; the bits that a large base page covers are zero."""
        return avpn_word(self.vsid, self.offset, self.segment_shift, self.base_shift)


def page_hash(vsid: int, offset: int, segment_shift: int, base_shift: int) -> int:
    """Return the primary hash of a virtual page."""
    value = vsid ^ offset >> base_shift
    return (value ^ vsid << 25 if segment_shift == SEGMENT_1T else value) & HASH_MASK


def avpn_word(vsid: int, offset: int, segment_shift: int, base_shift: int) -> int:
    """Return B and AVPN of a virtual page, in place."""
    page = vsid << segment_shift | offset >> base_shift << base_shift
    b = HPTE_V_1T if segment_shift == SEGMENT_1T else 0
    return b | page >> _AVPN_LOW << 7 & HPTE_V_AVPN


def groups(hash_: int, mask: int) -> tuple[int, int]:
    """Return the indices of the first slots of the primary and the secondary PTEG.

    :param mask: number of PTEGs - 1.
    """
    return (hash_ & mask) * GROUP, (~hash_ & mask) * GROUP


def group_mask(order: int) -> int:
    """Return the number of PTEGs - 1 of a table of 2**``order`` bytes."""
    return (1 << order - PTEG_SHIFT) - 1


_AP = {SHIFT_4K: 0, SHIFT_64K: 5, SHIFT_16M: 4}


def tlbie_rb(v: int, r: int, index: int) -> int:
    """Return RB of the tlbie of an HPTE (``compute_tlbie_rb``): the same for a primary and a secondary place.

    :param v: doubleword 0 in the older format.
    :param index: the HPTE's slot, from 0.
    """
    base, actual = page_pair(v, r) or (SHIFT_4K, SHIFT_4K)
    rb = (v & ~0x7F) << 16 & (1 << 64) - 1
    low = index >> 3
    if v & HPTE_V_SECONDARY:
        low = ~low
    low = (low ^ v >> ((SEGMENT_1T if v & HPTE_V_1T else SEGMENT_256M) - 16)) & 0x7FF
    if not v & HPTE_V_LARGE or base == SHIFT_4K:
        rb |= (low & 0x7FF) << SHIFT_4K | _AP[actual] << 5
    else:
        aval_shift = 64 - (77 - base) + 1
        rb |= (low << base) & 0x7FF000
        rb &= ~((1 << actual) - 1)
        rb |= (low << aval_shift) & 0xFE
        rb |= 1
        rb |= r & 0xFF000 & (1 << actual) - 1 & HPTE_R_RPN
    return rb | (v >> HPTE_V_B_SHIFT & 3) << 8
