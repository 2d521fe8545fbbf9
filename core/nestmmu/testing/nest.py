"""A nest under test: a host, its guest, and two guests of that, whose tables are written by raw words."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, Protocol, cast

import attrs

from nestmmu import upkeep
from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.hypervisor import Attempt
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.memory import PhysicalMemory
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.points import finish
from nestmmu.radix import RadixWalker
from nestmmu.slots import HostPage, Slot, Slots
from nestmmu.testing.trees import Tree
from nestmmu.tlb import TlbPlugin
from nestmmu.walk_cache import CachedWalker, WalkCachePlugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nestmmu.access import Access
    from nestmmu.formats import AccessedDirty, RadixFormat
    from nestmmu.guests import Guest, NestedGuest
    from nestmmu.host_faults import HostFaultHandler
    from nestmmu.hypervisor import Hypervisor
    from nestmmu.memory import Memory
    from nestmmu.nested_faults import NestedFaultHandler
    from nestmmu.nested_guests import NestedGuests
    from nestmmu.testing.architecture import RadixArchitecture
    from nestmmu.testing.capabilities import LevelShape, Scope
    from nestmmu.testing.ends import Reached, Refused
    from nestmmu.testing.trees import Page

CHUNKS = 4
"""Pieces of the guest's data that its host can move about, each as large as the largest page of the nest."""


@attrs.frozen
class Leaf:
    """A page, as someone's raw words have it."""

    start: int
    """In bytes."""
    shift: int
    target: int
    """In bytes."""
    rights: int
    accessed: bool = True
    dirty: bool = True

    @classmethod
    def of(cls, start: int, shift: int, page: Page) -> Leaf:
        """Return the page of a word, and where it is."""
        return cls(start, shift, page.target, page.rights, page.accessed, page.dirty)


@attrs.frozen
class Ended:
    """How an access of a guest ended."""

    address: int | None
    """In the machine's memory, in bytes; None: a hypervisor ended it otherwise."""
    faults: list[tuple[Exit, Outcome]]
    """What the host handled on the way."""

    @property
    def outcome(self) -> Outcome | None:
        """What the host said last, if that ended the access."""
        return self.faults[-1][1] if self.address is None and self.faults else None

    @property
    def verdict(self) -> Verdict | None:
        """Who goes on; None where the access ended in an address."""
        return None if self.outcome is None else self.outcome.verdict


class Pages(Protocol):
    """A table of the guest hypervisor, by the backdoor."""

    def map(
        self, address: int, target: int, shift: int, rights: int, *, accessed: bool = True, dirty: bool = True
    ) -> object:
        """Write a page."""
        ...

    def clear(self, address: int, shift: int) -> None:
        """Unmap a page."""
        ...

    def flags(self, address: int) -> tuple[bool, bool]:
        """Return accessed and dirty as the raw word of an address has them; neither, where there is none."""
        ...

    def places(self, address: int) -> list[int]:
        """Return where in the guest's memory each entry stands that a search for ``address`` may read, in its order."""
        ...

    def allowed(self, address: int, access: Access) -> Reached | Refused:
        """Return how an access ends in this table, by the author's own reading of the raw words."""
        ...


class MovingBacking:
    """What the host keeps behind its guest: the tables in one piece, and each chunk of data anywhere."""

    def __init__(self, tables: Slot, tables_at: int, data: Slot, data_at: int, page_shift: int) -> None:
        self.tables, self.tables_at = tables, tables_at
        self.data = data
        self.chunk = data.size // CHUNKS
        self.page_shift = page_shift
        self.homes = [data_at + place * self.chunk for place in (2, 0, 3, 1)]
        self.next_home = data_at + CHUNKS * self.chunk
        self.sealed: set[int] = set()
        """Chunks that the host can only read."""
        self.gone: set[int] = set()
        """Chunks for which the host has no page to give."""

    def chunk_of(self, address: int) -> int:
        """Return the number of the chunk that holds an address; -1 for the tables."""
        return (address - self.data.base) // self.chunk if address >= self.data.base else -1

    def where(self, address: int) -> int:
        """Return where an address of the guest is in the machine's memory."""
        if address < self.data.base:
            return self.tables_at + address - self.tables.base
        return self.homes[self.chunk_of(address)] + (address - self.data.base) % self.chunk

    def move(self, chunk: int) -> None:
        """Keep a chunk elsewhere from now on."""
        self.homes[chunk] = self.next_home
        self.next_home += self.chunk

    def page(self, slot: Slot, address: int, *, write: bool) -> HostPage | None:
        """Return the page behind an address."""
        del slot
        chunk = self.chunk_of(address)
        if chunk in self.gone or (write and chunk in self.sealed):
            return None
        return HostPage(self.where(address), self.page_shift, chunk not in self.sealed)


