"""What a shadow table has to be able to do, whatever its shape: a tree, a hash table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Mapping as Dictionary

    from nestmmu.access import Access
    from nestmmu.edit import Insertion, Place
    from nestmmu.invalidation import Flush
    from nestmmu.mappings import Mapping


class LeafTable(Protocol):
    """A table as a whole."""

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[Mapping]:
        """Yield every leaf that maps anything in [``start``, ``end``)."""
        ...


class GuestTable(Protocol):
    """A table that a guest hypervisor keeps in its own memory, as its host reads it."""

    def lookup(self, address: int, access: Access = ...) -> Mapping:
        """Return the mapping of ``address``, whatever it permits; nothing is updated.

        :raises Fault: if there is none.
        """
        ...


class ShadowTable(Protocol):
    """A table that a hypervisor keeps for its guest's guest.

    :class:`~nestmmu.edit.TableEditor` is one. An address is whatever the table translates: of the nested guest's
    memory, or of its virtual address space where the guest hypervisor's table translates that.
    """

    removed: Callable[[Mapping], None] | None
    heard: Callable[[], bool] | None

    @property
    def table(self) -> LeafTable:
        """The table."""
        ...

    @property
    def depths(self) -> Dictionary[int, int]:
        """Where leaves go, as :meth:`prepare` and :meth:`insert` are told: by the log2 of their bytes."""
        ...

    @property
    def flush(self) -> Callable[[Flush], None]:
        """Gives an invalidation to the hardware."""
        ...

    def lookup(self, address: int) -> Mapping | None:
        """Return the leaf that maps ``address``, or None."""
        ...

    def finder(self) -> Callable[[int], Place | None]:
        """Return a lookup for many addresses."""
        ...

    def prepare(self, address: int, depth: int) -> dict[int, int]:
        """Allocate what an insertion may need.

        :raises OutOfPagesError: if there are no pages.
        """
        ...

    def release(self, spares: dict[int, int]) -> None:
        """Give back what an insertion did not use."""
        ...

    def insert(self, address: int, entry: int, depth: int, spares: dict[int, int]) -> Insertion:
        """Put a leaf in place."""
        ...

    def remove(self, address: int) -> Mapping | None:
        """Remove the leaf that maps ``address``, flush its page, and return it as it was."""
        ...

    def remove_place(self, place: Place) -> None:
        """Remove a leaf that was just found, and flush its page."""
        ...

    def add_flags(self, address: int, *, accessed: bool, dirty: bool) -> bool:
        """Set accessed or dirty in the leaf of ``address``; False if that cannot be."""
        ...

    def clear_flags(self, address: int, *, accessed: bool, dirty: bool) -> Mapping | None:
        """Clear accessed or dirty in the leaf of ``address``; return it as it was. The caller flushes."""
        ...

    def clear_tree(self) -> None:
        """Empty the table. The caller flushes."""
        ...

    def free(self) -> None:
        """Give back the memory of an empty table itself."""
        ...
