"""A stack of hypervisors at work: a random program in the innermost guest, every hypervisor busy behind its back.

After every event the invariants are checked at every level, and every access against the truth.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from nestmmu import upkeep
from nestmmu.access import Access
from nestmmu.errors import NestmmuError
from nestmmu.hypervisor import LivelockError
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.invariants import Violation, violations
from nestmmu.memory import FRAME_BYTES
from nestmmu.outcomes import Verdict
from nestmmu.quirks import Invariant
from nestmmu.stack import Stack
from nestmmu.tlb import TlbPlugin
from nestmmu.walk_cache import WalkCachePlugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu.plugins import Plugins
    from nestmmu.slots import Slot
    from nestmmu.stack import Level

_WORD = 8
_UPKEEP = 0.25
"""How many of the events are a hypervisor's; the rest are the program's."""


@attrs.frozen
class Broken:
    """An invariant that did not hold after an event."""

    event: int
    """Which, from 0."""
    what: str
    """What the event was."""
    level: int
    """The hypervisor whose tables show it."""
    violation: Violation


class Demo:
    """A stack, and what goes on in it.

    :param depth: hypervisors.
    :param seed: of everything that is random.
    :raises PluginError: if no plugin has a machine for ``arch``.
    """

    def __init__(self, plugins: Plugins, arch: str, depth: int, seed: int, *, faithful: bool = False) -> None:
        self.random = random.Random(seed)  # noqa: S311  (a workload, not a secret)
        self.caches = TlbPlugin()
        self.walks = WalkCachePlugin()
        plugins.register(self.caches, "the demo's TLB")
        plugins.register(self.walks, "the demo's page-walk cache")
        machine = plugins.machine(arch, faithful=faithful)
        self.stack = Stack(machine, depth, [self.random.choice(machine.page_shifts) for _ in range(depth)])
        self.stack.levels[0].hypervisor.listeners += [self.caches.flush, self.walks.flush]
        self.work = machine.layout.work
        self.chunk = machine.layout.chunk
        self.slots: list[Slot] = [next(iter(level.guest.slots)) for level in self.stack.levels]
        self.written: list[set[int]] = [set() for _ in self.stack.levels]
        """Frames of each level's guest that its dirty log has to report."""
        self.data: dict[int, bytes] = {}
        """What the program has stored, by its own address."""
        self.counts: Counter[str] = Counter()

    def run(self, events: int) -> Iterator[list[Broken]]:
        """Do events, and yield after each the invariants that do not hold, each a new one."""
        known: set[tuple[int, Violation]] = set()
        for number in range(events):
            busy = self.random.random() < _UPKEEP
            level = self.random.choice(self.stack.levels)
            what, act = self._upkeep(level) if busy else ("access", None)
            self.counts[what] += 1
            label = what if act is None else f"{what} by L{level.number}"
            where = level.number if act else self.stack.depth - 1
            try:
                problems = self._access() if act is None else act(level)
            except LivelockError as error:
                problems = [Violation(Invariant.PROGRESS, str(error))]
            except NestmmuError as error:
                problems = [Violation(Invariant.EQUIVALENCE, str(error))]
            found = [(where, one) for one in problems] + list(self._violations())
            yield [Broken(number, label, *one) for one in found if one not in known]
            known.update(found)

    def _upkeep(self, level: Level):  # type: ignore[no-untyped-def]  # noqa: ANN202  (one of the methods below)
        acts = [self._unmap, self._move, self._age, self._log]
        if level.number:
            acts.append(self._flush)
        act = self.random.choice(acts)
        return act.__name__.strip("_"), act

    def _violations(self) -> Iterator[tuple[int, Violation]]:
        self.stack.quiet = True
        for level in self.stack.levels:
            for one in violations(level.guest):
                yield level.number, one
        self.stack.quiet = False
        for stale in (*self.caches.stale, *self.walks.stale):
            yield 0, Violation(Invariant.INVALIDATION, f"stale: {stale}")
        self.caches.stale.clear()
        self.walks.stale.clear()

    def _access(self) -> list[Violation]:
        """Load, store or fetch somewhere, seldom beyond the memory, and look whether it was what was stored."""
        stack, depth = self.stack, self.stack.depth
        beyond = self.random.random() < 1 / 32
        address = self.random.randrange(0, self.work, _WORD) + (self.work if beyond else 0)
        access = self.random.choice(tuple(Access))
        arrival, truth = stack.access(depth, access, address), stack.where(depth, address)
        if beyond:
            verdict = arrival.outcome and arrival.outcome.verdict
            good = verdict is Verdict.EMULATE and arrival.level == depth - 1
            return [] if good else [_unequal(f"a device's address {address:#x} ends as {arrival}")]
        if arrival.address is None or arrival.address != truth:
            return [_unequal(f"{access.label} of {address:#x} ends at {arrival}, and should at {truth}")]
        if access is Access.STORE:
            self._store(address, arrival.address)
        elif stack.physical.read(arrival.address, _WORD) != self.data.get(address, bytes(_WORD)):
            return [_unequal(f"{access.label} of {address:#x} does not read what was stored")]
        return []

    def _store(self, address: int, real: int) -> None:
        data = self.data[address] = self.random.randbytes(_WORD)
        self.stack.physical.write(real, data)
        inner: int | None = address
        for level in reversed(self.stack.levels):
            if inner is not None:
                if self.slots[level.number].dirty_log:
                    self.written[level.number].add(inner >> level.guest.base_shift)
                inner = level.backing.where(inner)

    def _first_chunk(self, level: Level) -> int:
        """Return the first chunk of a level's guest that belongs to the program."""
        inner: int | None = 0
        for further in reversed(self.stack.levels[level.number + 1 :]):
            inner = None if inner is None else further.backing.start + inner
        return (inner or 0) // self.chunk

    def _program_chunk(self, level: Level) -> int:
        return self._first_chunk(level) + self.random.randrange(self.work // self.chunk)

    def _unmap(self, level: Level) -> list[Violation]:
        """Take pages away that come back at the next fault."""
        start = self.random.randrange(0, self.slots[level.number].size, self.chunk)
        upkeep.unmap_range(level.guest, start, start + self.chunk)
        return []

    def _move(self, level: Level) -> list[Violation]:
        """Keep a piece of the program's memory elsewhere."""
        index, guest = self._program_chunk(level), level.guest
        guest.begin_invalidation()
        upkeep.unmap_range(guest, index * self.chunk, (index + 1) * self.chunk)
        old, new = level.backing.move(index)
        physical = self.stack.physical
        for offset in range(0, self.chunk, FRAME_BYTES):
            source, target = (self.stack.where(level.number, place + offset) for place in (old, new))
            if source is not None and target is not None and (physical.holds(source) or physical.holds(target)):
                physical.write(target, physical.read(source, FRAME_BYTES))
        guest.end_invalidation()
        return []

    def _age(self, level: Level) -> list[Violation]:
        """Ask of a page whether it was used, and forget it."""
        index = self._program_chunk(level)
        address = index * self.chunk + self.random.randrange(0, self.chunk, 1 << level.guest.base_shift)
        upkeep.age(level.guest, address)
        if upkeep.is_young(level.guest, address):
            return [Violation(Invariant.DIRTY, f"{address:#x} stays young")]
        return []

    def _log(self, level: Level) -> list[Violation]:
        """Switch the dirty log on; or take it, and now and then switch it off."""
        guest, number = level.guest, level.number
        slot = self.slots[number]
        if not slot.dirty_log:
            self.slots[number] = upkeep.set_dirty_log(guest, slot, on=True)
            self.written[number].clear()
            upkeep.dirty_log(guest, self.slots[number])
            return []
        log = upkeep.dirty_log(guest, slot)
        lost = [frame for frame in self.written[number] if not log[frame >> 3] >> (frame & 7) & 1]
        self.written[number].clear()
        if self.random.random() < 1 / 3:
            self.slots[number] = upkeep.set_dirty_log(guest, slot, on=False)
        return [Violation(Invariant.DIRTY, f"a store to frame {frame:#x} is not in the log") for frame in lost]

    def _flush(self, level: Level) -> list[Violation]:
        """Ask the host for everything of the guest to be flushed."""
        level.hypervisor.flush(Flush(level.guest.tag, FlushKind.TAG))
        return []


def _unequal(what: str) -> Violation:
    return Violation(Invariant.EQUIVALENCE, what)
