"""The command line: what it prints, writes, and how it ends. The numbers are those of the data's own READMEs."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nestmmu.cli import app
from nestmmu.images import shipped_image

if TYPE_CHECKING:
    from pathlib import Path


def nestmmu(*arguments: object, status: int = 0) -> str:
    """Run the command and return what it printed on stdout, or on stderr where it was to end in bad input."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.stderr if status == 2 else result.stdout


def run_apart(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-c", "from nestmmu.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=120)  # noqa: S603  (our own)


def arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of an npz file."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def refused(*arguments: object) -> str:
    """Run the command on bad input and return its one line."""
    line = nestmmu(*arguments, status=2)
    assert line.count("\n") == 1, line
    assert line.startswith("nestmmu: ")
    assert "Traceback" not in line
    return line


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return a copy of the shipped image, to be damaged."""
    for file in shipped_image().parent.glob("nest-64k-64k.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "nest-64k-64k.json"


def change(path: Path, level: str, **values: Any) -> None:
    """Change numbers of one level of an image."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document[level].update(values)
    path.write_text(json.dumps(document), encoding="utf-8")


class TestRun:
    def test_the_shipped_image_is_what_runs_without_an_argument(self) -> None:
        result = json.loads(nestmmu("run", "--json"))
        assert result["image"] == str(shipped_image())
        assert result["accesses"] == {"total": 5020, "equal": 5020, "different": 0}
        counts = {"kernel": 1348, "rebuilt": 1348, "equal": 1348, "different": 0, "only_kernel": 0, "only_rebuilt": 0}
        assert result["shadow"] == counts
        assert result["explained"] == []
        assert sum(result["faults"].values()) == 1348

    def test_dropped_ranges_explain_what_only_the_rebuilt_shadow_has(self, data: Path) -> None:
        result = json.loads(nestmmu("run", data / "nest-4k-64k.json", "--json"))
        assert result["accesses"] == {"total": 5020, "equal": 5020, "different": 0}
        counts = {"kernel": 2797, "rebuilt": 2820, "equal": 2797, "different": 0, "only_kernel": 0, "only_rebuilt": 23}
        assert result["shadow"] == counts
        assert [one["entries"] for one in result["explained"]] == [23]
        assert "zero page" in nestmmu("run", data / "nest-4k-64k.json")

    @pytest.mark.parametrize("name", ["l1-64k", "l1-4k"])
    def test_an_image_without_l0_runs_by_the_recursive_truth(self, data: Path, name: str) -> None:
        result = json.loads(nestmmu("run", data / f"{name}.json", "--json"))
        assert result["accesses"] == {"total": 5020, "equal": 5020, "different": 0}
        assert set(result["shadow"].values()) == {0}

    def test_people_see_accesses_faults_and_shadow(self) -> None:
        text = nestmmu("run")
        for expected in ("Accesses by outcome", "3,850", "Faults handled", "64K over 2M", "1,022", "as recorded"):
            assert expected in text

    def test_output_holds_the_rebuilt_shadow(self, tmp_path: Path) -> None:
        file = tmp_path / "shadow.npz"
        nestmmu("run", "--output", file)
        shadow = arrays(file)
        assert set(shadow) == {"l2_real", "l0_real", "page_shift", "entry"}
        assert {array.shape for array in shadow.values()} == {(1348,)}
        assert [int((shadow["page_shift"] == shift).sum()) for shift in (16, 21)] == [1022, 326]
        valid_leaf = np.uint64(3 << 62)
        assert (shadow["entry"] & valid_leaf == valid_leaf).all()
        assert (shadow["entry"] & np.uint64(0x01FFFFFFFFFFF000) == shadow["l0_real"]).all()
        assert (np.diff(shadow["l2_real"].astype(np.int64)) > 0).all()

    def test_a_shadow_entry_that_is_not_the_composition_is_a_difference(self, copied: Path) -> None:
        # L2 real 0x100000000 lies under PMD entry 0 of the shadow; where that is, `walk` says.
        steps = json.loads(nestmmu("walk", copied, "--space", "shadow", "0x100000000", "--json"))["tables"][0]["steps"]
        where = steps[-1]["address"]
        pages = arrays(copied.parent / "nest-64k-64k.pages.npz")
        row = int(np.nonzero(pages["frame"] == where >> 12)[0][0])
        words = pages["data"][row].view(">u8")
        words[(where & 4095) >> 3] ^= 0x200000
        np.savez(copied.parent / "nest-64k-64k.pages.npz", **pages)
        result = json.loads(nestmmu("run", copied, "--json", status=1))
        assert result["shadow"]["different"] == 1
        assert result["shadow"]["equal"] == 1347
        assert "shadow differs: 0x100000000" in nestmmu("run", copied, status=1)

    def test_an_outcome_that_was_recorded_otherwise_is_a_difference(self, copied: Path) -> None:
        accesses = arrays(copied.parent / "nest-64k-64k.accesses.npz")
        row = int(np.nonzero(accesses["vector"] == 0x300)[0][0])
        accesses["dsisr"][row] ^= np.uint64(0x02000000)
        np.savez(copied.parent / "nest-64k-64k.accesses.npz", **accesses)
        result = json.loads(nestmmu("run", copied, "--json", status=1))
        assert result["accesses"] == {"total": 5020, "equal": 5019, "different": 1}
        assert "dsisr: expected" in nestmmu("run", copied, status=1)


