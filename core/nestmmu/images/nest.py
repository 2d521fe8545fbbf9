"""A nest that was stopped while it ran: memory, the registers that lead into it, and what its guest did.

The format is ``nest-image/1``: a JSON document and two ``.npz`` files beside it. What the
registers are called is the architecture's business: a :class:`Section` gives them by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.addresses import ADDRESS_BITS, ADDRESS_LIMIT, L2Real
from nestmmu.errors import InputError
from nestmmu.images.arrays import read_arrays
from nestmmu.images.documents import Field, quoted, read_json
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT, PhysicalMemory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from nestmmu.access import Access
    from nestmmu.images.file_memory import MemoryFile

FORMAT = "nest-image/1"
DOCUMENT_LIMIT_BYTES = 1 << 24
"""Bytes of the JSON document."""
TOUCH_LIMIT_BYTES = 1 << 32
"""Bytes that the touches beside the recorded accesses may have together."""

_SEPARATORS = frozenset("/\\:")
_UINT64 = np.dtype(np.uint64)


@attrs.frozen
class Section:
    """What an image says of one level: numbers by name."""

    field: Field

    def number(self, name: str, *, limit: int = ADDRESS_LIMIT) -> int:
        """Return a number from 0 to ``limit`` - 1.

        :raises InputError: if it is absent, null, no integer or outside.
        """
        return self.field.member(name).integer(limit)

    def optional(self, name: str, *, limit: int = ADDRESS_LIMIT) -> int | None:
        """Return a number from 0 to ``limit`` - 1, or None where it is absent or null.

        :raises InputError: if it is no integer or outside.
        """
        found = self.field.optional(name)
        return None if found is None or found.value is None else found.integer(limit)


@attrs.frozen
class ImageSlot:
    """A range of L2's addresses that is memory."""

    l2_real: L2Real
    """First address, in bytes."""
    size: int
    """In bytes."""
    kind: str
    """How L1 backed it, in the recorder's words."""


@attrs.frozen
class Touch:
    """A range that L2 accessed beside its recorded accesses."""

    access: Access
    l2_real: L2Real
    """First address, in bytes."""
    size: int
    """In bytes."""


@attrs.frozen
class Dropped:
    """A range where L0 removed shadow entries during the run."""

    l2_real: L2Real
    """First address, in bytes."""
    size: int
    """In bytes."""
    why: str


@attrs.frozen(eq=False)
class Frames:
    """Memory as frames that were kept."""

    numbers: NDArray[np.uint64]
    """Of 4 KiB frames: distinct, shape (n,), read-only."""
    data: NDArray[np.uint8]
    """The frames' bytes, shape (n, 4096), read-only."""

    def memory(self) -> PhysicalMemory:
        """Return a memory that holds a copy of the frames."""
        return PhysicalMemory.from_frames(self.numbers, self.data.copy())


@attrs.frozen(eq=False)
class NestImage:
    """The memory of a nest, and what its innermost guest did there."""

    path: Path
    arch: str
    origin: str
    l0: Section | None
    """None where the guest hypervisor is all there is: its real addresses are then the machine's."""
    l1: Section
    l2: Section
    slots: tuple[ImageSlot, ...]
    also: tuple[Touch, ...]
    dropped: tuple[Dropped, ...]
    columns: Mapping[str, NDArray[np.uint64]] = attrs.field(repr=False)
    """The recorded accesses, a column by name; all of one length, read-only."""
    accesses_path: Path
    source: Frames | MemoryFile = attrs.field(repr=False)
    """What holds the memory."""

    def column(self, name: str) -> NDArray[np.uint64]:
        """Return a column of the recorded accesses, shape (n,).

        :raises InputError: if the image has no such column.
        """
        found = self.columns.get(name)
        if found is None:
            raise InputError(self.accesses_path, name, "is missing", "add the column, or give another image")
        return found

    def memory(self) -> PhysicalMemory:
        """Return the machine's memory, a new one at each call: what is stored in it stays there."""
        return self.source.memory()


def _range(field: Field) -> tuple[L2Real, int]:
    """Return the address and the size of a range, which lies within 64 bits and is not empty."""
    address = field.member("l2_real").integer()
    size = field.member("size")
    count = size.integer(ADDRESS_LIMIT + 1)
    if not 0 < count <= ADDRESS_LIMIT - address:
        size.fail(f"is {count}, and the range is empty or ends beyond 2^{ADDRESS_BITS}", "write another size")
    return L2Real(address), count


