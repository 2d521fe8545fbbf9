"""Editing a radix table: the hypervisor's own tables, for its guests and for the shadow of nested ones.

The order of the writes and of the flushes is that of ``kvmppc_create_pte`` and its companions in
Linux's ``book3s_64_mmu_radix.c``, which holds for any hardware that caches directories apart from pages.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from nestmmu.access import Access
from nestmmu.addresses import HardwareTag, align_down
from nestmmu.errors import OutOfPagesError
from nestmmu.faults import Fault
from nestmmu.habits import NO_HABITS
from nestmmu.invalidation import Flush, FlushKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.allocator import PageAllocator
    from nestmmu.mappings import Mapping
    from nestmmu.radix import RadixTable


class Insertion(enum.Enum):
    """What became of an insertion."""

    ADDED = "added"
    """There is a new leaf."""
    SAME = "same"
    """The very leaf was there."""
    MERGED = "merged"
    """A leaf was there; the new permissions, accessed and dirty were added to it."""
    AGAIN = "again"
    """The table changed since :meth:`TableEditor.prepare`: nothing was done."""
    NO_MEMORY = "no memory"
    """A table is missing, and there is no page for it."""


class Place(NamedTuple):
    """A leaf where it stands."""

    start: int
    """First address of its page, in bytes."""
    target: int
    """Where its page leads to, in bytes."""
    shift: int
    """Log2 of the page's bytes."""
    entry: int
    entry_address: int