class TestBadImages:
    def test_no_such_file(self, tmp_path: Path) -> None:
        assert "no such file" in refused("run", tmp_path / "nothing.json")

    def test_unknown_architecture(self, copied: Path) -> None:
        document = json.loads(copied.read_text(encoding="utf-8"))
        document["arch"] = "pdp11"
        copied.write_text(json.dumps(document), encoding="utf-8")
        assert "pdp11" in refused("run", copied)

    @pytest.mark.parametrize(
        ("level", "field", "value"),
        [
            ("l0", "ptcr", 25),
            ("l0", "ptcr", 1 << 40 | 4),
            ("l0", "page_shift", 13),
            ("l1", "ptcr", 0xFFFFFFFFFFFFFFFF),
            ("l1", "ptcr", 1 << 50 | 4),
            ("l1", "lpid", 4096),
            ("l2", "l1_lpid", 77),
            ("l2", "shadow_lpid", 1 << 64),
            ("l2", "shadow_lpid", -1),
        ],
    )
    def test_a_register_out_of_range_names_file_and_field(
        self, copied: Path, level: str, field: str, value: int
    ) -> None:
        change(copied, level, **{field: value})
        line = refused("run", copied)
        assert str(copied) in line
        assert f"{level}." in line
        assert ";" in line

    def test_a_table_that_points_at_itself(self, copied: Path) -> None:
        document = json.loads(copied.read_text(encoding="utf-8"))
        pages = arrays(copied.parent / "nest-64k-64k.pages.npz")
        rows = {int(frame): row for row, frame in enumerate(pages["frame"])}
        table = document["l0"]["ptcr"] & 0x0FFFFFFFFFFFF000
        at = table + 16 * document["l2"]["shadow_lpid"]
        root = int(pages["data"][rows[at >> 12]].view(">u8")[(at & 4095) >> 3]) & 0x0FFFFFFFFFFFFF00
        # The first table below the root is made to hold itself, 512 times, as the level below.
        words = pages["data"][rows[root >> 12]].view(">u8")
        below = int(words[0]) & 0x0FFFFFFFFFFFFF00
        pages["data"][rows[below >> 12]].view(">u8")[:] = 1 << 63 | below | 9
        np.savez(copied.parent / "nest-64k-64k.pages.npz", **pages)
        begin = time.monotonic()
        line = refused("run", copied)
        assert "L0's shadow for L2" in line
        assert time.monotonic() - begin < 60

    def test_debug_shows_the_traceback(self, tmp_path: Path) -> None:
        for arguments in (("--debug", "run", tmp_path / "no.json"), ("run", tmp_path / "no.json", "--debug")):
            assert "Traceback" in run_apart(*arguments).stderr

    def test_without_debug_there_is_one_line_and_status_2(self, tmp_path: Path) -> None:
        done = run_apart("run", tmp_path / "no.json")
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1

    def test_an_output_that_cannot_be_written_leaves_nothing(self, tmp_path: Path) -> None:
        line = refused("run", "--output", tmp_path / "nowhere" / "shadow.npz")
        assert "--output" in line
        assert list(tmp_path.iterdir()) == []


