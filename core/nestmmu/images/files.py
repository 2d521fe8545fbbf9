"""Files that nobody vouches for: opened with care, read up to a limit, parsed as JSON.

Whatever a file holds, the functions here return or raise :class:`~nestmmu.errors.InputError`,
in bounded time and memory.
"""

from __future__ import annotations

import json
import stat
import zlib
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from nestmmu.errors import InputError
from nestmmu.images.sections import shown

if TYPE_CHECKING:
    from pathlib import Path

CHUNK_BYTES = 1 << 20
"""How much of a file is read, or unpacked, at a time."""
MOST_VALUES = 4_000_000
"""The most values in a JSON document: a value costs far more memory than its text."""
_GZIP = 16 + zlib.MAX_WBITS


def open_input(path: Path) -> BinaryIO:
    """Open a regular file for reading bytes.

    :raises InputError: if there is no such file, it may not be read, or it is not a file that ends
        (a pipe, a device).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(path, "", "is not a regular file", "give the file itself")
        return path.open("rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(path, "", f"cannot be read ({reason})", "check its name and its permissions") from error


def _too_long(path: Path, limit_bytes: int) -> InputError:
    return InputError(path, "", f"is longer than {limit_bytes:,} bytes", "split it, or check that it is the right file")


def _read(path: Path, limit_bytes: int) -> bytes:
    with open_input(path) as file:
        try:
            data = file.read(limit_bytes + 1)
        except OSError as error:
            raise InputError(path, "", f"cannot be read ({error.strerror})", "check the disk") from error
    if len(data) > limit_bytes:
        raise _too_long(path, limit_bytes)
    return data


def _gunzip(path: Path, data: bytes, limit_bytes: int) -> bytes:
    """Return what the one gzip member ``data`` holds; it is unpacked no further than the limit.

    The gzip module is not for this: it reads a header's file name byte by byte, however long.
    """
    stream = zlib.decompressobj(_GZIP)
    parts: list[bytes] = []
    length = 0
    try:
        while length <= limit_bytes and not stream.eof:
            part = stream.decompress(data, CHUNK_BYTES)
            if not part and not stream.eof:
                raise InputError(path, "", "is a truncated gzip file", "fetch it again")
            parts.append(part)
            length += len(part)
            data = stream.unconsumed_tail
    except zlib.error as error:
        raise InputError(path, "", f"is not a sound gzip file ({error})", "give a .json.gz, or fetch it again") from error
    if length > limit_bytes:
        raise _too_long(path, limit_bytes)
    if stream.unused_data:
        raise InputError(path, "", "goes on after its gzip data ends", "compress it anew as one piece")
    return b"".join(parts)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def read_json(path: Path, limit_bytes: int, *, compressed: bool = False) -> dict[str, object]:
    """Return the JSON object that a file holds. Of a key that is there twice, the last counts.

    :param limit_bytes: the most bytes of the file, and of the text that it unpacks to.
    :param compressed: whether the file is gzip.
    :raises InputError: if the file is anything else.
    """
    data = _read(path, limit_bytes)
    if compressed:
        data = _gunzip(path, data, limit_bytes)
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MOST_VALUES:
        raise InputError(path, "", f"holds more than {MOST_VALUES:,} values", "split it into smaller files")
    try:
        document = json.loads(data.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InputError(path, "", f"is not UTF-8 at byte {error.start}", "save it as UTF-8") from error
    except RecursionError as error:
        raise InputError(path, "", "is nested too deeply", "check that it is the right file") from error
    except json.JSONDecodeError as error:
        raise InputError(path, "", f"is not sound JSON ({error})", "fetch it again, or correct it") from error
    except ValueError as error:  # of _refuse_constant, or of int: it stops at some thousands of digits
        problem = "holds NaN, Infinity or a number of thousands of digits"
        raise InputError(path, "", problem, "give integers of at most 64 bits") from error
    if not isinstance(document, dict):
        raise InputError(path, "", f"holds {shown(document)}", "give a file whose JSON is an object")
    return document
