"""What a translation ends in when it does end in an address."""

from __future__ import annotations

import attrs

from nestmmu.addresses import align_down, low_mask


@attrs.frozen(slots=True)
class Mapping:
    """One page of one table: where it is, where it leads, and what may be done there."""

    input_address: int
    """The translated address, in bytes (not rounded to the page)."""
    output_address: int
    """Where ``input_address`` leads, in bytes."""
    page_shift: int
    """Log2 of the page's size in bytes."""
    permissions: int
    """A sum of :data:`~nestmmu.access.READ`, ``WRITE`` and ``EXECUTE``."""
    accessed: bool
    dirty: bool
    attributes: int = 0
    """The entry's attribute bits (memory type and the like), in place."""
    entry_address: int | None = None
    """Where the entry lies, in the memory that holds the table; None for what no table says."""
    entry: int | None = None
    """The entry's raw value."""

    @property
    def page_start(self) -> int:
        """The first input address of the page, in bytes."""
        return align_down(self.input_address, self.page_shift)

    @property
    def target_start(self) -> int:
        """The output address that the page's first byte has."""
        return self.output_address - (self.input_address & low_mask(self.page_shift))
