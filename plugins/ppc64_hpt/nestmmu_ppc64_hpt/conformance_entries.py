"""A hash table by raw words, from the ISA (3.0B, Book III, 5.7.8 and 5.7.9): no line of the plugin's own is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.testing.trees import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
_KEY_0 = {0: READ | WRITE, 1: READ | WRITE, 2: READ | WRITE, 3: READ, 1 << 63 | 2: READ}
"""What pp0 and pp let key 0 do; other values are reserved."""
_PP_BITS = 1 << 63 | 3
_NO_EXECUTE = 1 << 2
_REAL = (1 << 57) - 1


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


def page_of(word: int, shift: int) -> Page:
    """Return what doubleword 1 says of a page of 2**``shift`` bytes, to key 0."""
    rights = _KEY_0.get(word & _PP_BITS, 0)
    rights |= EXECUTE if rights and not word & _NO_EXECUTE else 0
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

    def _places(self, address: int) -> Iterator[tuple[int, bool]]:
        """Yield (address of an entry, whether that is in the secondary PTEG), in the order of a search."""
        for secondary, group in enumerate(self.groups(address)):
            for at in range(group, group + _GROUP_BYTES, ENTRY_BYTES):
                yield at, bool(secondary)

    def find(self, address: int) -> int | None:
        """Return where the entry of a page is."""
        for at, secondary in self._places(address):
            if self.word(at) == first_word(self.vsid, address, self.shift, secondary=secondary):
                return at
        return None

    def map(
        self, address: int, target: int, rights: int, *, accessed: bool = True, dirty: bool = True, cache: int = 0
    ) -> None:
        """Write an entry: in the place that the page has, else in the first free one, primary PTEG first.

        :raises ValueError: if both PTEGs are full.
        """
        second = second_word(
            target, self.number, rights, key=self.key, accessed=accessed, dirty=dirty, cache=cache
        )  # fmt: skip
        place = self.find(address)
        if place is None:
            free = next(((at, where) for at, where in self._places(address) if not self.word(at) & 1), None)
            if free is None:
                message = f"both PTEGs of {address:#x} are full"
                raise ValueError(message)
            place, secondary = free
            self.put(place, first_word(self.vsid, address, self.shift, secondary=secondary))
        self.put(place + 8, second)

    def clear(self, address: int) -> None:
        """Take the entry of a page away."""
        place = self.find(address)
        if place is not None:
            self.put(place, 0)

    def flags(self, address: int) -> tuple[bool, bool]:
        """Return R and C of a page's entry; nothing of a page that there is not."""
        place = self.find(address)
        word = 0 if place is None else self.word(place + 8)
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
