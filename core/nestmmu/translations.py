"""What many translations come to: arrays, one element an address.

A fault is one code of 16 bits, 0 where there is none: bits 0:3 the kind (1 + its place in
:class:`~nestmmu.faults.FaultKind`; :data:`OUTSIDE` for what is no fault but memory that is not there), bits 4:8 the
level (1 + the depth, 0 for none), bit 9 whether it was met while reading a table, bits 10:15 the stage, by its place
in :attr:`Translations.stages`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from nestmmu.errors import NestmmuError
from nestmmu.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nestmmu.access import Access

_KINDS = tuple(FaultKind)
_NUMBERS = {kind: 1 + place for place, kind in enumerate(_KINDS)}
OUTSIDE = 1 + len(_KINDS)
"""The number of what software meets where a guest's memory is not mapped: OutsideMemoryError on the scalar path."""
IMPLICIT = 1 << 9
LEVEL_SHIFT, STAGE_SHIFT = 4, 10
KIND_MASK = 15
MOST_LEVELS, MOST_STAGES = 31, 64
_LEVEL_MASK = 31


def kind_number(kind: FaultKind) -> int:
    """Return the number of a kind of fault; of several at once, the first's."""
    return next(number for one, number in _NUMBERS.items() if one in kind)


def fault_code(kind: int, stage: int, level: int | None = None, *, implicit: bool = False) -> int:
    """Return the code of a fault.

    :param kind: a :func:`kind_number`, or :data:`OUTSIDE`.
    :param stage: the place of the stage's name.
    """
    depth = 0 if level is None else level + 1
    return kind | depth << LEVEL_SHIFT | (IMPLICIT if implicit else 0) | stage << STAGE_SHIFT


@attrs.frozen
class FaultSummary:
    """What a code says of a fault."""

    kind: FaultKind | None
    """None: the memory itself is not there (OutsideMemoryError on the scalar path)."""
    stage: str
    level: int | None
    implicit: bool

    def __str__(self) -> str:
        name = "outside memory" if self.kind is None else (self.kind.name or "").lower().replace("_", " ")
        level = "" if self.level is None else f", level {self.level}"
        return f"{self.stage}: {name}{level}{', reading a table' if self.implicit else ''}"


def fault_summary(code: int, stages: Sequence[str]) -> FaultSummary:
    """Return what a code that is not 0 says."""
    number, level = code & KIND_MASK, code >> LEVEL_SHIFT & _LEVEL_MASK
    kind = None if number == OUTSIDE else _KINDS[number - 1]
    return FaultSummary(kind, stages[code >> STAGE_SHIFT], level - 1 if level else None, bool(code & IMPLICIT))


@attrs.frozen(eq=False)
class Translations:
    """Where accesses to many addresses end, in the order in which the addresses were given."""

    access: Access | None
    """What was tried; None: nothing, the mappings were looked up."""
    outputs: NDArray[np.uint64]
    """Output addresses, in bytes; of a fault, the address that the table at fault was to translate."""
    shifts: NDArray[np.uint8]
    """Log2 of the bytes around the address that the same translation holds for; 0 of a fault."""
    permissions: NDArray[np.uint8]
    """What all tables on the way permit; 0 of a fault."""
    faults: NDArray[np.uint16]
    """Codes of faults, 0 for none (see the module)."""
    stages: tuple[str, ...]
    """The names that the codes refer to: of tables, as their walkers call them, and of memories."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.outputs)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Which ended in an address."""
        complete: NDArray[np.bool_] = self.faults == 0
        return complete

    def fault(self, index: int) -> FaultSummary | None:
        """Return what became of one, or None where it ended in an address."""
        code = int(self.faults[index])
        return fault_summary(code, self.stages) if code else None

    def fault_counts(self) -> dict[FaultSummary, int]:
        """Return how often each fault was met, by code."""
        codes, counts = np.unique(self.faults, return_counts=True)
        pairs = zip(codes.tolist(), counts.tolist(), strict=True)
        return {fault_summary(code, self.stages): count for code, count in pairs if code}


@attrs.define(eq=False)
class Lanes:
    """Translations under way: each stage translates the addresses in place, those without a fault."""

    addresses: NDArray[np.uint64]
    shifts: NDArray[np.uint8]
    permissions: NDArray[np.uint8]
    faults: NDArray[np.uint16]

    @classmethod
    def begin(cls, addresses: NDArray[np.uint64]) -> Lanes:
        """Return lanes of these addresses, which are written over; nothing is restricted yet."""
        count = len(addresses)
        shifts, permissions = np.full(count, 64, np.uint8), np.full(count, 7, np.uint8)
        return cls(addresses, shifts, permissions, np.zeros(count, np.uint16))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.addresses)

    def part(self, chosen: NDArray[np.intp] | slice) -> Lanes:
        """Return some of the lanes: copies for indices, views for a slice."""
        return Lanes(self.addresses[chosen], self.shifts[chosen], self.permissions[chosen], self.faults[chosen])

    def put(self, chosen: NDArray[np.intp], lanes: Lanes) -> None:
        """Write back lanes that :meth:`part` gave."""
        self.addresses[chosen], self.shifts[chosen] = lanes.addresses, lanes.shifts
        self.permissions[chosen], self.faults[chosen] = lanes.permissions, lanes.faults

    def fail(self, chosen: NDArray[np.intp], codes: NDArray[np.uint16], addresses: NDArray[np.uint64]) -> None:
        """End some lanes in faults, about these addresses."""
        self.faults[chosen], self.addresses[chosen] = codes, addresses
        self.shifts[chosen] = self.permissions[chosen] = 0


class StageNames:
    """The names of stages, in the order in which they were met."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the place of a name.

        :raises NestmmuError: if there are more than a code can tell apart.
        """
        found = self._numbers.setdefault(name, len(self._numbers))
        if found >= MOST_STAGES:
            message = f"a nest of more than {MOST_STAGES} differently named tables cannot be translated at once"
            raise NestmmuError(message)
        return found

    def names(self) -> tuple[str, ...]:
        """Return the names by their places."""
        return tuple(self._numbers)
