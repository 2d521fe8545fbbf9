"""``nestmmu quirks``: where the kernels that plugins model differ from what is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.cli.errors import DebugOption, JsonOption, guarded

if TYPE_CHECKING:
    import typer


@guarded
def quirks(
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """List where the hypervisors that plugins model differ from what is right.

    Each has the kernel function that does it, and the invariant that it breaks, or why it breaks none.

    Example: nestmmu quirks --json
    """
    from nestmmu.plugins import Plugins  # noqa: PLC0415  (lazy: see the package)

    infos = Plugins().quirks()
    if json:
        import attrs  # noqa: PLC0415  (lazy: see the package)

        from nestmmu.cli.output import print_json  # noqa: PLC0415

        print_json({"quirks": [attrs.asdict(info) for info in infos]})
        return
    from nestmmu.report.tables import show_table  # noqa: PLC0415  (lazy: see the package)

    rows = []
    for info in infos:
        breaks = f"none: {info.why_none}" if info.breaks is None else f"{info.breaks.value} {info.breaks.name.lower()}"
        rows.append((info.arch, info.name, info.function, info.what, breaks.replace("_", " ")))
    show_table("Quirks", ("plugin", "quirk", "kernel function", "what it does", "invariant broken"), rows)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(short_help="List where modelled kernels differ from what is right.")(quirks)
