"""A TLB: what whole accesses translate to, kept, so that an invalidation that is missing or names the wrong tag shows.

It stands around a CPU as a wrapper of the hook ``nestmmu_cpu`` and is told of every invalidation that a hypervisor
gives. A hit is compared with a fresh walk that changes nothing: one that the tables no longer allow is a
:class:`StaleHit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from nestmmu.access import WRITE, Access
from nestmmu.addresses import HardwareTag, align_down, low_mask
from nestmmu.hookspecs import hookimpl
from nestmmu.invalidation import HOST_OWN, Flush, FlushKind

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

    from nestmmu.protocols import Cpu
    from nestmmu.radix import Step


@attrs.frozen
class Translation:
    """What one access translated to, by page."""

    tag: HardwareTag
    """The guest's, as hardware knows it."""
    context: Hashable
    """What else the translation hangs on: the process, the privilege, the keys."""
    input_start: int
    """The page's first address, as the program has it, in bytes."""
    page_shift: int
    output_start: int
    guest_start: int
    """The page's first address in the guest's memory, in bytes: what the guest's host flushes by."""
    permissions: int
    process: int | None = None
    """Whose translation it is within the guest; None: no process's."""
    input_shift: int | None = None
    """Log2 of the bytes of the page in the guest's own table, where one invalidation within it drops all of it; None:
    ``page_shift``."""
    guest_shift: int | None = None
    """The same of the page in the host's table."""


@attrs.frozen
class StaleHit:
    """A hit that the tables did not allow any more."""

    access: Access
    address: int
    cached: Translation
    fresh: Any
    """What a walk gave instead."""


class CacheableCpu(Protocol):
    """A CPU whose translations can be kept apart from each other."""

    def access(self, access: Access, address: int) -> Any:  # noqa: ANN401  (the architecture's own result)
        """Do one access."""
        ...

    def probe(self, access: Access, address: int) -> Any:  # noqa: ANN401
        """Return what :meth:`access` would, and change nothing."""
        ...

    def translation(self, access: Access, address: int, result: Any) -> Translation | None:  # noqa: ANN401
        """Return a result as something to keep; None for a fault, and for what no table translated."""
        ...

    def on_table(self, result: Any) -> bool:  # noqa: ANN401
        """Tell whether a result is a fault of the host's table on a table of the guest's own."""
        ...

    def trace(self, steps: list[Step] | None) -> None:
        """Add the steps of every walk to ``steps`` from now on; None: stop."""
        ...

    def context(self, access: Access, address: int) -> tuple[HardwareTag, Hashable] | None:
        """Return the tag and the context of an access now; None for one that no table translates."""
        ...

    def reached(self, translation: Translation, address: int) -> Any:  # noqa: ANN401
        """Return a kept translation as :meth:`access` would have."""
        ...


class Tlb:
    """Translations by tag, context and page; whatever is flushed is gone, and nothing else goes.

    :param capacity: how many it holds; the oldest gives way.
    :param cpus: those that share it; None: all, as if there were one.
    """

    def __init__(self, capacity: int = 4096, cpus: range | None = None) -> None:
        self.capacity = capacity
        self.cpus = cpus
        self._entries: dict[tuple[HardwareTag, Hashable, int, int], Translation] = {}
        self._shifts: list[int] = []
        self.hits = self.misses = 0

    def __len__(self) -> int:
        """Return how many translations it holds."""
        return len(self._entries)

    def lookup(self, tag: HardwareTag, context: Hashable, address: int) -> Translation | None:
        """Return the translation of an address, or None."""
        for shift in self._shifts:
            found = self._entries.get((tag, context, shift, address >> shift))
            if found is not None:
                self.hits += 1
                return found
        self.misses += 1
        return None

    def insert(self, entry: Translation) -> None:
        """Keep a translation; the oldest is dropped where there is no room."""
        if len(self._entries) >= self.capacity:
            del self._entries[next(iter(self._entries))]
        if entry.page_shift not in self._shifts:
            self._shifts.append(entry.page_shift)
        self._entries[entry.tag, entry.context, entry.page_shift, entry.input_start >> entry.page_shift] = entry

    def flush(self, flush: Flush) -> None:
        """Drop what an invalidation names."""
        if flush.kind is not FlushKind.WALK_CACHE and flush.reaches(self.cpus):
            self._entries = {key: entry for key, entry in self._entries.items() if not _names(flush, entry)}


