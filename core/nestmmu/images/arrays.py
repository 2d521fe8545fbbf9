"""Arrays from outside: ``.npz`` files, of which nothing is unpacked before it was checked.

An ``.npz`` is a zip file of ``.npy`` members, each a short header and the values. The header
format is numpy's (numpy.lib.format); it is parsed here by a pattern, as numpy evaluates it as
Python, and with it may come pickles.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs
import numpy as np

from nestmmu.errors import InputError
from nestmmu.images.documents import open_regular, quoted

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ARRAY_LIMIT_BYTES = 1 << 30
"""Bytes that the arrays of one file may have together, when unpacked."""

_DTYPES: dict[str, np.dtype[Any]] = {"|u1": np.dtype(np.uint8), "<u8": np.dtype(np.uint64)}
_MEMBER_LIMIT = 256
_DIRECTORY_LIMIT = 1 << 16
_HEADER_LIMIT = 1 << 12
_CHUNK_BYTES = 1 << 20

_END_OF_DIRECTORY = struct.Struct("<4s8xIIH")  # signature, bytes of the directory, its offset, bytes of comment
_MEMBER_NAME = re.compile(r"(\w{1,64})\.npy", re.ASCII)
_ENTRY = r"'(\w+)'\s*:\s*('[^']*'|True|False|\([\d\s,]*\))\s*(?:,\s*)?"
_HEADER = re.compile(rf"\{{\s*(?:{_ENTRY})+\}}\s*", re.ASCII)
_ENTRIES = re.compile(_ENTRY, re.ASCII)
_COPY = "copy or download it again"
_SAVE = "save it with numpy.savez"

# What zipfile raises on damaged files; a RuntimeError is an encrypted member or an unknown compression.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, OverflowError)


@attrs.frozen
class _Member:
    """An array that is still packed."""

    info: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """Bytes of the member before the values."""

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return self.info.file_size - self.offset


def _check_directory(path: Path, file: BinaryIO, limit_bytes: int) -> None:
    """Refuse what would be large only to list: the zip directory is read whole."""
    size = file.seek(0, 2)
    if size > limit_bytes:
        raise InputError(path, "", f"has more than {limit_bytes} bytes", "give a smaller file")
    locator = 20  # bytes of what leads to a zip64 directory, and stands before the end where there is one
    file.seek(max(0, size - _END_OF_DIRECTORY.size - locator))
    tail = file.read()
    if len(tail) < _END_OF_DIRECTORY.size:
        raise InputError(path, "", "is cut short", _COPY)
    end = tail[-_END_OF_DIRECTORY.size :]
    signature, directory_bytes, _, comment_bytes = _END_OF_DIRECTORY.unpack(end)
    if signature != b"PK\x05\x06" or comment_bytes:
        raise InputError(path, "", "is no .npz file, or cut short", f"{_COPY}, or {_SAVE}")
    if directory_bytes > _DIRECTORY_LIMIT or tail.startswith(b"PK\x06\x07"):
        raise InputError(path, "", "has too many members", f"give at most {_MEMBER_LIMIT}")


def _members(path: Path, archive: zipfile.ZipFile, limit_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members by the name of their array, from the directory alone."""
    infos = archive.infolist()
    if len(infos) > _MEMBER_LIMIT:
        raise InputError(path, "", f"has {len(infos)} members", f"give at most {_MEMBER_LIMIT}")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        match = _MEMBER_NAME.fullmatch(info.filename)
        if not match:
            raise InputError(path, "", f"has a member named {quoted(info.filename)}", f"{_SAVE}, arrays only")
        name = match[1]
        if name in members:
            raise InputError(path, name, "is there twice", "keep one of the two")
        if info.flag_bits & 1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise InputError(path, name, "is encrypted, or packed otherwise than by deflate", _SAVE)
        members[name] = info
    claimed = sum(info.file_size for info in infos)
    if claimed > limit_bytes:
        largest = max(members, key=lambda name: members[name].file_size)
        raise InputError(
            path, largest, f"the file claims {claimed} bytes when unpacked", f"give at most {limit_bytes} in all"
        )
    return members


def _header(path: Path, name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    """Read and check the header of one array."""
    with archive.open(info) as file:
        prefix = file.read(8)
        wide = prefix[6:7] != b"\x01"
        length = int.from_bytes(file.read(4 if wide else 2), "little")
        text = file.read(min(length, _HEADER_LIMIT)).decode("latin-1")
    if not (prefix.startswith(b"\x93NUMPY") and prefix[6:] in {b"\x01\0", b"\x02\0", b"\x03\0"}):
        raise InputError(path, name, "is no array of numpy", _SAVE)
    entries = dict(_ENTRIES.findall(text)) if _HEADER.fullmatch(text) else {}
    if sorted(entries) != ["descr", "fortran_order", "shape"] or length > _HEADER_LIMIT:
        raise InputError(path, name, "has a header that is not that of a plain array", _SAVE)
    dtype = _DTYPES.get(entries["descr"].strip("'"))
    if dtype is None:
        raise InputError(path, name, f"has dtype {quoted(entries['descr'])}", "save it as uint64 (bytes as uint8)")
    if entries["fortran_order"] != "False":
        raise InputError(path, name, "is in Fortran order", "save it with numpy.ascontiguousarray")
    shape = tuple(int(digits[:20]) for digits in re.findall(r"\d+", entries["shape"]))
    member = _Member(info, dtype, shape, offset=len(prefix) + (4 if wide else 2) + length)
    count = 1
    for extent in shape:
        count *= extent
    if member.size != count * dtype.itemsize or max(shape, default=0) > ARRAY_LIMIT_BYTES:
        claim = f"{quoted(shape)} of {dtype} where the member has {max(member.size, 0)} bytes of values"
        raise InputError(path, name, f"claims shape {claim}", f"{_COPY}, or {_SAVE}")
    return member


def _values(path: Path, name: str, archive: zipfile.ZipFile, member: _Member) -> NDArray[Any]:
    """Unpack one array, which was checked."""
    values = bytearray(member.size)
    done = 0
    with archive.open(member.info) as file:
        file.read(member.offset)
        while done < member.size:
            part = file.read(min(_CHUNK_BYTES, member.size - done))
            if not part:
                raise InputError(path, name, f"ends after {done} of {member.size} bytes", _COPY)
            values[done : done + len(part)] = part
            done += len(part)
    return np.frombuffer(values, member.dtype).reshape(member.shape)


def read_arrays(path: Path, *, limit_bytes: int = ARRAY_LIMIT_BYTES) -> dict[str, NDArray[Any]]:
    """Read the arrays of an ``.npz`` file by name: uint8 or (little-endian) uint64, any shape, C order, writable.

    Nothing is unpickled, and nothing unpacked before the directory and all headers were checked.

    :param limit_bytes: how many bytes the file, and its arrays together when unpacked, may have.
    :raises InputError: if it cannot be read, is damaged, claims more, or holds anything else.
    """
    name = ""
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with open_regular(path) as file:
            _check_directory(path, file, limit_bytes)
            with zipfile.ZipFile(file) as archive:
                members: dict[str, _Member] = {}
                for name, info in _members(path, archive, limit_bytes).items():
                    members[name] = _header(path, name, archive, info)
                for name, member in members.items():
                    arrays[name] = _values(path, name, archive, member)
    except _DAMAGED as error:
        raise InputError(path, name, f"is damaged or cut short: {quoted(str(error))}", _COPY) from None
    except MemoryError:
        raise InputError(path, name, "does not fit into memory", "give a smaller file") from None
    return arrays