class TestReplay:
    @pytest.mark.parametrize(("name", "total"), [("ppc64_radix", 2213), ("ppc64_radix_rcfault", 2194)])
    def test_every_recorded_access_agrees(self, data: Path, tmp_path: Path, name: str, total: int) -> None:
        output = tmp_path / "computed.jsonl"
        result = json.loads(nestmmu("replay", data / f"{name}.json.gz", "--output", output, "--json"))
        assert result["files"][0]["accesses"] == {"total": total, "equal": total, "different": 0}
        lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        assert len(lines) == total
        recorded = json.loads(gzip.decompress((data / f"{name}.json.gz").read_bytes()))
        expected = [
            (number, index, access)
            for number, scene in enumerate(recorded["scenes"])
            for index, access in enumerate(scene["accesses"])
        ]
        for line, (number, index, access) in zip(lines, expected, strict=True):
            assert (line["scene"], line["access"]) == (number, index)
            assert line.get("ra") == access.get("ra")
            assert line.get("vector") == access.get("vector")
            assert line["changed"] == sorted(access["changed"])
            for register in ("srr0", "srr1", "hsrr0", "hsrr1", "dar", "dsisr", "hdar", "asdr"):
                assert line.get(register, 0) == access.get(register, 0), (number, index, register)

    def test_a_difference_is_shown_field_by_field(self, data: Path, tmp_path: Path) -> None:
        document = json.loads(gzip.decompress((data / "ppc64_radix.json.gz").read_bytes()))
        access = next(one for one in document["scenes"][0]["accesses"] if "ra" in one)
        access["ra"] += 0x1000
        file = tmp_path / "wrong.json.gz"
        file.write_bytes(gzip.compress(json.dumps(document).encode()))
        text = nestmmu("replay", file, status=1)
        assert f"ra: expected {access['ra']:#x}, got {access['ra'] - 0x1000:#x}" in text
        result = json.loads(nestmmu("replay", file, "--json", status=1))
        assert result["files"][0]["accesses"]["different"] == 1

    def test_a_truncated_file(self, data: Path, tmp_path: Path) -> None:
        file = tmp_path / "cut.json.gz"
        file.write_bytes((data / "ppc64_radix.json.gz").read_bytes()[:5000])
        assert str(file) in refused("replay", file)

    def test_an_unknown_architecture(self, data: Path, tmp_path: Path) -> None:
        document = json.loads(gzip.decompress((data / "ppc64_radix.json.gz").read_bytes()))
        document["arch"] = "pdp11"
        file = tmp_path / "other.json.gz"
        file.write_bytes(gzip.compress(json.dumps(document).encode()))
        assert "pdp11" in refused("replay", file)


class TestWalk:
    def test_the_recursive_truth_and_the_shadow_lead_to_one_place(self, data: Path) -> None:
        image = data / "nest-4k-64k.json"
        truth = json.loads(nestmmu("walk", image, "--space", "l2", "0x100000123", "--json"))
        shadow = json.loads(nestmmu("walk", image, "--space", "shadow", "0x100000123", "--json"))
        assert truth["l0_real"] == shadow["l0_real"]
        assert [table["table"] for table in truth["tables"]] == ["L1's table for L2", "L0's table for L1"]
        # L1's leaf and L0's are both of 2 MiB: three entries of L1's, each found by three of L0's, and three more.
        assert truth["reads"] == 3 * (3 + 1) + 3
        assert shadow["reads"] == 3
        for step in truth["tables"][0]["steps"]:
            assert len(step["read_by"]) == 3

    def test_every_recorded_address_leads_where_the_kernels_say(self) -> None:
        accesses = arrays(shipped_image().parent / "nest-64k-64k.accesses.npz")
        rows = np.nonzero(accesses["vector"] == 0xC00)[0][::1500]
        for row in rows.tolist():
            l2_real, l1_real, l0_real = (int(accesses[name][row]) for name in ("l2_real", "l1_real", "l0_real"))
            result = json.loads(nestmmu("walk", shipped_image(), "--space", "l2", hex(l2_real), "--json"))
            assert result["tables"][0]["result"]["address"] == l1_real
            assert result["l0_real"] == l0_real

    def test_people_see_a_tree(self) -> None:
        text = nestmmu("walk", shipped_image(), "--space", "l2", "0")
        for expected in ("L1's table for L2", "PGD[0x0]", "L0's table for L1", "reads; L0 real"):
            assert expected in text

    def test_an_address_that_is_not_mapped_is_an_answer(self) -> None:
        result = json.loads(nestmmu("walk", shipped_image(), "--space", "l2", "0x7000000000000", "--json"))
        assert result["l0_real"] is None
        assert "not present" in result["tables"][0]["fault"]

    def test_what_is_no_address(self) -> None:
        for text in ("zz", "-1", "1.5", hex(1 << 64)):
            assert "ADDRESS" in refused("walk", shipped_image(), "--space", "l2", "--", text)

    def test_an_image_without_l0_has_no_shadow(self, data: Path) -> None:
        assert "--space l2" in refused("walk", data / "l1-4k.json", "--space", "shadow", "0")


class TestPlugins:
    def test_what_is_installed(self) -> None:
        plugins = {one["name"]: one for one in json.loads(nestmmu("plugins", "--json"))["plugins"]}
        radix = plugins["ppc64_radix"]
        assert radix["problem"] == ""
        assert "ppc64_radix" in radix["formats"]
        assert {"nestmmu_cpu", "nestmmu_nest", "nestmmu_replayer"} <= set(radix["hooks"])
        assert "ppc64_radix" in nestmmu("plugins")


@pytest.mark.parametrize("command", ["run", "replay", "walk", "plugins"])
def test_help_of_each_command_has_an_example(command: str) -> None:
    text = nestmmu(command, "--help")
    assert f"Example: nestmmu {command}" in text
    assert "--json" in text


def test_help_imports_no_numpy() -> None:
    code = (
        "import sys; import nestmmu.cli; from nestmmu.plugins import Plugins; Plugins(); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)  # noqa: S603  (ours)
    assert done.stdout.strip() == "False"
