"""The reverse map: from a frame of a guest to the shadow entries that lead to it."""

from __future__ import annotations

from typing import NamedTuple

from nestmmu.addresses import AssignedTag


class ReverseEntry(NamedTuple):
    """One place in a shadow table."""

    tag: AssignedTag
    """The nested guest's, as the guest hypervisor assigned it."""
    address: int
    """The first address of the shadow's page, in the nested guest's memory, in bytes."""


class ReverseMap:
    """Shadow entries by the frame number of the guest that they lead to (frames of the host's base page)."""

    def __init__(self) -> None:
        self._lists: dict[int, list[ReverseEntry]] = {}
        self.capacity: int | None = None
        """How many entries there is memory for; None: no limit."""

    @property
    def full(self) -> bool:
        """Whether there is no memory for another entry."""
        return self.capacity is not None and len(self) >= self.capacity

    def insert(self, frame: int, entry: ReverseEntry) -> bool:
        """Note that a shadow entry leads to ``frame``; return False if it was noted already.

        Duplicates are refused, so that a guest cannot make its host's lists grow without bound.
        """
        entries = self._lists.setdefault(frame, [])
        if entry in entries:
            return False
        entries.append(entry)
        return True

    def entries(self, frame: int) -> list[ReverseEntry]:
        """Return what leads to ``frame``, newest first."""
        return self._lists.get(frame, [])[::-1]

    def take(self, frame: int) -> list[ReverseEntry]:
        """Return what leads to ``frame``, newest first, and forget it."""
        return self._lists.pop(frame, [])[::-1]

    def clear(self) -> None:
        """Forget everything."""
        self._lists.clear()

    def frames(self) -> list[int]:
        """Return every frame that something leads to, sorted."""
        return sorted(self._lists)

    def __len__(self) -> int:
        """Return how many entries there are."""
        return sum(map(len, self._lists.values()))
