"""JSON from outside: read within bounds, and checked field by field.

Whatever the bytes are, what comes out is a :class:`Field` or one
:class:`~nestmmu.errors.InputError` that names the file and the field.
"""

from __future__ import annotations

import json
import re
import stat
import zlib
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, NoReturn, cast

import attrs

from nestmmu.access import Access
from nestmmu.addresses import ADDRESS_LIMIT
from nestmmu.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VALUE_LIMIT = 1 << 22
"""How many values a document may have: a few bytes of JSON become a hundred in memory."""
ELEMENT_LIMIT = 4096
"""How many elements a list may have where nothing else is said."""
TEXT_LIMIT = 4096
"""Characters of a string that is kept."""

_CHUNK_BYTES = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS
_COPY = "copy or download it again"
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_TYPE_NAMES = {bool: "a boolean", int: "an integer", float: "a fraction", str: "a string", list: "a list"}
_ACCESSES = {access.label: access for access in Access}


def quoted(value: object) -> str:
    """Return what an untrusted value looks like, in few characters, all printable."""
    text = ascii(value)
    return text if len(text) <= 48 else f"{text[:45]}..."  # noqa: PLR2004  (a third of a line)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading bytes.

    :raises InputError: if it is missing, unreadable, or no regular file (reading a pipe may never end).
    """
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
        file = path.open("rb") if regular else None
    except OSError as error:
        raise InputError(path, "", (error.strerror or "cannot be read").lower(), "check its name and rights") from None
    except ValueError:
        raise InputError(quoted(str(path)), "", "is not a file name", "check the name") from None
    if file is None:
        raise InputError(path, "", "is not a regular file", "give the name of a file")
    return file


def number(text: str, where: object, field: str) -> int:
    """Return an address that is written as 0x1000, 0o17 or 4096.

    :raises InputError: naming ``where`` and ``field``, if it is no number of 64 bits.
    """
    try:
        value = int(text.strip(), 0)
    except ValueError:
        value = -1
    if not 0 <= value < ADDRESS_LIMIT:
        raise InputError(
            where, field, f"{quoted(text.strip())} is no address of 64 bits", "write each as 0x1000 or 4096"
        )
    return value


@attrs.frozen
class Field:
    """One value of a document, and where it stands there."""

    where: Path
    """The file."""
    name: str
    """As messages have it, ``l2.slots[3].size``; ``""`` for the whole document."""
    value: object = attrs.field(repr=False)

    def fail(self, problem: str, remedy: str) -> NoReturn:
        """Raise the error about this field."""
        raise InputError(self.where, self.name, problem, remedy)

    def wrong(self, wanted: str, remedy: str) -> NoReturn:
        """Raise the error about a value of another type than the one wanted."""
        kind = "null" if self.value is None else _TYPE_NAMES.get(type(self.value), "an object")
        self.fail(f"is {kind}, not {wanted}", remedy)

    def integer(self, limit: int = ADDRESS_LIMIT) -> int:
        """Return the value, an integer from 0 to ``limit`` - 1; booleans and fractions are none."""
        value = self.value
        if type(value) is not int:
            self.wrong("an integer", "write a whole number")
        if not 0 <= value < limit:
            top = "2^64-1" if limit == ADDRESS_LIMIT else str(limit - 1)
            self.fail(f"is {quoted(value)}, outside 0..{top}", "write a number in that range")
        return value

    def text(self) -> str:
        """Return the value, a string that can be printed."""
        value = self.value
        if not isinstance(value, str):
            self.wrong("a string", "write text in quotes")
        if len(value) > TEXT_LIMIT or not value.isprintable():
            self.fail("is too long or cannot be printed", f"write at most {TEXT_LIMIT} characters on one line")
        return value

    def access(self) -> Access:
        """Return the value, the name of a kind of access."""
        found = _ACCESSES.get(self.value) if isinstance(self.value, str) else None
        if found is None:
            self.fail(f"is {quoted(self.value)}, no kind of access", "write load, store or fetch")
        return found

    def member(self, name: str) -> Field:
        """Return a field of this object, which must be there."""
        found = self.optional(name)
        if found is None:
            raise InputError(self.where, self._path(name), "is missing", "add it, or give another file")
        return found

    def optional(self, name: str) -> Field | None:
        """Return a field of this object, or None where it is absent."""
        value = self.mapping()
        return Field(self.where, self._path(name), value[name]) if name in value else None

    def mapping(self) -> dict[str, object]:
        """Return the value, an object with any values in it."""
        if not isinstance(self.value, dict):
            self.wrong("an object", "write {...} with the fields of the format")
        return cast("dict[str, object]", self.value)

    def members(self) -> dict[str, Field]:
        """Return all fields of this object; their names are letters, digits, ``_``, ``.`` and ``-``."""
        members: dict[str, Field] = {}
        for name, value in self.mapping().items():
            if not _NAME.fullmatch(name):
                self.fail(f"has a field named {quoted(name)}", "name it with at most 64 letters, digits and _")
            members[name] = Field(self.where, self._path(name), value)
        return members

    def sequence(self, limit: int = ELEMENT_LIMIT) -> list[object]:
        """Return the value, a list of at most ``limit`` elements."""
        if not isinstance(self.value, list):
            self.wrong("a list", "write [...]")
        if len(self.value) > limit:
            self.fail(f"has {len(self.value)} elements", f"give at most {limit}")
        return self.value

    def element(self, index: int) -> Field:
        """Return one element of this list."""
        return Field(self.where, f"{self.name}[{index}]", self.sequence(VALUE_LIMIT)[index])

    def elements(self, limit: int = ELEMENT_LIMIT) -> tuple[Field, ...]:
        """Return the elements of this list, at most ``limit``."""
        return tuple(Field(self.where, f"{self.name}[{i}]", value) for i, value in enumerate(self.sequence(limit)))

    def _path(self, name: str) -> str:
        return f"{self.name}.{name}" if self.name else name


def _unpacked(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Unpack the one gzip member of a file, piece by piece.

    Not by the gzip module, which takes any number of empty members, and their headers byte by byte.
    """
    unpack = zlib.decompressobj(_GZIP)
    while packed := file.read(_CHUNK_BYTES):
        if unpack.eof:
            break
        while (part := unpack.decompress(packed, _CHUNK_BYTES)) or unpack.unconsumed_tail:
            yield part
            packed = unpack.unconsumed_tail
    if not unpack.eof:
        raise InputError(path, "", "is cut short: its gzip data does not end", _COPY)
    if packed or unpack.unused_data:
        raise InputError(path, "", "goes on after its gzip data", "pack it again, as one piece")


