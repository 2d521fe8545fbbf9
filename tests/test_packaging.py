"""What the distribution promises, and the rules of the house that a program can check."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.resources
import re
import runpy
import statistics
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import nestmmu
from nestmmu.cli import app
from nestmmu.images import shipped_image

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("core", "plugins") for path in (ROOT / folder).rglob("*.py"))
CORE = [path for path in SOURCES if path.is_relative_to(ROOT / "core")]
SHARED_BY_PLUGINS = {"nestmmu_ppc64_book3s"}
"""Packages that plugins import, and that are no plugins."""
ARCHITECTURES = re.compile(
    r"ppc|power(pc|\d)|book3s|(?<![a-z])(lpid|pate|prte|ptcr|hdsi|hisi|radix_?tree)|riscv|hgatp|(?<![a-z])ept(?![a-z])|x86|arm64|aarch64",
    re.IGNORECASE,
)
LONGEST_MODULE = 600
MEDIAN_MODULE = 150
LONGEST_FUNCTION = 60


@functools.cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def wheel_packages() -> list[Path]:
    return [ROOT / name for name in project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """Return every string that stands alone: docstrings, of attributes too."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def words_of_code(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each name and each string that is no docstring."""
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name):
            yield line, node.id
        elif isinstance(node, ast.Attribute):
            yield line, node.attr
        elif isinstance(node, ast.arg | ast.keyword):
            yield line, node.arg or ""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield line, node.name
        elif isinstance(node, ast.alias):
            yield line, f"{node.name} {node.asname or ''}"
        elif isinstance(node, ast.ImportFrom):
            yield line, node.module or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield line, node.value


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (name, lines) of each function."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


@functools.cache
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return what stands in each of the README's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", readme(), re.MULTILINE | re.DOTALL)


def test_version_is_one() -> None:
    assert nestmmu.__version__ == project()["project"]["version"]
    assert importlib.metadata.version("nestmmu") == nestmmu.__version__


def test_sources_are_found() -> None:
    assert {"core/nestmmu/hookspecs.py", "core/nestmmu/cli/run.py"} <= {name_of(path) for path in CORE}
    assert len(SOURCES) > len(CORE)


@pytest.mark.parametrize("package", [path.name for path in wheel_packages()])
def test_package_is_installed_and_typed(package: str) -> None:
    assert importlib.resources.files(package).joinpath("py.typed").is_file()


def test_every_package_of_the_tree_is_in_the_wheel() -> None:
    folders = {path.parent for path in (ROOT / "core").glob("*/__init__.py")}
    folders |= {path.parent for path in (ROOT / "plugins").glob("*/*/__init__.py")}
    assert folders == set(wheel_packages())


def test_every_plugin_has_an_entry_point() -> None:
    plugins = {path.name for path in wheel_packages() if path.is_relative_to(ROOT / "plugins")} - SHARED_BY_PLUGINS
    declared = project()["project"]["entry-points"]["nestmmu"]
    assert {value.split(".")[0] for value in declared.values()} == plugins
    installed = importlib.metadata.distribution("nestmmu").entry_points.select(group="nestmmu")
    assert {point.name: point.value for point in installed} == declared


@pytest.mark.parametrize("suffix", [".json", ".pages.npz", ".accesses.npz"])
def test_image_is_shipped_with_its_arrays(suffix: str) -> None:
    image = shipped_image()
    assert image.with_name(image.stem + suffix).stat().st_size > 0


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module_is_documented_and_not_long(path: Path) -> None:
    assert ast.get_docstring(parsed(path))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


def test_median_module_is_small() -> None:
    assert statistics.median(len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES) <= MEDIAN_MODULE


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_are_not_long(path: Path) -> None:
    assert [found for found in functions(path) if found[1] > LONGEST_FUNCTION] == []


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_names_no_architecture(path: Path) -> None:
    assert [found for found in words_of_code(parsed(path)) if ARCHITECTURES.search(found[1])] == []


@pytest.mark.parametrize(
    "code", ["lpid = 1", "def f(l1_lpid): ...", "x = {'PTCR': 0}", "from nestmmu_ppc64_radix import cpu", "a.ept = 0"]
)
def test_the_search_finds_an_architecture(code: str) -> None:
    assert [found for found in words_of_code(ast.parse(code)) if ARCHITECTURES.search(found[1])]


@pytest.mark.parametrize("code", ['"""Like POWER\'s LPID."""', "accepted = 'kept'", "except_for = dispatch"])
def test_the_search_lets_other_words_be(code: str) -> None:
    assert [found for found in words_of_code(ast.parse(code)) if ARCHITECTURES.search(found[1])] == []


@pytest.mark.parametrize(("block", "ends"), [(0, "nestmmu run"), (1, "tox")], ids=["main job", "tests"])
def test_readme_begins_with_two_commands(block: int, ends: str) -> None:
    lines = blocks("sh")[block].splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("python3 -m venv ")
    assert lines[0].endswith(ends)


def test_readme_lists_every_command() -> None:
    listed = re.findall(r"^\| `nestmmu ([\w-]+)", readme(), re.MULTILINE)
    callbacks = [command.callback for command in app.registered_commands if command.callback]
    own = [
        callback.__name__.replace("_", "-") for callback in callbacks if callback.__module__.startswith("nestmmu.cli.")
    ]
    groups = [group.name for group in app.registered_groups]
    assert [name for name in listed if name not in groups] == own
    assert sorted(set(listed) - set(own)) == groups


def test_readmes_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "example.py").write_text(blocks("python")[0], encoding="utf-8")
    runpy.run_path(str(tmp_path / "example.py"))
    assert f"vector={0xE00}" in capsys.readouterr().out  # HDSI, as the example's comment says
