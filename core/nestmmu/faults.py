"""What a translation ends in when it does not end in an address."""

from __future__ import annotations

import enum

import attrs

from nestmmu.access import Access


class FaultKind(enum.Flag):
    """Why there is no translation. A record of hardware may carry several at once.

    Architectures have names and codes of their own for these; their reflectors translate.
    """

    NOT_PRESENT = enum.auto()
    """An entry on the way is not valid."""
    PERMISSION = enum.auto()
    """The leaf does not permit the access."""
    MALFORMED = enum.auto()
    """An entry or a root has a form that the architecture forbids."""
    UNREADABLE = enum.auto()
    """A table's word could not be read: its address means nothing."""
    ACCESSED_DIRTY = enum.auto()
    """Accessed or dirty would have to be set, and who walks does not set it."""
    INPUT_RANGE = enum.auto()
    """The input address is not one that the table translates."""
    ATTRIBUTE = enum.auto()
    """The page's memory attributes forbid the access."""


@attrs.define(eq=False)
class Fault(Exception):
    """A fault as data: all that is needed to reflect it to whoever owns the table at fault."""

    kind: FaultKind
    stage: str
    """The table at fault, as its architecture calls it."""
    access: Access
    """What was tried on this table: reading an entry of a table that it maps is a load."""
    input_address: int
    """The address that this table was to translate, in bytes."""
    level: int | None = None
    """Depth of the entry at fault, 0 for the root; None before the first."""
    original_access: Access | None = None
    """What the program did; None: the same as ``access``."""
    implicit: bool = False
    """Whether it was met while reading an entry of another table."""
    original_address: int | None = None
    """The program's own address, in bytes; None where ``input_address`` is it."""
    entry_address: int | None = None
    """Where the entry at fault lies, in the memory that holds the table."""
    entry: int | None = None
    """The entry's raw value."""

    def __str__(self) -> str:
        names = "|".join(kind.name.lower().replace("_", " ") for kind in FaultKind if kind in self.kind and kind.name)
        where = "" if self.entry_address is None else f", entry at {self.entry_address:#x}"
        while_reading = " while reading a table" if self.implicit else ""
        return f"{self.stage}: {names} for a {self.access.label} of {self.input_address:#x}{while_reading}{where}"
