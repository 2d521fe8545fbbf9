"""A whole address space as sorted arrays: which ranges lead where, and what may be done there.

All addresses and lengths are bytes. Arithmetic on whole spaces (:mod:`nestmmu.extent_algebra`) is vectorised: the table
of a guest's guest composed with the host's table for the guest is the ideal shadow table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from nestmmu.access import permission_text
from nestmmu.addresses import low_mask
from nestmmu.arrays import integer_array
from nestmmu.errors import InputError
from nestmmu.mappings import Mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

ACCESSED, DIRTY = 1, 2
ATTRIBUTE_SHIFT = 2
"""In flags, the entry's attribute bits stand from here on, side by side, lowest first."""
COLUMNS: dict[str, np.dtype[Any]] = {
    "start": np.dtype(np.uint64),
    "length": np.dtype(np.uint64),
    "target": np.dtype(np.uint64),
    "permissions": np.dtype(np.uint8),
    "flags": np.dtype(np.uint16),
    "page_shift": np.dtype(np.uint8),
}
"""The arrays of :class:`Extents`, and their dtypes."""
_ONE = np.uint64(1)
_MOST_SHIFT = 63


def column(name: str, values: Any, where: object = "extents") -> NDArray[Any]:  # noqa: ANN401  (anything array-like)
    """Return values as a column of :class:`Extents`.

    :raises InputError: naming ``where`` and the column, if they are not whole numbers that it holds.
    """
    dtype = COLUMNS[name]
    return np.ascontiguousarray(integer_array(values, int(np.iinfo(dtype).max), where, name), dtype)