class TableEditor:
    """A table that its hypervisor changes.

    :param table: the table; its walker's memory is the hypervisor's own.
    :param widths: index bits of the tables of each level, root first.
    :param allocator: gives the pages of tables.
    :param tag: the tag under which hardware caches this table.
    :param flush: called with each invalidation, in order.
    :param removed: called with each leaf, as it was, right after it was removed and flushed.
    """

    habits = NO_HABITS
    """What the hypervisor gets wrong."""

    def __init__(
        self,
        table: RadixTable,
        widths: tuple[int, ...],
        allocator: PageAllocator,
        tag: HardwareTag,
        flush: Callable[[Flush], None],
        removed: Callable[[Mapping], None] | None = None,
    ) -> None:
        self.table = table
        self.widths = widths
        self.allocator = allocator
        self.tag = tag
        self.flush = flush
        self.removed = removed
        self.heard: Callable[[], bool] | None = None
        """Asked whether anyone hears ``removed`` at present; None: always."""
        form = self.format = table.format
        self.shifts = form.shifts(widths)
        self.depths = {shift: depth for depth, shift in enumerate(self.shifts) if form.levels[depth].may_leaf}
        memory = table.walker.memory
        self._load = memory.loader(form.entry_bytes, form.byteorder)
        self._store = memory.storer(form.entry_bytes, form.byteorder)

    def lookup(self, address: int) -> Mapping | None:
        """Return the leaf that maps ``address``, or None."""
        try:
            return self.table.lookup(address)
        except Fault:
            return None

    def finder(self) -> Callable[[int], Place | None]:
        """Return a lookup that is made for addresses near each other, while no table is dropped.

        The last table that a leaf was found in is remembered: the next leaf in it takes one read.
        """
        walker, form, load = self.table.walker, self.format, self._load
        known: tuple[int, int, int, int] | None = None

        def find(address: int) -> Place | None:
            nonlocal known
            if known is not None and address >> known[0] == known[1]:
                at = self._slot(known[2], known[3], address)
                entry, shift = load(at), self.shifts[known[3]]
                if self._is_leaf(entry, known[3]):
                    return Place(address >> shift << shift, form.output_of(entry) >> shift << shift, shift, entry, at)
            try:
                raw = walker.descend(self.table.node(address, Access.LOAD), address, Access.LOAD)
            except Fault:
                return None
            output, shift, entry, at, _, depth, _ = raw
            bits = self.widths[depth]
            base = at - (address >> shift & (1 << bits) - 1) * form.entry_bytes
            known = shift + bits, address >> shift + bits, base, depth
            return Place(address >> shift << shift, output >> shift << shift, shift, entry, at)

        return find

    def _slot(self, base: int, depth: int, address: int) -> int:
        return base + (address >> self.shifts[depth] & (1 << self.widths[depth]) - 1) * self.format.entry_bytes

    def _is_leaf(self, entry: int, depth: int) -> bool:
        return self.format.valid(entry) and self.format.levels[depth].leaf(entry)

    def _is_table(self, entry: int, depth: int) -> bool:
        return self.format.valid(entry) and not self.format.levels[depth].leaf(entry)

    def prepare(self, address: int, depth: int) -> dict[int, int]:
        """Allocate the tables that an insertion at level ``depth`` may need, by a look that no lock protects.

        :returns: address of each new table, by its level; give what remains to :meth:`release`.
        :raises OutOfPagesError: if there are no pages; none is kept then.
        """
        base, spares = self.table.root.base, {}
        present = True
        try:
            for level in range(depth):
                if present:
                    entry = self._load(self._slot(base, level, address))
                    present = self._is_table(entry, level)
                    base = self.format.table_of(entry)
                if not present:
                    spares[level + 1] = self.allocator.allocate(self.format.table_bytes(self.widths[level + 1]))
        except OutOfPagesError:
            self.release(spares)
            raise
        return spares

    def release(self, spares: dict[int, int]) -> None:
        """Give back the tables that an insertion did not use."""
        for page in spares.values():
            self.allocator.free(page)
        spares.clear()

    def insert(self, address: int, entry: int, depth: int, spares: dict[int, int]) -> Insertion:
        """Put the leaf ``entry`` at level ``depth`` for ``address``.

        A larger leaf in the way is removed and flushed; a table in the way is dropped with all below it. Bits
        of a leaf that is there are only ever added to: taking one away needs :meth:`remove` first.

        :param spares: from :meth:`prepare`; what is used is taken out.
        """
        base = self.table.root.base
        for level in range(depth):
            slot = self._slot(base, level, address)
            old = self._load(slot)
            if self._is_leaf(old, level):
                if level + 1 not in spares:
                    return Insertion.AGAIN
                self._clear_leaf(slot, old, level, address)
                old = 0
            if self.format.valid(old):
                base = self.format.table_of(old)
                continue
            page = spares.pop(level + 1, None)
            if page is None:
                return Insertion.NO_MEMORY
            self._store(slot, self.format.table_entry(page, self.widths[level + 1]))
            base = page
        return self._insert_leaf(self._slot(base, depth, address), entry, depth, address)

    def _insert_leaf(self, slot: int, entry: int, depth: int, address: int) -> Insertion:
        old = self._load(slot)
        if self._is_leaf(old, depth):
            if old == entry:
                return Insertion.SAME
            form = self.format
            flags = form.permission_mask | form.accessed | form.dirty
            if (old ^ entry) & ~flags and not self.habits.merges_targets:
                self._clear_leaf(slot, old, depth, address)
                self._store(slot, entry)
                return Insertion.ADDED
            self._store(slot, self.merged(old, entry))
            return Insertion.MERGED
        if self.format.valid(old):
            self._drop_table(slot, old, depth, address)
        self._store(slot, entry)
        return Insertion.ADDED

    def merged(self, old: int, new: int) -> int:
        """Return ``old`` with all that ``new`` permits added."""
        form = self.format
        if self.habits.merges_targets:
            return old | new
        return form.with_flags(
            old, form.permissions_of(old) | form.permissions_of(new),
            accessed=bool((old | new) & form.accessed), dirty=bool((old | new) & form.dirty),
        )  # fmt: skip

    def _clear_leaf(self, slot: int, old: int, depth: int, address: int, flush_at: int | None = None) -> None:
        shift = self.shifts[depth]
        at = align_down(address if flush_at is None else flush_at, shift)
        self.remove_place(Place(at, self.format.output_of(old) >> shift << shift, shift, old, slot))

    def _drop_table(self, slot: int, old: int, depth: int, address: int) -> None:
        """Clear a directory entry, flush the walk cache, then unmap and free all below it."""
        self._store(slot, 0)
        self.flush(Flush(self.tag, FlushKind.WALK_CACHE))
        self._free_below(self.format.table_of(old), depth + 1, align_down(address, self.shifts[depth]), unmap=True)

    def _free_below(self, base: int, depth: int, start: int, *, unmap: bool) -> None:
        for index, entry in self.table.valid_entries(base, self.widths[depth], start, depth):
            slot = base + index * self.format.entry_bytes
            address = start | index << self.shifts[depth]
            if self._is_leaf(entry, depth):
                if unmap:
                    target = self.format.output_of(entry) if self.habits.flushes_children_by_target else None
                    self._clear_leaf(slot, entry, depth, address, target)
            else:
                self._free_below(self.format.table_of(entry), depth + 1, address, unmap=unmap)
        self.allocator.free(base)

    def remove(self, address: int) -> Mapping | None:
        """Remove the leaf that maps ``address`` and flush its page; return it as it was, or None if there was none."""
        found = self.lookup(address)
        if found is None or found.entry is None or found.entry_address is None:
            return None
        place = Place(found.page_start, found.target_start, found.page_shift, found.entry, found.entry_address)
        self.remove_place(place)
        return found

    def remove_place(self, place: Place) -> None:
        """Remove a leaf that :meth:`finder`'s lookup has just found, and flush its page."""
        self._store(place.entry_address, 0)
        self.flush(Flush(self.tag, FlushKind.PAGE, place.start, place.shift))
        if self.removed is not None and (self.heard is None or self.heard()):
            walker = self.table.walker
            found = walker.as_found(
                place.entry, place.entry_address, self.depths[place.shift], place.shift, place.start
            )
            self.removed(walker.mapping(place.start, found))

    def free(self) -> None:
        """Free the root of a table that is empty."""
        self.allocator.free(self.table.root.base)

    def add_flags(self, address: int, *, accessed: bool, dirty: bool) -> bool:
        """Set accessed or dirty in the leaf of ``address``; no flush is needed for that.

        :returns: False, and nothing done, if there is no leaf, or dirty is wanted of one that is not writable.
        """
        return self._change(address, accessed=accessed, dirty=dirty, clear=False) is not None

    def clear_flags(self, address: int, *, accessed: bool, dirty: bool) -> Mapping | None:
        """Clear accessed or dirty in the leaf of ``address``; return the leaf as it was. The caller flushes."""
        return self._change(address, accessed=accessed, dirty=dirty, clear=True)

    def _change(self, address: int, *, accessed: bool, dirty: bool, clear: bool) -> Mapping | None:
        found = self.lookup(address)
        if found is None or found.entry is None or found.entry_address is None:
            return None
        form = self.format
        if dirty and not clear and not form.may_write(found.entry):
            return None
        bits = (form.accessed if accessed else 0) | (form.dirty if dirty else 0)
        entry = found.entry & ~bits if clear else found.entry | bits
        if entry != found.entry:
            self._store(found.entry_address, entry)
        return found

    def clear_tree(self) -> None:
        """Free every table below the root, and empty the root. The caller flushes the tag."""
        base = self.table.root.base
        for index, entry in self.table.valid_entries(base, self.widths[0]):
            self._store(base + index * self.format.entry_bytes, 0)
            if self._is_table(entry, 0):
                self._free_below(self.format.table_of(entry), 1, index << self.shifts[0], unmap=False)
