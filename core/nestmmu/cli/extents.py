"""``nestmmu extents``: a whole address space, as ranges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestmmu.cli.errors import DebugOption, JsonOption, address_argument, guarded
from nestmmu.cli.images import BaseOption, DescribeOption, SetOption, opened_nest
from nestmmu.cli.spaces import EXTENT_FILES, Space, extent_json, extents_of_image

if TYPE_CHECKING:
    from nestmmu.extents import Extents

_SHOWN = 20
"""How many extents a person is shown."""


def read_space(
    source: Path, space: Space, describe: Path | None, settings: list[str] | None, base: str
) -> tuple[Extents, int]:
    """Return a space of an image, or extents from a file, and how many malformed entries were met.

    :raises InputError: if it cannot be read.
    """
    if source.suffix in EXTENT_FILES:
        from nestmmu.extent_files import load_extents  # noqa: PLC0415  (lazy: see the package)

        return load_extents(source), 0
    return extents_of_image(source, opened_nest(source, describe, settings, base).tables(), space)


def as_json(source: Path, space: Space, extents: Extents, malformed: int) -> dict[str, Any]:
    """Return extents as ``--json`` prints them."""
    return {
        "source": str(source),
        "space": None if source.suffix in EXTENT_FILES else space.value,
        "malformed": malformed,
        "bytes": extents.bytes_mapped,
        "extents": list(extent_json(extents)),
    }


@guarded
def extents(
    source: Annotated[Path, typer.Argument(help="An image, or extents in a file (.npz, .parquet).")],
    space: Annotated[
        Space, typer.Option("--space", help="Of an image: L1's, L2's through both tables, or L2's by the shadow.")
    ] = Space.L2,
    leading_to: Annotated[
        str | None, typer.Option("--leading-to", metavar="ADDRESS", help="Only what leads to this address.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write them here (.npz, .parquet).")] = None,
    describe: DescribeOption = None,
    settings: SetOption = None,
    base: BaseOption = "0",
    *,
    coalesce: Annotated[bool, typer.Option("--coalesce", help="Join neighbours that go on alike.")] = False,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Extract a whole address space: every range that is mapped, where it leads, and what may be done there.

    L2's is L1's table composed with L0's, all at once: what a shadow table of the whole guest would be.

    Example: nestmmu extents nest-64k-64k.json --space l2 --coalesce --output ideal.npz
    """
    from nestmmu import extent_algebra  # noqa: PLC0415  (lazy: see the package)

    found, malformed = read_space(source, space, describe, settings, base)
    if leading_to is not None:
        found = extent_algebra.invert(found).leading_to(address_argument(leading_to))
    if coalesce:
        found = extent_algebra.coalesce(found)
    if output is not None:
        from nestmmu.extent_files import save_extents  # noqa: PLC0415  (lazy: see the package)

        save_extents(output, found)
    if json:
        from nestmmu.cli.output import print_json  # noqa: PLC0415  (lazy: see the package)

        print_json(as_json(source, space, found, malformed))
    else:
        from nestmmu.report.spaces import show_extents  # noqa: PLC0415  (lazy: see the package)

        show_extents(found, malformed, _SHOWN)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        short_help="Extract a whole address space.",
        epilog="Malformed entries map nothing, and are counted; `nestmmu audit` says where they are.",
    )(extents)
