"""The shadow's leaf, as ``__kvmhv_nested_page_fault`` makes it of L1's leaf and of L0's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.addresses import low_mask
from nestmmu.compose import with_entry
from nestmmu.mappings import Mapping
from nestmmu_ppc64_radix.formats import CHANGE, EAA_EXEC, EAA_READ, EAA_WRITE, POWER9, REFERENCE
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from collections.abc import Iterable

_EAA = EAA_READ | EAA_WRITE | EAA_EXEC


class KvmComposer:
    """Composes L2→L1 with L1→L0. The base is L0's entry: its address, ATT and software bits reach the shadow.

    :param shifts: log2 of the page sizes that the shadow can hold.
    """

    def __init__(self, shifts: Iterable[int], quirks: Quirk = Quirk.LINUX_6_1) -> None:
        self.shifts = tuple(shifts)
        self.quirks = quirks

    def shift(self, inner_shift: int, outer_shift: int) -> int:
        """Return the page size of the shadow for one of L1 and one of L0, all log2."""
        if outer_shift <= inner_shift:
            return outer_shift
        if Quirk.BASE_PAGES_UNDER_GIGANTIC in self.quirks:
            return min(self.shifts)
        return max(size for size in self.shifts if size <= inner_shift)

    def compose(self, inner: Mapping, outer: Mapping, access: Access) -> Mapping:
        """Return the leaf for the shadow, its ``entry`` included.

        R is kept where L1 has it, C where L1 has it and the access is a store.
        """
        if inner.entry is None or outer.entry is None:
            message = "composition needs the entries of both leaves"
            raise TypeError(message)
        given = inner.entry & _EAA
        if Quirk.WRITE_WITHOUT_READ not in self.quirks and given & EAA_WRITE:
            given |= EAA_READ
        entry = outer.entry & ~(_EAA & ~given)
        if Quirk.WRITE_WITHOUT_READ not in self.quirks and given & EAA_READ and outer.entry & EAA_WRITE:
            entry |= EAA_READ
        if not inner.entry & REFERENCE:
            entry &= ~REFERENCE
        if not inner.entry & CHANGE or access is not Access.STORE:
            entry &= ~CHANGE
        shift = self.shift(inner.page_shift, outer.page_shift)
        if shift < outer.page_shift:
            entry |= inner.output_address & (low_mask(outer.page_shift) ^ low_mask(shift))
        leaf = Mapping(inner.input_address, outer.output_address, shift, 0, accessed=False, dirty=False)
        return with_entry(leaf, entry, POWER9)
