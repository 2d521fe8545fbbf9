"""The shadow's leaf: L1's G-stage behind L0's, so that a hart which knows one G-stage does what two would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import WRITE
from nestmmu.addresses import align_down
from nestmmu.compose import compose_mappings, with_entry
from nestmmu_riscv.formats import RSW, RSW_SHIFT, R

if TYPE_CHECKING:
    from nestmmu.access import Access
    from nestmmu.formats import RadixFormat
    from nestmmu.mappings import Mapping

SPANS = (12, 21, 30, 64)
"""Log2 of the bytes of L1's page, at most, by what the shadow's leaf has in RSW."""


def span_of(entry: int) -> int:
    """Return log2 of the bytes around a leaf of a shadow within which L1's page lies that it was made of."""
    return SPANS[(entry & RSW) >> RSW_SHIFT]


class RiscvComposer:
    """Composes L1's leaf with L0's.

    - Permissions are what both have. On harts that set D by themselves (Svadu) WRITE only where both are dirty: such a
      hart would else do so in the shadow alone, and no one would know that the page was written.
    - PBMT is L1's where that is not 0, else L0's: each stage overrides the memory type of the one behind it.
    - RSW says how large L1's page was: an HFENCE.GVMA names an address, and drops all that was made of its page.

    :param table_format: the shadow's.
    :param widths: index bits of each of its levels.
    :param svadu: whether harts set D by themselves.
    """

    def __init__(self, table_format: RadixFormat, widths: tuple[int, ...], *, svadu: bool = True) -> None:
        self.format = table_format
        self.svadu = svadu
        self.depths = {shift: depth for depth, shift in enumerate(table_format.shifts(widths))}

    def compose(self, inner: Mapping, outer: Mapping, access: Access) -> Mapping:
        """Return the leaf for the shadow, its ``entry`` included."""
        leaf = compose_mappings(inner, outer, access, tuple(self.depths))
        writable = (inner.dirty and outer.dirty) or not self.svadu
        permissions = leaf.permissions if writable else leaf.permissions & ~WRITE
        dirty = leaf.dirty and (bool(permissions & WRITE) or not self.svadu)
        entry = self.format.leaf_entry(
            self.depths[leaf.page_shift], align_down(leaf.output_address, leaf.page_shift),
            permissions, accessed=leaf.accessed, dirty=dirty, attributes=inner.attributes or outer.attributes,
        )  # fmt: skip
        if not permissions:
            entry |= R  # without U: a leaf that permits nothing, where no right at all would make it a pointer
        size = next(number for number, span in enumerate(SPANS) if inner.page_shift <= span)
        return with_entry(leaf, entry | size << RSW_SHIFT, self.format)
