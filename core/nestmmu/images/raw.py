"""Raw memory: a file of nothing but bytes, of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.addresses import ADDRESS_LIMIT
from nestmmu.errors import InputError
from nestmmu.images.documents import open_regular
from nestmmu.images.file_memory import MemoryFile, Segment

if TYPE_CHECKING:
    from pathlib import Path


def raw_memory(path: Path, base: int = 0) -> MemoryFile:
    """Return the memory in a file that holds nothing else.

    :param base: where its first byte is in the machine's memory, in bytes.
    :raises InputError: if it cannot be read, is empty, or ends beyond 2^64.
    """
    with open_regular(path) as file:
        size = file.seek(0, 2)
    if not size:
        raise InputError(path, "", "is empty", "give the file as it was made")
    if base + size > ADDRESS_LIMIT:
        raise InputError(path, "", f"has {size} bytes, which from {base:#x} on end beyond 2^64", "give a lower --base")
    return MemoryFile(path, [Segment(base, 0, size)])
