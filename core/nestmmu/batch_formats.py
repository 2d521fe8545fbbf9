"""A declarative format, read by arrays of entries: what :meth:`~nestmmu.radix.RadixWalker.find` decides, many at once.

Entries are uint64 whatever their size in memory; shifts are log2 of bytes, as arrays of uint64 or as one number.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from nestmmu.addresses import low_mask
from nestmmu.errors import NestmmuError
from nestmmu.extents import ACCESSED, ATTRIBUTE_SHIFT, DIRTY
from nestmmu.faults import FaultKind
from nestmmu.formats import NEVER, InputRule, Unlike
from nestmmu.translations import MOST_LEVELS, kind_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from nestmmu.formats import Match, RadixFormat

NOT_PRESENT = kind_number(FaultKind.NOT_PRESENT)
MALFORMED = kind_number(FaultKind.MALFORMED)
LEAF, TABLE = 0, 255
"""What :meth:`EntryArrays.classify` says of entries that are no fault."""
_MOST_PACKED = 14
_NARROW_GAP = 3
_WIDEST_INDEX = 40
"""Index bits of a table that no memory holds; the scalar path allows what a format declares."""


def matches(match: Match, entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which entries match."""
    found: NDArray[np.bool_] = (entries & np.uint64(match.mask)) == np.uint64(match.value & low_mask(64))
    return ~found if isinstance(match, Unlike) else found


