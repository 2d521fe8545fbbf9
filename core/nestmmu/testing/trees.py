"""Trees by the backdoor: raw words, written and read by the declaration alone.

Nothing here shares code with :mod:`nestmmu.radix`: this is the second opinion that the engine, and what a plugin told
it, are held against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import attrs
import numpy as np

from nestmmu.errors import OutsideMemoryError
from nestmmu.faults import FaultKind
from nestmmu.testing.ends import Reached, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nestmmu.access import Access
    from nestmmu.testing.capabilities import Capabilities, LevelShape


@attrs.frozen
class Nothing:
    """An entry that is not valid."""


@attrs.frozen
class Broken:
    """An entry that the architecture forbids."""


@attrs.frozen
class Leads:
    """An entry that leads to another table."""

    table: int
    """Its address, in bytes."""
    index_bits: int


@attrs.frozen
class Page:
    """A leaf."""

    target: int
    """The address of its first byte, in bytes."""
    rights: int
    accessed: bool
    dirty: bool


Meaning: TypeAlias = Nothing | Broken | Leads | Page


class EntryWords(Protocol):
    """What the words of a tree are, as an author writes it down from the manual."""

    @property
    def form(self) -> Capabilities:
        """The numbers that the architecture declares."""
        ...

    def entry_word(
        self, tree: tuple[LevelShape, ...], depth: int, target: int, rights: int, *, accessed: bool, dirty: bool
    ) -> int:
        """Return the word of a leaf."""
        ...

    def table_word(self, tree: tuple[LevelShape, ...], depth: int, table: int) -> int:
        """Return the word, at level ``depth``, that leads to a table of the next level at ``table``."""
        ...

    def decode(self, depth: int, shift: int, word: int) -> Meaning:
        """Return what a word at level ``depth`` says, whose entry covers 2**``shift`` bytes."""
        ...


class Upwards:
    """Gives out room for tables, upwards.

    :param start: the first address, in bytes.
    :param stride: bytes that each gets at least.
    """

    def __init__(self, start: int, stride: int = 16) -> None:
        self.next = start
        self.stride = stride

    def __call__(self, size: int) -> int:
        """Return the address of ``size`` bytes, aligned to them."""
        step = max(size, self.stride)
        at = -(-self.next // step) * step
        self.next = at + step
        return at


class Tree:
    """A tree of tables that is written, and read, word by word.

    :param words: what its words are.
    :param levels: its shape: one of the architecture's trees.
    :param load: returns the bytes at an address of the memory that holds the tables.
    :param store: writes bytes there.
    :param allocate: returns the address of that many bytes for a table, aligned to their number.
    :param root: a root that is there already; None: a new one.
    """

    def __init__(
        self,
        words: EntryWords,
        levels: tuple[LevelShape, ...],
        load: Callable[[int, int], bytes],
        store: Callable[[int, bytes], None],
        allocate: Callable[[int], int],
        root: int | None = None,
    ) -> None:
        self.words = words
        self.levels = levels
        self.load = load
        self.store = store
        self.allocate = allocate
        self.root = self.new_table(0) if root is None else root

    @property
    def root_bits(self) -> int:
        """Index bits of the root."""
        return self.levels[0].index_bits

    def new_table(self, depth: int) -> int:
        """Return the address of an empty table of a level."""
        size = self.words.form.entry_bytes << self.levels[depth].index_bits
        at = self.allocate(size)
        self.store(at, bytes(size))
        return at

    def word(self, at: int) -> int:
        """Return the word at an address."""
        form = self.words.form
        return int.from_bytes(self.load(at, form.entry_bytes), form.byteorder)

    def put(self, at: int, word: int) -> None:
        """Write the word at an address."""
        form = self.words.form
        self.store(at, word.to_bytes(form.entry_bytes, form.byteorder))

    def depth_of(self, shift: int) -> int:
        """Return the level whose entries cover 2**``shift`` bytes."""
        return next(depth for depth, level in enumerate(self.levels) if level.shift == shift)

    def place(self, address: int, depth: int) -> int:
        """Return where the entry of ``address`` at a level is, the tables on the way made where there are none."""
        base = self.root
        for above in range(depth):
            at = self._slot(base, above, address)
            meaning = self.words.decode(above, self.levels[above].shift, self.word(at))
            if isinstance(meaning, Leads):
                base = meaning.table
            else:
                base = self.new_table(above + 1)
                self.put(at, self.words.table_word(self.levels, above, base))
        return self._slot(base, depth, address)

    def clear(self, address: int, shift: int) -> None:
        """Unmap a page."""
        self.put(self.place(address, self.depth_of(shift)), 0)

    def tables(self) -> list[int]:
        """Return the address of every table, the root first; one that is reached twice is there twice."""
        return [base for base, _, _ in self._tables(self.root, 0, 0)]

    def leaves(self) -> Iterator[tuple[int, int, Page]]:
        """Yield (address, shift, page) of every leaf."""
        for base, depth, start in self._tables(self.root, 0, 0):
            level = self.levels[depth]
            for index, word in self._words(base, depth):
                meaning = self.words.decode(depth, level.shift, word)
                if isinstance(meaning, Page):
                    yield start | index << level.shift, level.shift, meaning

    def _words(self, base: int, depth: int) -> Iterator[tuple[int, int]]:
        """Yield (index, word) of every word of a table that is not zero."""
        form = self.words.form
        size = form.entry_bytes
        raw = self.load(base, size << self.levels[depth].index_bits)
        for index in np.flatnonzero(np.frombuffer(raw, np.uint8).reshape(-1, size).any(axis=1)).tolist():
            yield index, int.from_bytes(raw[index * size : index * size + size], form.byteorder)

    def _tables(self, base: int, depth: int, start: int) -> Iterator[tuple[int, int, int]]:
        """Yield (address, level, first input address) of a table and of all below it."""
        yield base, depth, start
        shift = self.levels[depth].shift
        for index, word in self._words(base, depth):
            meaning = self.words.decode(depth, shift, word)
            if isinstance(meaning, Leads):
                yield from self._tables(meaning.table, depth + 1, start | index << shift)

    def places(self, address: int) -> list[int]:
        """Return where the entries of ``address`` are, root first, as far as there are tables."""
        base, found = self.root, []
        for depth, level in enumerate(self.levels):
            found.append(self._slot(base, depth, address))
            meaning = self.words.decode(depth, level.shift, self.word(found[-1]))
            if not isinstance(meaning, Leads):
                break
            base = meaning.table
        return found

    def _slot(self, base: int, depth: int, address: int) -> int:
        level = self.levels[depth]
        return base + (address >> level.shift) % (1 << level.index_bits) * self.words.form.entry_bytes

    def map(
        self, address: int, target: int, shift: int, rights: int, *, accessed: bool = True, dirty: bool = True
    ) -> int:
        """Write the leaf of a page and return where it is; tables on the way are made."""
        depth = self.depth_of(shift)
        at = self.place(address, depth)
        self.put(at, self.words.entry_word(self.levels, depth, target, rights, accessed=accessed, dirty=dirty))
        return at

    def flags(self, address: int) -> tuple[bool, bool]:
        """Return accessed and dirty of the leaf of an address; neither, where there is none."""
        end = self.read(address)
        return (end.accessed, end.dirty) if isinstance(end, Reached) else (False, False)

    def read(self, address: int) -> Reached | Refused:
        """Walk slowly, by the declaration, and return how it ended; permissions are not looked at."""
        return self._walk(address)[0]

    def _walk(self, address: int) -> tuple[Reached | Refused, int]:
        form = self.words.form
        base, bits, shift, depth = self.root, self.root_bits, form.input_bits, 0
        while True:
            shift -= bits
            at = base + (address >> shift) % (1 << bits) * form.entry_bytes
            try:
                word = self.word(at)
            except OutsideMemoryError:
                return Refused(FaultKind.UNREADABLE, depth, at), depth
            meaning = self.words.decode(depth, shift, word)
            if isinstance(meaning, Page):
                offset = address % (1 << shift)
                flags = meaning.rights, meaning.accessed, meaning.dirty
                return Reached(meaning.target + offset, shift, *flags, at, word), depth
            if isinstance(meaning, Nothing):
                return Refused(FaultKind.NOT_PRESENT, depth, at, word), depth
            if isinstance(meaning, Broken) or depth == len(self.levels) - 1:
                return Refused(FaultKind.MALFORMED, depth, at, word), depth
            base, bits, depth = meaning.table, meaning.index_bits, depth + 1

    def allowed(self, address: int, access: Access) -> Reached | Refused:
        """Walk slowly, and refuse what the leaf does not permit."""
        end, depth = self._walk(address)
        if isinstance(end, Reached) and not end.rights & access:
            return Refused(FaultKind.PERMISSION, depth, end.entry_address, end.entry)
        return end
