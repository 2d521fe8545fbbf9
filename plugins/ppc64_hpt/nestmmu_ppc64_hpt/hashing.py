"""Segments and hashing: from an effective address to its PTEGs, and back (Power ISA 3.0B, Book III, 5.7.7).

A virtual address is VSID and offset in the segment, ``vsid << segment_shift | offset``, of 78 bits.
"""

from __future__ import annotations

import functools

import attrs

from nestmmu_ppc64_hpt.hpte import (
    GROUP_SLOTS,
    SEGMENT_1T,
    SEGMENT_SHIFTS,
    V_AVPN,
    V_NOT_AVPN,
    V_SECONDARY,
    V_SSIZE_SHIFT,
    V_VALID,
    segment_shift,
)
from nestmmu_ppc64_hpt.pages import (
    BASE_SHIFTS,
    HPTE_V_LARGE,
    LLP,
    SHIFT_4K,
    SHIFT_16M,
    SHIFT_64K,
    SLB_LLP,
    page_pair,
)

SLB_KS, SLB_KP, SLB_N, SLB_C = 0x800, 0x400, 0x200, 0x80
SLB_B_SHIFT = 62
VSID_SHIFTS = {28: 12, 40: 24}
"""Where the VSID stands in the SLB's word, by log2 of the segment's bytes."""
VSID_LIMIT = 1 << 50
HASH_MASK = (1 << 39) - 1
AVPN_SHIFT = 16
"""What of a virtual address is below the AVPN, less the bits of doubleword 0 that are."""
AVPN_ADDRESS_SHIFT = 23
"""Log2 of the bytes that the AVPN tells apart."""
_HASH_1T_SHIFT = 25


@attrs.frozen(slots=True)
class Segment:
    """A segment as the SLB has it, with all that hashing takes from it."""

    word: int
    """VSID doubleword of the SLB entry."""
    shift: int
    """Log2 of its bytes: 28 or 40."""
    vsid: int
    base_shift: int
    """Log2 of its base page's bytes."""
    offset_mask: int
    hash_base: int
    avpn: int
    """Doubleword 0 of the HPTE of its first page, valid, in the older format, with neither L nor H."""

    @property
    def no_execute(self) -> bool:
        """N: nothing is fetched from it."""
        return bool(self.word & SLB_N)

    def key(self, *, problem: bool) -> bool:
        """Return the storage key: Kp in problem state, else Ks."""
        return bool(self.word & (SLB_KP if problem else SLB_KS))

    def hash(self, address: int) -> int:
        """Return the primary hash of an effective or virtual address, 39 bits."""
        return (self.hash_base ^ (address & self.offset_mask) >> self.base_shift) & HASH_MASK

    def match(self, address: int) -> int:
        """Return doubleword 0 that the HPTE of a base page has in the older format, valid, with neither L nor H."""
        page = (address & self.offset_mask) >> self.base_shift << self.base_shift
        return self.avpn | page >> AVPN_SHIFT & ~V_NOT_AVPN

    def virtual(self, address: int) -> int:
        """Return the virtual address of an effective address."""
        return self.vsid << self.shift | address & self.offset_mask


@functools.lru_cache(maxsize=4096)
def segment_of(word: int) -> Segment | None:
    """Return the segment of the SLB's VSID doubleword; None where B, or L and LP, are none of POWER9's."""
    size = word >> SLB_B_SHIFT
    shift, base_shift = SEGMENT_SHIFTS.get(size), BASE_SHIFTS.get(word & SLB_LLP)
    if shift is None or base_shift is None:
        return None
    at = VSID_SHIFTS[shift]
    vsid = (word & (1 << SLB_B_SHIFT) - 1) >> at
    hash_base = vsid ^ vsid << _HASH_1T_SHIFT if size == SEGMENT_1T else vsid
    return Segment(
        word, shift, vsid, base_shift, (1 << shift) - 1, hash_base, size << SLB_B_SHIFT | vsid << at | V_VALID
    )


def vsid_word(vsid: int, shift: int = 28, base_shift: int = SHIFT_4K, flags: int = 0) -> int:
    """Return the SLB's VSID doubleword of a segment of 2**``shift`` bytes.

    :param flags: Ks, Kp, N, C.
    :raises KeyError: for a size that there is not.
    """
    return (shift == SEGMENT_SHIFTS[SEGMENT_1T]) << SLB_B_SHIFT | vsid << VSID_SHIFTS[shift] | LLP[base_shift] | flags


@attrs.frozen(slots=True)
class VirtualPage:
    """The page that an HPTE maps, as its slot and its words tell."""

    vsid: int
    segment_shift: int
    base_shift: int
    page_shift: int
    """Log2 of the actual page's bytes."""
    offset: int
    """Of the page that the HPTE was hashed by, in the segment: a base page's first byte."""

    @property
    def address(self) -> int:
        """Virtual address of the actual page's first byte."""
        return self.vsid << self.segment_shift | self.offset >> self.page_shift << self.page_shift

    @property
    def segment(self) -> Segment:
        """Its segment, without keys."""
        found = segment_of(vsid_word(self.vsid, self.segment_shift, self.base_shift))
        if found is None:
            message = f"no segment of 2**{self.segment_shift} bytes with pages of 2**{self.base_shift}"
            raise ValueError(message)
        return found


