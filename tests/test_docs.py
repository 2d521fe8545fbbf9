"""The documentation: each hook with its signature, each public module, each plugin of the tree."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nestmmu import hookspecs

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CORE = ROOT / "core" / "nestmmu"
TREE = ast.parse((CORE / "hookspecs.py").read_text(encoding="utf-8"))
HOOKS = {node.name: node for node in TREE.body if isinstance(node, ast.FunctionDef)}
"""As they are written, not as Python or pluggy sees them."""
NOT_FOR_PLUGINS = {"__init__", "jit_loops", "new_plugin", "plugin_problems", "demo"}
"""Modules of the core that no one imports but the core."""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made() -> Any:
    """Return the extension that makes the hooks' pages."""
    return load("hook_pages")


@pytest.fixture(scope="module")
def pages(made: Any) -> dict[str, str]:
    found: dict[str, str] = made.pages()
    return found


def text_of(name: str) -> str:
    return (DOCS / f"{name}.rst").read_text(encoding="utf-8")


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_every_function_of_the_contract_is_a_hook() -> None:
    assert len(HOOKS) > 10
    assert all(hasattr(getattr(hookspecs, name), "nestmmu_spec") for name in HOOKS)


def test_each_hook_has_its_page_and_there_is_no_other(pages: dict[str, str]) -> None:
    assert pages.keys() == HOOKS.keys() | {"index"}
    listed = re.findall(r"^   (nestmmu_\w+) <\1>$", pages["index"], re.MULTILINE)
    assert listed == list(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_signature_is_documented(name: str, pages: dict[str, str]) -> None:
    function = HOOKS[name]
    arguments = [f"{one.arg}: {ast.unparse(one.annotation)}" for one in function.args.args if one.annotation]
    assert len(arguments) == len(function.args.args)
    assert function.returns is not None
    signature = f".. py:function:: {name}({', '.join(arguments)}) -> {ast.unparse(function.returns)}"
    # inspect writes None where the source has "None", and the quotes of annotations that are strings.
    (line,) = [line for line in pages[name].splitlines() if line.startswith(".. py:function::")]
    assert line.replace("'", "") == signature


@pytest.mark.parametrize("name", HOOKS)
def test_description_says_who_calls_it_and_since_when(name: str, pages: dict[str, str]) -> None:
    description = ast.get_docstring(HOOKS[name])
    assert description
    assert one_line(description) in one_line(pages[name])
    assert "Called" in description
    assert re.search(r"Since\s+\d+\.\d+\.", description)


@pytest.mark.parametrize("name", HOOKS)
def test_which_results_count(name: str, pages: dict[str, str]) -> None:
    (mark,) = HOOKS[name].decorator_list
    options = {one.arg for one in mark.keywords} if isinstance(mark, ast.Call) else set()
    first = "The first result that is not ``None`` counts" in pages[name]
    assert first == ("firstresult" in options)
    assert ("registered late" in pages[name]) == ("historic" in options)
    description = ast.get_docstring(HOOKS[name]) or ""
    assert ("first result counts" in one_line(description)) == first


@pytest.mark.parametrize("name", HOOKS)
def test_the_example_has_the_hooks_arguments(name: str, pages: dict[str, str]) -> None:
    code = pages[name].split(".. code-block:: python\n")[1]
    tree = ast.parse("\n".join(line.removeprefix("   ") for line in code.splitlines()))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [one.arg for one in function.args.args] == [one.arg for one in HOOKS[name].args.args]


def test_pages_are_written_again_only_where_they_change(
    made: Any, pages: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "FOLDER", tmp_path / "hooks")
    made.write()
    (tmp_path / "hooks" / "gone.rst").write_text("a hook that there was", encoding="utf-8")
    before = (tmp_path / "hooks" / "index.rst").stat().st_mtime_ns
    made.write()
    found = {file.stem: file.read_text(encoding="utf-8") for file in (tmp_path / "hooks").iterdir()}
    assert found == pages
    assert (tmp_path / "hooks" / "index.rst").stat().st_mtime_ns == before


def test_each_public_module_is_in_the_reference() -> None:
    modules = {path.stem for path in CORE.glob("*.py")} - NOT_FOR_PLUGINS
    listed = re.findall(r"^\.\. automodule:: nestmmu\.([\w.]+)$", text_of("api"), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert {name for name in listed if "." not in name} >= modules
    for name in listed:
        assert (CORE / f"{name.replace('.', '/')}.py").is_file() or (CORE / name.replace(".", "/")).is_dir(), name


def test_each_plugin_of_the_tree_is_in_the_support_matrix() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sections = re.findall(r"^``(\w+)``[^\n]*\n-+$", text_of("support"), re.MULTILINE)
    assert sections == sorted(project["entry-points"]["nestmmu"])
    for section in re.split(r"^``\w+``[^\n]*\n-+$", text_of("support"), flags=re.MULTILINE)[1:]:
        assert "Not modelled" in section or "automodule" in section


def test_each_page_is_reached_from_the_first() -> None:
    listed = set(re.findall(r"^   ([\w/]+)$", text_of("index"), re.MULTILINE))
    assert listed == {path.stem for path in DOCS.glob("*.rst")} - {"index"} | {"hooks/index"}
