"""What an architecture declares of itself: from its manual, in numbers, not from the plugin's own tables of them."""

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Mapping

import attrs

from nestmmu.errors import NestmmuError
from nestmmu.formats import AccessedDirty, InputRule
from nestmmu.memory import ByteOrder


class Scope(enum.Enum):
    """What a guest hypervisor can invalidate at once of its guest's translations."""

    PAGE = "page"
    RANGE = "range"
    TAG = "tag"
    """All of one guest."""
    ALL = "all"
    """All of all its guests."""


class Feature(enum.Enum):
    """What a test may need. An architecture without it says why in :attr:`Capabilities.unsupported`."""

    LEVELS = "levels"
    """Tables are a tree."""
    ACCESSED_DIRTY = "accessed and dirty"
    TWO_STAGES = "two stages"
    """Hardware (or the recursive truth) translates by one table, and its output and its words by another."""
    COMPOSITION = "composition"
    NEST = "nest"
    """A hypervisor shadows the tables of its guest's guests."""
    BATCH = "batch"
    """Many translations at once."""


@attrs.frozen
class LevelShape:
    """One level of a tree."""

    name: str
    shift: int
    """Log2 of the bytes that one entry covers."""
    index_bits: int
    leaf: bool = True
    """Whether a leaf is legal here."""


@attrs.frozen
class Capabilities:
    """The numbers of an architecture's tables, and what it does not do."""

    name: str
    input_bits: int
    """Address bits that a table translates."""
    output_bits: int
    """Address bits that a table can lead to."""
    page_shifts: tuple[int, ...]
    """Log2 of the bytes of every page size of a table."""
    rights: tuple[int, ...]
    """Every set of permissions (sums of :mod:`nestmmu.access`) that a leaf can have."""
    byteorder: ByteOrder
    entry_bytes: int
    trees: tuple[tuple[LevelShape, ...], ...] = ()
    """Each tree that the format has, root level first; empty where tables are no trees."""
    policies: tuple[AccessedDirty, ...] = (AccessedDirty.IGNORE,)
    """What the hardware can be told to do with accessed and dirty; IGNORE: a walk of software."""
    above_input: InputRule = InputRule.ANY
    scopes: tuple[Scope, ...] = ()
    nest_shifts: tuple[int, ...] = ()
    """Log2 of the page sizes with which the nest's two hypervisors may map, smallest first."""
    entry_shifts: tuple[int, ...] = ()
    """Log2 of the page sizes that one entry of the guest hypervisor's can have: a larger page of :attr:`nest_shifts` is
    written as many. Empty: one entry can have each of those."""
    shadow_shifts: tuple[int, ...] = ()
    """Log2 of the page sizes of a shadow; a composer gets leaves of these, and makes some."""
    attributes: tuple[int, ...] = ()
    """Memory types and the like that a leaf can have beside address, rights and flags, each as bits in place."""
    whole_pages: bool = False
    """Whether a page of the guest hypervisor's is shadowed whole or not at all, so that the host's has to be as large;
    else the shadow's is the smaller of the two."""
    host_sets_flags: bool = False
    """Whether the host sets accessed and dirty in the guest hypervisor's entries; else it reflects what lacks them."""
    writable_if_dirty: bool = False
    """Whether a shadow permits stores only where both pages under it are dirty: else hardware would set dirty in the
    shadow, and no one saw it."""
    most_faults: int = 5
    """How often one access of a nested guest may fault before it has ended."""
    same_record: Mapping[str, str] = attrs.Factory(dict)
    """Kinds of fault (names of FaultKind) that the hardware's record shows as another kind."""
    unsupported: Mapping[Feature, str] = attrs.Factory(dict)
    """What the architecture does not have, each with the reason that a skipped test gives."""
    expected_failures: Mapping[str, str] = attrs.Factory(dict)
    """Tests that must fail, by ``topic.test``, each with its reason; one that passes is a failure."""

    def __attrs_post_init__(self) -> None:
        """Refuse a declaration that cannot be.

        :raises NestmmuError: naming the field.
        """
        for tree in self.trees:
            remaining = self.input_bits
            for level in tree:
                remaining -= level.index_bits
                if remaining != level.shift:
                    message = f"{self.name}: level {level.name} covers 2**{remaining} bytes an entry, not {level.shift}"
                    raise NestmmuError(message)
        leaves = {level.shift for tree in self.trees for level in tree if level.leaf}
        if self.trees and leaves != set(self.page_shifts):
            message = f"{self.name}: page_shifts {self.page_shifts} are not those of the levels: {sorted(leaves)}"
            raise NestmmuError(message)
        missing = {
            Feature.LEVELS: not self.trees,
            Feature.NEST: not self.nest_shifts or not self.scopes,
            Feature.COMPOSITION: not self.shadow_shifts,
        }
        for feature, absent in missing.items():
            if absent and feature not in self.unsupported:
                message = f"{self.name}: declares no {feature.value}, and `unsupported` does not say why"
                raise NestmmuError(message)
        if not all(self.unsupported.values()) or not all(self.expected_failures.values()):
            message = f"{self.name}: what is unsupported or expected to fail needs a reason"
            raise NestmmuError(message)

    def shadow_shift(self, inner: int, outer: int) -> int:
        """Return log2 of the bytes of the shadow's page for one of the guest hypervisor's behind one of the host's."""
        entries = self.entry_shifts or self.nest_shifts
        return min(max(shift for shift in entries if shift <= inner), outer)

    @property
    def attribute_mask(self) -> int:
        """All bits of :attr:`attributes`."""
        return functools.reduce(operator.or_, self.attributes, 0)

    @property
    def largest_shift(self) -> int:
        """Log2 of the bytes of the largest page."""
        return max(self.page_shifts)
