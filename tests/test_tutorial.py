"""The tutorial: its files, put into what ``nestmmu new-plugin`` writes, make a plugin that passes the suite."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nestmmu.new_plugin import contents, write_project
from nestmmu.plugins import Plugins
from nestmmu.testing.run import Verdict, run

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[1] / "docs"
STEPS = (DOCS / "tutorial.rst").read_text(encoding="utf-8")
PACKAGE = "nestmmu_sv32"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the project as the tutorial leaves it, on the path as if it were installed."""
    folder = tmp_path / "sv32"
    write_project("sv32", folder)
    package = folder / "src" / PACKAGE
    for name in ("traps.py", "hypervisor.py"):
        assert f"``{name}``" in STEPS
        (package / name).unlink()
    for source in (DOCS / "tutorial").glob("*.py"):
        place = folder / "tests" if source.name.startswith("test_") else package
        assert (place / source.name).is_file()
        shutil.copy(source, place)
    test = folder / "tests" / "test_conformance.py"
    test.write_text(test.read_text(encoding="utf-8").replace("Declared", "Sv32"), encoding="utf-8")
    found = package.parent / f"{PACKAGE}-0.1.0.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: nestmmu-sv32\nVersion: 0.1.0\n", encoding="utf-8")
    (found / "entry_points.txt").write_text(f"[nestmmu]\nsv32 = {PACKAGE}.hooks\n", encoding="utf-8")
    monkeypatch.syspath_prepend(package.parent)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_the_suite_is_green(project: Path) -> None:
    assert project.is_dir()
    architecture = Plugins().architecture("sv32")
    results = list(run(architecture))
    counts = Counter(one.verdict for one in results)
    assert [f"{one.topic}.{one.test}: {one.message}" for one in results if not one.verdict.fine] == []
    assert counts[Verdict.EXPECTED] == 0
    skipped = {one.message for one in results if one.verdict is Verdict.SKIPPED}
    assert skipped == set(architecture.capabilities.unsupported.values())
    tested = {one.topic for one in results if one.verdict is Verdict.PASSED}
    assert {"geometry", "permissions", "accessed_dirty", "walks", "entries", "hostile", "batch"} <= tested


def test_the_walk_by_hand(project: Path) -> None:
    names = runpy.run_path(str(project / "tests" / "test_plugin.py"))
    names["test_a_walk_by_hand"]()
    (info,) = [info for info in Plugins().infos if info.name == "sv32"]
    assert (info.problem, info.distribution) == ("", "nestmmu-sv32 0.1.0")


def test_the_tutorial_shows_every_part_of_every_file() -> None:
    shown = set(re.findall(r"literalinclude:: (tutorial/\w+\.py)\n(?:   .*\n)*?   :start-after: # part (\w+)", STEPS))
    parts = {
        (f"tutorial/{path.name}", part)
        for path in (DOCS / "tutorial").glob("*.py")
        for part in re.findall(r"^ *# part (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if part != "end"
    }
    assert shown == parts
    assert len(parts) == 7


def test_the_tutorials_files_are_those_of_a_new_project() -> None:
    names = {path.rpartition("/")[2] for path in contents("sv32")}
    assert {path.name for path in (DOCS / "tutorial").glob("*.py")} <= names
