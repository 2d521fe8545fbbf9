"""The words of table pages, for batches: each frame is copied once, whoever reads it how often."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nestmmu.access import Access
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT
from nestmmu.translations import IMPLICIT, KIND_MASK, OUTSIDE, Lanes

if TYPE_CHECKING:
    from typing import Protocol

    from numpy.typing import NDArray

    from nestmmu.memory import ByteOrder, Memory, PhysicalMemory

    class Words(Protocol):
        """How the words of tables are kept: a format is one."""

        @property
        def entry_bytes(self) -> int:
            """Bytes of a word."""
            ...

        @property
        def byteorder(self) -> ByteOrder:
            """Their order in memory."""
            ...

    class Stage(Protocol):
        """Translates lanes."""

        def run(self, lanes: Lanes, access: Access | None) -> None:
            """Translate the addresses of ``lanes``, none of which has a fault yet, in place.

            :param access: None: look up only; permissions, accessed and dirty do not count.
            """
            ...


_FIRST_ROWS = 64
_AT_ONCE = 32
_LARGEST_SPARE = 1 << 23
_SPARE: deque[NDArray[np.uint64]] = deque(maxlen=1)
"""The room of a pool that is done with, 64 MiB at the most: fresh memory costs more than all that is done in it."""


def granule_shift(memory: Memory) -> int:
    """Return log2 of the bytes within which words lie together and are there together, at most a frame's."""
    size = memory.physical.size
    return min(memory.granule_shift, FRAME_SHIFT, (size & -size).bit_length() - 1)


class WordPool:
    """Frames of the machine's memory, as words of one size and byte order.

    ``words`` is a flat array of uint64; it may be another one after each call that adds to it.
    """

    def __init__(self, physical: PhysicalMemory, table_format: Words) -> None:
        self.physical = physical
        self.format = table_format
        self.words = _SPARE.pop() if _SPARE else np.zeros(0, np.uint64)
        self.scale = table_format.entry_bytes.bit_length() - 1
        self._frames = physical.readable_frames()
        self._rows: dict[int, int] = {}
        self._kind = np.dtype(f"{'>' if table_format.byteorder == 'big' else '<'}u{table_format.entry_bytes}")
        self._word_shift = FRAME_SHIFT - self.scale

    def __len__(self) -> int:
        """Return how many frames there are."""
        return len(self._rows)

    def clear(self) -> None:
        """Forget all frames; the room for them is kept."""
        self._rows.clear()

    def close(self) -> None:
        """Forget all frames, and leave the room to the next pool."""
        self._rows.clear()
        if len(self.words) <= _LARGEST_SPARE:
            _SPARE.append(self.words)
        self.words = np.zeros(0, np.uint64)

    def _raw(self, number: int) -> memoryview | bytes | None:
        """Return the bytes of a frame; None outside the memory.

        :raises PoisonedError: if it was freed.
        """
        frame = self._frames.get(number)
        if frame is not None:
            return frame
        start = number << FRAME_SHIFT
        size = min(FRAME_BYTES, self.physical.size - start)
        return self.physical.read(start, size).ljust(FRAME_BYTES, b"\0") if size > 0 else None

    def _add(self, numbers: list[int]) -> None:
        """Copy frames that are not there yet, those outside the memory left out."""
        raw = {number: frame for number in numbers if (frame := self._raw(number)) is not None}
        if not raw:
            return
        first = len(self._rows)
        end = first + len(raw) << self._word_shift
        if end > len(self.words):
            grown = np.empty(max(2 * len(self.words), end, _FIRST_ROWS << self._word_shift), np.uint64)
            grown[: first << self._word_shift] = self.words[: first << self._word_shift]
            self.words = grown
        frames = list(raw.values())
        for start in range(0, len(frames), _AT_ONCE):  # in pieces that fit into the cache
            part = np.frombuffer(b"".join(frames[start : start + _AT_ONCE]), self._kind)
            at = first + start << self._word_shift
            self.words[at : at + len(part)] = part
        self._rows.update(zip(raw, range(first, first + len(raw)), strict=True))

    def offsets(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return where in ``words`` the words at physical addresses are; -1 outside the memory.

        :param addresses: in bytes, aligned to the word.
        """
        frames, inverse = np.unique(addresses >> np.uint64(FRAME_SHIFT), return_inverse=True)
        numbers, rows = frames.tolist(), self._rows
        missing = [number for number in numbers if number not in rows]
        if missing:
            self._add(missing)
        found = np.array([rows.get(number, -1) for number in numbers], np.int64)[inverse]
        index = (addresses & np.uint64(FRAME_BYTES - 1)) >> np.uint64(self.scale)
        outside = found < 0
        size = self.physical.size
        if size % FRAME_BYTES:
            absent = np.array([number not in self._frames for number in numbers], np.bool_)[inverse]
            outside |= absent & (addresses > np.uint64(size - self.format.entry_bytes))
        return np.where(outside, np.int64(-1), (found << self._word_shift) + index.view(np.int64))

    def touch(self, offsets: NDArray[np.int64], bits: int) -> None:
        """Set bits of words, here and in the memory."""
        form, numbers = self.format, np.fromiter(self._rows, np.uint64, len(self._rows))
        self.words[offsets] |= np.uint64(bits)
        rows, index = offsets >> self._word_shift, offsets & ((1 << self._word_shift) - 1)
        places = (numbers[rows] << np.uint64(FRAME_SHIFT)) + (index << self.scale).view(np.uint64)
        for address, value in zip(places.tolist(), self.words[offsets].tolist(), strict=True):
            self.physical.store(address, value, form.entry_bytes, form.byteorder)


class Found(NamedTuple):
    """Words of a table, found in the memory that holds it."""

    offsets: NDArray[np.int64]
    """In the pool's words; -1 where there is none."""
    codes: NDArray[np.uint16]
    """Faults met while translating the word's address, all implicit; 0 for none."""
    addresses: NDArray[np.uint64]
    """What these faults are about."""


class TableMemory:
    """The memory that holds a table.

    :param stage: what translates its addresses to the machine's; None: they are the machine's.
    """

    def __init__(self, pool: WordPool, stage: Stage | None) -> None:
        self.pool = pool
        self.stage = stage

    def find(self, addresses: NDArray[np.uint64]) -> Found:
        """Find words; those neither found nor at fault are outside memory.

        :param addresses: in bytes, shape (n,); translated once each, however often they are there.
        :raises ~nestmmu.errors.CycleError: if that needs this very memory.
        """
        if self.stage is None:
            return Found(self.pool.offsets(addresses), np.zeros(len(addresses), np.uint16), addresses)
        unique, inverse = np.unique(addresses, return_inverse=True)
        lanes = Lanes.begin(unique)
        self.stage.run(lanes, Access.LOAD)
        offsets = np.full(len(unique), -1, np.int64)
        good = np.flatnonzero(lanes.faults == 0)
        offsets[good] = self.pool.offsets(lanes.addresses[good])
        told = (lanes.faults != 0) & (lanes.faults & np.uint16(KIND_MASK) != OUTSIDE)
        codes = np.where(told, lanes.faults | np.uint16(IMPLICIT), np.uint16(0))
        return Found(offsets[inverse], codes[inverse], lanes.addresses[inverse])
