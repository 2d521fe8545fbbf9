"""Lists of addresses from outside: as they are written, and refused where they are none."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nestmmu.address_files import read_addresses, read_lines
from nestmmu.errors import InputError
from writers.files import npy_bytes
from writers.refusals import check_refusal

if TYPE_CHECKING:
    from pathlib import Path

TOP = (1 << 64) - 1
HEADER = "{'descr': '<u8', 'fortran_order': False, 'shape': (%s,), }"

TEXTS = {
    "a.txt": ("0x10\n\n 32 # the second\n# nothing\n0xffffffffffffffff", [16, 32, TOP]),
    "crlf.txt": ("1\r\n2\r\n", [1, 2]),
    "none.txt": ("", []),
    "plain.csv": ("0x10\n32\n", [16, 32]),
    "named.csv": ("what,address,more\nx,0x10,1\n\ny,32,2\n", [16, 32]),
    "quoted.csv": ('"address"\n"0x10"\n', [16]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str, tmp_path: Path) -> None:
    text, expected = TEXTS[name]
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    found = read_addresses(tmp_path / name)
    assert found.dtype == np.uint64
    assert found.tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64, ">u8", "<u4"])
def test_npy(dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([0, 7, 100], dtype))
    found = read_addresses(tmp_path / "a.npy")
    assert found.dtype == np.uint64
    assert found.tolist() == [0, 7, 100]


def test_an_empty_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(0, np.uint64))
    assert read_addresses(tmp_path / "a.npy").tolist() == []


def test_a_stream() -> None:
    assert read_lines(io.StringIO("1\n0x2\n"), "standard input").tolist() == [1, 2]


REFUSED: dict[str, tuple[bytes, str]] = {
    "negative.txt": (b"1\n-1\n", "line 2"),
    "float.txt": (b"1.5\n", "line 1"),
    "word.txt": (b"here\n", "line 1"),
    "wide.txt": (b"0x10000000000000000\n", "line 1"),
    "long.txt": (b"9" * 10_000, "line 1"),
    "bytes.txt": (b"1\n\xff\n", "byte 2"),
    "columns.csv": (b"what,where\n1,2\n", "line 1"),
    "short.csv": (b"what,address\n1\n", "line 2"),
    "open.csv": (b'"1\n', ""),
    "no.npy": (b"1\n2\n", ""),
    "objects.npy": (npy_bytes(HEADER.replace("<u8", "|O") % 1, b"\0" * 8), ""),
    "floats.npy": (npy_bytes(HEADER.replace("<u8", "<f8") % 1, b"\0" * 8), ""),
    "claims.npy": (npy_bytes(HEADER % (1 << 60), b"\0" * 8), ""),
    "more.npy": (npy_bytes(HEADER % 1, b"\0" * 16), ""),
    "rows.npy": (npy_bytes(HEADER % "2, 2", b"\0" * 32), ""),
    "negative.npy": (npy_bytes(HEADER.replace("<u8", "<i8") % 1, b"\xff" * 8), ""),
    "code.npy": (npy_bytes("__import__('os').abort()"), ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    data, field = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_addresses(tmp_path / name)
    check_refusal(caught.value, field)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_addresses(tmp_path / "none.txt")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), ending=st.sampled_from([".txt", ".csv", ".npy"]), whole=st.booleans())
def test_any_bytes(tmp_path: Path, data: bytes, ending: str, *, whole: bool) -> None:
    path = tmp_path / f"any{ending}"
    path.write_bytes(data if whole else npy_bytes(HEADER % 3, data))
    try:
        assert read_addresses(path).dtype == np.uint64
    except InputError as error:
        check_refusal(error)
