"""``nestmmu new-plugin``: what it writes installs from wheels, and passes its suite in an environment of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import attrs
import pytest
from typer.testing import CliRunner

from nestmmu import API_VERSION, __version__, new_plugin
from nestmmu.cli import app
from nestmmu.new_plugin import FILES, LONGEST_NAME, contents

ROOT = Path(__file__).parents[1]
NAME = "two_words"
PACKAGE = f"nestmmu_{NAME}"


def invoke(*arguments: object, status: int = 0) -> str:
    """Run the command and return what it printed."""
    result = CliRunner().invoke(app, ["new-plugin", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.stderr if status else result.stdout


def run(*command: str | Path, cwd: Path | None = None, status: int = 0) -> str:
    """Run a program that knows nothing of this one's environment, and return what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "NESTMMU"))}
    done = subprocess.run(  # noqa: S603  (our own)
        command, cwd=cwd, env=kept, capture_output=True, encoding="utf-8", check=False, timeout=300
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@attrs.frozen
class Installed:
    """A generated project, and an environment that its wheel, and nestmmu's, are installed in."""

    project: Path
    python: Path
    packages: Path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Generate, build both wheels, and install both; what they depend on is this environment's."""
    folder = tmp_path_factory.mktemp("new_plugin")
    project, wheels, environment = folder / "project", folder / "wheels", folder / "venv"
    invoke(NAME, project)
    for source in (ROOT, project):
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels, cwd=source)
    venv.create(environment, symlinks=True)
    scheme = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    # A line of a .pth is looked at after the environment's own packages; what is editable in this one stays out.
    ours = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in ours), encoding="utf-8")
    found = sorted(wheels.glob("*.whl"))
    assert [wheel.name.split("-")[0] for wheel in found] == ["nestmmu", PACKAGE]
    options = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--ignore-installed")
    python = Path(sysconfig.get_path("scripts", "venv", scheme)) / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *found)
    return Installed(project, python, packages)


def nestmmu(installed: Installed, *arguments: str, status: int = 0) -> dict[str, object]:
    """Run a command of the installed nestmmu and return its JSON."""
    text = run(installed.python.with_name("nestmmu"), *arguments, "--json", cwd=installed.project, status=status)
    found: dict[str, object] = json.loads(text)
    return found


def test_the_wheels_are_what_is_imported(installed: Installed) -> None:
    code = f"import nestmmu, {PACKAGE} as mine; print(nestmmu.__file__); print(mine.__file__)"
    places = run(installed.python, "-c", code, cwd=installed.project).splitlines()
    assert [Path(place).is_relative_to(installed.packages) for place in places] == [True, True]


def test_it_passes_its_own_tests(installed: Installed) -> None:
    """Nothing fails or is expected to; skipped is what the small scheme has nothing of."""
    lines = run(
        installed.python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", cwd=installed.project
    ).splitlines()
    counted = re.fullmatch(r"(\d+) passed, \d+ skipped in [\d.]+s.*", lines[-1])
    assert counted, lines[-1]
    assert int(counted[1]) > 100
    reasons = [found[1] for line in lines if (found := re.match(r"SKIPPED \[\d+\] .*\.py(?::\d+)?: (.*)", line))]
    assert sorted(set(reasons)) == [
        "a guest hypervisor cannot invalidate a range",
        "a guest hypervisor cannot invalidate all of all its guests at once",
        "a leaf has no attributes",
        "a page that is larger than the host's is shadowed in part",
        "no two words of the format mean the same",
    ]


def test_nestmmu_lists_it_without_a_problem(installed: Installed) -> None:
    rows = nestmmu(installed, "plugins")["plugins"]
    assert isinstance(rows, list)
    (row,) = [row for row in rows if row["name"] == NAME]
    assert row == {
        "name": NAME,
        "distribution": "nestmmu-two-words 0.1.0",
        "formats": [NAME],
        "hooks": [f"nestmmu_{hook}" for hook in ("conformance", "cpu", "reflector", "table_formats")],
        "problem": "",
    }


