"""Whole tables as extents: every leaf, straight from the words of the table's pages."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from nestmmu.access import Access
from nestmmu.addresses import low_mask
from nestmmu.arrays import together
from nestmmu.batch_formats import MALFORMED, TABLE
from nestmmu.batch_memory import TableMemory, WordPool, granule_shift
from nestmmu.batch_stages import Batch, is_plain
from nestmmu.batch_walk import TableWalk
from nestmmu.errors import NestmmuError, TooLargeError
from nestmmu.extent_algebra import compose
from nestmmu.extents import Extents
from nestmmu.extraction import Broken, Extraction, TablePages
from nestmmu.faults import Fault, FaultKind
from nestmmu.memory import FRAME_BYTES, TranslatedMemory
from nestmmu.radix import RadixTable
from nestmmu.translations import StageNames, kind_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from nestmmu.formats import RadixFormat


_UNREADABLE = kind_number(FaultKind.UNREADABLE)
_ONE = np.uint64(1)
_AT_ONCE = 1 << 16
"""Entries that are decoded together: as many as the caches hold."""


_MUCH, _SHARED = 1 << 22, 64
"""Entries of a level from which on it counts how often each table is reached, and how often it may be on average."""


@attrs.define(eq=False)
class _Tables:
    """Tables of one level."""

    bases: NDArray[np.uint64]
    bits: NDArray[np.uint64]
    firsts: NDArray[np.uint64]
    """The first input address of each."""
    shifts: NDArray[np.uint64]
    """Log2 of the bytes that each translates."""

    def take(self, chosen: NDArray[np.bool_] | slice) -> _Tables:
        """Return some of them."""
        return _Tables(self.bases[chosen], self.bits[chosen], self.firsts[chosen], self.shifts[chosen])


class _Leaves:
    """Leaves of one level, gathered: one array for each column, of which a part is filled.

    :param words: whether entries and their addresses are wanted; else their columns stay empty.
    """

    def __init__(self, capacity: int, *, words: bool) -> None:
        kinds = (*[np.uint64] * (4 if words else 2), np.uint16, np.uint8)
        start, target, *rest, flags, permissions = together(capacity, kinds)
        self._columns = [start, target, permissions, flags, *rest]
        self._unwanted = [] if words else [np.zeros(0, np.uint64)] * 2
        self.shift = 0
        self.count = 0

    def add(self, shift: int, *parts: NDArray[Any]) -> None:
        """Add a part of each column: start, target, permissions, flags, and, where wanted, entries and their addresses.

        :param shift: log2 of the bytes of each leaf.
        """
        self.shift = shift
        end = self.count + len(parts[0])
        for values, part in zip(self._columns, parts, strict=False):
            values[self.count : end] = part
        self.count = end

    def filled(self) -> list[NDArray[Any]]:
        """Return what is filled, in the order of Extents, then entries and their addresses."""
        start, target, permissions, flags, *rest = (values[: self.count] for values in self._columns)
        # What all have alike takes no memory.
        length = np.broadcast_to(_ONE << np.uint64(self.shift), self.count)
        return [
            start,
            length,
            target,
            permissions,
            flags,
            np.broadcast_to(np.uint8(self.shift), self.count),
            *rest,
            *self._unwanted,
        ]


class _Extractor:
    def __init__(self, table: RadixTable, start: int, end: int, *, words: bool) -> None:
        memory = table.walker.memory
        batch = self.batch = Batch(StageNames())
        self.table = table
        self.words = words
        self.start, self.end = np.uint64(start), np.uint64(end - 1)
        self.clipped = start > 0 or end < last_address(table.format) + 1
        self.memory = TableMemory(WordPool(memory.physical, table.format), batch.table_memory(table).stage)
        self.walk = TableWalk(table, 0, lambda: self.memory)
        self.entries = self.walk.entries
        valid = table.format.valid
        self.invalid = np.uint64(valid.value ^ valid.mask & -valid.mask)
        self.granule = 1 << granule_shift(memory)
        self.broken: list[tuple[NDArray[np.uint64], int, int, NDArray[np.uint64]]] = []
        self.reached: list[tuple[int, _Tables]] = []
        self.budget = (memory.physical.frame_count() + 1) * (FRAME_BYTES // table.format.entry_bytes) + (1 << 16)

    def levels(self) -> Iterator[_Leaves]:
        """Yield the leaves of each level, root first."""
        form, root = self.table.format, self.table.root
        if self.walk.malformed_root:
            raise Fault(FaultKind.MALFORMED, self.table.walker.stage, Access.LOAD, 0, 0, entry_address=root.base)
        one = np.ones(1, np.uint64)
        tables = _Tables(one * np.uint64(self.walk.base), one * root.index_bits, one * 0, one * form.input_bits)
        for depth in range(len(form.levels)):
            self.reached.append((depth, tables))
            self.budget -= int((_ONE << tables.bits).sum())
            if self.budget < 0 or _shared(tables):
                message = f"the table at {root.base:#x} reaches more tables than memory holds: it loops or shares"
                raise TooLargeError(message)
            leaves, below = _Leaves(int((_ONE << tables.bits).sum()), words=self.words), []
            for part in self._parts(tables):
                below.append(self._part(part, depth, leaves))
                self.batch.trim()
            yield leaves
            tables = _Tables(*(np.concatenate(columns) for columns in zip(*below, strict=True)))
            if not len(tables.bases):
                return

    def _parts(self, tables: _Tables) -> Iterator[_Tables]:
        """Cut tables into parts of one width and one place in the tree, in order."""
        if not len(tables.bases):
            return
        same = (tables.bits[1:] == tables.bits[:-1]) & (tables.shifts[1:] == tables.shifts[:-1])
        edges = [0, *(np.flatnonzero(~same) + 1).tolist(), len(tables.bases)]
        for begin, end in itertools.pairwise(edges):
            step = max(1, _AT_ONCE >> int(tables.bits[begin]))
            for at in range(begin, end, step):
                yield tables.take(slice(at, min(at + step, end)))

    def _words(self, part: _Tables, depth: int) -> NDArray[np.uint64]:
        """Return the words of tables, shape (tables, entries); where one cannot be read, an entry that is not valid."""
        self.memory.pool.clear()  # each page is read once
        scale, size = self.entries.scale, 1 << int(part.bits[0]) + self.entries.scale
        steps = np.arange(0, size, min(self.granule, size), dtype=np.uint64)
        found = self.memory.find((part.bases[:, None] + steps).ravel())
        offsets = found.offsets.reshape(-1, len(steps))
        each = min(self.granule, size) >> scale
        lost = offsets < 0
        if lost.any():
            holed = np.flatnonzero(lost.any(axis=1))
            first = steps[np.argmax(lost[holed], axis=1)]
            self.broken.append((part.firsts[holed], _UNREADABLE, depth, part.bases[holed] + first))
            if not self.memory.pool.words.size:
                return np.full((len(part.bases), size >> scale), self.invalid)
        rows = self.memory.pool.words.reshape(-1, each)
        words: NDArray[np.uint64] = rows[np.where(lost, 0, offsets).ravel() // each]
        words[lost.ravel()] = self.invalid
        return words.reshape(len(part.bases), size >> scale)

    def _part(self, part: _Tables, depth: int, leaves: _Leaves) -> tuple[NDArray[np.uint64], ...]:
        """Add the leaves of some tables; return the fields of the tables below."""
        words = self._words(part, depth)
        none = np.zeros(0, np.uint64)
        shift = int(part.shifts[0]) - int(part.bits[0])
        index = np.arange(words.shape[1], dtype=np.uint64)
        starts = self.entries.canonical((part.firsts[:, None] | index << np.uint64(shift)).ravel())
        places = (part.bases[:, None] + (index << np.uint64(self.entries.scale))).ravel()
        entries = words.ravel()
        low = np.uint64((1 << shift) - 1)
        good = self.entries.leaves(entries, depth, low)
        others = ~good
        if self.clipped:
            wanted = (starts <= self.end) & (starts | low >= self.start)
            others &= wanted
            good &= wanted
        below: tuple[NDArray[np.uint64], ...] = (none, none, none, none)
        if not good.all():
            below = self._others(starts[others], entries[others], places[others], depth, shift)
            starts, entries, places = starts[good], entries[good], places[good]
        if len(starts):
            targets = self._targets(starts, entries, depth, shift)
            permissions, flags = self.entries.permissions(entries), self.entries.flags(entries)
            leaves.add(shift, starts, targets, permissions, flags, entries, places)
        return below

    def _targets(
        self, starts: NDArray[np.uint64], entries: NDArray[np.uint64], depth: int, shift: int
    ) -> NDArray[np.uint64]:
        """Return where leaves lead; each of a group's leads to its own part of the group's page."""
        targets: NDArray[np.uint64] = self.entries.outputs(entries) & ~np.uint64((1 << shift) - 1)
        if self.table.format.levels[depth].groups:
            shifts: NDArray[np.uint64] = self.entries.groups(entries, depth) + np.uint64(shift)
            within: NDArray[np.uint64] = (_ONE << shifts) - _ONE
            targets = targets & ~within | starts & within
        return targets

    def _others(
        self, starts: NDArray[np.uint64], entries: NDArray[np.uint64], places: NDArray[np.uint64], depth: int,
        shift: int,
    ) -> tuple[NDArray[np.uint64], ...]:  # fmt: skip
        """Note what is malformed; return the fields of the tables that directories lead to."""
        kinds = self.entries.classify(entries, depth, np.uint64((1 << shift) - 1))
        table = np.flatnonzero(kinds == TABLE)
        legal, aligned, bases, bits = self.entries.tables(entries[table], depth)
        good = legal & (aligned | (not self.table.format.strict_table))
        kinds[table[~good]] = MALFORMED
        wrong = kinds == MALFORMED
        if wrong.any():
            self.broken.append((starts[wrong], MALFORMED, depth, places[wrong]))
        return bases[good], bits[good], starts[table[good]], np.full(int(good.sum()), shift, np.uint64)

    def result(self) -> Extraction:
        """Return what the whole table maps."""
        levels = [leaves.filled() for leaves in self.levels() if leaves.count] or [_Leaves(0, words=False).filled()]
        columns = levels[0]
        if len(levels) > 1:
            columns = [np.concatenate(parts) for parts in zip(*levels, strict=True)]
            order = np.argsort(columns[0], kind="stable")
            columns = [
                *(values[order] for values in columns[:6]),
                *(values[order[: len(values)]] for values in columns[6:]),
            ]
        extents = Extents(columns[0], columns[1], columns[2], *columns[3:6])
        depths = [np.full(len(tables.bases), depth, np.uint8) for depth, tables in self.reached]
        every = _Tables(*(np.concatenate(parts) for parts in zip(*map(_fields, self.reached), strict=True)))
        sizes = np.uint64(self.table.format.entry_bytes) << every.bits
        pages = TablePages(every.bases, sizes, np.concatenate(depths))
        return Extraction(extents, columns[6], columns[7], self._sorted(), pages)

    def _sorted(self) -> Broken:
        """Return what is broken, by address."""
        counts = [len(starts) for starts, *_ in self.broken]
        none = np.zeros(0, np.uint64)
        starts = np.concatenate([none, *(starts for starts, *_ in self.broken)])
        places = np.concatenate([none, *(places for *_, places in self.broken)])
        kinds = np.repeat(np.array([kind for _, kind, *_ in self.broken], np.uint8), counts)
        levels = np.repeat(np.array([level for *_, level, _ in self.broken], np.uint8), counts)
        order = np.lexsort((levels, starts))
        return Broken(starts[order], kinds[order], levels[order], places[order])


def last_address(form: RadixFormat) -> int:
    """Return the last address that a format translates."""
    return form.canonical(low_mask(form.input_bits))


def _shared(tables: _Tables) -> bool:
    """Tell whether tables of one level are so many only because the same ones are reached again and again."""
    count = int((_ONE << tables.bits).sum())
    if count <= _MUCH:
        return False
    first = np.unique(tables.bases, return_index=True)[1]
    return count > _SHARED * int((_ONE << tables.bits[first]).sum())


def _fields(reached: tuple[int, _Tables]) -> tuple[NDArray[np.uint64], ...]:
    tables = reached[1]
    return tables.bases, tables.bits, tables.firsts, tables.shifts


def extract(table: RadixTable, start: int = 0, end: int | None = None, *, words: bool = True) -> Extraction:
    """Return every leaf that maps anything in [``start``, ``end``), and what is broken there; nothing is updated.

    Frames that are not kept read as zero: nothing is mapped there. Memory is bounded by that of the frames.

    :param end: in bytes, as ``start``; None: the end of what the format translates.
    :param words: whether entries and their addresses are wanted; else these two arrays are left empty.
    :raises Fault: MALFORMED, if the root itself is.
    :raises TooLargeError: if more tables are reached than memory holds (loops, shared tables).
    :raises ~nestmmu.errors.NestmmuError: for a walker that is not the plain engine's.
    """
    if not is_plain(table):
        own = type(table.walker).__name__ if table.format.plain else table.format.name
        message = f"{own} reads its table in a way of its own; take the leaves one by one"
        raise NestmmuError(message)
    limit = last_address(table.format) + 1
    extractor = _Extractor(table, start, limit if end is None else min(end, limit), words=words)
    found = extractor.result()
    extractor.memory.pool.close()
    return found


def extents_of(space: RadixTable | TranslatedMemory, *, strict: bool = True) -> Extents:
    """Return a table's leaves; of a guest's memory, its table's composed with all below, down to the machine's memory.

    :param strict: whether an entry that breaks the format is a fault; else it counts as not mapped.
    :raises Fault: as :meth:`~nestmmu.radix.RadixTable.leaves` does, if ``strict``.
    :raises ~nestmmu.errors.NestmmuError: as :func:`extract` does.
    """
    if isinstance(space, TranslatedMemory):
        if not isinstance(space.table, RadixTable):
            message = f"{type(space.table).__name__} has no table pages to extract; name a memory behind a table"
            raise NestmmuError(message)
        inner = extents_of(space.table, strict=strict)
        below = space.parent
        return compose(inner, extents_of(below, strict=strict)) if isinstance(below, TranslatedMemory) else inner
    found = extract(space)
    if strict and len(found.broken):
        broken = found.broken
        kind = FaultKind.UNREADABLE if broken.kind[0] == _UNREADABLE else FaultKind.MALFORMED
        raise Fault(
            kind, space.walker.stage, Access.LOAD, int(broken.start[0]), int(broken.level[0]),
            entry_address=int(broken.entry_address[0]),
        )  # fmt: skip
    return found.extents
