"""Arithmetic on whole address spaces: joined, composed, taken apart, turned round, over arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from nestmmu.errors import InputError, TooLargeError
from nestmmu.extents import Extents

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONE = np.uint64(1)
_SPARE = 1 << 12
_WIDEST, _CLUSTERS, _FAR = 8, 32, 64
"""How many buckets for each extent a plain array may have that leads to extents by address; how many clusters there may
be, and how many buckets apart they are."""
_CACHED = 1 << 15
"""So few extents are in the processor's caches that to search them needs no order."""


_MOST_PIECES, _SPARE_PIECES = 16, 1 << 20
"""How many pieces there may be for each range and each extent, and beside that."""


@attrs.frozen(eq=False)
class Overlaps:
    """Where ranges of one list meet extents of another: pieces, by the first list's order and then by address."""

    left: NDArray[np.int64]
    """Which range."""
    right: NDArray[np.int64]
    """Which extent."""
    start: NDArray[np.uint64]
    """First address of the piece."""
    length: NDArray[np.uint64]
    """Bytes."""
    whole: bool = False
    """Whether each range is one piece."""


class Places:
    """Finds extents by address: by a plain array of buckets where extents lie in few clusters, else by search."""

    def __init__(self, extents: Extents) -> None:
        self.count = len(extents)
        if not self.count:
            return
        self.start = extents.start
        self.low = self.start[:1]
        # No extent is shorter than a bucket: none holds the ends of two.
        shortest = int(extents.length.min())
        self.shift = np.uint64(shortest.bit_length() - 1)
        end = int(self.start[-1]) + int(extents.length[-1])
        self.tiled = end - int(self.start[0]) == self.count * shortest == self.count << int(self.shift)
        if self.tiled:
            return  # all are of one size, side by side
        self.last = last = extents.last
        self.low, self.cluster_last, self.base = last[:1] >> self.shift, last[-1:], np.zeros(1, np.uint64)
        edges = np.flatnonzero(extents.start[1:] - last[:-1] > np.uint64(_FAR) << self.shift)
        firsts, ends = np.concatenate(([0], edges + 1)), np.concatenate((edges, [len(last) - 1]))
        self.low, self.cluster_last = last[firsts] >> self.shift, last[ends]
        sizes = ((self.cluster_last >> self.shift) - self.low).astype(np.float64) + 1
        self.dense = len(firsts) <= _CLUSTERS and sizes.sum() <= _WIDEST * len(last) + _SPARE
        if not self.dense:
            return
        self.base = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.uint64)
        cluster = np.repeat(np.arange(len(firsts)), ends - firsts + 1)
        counts = np.zeros(int(sizes.sum()), np.int32)
        counts[((last >> self.shift) - self.low[cluster] + self.base[cluster]).view(np.int64)] = 1
        self.before = np.cumsum(counts, dtype=np.int32) - counts

    def first_reaching(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return for each address the first extent that ends at or after it; how many there are where none does."""
        found: NDArray[np.int64]
        if not self.count:
            return np.zeros(len(addresses), np.int64)
        if self.tiled:
            found = (np.maximum(addresses, self.low) - self.low >> self.shift).view(np.int64)
            return np.minimum(found, self.count, out=found)
        if not self.dense:
            if self.count < _CACHED:
                return np.searchsorted(self.last, addresses, "left")
            order = np.argsort(addresses)
            found = np.empty(len(addresses), np.int64)
            found[order] = np.searchsorted(self.last, addresses[order], "left")
            return found
        if len(self.low) == 1:
            low, base, top = self.low[0], self.base[0], self.cluster_last[0]
        else:
            cluster = np.minimum(np.searchsorted(self.cluster_last, addresses), len(self.low) - 1)
            low, base, top = self.low[cluster], self.base[cluster], self.cluster_last[cluster]
        buckets = np.maximum(np.minimum(addresses, top) >> self.shift, low) - low + base
        found = self.before[buckets.view(np.int64)].astype(np.int64)
        found += self.last[found] < addresses
        return found

    def first_meeting(
        self, starts: NDArray[np.uint64], lasts: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Return for each range the first extent that it meets, -1 for none, and the first address where it does."""
        found = self.first_reaching(starts)
        if not self.count:
            return found - 1, starts
        if self.tiled:
            near = np.maximum(starts, self.low)
        else:
            near = np.maximum(self.start[np.minimum(found, self.count - 1)], starts)
        return np.where((found < self.count) & (near <= lasts), found, -1), near


def overlaps(starts: NDArray[np.uint64], lasts: NDArray[np.uint64], extents: Extents) -> Overlaps:
    """Return every piece in which one of the ranges, in any order, meets one of the extents.

    :raises TooLargeError: if there are many times more pieces than ranges and extents: the ranges overlap.
    """
    if not len(starts) or not len(extents):
        none = np.zeros(0, np.int64)
        return Overlaps(none, none, np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    extent_last = extents.last
    places = Places(extents)
    first = places.first_reaching(starts)
    beyond = np.minimum(first, len(extents) - 1)
    single = lasts <= extent_last[beyond]
    if single.all() and (extents.start[beyond] <= starts).all():
        return Overlaps(np.arange(len(starts)), first, starts, lasts - starts + _ONE, whole=True)
    end = first + 1
    if not single.all():
        many = np.flatnonzero(~single)
        end[many] = places.first_reaching(lasts[many]) + 1
    inside = np.minimum(end - 1, len(extents) - 1)
    end -= (end > len(extents)) | (extents.start[inside] > lasts)
    counts = end - first
    if (counts == 1).all():
        left, right = np.arange(len(starts)), first
    else:
        total, most = int(counts.sum(dtype=np.float64)), _MOST_PIECES * (len(starts) + len(extents)) + _SPARE_PIECES
        if total > most:
            message = f"{len(starts)} ranges meet {len(extents)} extents in {total} pieces: they overlap one another"
            raise TooLargeError(message)
        left = np.repeat(np.arange(len(starts)), counts)
        right = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts) + first[left]
    start = np.maximum(starts[left], extents.start[right])
    last = np.minimum(lasts[left], extent_last[right])
    return Overlaps(left, right, start, last - start + _ONE)


def compose(inner: Extents, outer: Extents) -> Extents:
    """Return where ``inner`` and then ``outer`` lead: the ideal shadow of the two.

    Permissions, accessed and dirty are what both have, attributes are the outer's, and the page is the smaller one, as
    in :func:`~nestmmu.compose.compose_mappings` for a store. What leads where ``outer`` maps nothing is left out.
    """
    pieces = overlaps(inner.target, inner.target + (inner.length - _ONE), outer)
    right = pieces.right
    left = slice(None) if pieces.whole else pieces.left
    flags = outer.flags[right]
    flags &= inner.flags[left] | np.uint16(0xFFFC)
    return Extents(
        inner.start if pieces.whole else inner.start[left] + (pieces.start - inner.target[left]),
        pieces.length,
        outer.target[right] + (pieces.start - outer.start[right]),
        inner.permissions[left] & outer.permissions[right],
        flags,
        np.minimum(inner.page_shift[left], outer.page_shift[right]),
    )


def cut(extents: Extents, chosen: NDArray[Any], start: NDArray[np.uint64], length: NDArray[np.uint64]) -> Extents:
    """Return pieces of extents.

    :param chosen: which extent each piece is of.
    """
    target = extents.target[chosen] + (start - extents.start[chosen])
    rest = (extents.permissions[chosen], extents.flags[chosen], extents.page_shift[chosen])
    return Extents(start, length, target, *rest)


def intersect(one: Extents, other: Extents) -> Extents:
    """Return the parts of ``one`` at addresses that ``other`` maps too, wherever it leads."""
    pieces = overlaps(one.start, one.last, other)
    return cut(one, pieces.left, pieces.start, pieces.length)


def difference(one: Extents, other: Extents) -> Extents:
    """Return the parts of ``one`` at addresses that ``other`` does not map."""
    gaps = holes(other)
    pieces = overlaps(one.start, one.last, gaps)
    return cut(one, pieces.left, pieces.start, pieces.length)


def holes(extents: Extents) -> Extents:
    """Return the addresses that nothing is mapped at, as extents that lead to themselves and permit nothing."""
    edge = np.zeros(1, np.uint64)
    starts = np.concatenate((edge, extents.last + _ONE))
    lasts = np.concatenate((extents.start - _ONE, edge - _ONE))
    wanted = np.ones(len(starts), np.bool_)
    wanted[:-1] = extents.start != starts[:-1]
    wanted[-1] = not len(extents) or int(starts[-1]) != 0
    starts, lasts = starts[wanted], lasts[wanted]
    if len(starts) == 1 and int(lasts[0]) - int(starts[0]) == (1 << 64) - 1:
        half = np.uint64(1 << 63)
        starts, lasts = np.array([0, half], np.uint64), np.array([half - _ONE, lasts[0]], np.uint64)
    nothing = np.zeros(len(starts), np.uint8)
    return Extents(starts, lasts - starts + _ONE, starts, nothing, nothing.astype(np.uint16), nothing)


def differing(one: Extents, other: Extents) -> tuple[Extents, Extents]:
    """Return the parts of both at addresses that both map, where target, permissions, flags or page shift differ."""
    pieces = overlaps(one.start, one.last, other)
    left = cut(one, pieces.left, pieces.start, pieces.length)
    right = cut(other, pieces.right, pieces.start, pieces.length)
    names = ("target", "permissions", "flags", "page_shift")
    differs = np.logical_or.reduce([getattr(left, name) != getattr(right, name) for name in names])
    return left.take(differs), right.take(differs)


def coalesce(extents: Extents) -> Extents:
    """Return the same space in as few extents as can be: neighbours that go on alike become one."""
    if not len(extents):
        return extents
    joins = extents.start[1:] == extents.last[:-1] + _ONE
    joins &= extents.target[1:] == extents.target[:-1] + extents.length[:-1]
    joins &= extents.target[1:] != 0
    for name in ("permissions", "flags", "page_shift"):
        values = getattr(extents, name)
        joins &= values[1:] == values[:-1]
    firsts = np.flatnonzero(np.concatenate((np.ones(1, np.bool_), ~joins)))
    result = extents.take(firsts)
    lengths = np.add.reduceat(extents.length, firsts)
    return attrs.evolve(result, length=lengths) if lengths.all() else extents  # 2^64 bytes have no length


def union(starts: NDArray[np.uint64], lasts: NDArray[np.uint64]) -> Extents:
    """Return all addresses in ranges that may overlap, as extents that lead to themselves, as few as can be.

    :param starts: first addresses, in bytes, in any order, shape (n,).
    :param lasts: last addresses.
    """
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(lasts[order])
    begins = np.ones(len(starts), np.bool_)
    begins[1:] = (starts[1:] > reach[:-1]) & (starts[1:] - reach[:-1] > _ONE)
    first = np.flatnonzero(begins)
    starts, lasts = starts[first], reach[np.append(first[1:], len(starts))[: len(first)] - 1]
    none = np.zeros(len(first), np.uint8)
    return Extents(starts, lasts - starts + _ONE, starts, none, none.astype(np.uint16), none)


@attrs.frozen(eq=False)
class ReverseMap:
    """A space by where it leads, sorted by target; several extents may lead to one place."""

    extents: Extents
    """In the order of their targets; by start where these are equal: not sorted as :class:`Extents` are elsewhere."""
    reach: NDArray[np.uint64]
    """The highest last target of this extent and all before it."""

    def leading_to(self, target: int) -> Extents:
        """Return the parts, one byte each, that lead to one address, sorted by where they start."""
        end = int(np.searchsorted(self.extents.target, np.uint64(target), "right"))
        begin = int(np.searchsorted(self.reach, np.uint64(target), "left"))
        near = self.extents.take(slice(begin, max(begin, end)))
        near = near.take(np.uint64(target) - near.target < near.length)
        start = near.start + (np.uint64(target) - near.target)
        found = cut(near, np.arange(len(near)), start, np.ones(len(near), np.uint64))
        return found.take(np.argsort(found.start, kind="stable"))

    @property
    def shared(self) -> NDArray[np.bool_]:
        """Which extents begin where one before them leads to already."""
        shared = np.zeros(len(self.extents), np.bool_)
        shared[1:] = self.extents.target[1:] <= self.reach[:-1]
        return shared

    def forward(self) -> Extents:
        """Return the inverse as a space: from each target back to where it is mapped.

        :raises InputError: if two addresses lead to one place.
        """
        kept, shared = self.extents, self.shared
        if shared.any():
            place = int(kept.target[int(np.argmax(shared))])
            problem = f"two addresses lead to {place:#x}"
            raise InputError("extents", "target", problem, "ask the reverse map itself, which knows them all")
        return attrs.evolve(kept, start=kept.target, target=kept.start)


def invert(extents: Extents) -> ReverseMap:
    """Return the reverse map of a space."""
    order = np.lexsort((extents.start, extents.target))
    found = extents.take(order)
    return ReverseMap(found, np.maximum.accumulate(found.target + (found.length - _ONE)))
