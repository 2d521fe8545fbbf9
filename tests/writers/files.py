"""Small, well-formed documents and arrays, and the means to write them broken."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

Arrays = dict[str, "NDArray[Any]"]
ABSENT = object()
"""Stands for a value that is dropped."""


def small_image() -> dict[str, Any]:
    """Return the document of an image with one slot."""
    return {
        "format": "nest-image/1",
        "arch": "toy",
        "origin": "by hand",
        "pages": "small.pages.npz",
        "accesses": "small.accesses.npz",
        "l0": {"root": 0x1000, "page_shift": 12},
        "l1": {"tag": None, "page_shift": 12, "root": 0x2000},
        "l2": {
            "tag": 1,
            "slots": [{"l2_real": 0, "size": 0x10000, "kind": "base"}],
            "also": [{"kind": "fetch", "l2_real": 0, "size": 0x1000}, {"kind": "store", "l2_real": 8, "size": 8}],
            "dropped": [{"l2_real": 0x3000, "size": 0x1000, "why": "it was replaced"}],
        },
    }


def replaced(document: dict[str, Any], at: str, value: object) -> dict[str, Any]:
    """Replace the value at a path such as ``l2.slots.0.size``, or drop it, and return the document."""
    *parents, last = (int(part) if part.isdigit() else part for part in at.split("."))
    spot: Any = document
    for parent in parents:
        spot = spot[parent]
    if value is ABSENT:
        del spot[last]
    else:
        spot[last] = value
    return document


def small_pages() -> Arrays:
    """Return the frames 1, 2 and 2^52 - 1, whose bytes are all 1, 2 and 3."""
    frame = np.array([1, 2, (1 << 52) - 1], np.uint64)
    return {"frame": frame, "data": np.repeat(np.array([[1], [2], [3]], np.uint8), 4096, axis=1)}


def small_accesses() -> Arrays:
    """Return two columns of four accesses."""
    return {"op": np.array([1, 2, 3, 1], np.uint64), "ea": np.array([0, 8, 0x1000, (1 << 64) - 1], np.uint64)}


def npz_bytes(arrays: Mapping[str, NDArray[Any]], *, packed: bool = True) -> bytes:
    """Return an ``.npz`` file as numpy writes it."""
    file = io.BytesIO()
    save: Any = np.savez_compressed if packed else np.savez
    save(file, **arrays)
    return file.getvalue()


def npy_bytes(header: str, values: bytes = b"", *, magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    """Return an ``.npy`` file with any header."""
    text = header.encode("latin-1")
    return magic + struct.pack("<H", len(text)) + text + values


def zip_bytes(members: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip file of any members, whose names must differ."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def write_image(
    directory: Path,
    document: object = None,
    *,
    pages: Mapping[str, NDArray[Any]] | bytes | None = None,
    accesses: Mapping[str, NDArray[Any]] | bytes | None = None,
) -> Path:
    """Write the small image, with any of its three files replaced, and return the document's path."""
    for name, given, usual in (("pages", pages, small_pages), ("accesses", accesses, small_accesses)):
        content = given if isinstance(given, bytes) else npz_bytes(usual() if given is None else given)
        (directory / f"small.{name}.npz").write_bytes(content)
    path = directory / "small.json"
    path.write_text(json.dumps(small_image() if document is None else document))
    return path


def small_vectors() -> dict[str, Any]:
    """Return a document of two scenes; only the second access of the first one failed."""
    return {
        "arch": "toy",
        "machine": "by hand",
        "variant": "strict",
        "memory_bytes": 1 << 20,
        "scenes": [
            {
                "regs": {"root": 0x1000, "mode": 3},
                "mem": [[0x1000, 0x2001], [0x2008, (1 << 64) - 1]],
                "pairs": [[1, 2], [3, 4]],
                "accesses": [
                    {"ea": 0x10, "kind": "load", "user": True, "ra": 0x3010, "changed": [[0x2008, 5]]},
                    {"ea": (1 << 64) - 1, "kind": "fetch", "user": False, "vector": 7},
                ],
            },
            {"regs": {}, "mem": [], "accesses": [{"ea": 0, "kind": "store", "changed": []}]},
        ],
    }


def gzip_json(document: object) -> bytes:
    """Return a document as a file of vectors has it."""
    return gzip.compress(json.dumps(document).encode(), mtime=0)