def page_at(slot: int, v: int, r: int, group_mask: int) -> VirtualPage | None:
    """Return the page of an HPTE from where it stands (``resize_hpt_rehash_hpte``); None for one of no page size.

    The AVPN lacks the low bits of a small page's number: they are hashed into the slot's.

    :param slot: entry number in the table, 0 for its first.
    :param v: doubleword 0 in the older format.
    :param group_mask: PTEGs of the table, less 1.
    """
    shift, pair = segment_shift(v), page_pair(v, r)
    if shift is None or pair is None:
        return None
    base_shift, page_shift = pair
    number = (v & V_AVPN) << AVPN_SHIFT
    vsid, offset = number >> shift, number & (1 << shift) - 1
    offset = offset >> base_shift << base_shift
    if base_shift < AVPN_ADDRESS_SHIFT:
        group = slot // GROUP_SLOTS ^ (-1 if v & V_SECONDARY else 0)
        hash_base = vsid if shift == SEGMENT_SHIFTS[0] else vsid ^ vsid << _HASH_1T_SHIFT
        offset |= ((hash_base ^ group) & group_mask) << base_shift & (1 << AVPN_ADDRESS_SHIFT) - 1
    return VirtualPage(vsid, shift, base_shift, page_shift, offset)


def tlbie_rb(v: int, r: int, slot: int) -> int:
    """Return RB of the tlbie that invalidates an HPTE (``compute_tlbie_rb``).

    :param v: doubleword 0 in the older format.
    :param slot: entry number in the table: the virtual address' low bits are hashed into it.
    :raises ValueError: for a penc that POWER9 does not have.
    """
    pair = page_pair(v, r)
    if pair is None:
        message = f"HPTE {v:#x} {r:#x} has no page size of POWER9: no tlbie names it"
        raise ValueError(message)
    base_shift, page_shift = pair
    rb = (v & ~V_NOT_AVPN) << AVPN_SHIFT & (1 << 64) - 1
    low = slot // GROUP_SLOTS ^ (-1 if v & V_SECONDARY else 0)
    size = v >> V_SSIZE_SHIFT
    low = (low ^ v >> SEGMENT_SHIFTS.get(size, 40) - AVPN_SHIFT) & 0x7FF
    if base_shift == SHIFT_4K:
        if page_shift > SHIFT_4K:
            rb |= {SHIFT_64K: 5, SHIFT_16M: 4}[page_shift] << 5
        rb |= low << SHIFT_4K
    else:
        rb |= low << base_shift & 0x7FF000
        rb &= ~((1 << page_shift) - 1)
        rb |= low << base_shift - 12 & 0xFE
        rb |= 1
        rb |= r & 0xFF000 & (1 << page_shift) - 1
    return rb | size << 8


def group_of(hashed: int, group_mask: int, *, secondary: bool) -> int:
    """Return the number of a hash's primary or secondary PTEG."""
    return (~hashed if secondary else hashed) & group_mask


def make_v(segment: Segment, address: int, *, large: bool, secondary: bool = False) -> int:
    """Return doubleword 0, in the older format, of the HPTE that maps ``address``."""
    return segment.match(address) | (HPTE_V_LARGE if large else 0) | (V_SECONDARY if secondary else 0)


_KNOWN_BITS, _ADDRESS_BITS = 64, 78
"""Bits of a virtual address that RB of a tlbie has room for, and that there are."""


def tlbie_groups(rb: int, group_mask: int) -> set[int] | None:
    """Return the PTEGs in which an HPTE may stand that a tlbie names, primary and secondary.

    RB lacks the top of the virtual address: where that is hashed into the PTEG's number, there is more than one pair.

    :param group_mask: PTEGs of the table, less 1.
    :returns: None where the base page is smaller than the actual one, and L is set: RB does not tell which base page of
        it was hashed, so any PTEG may be meant.
    :raises ValueError: for a segment size or a page size that there is not.
    """
    shift = SEGMENT_SHIFTS.get(rb >> 8 & 3)
    pair = page_pair(HPTE_V_LARGE, rb & 0xFF000) if rb & 1 else (SHIFT_4K, SHIFT_4K)
    if shift is None or pair is None:
        message = f"tlbie with RB {rb:#x} names no page of POWER9"
        raise ValueError(message)
    base_shift, page_shift = pair
    if base_shift != page_shift:
        return None
    known = rb >> page_shift << page_shift
    tops = range(1 << _ADDRESS_BITS - _KNOWN_BITS) if group_mask >> _KNOWN_BITS - shift else range(1)
    found = set()
    for top in tops:
        address = top << _KNOWN_BITS | known
        vsid, offset = address >> shift, address & (1 << shift) - 1
        hashed = vsid ^ (vsid << _HASH_1T_SHIFT if shift == SEGMENT_SHIFTS[SEGMENT_1T] else 0) ^ offset >> base_shift
        found |= {hashed & group_mask, ~hashed & group_mask}
    return found
