"""``nestmmu extents``, ``translate`` and ``diff``: their numbers are those of the images' README, and of `walk`."""

from __future__ import annotations

import csv
import io
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from nest_tables import DATA
from typer.testing import CliRunner

from nestmmu.access import Access
from nestmmu.batch import translate_many
from nestmmu.cli import app
from nestmmu.extent_files import load_extents, save_extents
from nestmmu.extents import Extents
from nestmmu.images import read_nest_image, shipped_image
from nestmmu.plugins import Plugins

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = shipped_image()
SMALL = DATA / "nest-4k-64k.json"


def nestmmu(*arguments: object, status: int = 0, given: str | bytes = "") -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=given, catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.stderr if status == 2 else result.stdout


def as_json(*arguments: object, status: int = 0, given: str = "") -> Any:
    return json.loads(nestmmu(*arguments, "--json", status=status, given=given))


def refused(*arguments: object, given: str | bytes = "") -> str:
    line = nestmmu(*arguments, status=2, given=given)
    assert line.count("\n") == 1, line
    assert line.startswith("nestmmu: ")
    return line


def test_extents_of_each_space() -> None:
    """The README: L0's table has 677 pages of 2M, the shadow 1,022 of 64K and 326 of 2M."""
    counts = {}
    for space in ("l1", "shadow"):
        found = as_json("extents", IMAGE, "--space", space)
        assert found["malformed"] == 0
        assert found["bytes"] == sum(one["length"] for one in found["extents"])
        shifts = [one["page_shift"] for one in found["extents"]]
        counts[space] = {shift: shifts.count(shift) for shift in set(shifts)}
    assert counts == {"l1": {21: 677}, "shadow": {16: 1022, 21: 326}}


def test_l2_is_both_tables_composed() -> None:
    """Every recorded L2 address that completed is found where the kernels' own page tables say."""
    image = read_nest_image(IMAGE)
    found = as_json("extents", IMAGE, "--space", "l2", "--coalesce")["extents"]
    extents = Extents.make(*([one[name] for one in found] for name in ("start", "length", "target", "permissions")))
    known = image.column("l2_real") != np.uint64((1 << 64) - 1)
    known &= image.column("vector") == 0xC00
    addresses, ends = image.column("l2_real")[known], image.column("l0_real")[known]
    index = extents.find(addresses)
    assert (index >= 0).all()
    assert np.array_equal(extents.target[index] + (addresses - extents.start[index]), ends)
    assert len(addresses) > 2000


def test_what_leads_to_an_address() -> None:
    """All of L2's pages that were only read lead to one page of zeros."""
    found = as_json("extents", IMAGE, "--space", "shadow", "--leading-to", "0xdd30010")["extents"]
    assert len(found) == 57
    assert {one["length"] for one in found} == {1}
    assert {one["target"] for one in found} == {0xDD30010}
    assert {one["start"] & 0xFFFF for one in found} == {0x10}
    assert {one["permissions"] for one in found} == {5}


def test_extents_in_files(tmp_path: Path) -> None:
    nestmmu("extents", IMAGE, "--space", "shadow", "--output", tmp_path / "s.npz")
    assert len(load_extents(tmp_path / "s.npz")) == 1348
    found = as_json("extents", tmp_path / "s.npz")
    assert found["space"] is None
    assert found["extents"] == as_json("extents", IMAGE, "--space", "shadow")["extents"]


def test_extents_for_people() -> None:
    text = nestmmu("extents", IMAGE, "--space", "l1")
    assert "677" in text
    assert "2M" in text
    assert "1,419,771,904" in text  # 677 pages of 2 MiB


def test_an_image_without_a_host() -> None:
    line = refused("extents", DATA / "l1-64k.json", "--space", "shadow")
    assert "l1-64k.json: l0: is null" in line
    assert len(as_json("extents", DATA / "l1-64k.json")["extents"]) == 1060


def test_overlapping_extents_are_refused(tmp_path: Path) -> None:
    save_extents(tmp_path / "e.npz", Extents.make([0, 0x1000], [0x1000] * 2, [0, 0], [7, 7]))
    arrays: dict[str, Any] = dict(np.load(tmp_path / "e.npz"))
    arrays["start"] = np.array([0, 0x800], np.uint64)
    np.savez(tmp_path / "e.npz", **arrays)
    assert "e.npz: start[1]" in refused("extents", tmp_path / "e.npz")
    arrays["start"] = np.array([0, (1 << 64) - 8], np.uint64)
    np.savez(tmp_path / "e.npz", **arrays)
    assert "ends beyond 2^64" in refused("diff", tmp_path / "e.npz", tmp_path / "e.npz")


