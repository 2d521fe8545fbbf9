"""What came of replayed translations, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nestmmu.cli.output import console
from nestmmu.cli.replay import differing_fields
from nestmmu.report.tables import show_table

if TYPE_CHECKING:
    from nestmmu.cli.replay import FileResult


def show_replay(result: FileResult, most: int) -> None:
    """Print one file: agreement by outcome, and at most ``most`` differences, field by field."""
    rows = [(name, count, result.equal[name]) for name, count in sorted(result.total.items())]
    rows.append(("all", result.total.total(), result.equal.total()))
    show_table(f"{result.path}: {result.arch} on {result.machine}", ("outcome", "recorded", "agree"), rows)
    out = console()
    for one in result.differences[:most]:
        fields = one.recorded.fields.items()
        mode = ", ".join(f"{name} {_text(value)}" for name, value in fields if name not in one.expected)
        label = f"{one.recorded.access.label} of {one.recorded.ea:#x} ({mode})"
        out.print(f"scene {one.scene}, access {one.access}: {label}", markup=False)
        for name, left, right in differing_fields(one):
            out.print(f"  {name}: expected {_text(left)}, got {_text(right)}", markup=False)
    if len(result.differences) > most:
        out.print(f"and {len(result.differences) - most:,} more", markup=False)


def _text(value: Any) -> str:  # noqa: ANN401  (any recorded field)
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:#x}"
    return ", ".join(f"[{address:#x}] = {word:#x}" for address, word in value) or "nothing"
