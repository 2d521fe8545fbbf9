"""Whether a shadow table is right: each of its entries beside the composition of the two tables under it, over arrays.

The shadow leads from the innermost guest's real addresses to the machine's. Under it are the guest hypervisor's table
(inner) and the host's table for the guest hypervisor (outer). What must hold is what :mod:`nestmmu.invariants` asks of
guests that run.
"""

from __future__ import annotations

import enum
from functools import cached_property
from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.access import ALL_PERMISSIONS
from nestmmu.extent_algebra import Places, union
from nestmmu.extents import ACCESSED, ATTRIBUTE_SHIFT, DIRTY, Extents

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_ONE = np.uint64(1)
_MARKED = np.uint16(ACCESSED | DIRTY)
_MARKS, _WORD_SHIFT = ATTRIBUTE_SHIFT, ATTRIBUTE_SHIFT + 3
_AT_ONCE = 1 << 17
"""Entries that are judged together: few enough for the caches."""


class Verdict(enum.IntEnum):
    """What is to be said of an entry: of what is wrong with it, what comes last here."""

    SOUND = 0
    DIRTY_UNSEEN = 1
    """It is marked as written where a table under it is not: a store would go unseen by whoever asks that table."""
    TOO_PERMISSIVE = 2
    WRONG_TARGET = 3
    OUTSIDE = 4
    """It leads, or the inner table does, where the guest hypervisor has no memory."""
    TOO_LARGE = 5
    """It is larger than the page under it: what invalidates that page need not reach all of it."""
    STALE = 6
    """Nothing is mapped under it any more."""

    @property
    def label(self) -> str:
        """The name as people and ``--json`` have it."""
        return _LABELS[self]


_LABELS = {
    Verdict.SOUND: "sound",
    Verdict.DIRTY_UNSEEN: "dirty without C below",
    Verdict.TOO_PERMISSIVE: "too permissive",
    Verdict.WRONG_TARGET: "wrong target",
    Verdict.OUTSIDE: "outside L1's memory",
    Verdict.TOO_LARGE: "too large",
    Verdict.STALE: "stale",
}


@attrs.frozen(eq=False)
class Under:
    """What is under entries of a shadow, at the first address of each that anything is mapped at; shape (n,) each."""

    inner: NDArray[np.intp]
    """Which extent of the inner table; -1 for none."""
    middle: NDArray[np.uint64]
    """Where that leads: in the guest hypervisor's memory, in bytes."""
    outer: NDArray[np.intp]
    """Which extent of the outer table; -1 for none."""
    target: NDArray[np.uint64]
    """Where that leads: in the machine's memory, in bytes."""


class Judge:
    """Judges entries of a shadow.

    :param inner: the guest hypervisor's table for its guest.
    :param outer: the host's table for the guest hypervisor.
    """

    def __init__(self, inner: Extents, outer: Extents) -> None:
        self.inner = inner
        self.outer = outer
        self._by_inner = Places(inner)
        self._by_outer = Places(outer)
        self._outer_words = _words(outer)

    def judge(self, shadow: Extents, progress: Callable[[int, int], None] | None = None) -> NDArray[np.uint8]:
        """Return a :class:`Verdict` for each entry of a shadow, shape (n,).

        :param progress: called now and then with how many are done, and how many there are.
        """
        verdicts = np.empty(len(shadow), np.uint8)
        for start in range(0, len(shadow), _AT_ONCE):
            part = slice(start, min(start + _AT_ONCE, len(shadow)))
            verdicts[part] = self._part(shadow.take(part))
            if progress is not None:
                progress(part.stop, len(shadow))
        return verdicts

    def under(self, shadow: Extents) -> Under:
        """Return what is under entries of a shadow.

        Where the page under an entry is not smaller than it, that page is under all of it, as pages are aligned.
        """
        inner, starts = self._by_inner.first_meeting(shadow.start, shadow.last)
        middle, target = np.zeros((2, len(shadow)), np.uint64)
        outer = np.full(len(shadow), -1, np.intp)
        some = _chosen(inner >= 0)
        found, starts = inner[some], starts[some]
        offsets = starts - self.inner.start[found]
        sizes = np.minimum(shadow.last[some] - starts, self.inner.length[found] - _ONE - offsets)
        here = self.inner.target[found] + offsets
        outer[some], middle[some] = self._by_outer.first_meeting(here, here + sizes)
        more = _chosen(outer >= 0)
        found = outer[more]
        target[more] = self.outer.target[found] + (middle[more] - self.outer.start[found])
        return Under(inner, middle, outer, target)

    def _part(self, shadow: Extents) -> NDArray[np.uint8]:
        under = self.under(shadow)
        verdicts = np.full(len(shadow), Verdict.STALE, np.uint8)
        lost = np.flatnonzero((under.inner >= 0) & (under.outer < 0))
        beyond = np.ones(len(lost), np.bool_)
        if len(self.outer):
            beyond = under.middle[lost] > self.outer.start[-1] + (self.outer.length[-1] - _ONE)
        verdicts[lost[beyond]] = Verdict.OUTSIDE
        some = _chosen(under.outer >= 0)
        verdicts[some] = self._mapped(shadow.take(some), under.inner[some], under.outer[some], under.target[some])
        return verdicts

    def _mapped(
        self, shadow: Extents, inner: NDArray[np.intp], outer: NDArray[np.intp], target: NDArray[np.uint64]
    ) -> NDArray[np.uint8]:
        """Judge entries that something is mapped under."""
        below, own = self._outer_words[outer], _words(shadow)
        size = np.minimum(self.inner.page_shift[inner], below >> np.uint16(_WORD_SHIFT))
        granted = self.inner.permissions[inner].astype(np.uint16) << np.uint16(_MARKS)
        below &= granted | self.inner.flags[inner] & _MARKED
        extra = own & ~below
        verdicts = np.where(extra & np.uint16(DIRTY), np.uint8(Verdict.DIRTY_UNSEEN), np.uint8(0))
        verdicts[extra >> np.uint16(_MARKS) & np.uint16(ALL_PERMISSIONS) != 0] = Verdict.TOO_PERMISSIVE
        wrong = np.flatnonzero(shadow.target != target)
        if len(wrong):
            beyond = ~self._inside(shadow.target[wrong], shadow.length[wrong])
            verdicts[wrong] = np.where(beyond, Verdict.OUTSIDE, Verdict.WRONG_TARGET)
        verdicts[shadow.page_shift > size] = Verdict.TOO_LARGE
        return verdicts

    @cached_property
    def _memory(self) -> Extents:
        """What the host has given to the guest hypervisor, by the machine's addresses."""
        return union(self.outer.target, self.outer.target + (self.outer.length - _ONE))

    def _inside(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Tell which ranges of the machine's memory are wholly the guest hypervisor's."""
        first, last = self._memory.find(starts), self._memory.find(starts + (lengths - _ONE))
        inside: NDArray[np.bool_] = (first >= 0) & (first == last)
        return inside


def _chosen(mask: NDArray[np.bool_]) -> NDArray[np.intp] | slice:
    """Return what takes those for which a mask is true; all of them without a copy."""
    return slice(None) if mask.all() else np.flatnonzero(mask)


def _words(extents: Extents) -> NDArray[np.uint16]:
    """Return page shift, permissions and marks of each in one word: one place to look them up."""
    words = extents.page_shift.astype(np.uint16) << np.uint16(_WORD_SHIFT)
    words |= extents.permissions.astype(np.uint16) << np.uint16(_MARKS)
    words |= extents.flags & _MARKED
    return words