class EntryArrays:
    """The fields of arrays of entries of one format.

    :raises NestmmuError: for a format whose entries, or addresses, are wider than 64 bits, or that is not
        :attr:`~nestmmu.formats.RadixFormat.plain`.
    """

    def __init__(self, table_format: RadixFormat) -> None:
        form = self.format = table_format
        levels = form.levels
        if not form.plain:
            message = f"{form.name} says more of its entries than batches know; translate one address at a time"
            raise NestmmuError(message)
        widest = max(bits for level in levels for bits in level.index_bits)
        bits = max(form.output_mask, form.table_mask).bit_length() + form.address_shift
        self.permission_bits = PackedBits(form.permission_mask)
        self.flag_bits = PackedBits(form.accessed | form.dirty | form.attributes)
        packed = max(self.permission_bits.count, self.flag_bits.count, form.attributes.bit_count() + ATTRIBUTE_SHIFT)
        wide = bits > 64 or form.input_bits > 64 or form.entry_bytes not in {1, 2, 4, 8}  # noqa: PLR2004  (64-bit words)
        if wide or len(levels) >= MOST_LEVELS or widest > _WIDEST_INDEX or packed > _MOST_PACKED:
            message = f"{form.name} is too large a format to translate in batches; translate one address at a time"
            raise NestmmuError(message)
        self.permission_table = np.array([*map(form.permissions_of, self.permission_bits.values())], np.uint8)
        self.flag_table = np.array([*map(self._flags_of, self.flag_bits.values())], np.uint16)
        self.scale = form.entry_bytes.bit_length() - 1
        self.tests = self._tests()
        """(mask, value) by level, shape (levels, 2), of a format that is simple: an entry that matches is valid and a
        leaf, and nothing else is."""
        self.legal_widths = [np.array(level.index_bits, np.uint64) for level in levels]

    def _tests(self) -> NDArray[np.uint64]:
        form = self.format
        tests = np.zeros((len(form.levels), 2), np.uint64)
        for depth, level in enumerate(form.levels):
            if not form.simple:
                tests[depth] = NEVER.mask, NEVER.value  # asked of classify instead
                continue
            both = form.valid.mask & level.leaf.mask
            clash = (form.valid.value ^ level.leaf.value) & both
            mask, value = form.valid.mask | level.leaf.mask, form.valid.value | level.leaf.value
            tests[depth] = (NEVER.mask, NEVER.value) if clash or not level.may_leaf else (mask, value)
        return tests

    def permissions(self, entries: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Return what leaves permit."""
        return self.permission_table[self.permission_bits.index(entries)]

    def flags(self, entries: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """Return accessed, dirty and attributes of leaves, as :class:`~nestmmu.extents.Extents` has them."""
        return self.flag_table[self.flag_bits.index(entries)]

    def _flags_of(self, entry: int) -> int:
        form = self.format
        flags, taken = 0, ATTRIBUTE_SHIFT
        for mask, flag in ((form.accessed, ACCESSED), (form.dirty, DIRTY)):
            flags |= flag if mask and entry & mask == mask else 0
        for shift, width in runs_of(form.attributes):
            flags |= (entry >> shift & low_mask(width)) << taken
            taken += width
        return flags

    def outputs(self, entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return the addresses in leaves, in bytes, not aligned to the page."""
        return (entries & np.uint64(self.format.output_mask)) << np.uint64(self.format.address_shift)

    def leaves(
        self, entries: NDArray[np.uint64], depth: int, lows: NDArray[np.uint64] | np.uint64
    ) -> NDArray[np.bool_]:
        """Tell which entries of level ``depth`` are well-formed leaves.

        :param lows: masks of the offset in a leaf's page.
        """
        if not self.format.simple:
            told: NDArray[np.bool_] = self.classify(entries, depth, lows) == LEAF
            return told
        mask, value = self.tests[depth]
        good: NDArray[np.bool_] = (entries & mask) == value
        for match in self.format.reserved:
            good &= ~matches(match, entries)
        if self.format.strict_output:
            good &= self.outputs(entries) & lows == 0
        return good

    def classify(
        self, entries: NDArray[np.uint64], depth: int, lows: NDArray[np.uint64] | np.uint64
    ) -> NDArray[np.uint8]:
        """Return what each entry of level ``depth`` is: LEAF, TABLE or the number of a fault's kind.

        :param lows: masks of the offset in a leaf's page.
        """
        form, level = self.format, self.format.levels[depth]
        leaf = matches(level.leaf, entries)
        result = np.where(leaf, np.uint8(LEAF), np.uint8(TABLE if level.may_table else MALFORMED))
        if not level.may_leaf:
            result[leaf] = MALFORMED
        elif form.strict_output:
            result[leaf & (self.outputs(entries) & lows != 0)] = MALFORMED
        for match in (*form.reserved, *level.reserved):
            result[matches(match, entries)] = MALFORMED
        result[~matches(form.valid, entries)] = NOT_PRESENT
        return result

    def groups(self, entries: NDArray[np.uint64], depth: int) -> NDArray[np.uint64]:
        """Return log2 of how many entries each leaf of level ``depth`` stands for."""
        result = np.zeros(len(entries), np.uint64)
        for match, count_lg2 in reversed(self.format.levels[depth].groups):
            result[matches(match, entries)] = count_lg2
        return result

    def canonical(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return addresses with the bits above those that are translated as the format wants them."""
        form = self.format
        if form.input_rule is InputRule.ANY or form.input_bits >= 64:  # noqa: PLR2004  (bits)
            return addresses
        low = np.uint64(low_mask(form.input_bits))
        found = addresses & low
        if form.input_rule is InputRule.SIGN:
            found = np.where(found >> np.uint64(form.input_bits - 1) != 0, found | ~low, found)
        return found

    def tables(
        self, entries: NDArray[np.uint64], depth: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
        """Return (legal width, aligned, base, index bits) of the tables that directories of level ``depth`` lead to.

        A base is rounded down to the table's size where the width is legal, else it is as the entry has it.
        """
        form = self.format
        bases = (entries & np.uint64(form.table_mask)) << np.uint64(form.address_shift)
        if form.width_mask:
            bits = entries & np.uint64(form.width_mask)
        else:
            bits = np.full(len(entries), form.next_bits(0, depth), np.uint64)
        legal = (
            np.isin(bits, self.legal_widths[depth + 1])
            if depth + 1 < len(form.levels)
            else np.zeros(len(bits), np.bool_)
        )
        lows = np.where(legal, (np.uint64(form.entry_bytes) << np.where(legal, bits, 0)) - np.uint64(1), np.uint64(0))
        aligned = bases & lows == 0
        return legal, aligned, bases & ~lows, bits


def runs_of(mask: int) -> list[tuple[int, int]]:
    """Return (lowest bit, how many) of each run of bits in a mask, lowest first."""
    runs = []
    bit = 0
    while mask >> bit:
        bit += (mask >> bit & -(mask >> bit)).bit_length() - 1
        width = 0
        while mask >> bit + width & 1:
            width += 1
        runs.append((bit, width))
        bit += width
    return runs


class PackedBits:
    """Some bits of entries, side by side: an index into a table of what they mean."""

    def __init__(self, mask: int) -> None:
        self.runs: list[tuple[int, int]] = []
        for shift, width in runs_of(mask):
            low, bits = self.runs[-1] if self.runs else (0, 0)
            if bits and shift - low - bits < _NARROW_GAP:  # the few bits between cost less than a second run
                self.runs[-1] = low, shift + width - low
            else:
                self.runs.append((shift, width))
        self.count = sum(width for _, width in self.runs)

    def index(self, entries: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the bits of each entry, packed."""
        index, taken = np.zeros(0, np.uint64), 0
        for shift, width in self.runs:
            bits = entries >> np.uint64(shift) if shift else entries
            bits = bits & np.uint64(low_mask(width))
            index = index | bits << np.uint64(taken) if taken else bits
            taken += width
        return index.view(np.int64) if self.runs else np.zeros(len(entries), np.int64)

    def values(self) -> Iterator[int]:
        """Yield an entry for each index: with its bits, and no others."""
        for packed in range(1 << self.count):
            entry = taken = 0
            for shift, width in self.runs:
                entry |= (packed >> taken & low_mask(width)) << shift
                taken += width
            yield entry


@functools.lru_cache(maxsize=64)
def entry_arrays(table_format: RadixFormat) -> EntryArrays:
    """Return the fields of a format, made once.

    :raises NestmmuError: as :class:`EntryArrays` does.
    """
    return EntryArrays(table_format)
