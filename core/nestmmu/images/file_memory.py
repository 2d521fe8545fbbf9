"""Memory whose bytes lie in a file: of any size, of which only the frames that are touched are kept."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.addresses import ADDRESS_LIMIT
from nestmmu.errors import InputError
from nestmmu.images.documents import open_regular
from nestmmu.memory import FRAME_SHIFT, LazyMemory

if TYPE_CHECKING:
    from pathlib import Path

    from nestmmu.memory import PhysicalMemory


@attrs.frozen
class Segment:
    """A piece of memory that lies in one piece in a file."""

    address: int
    """In the machine's memory, in bytes."""
    offset: int
    """In the file, in bytes."""
    size: int
    """Bytes, none 0, that are in the file."""

    @property
    def end(self) -> int:
        """The address after its last byte."""
        return self.address + self.size


class MemoryFile:
    """A file, mapped for reading, and what of it is which memory.

    :param segments: within the file and within 64 bits; none overlaps another.
    :raises InputError: if it cannot be mapped.
    """

    def __init__(self, path: Path, segments: list[Segment]) -> None:
        self.path = path
        self.segments = sorted(segments, key=lambda one: one.address)
        self._starts = np.array([one.address for one in self.segments], np.uint64)
        with open_regular(path) as file:
            try:
                self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if segments else b""
            except (OSError, ValueError) as error:
                raise InputError(path, "", f"cannot be mapped: {error}", "give a file on a local disk") from None

    def frames(self) -> list[tuple[int, int]]:
        """Return (first, number of the one after the last) of runs of frames that hold anything, rising."""
        runs: list[tuple[int, int]] = []
        for segment in self.segments:
            first, end = segment.address >> FRAME_SHIFT, -(-segment.end >> FRAME_SHIFT)
            if runs and first <= runs[-1][1]:
                runs[-1] = runs[-1][0], end
            else:
                runs.append((first, end))
        return runs

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of memory; what is in no segment reads as zero."""
        index = max(int(np.searchsorted(self._starts, np.uint64(address), "right")) - 1, 0)
        parts, at, end = [], address, address + size
        while at < end:
            while index < len(self.segments) and self.segments[index].end <= at:
                index += 1
            segment = self.segments[index] if index < len(self.segments) else None
            if segment is None or segment.address >= end:
                parts.append(bytes(end - at))
                break
            if segment.address > at:
                parts.append(bytes(segment.address - at))
                at = segment.address
            last = min(end, segment.end)
            begin = segment.offset + at - segment.address
            parts.append(bytes(self._bytes[begin : begin + last - at]))
            at = last
        return b"".join(parts)

    def memory(self) -> PhysicalMemory:
        """Return a memory that begins as the file has it; stores never reach the file."""
        return FileMemory(self)


class FileMemory(LazyMemory):
    """The machine's memory as a file has it."""

    def __init__(self, source: MemoryFile, size: int = ADDRESS_LIMIT, name: str = "L0 real") -> None:
        super().__init__(source.read, size, name)
        self._runs = source.frames()

    def frame_numbers(self) -> list[int]:
        """Return the numbers of the frames that the file has, or that are kept, sorted."""
        numbers = set(self._frames)
        for first, end in self._runs:
            numbers.update(range(first, end))
        return sorted(numbers)

    def frame_count(self) -> int:
        """Return how many frames the file has, and those that are kept beside."""
        return sum(end - first for first, end in self._runs) + sum(not self._in_file(one) for one in self._frames)

    def holds(self, address: int) -> bool:
        """Tell whether the frame of an address is in the file, or anything was ever stored in it."""
        return super().holds(address) or self._in_file(address >> FRAME_SHIFT)

    def _in_file(self, number: int) -> bool:
        return any(first <= number < end for first, end in self._runs)