def test_the_suite_fails_when_the_format_is_wrong(installed: Installed) -> None:
    form = installed.packages / PACKAGE / "formats.py"
    right = form.read_text(encoding="utf-8")
    assert right.count("R, W, X = 1 << 2, 1 << 3, 1 << 4") == 1
    arguments = ("conformance", NAME, "--topic", "permissions")
    assert nestmmu(installed, *arguments)["architecture"] == NAME
    form.write_text(right.replace("R, W, X = 1 << 2, 1 << 3, 1 << 4", "R, W, X = 1 << 3, 1 << 2, 1 << 4"), "utf-8")
    try:
        topics = nestmmu(installed, *arguments, status=1)["topics"]
    finally:
        form.write_text(right, encoding="utf-8")
    assert isinstance(topics, list)
    assert [topic["failed"] > 0 for topic in topics] == [True]


class TestFiles:
    def test_every_template_is_used_and_every_mark_is_filled(self) -> None:
        templates = {path.name for path in (ROOT / "core/nestmmu/templates").iterdir()}
        assert templates == {f"{template}.in" for template in FILES.values()}
        for path, text in contents(NAME).items():
            assert not re.search(r"@\w+@", path + text), path

    def test_the_author_finds_where_to_begin(self) -> None:
        files = contents(NAME)
        for path in (
            "README.md",
            "pyproject.toml",
            *(f"src/{PACKAGE}/{name}.py" for name in ("formats", "conformance")),
        ):
            assert "TODO" in files[path], path

    def test_the_project_says_what_it_is_and_needs(self) -> None:
        project = tomllib.loads(contents(NAME)["pyproject.toml"])["project"]
        assert project["name"] == "nestmmu-two-words"
        assert project["entry-points"]["nestmmu"] == {NAME: f"{PACKAGE}.hooks"}
        assert project["dependencies"] == [f"nestmmu>={__version__}"]
        assert f"NESTMMU_API = {API_VERSION}\n" in contents(NAME)[f"src/{PACKAGE}/hooks.py"]

    def test_every_python_file_compiles(self) -> None:
        sources = {path: text for path, text in contents("none").items() if path.endswith(".py")}
        assert len(sources) == 9
        for path, text in sources.items():
            compile(text, path, "exec")


class TestRefusals:
    @pytest.mark.parametrize(
        "name",
        [
            "",
            "Upper",
            "with-dash",
            "a b",
            "1st",
            "_a",
            "a_",
            "a__b",
            "é",
            "../up",
            "a/b",
            "a\n",
            "x" * (LONGEST_NAME + 1),
        ],
    )
    def test_what_is_no_name(self, name: str, tmp_path: Path) -> None:
        line = invoke("--", name, tmp_path / "new", status=2)
        assert line.startswith("nestmmu: NAME: ")
        assert line.count("\n") == 1
        assert "small letters" in line
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["core", "ppc64_radix", "ppc64_book3s", "ppc64_radix_linux"])
    def test_a_name_that_is_taken(self, name: str, tmp_path: Path) -> None:
        line = invoke(name, tmp_path / "new", status=2)
        assert line.count("\n") == 1
        assert name in line
        assert "choose another name" in line
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
    def test_what_is_there_stays_as_it_is(self, kind: str, tmp_path: Path) -> None:
        target = tmp_path / "new"
        if kind == "folder":
            target.mkdir()
        elif kind == "file":
            target.write_text("mine", encoding="utf-8")
        else:
            target.symlink_to(tmp_path / "nowhere")
        line = invoke(NAME, target, status=2)
        assert line == f"nestmmu: {target}: it is there already; name a folder that is not\n"
        assert [path.name for path in tmp_path.iterdir()] == ["new"]
        assert kind != "file" or target.read_text(encoding="utf-8") == "mine"
        assert kind != "folder" or not list(target.iterdir())

    def test_a_folder_in_none(self, tmp_path: Path) -> None:
        line = invoke(NAME, tmp_path / "no" / "new", status=2)
        assert line.count("\n") == 1
        assert "No such file or directory" in line
        assert list(tmp_path.iterdir()) == []

    def test_nothing_is_left_when_a_file_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(new_plugin, "contents", lambda _: {"a": "text", "a/b": "a is no folder"})
        line = invoke(NAME, tmp_path / "new", status=2)
        assert line.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


def test_without_a_folder_it_is_named_after_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = json.loads(invoke(NAME, "--json"))
    assert found == {"name": NAME, "directory": "nestmmu-two-words", "files": list(contents(NAME))}
    project = tmp_path / "nestmmu-two-words"
    written = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert written == set(found["files"])
    (tmp_path / "beside").mkdir()
    assert project.stat().st_mode == (tmp_path / "beside").stat().st_mode
