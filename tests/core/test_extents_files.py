"""Extents saved and loaded; files that are none."""

from __future__ import annotations

import contextlib
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nestmmu import extent_files
from nestmmu.errors import InputError
from nestmmu.extent_files import load_extents, save_extents
from nestmmu.extents import Extents

if TYPE_CHECKING:
    from pathlib import Path

PYARROW = importlib.util.find_spec("pyarrow") is not None
needs_pyarrow = pytest.mark.skipif(not PYARROW, reason="pyarrow is not installed")
ENDINGS = ["npz", pytest.param("parquet", marks=needs_pyarrow)]
SOME = Extents.make(
    [0, 0x1000, (1 << 64) - 4096], [16, 0x1000, 4096], [5, 0, 0], [7, 4, 0], [3, 0xFFFF, 0], [4, 12, 12]
)
GOOD: dict[str, Any] = {
    "format": np.frombuffer(b"extents/1", np.uint8),
    "start": np.array([0], np.uint64), "length": np.array([16], np.uint64), "target": np.array([0], np.uint64),
    "permissions": np.array([7], np.uint8), "flags": np.array([0], np.uint64), "page_shift": np.array([4], np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("extents", [SOME, Extents.empty(), SOME.take(slice(None, None, 2))])
def test_what_is_saved_is_loaded(tmp_path: Path, ending: str, extents: Extents) -> None:
    path = tmp_path / f"space.{ending}"
    save_extents(path, extents)
    assert load_extents(path).equal(extents)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": np.frombuffer(b"extents/9", np.uint8)}, "format: is not extents/1; give a file that nestmmu saved"),
        ({"format": None}, "format: is not extents/1"),
        ({"target": None}, "target: is missing"),
        ({"start": np.array([0.5])}, "start: has dtype .*f8.*; save it as uint64"),
        ({"start": np.array([[0]], np.uint64)}, r"start: has shape \(1, 1\)"),
        ({"flags": np.array([1 << 16], np.uint64)}, "flags: has a number 65536"),
        ({"length": np.array([0], np.uint64)}, r"length\[0\]: the extent at 0x0 is empty"),
        ({"length": np.array([1, 2], np.uint64)}, "length: has 2 values where start has 1"),
        ({"start": np.array([{}])}, "start: has dtype .*O"),
    ],
)
def test_npz_files_that_are_no_extents(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **{name: values for name, values in (GOOD | change).items() if values is not None})
    with pytest.raises(InputError, match=said) as caught:
        load_extents(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_that_are_something_else(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bad.{ending}"
    with pytest.raises(InputError, match="no such file"):
        load_extents(path)
    for content in (b"", b"PAR1 and so on PAR1", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            load_extents(path)
        assert "\n" not in str(caught.value)


def test_names_that_say_nothing(tmp_path: Path) -> None:
    for use in (load_extents, lambda path: save_extents(path, SOME)):
        with pytest.raises(InputError, match=r"ends in '\.csv'; name it \.npz or \.parquet"):
            use(tmp_path / "space.csv")


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or directory; name a file in a folder"):
        save_extents(tmp_path / "none" / "space.npz", SOME)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"install nestmmu\[parquet\], or name the file .npz"):
        save_extents(tmp_path / "space.parquet", SOME)


@needs_pyarrow
class TestParquet:
    def write(self, path: Path, **columns: Any) -> None:
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        good = {name: pa.array(values) for name, values in GOOD.items() if name not in {"format", "flags"}}
        good["flags"] = pa.array([0], pa.uint16())
        parquet.write_table(
            pa.table({name: values for name, values in (good | columns).items() if values is not None}), path
        )

    def test_columns_of_another_type_or_missing(self, tmp_path: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        path = tmp_path / "bad.parquet"
        for columns, said in (
            ({"start": pa.array(["x"])}, "start: has type 'string'"),
            ({"start": pa.array([0.0])}, "start: has type 'double'"),
            ({"start": pa.array([None], pa.uint64())}, "start: has empty values"),
            ({"start": None}, "start: is missing"),
            ({"length": pa.array([0], pa.uint64())}, r"length\[0\]: the extent at 0x0 is empty"),
        ):
            self.write(path, **columns)
            with pytest.raises(InputError, match=said):
                load_extents(path)

    def test_more_rows_than_fit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "big.parquet"
        save_extents(path, SOME)
        monkeypatch.setattr(extent_files, "ARRAY_LIMIT_BYTES", 50)
        with pytest.raises(InputError, match="claims 3 rows; give at most 1"):
            load_extents(path)

    def test_damage_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "space.parquet"
        save_extents(path, SOME)
        good = path.read_bytes()
        refused = 0
        for at in range(0, len(good), 7):
            path.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
            with contextlib.suppress(InputError):
                load_extents(path).check()
                continue
            refused += 1
        assert refused > 10
