"""A declarative format, read by arrays of entries: what :meth:`~nestmmu.radix.RadixWalker.find` decides, many at once.

Entries are uint64 whatever their size in memory; shifts are log2 of bytes, as arrays of uint64 or as one number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nestmmu.addresses import low_mask
from nestmmu.errors import NestmmuError
from nestmmu.faults import FaultKind
from nestmmu.translations import MOST_LEVELS, kind_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.formats import Match, RadixFormat

NOT_PRESENT = kind_number(FaultKind.NOT_PRESENT)
MALFORMED = kind_number(FaultKind.MALFORMED)
LEAF, TABLE = 0, 255
"""What :meth:`EntryArrays.classify` says of entries that are no fault."""
_MOST_PERMISSION_BITS = 14
_WIDEST_INDEX = 40
"""Index bits of a table that no memory holds; the scalar path allows what a format declares."""


def matches(match: Match, entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which entries match."""
    return (entries & np.uint64(match.mask)) == np.uint64(match.value & low_mask(64))


class EntryArrays:
    """The fields of arrays of entries of one format.

    :raises NestmmuError: for a format whose entries, or addresses, are wider than 64 bits.
    """

    def __init__(self, table_format: RadixFormat) -> None:
        form = self.format = table_format
        levels = form.levels
        widest = max(bits for level in levels for bits in level.index_bits)
        bits = max(form.output_mask, form.table_mask).bit_length() + form.address_shift
        runs = _runs(form.permission_mask)
        self.permission_bits = sum(width for _, width in runs)
        wide = bits > 64 or form.input_bits > 64 or form.entry_bytes not in {1, 2, 4, 8}  # noqa: PLR2004  (64-bit words)
        if wide or len(levels) >= MOST_LEVELS or widest > _WIDEST_INDEX or self.permission_bits > _MOST_PERMISSION_BITS:
            message = f"{form.name} is too large a format to translate in batches; translate one address at a time"
            raise NestmmuError(message)
        self.runs = runs
        self.permission_table = self._permission_table()
        self.scale = form.entry_bytes.bit_length() - 1
        self.legal_widths = [np.array(level.index_bits, np.uint64) for level in levels]

    def _permission_table(self) -> NDArray[np.uint8]:
        """Return what the format says of every value of the bits that it looks at, by these bits side by side."""
        table = np.zeros(1 << self.permission_bits, np.uint8)
        for packed in range(len(table)):
            entry, taken = 0, 0
            for shift, width in self.runs:
                entry |= (packed >> taken & low_mask(width)) << shift
                taken += width
            table[packed] = self.format.permissions_of(entry)
        return table

    def permissions(self, entries: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Return what leaves permit."""
        index = np.zeros(len(entries), np.uint64)
        taken = 0
        for shift, width in self.runs:
            index |= (entries >> np.uint64(shift) & np.uint64(low_mask(width))) << np.uint64(taken)
            taken += width
        return self.permission_table[index]

    def outputs(self, entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return the addresses in leaves, in bytes, not aligned to the page."""
        return (entries & np.uint64(self.format.output_mask)) << np.uint64(self.format.address_shift)

    def classify(self, entries: NDArray[np.uint64], depth: int, lows: NDArray[np.uint64]) -> NDArray[np.uint8]:
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
        for match in form.reserved:
            result[matches(match, entries)] = MALFORMED
        result[~matches(form.valid, entries)] = NOT_PRESENT
        return result

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
        legal = np.isin(bits, self.legal_widths[depth + 1]) if depth + 1 < len(form.levels) else bits > bits
        lows = np.where(legal, (np.uint64(form.entry_bytes) << np.where(legal, bits, 0)) - np.uint64(1), np.uint64(0))
        aligned = bases & lows == 0
        return legal, aligned, bases & ~lows, bits


def _runs(mask: int) -> list[tuple[int, int]]:
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
