"""A host finds, or makes, the entry of its own table for an address of its guest.

The source of the order is Linux's ``kvmppc_book3s_radix_page_fault`` and ``kvmppc_book3s_instantiate_page``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import ALL_PERMISSIONS, WRITE, Access
from nestmmu.addresses import align_down
from nestmmu.edit import Insertion
from nestmmu.errors import OutOfPagesError
from nestmmu.faults import FaultKind
from nestmmu.outcomes import RESUME, Exit, Outcome, Verdict
from nestmmu.points import Point
from nestmmu.slots import congruent, fits

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.guests import Guest
    from nestmmu.points import Steps
    from nestmmu.shadow import ShadowTable
    from nestmmu.slots import Slot

NO_PAGE = "EFAULT"
RACED = "EAGAIN"
NO_TABLE = "ENOMEM"


def insert(
    guest: Guest, table: ShadowTable, address: int, entry: int, depth: int,
    snapshot: int, added: Callable[[], None] | None = None,
) -> Steps[Insertion]:  # fmt: skip
    """Insert a leaf into a table of the guest's host, unless what is behind the guest's memory changed.

    :param address: of the page, in bytes, in the space that ``table`` translates.
    :param snapshot: of the guest, from before what led to ``entry`` was looked at.
    :param added: called under the lock, if there is a new leaf.
    :returns: what became of it; AGAIN if it raced.
    """
    yield Point.PREEMPT
    try:
        spares = table.prepare(address, depth)
    except OutOfPagesError:
        return Insertion.NO_MEMORY
    yield Point.LOCK
    try:
        if guest.changed_since(snapshot):
            return Insertion.AGAIN
        result = table.insert(address, entry, depth, spares)
        if result is Insertion.ADDED and added is not None:
            added()
        return result
    finally:
        table.release(spares)
        yield Point.UNLOCK


def page_depth(guest: Guest, slot: Slot, address: int, page_shift: int, target: int) -> int:
    """Return the level at which the host maps a page of its own for its guest.

    As large as the page is, as long as it lies alike in both memories, and inside the slot where the host looks at
    that.

    :param page_shift: log2 of the bytes of the host's page.
    :param target: where ``address`` is in the host's memory.
    """
    depths = guest.table.depths
    best = guest.base_shift
    if not slot.dirty_log:
        for shift in depths:
            inside = fits(slot, address, shift) or guest.habits.maps_beyond_slots
            if best < shift <= page_shift and congruent(address, target, shift) and inside:
                best = shift
    return depths[best]


def instantiate(
    guest: Guest, slot: Slot, address: int, *, write: bool, read_only: bool, snapshot: int | None = None
) -> Steps[str]:
    """Map the host's page behind ``address`` into the host's table for the guest.

    A page that the host may write at once is mapped writable and dirty, whatever the access; another only for a store.

    :param read_only: whether the slot must not be written.
    :param snapshot: of the guest, from when ``slot`` was found; None: it was found just now.
    :returns: "" or the name of an error: EFAULT (the host has no page), EAGAIN (raced), ENOMEM (no page for a table).
    """
    snapshot = guest.snapshot() if snapshot is None else snapshot
    yield Point.PREEMPT
    page = None if guest.backing is None else guest.backing.page(slot, address, write=write)
    if page is None:
        return NO_PAGE
    writable = page.writable and not read_only
    depth = page_depth(guest, slot, address, page.page_shift, page.address)
    shift = guest.table.shifts[depth]
    entry = guest.table.format.leaf_entry(
        depth, align_down(page.address, shift), ALL_PERMISSIONS if writable else ALL_PERMISSIONS & ~WRITE,
        accessed=True, dirty=writable,
    )  # fmt: skip
    result = yield from insert(guest, guest.table, address, entry, depth, snapshot)
    return {Insertion.AGAIN: RACED, Insertion.NO_MEMORY: NO_TABLE}.get(result, "")


class HostFaultHandler:
    """What a host does with a fault on its own table for a guest; an architecture overrides what is its own.

    :param guest: the guest that faulted.
    """

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def refuses(self, exit_: Exit) -> Outcome | None:
        """Return the outcome of a fault that no mapping mends, None for others."""
        if FaultKind.MALFORMED in exit_.fault.kind:
            return Outcome(Verdict.FAIL, error=NO_PAGE)
        return None

    def outside(self, exit_: Exit, address: int) -> Outcome:
        """Return the outcome of an access to what is not memory."""
        if exit_.fault.implicit or FaultKind.ACCESSED_DIRTY in exit_.fault.kind:
            return Outcome(Verdict.INJECT, fault=exit_.fault)
        return Outcome(Verdict.EMULATE, address=address)

    def handle(self, exit_: Exit) -> Steps[Outcome]:
        """Handle one fault of the guest on the host's table for it."""
        refused = self.refuses(exit_)
        if refused is not None:
            return refused
        fault, guest = exit_.fault, self.guest
        address, store = fault.input_address, fault.access is Access.STORE
        slot, snapshot = guest.slots.find(address), guest.snapshot()
        if slot is None:
            return self.outside(exit_, address)
        if slot.read_only and store:
            return read_only_store(exit_)
        if FaultKind.ACCESSED_DIRTY in fault.kind:
            yield Point.LOCK
            done = guest.table.add_flags(address, accessed=True, dirty=store)
            yield Point.UNLOCK
            if done:
                return RESUME
        error = yield from instantiate(guest, slot, address, write=store, read_only=slot.read_only, snapshot=snapshot)
        return RESUME if error in {"", RACED} else Outcome(Verdict.FAIL, error=error)


def read_only_store(exit_: Exit) -> Outcome:
    """Return the outcome of a store to a read-only slot: the guest sees that it may not."""
    fault = exit_.fault
    seen = type(fault)(FaultKind.PERMISSION, fault.stage, Access.STORE, fault.input_address)
    return Outcome(Verdict.INJECT, fault=seen)
