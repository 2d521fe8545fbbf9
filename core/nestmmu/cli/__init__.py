"""The ``nestmmu`` command.

Importing this is what ``nestmmu --help`` costs: numpy, and what plugins provide, are imported by the commands that
need them.
"""

from __future__ import annotations

from typing import Annotated

import typer

from nestmmu import __version__
from nestmmu.cli import (
    audit,
    conformance,
    demo,
    diff,
    extents,
    image,
    new_plugin,
    plugins,
    quirks,
    replay,
    run,
    translate,
    walk,
)
from nestmmu.cli.errors import debugging

app = typer.Typer(
    name="nestmmu",
    help="An executable model of nested address translation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if wanted:
        typer.echo(f"nestmmu {__version__}")
        raise typer.Exit


@app.callback(epilog="Exit status: 0 fine, 1 differences found, 2 bad input.")
def _options(
    *,
    version: Annotated[  # noqa: ARG001  (its callback does it)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
) -> None:
    debugging.enabled = debug


for _command in (
    run, demo, replay, walk, audit, extents, translate, diff, image, conformance, new_plugin, plugins, quirks,
):  # fmt: skip
    _command.add_to(app)


def main() -> None:
    """Run the command line, the commands of plugins included."""
    from nestmmu.plugins import Plugins  # noqa: PLC0415  (pluggy is not needed to import this)

    Plugins().add_commands(app)
    app()
