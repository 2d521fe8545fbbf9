"""The engine that walks every radix-shaped table, whatever its architecture.

There is one loop over levels, :meth:`RadixWalker.find`. It reads its entries through the memory that
holds the table: where that is a guest's memory, reading an entry is a translation of its own, and so
walks in two dimensions, or in more, need no code here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs
import numpy as np

from nestmmu.access import Access
from nestmmu.errors import OutsideMemoryError, TooLargeError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.mappings import Mapping
from nestmmu.memory import FRAME_BYTES, PhysicalMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu.formats import RadixFormat
    from nestmmu.memory import Memory


@attrs.define(eq=False)
class Step:
    """One entry read by a walk, in the order of reading."""

    stage: str
    """The table's stage, as the walker was told it."""
    memory: str
    """The name of the memory that holds the table."""
    rank: int
    """How many translations lie between that memory and the machine's."""
    input_address: int
    """The address that this table translates, in bytes."""
    depth: int
    """0 for the root."""
    level: str
    index: int
    entry_address: int
    """Where the entry lies in the memory that holds the table, in bytes."""
    entry: int
    format: RadixFormat

    @property
    def meaning(self) -> str:
        """The entry, decoded for people."""
        return self.format.describe(self.entry, self.depth)


class Found(NamedTuple):
    """A leaf that a walk ended at."""

    output: int
    """Output address, in bytes, of the very address that was walked."""
    shift: int
    """Log2 of the page's bytes."""
    entry: int
    entry_address: int
    """In the memory that holds the table."""
    where: int
    """The entry's physical address."""
    depth: int


@attrs.frozen
class Root:
    """Where a tree begins: what an architecture's root register or root entry says."""

    base: int
    """Address of the root table, in bytes, in the memory that holds the table."""
    index_bits: int
    """Log2 of the number of entries in the root table."""


