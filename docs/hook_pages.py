"""Pages of the hooks, made from hookspecs.py; as a Sphinx extension, it writes them before anything is read."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nestmmu import API_VERSION, hookspecs

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = f"{hookspecs.PROJECT}_"
FOLDER = Path(__file__).parent / "hooks"
INDEX = """\
Hooks
=====

The contract between nestmmu and its plugins, version {version} (``nestmmu.API_VERSION``). Hooks *provide* the objects
that act, once, when a table or a CPU is made, and *announce* coarse events; none is called for a step of a walk.

A plugin is a module, named by an entry point of the group ``nestmmu``. It may say with ``NESTMMU_API`` for which
version of the hooks it is written; another version is refused. Whatever is wrong with a plugin, ``nestmmu plugins``
says so, naming its distribution, and the other plugins work; ``NESTMMU_DISABLE_PLUGINS`` names those that are not to
be loaded.

.. toctree::
   :maxdepth: 1

{hooks}
"""


def hooks() -> dict[str, Callable[..., Any]]:
    """Return the specifications, by name, in their order."""
    return {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, f"{PREFIX}spec")}


def results(spec: object) -> str:
    """Return which results count, in words."""
    options = getattr(spec, f"{PREFIX}spec")
    if options["firstresult"]:
        return "The first result that is not ``None`` counts. A wrapper (``wrapper=True``) may stand around it."
    if options["historic"]:
        return "Each plugin's result counts, also of those that are registered late. No wrapper may stand around it."
    return "Each plugin is called, and all results count."


def page(name: str, spec: Callable[..., Any]) -> str:
    """Return the page of one hook."""
    signature = inspect.signature(spec)
    description = "\n".join(f"   {line}".rstrip() for line in (inspect.getdoc(spec) or "").splitlines())
    arguments = ", ".join(signature.parameters)
    return "\n".join([
        name,
        "=" * len(name),
        "",
        ".. py:currentmodule:: nestmmu.hookspecs",
        "",
        f".. py:function:: {name}{signature}",
        "",
        description,
        "",
        results(spec),
        "",
        "An implementation names the arguments that it wants; the others can be left out:",
        "",
        ".. code-block:: python",
        "",
        "   from nestmmu.hookspecs import hookimpl",
        "",
        "   @hookimpl",
        f"   def {name}({arguments}):",
        "       ...",
        "",
    ])  # fmt: skip


def index() -> str:
    """Return the page that lists all hooks."""
    rows = [f"   {name} <{name}>" for name in hooks()]
    return INDEX.format(version=API_VERSION, hooks="\n".join(rows))


def pages() -> dict[str, str]:
    """Return each page's text by its name."""
    return {"index": index()} | {name: page(name, spec) for name, spec in hooks().items()}


def write(_: object = None) -> None:
    """Write the pages, those alone that have changed."""
    FOLDER.mkdir(exist_ok=True)
    wanted = {FOLDER / f"{name}.rst": text for name, text in pages().items()}
    for stale in set(FOLDER.glob("*.rst")) - wanted.keys():
        stale.unlink()
    for file, text in wanted.items():
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:  # noqa: ANN401  (Sphinx need not be there to make pages)
    """Let Sphinx call this."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
