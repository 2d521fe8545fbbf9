"""A nest: the levels in an image, run again; and what came of it, beside what the image recorded."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

import attrs

from nestmmu.access import permission_text
from nestmmu.faults import FaultKind
from nestmmu.memory import TranslatedMemory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from nestmmu.mappings import Mapping
    from nestmmu.radix import RadixTable, Step


@attrs.frozen
class Replayed:
    """One access, as it was recorded and as it was computed: fields by the architecture's names."""

    label: str
    """What the access was, for people."""
    outcome: str
    """How it ended, for counting: ``done``, or the name of an interrupt."""
    expected: dict[str, int]
    computed: dict[str, int]

    @property
    def equal(self) -> bool:
        """Whether the computed fields are those recorded."""
        return self.expected == self.computed


@attrs.frozen
class Explained:
    """One table's part in a translation."""

    table: str
    address: int
    """What was to be translated, in bytes."""
    steps: list[Step]
    """Every entry read, those of the tables under this one included, in the order of reading."""
    result: Mapping | None
    problem: str = ""
    """Why there is no result."""


@attrs.frozen
class NestTables:
    """The tables between the innermost guest's real addresses and the machine's; nothing sets anything in them."""

    inner: RadixTable
    """The guest hypervisor's table for its guest, in its own memory."""
    outer: RadixTable | None
    """The host's table for the guest hypervisor; None where that is the host."""
    shadow: RadixTable | None
    """What the host keeps in place of both; None where there is none."""

    def named(self, space: str) -> RadixTable | TranslatedMemory | None:
        """Return what leads from a level's real addresses to the machine's; None where there is no such table.

        :param space: as of :meth:`Nest.explain`.
        """
        if space == "shadow":
            return self.shadow
        if space == "l1" or self.outer is None:
            return self.outer if space == "l1" else self.inner
        return TranslatedMemory(self.inner.walker.memory, self.inner, "L2 real")


class Nest(Protocol):
    """The levels in one image; an architecture's hook ``nestmmu_nest`` makes it."""

    faults: Counter[str]
    """Faults that a hypervisor handled, by kind."""

    def tables(self) -> NestTables:
        """Return the tables in the image, as they are there.

        They are not looked into: whoever reads them meets what is broken.
        """
        ...

    def table_frames(self) -> NDArray[np.uint64]:
        """Return the numbers of the machine's frames that translating reads, at any level, rising, shape (n,).

        :raises Fault: or NestmmuError, where tables are too broken to follow.
        """
        ...

    def run(self) -> Iterator[Replayed]:
        """Let the innermost guest make the accesses that the image lists, in order."""
        ...

    def kernel_shadow(self) -> list[Mapping]:
        """Return the leaves of the shadow table in the image; empty where it has none."""
        ...

    def rebuilt_shadow(self) -> list[Mapping]:
        """Return the leaves of the shadow table that :meth:`run` built."""
        ...

    def page_sizes(self, leaf: Mapping) -> str:
        """Return the sizes of the pages under a leaf of a shadow, guest hypervisor's over host's: ``64K over 2M``."""
        ...

    def explain(self, space: str, address: int) -> list[Explained]:
        """Return how ``address`` translates, table by table, down to the machine's memory.

        :param space: ``l1`` or ``l2`` for the real addresses of a level, ``shadow`` for the shadow table in the image.
        """
        ...


@attrs.define
class ShadowDifference:
    """One entry that two shadow tables do not have alike."""

    l2_real: int
    kernel: Mapping | None
    rebuilt: Mapping | None
    why: str = ""
    """What the image says that explains it."""

    def describe(self) -> str:
        """Return the difference in one line, for people."""
        sides = [f"{name} {_text(leaf)}" for name, leaf in (("kernel", self.kernel), ("rebuilt", self.rebuilt))]
        return f"{self.l2_real:#x}: " + ", ".join(sides)


def _text(leaf: Mapping | None) -> str:
    if leaf is None:
        return "nothing"
    flags = permission_text(leaf.permissions) + ("R" if leaf.accessed else "-") + ("C" if leaf.dirty else "-")
    return f"{leaf.target_start:#x} {size_text(leaf.page_shift)} {flags}"


def kind_text(kind: FaultKind) -> str:
    """Return the kinds of a fault for people."""
    return " and ".join(one.name.lower().replace("_", " ") for one in FaultKind if one in kind and one.name) or "other"


def size_text(shift: int) -> str:
    """Return a page size for people: ``64K`` for 16."""
    unit, letter = max((u, letter) for u, letter in ((0, ""), (10, "K"), (20, "M"), (30, "G"), (40, "T")) if u <= shift)
    return f"{1 << shift - unit}{letter}"


def _key(leaf: Mapping) -> tuple[int, ...]:
    return (leaf.target_start, leaf.page_shift, leaf.permissions, leaf.accessed, leaf.dirty)


@attrs.define
class ShadowComparison:
    """Two shadow tables, entry by entry."""

    kernel: int
    rebuilt: int
    equal: int
    different: list[ShadowDifference]
    only_kernel: list[ShadowDifference]
    only_rebuilt: list[ShadowDifference]

    @property
    def unexplained(self) -> int:
        """How many entries differ for no reason that the image gives."""
        return sum(not one.why for one in (*self.different, *self.only_kernel, *self.only_rebuilt))


def compare_shadows(
    kernel: Iterable[Mapping], rebuilt: Iterable[Mapping], dropped: Iterable[tuple[int, int, str]] = ()
) -> ShadowComparison:
    """Compare two shadow tables by address, target, page size, permissions, accessed and dirty.

    :param dropped: (first address, bytes, why) of ranges where the first lost entries: an entry that only the second
        has
        there is explained.
    """
    left = {leaf.page_start: leaf for leaf in kernel}
    right = {leaf.page_start: leaf for leaf in rebuilt}
    ranges = list(dropped)
    both = left.keys() & right.keys()
    different = [ShadowDifference(at, left[at], right[at]) for at in sorted(both) if _key(left[at]) != _key(right[at])]
    only_right = [
        ShadowDifference(at, None, right[at], next((why for start, size, why in ranges if 0 <= at - start < size), ""))
        for at in sorted(right.keys() - both)
    ]
    return ShadowComparison(
        len(left), len(right), len(both) - len(different), different,
        [ShadowDifference(at, left[at], None) for at in sorted(left.keys() - both)], only_right,
    )  # fmt: skip
