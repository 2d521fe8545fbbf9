"""Composition: two mappings, one behind the other, made into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from nestmmu.access import Access
from nestmmu.addresses import align_down, low_mask
from nestmmu.mappings import Mapping

if TYPE_CHECKING:
    from nestmmu.formats import RadixFormat


class Composer(Protocol):
    """Makes the shadow's leaf of two mappings, as an architecture (or its kernel) does."""

    def compose(self, inner: Mapping, outer: Mapping, access: Access) -> Mapping:
        """Return the leaf for the shadow, its ``entry`` included.

        :param inner: in the guest hypervisor's table; its output address is in that guest's memory.
        :param outer: in the host's table, of the output address of ``inner``.
        :param access: the access for which it is made.
        """
        ...


def compose_mappings(inner: Mapping, outer: Mapping, access: Access, shifts: tuple[int, ...]) -> Mapping:
    """Return where ``inner`` and then ``outer`` lead, over the largest page that both map and a table can hold.

    Permissions, accessed and dirty are what both have, attributes are the outer's. Dirty is given to a
    store alone: a page mapped for a load has to fault on its first store, or the store goes unseen.

    :param shifts: log2 of the legal page sizes of the shadow.
    :raises ValueError: if ``outer`` does not map the output address of ``inner``, or no size fits.
    """
    if outer.input_address != inner.output_address:
        message = f"{outer.input_address:#x} is not where {inner.input_address:#x} leads"
        raise ValueError(message)
    shift = max(size for size in shifts if size <= min(inner.page_shift, outer.page_shift))
    return Mapping(
        inner.input_address, outer.output_address, shift, inner.permissions & outer.permissions,
        inner.accessed and outer.accessed, inner.dirty and outer.dirty and access is Access.STORE, outer.attributes,
    )  # fmt: skip


class RadixComposer:
    """The composer for any radix format: the ideal, which no kernel's habit bends.

    :param table_format: the shadow's.
    :param widths: index bits of each of its levels.
    """

    def __init__(self, table_format: RadixFormat, widths: tuple[int, ...]) -> None:
        self.format = table_format
        self.depths = {
            shift: depth
            for depth, shift in enumerate(table_format.shifts(widths))
            if table_format.levels[depth].may_leaf
        }
        self.shifts = tuple(self.depths)

    def compose(self, inner: Mapping, outer: Mapping, access: Access) -> Mapping:
        """Return the leaf for the shadow, its ``entry`` included."""
        leaf = compose_mappings(inner, outer, access, self.shifts)
        entry = self.format.leaf_entry(
            self.depths[leaf.page_shift], align_down(leaf.output_address, leaf.page_shift), leaf.permissions,
            accessed=leaf.accessed, dirty=leaf.dirty, attributes=leaf.attributes,
        )  # fmt: skip
        return with_entry(leaf, entry, self.format)


def with_entry(leaf: Mapping, entry: int, table_format: RadixFormat) -> Mapping:
    """Return ``leaf`` as what ``entry`` says of its page."""
    low = low_mask(leaf.page_shift)
    return Mapping(
        leaf.input_address, table_format.output_of(entry) & ~low | leaf.input_address & low, leaf.page_shift,
        table_format.permissions_of(entry), bool(entry & table_format.accessed), bool(entry & table_format.dirty),
        entry & table_format.attributes, None, entry,
    )  # fmt: skip
