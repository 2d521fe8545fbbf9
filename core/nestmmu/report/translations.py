"""Many translations, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from nestmmu.access import permission_text
from nestmmu.nests import size_text
from nestmmu.report.tables import show_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.translations import Translations


def show_translations(addresses: NDArray[Any], found: Translations, shown: int) -> None:
    """Print the first translations, and how many ended in what."""
    rows = []
    for index, address in enumerate(addresses[:shown].tolist()):
        fault = found.fault(index)
        if fault is None:
            permissions = permission_text(int(found.permissions[index]))
            rows.append(
                (f"{address:#x}", f"{int(found.outputs[index]):#x}", size_text(int(found.shifts[index])), permissions)
            )
        else:
            rows.append((f"{address:#x}", str(fault), "", ""))
    total = len(found)
    title = f"The first {shown} of {total:,} translations" if total > shown else "Translations"
    show_table(title, ("address", "leads to", "page", "may"), rows)
    typer.echo(f"{int(found.complete.sum()):,} of {total:,} lead to an address")
    for fault, count in found.fault_counts().items():
        typer.echo(f"{count:,}: {fault}")
