"""``nestmmu audit``: whether the shadow table in an image is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestmmu.cli.errors import EXIT_DIFFERENT, DebugOption, JsonOption, guarded
from nestmmu.cli.images import BaseOption, DescribeOption, SetOption, opened_nest
from nestmmu.errors import InputError, NestmmuError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.audit_nest import Audit
    from nestmmu.nests import NestTables

_SHOWN = 3
"""How many offenders a person is shown, each with both derivations."""


def audited(path: Path, tables: NestTables) -> Audit:
    """Audit a nest.

    :raises InputError: if its tables cannot be read as a whole.
    """
    from nestmmu.audit_nest import audit_nest  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.cli.output import progress_bar  # noqa: PLC0415
    from nestmmu.faults import Fault  # noqa: PLC0415

    try:
        with progress_bar("entries") as progress:
            return audit_nest(tables, progress)
    except InputError:
        raise
    except (NestmmuError, Fault) as error:
        raise InputError(
            path, "", f"cannot be audited: {error}", "take the image again, or correct its registers"
        ) from (error)


def offenders(audit: Audit, most: int | None = None) -> list[dict[str, Any]]:
    """Return the entries that are not sound, and what is under each, as ``--json`` prints them.

    :param most: how many of them; None: all.
    """
    from nestmmu.audit import Verdict  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.extents import ACCESSED, DIRTY  # noqa: PLC0415

    chosen = audit.offenders[:most]
    if audit.judge is None or not len(chosen):
        return []
    entries, judge = audit.shadow.take(chosen), audit.judge
    under = judge.under(entries)
    rows: list[dict[str, Any]] = []
    for index, (leaf, verdict) in enumerate(zip(entries.mappings(), audit.verdicts[chosen].tolist(), strict=True)):
        row: dict[str, Any] = {
            "l2_real": leaf.page_start,
            "verdict": Verdict(verdict).label,
            "l0_real": leaf.target_start,
            "page_shift": leaf.page_shift,
            "permissions": leaf.permissions,
            "accessed": leaf.accessed,
            "dirty": leaf.dirty,
            "under": None,
        }
        inner, outer = int(under.inner[index]), int(under.outer[index])
        if inner >= 0:
            row["under"] = {"l1_real": int(under.middle[index]), "l0_real": None}
        if outer >= 0:
            flags = int(judge.inner.flags[inner] & judge.outer.flags[outer])
            row["under"] |= {
                "l0_real": int(under.target[index]),
                "page_shift": int(min(judge.inner.page_shift[inner], judge.outer.page_shift[outer])),
                "permissions": int(judge.inner.permissions[inner] & judge.outer.permissions[outer]),
                "accessed": bool(flags & ACCESSED),
                "dirty": bool(flags & DIRTY),
            }
        rows.append(row)
    return rows


def as_json(image: Path, audit: Audit) -> dict[str, Any]:
    """Return an audit as ``--json`` prints it; addresses are integers, permissions sums of 4 (r), 2 (w) and 1 (x)."""
    return {
        "image": str(image),
        "entries": len(audit.shadow),
        "verdicts": {verdict.label: count for verdict, count in audit.counts().items()},
        "offenders": offenders(audit),
        "tables": [
            {"table": found.table, "problem": found.problem, "address": address, "place": place}
            for found in audit.findings
            for address, place in zip(found.addresses.tolist(), found.places.tolist(), strict=True)
        ],
    }


def write_verdicts(audit: Audit, path: Path) -> None:
    """Write every entry with its verdict, by ``l2_real``, as npz or Parquet."""
    from nestmmu.extent_files import save_columns  # noqa: PLC0415  (lazy: see the package)

    shadow = audit.shadow
    columns: dict[str, NDArray[Any]] = {
        "l2_real": shadow.start,
        "l0_real": shadow.target,
        "page_shift": shadow.page_shift,
        "permissions": shadow.permissions,
        "flags": shadow.flags,
        "verdict": audit.verdicts,
    }
    save_columns(path, "audit/1", columns)


@guarded
def audit(
    image: Annotated[Path, typer.Argument(help="An image of a nest.")],
    output: Annotated[Path | None, typer.Option("--output", help="Write all verdicts here (.npz, .parquet).")] = None,
    describe: DescribeOption = None,
    settings: SetOption = None,
    base: BaseOption = "0",
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Judge every entry of the shadow table in an image by the two tables under it, and look at those too.

    An entry is sound if the guest hypervisor's table and then the host's lead where it does, in pages not smaller,
    permitting no less, and marked as written if it is. Tables are searched for malformed entries, pages used twice,
    and table pages that a guest can write.

    Example: nestmmu audit nest-64k-64k.json --output verdicts.npz
    """
    nest = opened_nest(image, describe, settings, base)
    found = audited(image, nest.tables())
    if output is not None:
        write_verdicts(found, output)
    if json:
        from nestmmu.cli.output import print_json  # noqa: PLC0415  (lazy: see the package)

        print_json(as_json(image, found))
    else:
        from nestmmu.report.audits import show_audit  # noqa: PLC0415  (lazy: see the package)

        show_audit(found, nest, offenders(found, _SHOWN))
    if not found.sound:
        raise typer.Exit(EXIT_DIFFERENT)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        short_help="Judge the shadow table in an image.",
        epilog="Exit status 1 where an entry is unsound, or something is wrong with a table.",
    )(audit)
