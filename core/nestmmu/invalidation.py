"""Invalidations: what a cache of translations is told to forget."""

from __future__ import annotations

import enum

import attrs

from nestmmu.addresses import HardwareTag

HOST_OWN = HardwareTag(-1)
"""Stands for the host's own translations, which are no guest's: an invalidation of every guest leaves them."""


class FlushKind(enum.Enum):
    """What is forgotten."""

    PAGE = "page"
    """The translations of one page of the guest's memory."""
    INPUT_PAGE = "input page"
    """The translations of one page as a program has it."""
    TRANSLATIONS = "translations"
    """Every translation; directory entries stay."""
    ADDRESS_SPACE = "address space"
    """What the guest's own tables say: translations of its programs, and directory entries of those tables; what the
    host's table for it says stays."""
    WALK_CACHE = "walk cache"
    """Directory entries; translations stay."""
    TAG = "tag"
    """Everything, entries of root tables included."""


@attrs.frozen
class Flush:
    """One invalidation that a hypervisor gave to the hardware (or to its own host)."""

    tag: HardwareTag
    """The guest whose it is."""
    kind: FlushKind
    address: int = 0
    """For a page: its first address, in bytes."""
    page_shift: int = 0
    """For a page: log2 of its bytes."""
    cpu: int | None = None
    """The CPU whose core alone forgets; None: all do."""
    process: int | None = None
    """The process of the guest whose it is; None: every one's, and what is no process's."""
    every: bool = False
    """Whether it is of every guest, whatever ``tag`` says."""

    def reaches(self, cpus: range | None) -> bool:
        """Tell whether a cache that ``cpus`` share (None: one that is everyone's) hears of it."""
        return self.cpu is None or cpus is None or self.cpu in cpus

    def covers(self, start: int, page_shift: int) -> bool:
        """Tell whether its page has anything in common with the one of 2**``page_shift`` bytes at ``start``."""
        return self.address < start + (1 << page_shift) and start < self.address + (1 << self.page_shift)
