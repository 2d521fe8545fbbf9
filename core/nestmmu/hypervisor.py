"""Levels of hypervisors: each keeps guests in its own memory, and nested guests behind a shadow table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.edit import TableEditor
from nestmmu.errors import NestmmuError
from nestmmu.events import Event, EventKind
from nestmmu.formats import AccessedDirty
from nestmmu.guests import Guest, NestedGuest
from nestmmu.habits import NO_HABITS
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.placement import Arriving
from nestmmu.radix import RadixTable, RadixWalker, Root

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.allocator import PageAllocator
    from nestmmu.formats import RadixFormat
    from nestmmu.mappings import Mapping
    from nestmmu.memory import Memory
    from nestmmu.shadow import ShadowTable

R = TypeVar("R")
MOST_TRIES = 64
"""How often an access may fault before the loop calls it a livelock: far above what any architecture needs."""


class LivelockError(NestmmuError):
    """An access faulted again and again, and every time its hypervisor said that it was mended."""


class Hypervisor:
    """What is alike in every hypervisor: where its tables are, and how they are made.

    :param memory: the hypervisor's own memory.
    :param allocator: pages of that memory for tables.
    :param table_format: the format of its tables, for guests and shadows alike.
    :param widths: index bits of each level of them, root first.
    """

    nested_type: type[NestedGuest] = NestedGuest
    habits = NO_HABITS
    """What the hypervisor gets wrong."""
    threads = 1
    """CPUs that share a core's caches."""

    def __init__(
        self, memory: Memory, allocator: PageAllocator, table_format: RadixFormat, widths: tuple[int, ...]
    ) -> None:
        self.memory = memory
        self.allocator = allocator
        self.widths = widths
        self.base_shift = table_format.shifts(widths)[-1]
        self.walker = RadixWalker(table_format, memory, "host's table", AccessedDirty.IGNORE)
        self.flushes: list[Flush] = []
        """The invalidations given to the hardware, in order."""
        self.listeners: list[Callable[[Flush], None]] = [self.flushes.append]
        """Who is told of each invalidation: the log, and caches of translations."""
        self.announce: Callable[[Event], None] | None = None
        """Who is told of events: the hook ``nestmmu_event``; None: no one."""

    def flush(self, flush: Flush) -> None:
        """Give an invalidation to the hardware."""
        for listener in self.listeners:
            listener(flush)
        self.tell(EventKind.INVALIDATE, flush.tag, flush.address, flush)

    def tell(self, kind: EventKind, tag: HardwareTag, address: int, detail: object) -> None:
        """Announce an event, where someone listens."""
        if self.announce is not None:
            self.announce(Event(kind, tag, address, detail))

    def new_root(self) -> Root:
        """Allocate an empty root table."""
        bits = self.widths[0]
        return Root(self.allocator.allocate(self.walker.format.table_bytes(bits)), bits)

    def edit(self, root: Root, tag: HardwareTag, removed: Callable[[Mapping], None] | None = None) -> TableEditor:
        """Return an editor for the table at ``root``."""
        editor = TableEditor(RadixTable(self.walker, root), self.widths, self.allocator, tag, self.flush, removed)
        editor.habits = self.habits
        return editor

    def make_shadow(self, tag: HardwareTag) -> ShadowTable:
        """Return an empty shadow table: a tree of the hypervisor's own format.

        :raises OutOfPagesError: if there is no page for it.
        """
        return self.edit(self.new_root(), tag)

    def make_nested(self, assigned: AssignedTag, tag: HardwareTag) -> NestedGuest:
        """Return a guest's guest with an empty shadow table, known to no one yet.

        :raises OutOfPagesError: if there is no page for the root.
        """
        shadow = self.make_shadow(tag)
        shadow.removed = lambda leaf: self.tell(EventKind.SHADOW_REMOVE, tag, leaf.input_address, leaf)
        shadow.heard = lambda: self.announce is not None
        made = self.nested_type(assigned, tag, shadow)
        made.placement.threads = self.threads
        return made

    def arrive(self, nested: NestedGuest, vcpu: int, cpu: int) -> Arriving:
        """Have ``cpu`` do what it must before it runs a virtual CPU of a nested guest, and return what that was."""
        todo = nested.placement.enter(vcpu, cpu)
        if todo is Arriving.FLUSH:
            self.flush(Flush(nested.tag, FlushKind.TAG, cpu=cpu))
        return todo

    def release_nested(self, nested: NestedGuest) -> None:
        """Free a nested guest's shadow, its root included; the hardware's root is the architecture's to clear."""
        nested.shadow.clear_tree()
        nested.shadow.flush(Flush(nested.tag, FlushKind.TAG))
        nested.shadow.free()

    def add_nested(self, guest: Guest, assigned: AssignedTag, tag: HardwareTag) -> NestedGuest:
        """Begin to keep a guest's guest: with an empty shadow table."""
        nested = self.make_nested(assigned, tag)
        guest.nested[assigned] = nested
        return nested


class Attempt(Generic[R]):
    """The fault loop of one access: try, let the host handle the fault, try again.

    :param attempt: does the access once, as the hardware does it.
    :param decode: reads out of a result the fault that the host has to handle; None: the access has ended.
    :param handle: the host.
    """

    def __init__(
        self, attempt: Callable[[], R], decode: Callable[[R], Exit | None], handle: Callable[[Exit], Outcome]
    ) -> None:
        self.attempt = attempt
        self.decode = decode
        self.handle = handle
        self.faults: list[tuple[Exit, Outcome]] = []
        """What was handled on the way, in order."""

    def run(self) -> tuple[R, Outcome | None]:
        """Return the last result, and the outcome that ended the loop; None if the access itself ended it.

        :raises LivelockError: if it does not end.
        """
        for _ in range(MOST_TRIES):
            result = self.attempt()
            exit_ = self.decode(result)
            if exit_ is None:
                return result, None
            outcome = self.handle(exit_)
            self.faults.append((exit_, outcome))
            if outcome.verdict is not Verdict.RESUME:
                return result, outcome
        message = f"no progress after {MOST_TRIES} faults, the last: {self.faults[-1][0].fault}"
        raise LivelockError(message)
