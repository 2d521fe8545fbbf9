"""``nestmmu new-plugin``: a project to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestmmu.cli.errors import DebugOption, JsonOption, guarded


@guarded
def new_plugin(
    name: Annotated[str, typer.Argument(help="The plugin's name, as `nestmmu plugins` is to list it.")],
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A folder that is not there yet.", show_default="nestmmu-NAME")
    ] = None,
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Write the project of a new plugin, which installs and passes the conformance suite as it is.

    Its scheme is a small one; `TODO`s say where yours goes.

    Example: nestmmu new-plugin my_mmu
    """
    from nestmmu.new_plugin import write_project  # noqa: PLC0415  (lazy: see the package)

    folder = Path(f"nestmmu-{name.replace('_', '-')}") if directory is None else directory
    files = write_project(name, folder)
    if json:
        from nestmmu.cli.output import print_json  # noqa: PLC0415  (lazy: see the package)

        print_json({"name": name, "directory": str(folder), "files": files})
        return
    for file in files:
        typer.echo(folder / file)
    typer.echo(f"Next: cd {folder}; python3 -m venv .venv; .venv/bin/pip install -e '.[test]'; .venv/bin/pytest")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("new-plugin", short_help="Write the project of a new plugin.")(new_plugin)