def test_translations_are_what_walk_says() -> None:
    addresses = [0x100000000, 0x600000, 0x4000000000 + 12345, 0x8000000800000, 3 << 40]
    found = as_json("translate", IMAGE, *map(hex, addresses), "--access", "lookup")
    assert [one["address"] for one in found["translations"]] == addresses
    for one in found["translations"]:
        walked = as_json("walk", IMAGE, hex(one["address"]), "--space", "l2")
        assert one["output"] == walked["l0_real"]
        assert (one["fault"] is None) == (walked["l0_real"] is not None)
    assert found["complete"] == 4


def test_a_store_to_what_can_only_be_read() -> None:
    (one,) = as_json("translate", IMAGE, "0x8000000800000", "--access", "store")["translations"]
    assert one["output"] is None
    assert "permission" in one["fault"]
    (one,) = as_json("translate", IMAGE, "0x8000000800000", "--access", "load")["translations"]
    assert one["permissions"] == 5


@pytest.mark.parametrize("ending", ["txt", "csv", "npy", "-"])
def test_the_recorded_addresses_from_files(ending: str, tmp_path: Path) -> None:
    image = read_nest_image(SMALL)
    kept = image.column("vector") == 0xC00
    addresses, expected = image.column("l2_real")[kept], image.column("l0_real")[kept]
    path = tmp_path / f"a.{ending}"
    text = "".join(f"{address:#x}\n" for address in addresses.tolist())
    if ending == "npy":
        np.save(path, addresses)
    else:
        path.write_text("address\n" * (ending == "csv") + text, encoding="utf-8")
    arguments = ("--input", "-" if ending == "-" else path, "--output", tmp_path / "out.npz")
    nestmmu("translate", SMALL, *arguments, given=text if ending == "-" else "")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert np.array_equal(file["address"], addresses)
        done = file["fault"] == 0
        assert np.array_equal(file["output"][done], expected[done])
        assert done.all()


def test_csv_out(tmp_path: Path) -> None:
    nestmmu("translate", IMAGE, "0x100000000", hex(3 << 40), "--output", tmp_path / "out.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8"))))
    assert [row["address"] for row in rows] == [str(0x100000000), str(3 << 40)]
    table = Plugins().nest(read_nest_image(IMAGE)).tables().named("l2")
    found = translate_many(table, [0x100000000], Access.LOAD)
    assert rows[0]["output"] == str(int(found.outputs[0]))
    assert rows[0]["fault"] == rows[1]["output"] == ""
    assert "not present" in rows[1]["fault"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--", "-1"], "'-1' is no address"),
        (["0x1g"], "'0x1g' is no address"),
        ([str(1 << 64)], "is no address of 64 bits"),
        ([], "give addresses"),
        (["--input", "-", "1"], "give addresses"),
    ],
)
def test_bad_addresses(arguments: list[str], says: str) -> None:
    assert says in refused("translate", IMAGE, *arguments)


def test_bad_input_on_standard_input() -> None:
    assert "standard input: line 2: 'x'" in refused("translate", IMAGE, "--input", "-", given="1\nx\n")
    assert "standard input" in refused("translate", IMAGE, "--input", "-", given=b"\xff\xfe")