def _names(flush: Flush, entry: Translation) -> bool:
    if entry.tag != flush.tag and (not flush.every or entry.tag == HOST_OWN):
        return False
    if flush.kind is FlushKind.PAGE:
        return _covers(flush, entry.guest_start, entry.page_shift, entry.guest_shift)
    if flush.process is not None and flush.process != entry.process:
        return False
    if flush.kind is FlushKind.INPUT_PAGE:
        return _covers(flush, entry.input_start, entry.page_shift, entry.input_shift)
    return True


def _covers(flush: Flush, start: int, page_shift: int, whole_shift: int | None) -> bool:
    shift = page_shift if whole_shift is None else whole_shift
    return flush.covers(align_down(start, shift), shift)


class CachedCpu:
    """A CPU behind a TLB.

    :param stale: called with each hit that a fresh walk does not confirm.
    """

    def __init__(self, cpu: CacheableCpu, tlb: Tlb, stale: Callable[[StaleHit], None]) -> None:
        self.cpu = cpu
        self.tlb = tlb
        self.stale = stale

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (whatever the CPU has)
        """Return what the CPU itself has."""
        return getattr(self.cpu, name)

    def access(self, access: Access, address: int) -> Any:  # noqa: ANN401  (the architecture's own result)
        """Do one access, by the TLB where it can be.

        What was kept of a load or a fetch lets nothing be stored: the first store has to walk, and make the page dirty.
        """
        place = self.cpu.context(access, address)
        cached = None if place is None else self.tlb.lookup(*place, address)
        if cached is not None and cached.permissions & access:
            probed = self.cpu.probe(access, address)
            fresh = self.cpu.translation(access, address, probed)
            if not self._confirms(cached, fresh, probed, address):
                self.stale(StaleHit(access, address, cached, fresh))
            return self.cpu.reached(cached, address)
        result = self.cpu.access(access, address)
        entry = self.cpu.translation(access, address, result)
        if entry is not None:
            kept = entry.permissions if access is Access.STORE else entry.permissions & ~WRITE
            self.tlb.insert(attrs.evolve(entry, permissions=kept))
        return result

    def trace(self, steps: list[Step] | None) -> None:
        """Add the steps of every walk to ``steps`` from now on; None: stop. A hit has none."""
        self.cpu.trace(steps)

    def _confirms(self, cached: Translation, fresh: Translation | None, probed: Any, address: int) -> bool:  # noqa: ANN401
        """Tell whether what is kept is allowed still.

        A host that takes the page of a guest's table away takes no page away that the table leads to: of those, what is
        kept stays.
        """
        if fresh is None:
            return self.cpu.on_table(probed)
        return self._target(fresh, address) == self._target(cached, address)

    @staticmethod
    def _target(entry: Translation, address: int) -> int:
        return entry.output_start + (address & low_mask(entry.page_shift))


class TlbPlugin:
    """Puts a TLB around every CPU that is made: register it with :class:`~nestmmu.plugins.Plugins`."""

    def __init__(self, tlb: Tlb | None = None) -> None:
        self.tlb = Tlb() if tlb is None else tlb
        self.stale: list[StaleHit] = []
        """The hits so far that the tables did not allow any more."""

    def flush(self, flush: Flush) -> None:
        """Give an invalidation to the TLB: for :attr:`~nestmmu.hypervisor.Hypervisor.listeners`."""
        self.tlb.flush(flush)

    @hookimpl(wrapper=True)
    def nestmmu_cpu(self) -> Generator[None, Any, Cpu]:
        """Wrap the CPU that another plugin makes."""
        cpu = yield
        return CachedCpu(cpu, self.tlb, self.stale.append)


def page_of(address: int, target: int, guest: int, shift: int) -> tuple[int, int, int]:
    """Return the starts of the page around an address, around where it leads, and around it in the guest's memory."""
    return align_down(address, shift), target - (address & low_mask(shift)), guest - (address & low_mask(shift))
