"""How a translation ended, in a form that two readers of a table can be compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nestmmu.access import permission_text
from nestmmu.faults import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.mappings import Mapping


@attrs.frozen
class Reached:
    """A translation that ended in an address."""

    address: int
    """In bytes."""
    shift: int
    """Log2 of the bytes of the page."""
    rights: int
    accessed: bool
    dirty: bool
    entry_address: int | None = None
    entry: int | None = None

    def __str__(self) -> str:
        flags = ("A" if self.accessed else "-") + ("D" if self.dirty else "-")
        where = "" if self.entry_address is None else f" by {self.entry or 0:#x} at {self.entry_address:#x}"
        return f"{self.address:#x} (2**{self.shift} bytes, {permission_text(self.rights)} {flags}{where})"


@attrs.frozen
class Refused:
    """A translation that ended in a fault."""

    kind: FaultKind
    level: int | None = None
    entry_address: int | None = None
    entry: int | None = None

    def __str__(self) -> str:
        where = "" if self.entry_address is None else f", entry at {self.entry_address:#x}"
        return f"a fault ({self.kind.name}, level {self.level}{where})"


def reached(mapping: Mapping) -> Reached:
    """Return a mapping as an end."""
    return Reached(
        mapping.output_address, mapping.page_shift, mapping.permissions, mapping.accessed, mapping.dirty,
        mapping.entry_address, mapping.entry,
    )  # fmt: skip


def ended(translate: Callable[[], Mapping]) -> Reached | Refused:
    """Translate, and return how it ended."""
    try:
        return reached(translate())
    except Fault as fault:
        return Refused(fault.kind, fault.level, fault.entry_address, fault.entry)
