"""What a radix-shaped table format is, as data.

A format says where the fields of an entry lie and which entries mean what. Nothing here walks:
:mod:`nestmmu.radix` does, for every format alike.
"""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING

import attrs

from nestmmu.access import WRITE, permission_text
from nestmmu.addresses import ADDRESS_BITS, low_mask
from nestmmu.errors import NestmmuError

if TYPE_CHECKING:
    from nestmmu.memory import ByteOrder


class AccessedDirty(enum.Enum):
    """What a walker does with accessed and dirty. It is separate for each table on the way."""

    UPDATE = "update"
    """Set them in the entry, as hardware does."""
    FAULT = "fault"
    """Fault where one would have to be set: the table's owner sets them."""
    IGNORE = "ignore"
    """Leave them alone: a software walk."""


@attrs.frozen
class Match:
    """A predicate on entries: the bits of ``mask`` have the value ``value``."""

    mask: int
    value: int

    def __call__(self, entry: int) -> bool:
        """Tell whether ``entry`` matches."""
        return entry & self.mask == self.value


@attrs.frozen
class Unlike(Match):
    """A predicate on entries: the bits of ``mask`` have any value but ``value``."""

    def __call__(self, entry: int) -> bool:
        """Tell whether ``entry`` matches."""
        return entry & self.mask != self.value


ALWAYS = Match(0, 0)
NEVER = Match(0, 1)


class InputRule(enum.Enum):
    """What the address bits above those that a tree translates have to be."""

    ANY = "any"
    """They are not looked at."""
    ZERO = "zero"
    SIGN = "sign"
    """Copies of the highest bit that is translated."""


@attrs.frozen
class Level:
    """One level of a tree of tables."""

    name: str
    """As the architecture's manual, or its kernel, calls the level."""
    index_bits: tuple[int, ...]
    """The widths that a table of this level may have, in bits of index."""
    leaf: Match
    """Which valid entries are leaves; the others lead to the next level."""
    may_leaf: bool = True
    """Whether a leaf is legal here; where it is not, it is malformed."""
    may_table: bool = True
    """Whether an entry may lead on; in the last level it may not."""
    reserved: tuple[Match, ...] = ()
    """A valid entry that matches any of these is malformed at this level."""
    groups: tuple[tuple[Match, int], ...] = ()
    """Leaves that each stand for an aligned group of entries: (which they are, log2 of the entries in the group).

    The match says what the address bits below the group's size are; they are no part of the address. Walks read such
    leaves; what edits tables makes none.
    """

    def group(self, entry: int) -> int:
        """Return log2 of how many entries the leaf ``entry`` stands for."""
        for match, count_lg2 in self.groups:
            if match(entry):
                return count_lg2
        return 0


