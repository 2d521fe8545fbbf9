"""A hash table by raw words, from the ISA (3.0B, Book III, 5.7.8 and 5.7.9): no line of the plugin's own is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.faults import FaultKind
from nestmmu.testing.ends import Reached, Refused
from nestmmu.testing.trees import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nestmmu.access import Access

SEGMENT_LG2 = 40
ENTRY_BYTES = 16
PAGES = ((12, 0x000, 0), (16, 0x110, 0x1), (24, 0x100, 0x0), (34, 0x120, 0x3))
"""Log2 of a base page's bytes, its L and LP in the SLB, and the penc of an actual page as large."""
MEMORY = 1 << 4
"""M of WIMG: what is memory."""
_HASH_BITS = 39
_GROUP_BYTES = 128
_PP = ((1, 3, 1 << 63), (2, 1, 0))
"""pp0 and pp of what may be written, read, and neither, for key 0 and for key 1; the other key may something else."""
_RW = READ | WRITE
_BY_KEY = (
    {0: _RW, 1: _RW, 2: _RW, 3: READ, 1 << 63 | 2: READ},
    {0: 0, 1: READ, 2: _RW, 3: READ, 1 << 63 | 2: 0},
)
"""What pp0 and pp let key 0, and key 1, do; other values are reserved."""
_ACTUAL = ((12, 12, 0, 0), (12, 16, 1, 0x07), (12, 24, 1, 0x38), (16, 16, 1, 0x01), (16, 24, 1, 0x08),
           (24, 24, 1, 0x00), (34, 34, 1, 0x03))  # fmt: skip
"""Log2 of a base page's bytes and of an actual page's, and how an entry says so: L, penc."""
_COMPARED = 0x000F_FFFF_FFFF_FF80 | 0b11
"""AVPN, H and V."""
_PP_BITS = 1 << 63 | 3
_NO_EXECUTE, _GUARDED = 1 << 2, 1 << 3
_REAL = (1 << 58) - 1
"""What of doubleword 1 is an address: the ISA reserves the highest bit, which KVM and QEMU read with the others."""


def first_word(vsid: int, address: int, base_shift: int, *, secondary: bool = False) -> int:
    """Return doubleword 0 of the entry of a page: AVPN without B, L, H, V."""
    page = (vsid << SEGMENT_LG2 | address) >> base_shift << base_shift
    large = base_shift > 12  # noqa: PLR2004  (4 KiB)
    return page >> 23 << 7 & (1 << 52) - 1 | large << 2 | secondary << 1 | 1


def second_word(
    target: int, number: int, rights: int, *, key: int = 0, accessed: bool = True, dirty: bool = True, cache: int = 0
) -> int:
    """Return doubleword 1 of the entry of a page: RPN, LP, B of 1 TiB, R, C, WIMG, N, pp0 and pp.

    :param number: which base page: an index in :data:`PAGES`.
    """
    writable, readable, nothing = _PP[key]
    word = target | PAGES[number][2] << 12 | 1 << 58 | accessed << 8 | dirty << 7 | cache
    word |= writable if rights & WRITE else readable if rights & READ else nothing
    return word | (0 if rights & EXECUTE or not rights else _NO_EXECUTE)


def page_of(word: int, shift: int, key: int = 0) -> Page:
    """Return what doubleword 1 says of a page of 2**``shift`` bytes, to a storage key; what is guarded is not run."""
    rights = _BY_KEY[key].get(word & _PP_BITS, 0)
    rights |= EXECUTE if rights and not word & (_NO_EXECUTE | _GUARDED) else 0
    return Page(word & _REAL & -(1 << shift), rights, bool(word >> 8 & 1), bool(word >> 7 & 1))


