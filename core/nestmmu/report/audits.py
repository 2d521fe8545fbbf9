"""An audit, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from nestmmu.audit import Verdict
from nestmmu.nests import size_text
from nestmmu.report.tables import show_table
from nestmmu.report.walks import show_walk

if TYPE_CHECKING:
    from nestmmu.audit_nest import Audit
    from nestmmu.nests import Nest

_LISTED = 10
"""How many places of one problem are listed."""


def show_audit(audit: Audit, nest: Nest, offenders: list[dict[str, Any]]) -> None:
    """Print verdicts by page size, what is wrong with tables, and the first offenders with both derivations.

    :param offenders: the first of them, as ``--json`` has them.
    """
    shifts = np.unique(audit.shadow.page_shift).tolist()
    verdicts = [verdict for verdict in Verdict if verdict is Verdict.SOUND or (audit.verdicts == verdict).any()]
    rows = []
    for shift in shifts:
        counts = np.bincount(audit.verdicts[audit.shadow.page_shift == shift], minlength=len(Verdict))
        rows.append((size_text(shift), *(int(counts[verdict]) for verdict in verdicts)))
    if rows:
        show_table("Shadow entries", ("page", *(verdict.label for verdict in verdicts)), rows)
    else:
        typer.echo("no shadow entries: the image has no shadow table, or nothing is mapped in it")
    for found in audit.findings:
        places = ", ".join(
            f"{address:#x} at {place:#x}"
            for address, place in zip(found.addresses[:_LISTED].tolist(), found.places[:_LISTED].tolist(), strict=True)
        )
        more = f", and {len(found) - _LISTED:,} more" if len(found) > _LISTED else ""
        typer.echo(f"{found.table}: {found.problem}: {places}{more}")
    for row in offenders:
        typer.echo(f"{row['l2_real']:#x}: {row['verdict']}")
        for space in ("shadow", "l2"):
            show_walk(space, row["l2_real"], nest.explain(space, row["l2_real"]))
    if len(audit.offenders) > len(offenders):
        typer.echo(f"{len(audit.offenders) - len(offenders):,} more; --json lists them all")
    if audit.sound:
        typer.echo(f"{len(audit.shadow):,} of {len(audit.shadow):,} entries sound, nothing wrong with the tables")
