"""A host handles a fault of its guest's guest on the shadow table.

The ladder: walk the guest hypervisor's table; reflect what it does not allow; find or make the host's own entry;
compose the two; insert
the result into the shadow. Its order is that of Linux's ``__kvmhv_nested_page_fault``, and holds for every
architecture whose hardware walks one table where two are meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.addresses import HardwareTag, align_down
from nestmmu.edit import Insertion
from nestmmu.events import EventKind
from nestmmu.faults import Fault, FaultKind
from nestmmu.host_faults import RACED, insert, instantiate, read_only_store
from nestmmu.outcomes import RESUME, Exit, Outcome, Verdict
from nestmmu.points import Point
from nestmmu.rmap import ReverseEntry

if TYPE_CHECKING:
    from nestmmu.compose import Composer
    from nestmmu.guests import Guest, NestedGuest
    from nestmmu.mappings import Mapping
    from nestmmu.points import Steps
    from nestmmu.slots import Slot

Tell = Callable[[EventKind, HardwareTag, int, object], None]

REFLECT_UNCHANGED = Outcome(Verdict.REFLECT)


class NestedFaultHandler:
    """The ladder. An architecture overrides the questions that only it can answer.

    :param guest: the guest hypervisor.
    :param composer: makes the shadow's leaves.
    :param tell: announces events: :meth:`~nestmmu.hypervisor.Hypervisor.tell` of the host.
    """

    def __init__(self, guest: Guest, composer: Composer, tell: Tell | None = None) -> None:
        self.guest = guest
        self.composer = composer
        self.tell = tell

    def has_root(self, nested: NestedGuest) -> bool:
        """Tell whether the guest hypervisor has a table for ``nested``, reading its root where need be."""
        return nested.table is not None

    def walk(self, nested: NestedGuest, exit_: Exit) -> Mapping:
        """Return what the guest hypervisor's table says of the fault's address.

        :raises Fault: if it does not map it, or does not permit the access.
        """
        fault = exit_.fault
        if nested.table is None:
            raise Fault(FaultKind.NOT_PRESENT, fault.stage, fault.access, fault.input_address)
        inner = nested.table.lookup(fault.input_address, fault.access)
        if not inner.permissions & fault.access:
            raise Fault(
                FaultKind.PERMISSION, fault.stage, fault.access, fault.input_address,
                entry_address=inner.entry_address, entry=inner.entry,
            )  # fmt: skip
        return inner

    def retries_first(self, exit_: Exit) -> bool:
        """Tell whether a fault that would be reflected is first tried again with the shadow's entry removed."""
        del exit_
        return False

    def mends(self, exit_: Exit) -> bool:
        """Tell whether a fault that set accessed or dirty says no more than that."""
        return exit_.fault.kind == FaultKind.ACCESSED_DIRTY

    def outside(self, exit_: Exit, inner: Mapping) -> Outcome:
        """Return the outcome of an access that leads outside the guest hypervisor's memory."""
        if exit_.fault.implicit:
            return Outcome(Verdict.INJECT, fault=exit_.fault)
        return Outcome(Verdict.EMULATE, address=inner.output_address)

    def too_small(self, exit_: Exit, inner: Mapping) -> Outcome | None:
        """Return the outcome of a page below the host's base page; None if it can be shadowed."""
        del exit_
        if inner.page_shift < self.guest.base_shift:
            return Outcome(Verdict.FAIL, error="EINVAL")
        return None

    def mark(self, inner: Mapping, outer: Mapping, fault: Fault) -> Steps[Mapping]:
        """Return the host's entry as it is to be composed.

        Where hardware cannot fault for accessed or dirty in the shadow, they are set in it here.
        """
        del inner, fault
        yield from ()
        return outer

    def out_of_tables(self) -> Outcome:
        """Return the outcome where there is no page for a table of the shadow."""
        return RESUME

    def handle(self, nested: NestedGuest, exit_: Exit) -> Steps[Outcome]:
        """Handle one fault of ``nested`` on its shadow table."""
        fault = exit_.fault
        if self.tell is not None:
            self.tell(EventKind.FAULT, nested.tag, fault.input_address, fault)
        yield Point.LOCK_NESTED
        outcome = yield from self._ladder(nested, exit_)
        yield Point.UNLOCK_NESTED
        if self.tell is not None and outcome.verdict is Verdict.REFLECT:
            self.tell(EventKind.REFLECT, nested.tag, fault.input_address, outcome.fault)
        return outcome

    def _ladder(self, nested: NestedGuest, exit_: Exit) -> Steps[Outcome]:
        if not self.has_root(nested):
            return REFLECT_UNCHANGED
        try:
            inner = self.walk(nested, exit_)
        except Fault as found:
            if self.retries_first(exit_):
                yield from self._invalidate(nested, exit_.fault.input_address)
                return RESUME
            return Outcome(Verdict.REFLECT, fault=found)
        if FaultKind.ACCESSED_DIRTY in exit_.fault.kind:
            outcome = yield from self._set_accessed_dirty(nested, exit_, inner)
            if outcome is not None:
                return outcome
        return (yield from self._map(nested, exit_, inner))

    def _invalidate(self, nested: NestedGuest, address: int) -> Steps[None]:
        yield Point.LOCK
        nested.shadow.remove(address)
        yield Point.UNLOCK

    def _set_accessed_dirty(self, nested: NestedGuest, exit_: Exit, inner: Mapping) -> Steps[Outcome | None]:
        """Set accessed and dirty in the host's entry, then in the shadow's; None: there is more to mend."""
        fault = exit_.fault
        store = fault.access is Access.STORE
        if not inner.accessed or (store and not inner.dirty):
            return REFLECT_UNCHANGED
        yield Point.LOCK
        done = self.guest.table.add_flags(inner.output_address, accessed=True, dirty=store)
        done = done and nested.shadow.add_flags(fault.input_address, accessed=True, dirty=store)
        yield Point.UNLOCK
        if not done:
            yield from self._invalidate(nested, fault.input_address)
            return RESUME
        return RESUME if self.mends(exit_) else None

    def _map(self, nested: NestedGuest, exit_: Exit, inner: Mapping) -> Steps[Outcome]:
        guest, fault = self.guest, exit_.fault
        refused = self.too_small(exit_, inner)
        if refused is not None:
            return refused
        slot = guest.slots.find(inner.output_address)
        if slot is None:
            return self.outside(exit_, inner)
        if slot.read_only and fault.access is Access.STORE:
            return read_only_store(exit_)
        snapshot = guest.snapshot()
        outer = yield from self._host_entry(slot, fault, inner, snapshot)
        if isinstance(outer, Outcome):
            return outer
        outer = yield from self.mark(inner, outer, fault)
        return (yield from self._shadow(nested, fault, inner, outer, snapshot))

    def _host_entry(self, slot: Slot, fault: Fault, inner: Mapping, snapshot: int) -> Steps[Mapping | Outcome]:
        guest, target = self.guest, inner.output_address
        store = fault.access is Access.STORE
        yield Point.LOCK
        outer = guest.table.lookup(target)
        yield Point.UNLOCK
        if outer is None or not outer.permissions & fault.access:
            error = yield from instantiate(
                guest, slot, target, write=store, read_only=slot.read_only, snapshot=snapshot
            )
            if error and error != RACED:
                return Outcome(Verdict.FAIL, error=error)
            outer = None if error else guest.table.lookup(target)
        return RESUME if outer is None else outer

    def _shadow(
        self, nested: NestedGuest, fault: Fault, inner: Mapping, outer: Mapping, snapshot: int
    ) -> Steps[Outcome]:
        guest, shadow = self.guest, nested.shadow
        if guest.rmap.full:
            return RESUME
        leaf = self.composer.compose(inner, outer, fault.access)
        start = leaf.page_start
        frame = align_down(outer.input_address, outer.page_shift) >> guest.base_shift

        def added() -> None:
            guest.rmap.insert(frame, ReverseEntry(nested.assigned, start))
            if self.tell is not None:
                self.tell(EventKind.SHADOW_ADD, nested.tag, start, leaf)

        if leaf.entry is None:
            message = "a composer gave no entry"
            raise TypeError(message)
        depth = shadow.depths[leaf.page_shift]
        result = yield from insert(guest, shadow, start, leaf.entry, depth, snapshot, added)
        return self.out_of_tables() if result is Insertion.NO_MEMORY else RESUME
