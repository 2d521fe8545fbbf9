"""Plugins that cannot be used: each is named with its distribution, and the rest still works."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from nestmmu import API_VERSION
from nestmmu.cli import app
from nestmmu.errors import PluginError
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory
from nestmmu.plugins import DISABLE, Plugins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[..., None]

GOOD = """
from nestmmu.formats import ALWAYS, Level, Match, RadixFormat
from nestmmu.hookspecs import hookimpl

@hookimpl
def nestmmu_table_formats():
    level = Level("only", (4,), ALWAYS, may_table=False)
    return [RadixFormat("{0}", 16, (level,), 8, "little", Match(1, 1), 0xF000, 0xF000, ((Match(2, 2), 7),))]
"""
HOOK = "from nestmmu.hookspecs import hookimpl\n@hookimpl\n"
BROKEN = {
    "import error": ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
    "ends the program": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("def", "SyntaxError: "),
    "newer": (f"NESTMMU_API = {API_VERSION + 1}", f"version {API_VERSION + 1} of nestmmu's hooks"),
    "no version": ("NESTMMU_API = 'new'", "version new of nestmmu's hooks"),
    "wrong argument": (f"{HOOK}def nestmmu_cpu(architecture): pass", "nestmmu_cpu.*'architecture'"),
    "no such hook": (f"{HOOK}def nestmmu_cpus(arch): pass", "nestmmu_cpus"),
    "fails when asked": (f"{HOOK}def nestmmu_table_formats(): import no_such_module_at_all", "nestmmu_table_formats"),
    "returns no formats": (f"{HOOK}def nestmmu_table_formats(): return 7", "nestmmu_table_formats returns cannot be"),
    "returns no declarations": (f"{HOOK}def nestmmu_conformance(): return [7]", "nestmmu_conformance returns cannot"),
    "quirks": (f"{HOOK}def nestmmu_quirks(): raise KeyError('x')", "nestmmu_quirks raises KeyError: 'x'"),
    "a format that is there": (GOOD.format("good"), "good and zz both bring good"),
}
"""A module, and what of it has to stand in the message."""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what puts a distribution with one plugin on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(distribution: str, plugin: str, source: str, version: str = "1.5") -> None:
        module = f"plugin_of_{tmp_path.name.replace('-', '_')}_{distribution}"
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        folder = tmp_path / f"{distribution}-{version}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (folder / "METADATA").write_text(text, encoding="utf-8")
        (folder / "entry_points.txt").write_text(f"[nestmmu]\n{plugin} = {module}\n", encoding="utf-8")

    return put


def listed() -> dict[str, list[dict[str, Any]]]:
    """Return what ``nestmmu plugins`` says, by plugin."""
    result = CliRunner().invoke(app, ["plugins", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(result.stdout)["plugins"]:
        found.setdefault(row["name"], []).append(row)
    return found


@pytest.mark.parametrize(("source", "message"), BROKEN.values(), ids=BROKEN)
def test_one_that_is_broken_is_named_and_the_rest_works(install: Install, source: str, message: str) -> None:
    install("one_that_works", "good", GOOD.format("good"))
    install("one_that_is_broken", "zz", source, "2.7")
    rows = listed()
    assert [row["problem"] for row in rows["good"]] == [""]
    assert rows["good"][0]["formats"] == ["good"]
    (row,) = rows["zz"]
    assert row["distribution"] == "one_that_is_broken 2.7"
    assert row["problem"].startswith("plugin zz of one_that_is_broken 2.7")
    assert "\n" not in row["problem"]
    assert re.search(message, row["problem"])
    assert row["hooks"] == row["formats"] == []
    assert "good" in Plugins().names()


def test_people_see_why(install: Install) -> None:
    install("one_that_is_broken", "zz", BROKEN["newer"][0])
    result = CliRunner().invoke(app, ["plugins"], catch_exceptions=False)
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("zz: ")]
    assert line.startswith("zz: plugin zz of one_that_is_broken 1.5: it is written for version")
    assert f"this nestmmu has version {API_VERSION}" in line


def test_of_two_with_one_name_the_first_works_and_both_are_named(install: Install) -> None:
    install("alpha", "same", GOOD.format("from_alpha"))
    install("beta", "same", GOOD.format("from_beta"))
    first, second = listed()["same"]
    assert (first["distribution"], first["problem"], first["formats"]) == ("alpha 1.5", "", ["from_alpha"])
    assert second["problem"] == "two plugins are called same: of alpha 1.5 and of beta 1.5; the second is left out"
    assert second["formats"] == []


def test_no_plugin_can_be_called_as_the_core_is(install: Install) -> None:
    install("alpha", "core", GOOD.format("any"))
    (row,) = listed()["core"]
    assert row["problem"] == "two plugins are called core: of nestmmu itself and of alpha 1.5; the second is left out"


@pytest.mark.parametrize("version", ["", f"NESTMMU_API = {API_VERSION}\n"])
def test_a_version_of_the_hooks_may_be_given(install: Install, version: str) -> None:
    install("alpha", "good", version + GOOD.format("good"))
    assert listed()["good"][0]["problem"] == ""


@pytest.mark.parametrize("names", ["zz", " zz , nothing", "*"])
def test_one_that_is_disabled_is_not_imported(
    install: Install, names: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = tmp_path / "imported"
    install("alpha", "zz", f"open({str(mark)!r}, 'w').close()")
    monkeypatch.setenv(DISABLE, names)
    (row,) = listed()["zz"]
    assert row["problem"] == f"disabled by {DISABLE}"
    assert not mark.exists()
    monkeypatch.delenv(DISABLE)
    listed()
    assert mark.exists()


def test_commands_of_one_that_fails_are_missing_and_the_others_are_there(install: Install) -> None:
    install("alpha", "aa", f"{HOOK}def nestmmu_cli(app): raise RuntimeError('no')")
    install("beta", "bb", f"{HOOK}def nestmmu_cli(app): app.command('hello')(lambda: None)")
    plugins = Plugins()
    commands = Typer()
    plugins.add_commands(commands)
    assert [command.name for command in commands.registered_commands] == ["hello"]
    (info,) = [info for info in plugins.infos if info.name == "aa"]
    assert info.problem == "plugin aa of alpha 1.5: its nestmmu_cli raises RuntimeError: no"


def test_one_that_fails_when_it_is_to_give_a_cpu_is_named(install: Install) -> None:
    install("alpha", "aa", f"{HOOK}def nestmmu_cpu(arch): import no_such_module_at_all")
    with pytest.raises(PluginError) as error:
        Plugins().cpu("any", {}, PhysicalMemory(), AccessedDirty.UPDATE)
    assert str(error.value).startswith("plugin aa of alpha 1.5: its nestmmu_cpu raises ModuleNotFoundError: ")
    assert str(error.value).endswith(f"; {DISABLE}=aa goes without it")


def test_what_a_hook_says_of_its_arguments_is_passed_on(install: Install) -> None:
    install("alpha", "aa", f"{HOOK}def nestmmu_cpu(registers): raise ValueError('no register r99')")
    with pytest.raises(ValueError, match=r"^no register r99$"):
        Plugins().cpu("any", {}, PhysicalMemory(), AccessedDirty.UPDATE)


def test_where_nothing_does_it_what_was_not_loaded_is_named(install: Install) -> None:
    install("alpha", "aa", BROKEN["import error"][0])
    with pytest.raises(PluginError, match=r"no plugin does nestmmu_cpu for pdp11; .*not loaded .*aa"):
        Plugins().cpu("pdp11", {}, PhysicalMemory(), AccessedDirty.UPDATE)


def test_whoever_registers_one_by_hand_gets_the_error() -> None:
    class Fails:
        NESTMMU_API = API_VERSION + 1

    plugins = Plugins(discover=False)
    with pytest.raises(PluginError, match="plugin mine of this program: it is written for version"):
        plugins.register(Fails(), "mine")
    assert plugins.names() == []
