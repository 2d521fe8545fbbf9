"""Walks of one table for many addresses, level by level, over arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.addresses import low_mask
from nestmmu.batch_formats import LEAF, MALFORMED, TABLE, entry_arrays
from nestmmu.batch_memory import granule_shift
from nestmmu.faults import FaultKind
from nestmmu.memory import PhysicalMemory
from nestmmu.translations import fault_code, kind_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nestmmu.batch_memory import TableMemory
    from nestmmu.radix import RadixTable

REDO = 0xFFFF
"""In place of a code: the fault hangs on more than the prefix, so each address has to be walked by itself."""
_UNREADABLE = kind_number(FaultKind.UNREADABLE)
_ONE = np.uint64(1)


@attrs.define(eq=False)
class Walked:
    """Where walks ended, each at an entry or in a fault."""

    offsets: NDArray[np.int64]
    """Of the entry, in the pool's words."""
    shifts: NDArray[np.uint64]
    """Log2 of the bytes that the entry maps."""
    depths: NDArray[np.uint64]
    codes: NDArray[np.uint16]
    """0: no fault."""
    addresses: NDArray[np.uint64]
    """What the fault is about."""


@attrs.define(eq=False)
class _Live:
    """Walks that go on: which they are, and the table that each has come to."""

    chosen: NDArray[np.intp]
    bases: NDArray[np.uint64]
    shifts: NDArray[np.uint64]
    masks: NDArray[np.uint64]

    def keep(self, wanted: NDArray[np.bool_]) -> None:
        """Leave only some."""
        self.chosen, self.bases = self.chosen[wanted], self.bases[wanted]
        self.shifts, self.masks = self.shifts[wanted], self.masks[wanted]


def prefix_shift(table: RadixTable, scale: int) -> int:
    """Return log2 of the bytes over which all but the last step of a walk is the same, and the last is in one granule.

    :param scale: log2 of the bytes of an entry.
    """
    form = table.format
    granule = granule_shift(table.walker.memory) - scale
    shifts, widths = {form.input_bits}, {table.root.index_bits}
    for level in form.levels[1:]:
        shifts = {shift - bits for shift in shifts for bits in widths if shift >= bits}
        widths = set(level.index_bits)
    return min((shift - bits + min(bits, granule) for shift in shifts for bits in widths if shift >= bits), default=0)


