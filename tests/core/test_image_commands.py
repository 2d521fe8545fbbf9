"""``nestmmu image``, and the commands on memory that is no nest-image: the same answers, whatever kind it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from nest_tables import DATA, IMAGES
from typer.testing import CliRunner

from nestmmu.cli import app
from nestmmu.images import shipped_image
from writers.elf import elf_core

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096


def nestmmu(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.stderr if status == 2 else result.stdout


def as_json(*arguments: object, status: int = 0) -> Any:
    return json.loads(nestmmu(*arguments, "--json", status=status))


def refused(*arguments: object) -> str:
    line = nestmmu(*arguments, status=2)
    assert line.count("\n") == 1, line
    assert line.startswith("nestmmu: ")
    return line


def path_of(name: str) -> Path:
    return shipped_image() if name == "nest-64k-64k" else DATA / f"{name}.json"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the memory of nest-4k-64k as a raw file, full of holes, and a document that describes it."""
    folder, source = tmp_path_factory.mktemp("raw"), path_of("nest-4k-64k")
    with np.load(source.with_suffix(".pages.npz")) as pages, (folder / "memory.raw").open("wb") as file:
        for number, row in zip(pages["frame"].tolist(), pages["data"], strict=True):
            file.seek(number * PAGE)
            file.write(row.tobytes())
    document = json.loads(source.read_text(encoding="utf-8"))
    for name in ("format", "pages", "accesses"):
        del document[name]
    (folder / "about.json").write_text(json.dumps(document), encoding="utf-8")
    return folder / "memory.raw", folder / "about.json"


@pytest.mark.parametrize("name", IMAGES)
def test_a_packed_image_runs_as_the_recorded_one(name: str, tmp_path: Path) -> None:
    """The README: 5,020 accesses, and of nest-64k-64k 1,348 shadow entries, of nest-4k-64k 2,797."""
    packed = as_json("image", "pack", path_of(name), "--output", tmp_path / "p.json")
    kept = as_json("image", "info", path_of(name))["frames"]
    assert 0 < packed["frames"] < kept
    found = as_json("run", tmp_path / "p.json")
    assert found["accesses"] == {"total": 5020, "equal": 5020, "different": 0}
    assert found["shadow"]["equal"] == {"nest-64k-64k": 1348, "nest-4k-64k": 2797}.get(name, 0)
    assert as_json("diff", path_of(name), tmp_path / "p.json")["equal"]
    with np.load(tmp_path / "p.pages.npz") as pages:
        assert pages["data"].any(axis=1).all()
        assert (np.diff(pages["frame"].astype(np.int64)) > 0).all()


def test_packing_again_changes_nothing(tmp_path: Path) -> None:
    nestmmu("image", "pack", path_of("l1-4k"), "--output", tmp_path / "one.json")
    (tmp_path / "again").mkdir()
    nestmmu("image", "pack", tmp_path / "one.json", "--output", tmp_path / "again" / "one.json")
    names = sorted(path.name for path in (tmp_path / "again").iterdir())
    assert names == ["one.accesses.npz", "one.json", "one.pages.npz"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_raw_memory_packed(raw: tuple[Path, Path], tmp_path: Path) -> None:
    memory, about = raw
    packed = as_json("image", "pack", memory, "--describe", about, "--output", tmp_path / "p.json")
    known = as_json("image", "pack", path_of("nest-4k-64k"), "--output", tmp_path / "k.json")
    assert packed["frames"] == known["frames"]
    assert (tmp_path / "p.pages.npz").read_bytes() == (tmp_path / "k.pages.npz").read_bytes()
    assert as_json("audit", tmp_path / "p.json")["verdicts"]["sound"] == 2797
    assert "op: is missing" in refused("run", tmp_path / "p.json")


def test_raw_memory_by_each_command(raw: tuple[Path, Path]) -> None:
    memory, about = raw
    options, image = ("--describe", about), path_of("nest-4k-64k")
    assert as_json("audit", memory, *options)["verdicts"] == as_json("audit", image)["verdicts"]
    assert as_json("extents", memory, *options)["extents"] == as_json("extents", image)["extents"]
    assert as_json("diff", memory, memory, *options, "--space", "l1")["equal"]
    where = "0x100000000"
    found = as_json("translate", memory, *options, where)["translations"]
    assert found == as_json("translate", image, where)["translations"]
    walked = as_json("walk", memory, where, "--space", "l2", *options)
    assert walked["l0_real"] == found[0]["output"] is not None
    by_cpu = ("--arch", "ppc64_radix", "--register", f"ptcr={_ptcr(about):#x}", "--register", "lpidr=1")
    (one,) = as_json("translate", memory, *by_cpu, "0x0")["translations"]
    assert one["output"] == as_json("translate", image, "0x0", "--space", "l1")["translations"][0]["output"]


def _ptcr(about: Path) -> int:
    return int(json.loads(about.read_text(encoding="utf-8"))["l0"]["ptcr"])


def test_info(raw: tuple[Path, Path], tmp_path: Path) -> None:
    found = as_json("image", "info", shipped_image())
    assert (found["kind"], found["arch"], found["accesses"]) == ("nest-image", "ppc64_radix", 5020)
    found = as_json("image", "info", raw[0])
    assert (found["kind"], found["frames"]) == ("raw", -(-raw[0].stat().st_size // PAGE))
    (tmp_path / "c").write_bytes(elf_core([(0x8000_0000, bytes(2 * PAGE))], "EM_AARCH64", "little"))
    found = as_json("image", "info", tmp_path / "c")
    assert (found["kind"], found["machine"], found["byteorder"]) == ("elf", "EM_AARCH64", "little")
    assert found["segments"] == [{"address": 0x8000_0000, "size": 2 * PAGE}]
    assert found["frames"] == 2
    assert "segments: 1" in nestmmu("image", "info", tmp_path / "c")


def test_another_architecture(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(elf_core([(0, bytes(PAGE))], "EM_X86_64", "little"))
    line = refused("audit", tmp_path / "c", "--set", "arch=ppc64_radix", "--set", "l1.lpid=1")
    assert "e_machine: is 'EM_X86_64', where ppc64_radix is EM_PPC64" in line
    line = refused("translate", tmp_path / "c", "--arch", "riscv", "--register", "satp=0", "1")
    assert "EM_RISCV" in line
    assert "ppc64_hpt" in refused("audit", tmp_path / "c", "--set", "arch=nothing")


def test_what_cannot_be_packed(raw: tuple[Path, Path], tmp_path: Path) -> None:
    memory, about = raw
    out = tmp_path / "out"
    out.mkdir()
    assert "does not end in .json" in refused("image", "pack", shipped_image(), "--output", out / "p.npz")
    assert "does not say" in refused("image", "pack", memory, "--output", out / "p.json")
    refused("image", "pack", memory, "--describe", about, "--set", "l1.lpid=9", "--output", out / "p.json")
    refused("image", "pack", memory, "--describe", about, "--output", out / "none" / "p.json")
    refused("image", "pack", memory, "--describe", about, "--base", "x", "--output", out / "p.json")
    assert list(out.iterdir()) == []