class RadixWalker:
    """Walks of one format in one memory, from any root.

    :param memory: holds the tables.
    :param stage: what faults and steps call this table.
    :param accessed_dirty: what :meth:`translate` does with accessed and dirty.
    """

    def __init__(
        self,
        table_format: RadixFormat,
        memory: Memory,
        stage: str,
        accessed_dirty: AccessedDirty = AccessedDirty.IGNORE,
    ) -> None:
        self.format = table_format
        self.memory = memory
        self.stage = stage
        self.accessed_dirty = accessed_dirty
        self.trace: list[Step] | None = None
        """Where to add the steps of each walk; None: they are not made."""
        order = table_format.byteorder
        physical = memory.physical
        self._load = physical.loader(table_format.entry_bytes, order)
        self._locate = None if isinstance(memory, PhysicalMemory) else memory.locate
        self._levels = tuple(
            (depth, level.index_bits, level.leaf.mask, level.leaf.value, level.may_leaf, level.may_table)
            for depth, level in enumerate(table_format.levels)
        )
        self._reserved = tuple((match.mask, match.value) for match in table_format.reserved)

    def fault(self, kind: FaultKind, address: int, access: Access, found: Found | None = None) -> Fault:
        """Return a fault of this table; ``found`` is the leaf that it is about."""
        if found is None:
            return Fault(kind, self.stage, access, address)
        return Fault(
            kind, self.stage, access, address,
            level=found.depth, entry_address=found.entry_address, entry=found.entry,
        )  # fmt: skip

    def find(self, base: int, bits: int, address: int, access: Access = Access.LOAD) -> Found:
        """Walk from a root table to a leaf. Permissions, accessed and dirty are not looked at.

        :param base: address of the root table, in bytes.
        :param bits: index bits of the root table.
        :param access: what a fault will say was tried.
        :raises Fault: NOT_PRESENT, MALFORMED or UNREADABLE of this table, or what reading an entry raised.
        """
        form = self.format
        load, locate, trace = self._load, self._locate, self.trace
        valid_mask, valid_value = form.valid.mask, form.valid.value
        entry_bytes, shift = form.entry_bytes, form.address_shift
        remaining = form.input_bits
        at = entry = depth = None
        for depth, widths, leaf_mask, leaf_value, may_leaf, may_table in self._levels:
            if bits not in widths:
                if form.late_geometry and locate is not None:
                    self._reach(base, bits, remaining, address)
                break
            low = (entry_bytes << bits) - 1
            if base & low:
                if form.strict_table:
                    break
                base &= ~low
            remaining -= bits
            at = base + (address >> remaining & (1 << bits) - 1) * entry_bytes
            try:
                where = at if locate is None else locate(at, Access.LOAD)
                entry = load(where)
            except OutsideMemoryError:
                raise Fault(FaultKind.UNREADABLE, self.stage, access, address, depth, entry_address=at) from None
            except Fault as fault:
                fault.implicit = True
                raise
            if trace is not None:
                trace.append(self._step(address, depth, at, entry, at - base))
            if entry & valid_mask != valid_value:
                raise Fault(FaultKind.NOT_PRESENT, self.stage, access, address, depth, entry_address=at, entry=entry)
            if self._reserved and any(entry & mask == value for mask, value in self._reserved):
                break
            if entry & leaf_mask == leaf_value:
                output = (entry & form.output_mask) << shift
                low = (1 << remaining) - 1
                if not may_leaf or (output & low and form.strict_output):
                    break
                return Found(output & ~low | address & low, remaining, entry, at, where, depth)
            if not may_table:
                break
            base = (entry & form.table_mask) << shift
            bits = form.next_bits(entry, depth)
        raise Fault(FaultKind.MALFORMED, self.stage, access, address, depth, entry_address=at, entry=entry)

    def _reach(self, base: int, bits: int, remaining: int, address: int) -> None:
        """Translate the address that an entry of an illegal width would have, for what that does on the way."""
        offset = (address >> max(remaining - bits, 0) & (1 << bits) - 1) * self.format.entry_bytes
        base -= base % self.format.table_bytes(bits)
        try:
            self.memory.locate(base + offset, Access.LOAD)
        except Fault as fault:
            fault.implicit = True
            raise

    def _step(self, address: int, depth: int, at: int, entry: int, offset: int) -> Step:
        form = self.format
        return Step(
            self.stage, self.memory.name, self.memory.rank, address, depth, form.levels[depth].name,
            offset // form.entry_bytes, at, entry, form,
        )  # fmt: skip

    def touch(self, found: Found, address: int, access: Access) -> int:
        """Apply the accessed and dirty policy to a leaf; return the entry as it is then.

        :raises Fault: ACCESSED_DIRTY, where the policy is to fault and a bit is missing.
        """
        form = self.format
        needed = form.accessed | form.dirty if access is Access.STORE else form.accessed
        entry = found.entry
        if entry & needed == needed or self.accessed_dirty is AccessedDirty.IGNORE:
            return entry
        if self.accessed_dirty is AccessedDirty.FAULT:
            raise self.fault(FaultKind.ACCESSED_DIRTY, address, access, found)
        entry |= needed
        self.memory.physical.store(found.where, entry, form.entry_bytes, form.byteorder)
        return entry

    def resolve(self, base: int, bits: int, address: int, access: Access) -> Found:
        """Walk, check the permission, and apply the accessed and dirty policy.

        :raises Fault: PERMISSION, ACCESSED_DIRTY, or what :meth:`find` raises.
        """
        found = self.find(base, bits, address, access)
        if not self.format.permissions_of(found.entry) & access:
            raise self.fault(FaultKind.PERMISSION, address, access, found)
        entry = self.touch(found, address, access)
        return found if entry == found.entry else found._replace(entry=entry)

    def as_found(self, entry: int, entry_address: int, depth: int, shift: int) -> Found:
        """Return a leaf that was met elsewhere than in a walk, for :meth:`mapping` of its first address."""
        output = self.format.output_of(entry) >> shift << shift
        return Found(output, shift, entry, entry_address, entry_address, depth)

    def mapping(self, address: int, found: Found) -> Mapping:
        """Return ``found`` as a mapping of ``address``."""
        form, entry = self.format, found.entry
        return Mapping(
            address, found.output, found.shift, form.permissions_of(entry),
            bool(entry & form.accessed), bool(entry & form.dirty), entry & form.attributes,
            found.entry_address, entry,
        )  # fmt: skip


