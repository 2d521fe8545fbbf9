"""Which addresses were met before, by their upper bits: a number for each prefix, found for whole arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WIDEST_WINDOW = 1 << 22
"""How many prefixes may lie between the first and the last for a plain array to lead to their numbers."""


class PrefixIndex:
    """Numbers prefixes in the order in which they are added.

    While they lie close together, ``window[prefix - first]`` is the number, or -1; else a sorted array is searched.
    """

    def __init__(self) -> None:
        self.first = 0
        self.window = np.full(1, -1, np.int32)
        self.dense = True
        self._known = np.zeros(0, np.uint64)
        self._order = np.zeros(0, np.int32)
        self._sorted = np.zeros(0, np.uint64)

    def __len__(self) -> int:
        """Return how many prefixes there are."""
        return len(self._known)

    def find(self, prefixes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the number of each prefix; -1 where it is not known."""
        if self.dense:
            places = prefixes - np.uint64(self.first)
            if int(places.max(initial=0)) < len(self.window):
                return self.window[places.view(np.int64)]
            inside = places < len(self.window)
            return np.where(inside, self.window[np.where(inside, places, 0).view(np.int64)], np.int32(-1))
        places_of = np.minimum(np.searchsorted(self._sorted, prefixes), len(self._sorted) - 1)
        return np.where(self._sorted[places_of] == prefixes, self._order[places_of], np.int32(-1))

    def add(self, prefixes: NDArray[np.uint64]) -> None:
        """Give numbers to distinct prefixes that are not known, in this order."""
        self._known = np.concatenate((self._known, prefixes))
        low, high = int(self._known.min()), int(self._known.max())
        self.dense = high - low < _WIDEST_WINDOW
        if not self.dense:
            self._order = np.argsort(self._known).astype(np.int32)
            self._sorted = self._known[self._order]
            return
        if low < self.first or high - self.first >= len(self.window) or len(self._known) == len(prefixes):
            room = 1 if len(self._known) == len(prefixes) else 2  # one that had to grow will have to again
            self.first = low
            self.window = np.full(min(room * (high - low + 1), _WIDEST_WINDOW), -1, np.int32)
            fresh = self._known
        else:
            fresh = prefixes
        start = len(self._known) - len(fresh)
        numbers = np.arange(start, len(self._known), dtype=np.int32)
        self.window[(fresh - np.uint64(self.first)).view(np.int64)] = numbers