def test_a_cpu_by_its_registers() -> None:
    """Under the shadow's LPID, a guest in real mode reaches what the shadow leads to, as the hardware did."""
    image = read_nest_image(SMALL)
    assert image.l0 is not None
    registers = {"ptcr": image.l0.number("ptcr"), "lpidr": image.l2.number("shadow_lpid")}
    options = [text for name, value in registers.items() for text in ("--register", f"{name}={value:#x}")]
    addresses = ["0x0", "0x100000000", hex(3 << 40)]
    by_cpu = as_json("translate", SMALL, "--arch", "ppc64_radix", *options, *addresses)
    by_space = as_json("translate", SMALL, "--space", "shadow", *addresses)
    assert by_cpu["arch"] == "ppc64_radix"
    assert [one["output"] for one in by_cpu["translations"]] == [one["output"] for one in by_space["translations"]]
    assert by_cpu["complete"] == by_space["complete"] == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--arch", "none"], "none"),
        (["--arch", "ppc64_radix", "--register", "x=1"], "unknown register x"),
        (["--arch", "ppc64_radix", "--register", "ptcr"], "'ptcr' is no NAME=VALUE"),
        (["--arch", "ppc64_radix", "--register", "ptcr=-1"], "'-1' is no address of 64 bits"),
        (["--arch", "ppc64_radix", "--register", "ptcr=1", "--register", "PTCR=1"], "given twice"),
        (["--arch", "ppc64_radix", "--access", "lookup"], "name one"),
        (["--register", "ptcr=1"], "--arch"),
    ],
)
def test_a_cpu_that_cannot_be(options: list[str], says: str) -> None:
    assert says in refused("translate", SMALL, *options, "1")


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    refused("translate", IMAGE, "1", "--output", tmp_path / "no" / "out.csv")
    refused("translate", IMAGE, "1", "--output", tmp_path / "out.txt")
    refused("extents", IMAGE, "--output", tmp_path / "out.txt")
    assert list(tmp_path.iterdir()) == []


def test_an_image_is_equal_to_itself() -> None:
    found = as_json("diff", IMAGE, IMAGE)
    assert found["equal"]
    assert [one["space"] for one in found["spaces"]] == ["l1", "l2", "shadow"]
    assert nestmmu("diff", IMAGE, IMAGE).splitlines() == ["l1: equal", "l2: equal", "shadow: equal"]


def test_one_entry_gone(tmp_path: Path) -> None:
    for file in IMAGE.parent.glob("nest-64k-64k.*"):
        shutil.copyfile(file, tmp_path / file.name)
    with np.load(tmp_path / "nest-64k-64k.pages.npz") as pages:
        frames, data = pages["frame"], pages["data"].copy()
    shadow = Plugins().nest(read_nest_image(IMAGE)).tables().shadow
    assert shadow is not None
    leaf = next(one for one in shadow.leaves() if one.page_shift == 16)
    assert leaf.entry_address is not None
    row, offset = int(np.flatnonzero(frames == leaf.entry_address >> 12)[0]), leaf.entry_address & 0xFFF
    data[row, offset : offset + 8] = 0
    np.savez(tmp_path / "nest-64k-64k.pages.npz", frame=frames, data=data)
    found = as_json("diff", IMAGE, tmp_path / IMAGE.name, status=1)
    assert [one["equal"] for one in found["spaces"]] == [True, True, False]
    shadows = found["spaces"][2]
    assert shadows["only_b"] == shadows["changed"] == []
    (gone,) = shadows["only_a"]
    assert (gone["start"], gone["length"], gone["target"]) == (leaf.page_start, 1 << 16, leaf.target_start)
    text = nestmmu("diff", IMAGE, tmp_path / IMAGE.name, "--space", "shadow", status=1)
    assert "only in A" in text
    assert f"{leaf.page_start:#x}" in text


def test_extents_that_differ_in_rights_alone(tmp_path: Path) -> None:
    one = Extents.make([0, 0x1000, 0x3000], [0x1000] * 3, [0x5000, 0x6000, 0x7000], [7, 7, 7])
    other = Extents.make([0, 0x1000, 0x4000], [0x1000] * 3, [0x5000, 0x6000, 0x7000], [7, 5, 7])
    save_extents(tmp_path / "a.npz", one)
    save_extents(tmp_path / "b.npz", other)
    (found,) = as_json("diff", tmp_path / "a.npz", tmp_path / "b.npz", status=1)["spaces"]
    assert [(one["start"], one["length"]) for one in found["only_a"]] == [(0x3000, 0x1000)]
    assert [(one["start"], one["length"]) for one in found["only_b"]] == [(0x4000, 0x1000)]
    (changed,) = found["changed"]
    assert (changed["a"]["start"], changed["a"]["permissions"], changed["b"]["permissions"]) == (0x1000, 7, 5)


def test_extents_beside_an_image(tmp_path: Path) -> None:
    nestmmu("extents", IMAGE, "--space", "shadow", "--coalesce", "--output", tmp_path / "s.npz")
    assert as_json("diff", tmp_path / "s.npz", IMAGE, "--space", "shadow")["equal"]
    assert not as_json("diff", tmp_path / "s.npz", IMAGE, status=1)["equal"]