class RadixTable:
    """One table: a walker and a root."""

    def __init__(self, walker: RadixWalker, root: Root) -> None:
        self.walker = walker
        self.root = root

    @property
    def format(self) -> RadixFormat:
        """The table's format."""
        return self.walker.format

    def translate(self, address: int, access: Access) -> Mapping:
        """Return where an access to ``address`` ends, accessed and dirty updated by the walker's policy.

        :raises Fault: if it does not.
        """
        root = self.root
        return self.walker.mapping(address, self.walker.resolve(root.base, root.index_bits, address, access))

    def locate(self, address: int, access: Access) -> int:
        """Return only the output address of :meth:`translate`."""
        root = self.root
        return self.walker.resolve(root.base, root.index_bits, address, access).output

    def lookup(self, address: int, access: Access = Access.LOAD) -> Mapping:
        """Return the mapping of ``address``, whatever it permits; nothing is updated.

        :raises Fault: if there is none; ``access`` is what the fault will say was tried.
        """
        root = self.root
        return self.walker.mapping(address, self.walker.find(root.base, root.index_bits, address, access))

    def walk(self, address: int, access: Access = Access.LOAD) -> Iterator[Step]:
        """Walk to the leaf of ``address`` and yield each entry read, those of tables below this one included.

        :raises Fault: after the last step, if the walk ends in one.
        """
        outer, self.walker.trace = self.walker.trace, []
        try:
            self.lookup(address, access)
        except Fault as fault:
            yield from self.walker.trace
            raise fault from None
        else:
            yield from self.walker.trace
        finally:
            self.walker.trace = outer

    def leaves(self) -> Iterator[Mapping]:
        """Yield every leaf of the table in the order of input addresses.

        :raises Fault: MALFORMED or UNREADABLE at an entry that breaks the format.
        :raises TooLargeError: if more tables are reached than memory holds (loops, shared tables).
        """
        physical = self.walker.memory.physical
        budget = [(physical.frame_count() + 1) * (FRAME_BYTES // self.format.entry_bytes // 16) + 64]
        yield from self._leaves(self.root.base, self.root.index_bits, 0, 0, self.format.input_bits, budget)

    def _leaves(
        self, base: int, bits: int, depth: int, start: int, remaining: int, budget: list[int]
    ) -> Iterator[Mapping]:
        form, walker = self.format, self.walker
        budget[0] -= 1
        if budget[0] < 0:
            message = f"the table at {self.root.base:#x} reaches more tables than memory holds: it loops or shares"
            raise TooLargeError(message)
        level = form.levels[depth] if depth < len(form.levels) else None
        if level is None or bits not in level.index_bits or base % form.table_bytes(bits) and form.strict_table:
            raise Fault(FaultKind.MALFORMED, walker.stage, Access.LOAD, start, depth, entry_address=base)
        base -= base % form.table_bytes(bits)
        remaining -= bits
        for index, entry in self.valid_entries(base, bits, start, depth):
            address = start | index << remaining
            at = base + index * form.entry_bytes
            if level.leaf(entry):
                output = form.output_of(entry)
                low = (1 << remaining) - 1
                if not level.may_leaf or output & low and form.strict_output:
                    raise Fault(FaultKind.MALFORMED, walker.stage, Access.LOAD, address, depth, entry_address=at)
                yield walker.mapping(address, walker.as_found(entry, at, depth, remaining))
            else:
                yield from self._leaves(
                    form.table_of(entry), form.next_bits(entry, depth), depth + 1, address, remaining, budget
                )

    def valid_entries(self, base: int, bits: int, start: int = 0, depth: int = 0) -> list[tuple[int, int]]:
        """Return (index, entry) of each valid entry of the table at ``base`` with 2**bits entries.

        :param start: the first input address of that table, for the fault.
        :raises Fault: UNREADABLE, if the table cannot be read.
        """
        form, walker = self.format, self.walker
        try:
            raw = walker.memory.read(base, form.table_bytes(bits))
        except (OutsideMemoryError, Fault):
            raise Fault(
                FaultKind.UNREADABLE, walker.stage, Access.LOAD, start, depth, entry_address=base
            ) from None
        kind = np.dtype(f"{'>' if form.byteorder == 'big' else '<'}u{form.entry_bytes}")
        words = np.frombuffer(raw, kind)
        chosen = np.nonzero((words & kind.type(form.valid.mask)) == kind.type(form.valid.value))[0]
        return [(index, int(words[index])) for index in chosen.tolist()]