@attrs.frozen(eq=False)
class Extents:
    """Ranges of addresses, sorted, none overlapping another, each mapped in one piece.

    Made by :meth:`make` from arrays that nobody has checked, by :func:`nestmmu.extract.extract` from a table.
    """

    start: NDArray[np.uint64]
    """First addresses, rising."""
    length: NDArray[np.uint64]
    """Bytes, none 0."""
    target: NDArray[np.uint64]
    """Where the first address leads."""
    permissions: NDArray[np.uint8]
    """Sums of :mod:`nestmmu.access` permissions."""
    flags: NDArray[np.uint16]
    """ACCESSED, DIRTY, and attribute bits."""
    page_shift: NDArray[np.uint8]
    """Log2 of the bytes of the pages that an extent consists of, or is part of."""

    @classmethod
    def make(
        cls,
        start: Any,  # noqa: ANN401  (anything array-like, here and below)
        length: Any,  # noqa: ANN401
        target: Any,  # noqa: ANN401
        permissions: Any,  # noqa: ANN401
        flags: Any = None,  # noqa: ANN401
        page_shift: Any = None,  # noqa: ANN401
        *,
        where: object = "extents",
    ) -> Extents:
        """Return checked extents.

        :param flags: all 0 where absent.
        :param page_shift: where absent, that of the largest aligned page that would fit into each extent.
        :param where: what an error is to name: the file that the arrays come from.
        :raises InputError: if a column is not of whole numbers, or the extents are empty, overlap, are out of order,
            or end beyond 2^64.
        """
        start, length = column("start", start, where), column("length", length, where)
        target = column("target", target, where)
        flags = column("flags", np.zeros(len(start), np.uint16) if flags is None else flags, where)
        fitting = _largest_pages(start, length, target) if page_shift is None and len(length) == len(start) else ()
        page_shift = column("page_shift", fitting if page_shift is None else page_shift, where)
        found = cls(start, length, target, column("permissions", permissions, where), flags, page_shift)
        found.check(where)
        return found

    @classmethod
    def empty(cls) -> Extents:
        """Return a space where nothing is mapped."""
        return cls(*(np.zeros(0, dtype) for dtype in COLUMNS.values()))

    @classmethod
    def from_mappings(cls, mappings: Iterable[Mapping]) -> Extents:
        """Return leaves as extents, sorted; their attributes are left out.

        :raises InputError: if they overlap.
        """
        leaves = sorted(mappings, key=lambda leaf: leaf.page_start)
        return cls.make(
            np.array([leaf.page_start for leaf in leaves], np.uint64),
            np.array([1 << leaf.page_shift for leaf in leaves], np.uint64),
            np.array([leaf.target_start for leaf in leaves], np.uint64),
            np.array([leaf.permissions for leaf in leaves], np.uint8),
            np.array([leaf.accessed * ACCESSED | leaf.dirty * DIRTY for leaf in leaves], np.uint16),
            np.array([leaf.page_shift for leaf in leaves], np.uint8),
        )

    def check(self, where: object = "extents") -> None:
        """Check what holds of all extents.

        :raises InputError: naming ``where``, the column and the first extent at fault.
        """
        for name in COLUMNS:
            if len(getattr(self, name)) != len(self.start):
                problem = f"has {len(getattr(self, name))} values where start has {len(self.start)}"
                raise InputError(where, name, problem, "give columns of one length")
        last = self.last
        problems = (
            ("length", self.length == 0, "is empty", "leave it out"),
            ("length", last < self.start, "ends beyond 2^64", "cut it"),
            ("target", self.target + (self.length - _ONE) < self.target, "leads beyond 2^64", "cut it"),
            ("page_shift", self.page_shift > _MOST_SHIFT, "has pages of 2^64 bytes or more", "give log2 of bytes"),
            ("permissions", self.permissions > 7, "has bits that are no permission", "add 4, 2 and 1 for r, w, x"),  # noqa: PLR2004
        )  # fmt: skip
        for name, wrong, what, remedy in problems:
            if wrong.any():
                index = int(np.argmax(wrong))
                raise InputError(where, f"{name}[{index}]", f"the extent at {int(self.start[index]):#x} {what}", remedy)
        wrong = self.start[1:] <= last[:-1]
        if wrong.any():
            index = int(np.argmax(wrong))
            text = f"{int(self.start[index + 1]):#x} comes after {int(self.start[index]):#x}..{int(last[index]):#x}"
            remedy = "sort them by start, and let none overlap another"
            raise InputError(where, f"start[{index + 1}]", f"the extent at {text}", remedy)

    def __len__(self) -> int:
        """Return how many extents there are."""
        return len(self.start)

    @property
    def last(self) -> NDArray[np.uint64]:
        """The last address of each."""
        return self.start + (self.length - _ONE)

    @property
    def bytes_mapped(self) -> int:
        """How many bytes are mapped."""
        return int(self.length.sum(dtype=object)) if len(self) else 0

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    def take(self, chosen: NDArray[Any] | slice) -> Extents:
        """Return some of the extents, by a mask or by rising indices."""
        return Extents(*(getattr(self, name)[chosen] for name in COLUMNS))

    def equal(self, other: Extents) -> bool:
        """Tell whether both have the same extents, cut alike."""
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in COLUMNS)

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return which extent holds each address; -1 where none does."""
        if not len(self):
            return np.full(len(addresses), -1, np.int64)
        index = np.searchsorted(self.start, addresses, "right") - 1
        return np.where((index >= 0) & (addresses <= self.last[index]), index, -1)

    def mappings(self) -> Iterator[Mapping]:
        """Yield each extent as a mapping of its first address, for a person or the scalar path."""
        rows = zip(*(values.tolist() for values in self.columns().values()), strict=True)
        for start, _, target, permissions, flags, shift in rows:
            accessed, dirty = bool(flags & ACCESSED), bool(flags & DIRTY)
            yield Mapping(start, target, shift, permissions, accessed=accessed, dirty=dirty)

    def describe(self, index: int) -> str:
        """Return one extent in one line, for people."""
        start, length, target = (int(values[index]) for values in (self.start, self.length, self.target))
        flags = permission_text(int(self.permissions[index]))
        return f"{start:#x}..{start + length - 1:#x} -> {target:#x} {flags} pages of 2^{self.page_shift[index]}"


def _largest_pages(
    start: NDArray[np.uint64], length: NDArray[np.uint64], target: NDArray[np.uint64]
) -> NDArray[np.uint8]:
    """Return log2 of the largest page that each extent is made of: its alignment, and its length's."""
    if len(target) != len(start):
        return np.zeros(len(start), np.uint8)
    together = start | length | target
    lowest = together & (~together + _ONE)
    shifts = np.zeros(len(start), np.uint8)
    for step in (32, 16, 8, 4, 2, 1):
        high = lowest > np.uint64(low_mask(step))
        shifts[high] += np.uint8(step)
        lowest = np.where(high, lowest >> np.uint64(step), lowest)
    return shifts