class Nest(abc.ABC):
    """The levels. An author names places in memory, builds the hypervisor, and says how its guest asks it for things.

    :param shift: log2 of the largest page with which the host maps its guest.
    """

    host_tables: range
    """Where in the machine's memory the host's tables may be, in bytes."""
    tables: Slot
    """The guest's memory for its own tables; the host leaves it alone."""
    tables_at: int
    """Where that is in the machine's memory."""
    data: Slot
    """The guest's memory for what its guests are led to: :data:`CHUNKS` of the nest's largest pages."""
    data_at: int
    """Where that is in the machine's memory, with as much again, and more, after it."""
    assigned: tuple[AssignedTag, AssignedTag]
    """The tags that the guest gives to its guests."""
    memory_bytes: int = 1 << 64
    host: Hypervisor
    guest: Guest
    guests: NestedGuests[Any]
    """Of ``guest``."""
    host_faults: HostFaultHandler
    nested_faults: NestedFaultHandler

    def __init__(self, shift: int) -> None:
        self.memory = PhysicalMemory(self.memory_bytes)
        self.allocator = PageAllocator(self.memory, self.host_tables.start, self.host_tables.stop)
        self.backing = MovingBacking(self.tables, self.tables_at, self.data, self.data_at, shift)
        self.slots = Slots((self.tables, self.data))
        self.tlb, self.walks = TlbPlugin(), WalkCachePlugin()
        self.build()
        self.host.listeners.extend((self.tlb.flush, self.walks.flush))

    def make_walker(
        self, table_format: RadixFormat, memory: Memory, stage: str, accessed_dirty: AccessedDirty
    ) -> RadixWalker:
        """Return a walker behind :attr:`walks`: what the hook ``nestmmu_walker`` gives where that is registered."""
        plain = RadixWalker(table_format, memory, stage, accessed_dirty)
        return CachedWalker(plain, self.walks.cache, self.walks.stale.append)

    @property
    def small(self) -> int:
        """Log2 of the bytes of the host's base page."""
        return self.guest.base_shift

    @property
    def stale(self) -> list[Any]:
        """What caches were hit with, and the tables did not allow any more."""
        return [*self.tlb.stale, *self.walks.stale]

    @abc.abstractmethod
    def build(self) -> None:
        """Make the host, its guest, the handlers, and a CPU behind :attr:`tlb` and :attr:`walks`."""

    @abc.abstractmethod
    def attempt(self, tag: HardwareTag, access: Access, address: int) -> int | Exit:
        """Do one access of whatever runs under a tag, on the CPU; a missing A or D has to fault.

        :returns: where it ended in the machine's memory, or the exit, decoded from the hardware's record.
        """

    @abc.abstractmethod
    def probe(self, tag: HardwareTag, access: Access, address: int) -> tuple[int, int] | None:
        """Return (address, rights) of what the hardware would do without the host, changing nothing; None: a fault."""

    @abc.abstractmethod
    def reflect(self, outcome: Outcome, exit_: Exit) -> Exit:
        """Return an exit as the guest hypervisor sees it, decoded from the registers that it gets."""

    @abc.abstractmethod
    def pages(self, assigned: AssignedTag) -> Pages:
        """Return the guest's table for one of its guests."""

    @abc.abstractmethod
    def invalidate(self, scope: Scope, assigned: AssignedTag, start: int, shift: int) -> None:
        """Have the guest invalidate, as the architecture has it, a page of one of its guests, or more."""

    def invalidate_range(self, assigned: AssignedTag, start: int, size: int) -> None:
        """Have the guest invalidate small pages of one of its guests that lie side by side, all at once.

        :raises NotImplementedError: where ``Scope.RANGE`` is not among the declared scopes.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def host_pages(self, nested: NestedGuest | None) -> list[Leaf]:
        """Return, by reading raw words, every leaf of the shadow of ``nested``; of the guest's own table for None."""

    @abc.abstractmethod
    def host_table_pages(self) -> list[int]:
        """Return, by reading raw words, the address of every table that the host's roots lead to, roots included."""

    @abc.abstractmethod
    def in_use(self, nested: NestedGuest) -> bool:
        """Tell whether the pages of a shadow, its root's, are handed out."""

    @abc.abstractmethod
    def plant(self, leaf: Leaf) -> None:
        """Write a leaf into the host's table for the guest, by raw words; the host knows nothing of it."""

    def named(self, address: int) -> int:
        """Return the address of a guest's guest that the host's name for it, in faults and events, stands for."""
        return address

    def enter(self, assigned: AssignedTag) -> NestedGuest:
        """Return a guest's guest, made where need be."""
        nested = finish(self.guests.get(assigned, create=True))
        if nested is None:
            message = f"the host cannot make guest {assigned} of its guest: no tag, or no page for its root"
            raise NestmmuError(message)
        finish(self.guests.put(nested))
        return cast("NestedGuest", nested)

    def access(self, assigned: AssignedTag, access: Access, address: int) -> Ended:
        """Have a guest's guest do one access, its host handling what faults."""
        nested = self.enter(assigned)
        return self.run(nested.tag, access, address, lambda exit_: self.handle(nested, exit_))

    def handle(self, nested: NestedGuest, exit_: Exit) -> Outcome:
        """Handle an exit of a guest's guest."""
        return finish(self.nested_faults.handle(nested, exit_))

    def access_own(self, access: Access, address: int) -> Ended:
        """Have the guest itself do one access to its own memory."""
        return self.run(self.guest.tag, access, address, lambda exit_: finish(self.host_faults.handle(exit_)))

    def run(self, tag: HardwareTag, access: Access, address: int, handle: Callable[[Exit], Outcome]) -> Ended:
        """Do one access until it has ended.

        :raises LivelockError: if it does not.
        """
        loop = Attempt[int | Exit](
            lambda: self.attempt(tag, access, address), lambda end: end if isinstance(end, Exit) else None, handle
        )
        end, _ = loop.run()
        return Ended(None if isinstance(end, Exit) else end, loop.faults)

    def forgets(self, flush: Flush, tag: HardwareTag, leaf: Leaf) -> bool:
        """Tell whether an invalidation that the host gave reaches all of a page, on every CPU."""
        if flush.cpu is not None or (flush.tag != tag and not flush.every):
            return False
        if flush.kind in {FlushKind.TAG, FlushKind.TRANSLATIONS}:
            return flush.process is None
        end = flush.address + (1 << flush.page_shift)
        return flush.kind is FlushKind.PAGE and flush.address <= leaf.start and leaf.start + (1 << leaf.shift) <= end

    def sweep(self, start: int, size: int) -> None:
        """Have the host empty its tables for a range of the guest's memory, as one part of a change under way."""
        for address in range(start, start + size, 1 << self.small):
            upkeep.unmap(self.guest, address)

    def unmap(self, start: int, size: int) -> None:
        """Have the host take away what is behind a range of the guest's memory."""
        upkeep.unmap_range(self.guest, start, start + size)

    def age(self, address: int) -> bool:
        """Have the host ask, and forget, whether a page was accessed."""
        return upkeep.age(self.guest, address)

    def take_dirty(self, address: int) -> bool:
        """Have the host ask, and forget, whether a base page was written."""
        return upkeep.take_dirty(self.guest, address)

    def set_dirty_log(self, slot: Slot, *, on: bool) -> Slot:
        """Have the host begin or end to follow what is written."""
        return upkeep.set_dirty_log(self.guest, slot, on=on)

    def dirty_log(self, slot: Slot) -> NDArray[Any]:
        """Return a bit for each base page of a slot: whether it was written; begin anew."""
        return upkeep.dirty_log(self.guest, slot)

    def replace_slot(self, old: Slot | None, new: Slot | None) -> None:
        """Have the host take a slot away, or put one there, or both."""
        upkeep.replace_slot(self.guest, old, new)

    def release(self, assigned: AssignedTag) -> None:
        """Have the host forget a guest's guest."""
        nested = self.guest.nested.get(assigned)
        if nested is not None:
            finish(self.guests.remove(nested))

    def word_at(self, address: int, size: int) -> bytes:
        """Return bytes of the guest's memory, by no table.

        :raises OutsideMemoryError: if they are in no memory slot.
        """
        return self.memory.read(self._place(address, size), size)

    def put_at(self, address: int, data: bytes) -> None:
        """Write bytes of the guest's memory, by no table.

        :raises OutsideMemoryError: if they are in no memory slot.
        """
        self.memory.write(self._place(address, len(data)), data)

    def _place(self, address: int, size: int) -> int:
        slot = self.slots.find(address)
        if slot is None or address + size > slot.end:
            raise OutsideMemoryError(address, size)
        return self.backing.where(address)


