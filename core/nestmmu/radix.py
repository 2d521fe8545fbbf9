"""The engine that walks every radix-shaped table, whatever its architecture.

There is one loop over levels, :meth:`RadixWalker.find`. It reads its entries through the memory that
holds the table: where that is a guest's memory, reading an entry is a translation of its own, and so
walks in two dimensions, or in more, need no code here.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import numpy as np

from nestmmu.access import Access
from nestmmu.errors import OutsideMemoryError, TooLargeError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty, InputRule
from nestmmu.mappings import Mapping
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT, PhysicalMemory, codec

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

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
    permissions: int


Node = tuple[Any, int, int, int, int, int]
"""A decoded entry: (nodes of the table's entries by their values, table, shift of the index, mask of the index,
depth of the
table, 0), or (None, page, its shift, mask of the offset in it, depth of the leaf, permissions)."""
Raw = tuple[int, int, int, int, int, int, int]
"""The fields of a :class:`Found`, bare."""
_LOAD = Access.LOAD
_OFFSET = FRAME_BYTES - 1
_MOST_NODES = 1 << 16
"""How many decoded entries are remembered at each level."""


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
        self.owner: Hashable = None
        """Under which tag hardware keeps what it reads on a walk: a CPU says so before one; None: nothing is kept."""
        physical = memory.physical
        self._load = physical.loader(table_format.entry_bytes, table_format.byteorder)
        self._locate = None if isinstance(memory, PhysicalMemory) else memory.locator()
        self._frames = physical.readable_frames()
        self._unpack = codec(table_format.entry_bytes, table_format.byteorder).unpack_from
        self._scale = table_format.entry_bytes.bit_length() - 1
        touched = table_format.accessed, table_format.accessed | table_format.dirty
        self._needed = {Access.LOAD: touched[0], Access.FETCH: touched[0], Access.STORE: touched[1]}
        self._memos: dict[tuple[int, int], dict[int, Node]] = {}
        self._roots: dict[tuple[int, int], Node] = {}
        self.bounded = table_format.input_rule is not InputRule.ANY
        """Whether there are addresses that the format does not take."""

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
        return Found._make(self.find_raw(base, bits, address, access))

    def find_raw(self, base: int, bits: int, address: int, access: Access) -> Raw:
        """Do as :meth:`find`, and return the fields of :class:`Found` as a bare tuple."""
        return self.descend(self.root_node(base, bits, address, access), address, access)

    def descend(self, node: Node, address: int, access: Access) -> Raw:
        """Walk down from a root that :meth:`root_node` decoded; the one loop over levels that there is.

        What an entry says is a function of its value alone, so decoded entries are remembered by value, never by
        address.
        """
        load, locate, trace, frames, unpack = self._load, self._locate, self.trace, self._frames, self._unpack
        scale = self._scale
        nodes, base, shift, mask, depth, permissions = node
        while True:
            where = at = base + ((address >> shift & mask) << scale)
            try:
                if locate is not None:
                    where = locate(at, _LOAD)
                frame = frames.get(where >> FRAME_SHIFT)
                entry = load(where) if frame is None else unpack(frame, where & _OFFSET)[0]
            except OutsideMemoryError:
                raise Fault(FaultKind.UNREADABLE, self.stage, access, address, depth, entry_address=at) from None
            except Fault as fault:
                fault.implicit = True
                raise
            if trace is not None:
                trace.append(self._step(address, depth, at, entry, at - base))
            node = nodes.get(entry) or self._decode(nodes, entry, depth, shift, at, address, access)
            nodes, base, shift, mask, depth, permissions = node
            if nodes is None:
                return base | address & mask, shift, entry, at, where, depth, permissions

    def _decode(
        self, nodes: dict[int, Node], entry: int, depth: int, shift: int, at: int, address: int, access: Access
    ) -> Node:
        """Decode an entry that was not met before, and remember it.

        :raises Fault: NOT_PRESENT or MALFORMED.
        """
        node = self._node(entry, depth, shift, address)
        if isinstance(node, FaultKind):
            raise Fault(node, self.stage, access, address, depth, entry_address=at, entry=entry)
        if len(nodes) > _MOST_NODES:
            nodes.clear()
        nodes[entry] = node
        return node

    def root_node(self, base: int, bits: int, address: int, access: Access) -> Node:
        """Return a root table, decoded, for :meth:`descend`.

        :raises Fault: MALFORMED, if it has a size or an alignment that the format forbids; INPUT_RANGE, if the format
            does not take the address.
        """
        if self.bounded and self.format.canonical(address) != address:
            raise Fault(FaultKind.INPUT_RANGE, self.stage, access, address)
        node = self._roots.get((base, bits))
        if node is None:
            decoded = self._table(base, bits, 0, self.format.input_bits, address)
            if isinstance(decoded, FaultKind):
                raise Fault(decoded, self.stage, access, address)
            if len(self._roots) > _MOST_NODES:
                self._roots.clear()
            node = self._roots[base, bits] = decoded
        return node

    def _node(self, entry: int, depth: int, shift: int, address: int) -> Node | FaultKind:
        """Decode an entry of level ``depth``, whose index begins at bit ``shift`` of the address."""
        form = self.format
        level = form.levels[depth]
        if entry & form.valid.mask != form.valid.value:
            return FaultKind.NOT_PRESENT
        if any(match(entry) for match in (*form.reserved, *level.reserved)):
            return FaultKind.MALFORMED
        if level.leaf(entry):
            group = level.group(entry)
            output, low = form.output_of(entry), (1 << shift) - 1
            if not level.may_leaf or (output & low and form.strict_output):
                return FaultKind.MALFORMED
            shift += group
            low = (1 << shift) - 1
            return None, output & ~low, shift, low, depth, form.permissions_of(entry)
        if not level.may_table:
            return FaultKind.MALFORMED
        return self._table(form.table_of(entry), form.next_bits(entry, depth), depth + 1, shift, address)

    def _table(self, base: int, bits: int, depth: int, shift: int, address: int) -> Node | FaultKind:
        """Decode a pointer to a table of level ``depth``; ``shift`` address bits are left for it and what is below."""
        form = self.format
        if depth >= len(form.levels) or bits not in form.levels[depth].index_bits:
            if form.late_geometry and depth and self._locate is not None:
                self._reach(base, bits, shift, address)
            return FaultKind.MALFORMED
        low = form.table_bytes(bits) - 1
        if base & low and form.strict_table:
            return FaultKind.MALFORMED
        memo = self._memos.setdefault((depth, shift - bits), {})
        return memo, base & ~low, shift - bits, (1 << bits) - 1, depth, 0

    def _reach(self, base: int, bits: int, shift: int, address: int) -> None:
        """Translate the address that an entry of an illegal width would have, for what that does on the way."""
        offset = (address >> max(shift - bits, 0) & (1 << bits) - 1) * self.format.entry_bytes
        base -= base % self.format.table_bytes(bits)
        try:
            self.memory.locate(base + offset, Access.LOAD)
        except OutsideMemoryError:
            return
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
        needed = self._needed[access]
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
        if not found.permissions & access:
            raise self.fault(FaultKind.PERMISSION, address, access, found)
        entry = self.touch(found, address, access)
        return found if entry == found.entry else found._replace(entry=entry)

    def reach(self, node: Node, address: int, access: Access) -> int:
        """Return the output address of an access, in bytes, from a root that :meth:`root_node` decoded."""
        raw = self.descend(node, address, access)
        if not raw[6] & access or raw[2] & (needed := self._needed[access]) != needed:
            self.settle(raw, address, access)
        return raw[0]

    def settle(self, raw: Raw, address: int, access: Access) -> None:
        """Check the permission of a leaf from :meth:`find_raw`, and touch it.

        :raises Fault: PERMISSION or ACCESSED_DIRTY.
        """
        found = Found._make(raw)
        if not found.permissions & access:
            raise self.fault(FaultKind.PERMISSION, address, access, found)
        self.touch(found, address, access)

    def as_found(self, entry: int, entry_address: int, depth: int, shift: int, address: int) -> Found:
        """Return a leaf that was met elsewhere than in a walk, for :meth:`mapping` of its first address.

        Of a leaf that stands for a group, only the page of 2**``shift`` bytes at ``address``.
        """
        output = self.format.output_of(entry) >> shift << shift
        group = self.format.levels[depth].group(entry)
        if group:
            within = (1 << shift + group) - 1
            output = output & ~within | address & within
        return Found(output, shift, entry, entry_address, entry_address, depth, self.format.permissions_of(entry))

    def mapping(self, address: int, found: Found) -> Mapping:
        """Return ``found`` as a mapping of ``address``."""
        form, entry = self.format, found.entry
        return Mapping(
            address, found.output, found.shift, found.permissions,
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

    @property
    def granule_shift(self) -> int:
        """Log2 of the bytes of the smallest page that the format has."""
        form = self.format
        return form.input_bits - sum(max(level.index_bits) for level in form.levels)

    def translate(self, address: int, access: Access) -> Mapping:
        """Return where an access to ``address`` ends, accessed and dirty updated by the walker's policy.

        :raises Fault: if it does not.
        """
        root = self.root
        return self.walker.mapping(address, self.walker.resolve(root.base, root.index_bits, address, access))

    def locate(self, address: int, access: Access) -> int:
        """Return only the output address of :meth:`translate`."""
        return self.walker.reach(self.node(address, access), address, access)

    def locator(self) -> Callable[[int, Access], int]:
        """Return :meth:`locate`, made for being called often."""
        if self.walker.bounded:
            return self.locate
        try:
            return functools.partial(self.walker.reach, self.node(0, Access.LOAD))
        except Fault:
            return self.locate

    def node(self, address: int, access: Access) -> Node:
        """Return the root, decoded.

        :raises Fault: MALFORMED or INPUT_RANGE, about ``address``.
        """
        return self.walker.root_node(self.root.base, self.root.index_bits, address, access)

    def lookup(self, address: int, access: Access = Access.LOAD) -> Mapping:
        """Return the mapping of ``address``, whatever it permits; nothing is updated.

        :raises Fault: if there is none; ``access`` is what the fault will say was tried.
        """
        root = self.root
        return self.walker.mapping(address, self.walker.find(root.base, root.index_bits, address, access))

    def walk(self, address: int, access: Access = Access.LOAD) -> Iterator[Step]:
        """Walk to the leaf of ``address`` and yield each entry of this table that was read.

        Entries of the tables through which these are found are noted where their own walkers trace.

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

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[Mapping]:
        """Yield every leaf that maps anything in [``start``, ``end``), in the order of input addresses.

        Each entry of a group of entries that are one page is a leaf of its own, of its level's size.

        :param end: in bytes, as ``start``; None: the end of what the format translates.
        :raises Fault: MALFORMED or UNREADABLE at an entry that breaks the format.
        :raises TooLargeError: if more tables are reached than memory holds (loops, shared tables).
        """
        physical = self.walker.memory.physical
        narrowest = min(4, *(bits for level in self.format.levels for bits in level.index_bits))
        budget = [(physical.frame_count() + 1) * (FRAME_BYTES // self.format.table_bytes(narrowest)) + 64]
        limit = self.format.canonical((1 << self.format.input_bits) - 1) + 1 if end is None else end
        yield from self._leaves(
            self.root.base, self.root.index_bits, 0, 0, self.format.input_bits, (start, limit), budget
        )

    def _leaves(
        self, base: int, bits: int, depth: int, first: int, remaining: int, span: tuple[int, int], budget: list[int]
    ) -> Iterator[Mapping]:
        form, walker = self.format, self.walker
        budget[0] -= 1
        if budget[0] < 0:
            message = f"the table at {self.root.base:#x} reaches more tables than memory holds: it loops or shares"
            raise TooLargeError(message)
        level = form.levels[depth] if depth < len(form.levels) else None
        if level is None or bits not in level.index_bits or (base % form.table_bytes(bits) and form.strict_table):
            raise Fault(FaultKind.MALFORMED, walker.stage, Access.LOAD, first, depth, entry_address=base)
        base -= base % form.table_bytes(bits)
        remaining -= bits
        for index, entry in self.valid_entries(base, bits, first, depth):
            address = form.canonical(first | index << remaining)
            if address >= span[1] or address + (1 << remaining) <= span[0]:
                continue
            at = base + index * form.entry_bytes
            if any(match(entry) for match in (*form.reserved, *level.reserved)):
                raise Fault(FaultKind.MALFORMED, walker.stage, Access.LOAD, address, depth, entry_address=at)
            if level.leaf(entry):
                low = (1 << remaining) - 1
                if not level.may_leaf or (form.output_of(entry) & low and form.strict_output):
                    raise Fault(FaultKind.MALFORMED, walker.stage, Access.LOAD, address, depth, entry_address=at)
                yield walker.mapping(address, walker.as_found(entry, at, depth, remaining, address))
            else:
                below, width = form.table_of(entry), form.next_bits(entry, depth)
                yield from self._leaves(below, width, depth + 1, address, remaining, span, budget)

    def valid_entries(self, base: int, bits: int, start: int = 0, depth: int = 0) -> list[tuple[int, int]]:
        """Return (index, entry) of each valid entry of the table at ``base`` with 2**bits entries.

        :param start: the first input address of that table, for the fault.
        :raises Fault: UNREADABLE, if the table cannot be read.
        """
        form, walker = self.format, self.walker
        try:
            raw = walker.memory.read(base, form.table_bytes(bits))
        except (OutsideMemoryError, Fault):
            raise Fault(FaultKind.UNREADABLE, walker.stage, Access.LOAD, start, depth, entry_address=base) from None
        kind = np.dtype(f"{'>' if form.byteorder == 'big' else '<'}u{form.entry_bytes}")
        words = np.frombuffer(raw, kind)
        chosen = np.nonzero((words & kind.type(form.valid.mask)) == kind.type(form.valid.value))[0]
        return [(index, int(words[index])) for index in chosen.tolist()]
