"""``nestmmu diff``: two address spaces, compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import attrs
import typer

from nestmmu.cli.errors import EXIT_DIFFERENT, DebugOption, JsonOption, guarded
from nestmmu.cli.images import BaseOption, DescribeOption, SetOption, opened_nest
from nestmmu.cli.spaces import EXTENT_FILES, Space, extent_json, extents_of_image

if TYPE_CHECKING:
    from nestmmu.extents import Extents
    from nestmmu.nests import NestTables

_SHOWN = 5
"""How many ranges of each kind a person is shown."""


@attrs.frozen
class SpaceDifference:
    """How two spaces differ; ranges are joined where they go on alike."""

    space: str
    only_a: Extents
    only_b: Extents
    changed: tuple[Extents, Extents]
    """What both map, and not alike: piece by piece, of the one and of the other."""

    @property
    def equal(self) -> bool:
        """Whether they are one."""
        return not (len(self.only_a) or len(self.only_b) or len(self.changed[0]))

    def as_json(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        pairs = zip(*(extent_json(one) for one in self.changed), strict=True)
        return {
            "space": self.space,
            "equal": self.equal,
            "only_a": list(extent_json(self.only_a)),
            "only_b": list(extent_json(self.only_b)),
            "changed": [{"a": one, "b": other} for one, other in pairs],
        }


def compare(name: str, one: Extents, other: Extents) -> SpaceDifference:
    """Compare two spaces."""
    from nestmmu.extent_algebra import coalesce, difference, differing  # noqa: PLC0415  (lazy: see the package)

    one, other = coalesce(one), coalesce(other)
    return SpaceDifference(
        name, coalesce(difference(one, other)), coalesce(difference(other, one)), differing(one, other)
    )


class _Side:
    """One of the two that are compared: the levels of an image, or extents of a file."""

    def __init__(self, path: Path, describe: Path | None, settings: list[str] | None, base: str) -> None:
        self.path = path
        self.tables: NestTables | None = None
        self._extents: Extents | None = None
        if path.suffix in EXTENT_FILES:
            from nestmmu.extent_files import load_extents  # noqa: PLC0415  (lazy: see the package)

            self._extents = load_extents(path)
        else:
            self.tables = opened_nest(path, describe, settings, base).tables()

    def has(self, space: Space) -> bool:
        """Tell whether it has a space; a file of extents may be any."""
        return self.tables is None or self.tables.named(space.value) is not None

    def extents(self, space: Space) -> Extents:
        """Return a space."""
        if self._extents is not None or self.tables is None:
            return cast("Extents", self._extents)
        return extents_of_image(self.path, self.tables, space)[0]


@guarded
def diff(
    a: Annotated[Path, typer.Argument(help="An image, or extents in a file (.npz, .parquet).")],
    b: Annotated[Path, typer.Argument(help="Another.")],
    space: Annotated[
        Space | None, typer.Option("--space", help="Of images: only this one; without, each that both have.")
    ] = None,
    describe: DescribeOption = None,
    settings: SetOption = None,
    base: BaseOption = "0",
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Compare the address spaces of two images, or two files of extents, or one of each.

    What both map is the same only if it leads to one place, with the same permissions, flags and page size. Options
    that describe memory describe both.

    Example: nestmmu diff before.json after.json --space shadow
    """
    sides = [_Side(path, describe, settings, base) for path in (a, b)]
    of_files = any(side.tables is None for side in sides)
    wanted = [space] if space is not None else [Space.L2] if of_files else list(Space)
    found = []
    for one in wanted:
        if space is not None or all(side.has(one) for side in sides):
            name = "extents" if all(side.tables is None for side in sides) else one.value
            found.append(compare(name, *(side.extents(one) for side in sides)))
    equal = all(each.equal for each in found)
    if json:
        from nestmmu.cli.output import print_json  # noqa: PLC0415  (lazy: see the package)

        print_json({"a": str(a), "b": str(b), "equal": equal, "spaces": [each.as_json() for each in found]})
    else:
        from nestmmu.report.spaces import show_difference  # noqa: PLC0415  (lazy: see the package)

        for each in found:
            show_difference(each, _SHOWN)
    if not equal:
        raise typer.Exit(EXIT_DIFFERENT)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        short_help="Compare two address spaces.",
        epilog="Exit status 1 where they differ.",
    )(diff)
