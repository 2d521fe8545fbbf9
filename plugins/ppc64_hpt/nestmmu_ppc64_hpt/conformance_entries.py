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

ENTRY_BYTES = 16
BASE_PAGES = {12: 0x000, 16: 0x110, 24: 0x100, 34: 0x120}
"""L and LP of the SLB by log2 of a base page's bytes."""
PAGES = {(12, 12): (0, 0), (12, 16): (1, 0x07), (12, 24): (1, 0x38), (16, 16): (1, 0x01), (16, 24): (1, 0x08),
         (24, 24): (1, 0x00), (34, 34): (1, 0x03)}  # fmt: skip
"""L of doubleword 0, and penc, by log2 of the bytes of a base and of an actual page."""
MEMORY = 1 << 4
"""M of WIMG: what is memory."""
SLB_VALID = 1 << 27
_KS, _KP = 0x800, 0x400
_HASH_BITS = 39
_GROUP_BYTES, _GROUP_ENTRIES = 128, 8
_PP = ((1, 3, 1 << 63), (2, 1, 0))
"""pp0 and pp of what may be written, read, and neither, for key 0 and for key 1; the other key may something else."""
_RW = READ | WRITE
_BY_KEY = (
    {0: _RW, 1: _RW, 2: _RW, 3: READ, 1 << 63 | 2: READ},
    {0: 0, 1: READ, 2: _RW, 3: READ, 1 << 63 | 2: 0},
)
"""What pp0 and pp let key 0, and key 1, do; other values are reserved."""
_COMPARED = 0x000F_FFFF_FFFF_FF80 | 0b11
"""AVPN, H and V."""
_PP_BITS = 1 << 63 | 3
_NO_EXECUTE, _GUARDED = 1 << 2, 1 << 3
_REAL = (1 << 58) - 1
"""What of doubleword 1 is an address: the ISA reserves the highest bit, which KVM and QEMU read with the others."""


def page_of(word: int, shift: int, key: int = 0) -> Page:
    """Return what doubleword 1 says of a page of 2**``shift`` bytes, to a storage key; what is guarded is not run."""
    rights = _BY_KEY[key].get(word & _PP_BITS, 0)
    rights |= EXECUTE if rights and not word & (_NO_EXECUTE | _GUARDED) else 0
    return Page(word & _REAL & -(1 << shift), rights, bool(word >> 8 & 1), bool(word >> 7 & 1))


def _withheld(page_key: int) -> int:
    """Return what :data:`AUTHORITY` takes from pages of a key: nothing of 0, 15, 22 and 29."""
    which = page_key + (page_key >> 3) & 7
    return (WRITE if which & 1 else 0) | (READ if which & 2 else 0) | (EXECUTE if which & 4 else 0)


def _authority() -> tuple[int, int]:
    amr = iamr = 0
    for page_key in range(32):
        withheld = _withheld(page_key)
        amr |= (2 * bool(withheld & WRITE) + bool(withheld & READ)) << 62 - 2 * page_key
        iamr |= bool(withheld & EXECUTE) << 62 - 2 * page_key
    return amr, iamr


AUTHORITY = _authority()
"""AMR and IAMR by which nearly every key may do something else."""