class TreeNest(Nest):
    """A nest whose tables, the host's included, are trees of an architecture.

    :param variant: which of its trees.
    """

    def __init__(self, architecture: RadixArchitecture, shift: int, variant: int = 0) -> None:
        self.architecture = architecture
        self.levels: tuple[LevelShape, ...] = architecture.capabilities.trees[variant]
        super().__init__(shift)

    def host_tree(self, root: int) -> Tree:
        """Return a table of the host, by the backdoor."""
        memory = self.memory
        return Tree(self.architecture, self.levels, memory.read, memory.write, self.allocator.allocate, root)

    def host_pages(self, nested: NestedGuest | None) -> list[Leaf]:
        """Return every leaf of the shadow of ``nested``; of the guest's own table for None."""
        editor = self.guest.table if nested is None else nested.tree
        return [Leaf.of(*one) for one in self.host_tree(editor.table.root.base).leaves()]

    def host_table_pages(self) -> list[int]:
        """Return the address of every table of the host's."""
        editors = [self.guest.table, *(nested.tree for nested in self.guest.nested.values())]
        return [base for editor in editors for base in self.host_tree(editor.table.root.base).tables()]

    def in_use(self, nested: NestedGuest) -> bool:
        """Tell whether the root of a shadow is handed out."""
        return nested.tree.table.root.base in self.allocator.used

    def plant(self, leaf: Leaf) -> None:
        """Write a leaf into the host's table for the guest."""
        tree = self.host_tree(self.guest.table.table.root.base)
        tree.map(leaf.start, leaf.target, leaf.shift, leaf.rights, accessed=leaf.accessed, dirty=leaf.dirty)