def _read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of a file, unpacked if its name ends in ``.gz``: at most ``limit_bytes``, packed or not."""
    data = bytearray()
    with open_regular(path) as file:
        if file.seek(0, 2) > limit_bytes:
            raise InputError(path, "", f"has more than {limit_bytes} bytes", "give a smaller file")
        file.seek(0)
        parts = _unpacked(path, file) if path.suffix == ".gz" else iter(partial(file.read, _CHUNK_BYTES), b"")
        for part in parts:
            data += part
            if len(data) > limit_bytes:
                raise InputError(path, "", f"unpacks to more than {limit_bytes} bytes", "give a smaller file")
    return bytes(data)


def _not_a_number(name: str) -> NoReturn:
    message = f"{name} is no number of JSON"
    raise ValueError(message)


def read_json(path: Path, limit_bytes: int) -> Field:
    """Read a JSON document, gzipped where its name ends in ``.gz``; the top of it is an object.

    :param limit_bytes: how many bytes it may have when unpacked; reading stops there.
    :raises InputError: if it cannot be read, is too large, or is no such document.
    """
    value: object = None
    problem, remedy = "", "give the file as it was made"
    try:
        data = _read_bounded(path, limit_bytes)
        if sum(map(data.count, (b",", b"[", b"{"))) > VALUE_LIMIT:
            raise InputError(path, "", f"has more than {VALUE_LIMIT} values", "give a smaller file")
        value = json.loads(data.decode(), parse_constant=_not_a_number)
    except zlib.error:
        problem, remedy = "is not gzip, or damaged", f"{_COPY}, or drop .gz from its name if it is not packed"
    except OSError as error:
        problem, remedy = (error.strerror or "cannot be read").lower(), "check its name and rights"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except ValueError:
        problem = "has a number that is too long, or NaN or Infinity"
    except RecursionError:
        problem = "is nested too deeply"
    except MemoryError:
        problem, remedy = "does not fit into memory", "give a smaller file"
    if problem:
        raise InputError(path, "", problem, remedy)
    top = Field(path, "", value)
    top.mapping()
    return top
