"""Writing the project of a new plugin: a small scheme that passes the suite, to be replaced piece by piece."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from nestmmu import API_VERSION, __version__
from nestmmu.errors import InputError
from nestmmu.plugins import CORE, Plugins

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = {
    ".github/workflows/test.yml": "test.yml",
    ".gitignore": "gitignore",
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    "src/@package@/__init__.py": "init.py",
    "src/@package@/conformance.py": "conformance.py",
    "src/@package@/cpu.py": "cpu.py",
    "src/@package@/formats.py": "formats.py",
    "src/@package@/hooks.py": "hooks.py",
    "src/@package@/hypervisor.py": "hypervisor.py",
    "src/@package@/py.typed": "py.typed",
    "src/@package@/traps.py": "traps.py",
    "tests/test_conformance.py": "test_conformance.py",
    "tests/test_plugin.py": "test_plugin.py",
}
"""Each file of a project, and its template (in the folder ``templates``, with ``.in`` after its name)."""
LONGEST_NAME = 40
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def check_name(name: str) -> None:
    """Look whether a plugin can have a name.

    :raises InputError: if it is no name, or taken by what is installed.
    """
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        remedy = f"use small letters and digits, a letter first, words joined by _, {LONGEST_NAME} characters at most"
        raise InputError("NAME", "", f"{name!r} cannot be a plugin's name", remedy)
    plugins = Plugins()
    taken = {info.name: info.distribution for info in plugins.infos} | {CORE: "nestmmu itself"}
    if name in taken:
        raise InputError("NAME", "", f"a plugin {name} is there already, of {taken[name]}", "choose another name")
    if name in plugins.formats() or name in plugins.conformance():
        raise InputError("NAME", "", f"a plugin brings a format or an architecture {name}", "choose another name")
    package = f"nestmmu_{name}"
    if importlib.util.find_spec(package) is not None:
        raise InputError("NAME", "", f"a package {package} is installed already", "choose another name")


def contents(name: str) -> dict[str, str]:
    """Return each file of a new plugin's project: its path, with ``/``, and its text."""
    words = {
        "api": str(API_VERSION),
        "distribution": f"nestmmu-{name.replace('_', '-')}",
        "name": name,
        "package": f"nestmmu_{name}",
        "version": __version__,
    }

    def filled(text: str) -> str:
        return re.sub(f"@({'|'.join(words)})@", lambda found: words[found[1]], text)

    templates = resources.files("nestmmu") / "templates"
    return {
        filled(path): filled((templates / f"{template}.in").read_text(encoding="utf-8"))
        for path, template in FILES.items()
    }


def write_project(name: str, folder: Path) -> list[str]:
    """Write the project of a new plugin into a new folder and return the paths of its files.

    :raises InputError: if the name cannot be, or the folder is there, or cannot be written; then nothing is left of it.
    """
    check_name(name)
    with _new_folder(folder) as place:
        files = contents(name)
        for path, text in files.items():
            file = place / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return list(files)


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder that appears under its name only when all is in it."""
    if os.path.lexists(folder):
        raise InputError(folder, "", "it is there already", "name a folder that is not")
    made: Path | None = None
    try:
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        (made / "project").mkdir()  # with the mode that the user wants for folders; mkdtemp's is private
        yield made / "project"
        (made / "project").rename(folder)
    except OSError as error:
        problem = f"it cannot be made: {error.strerror}"
        raise InputError(folder, "", problem, "name a new folder in one that you may write") from None
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
