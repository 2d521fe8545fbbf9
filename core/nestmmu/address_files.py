"""Lists of addresses from outside: ``.npy``, CSV, or text with one address a line."""

from __future__ import annotations

import csv
from array import array
from typing import TYPE_CHECKING, BinaryIO, TextIO

import numpy as np

from nestmmu.addresses import ADDRESS_LIMIT
from nestmmu.arrays import integer_array
from nestmmu.errors import InputError
from nestmmu.images.documents import number, open_regular, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

COLUMN = "address"
"""What the column of a CSV file is called that has other columns too."""
_LINE_LIMIT = 4096
_SAVE = "save whole numbers in one row, with numpy.save"
_REMEDY = "write an address a line, as 0x1000 or 4096"


def read_addresses(path: Path) -> NDArray[np.uint64]:
    """Read addresses, shape (n,): of ``.npy`` an array of integers, of ``.csv`` a column, else a line each.

    A CSV file begins with the names of its columns, one of them ``address``, or has addresses alone. Empty lines, and
    what follows ``#``, are left out. Memory is bounded by the size of the file.

    :raises InputError: if it cannot be read, or anything in it is no address of 64 bits.
    """
    with open_regular(path) as file:
        if path.suffix == ".npy":
            return _from_npy(path, file)
        try:
            text = file.read().decode()
        except UnicodeDecodeError as error:
            raise InputError(path, f"byte {error.start}", "is no UTF-8 text", _REMEDY) from None
    lines = text.splitlines()
    return _array(_csv_values(path, lines) if path.suffix == ".csv" else _values(path, lines))


def read_lines(stream: TextIO, where: str) -> NDArray[np.uint64]:
    """Read addresses from a stream, one a line, to its end.

    :param where: what errors are to call it.
    :raises InputError: if anything in it is no address of 64 bits, or it is no text.
    """
    try:
        return _array(_values(where, iter(lambda: stream.readline(_LINE_LIMIT), "")))
    except UnicodeDecodeError:
        raise InputError(where, "", "is no UTF-8 text", _REMEDY) from None


def _array(values: Iterable[int]) -> NDArray[np.uint64]:
    return np.array(array("Q", values), np.uint64)


def _values(where: object, lines: Iterable[str]) -> Iterator[int]:
    for row, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            yield number(text, where, f"line {row}")


def _csv_values(path: Path, lines: list[str]) -> Iterator[int]:
    column = None
    try:
        for row, cells in enumerate(csv.reader(lines, strict=True), 1):
            if column is None:
                names = [cell.strip().lower() for cell in cells]
                column = names.index(COLUMN) if COLUMN in names else 0
                if COLUMN in names:
                    continue
                if len(cells) > 1:
                    raise InputError(path, "line 1", f"names no column {COLUMN}", "name it so in the first line")
            if not cells:
                continue
            if column >= len(cells):
                raise InputError(path, f"line {row}", "has too few values", "write one for each column")
            yield number(cells[column], path, f"line {row}")
    except csv.Error as error:
        raise InputError(path, "", f"is no CSV: {quoted(str(error))}", "save it again") from None


def _from_npy(path: Path, file: BinaryIO) -> NDArray[np.uint64]:
    """Read an array of numpy: of what its header claims, no more than the file has is taken."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, SyntaxError, TypeError, EOFError, OverflowError, MemoryError, RecursionError) as error:
        raise InputError(path, "", f"is no .npy file: {quoted(str(error))}", _SAVE) from None
    if len(shape) != 1 or dtype.kind not in "ui":
        raise InputError(path, "", f"has dtype {quoted(str(dtype))} and shape {quoted(shape)}", _SAVE)
    data = file.read()
    if len(data) != shape[0] * dtype.itemsize:
        raise InputError(path, "", f"claims {shape[0]} numbers and has {len(data)} bytes of them", "copy it again")
    return integer_array(np.frombuffer(data, dtype), ADDRESS_LIMIT - 1, path, "").astype(np.uint64)