@attrs.frozen
class Segment:
    """A segment at effective address 0.

    :param lg2: log2 of its bytes: 28 or 40.
    :param shift: log2 of its base page's bytes.
    :param key: the storage key of who accesses it in supervisor state.
    :param page_key: the virtual page class key of its entries.
    """

    lg2: int
    vsid: int
    shift: int
    key: int = 0
    page_key: int = 0

    @property
    def slb_entry(self) -> tuple[int, int]:
        """ESID doubleword, valid, and VSID doubleword; Kp is what Ks is not."""
        word = self.size << 62 | self.vsid << self.lg2 - 16 | BASE_PAGES[self.shift] | (_KS if self.key else _KP)
        return SLB_VALID, word

    @property
    def size(self) -> int:
        """B."""
        return int(self.lg2 == 40)  # noqa: PLR2004  (1 TiB)

    @property
    def folded(self) -> int:
        """What of the hash is the segment's."""
        return self.vsid ^ self.vsid << 25 if self.size else self.vsid

    @property
    def actual_shifts(self) -> tuple[int, ...]:
        """Log2 of the bytes of each actual page, the base page first, unless 4,096 entries have to lead to it."""
        return tuple(actual for base, actual in PAGES if base == self.shift and actual - base < 12)  # noqa: PLR2004  (2**12)

    def first(self, address: int, shift: int, *, secondary: bool = False) -> int:
        """Return doubleword 0 of the entry by which an address is found: AVPN without B, L, H, V.

        :param shift: log2 of the actual page's bytes.
        """
        page = (self.vsid << self.lg2 | address) >> self.shift << self.shift
        return page >> 23 << 7 & (1 << 52) - 1 | PAGES[self.shift, shift][0] << 2 | secondary << 1 | 1

    def second(
        self, target: int, shift: int, rights: int, *, accessed: bool = True, dirty: bool = True, cache: int = 0
    ) -> int:
        """Return doubleword 1 of the entry of an actual page: RPN, LP, B, R, C, WIMG, N, pp0 and pp."""
        writable, readable, nothing = _PP[self.key]
        word = target | PAGES[self.shift, shift][1] << 12 | self.size << 58 | accessed << 8 | dirty << 7 | cache
        word |= self.page_key >> 3 << 60 | (self.page_key & 7) << 9
        word |= writable if rights & WRITE else readable if rights & READ else nothing
        return word | (0 if rights & EXECUTE or not rights else _NO_EXECUTE)

    def actual(self, first: int, second: int) -> int | None:
        """Return log2 of the bytes of an entry's actual page; None where it is none of the segment's base page."""
        for (base, actual), (large, penc) in PAGES.items():
            below = (1 << actual) - (1 << 12)
            if base == self.shift and first >> 2 & 1 == large and (not large or second & below == penc << 12):
                return actual
        return None


