"""A page-walk cache: directory entries that walks met, kept, so that a table that is dropped without a word shows.

It stands around a walker as a wrapper of the hook ``nestmmu_walker`` and is told of every invalidation that a
hypervisor gives. Flushing a page leaves it as it is. A hit is compared with a fresh walk: one that the tables no longer
lead to is a :class:`StaleWalk`, and the walk goes on from there, as hardware's would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from nestmmu.faults import Fault
from nestmmu.hookspecs import hookimpl
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.radix import RadixWalker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

    from nestmmu.access import Access
    from nestmmu.radix import Node, Raw, Step


@attrs.frozen
class StaleWalk:
    """A directory entry that was kept, and that the tables do not have any more."""

    owner: Hashable
    """The guest's tag, as hardware knows it."""
    address: int
    """What was walked, in bytes."""
    depth: int
    """Of the table that the entry leads to."""
    cached: int
    """Where that table was, in bytes."""
    fresh: int | None
    """Where it is; None: nowhere."""


class WalkCache:
    """Directory entries by owner, depth and the address bits that they cover.

    :param capacity: how many it holds; the oldest gives way.
    :param cpus: those that share it; None: all, as if there were one.
    """

    def __init__(self, capacity: int = 256, cpus: range | None = None) -> None:
        self.capacity = capacity
        self.cpus = cpus
        self._entries: dict[tuple[Hashable, int, int, int], Node] = {}
        self._places: list[tuple[int, int]] = []
        """(depth, log2 of the bytes covered) of what was ever kept, deepest first."""
        self.hits = self.misses = 0

    def __len__(self) -> int:
        """Return how many entries it holds."""
        return len(self._entries)

    def lookup(self, owner: Hashable, address: int) -> Node | None:
        """Return the deepest table on the way to an address that is known, or None."""
        for depth, shift in self._places:
            found = self._entries.get((owner, depth, shift, address >> shift))
            if found is not None:
                self.hits += 1
                return found
        self.misses += 1
        return None

    def insert(self, owner: Hashable, address: int, shift: int, node: Node) -> None:
        """Keep where a walk of ``address`` came by: a table for the 2**``shift`` bytes around it."""
        if len(self._entries) >= self.capacity:
            del self._entries[next(iter(self._entries))]
        place = (node[4], shift)
        if place not in self._places:
            self._places = sorted([*self._places, place], reverse=True)
        self._entries[owner, *place, address >> shift] = node

    def flush(self, flush: Flush) -> None:
        """Drop all of a guest, unless it is only translations that are flushed."""
        if flush.kind in {FlushKind.WALK_CACHE, FlushKind.TAG} and flush.reaches(self.cpus):
            kept = {} if flush.every else self._entries
            self._entries = {key: node for key, node in kept.items() if key[0] != flush.tag}


class CachedWalker(RadixWalker):
    """A walker that begins where the cache knows the way to. Without an owner it walks from the root.

    :param inner: what walks.
    :param stale: called with each entry that a fresh walk does not confirm.
    """

    def __init__(self, inner: RadixWalker, cache: WalkCache, stale: Callable[[StaleWalk], None]) -> None:
        super().__init__(inner.format, inner.memory, inner.stage, inner.accessed_dirty)
        self.cache = cache
        self.stale = stale

    def descend(self, node: Node, address: int, access: Access) -> Raw:
        """Walk down, from a root that :meth:`root_node` decoded or from further in."""
        owner = self.owner
        if owner is None:
            return super().descend(node, address, access)
        known = self.cache.lookup(owner, address)
        if known is not None:
            self._confirm(owner, node, known, address, access)
        return self._noted(owner, node if known is None else known, address, access)

    def _noted(self, owner: Hashable, node: Node, address: int, access: Access) -> Raw:
        outer, steps = self.trace, list[Any]()
        self.trace = steps
        try:
            raw = super().descend(node, address, access)
        finally:
            self.trace = outer
            if outer is not None:
                outer.extend(steps)
        for below in self._tables(node, steps):
            self.cache.insert(owner, address, below[1], below[0])
        return raw

    @staticmethod
    def _tables(node: Node, steps: list[Step]) -> list[tuple[Node, int]]:
        """Return the tables below ``node`` that a walk came to: (table, log2 of the bytes that it covers)."""
        found = []
        for step in steps:
            below = node[0].get(step.entry)
            if below is None or below[0] is None:
                break
            found.append((below, node[2]))
            node = below
        return found

    def _confirm(self, owner: Hashable, root: Node, known: Node, address: int, access: Access) -> None:
        outer, steps = self.trace, list[Any]()
        self.trace = steps
        try:
            super().descend(root, address, access)
        except Fault:
            pass
        finally:
            self.trace = outer
        fresh = next((table[1] for table, _ in self._tables(root, steps) if table[4] == known[4]), None)
        if fresh != known[1]:
            self.stale(StaleWalk(owner, address, known[4], known[1], fresh))


class WalkCachePlugin:
    """Puts a page-walk cache around every walker that is made: register it with :class:`~nestmmu.plugins.Plugins`."""

    def __init__(self, cache: WalkCache | None = None) -> None:
        self.cache = WalkCache() if cache is None else cache
        self.stale: list[StaleWalk] = []
        """The hits so far that the tables did not lead to any more."""

    def flush(self, flush: Flush) -> None:
        """Give an invalidation to the cache: for :attr:`~nestmmu.hypervisor.Hypervisor.listeners`."""
        self.cache.flush(flush)

    @hookimpl(wrapper=True)
    def nestmmu_walker(self) -> Generator[None, RadixWalker, RadixWalker]:
        """Wrap the walker that another plugin makes."""
        inner = yield
        return CachedWalker(inner, self.cache, self.stale.append)