@attrs.frozen
class RadixFormat:
    """A tree of tables: its geometry, and the fields of its entries.

    All masks are in place, on the entry's integer value. Where an address is kept shifted,
    ``address_shift`` is how far left it must go.
    """

    name: str
    input_bits: int
    """Address bits that the tree translates; of what is above, :attr:`input_rule` says more."""
    levels: tuple[Level, ...]
    """Root first."""
    entry_bytes: int
    byteorder: ByteOrder
    valid: Match
    output_mask: int
    """Of a leaf: the output address."""
    table_mask: int
    """Of a directory: the address of the next table."""
    permissions: tuple[tuple[Match, int], ...]
    """Each match adds its permissions (:mod:`nestmmu.access`)."""
    accessed: int = 0
    """The accessed bit of a leaf; 0 where the format has none."""
    dirty: int = 0
    """The dirty bit of a leaf; 0 where the format has none."""
    attributes: int = 0
    """Bits of a leaf that are memory attributes."""
    width_mask: int = 0
    """Of a directory: the index bits of the next table, from bit 0; 0 where geometry is fixed."""
    address_shift: int = 0
    reserved: tuple[Match, ...] = ()
    """A valid entry that matches any of these is malformed."""
    strict_table: bool = True
    """Whether a table that is not aligned to its size is malformed; else the low bits are dropped."""
    strict_output: bool = True
    """Whether a leaf that is not aligned to its page is malformed; else the low bits are dropped."""
    late_geometry: bool = False
    """Whether an illegal width is found only after the address of the entry has been translated."""
    input_rule: InputRule = InputRule.ANY
    """What the address bits above :attr:`input_bits` have to be; a walk of another address is INPUT_RANGE."""

    @functools.cached_property
    def plain(self) -> bool:
        """Whether every rule about entries is a :class:`Match` or :class:`Unlike` itself: what arrays can read."""
        return all(type(rule) in {Match, Unlike} for rule in self._rules())

    @functools.cached_property
    def simple(self) -> bool:
        """Whether a leaf is told by one mask and one value a level, and by bits that it must not have at any.

        No leaf stands for a group then.
        """
        extras = any(level.groups or level.reserved for level in self.levels)
        return not extras and all(type(rule) is Match for rule in self._rules())

    def _rules(self) -> list[Match]:
        rules = [*self.reserved, self.valid, *(rule for rule, _ in self.permissions)]
        for level in self.levels:
            rules += [level.leaf, *level.reserved, *(rule for rule, _ in level.groups)]
        return rules

    def canonical(self, address: int) -> int:
        """Return ``address`` with the bits above :attr:`input_bits` as :attr:`input_rule` wants them."""
        if self.input_rule is InputRule.ANY:
            return address
        low = address & low_mask(self.input_bits)
        if self.input_rule is InputRule.ZERO or not low >> self.input_bits - 1:
            return low
        return low | low_mask(ADDRESS_BITS) & ~low_mask(self.input_bits)

    @functools.cached_property
    def permission_mask(self) -> int:
        """All bits that :attr:`permissions` look at."""
        return functools.reduce(lambda mask, rule: mask | rule[0].mask, self.permissions, 0)

    @functools.cached_property
    def _permission_memo(self) -> dict[int, int]:
        return {}

    def permissions_of(self, entry: int) -> int:
        """Return what the leaf ``entry`` permits (:mod:`nestmmu.access`)."""
        bits = entry & self.permission_mask
        found = self._permission_memo.get(bits)
        if found is None:
            found = 0
            for match, granted in self.permissions:
                if match(bits):
                    found |= granted
            self._permission_memo[bits] = found
        return found

    def may_write(self, entry: int) -> bool:
        """Tell whether the leaf ``entry`` permits stores."""
        return bool(self.permissions_of(entry) & WRITE)

    def output_of(self, entry: int) -> int:
        """Return the output address in the leaf ``entry``, in bytes, not aligned to the page."""
        return (entry & self.output_mask) << self.address_shift

    def table_of(self, entry: int) -> int:
        """Return the address of the table that the directory ``entry`` leads to, in bytes."""
        return (entry & self.table_mask) << self.address_shift

    def shifts(self, widths: tuple[int, ...]) -> tuple[int, ...]:
        """Return the page shift of a leaf at each level of a tree whose tables have these index bits."""
        result = []
        remaining = self.input_bits
        for bits in widths:
            remaining -= bits
            result.append(remaining)
        return tuple(result)

    def widths(self, base_shift: int) -> tuple[int, ...]:
        """Return the index bits of each level of the tree whose last level maps pages of 2**base_shift bytes.

        :raises NestmmuError: if the format has no such tree.
        """
        partial: list[tuple[int, ...]] = [()]
        for level in self.levels:
            partial = [(*head, bits) for head in partial for bits in level.index_bits]
        for candidate in partial:
            if self.input_bits - sum(candidate) == base_shift:
                return candidate
        message = f"{self.name} has no tree of pages of 2**{base_shift} bytes"
        raise NestmmuError(message)

    def leaf_entry(
        self, depth: int, output: int, permissions: int, *, accessed: bool, dirty: bool, attributes: int = 0
    ) -> int:
        """Return the entry of a leaf at level ``depth`` (0 is the root).

        :param output: the page's address, in bytes, aligned to the page.
        :param permissions: a sum of :mod:`nestmmu.access` permissions; those that the format cannot
            express apart from others are granted only with those.
        """
        entry = self.valid.value | self.levels[depth].leaf.value | attributes & self.attributes
        entry |= output >> self.address_shift & self.output_mask
        return self.with_flags(entry, permissions, accessed=accessed, dirty=dirty)

    def with_flags(self, entry: int, permissions: int, *, accessed: bool, dirty: bool) -> int:
        """Return ``entry`` with permissions, accessed and dirty replaced."""
        entry &= ~(self.permission_mask | self.accessed | self.dirty)
        for match, granted in self.permissions:
            entry |= match.value if granted & permissions == granted else match.mask & ~match.value
        return entry | (self.accessed if accessed else 0) | (self.dirty if dirty else 0)

    def table_entry(self, address: int, index_bits: int) -> int:
        """Return the directory entry that leads to a table at ``address`` with 2**index_bits entries."""
        entry = self.valid.value | address >> self.address_shift & self.table_mask
        return entry | index_bits & self.width_mask

    def table_bytes(self, index_bits: int) -> int:
        """Return the size in bytes of a table with 2**index_bits entries."""
        return self.entry_bytes << index_bits

    def describe(self, entry: int, depth: int) -> str:
        """Return what ``entry``, met at level ``depth``, says, for people."""
        if not self.valid(entry):
            return "not valid"
        level = self.levels[depth]
        if not level.leaf(entry):
            width = f", {entry & self.width_mask} bits" if self.width_mask else ""
            return f"table at {self.table_of(entry):#x}{width}"
        flags = permission_text(self.permissions_of(entry))
        flags += " A" if entry & self.accessed else " -" if self.accessed else ""
        flags += "D" if entry & self.dirty else "-" if self.dirty else ""
        attributes = f" attributes {entry & self.attributes:#x}" if entry & self.attributes else ""
        group = level.group(entry)
        what = f"one of {1 << group} pages" if group else "page"
        return f"{what} at {self.output_of(entry):#x} {flags}{attributes}"

    def next_bits(self, entry: int, depth: int) -> int:
        """Return the index bits of the table that the directory ``entry`` of level ``depth`` leads to."""
        if self.width_mask:
            return entry & self.width_mask
        return self.levels[depth + 1].index_bits[0] if depth + 1 < len(self.levels) else low_mask(6)