@attrs.define
class Entries:
    """The entries of one segment in a table.

    :param load: returns the bytes at an address of the memory that holds the table; ``store`` writes them.
    :param order: log2 of the table's bytes.
    """

    load: Callable[[int, int], bytes]
    store: Callable[[int, bytes], None]
    base: int
    order: int
    segment: Segment

    def groups(self, address: int) -> tuple[int, int]:
        """Return the addresses of the primary and the secondary PTEG."""
        mask = (1 << self.order) // _GROUP_BYTES - 1
        hashed = (self.segment.folded ^ address >> self.segment.shift) & (1 << _HASH_BITS) - 1
        return self.base + (hashed & mask) * _GROUP_BYTES, self.base + (~hashed & mask) * _GROUP_BYTES

    def word(self, at: int) -> int:
        """Return a doubleword."""
        return int.from_bytes(self.load(at, 8), "big")

    def put(self, at: int, word: int) -> None:
        """Write a doubleword."""
        self.store(at, word.to_bytes(8, "big"))

    def places(self, address: int) -> list[int]:
        """Return the addresses of the entries that a search reads, in its order."""
        return [at for group in self.groups(address) for at in range(group, group + _GROUP_BYTES, ENTRY_BYTES)]

    def find(self, address: int) -> tuple[int, int] | None:
        """Return (where the first entry is that maps an address, log2 of the bytes of its actual page)."""
        segment = self.segment
        for number, at in enumerate(self.places(address)):
            first = self.word(at)
            wanted = segment.first(address, segment.shift, secondary=number >= _GROUP_ENTRIES)
            if first & _COMPARED == wanted & _COMPARED:
                second = self.word(at + 8)
                shift = segment.actual(first, second)
                if second >> 58 & 3 == segment.size and shift is not None:
                    return at, shift
        return None

    def allowed(self, address: int, access: Access) -> Reached | Refused:
        """Search, and refuse what the entry does not permit."""
        found = self.find(address)
        if found is None:
            return Refused(FaultKind.NOT_PRESENT)
        at, shift = found
        word = self.word(at + 8)
        page = page_of(word, shift, self.segment.key)
        rights = page.rights & ~_withheld(word >> 57 & 0x18 | word >> 9 & 7)
        if not rights & access:
            return Refused(FaultKind.PERMISSION)
        return Reached(page.target | address & (1 << shift) - 1, shift, rights, page.accessed, page.dirty)

    def map(
        self, address: int, target: int, shift: int, rights: int, *,
        accessed: bool = True, dirty: bool = True, cache: int = 0,
    ) -> None:  # fmt: skip
        """Write the entries of an actual page, one for each base page of it.

        :raises ValueError: if both PTEGs are full.
        """
        second = self.segment.second(target, shift, rights, accessed=accessed, dirty=dirty, cache=cache)
        for base in range(address, address + (1 << shift), 1 << self.segment.shift):
            self._put_entry(base, shift, second)

    def _put_entry(self, address: int, shift: int, second: int) -> None:
        """Write an entry: in the place that the page has, else in the first free one, primary PTEG first."""
        found = self.find(address)
        free = (at for at in self.places(address) if not self.word(at) & 1)
        at = next(free, None) if found is None else found[0]
        if at is None:
            message = f"both PTEGs of {address:#x} are full"
            raise ValueError(message)
        secondary = self.places(address).index(at) >= _GROUP_ENTRIES
        self.put(at, self.segment.first(address, shift, secondary=secondary))
        self.put(at + 8, second)

    def clear(self, address: int) -> None:
        """Take the entry by which an address is found away."""
        found = self.find(address)
        if found is not None:
            self.put(found[0], 0)

    def flags(self, address: int) -> tuple[bool, bool]:
        """Return R and C of the entry by which an address is found; nothing where there is none."""
        found = self.find(address)
        word = 0 if found is None else self.word(found[0] + 8)
        return bool(word >> 8 & 1), bool(word >> 7 & 1)

    def leaves(self) -> Iterator[tuple[int, int, Page]]:
        """Yield (address, shift, page) of every entry of the segment that is valid, the table read from end to end.

        The low bits of a small page's number are not in its entry: where it stands says them.

        :raises ValueError: for one of another segment or page size.
        """
        segment = self.segment
        table = np.frombuffer(self.load(self.base, 1 << self.order), ">u8").reshape(-1, 2)
        for number in np.flatnonzero(table[:, 0] & 1).tolist():
            first, second = table[number].tolist()
            group = number // _GROUP_ENTRIES ^ (-1 if first & 2 else 0)
            low = (group ^ segment.folded) << segment.shift & (1 << 23) - 1
            page = ((first & (1 << 52) - 1) >> 7 << 23 | low) >> segment.shift << segment.shift
            address, shift = page & (1 << segment.lg2) - 1, segment.actual(first, second)
            like = None if shift is None else segment.first(address, shift, secondary=bool(first & 2))
            if page >> segment.lg2 != segment.vsid or first != like or second >> 58 & 3 != segment.size:
                message = f"entry {number}, {first:#x} {second:#x}, is none of the segment of VSID {segment.vsid:#x}"
                raise ValueError(message)
            yield address, segment.shift if shift is None else shift, page_of(second, segment.shift, segment.key)


class ByEntries:
    """A table that the suite looks at by its :attr:`entries`."""

    entries: Entries

    def flags(self, address: int) -> tuple[bool, bool]:
        """Return R and C of the entry by which an address is found; nothing where there is none."""
        return self.entries.flags(address)

    def places(self, address: int) -> list[int]:
        """Return where the entries of both PTEGs stand."""
        return self.entries.places(address)

    def allowed(self, address: int, access: Access) -> Reached | Refused:
        """Search slowly, and refuse what the entry does not permit."""
        return self.entries.allowed(address, access)
