"""Invalidations: what a cache of translations is told to forget."""

from __future__ import annotations

import enum

import attrs

from nestmmu.addresses import HardwareTag


class FlushKind(enum.Enum):
    """The scope of one invalidation."""

    PAGE = "page"
    """The translations of one page."""
    WALK_CACHE = "walk cache"
    """Cached directory entries of one tag; translations stay."""
    TAG = "tag"
    """Everything of one tag, entries of root tables included."""


@attrs.frozen
class Flush:
    """One invalidation that a hypervisor gave to the hardware (or to its own host)."""

    tag: HardwareTag
    kind: FlushKind
    address: int = 0
    """For a page: its first address, in bytes."""
    page_shift: int = 0
    """For a page: log2 of its bytes."""
    cpu: int | None = None
    """The CPU whose core alone forgets; None: all do."""

    def reaches(self, cpus: range | None) -> bool:
        """Tell whether a cache that ``cpus`` share (None: one that is everyone's) hears of it."""
        return self.cpu is None or cpus is None or self.cpu in cpus