@attrs.define
class Entries:
    """The entries of one segment of 1 TiB in a table.

    :param load: returns the bytes at an address of the memory that holds the table; ``store`` writes them.
    :param number: which base page: an index in :data:`PAGES`.
    """

    load: Callable[[int, int], bytes]
    store: Callable[[int, bytes], None]
    base: int
    order: int
    vsid: int
    number: int
    key: int = 0

    @property
    def shift(self) -> int:
        """Log2 of a page's bytes."""
        return PAGES[self.number][0]

    @property
    def _mask(self) -> int:
        return (1 << self.order) // _GROUP_BYTES - 1

    @property
    def _folded(self) -> int:
        """What of the hash is the segment's."""
        return self.vsid ^ self.vsid << 25

    def groups(self, address: int) -> tuple[int, int]:
        """Return the addresses of the primary and the secondary PTEG."""
        hashed = (self._folded ^ address >> self.shift) & (1 << _HASH_BITS) - 1
        return (
            self.base + (hashed & self._mask) * _GROUP_BYTES,
            self.base + (~hashed & self._mask) * _GROUP_BYTES,
        )

    def word(self, at: int) -> int:
        """Return a doubleword."""
        return int.from_bytes(self.load(at, 8), "big")

    def put(self, at: int, word: int) -> None:
        """Write a doubleword."""
        self.store(at, word.to_bytes(8, "big"))

    def places(self, address: int) -> list[int]:
        """Return the addresses of the entries that a search reads, in its order."""
        return [
            at for group in self.groups(address) for at in range(group, group + _GROUP_BYTES, ENTRY_BYTES)
        ]  # fmt: skip

    def find(self, address: int) -> tuple[int, int] | None:
        """Return (where the first entry is that maps an address, log2 of the bytes of its actual page)."""
        for number, at in enumerate(self.places(address)):
            first = self.word(at)
            wanted = first_word(self.vsid, address, self.shift, secondary=number >= _GROUP_BYTES // ENTRY_BYTES)
            if first & _COMPARED == wanted & _COMPARED:
                second = self.word(at + 8)
                shift = self._actual(first, second)
                if second >> 58 & 3 == 1 and shift is not None:
                    return at, shift
        return None

    def _actual(self, first: int, second: int) -> int | None:
        """Return log2 of the bytes of an entry's actual page; None where it is none of the segment's base page."""
        for base, actual, large, penc in _ACTUAL:
            below = (1 << actual) - (1 << 12)
            if base == self.shift and first >> 2 & 1 == large and (not large or second & below == penc << 12):
                return actual
        return None

    def allowed(self, address: int, access: Access) -> Reached | Refused:
        """Search, and refuse what the entry does not permit."""
        found = self.find(address)
        if found is None:
            return Refused(FaultKind.NOT_PRESENT)
        at, shift = found
        page = page_of(self.word(at + 8), shift, self.key)
        if not page.rights & access:
            return Refused(FaultKind.PERMISSION)
        return Reached(page.target | address & (1 << shift) - 1, shift, page.rights, page.accessed, page.dirty)

    def map(
        self, address: int, target: int, rights: int, *, accessed: bool = True, dirty: bool = True, cache: int = 0
    ) -> None:
        """Write an entry: in the place that the page has, else in the first free one, primary PTEG first.

        :raises ValueError: if both PTEGs are full.
        """
        second = second_word(
            target, self.number, rights, key=self.key, accessed=accessed, dirty=dirty, cache=cache
        )  # fmt: skip
        found = self.find(address)
        if found is not None:
            self.put(found[0] + 8, second)
            return
        for number, at in enumerate(self.places(address)):
            if not self.word(at) & 1:
                secondary = number >= _GROUP_BYTES // ENTRY_BYTES
                self.put(at, first_word(self.vsid, address, self.shift, secondary=secondary))
                self.put(at + 8, second)
                return
        message = f"both PTEGs of {address:#x} are full"
        raise ValueError(message)

    def clear(self, address: int) -> None:
        """Take the entry of a page away."""
        found = self.find(address)
        if found is not None:
            self.put(found[0], 0)

    def flags(self, address: int) -> tuple[bool, bool]:
        """Return R and C of a page's entry; nothing of a page that there is not."""
        found = self.find(address)
        word = 0 if found is None else self.word(found[0] + 8)
        return bool(word >> 8 & 1), bool(word >> 7 & 1)

    def leaves(self) -> Iterator[tuple[int, int, Page]]:
        """Yield (address, shift, page) of every entry of the segment that is valid, the table read from end to end.

        The low bits of a small page's number are not in its entry: where it stands says them.

        :raises ValueError: for one of another segment or page size.
        """
        table = np.frombuffer(self.load(self.base, 1 << self.order), ">u8").reshape(-1, 2)
        for number in np.flatnonzero(table[:, 0] & 1).tolist():
            at, (first, second) = number * ENTRY_BYTES, table[number].tolist()
            group = at // _GROUP_BYTES ^ (-1 if first & 2 else 0)
            page = (first & (1 << 52) - 1) >> 7 << 23 | (((group ^ self._folded) << self.shift) & (1 << 23) - 1)
            page = page >> self.shift << self.shift
            like = first_word(self.vsid, page & (1 << SEGMENT_LG2) - 1, self.shift, secondary=bool(first & 2))
            if page >> SEGMENT_LG2 != self.vsid or first != like or second >> 58 & 3 != 1:
                message = f"the entry at {self.base + at:#x}, {first:#x} {second:#x}, is none of segment {self.vsid:#x}"
                raise ValueError(message)
            yield page & (1 << SEGMENT_LG2) - 1, self.shift, page_of(second, self.shift)