class TableWalk:
    """Walks of one table.

    :param memory: gives the table's memory when it is first needed: a table that is never read may lie in a circle.
    """

    def __init__(self, table: RadixTable, stage: int, memory: Callable[[], TableMemory]) -> None:
        self.table = table
        self.entries = entry_arrays(table.format)
        self.stage = stage
        self.memory = memory
        form, root = table.format, table.root
        self.late = form.late_geometry and not isinstance(table.walker.memory, PhysicalMemory)
        size = form.table_bytes(root.index_bits)
        self.malformed_root = root.index_bits not in form.levels[0].index_bits or bool(
            form.strict_table and root.base % size
        )
        self.base = root.base - root.base % size

    def code(self, kind: int, depth: int | None) -> int:
        """Return the code of a fault of this table."""
        return fault_code(kind, self.stage, depth)

    def walk(self, addresses: NDArray[np.uint64], *, whole: bool) -> Walked:
        """Walk from a well-formed root.

        :param whole: whether to decode the last level's entries too, and faults in full; else walks end at an entry
            of the last level, unread, and a fault that hangs on more than the prefix is REDO.
        """
        count, form, root = len(addresses), self.table.format, self.table.root
        zeros = np.zeros(count, np.uint64)
        result = Walked(np.full(count, -1, np.int64), zeros, zeros.copy(), np.zeros(count, np.uint16), addresses.copy())
        live = _Live(
            np.arange(count),
            np.full(count, self.base, np.uint64),
            np.full(count, form.input_bits - root.index_bits, np.uint64),
            np.full(count, low_mask(root.index_bits), np.uint64),
        )
        last = len(form.levels) - 1
        for depth in range(last + 1):
            offsets = self._read(addresses, live, depth, result, whole=whole)
            if depth == last and not whole:
                self._finish(result, live, depth, offsets, np.ones(len(offsets), np.bool_))
            elif len(live.chosen):
                self._step(addresses, live, depth, offsets, result, whole=whole)
        return result

    @staticmethod
    def _finish(result: Walked, live: _Live, depth: int, offsets: NDArray[np.int64], ended: NDArray[np.bool_]) -> None:
        """Note the walks that ended at an entry."""
        chosen = live.chosen[ended]
        result.offsets[chosen], result.shifts[chosen] = offsets[ended], live.shifts[ended]
        result.depths[chosen] = depth

    def _read(
        self, addresses: NDArray[np.uint64], live: _Live, depth: int, result: Walked, *, whole: bool
    ) -> NDArray[np.int64]:
        """Return where the entries of the live walks are; those that cannot be read end."""
        index = addresses[live.chosen] >> live.shifts & live.masks
        found = self.memory().find(live.bases + (index << np.uint64(self.entries.scale)))
        implicit, bad = found.codes != 0, found.offsets < 0
        if bad.any():
            result.codes[live.chosen[bad]] = self.code(_UNREADABLE, depth)
            chosen = live.chosen[implicit]
            result.codes[chosen] = found.codes[implicit] if whole else REDO
            result.addresses[chosen] = found.addresses[implicit]
            live.keep(~bad)
        return found.offsets[~bad]

    def _step(
        self, addresses: NDArray[np.uint64], live: _Live, depth: int, offsets: NDArray[np.int64], result: Walked,
        *, whole: bool,
    ) -> None:  # fmt: skip
        """Decode the entries that the live walks have come to."""
        words = self.memory().pool.words[offsets]
        kinds = self.entries.classify(words, depth, (_ONE << live.shifts) - _ONE)
        self._finish(result, live, depth, offsets, kinds == LEAF)
        failed = (kinds != LEAF) & (kinds != TABLE)
        result.codes[live.chosen[failed]] = kinds[failed] + np.uint16(self.code(0, depth))
        onward = kinds == TABLE
        live.keep(onward)
        legal, aligned, bases, bits = self.entries.tables(words[onward], depth)
        good = np.logical_and(legal, aligned) if self.table.format.strict_table else legal
        result.codes[live.chosen[~good]] = self.code(MALFORMED, depth)
        if self.late and not legal.all():
            if whole:
                chosen = live.chosen[~legal]
                self._late(addresses[chosen], chosen, bases[~legal], bits[~legal], live.shifts[~legal], result)
            else:
                result.codes[live.chosen[~legal]] = REDO
        live.keep(good)
        live.bases, bits = bases[good], bits[good]
        live.shifts = live.shifts - np.minimum(bits, live.shifts)
        live.masks = (_ONE << bits) - _ONE

    def _late(
        self, addresses: NDArray[np.uint64], chosen: NDArray[np.intp], bases: NDArray[np.uint64],
        bits: NDArray[np.uint64], shifts: NDArray[np.uint64], result: Walked,
    ) -> None:  # fmt: skip
        """Translate the addresses that entries of illegal widths would have, for the faults met on the way."""
        huge = bits >= 64 - self.entries.scale
        bits = np.minimum(bits, np.uint64(63))
        lows = np.where(huge, np.uint64(low_mask(64)), (np.uint64(self.table.format.entry_bytes) << bits) - _ONE)
        index = addresses >> (shifts - np.minimum(bits, shifts)) & (_ONE << bits) - _ONE
        found = self.memory().find((bases & ~lows) + (index << np.uint64(self.entries.scale)))
        implicit = found.codes != 0
        result.codes[chosen[implicit]] = found.codes[implicit]
        result.addresses[chosen[implicit]] = found.addresses[implicit]