def _touches(field: Field) -> tuple[Touch, ...]:
    touches = tuple(Touch(item.member("kind").access(), *_range(item)) for item in field.elements())
    total = sum(touch.size for touch in touches)
    if total > TOUCH_LIMIT_BYTES:
        field.fail(f"has {total} bytes", f"give ranges of at most {TOUCH_LIMIT_BYTES} bytes in all")
    return touches


def _section(field: Field) -> Section:
    """Return a level, whose numbers are all within 64 bits."""
    for member in field.members().values():
        if isinstance(member.value, int | float):
            member.integer()
    return Section(field)


def _beside(field: Field) -> Path:
    """Return the path of a file that a document names; it stands beside the document."""
    name = field.text()
    if name in {"", ".", ".."} or not _SEPARATORS.isdisjoint(name):
        field.fail(f"is {quoted(name)}, not a plain file name", "name a file in the image's own directory")
    path = field.where.parent / name
    if not path.exists():
        field.fail(f"names {quoted(name)}, and there is no such file", "put it beside the document")
    return path


def _read_frames(path: Path) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    arrays = read_arrays(path)
    for name in ("frame", "data"):
        if name not in arrays:
            raise InputError(path, name, "is missing", "add the array, or give another image")
    frames, data = arrays["frame"], arrays["data"]
    if frames.dtype != _UINT64 or frames.ndim != 1:
        raise InputError(path, "frame", f"is {frames.dtype} {frames.shape}", "save a uint64 of shape (n,)")
    if data.dtype != np.dtype(np.uint8) or data.shape != (len(frames), FRAME_BYTES):
        wanted = f"save a uint8 of shape ({len(frames)}, {FRAME_BYTES}), a row for each frame"
        raise InputError(path, "data", f"is {data.dtype} {quoted(data.shape)}", wanted)
    if len(frames) and int(frames.max()) >> (ADDRESS_BITS - FRAME_SHIFT):
        raise InputError(path, "frame", "has a number of 2^52 or more", "give frame numbers, not addresses")
    if len(np.unique(frames)) != len(frames):
        raise InputError(path, "frame", "has a number twice", "keep each frame once")
    frames.flags.writeable = data.flags.writeable = False
    return frames, data


def _read_columns(path: Path) -> dict[str, NDArray[np.uint64]]:
    columns = read_arrays(path)
    first = next(iter(columns), "")
    for name, column in columns.items():
        if column.dtype != _UINT64 or column.ndim != 1:
            raise InputError(path, name, f"is {column.dtype} {quoted(column.shape)}", "save a uint64 of shape (n,)")
        if len(column) != len(columns[first]):
            problem = f"has {len(column)} values where {first} has {len(columns[first])}"
            raise InputError(path, name, problem, "save columns of one length")
        column.flags.writeable = False
    return columns


def read_nest_image(path: Path) -> NestImage:
    """Read an image: its JSON document and the two files that it names.

    :raises InputError: if any of the three cannot be read, or is not of the format.
    """
    top = read_json(path, DOCUMENT_LIMIT_BYTES)
    kind = top.member("format")
    if kind.value != FORMAT:
        kind.fail(f"is {quoted(kind.value)}", f"give an image of format {FORMAT}")
    pages_path, accesses_path = (_beside(top.member(name)) for name in ("pages", "accesses"))
    source = Frames(*_read_frames(pages_path))
    return image_of(path, top, source, accesses_path)


def image_of(path: Path, top: Field, source: Frames | MemoryFile, accesses_path: Path | None = None) -> NestImage:
    """Return an image of memory and what describes it.

    :param top: a document with the fields of a nest-image/1; those that name files are not looked at.
    :param accesses_path: holds the recorded accesses; None where there are none.
    :raises InputError: if a field is missing, or not what it should be.
    """
    l0, l1, l2 = (top.member(name) for name in ("l0", "l1", "l2"))
    slots, also, dropped = (l2.member(name) for name in ("slots", "also", "dropped"))
    return NestImage(
        path=path,
        arch=top.member("arch").text(),
        origin=top.member("origin").text(),
        l0=None if l0.value is None else _section(l0),
        l1=_section(l1),
        l2=_section(l2),
        slots=tuple(ImageSlot(*_range(item), item.member("kind").text()) for item in slots.elements()),
        also=_touches(also),
        dropped=tuple(Dropped(*_range(item), item.member("why").text()) for item in dropped.elements()),
        columns={} if accesses_path is None else _read_columns(accesses_path),
        accesses_path=path if accesses_path is None else accesses_path,
        source=source,
    )
