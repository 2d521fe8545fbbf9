"""Every recorded access, made again."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from nestmmu.cli.replay import replay_file
from nestmmu.errors import InputError
from nestmmu.plugins import Plugins

if TYPE_CHECKING:
    from pathlib import Path

FILE = "riscv_h.json.gz"


def test_every_recorded_access_agrees(data: Path) -> None:
    result = replay_file(data / FILE, Plugins())
    assert result.total == {
        "reached": 636, "load page fault": 581, "fetch page fault": 384, "store page fault": 345,
        "fetch guest-page fault": 310, "load guest-page fault": 100, "store guest-page fault": 43,
    }  # fmt: skip
    assert result.differences == []
    assert result.equal.total() == 2399


def document(data: Path) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(gzip.decompress((data / FILE).read_bytes()))
    whole["scenes"] = whole["scenes"][:1]
    whole["scenes"][0]["accesses"] = whole["scenes"][0]["accesses"][:2]
    return whole


def replayed(tmp_path: Path, whole: dict[str, Any]) -> list[tuple[int, int]]:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(whole))
    result = replay_file(path, Plugins())
    return [(one.scene, one.access) for one in result.differences]


def test_an_address_outside_the_recorded_ram_is_an_access_fault(data: Path, tmp_path: Path) -> None:
    whole = document(data)
    assert replayed(tmp_path, whole) == []
    whole["ram_size"] = 0x1000
    assert (0, 0) in replayed(tmp_path, whole)


@pytest.mark.parametrize("field", ["mcause", "mtval", "mtval2", "gva"])
def test_every_field_of_a_trap_is_compared(data: Path, tmp_path: Path, field: str) -> None:
    whole = document(data)
    whole["scenes"][0]["accesses"][1][field] ^= 1
    assert replayed(tmp_path, whole) == [(0, 1)]


def test_a_pseudo_instruction_is_compared_and_a_transformed_one_is_not(data: Path, tmp_path: Path) -> None:
    whole = document(data)
    assert whole["scenes"][0]["accesses"][1]["mtinst"] == 0x3283
    for value, different in ((0, []), (0x3000, [(0, 1)]), (0x3020, [(0, 1)])):
        whole["scenes"][0]["accesses"][1]["mtinst"] = value
        assert replayed(tmp_path, whole) == different


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ram_size": 0}, "ram_size"),
        ({"ram_size": 1 << 64}, "ram_size"),
        ({"ram_size": 100}, "ram_base, ram_size"),
        ({"ram_size": "much"}, "ram_base, ram_size"),
    ],
)
def test_a_file_with_impossible_ram_is_refused(data: Path, tmp_path: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        replayed(tmp_path, {**document(data), **change})
    assert caught.value.field == field


def test_a_register_that_there_is_not_is_refused(data: Path, tmp_path: Path) -> None:
    whole = document(data)
    whole["scenes"][0]["regs"]["lpidr"] = 1
    with pytest.raises(InputError, match="lpidr is no register"):
        replayed(tmp_path, whole)
