"""Extents in files: ``.npz``, and Parquet where pyarrow is installed (``pip install nestmmu[parquet]``).

An ``.npz`` has one array of uint64 or uint8 a column, flags as uint64, and ``format``, the bytes of ``extents/1``;
Parquet has the columns of :data:`nestmmu.extents.COLUMNS` with their own types. Neither holds anything that is run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from nestmmu.errors import InputError
from nestmmu.extents import COLUMNS, Extents
from nestmmu.files import output_file
from nestmmu.images.arrays import ARRAY_LIMIT_BYTES, read_arrays
from nestmmu.images.documents import open_regular, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT = "extents/1"
_MARK = np.frombuffer(FORMAT.encode(), np.uint8)
_ROW_BYTES = sum(dtype.itemsize for dtype in COLUMNS.values())
_BATCH_ROWS = 1 << 16
_REMEDY = "give a file that nestmmu saved, or save these columns as it does"


def save_extents(path: Path, extents: Extents) -> None:
    """Write extents to a file, by the end of its name ``.npz`` or ``.parquet``; what was there is replaced.

    :raises InputError: for another name, where the file cannot be written, and for Parquet without pyarrow.
    """
    save_columns(path, FORMAT, extents.columns())


def save_columns(path: Path, kind: str, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns of numbers to a file, all of it or nothing.

    :param kind: what the file calls its own format.
    :param columns: by name, shape (n,) each; in an ``.npz`` what is wider than a byte becomes uint64.
    :raises InputError: as :func:`save_extents` does.
    """
    if _suffix(path) == ".npz":
        wide = {name: values if values.itemsize == 1 else values.astype(np.uint64) for name, values in columns.items()}
        with output_file(path) as file:
            np.savez_compressed(file, format=np.frombuffer(kind.encode(), np.uint8), **wide)  # type: ignore[arg-type]
        return
    arrow, parquet = _pyarrow(path)
    whole = {name: np.ascontiguousarray(values) for name, values in columns.items()}
    with output_file(path) as file:
        parquet.write_table(arrow.table(whole, metadata={"format": kind}), file)


def load_extents(path: Path) -> Extents:
    """Read extents from a file, by the end of its name ``.npz`` or ``.parquet``, and check them.

    :raises InputError: if it cannot be read, is damaged, holds anything else, or unpacks to more than
        :data:`~nestmmu.images.arrays.ARRAY_LIMIT_BYTES`.
    """
    columns = _load_npz(path) if _suffix(path) == ".npz" else _load_parquet(path)
    for name in COLUMNS:
        if name not in columns:
            raise InputError(path, name, "is missing", _REMEDY)
    return Extents.make(**{name: columns[name] for name in COLUMNS}, where=path)


def _suffix(path: Path) -> str:
    if path.suffix not in {".npz", ".parquet"}:
        raise InputError(path, "", f"ends in {quoted(path.suffix)}", "name it .npz or .parquet")
    return path.suffix


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    columns = read_arrays(path)
    mark = columns.pop("format", np.zeros(0, np.uint8))
    if mark.dtype != _MARK.dtype or not np.array_equal(mark, _MARK):
        raise InputError(path, "format", f"is not {FORMAT}", _REMEDY)
    return columns


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        remedy = "install nestmmu[parquet], or name the file .npz"
        raise InputError(path, "", "is Parquet, and pyarrow is not installed", remedy) from None


def _load_parquet(path: Path) -> dict[str, NDArray[Any]]:
    arrow, parquet = _pyarrow(path)
    with open_regular(path) as file:
        try:
            source = parquet.ParquetFile(file)
            schema, rows = source.schema_arrow, source.metadata.num_rows
            for name, dtype in COLUMNS.items():
                if name in schema.names and schema.field(name).type != arrow.from_numpy_dtype(dtype):
                    raise InputError(path, name, f"has type {quoted(str(schema.field(name).type))}", _REMEDY)
            if rows * _ROW_BYTES > ARRAY_LIMIT_BYTES:
                raise InputError(path, "", f"claims {rows} rows", f"give at most {ARRAY_LIMIT_BYTES // _ROW_BYTES}")
            names = [name for name in COLUMNS if name in schema.names]
            parts = list(source.iter_batches(_BATCH_ROWS, columns=names))
            return {name: _joined(path, name, [part.column(name) for part in parts]) for name in names}
        except (arrow.ArrowException, OSError, EOFError) as error:
            problem = f"is no Parquet file, or damaged: {quoted(str(error))}"
            raise InputError(path, "", problem, "copy or download it again") from None


def _joined(path: Path, name: str, parts: list[Any]) -> NDArray[Any]:
    if any(part.null_count for part in parts):
        raise InputError(path, name, "has empty values", _REMEDY)
    return np.concatenate([np.zeros(0, COLUMNS[name]), *(part.to_numpy() for part in parts)])
