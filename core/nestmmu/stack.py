"""Hypervisors upon hypervisors: each a whole one, with its own tables, slots and table pages, in its parent's guest.

L0 runs on the machine; every other runs as the guest of the one below, reads and writes its memory as that guest's
CPU does, with whatever faults this takes, and gives its invalidations to its parent. Only L0 drives hardware: what
runs further in runs on L0's shadow of L1's shadow of what is further in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs

from nestmmu.addresses import AssignedTag, HardwareTag, align_down
from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.hypervisor import MOST_TRIES, LivelockError
from nestmmu.mappings import Mapping
from nestmmu.memory import GuestMemory, PhysicalMemory
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.points import finish
from nestmmu.slots import HostPage, Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.access import Access
    from nestmmu.guests import Guest, NestedGuest
    from nestmmu.host_faults import HostFaultHandler
    from nestmmu.hypervisor import Hypervisor
    from nestmmu.memory import Memory
    from nestmmu.nested_faults import NestedFaultHandler
    from nestmmu.nested_guests import NestedGuests


@attrs.frozen
class Layout:
    """How each hypervisor's memory is divided; all in bytes."""

    low: int
    """From 0: what the architecture keeps outside trees, such as a table of roots."""
    tables: int
    """After ``low``: pages of trees."""
    chunk: int
    """The piece in which a guest's memory is moved about in its host's."""
    work: int
    """The innermost guest's memory."""
    spare: int = 2
    """Chunks that a host has beyond its guest's memory, to move pieces of it to."""

    def size(self, above: int) -> int:
        """Return the memory of a guest in which ``above`` hypervisors run, one in the other."""
        return self.work if above == 0 else self.start + self.size(above - 1) + self.spare * self.chunk

    @property
    def start(self) -> int:
        """Where in a hypervisor's memory its guest's begins."""
        return -(-(self.low + self.tables) // self.chunk) * self.chunk


class ChunkBacking:
    """What a hypervisor keeps behind its guest: chunks, each of which may be moved.

    :param start: where in the host's memory they begin, in bytes.
    :param chunk: bytes of each.
    :param count: how many the guest has.
    :param spare: how many more the host has.
    :param page_shift: log2 of the largest page that the host maps them with.
    """

    def __init__(self, start: int, chunk: int, count: int, spare: int, page_shift: int) -> None:
        self.start = start
        self.chunk = chunk
        self.page_shift = page_shift
        self.homes = [start + index * chunk for index in range(count)]
        self.free = [start + index * chunk for index in range(count, count + spare)]

    def where(self, address: int) -> int | None:
        """Return where an address of the guest is in the host's memory; None beyond the guest's."""
        index, offset = divmod(address, self.chunk)
        return self.homes[index] + offset if index < len(self.homes) else None

    def page(self, slot: Slot, address: int, *, write: bool) -> HostPage | None:
        """Return the page behind ``address``."""
        del slot, write
        where = self.where(address)
        return None if where is None else HostPage(where, self.page_shift)

    def move(self, index: int) -> tuple[int, int]:
        """Keep a chunk elsewhere from now on; return (old, new) address. Its contents are the caller's to copy."""
        old, new = self.homes[index], self.free.pop(0)
        self.homes[index] = new
        self.free.append(old)
        return old, new


@attrs.define(eq=False)
class Level:
    """One hypervisor of a stack, and the one guest that it runs."""

    number: int
    """0 for the one on the machine."""
    hypervisor: Hypervisor
    guest: Guest
    nested: NestedGuests[Any]
    """What runs inside its guest."""
    backing: ChunkBacking
    host_faults: HostFaultHandler
    nested_faults: NestedFaultHandler
    faults: int = 0
    """How many exits it handled, those that it gave to its guest included."""
    reflected: int = 0
    """How many it gave to its guest."""
    requests: int = 0
    """Invalidations that its guest asked it for."""

    def handle(self, nested: NestedGuest | None, exit_: Exit) -> Outcome:
        """Handle an exit of its guest (None), or of what runs inside."""
        steps = self.host_faults.handle(exit_) if nested is None else self.nested_faults.handle(nested, exit_)
        outcome = finish(steps)
        self.faults += 1
        self.reflected += outcome.verdict is Verdict.REFLECT
        return outcome


@attrs.frozen
class Arrival:
    """Where an access ended."""

    address: int | None
    """In the machine's memory, in bytes; None: a hypervisor ended it otherwise."""
    outcome: Outcome | None = None
    """How."""
    level: int = 0
    """Which."""


Left: TypeAlias = Arrival | Exit


class Machine(Protocol):
    """What an architecture adds to a stack."""

    layout: Layout
    page_shifts: tuple[int, ...]
    """Log2 of the pages with which a hypervisor may map its guest."""

    def level(self, number: int, memory: Memory, backing: ChunkBacking, slot: Slot, parent: Level | None) -> Level:
        """Return a hypervisor in ``memory``, with one guest; its invalidations go to ``parent``."""
        ...

    def attempt(self, tag: HardwareTag, access: Access, address: int) -> Left:
        """Do one access as the machine's hardware does it for the guest of L0 that ``tag`` names."""
        ...

    def enter(self, parent: Level, tag: AssignedTag, serve: Callable[[NestedGuest], Left]) -> Left:
        """Have ``parent`` run what its guest calls ``tag``, and return what that guest sees of how it left."""
        ...

    def reflect(self, level: Level, outcome: Outcome, exit_: Exit) -> Exit:
        """Return an exit that ``level`` does not handle as its guest sees it."""
        ...


def enter_nested(parent: Level, tag: AssignedTag, serve: Callable[[NestedGuest], Left]) -> Left:
    """Do :meth:`Machine.enter` with nothing of an architecture's in between.

    :raises NestmmuError: if the parent has no tag or no memory for the nested guest.
    """
    nested = finish(parent.nested.get(tag, create=True))
    if nested is None:
        message = f"L{parent.number} cannot run guest {tag} of its guest: no tag, or no page for its root"
        raise NestmmuError(message)
    try:
        return serve(nested)
    finally:
        finish(parent.nested.put(nested))


class Stack:
    """Hypervisors L0 to L(``depth`` - 1), and the guest of the last.

    :param depth: how many hypervisors; 1 is no nesting.
    :param page_shifts: log2 of the largest page that each of them maps its guest with.
    """

    def __init__(self, machine: Machine, depth: int, page_shifts: list[int]) -> None:
        self.machine = machine
        self.physical = PhysicalMemory()
        self.quiet = False
        """Whether the hypervisors' own reads go around hardware: for looking without changing anything."""
        self.levels: list[Level] = []
        layout = machine.layout
        for number in range(depth):
            memory = self.physical if number == 0 else self.memory_of(number)
            size = layout.size(depth - 1 - number)
            count = -(-size // layout.chunk)
            backing = ChunkBacking(layout.start, layout.chunk, count, layout.spare, page_shifts[number])
            parent = self.levels[-1] if self.levels else None
            self.levels.append(machine.level(number, memory, backing, Slot(0, count * layout.chunk), parent))

    @property
    def depth(self) -> int:
        """How many hypervisors there are."""
        return len(self.levels)

    def memory_of(self, number: int) -> Memory:
        """Return the memory of L``number`` as what runs there sees it, faults and all."""
        return GuestMemory(self.physical, _AsRun(self, number), f"L{number} real")

    def where(self, number: int, address: int) -> int | None:
        """Return where an address of L``number`` is in the machine's memory, by no table: the truth.

        :returns: in bytes; None for what is no memory.
        """
        for level in reversed(self.levels[:number]):
            found = level.backing.where(address)
            if found is None:
                return None
            address = found
        return address

    def access(self, number: int, access: Access, address: int) -> Arrival:
        """Do one access of what runs in L``number``, to its own real address ``address``.

        :raises LivelockError: if it faults again and again.
        :raises NestmmuError: if a hypervisor further out gives up on it.
        """
        if number == 0:
            return Arrival(address)
        left = self._serve(number - 1, None, access, address)
        if isinstance(left, Exit):
            message = f"L{number - 1} reflects a fault of its own guest: {left.fault}"
            raise NestmmuError(message)
        return left

    def _serve(self, number: int, nested: NestedGuest | None, access: Access, address: int) -> Left:
        """Have a hypervisor run its guest, or what runs inside, until it has arrived or left for good."""
        level = self.levels[number]
        tag = level.guest.tag if nested is None else nested.tag
        for _ in range(MOST_TRIES):
            left = self._run(number, tag, access, address)
            if isinstance(left, Arrival):
                return left
            outcome = level.handle(nested, left)
            if outcome.verdict is Verdict.REFLECT:
                return self.machine.reflect(level, outcome, left)
            if outcome.verdict is not Verdict.RESUME:
                return Arrival(None, outcome, number)
        message = f"L{number} handles faults of {address:#x} again and again: {MOST_TRIES} times"
        raise LivelockError(message)

    def _run(self, number: int, tag: HardwareTag, access: Access, address: int) -> Left:
        if number == 0:
            return self.machine.attempt(tag, access, address)
        parent = self.levels[number - 1]
        return self.machine.enter(
            parent, AssignedTag(tag), lambda nested: self._serve(number - 1, nested, access, address)
        )


class _AsRun:
    """Translates what runs in a level as running it does."""

    def __init__(self, stack: Stack, number: int) -> None:
        self.stack = stack
        self.number = number
        self.granule_shift = 12

    def locate(self, address: int, access: Access) -> int:
        """Return where ``address`` is in the machine's memory.

        :raises OutsideMemoryError: if what is there is no memory.
        :raises NestmmuError: if hardware ends elsewhere than in the truth.
        """
        stack = self.stack
        truth = stack.where(self.number, address)
        if stack.quiet:
            found = truth
        else:
            found = stack.access(self.number, access, address).address
            if found != truth:
                message = f"L{self.number} real {address:#x} leads to {found}, and should to {truth}"
                raise NestmmuError(message)
        if found is None:
            raise OutsideMemoryError(address, 1)
        return found

    def locator(self) -> Callable[[int, Access], int]:
        """Return :meth:`locate`."""
        return self.locate

    def translate(self, address: int, access: Access) -> Mapping:
        """Return :meth:`locate` as a mapping of the smallest page."""
        start = align_down(address, self.granule_shift)
        found = self.locate(start, access) + address - start
        return Mapping(address, found, self.granule_shift, 7, accessed=True, dirty=True)
