"""Whole hash page tables as arrays: every entry at once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.errors import TooLargeError
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT, PhysicalMemory
from nestmmu_ppc64_hpt.hashing import AVPN_ADDRESS_SHIFT
from nestmmu_ppc64_hpt.hpte import (
    GROUP_SLOTS,
    HPTE_BYTES,
    R_SSIZE,
    R_SSIZE_SHIFT,
    SEGMENT_SHIFTS,
    V_AVPN,
    V_COMMON,
    V_SECONDARY,
    V_SSIZE_SHIFT,
    V_VALID,
)
from nestmmu_ppc64_hpt.pages import HPTE_R_RPN, HPTE_V_LARGE, RPN_SHIFT, SHIFT_4K, page_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from nestmmu_ppc64_hpt.table import HashTable

_BATCH = 1024
"""Pieces that are looked at together: what is kept of them is their valid entries."""
KEPT_LIMIT = 1 << 32
"""Bytes of a table that are looked at at once, at most."""


def kept_pieces(table: HashTable) -> Iterator[tuple[int, bytes]]:
    """Yield (first slot, bytes) of the frames of a table that were ever written; the rest reads as zero.

    :raises TooLargeError: if there are more than :data:`KEPT_LIMIT` bytes.
    """
    size, base, memory = 1 << table.order, table.base, table.memory
    if isinstance(memory, PhysicalMemory):
        first, last = base >> FRAME_SHIFT, base + size >> FRAME_SHIFT
        frames = [number for number in memory.frame_numbers() if first <= number < last]
    else:
        frames = range(base >> FRAME_SHIFT, base + size >> FRAME_SHIFT)  # type: ignore[assignment]
    if len(frames) > KEPT_LIMIT >> FRAME_SHIFT:
        raise TooLargeError(
            f"the hash page table at {base:#x} keeps more than {KEPT_LIMIT} bytes; look at a smaller one"
        )
    per_frame = FRAME_BYTES // HPTE_BYTES
    for number in frames:
        yield (
            ((number << FRAME_SHIFT) - base) // FRAME_BYTES * per_frame,
            memory.read(number << FRAME_SHIFT, FRAME_BYTES),
        )


@attrs.frozen(eq=False)
class Entries:
    """The valid entries of a table by slot; each array has shape (n,)."""

    slots: NDArray[np.uint64]
    v: NDArray[np.uint64]
    """Doubleword 0 in the older format."""
    r: NDArray[np.uint64]
    vsids: NDArray[np.uint64]
    offsets: NDArray[np.uint64]
    """In the segment, of the page that the entry was hashed by, in bytes."""
    real: NDArray[np.uint64]
    """First byte of the page that it leads to."""
    segment_shifts: NDArray[np.uint8]
    base_shifts: NDArray[np.uint8]
    """Log2 of the base page's bytes; 0 in an entry that no access uses: reserved segment size, or no penc."""
    page_shifts: NDArray[np.uint8]
    """Log2 of the actual page's bytes; 0 likewise."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.slots)


def _page_sizes() -> NDArray[np.uint8]:
    """Return log2 of (base, actual) page by L and bits 19:12 of doubleword 1, shape (512, 2); 0 for no penc."""
    sizes = np.zeros((512, 2), np.uint8)
    for lp in range(256):
        sizes[lp] = SHIFT_4K
        sizes[256 | lp] = page_pair(HPTE_V_LARGE, lp << RPN_SHIFT) or (0, 0)
    return sizes


_SIZES = _page_sizes()
_SEGMENTS = np.array([SEGMENT_SHIFTS.get(size, 0) for size in range(4)], np.uint8)


def _u64(value: int) -> np.uint64:
    return np.uint64(value)


def enumerate_table(table: HashTable) -> Entries:
    """Return every valid entry of a table.

    :raises TooLargeError: if more of it than :data:`KEPT_LIMIT` bytes was ever written.
    :raises OutsideMemoryError: or a Fault, where the table cannot be read.
    """
    pieces = kept_pieces(table)
    found = [_valid(batch) for batch in iter(lambda: list(itertools.islice(pieces, _BATCH)), [])]
    slots, v, r = (np.concatenate(column) for column in zip(_valid([]), *found, strict=True))
    if table.form.r_compared:
        v = v & _u64(V_COMMON) | (r & _u64(R_SSIZE)) >> _u64(R_SSIZE_SHIFT) << _u64(V_SSIZE_SHIFT)
        r = r & _u64(~R_SSIZE & (1 << 64) - 1)
    return _decoded(slots, v, r, table.group_mask)


def _valid(pieces: list[tuple[int, bytes]]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Return (slots, v, r) of the valid entries of some pieces, as they are in memory; shapes (n,)."""
    raw = np.frombuffer(b"".join(data for _, data in pieces), ">u8").reshape(-1, 2)
    starts = np.array([first for first, _ in pieces], np.uint64)
    per_piece = FRAME_BYTES // HPTE_BYTES
    chosen = np.flatnonzero(raw[:, 0] & _u64(V_VALID))
    slots = starts[chosen // per_piece] + (chosen % per_piece).astype(np.uint64)
    return slots, raw[chosen, 0].astype(np.uint64), raw[chosen, 1].astype(np.uint64)


def _decoded(slots: NDArray[np.uint64], v: NDArray[np.uint64], r: NDArray[np.uint64], group_mask: int) -> Entries:
    large = (v & _u64(HPTE_V_LARGE)) << _u64(6)
    pairs = _SIZES[(large | r >> _u64(RPN_SHIFT) & _u64(0xFF)).astype(np.intp)]
    segments = _SEGMENTS[(v >> _u64(V_SSIZE_SHIFT)).astype(np.intp)]
    good = (pairs[:, 0] != 0) & (segments != 0)
    pairs = np.where(good[:, None], pairs, 0).astype(np.uint8)
    base, actual, shifts = (part.astype(np.uint64) for part in (pairs[:, 0], pairs[:, 1], segments))
    one = _u64(1)
    number = (v & _u64(V_AVPN)) >> _u64(7)
    over = np.where(segments == 0, _u64(0), shifts - _u64(AVPN_ADDRESS_SHIFT))
    vsids = number >> over
    offsets = (number & (one << over) - one) << _u64(AVPN_ADDRESS_SHIFT)
    offsets = offsets >> base << base
    hashes = np.where(segments == SEGMENT_SHIFTS[1], vsids ^ vsids << _u64(25), vsids)
    groups = slots // _u64(GROUP_SLOTS)
    groups = np.where(v & _u64(V_SECONDARY) != 0, ~groups, groups)
    low = ((hashes ^ groups) & _u64(group_mask)) << base & _u64((1 << AVPN_ADDRESS_SHIFT) - 1)
    offsets |= np.where(base < AVPN_ADDRESS_SHIFT, low, _u64(0))
    real = (r & _u64(HPTE_R_RPN)) >> actual << actual
    return Entries(slots, v, r, vsids, offsets, real, segments, pairs[:, 0], pairs[:, 1])
