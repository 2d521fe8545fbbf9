"""The kernel's encoding of the reverse map: one word for each page of a memory slot (``book3s_hv_nested.c``).

A word is 0 where nothing leads to the page, odd where it is the only entry itself, and else a pointer to a list, whose
last link is an odd word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.addresses import AssignedTag
from nestmmu.rmap import ReverseEntry

if TYPE_CHECKING:
    from nestmmu.rmap import ReverseMap

LPID_SHIFT = 52
LPID_MASK = 0xFFF0000000000000
GPA_MASK = 0x000FFFFFFFFFF000
SINGLE = 1


def encode(entry: ReverseEntry) -> int:
    """Return an entry as a list's node holds it: LPID and the frame in 4 KiB; :data:`SINGLE` makes it a word."""
    return entry.tag << LPID_SHIFT & LPID_MASK | entry.address & GPA_MASK


def decode(word: int) -> ReverseEntry:
    """Return the entry in a node or in a single word."""
    return ReverseEntry(AssignedTag((word & LPID_MASK) >> LPID_SHIFT), word & GPA_MASK)


def words(rmap: ReverseMap, frame: int) -> list[int]:
    """Return what the kernel keeps for a page: its nodes, newest first, and last the single word."""
    encoded = [encode(entry) for entry in rmap.entries(frame)]
    return [*encoded[:-1], encoded[-1] | SINGLE] if encoded else []
