"""``nestmmu plugins``: what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from nestmmu.cli.errors import DebugOption, JsonOption, guarded

if TYPE_CHECKING:
    from collections.abc import Iterable


@guarded
def plugins(
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """List the plugins that are installed, and what each provides.

    A plugin that could not be loaded is listed with the reason; NESTMMU_DISABLE_PLUGINS names those not to load.

    Example: nestmmu plugins --json
    """
    from nestmmu.plugins import Plugins  # noqa: PLC0415  (lazy: see the package)

    manager = Plugins()
    manager.check()
    rows = [
        {
            "name": info.name,
            "distribution": info.distribution,
            "formats": [] if info.problem else manager.formats_of(info.name),
            "hooks": [] if info.problem else manager.hooks_of(info.name),
            "problem": info.problem,
        }
        for info in manager.infos
    ]
    if json:
        from nestmmu.cli.output import print_json  # noqa: PLC0415  (lazy: see the package)

        print_json({"plugins": rows})
        return
    from nestmmu.report.tables import show_table  # noqa: PLC0415  (lazy: see the package)

    show_table(
        "Plugins",
        ("name", "distribution", "table formats", "provides"),
        [
            (
                row["name"],
                row["distribution"],
                ", ".join(row["formats"]),
                "not loaded" if row["problem"] else _short(row["hooks"]),
            )
            for row in rows
        ],
    )
    for row in rows:
        if row["problem"]:
            typer.echo(f"{row['name']}: {row['problem']}")


def _short(hooks: Iterable[str]) -> str:
    return ", ".join(hook.removeprefix("nestmmu_") for hook in hooks)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(short_help="List plugins and what they provide.")(plugins)
