"""The life of nested guests: found or made by the tag that the guest hypervisor gave, counted, flushed, released.

The source is Linux's ``book3s_hv_nested.c``: ``kvmhv_get_nested``, ``kvmhv_put_nested``, ``kvmhv_remove_nested``,
``kvmhv_release_all_nested``, ``kvmhv_flush_nested``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.errors import NestmmuError, OutOfPagesError
from nestmmu.guests import NestedGuest
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.points import Point

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.guests import Guest
    from nestmmu.hypervisor import Hypervisor
    from nestmmu.points import Steps

N = TypeVar("N", bound=NestedGuest)


class TagAllocator:
    """The tags of the hardware: one for each guest and nested guest, the lowest that is free.

    :param first: the lowest; what is below is the host's own.
    :param limit: one above the highest.
    """

    def __init__(self, first: int, limit: int) -> None:
        self.first = first
        self.limit = limit
        self.used: set[int] = set()

    def allocate(self) -> HardwareTag | None:
        """Return a tag, or None if all are in use."""
        for tag in range(self.first, self.limit):
            if tag not in self.used:
                self.used.add(tag)
                return HardwareTag(tag)
        return None

    def free(self, tag: HardwareTag) -> None:
        """Take a tag back.

        :raises NestmmuError: if it is not in use.
        """
        if tag not in self.used:
            message = f"tag {tag} is freed and was not in use"
            raise NestmmuError(message)
        self.used.discard(tag)


class NestedGuests(Generic[N]):
    """The nested guests of one guest.

    :param tags: where their hardware tags come from.
    :param limit: returns one above the highest tag that the guest hypervisor may assign at present.
    """

    def __init__(self, host: Hypervisor, guest: Guest, tags: TagAllocator, limit: Callable[[], int]) -> None:
        self.host = host
        self.guest = guest
        self.tags = tags
        self.limit = limit
        self._reserved: set[AssignedTag] = set()

    def get(self, assigned: AssignedTag, *, create: bool) -> Steps[N | None]:
        """Find a nested guest, or make it, and hold it until :meth:`put`.

        :returns: None if the tag is out of range, unknown and not to be made, or there is no memory or no tag for it.
        """
        if assigned >= self.limit():
            return None
        yield Point.LOCK
        found = self._hold(assigned)
        yield Point.UNLOCK
        if found is not None or not create:
            return found
        made = self._make(assigned)
        if made is None:
            return None
        if self.guest.habits.loses_creation_race:
            if assigned in self._reserved or assigned in self.guest.nested:
                self._release(made)
                return None
            self._reserved.add(assigned)
        yield Point.LOCK
        found = self._hold(assigned)
        if found is None:
            self.guest.nested[assigned] = made
            made.references = 2
        self._reserved.discard(assigned)
        yield Point.UNLOCK
        if found is not None:
            self._release(made)
        return found or made

    def _hold(self, assigned: AssignedTag) -> N | None:
        found = cast("N | None", self.guest.nested.get(assigned))
        if found is not None:
            found.references += 1
        return found

    def _make(self, assigned: AssignedTag) -> N | None:
        tag = self.tags.allocate()
        if tag is None:
            return None
        try:
            return cast("N", self.host.make_nested(assigned, tag))
        except OutOfPagesError:
            self.tags.free(tag)
            return None

    def put(self, nested: N) -> Steps[None]:
        """Let go of a nested guest; the last to do so releases it.

        :raises NestmmuError: if no one held it.
        """
        yield Point.LOCK
        if nested.references <= 0:
            message = f"nested guest {nested.assigned} is let go of more often than it was held"
            raise NestmmuError(message)
        nested.references -= 1
        last = nested.references == 0
        yield Point.UNLOCK
        if last:
            self._release(nested)

    def remove(self, nested: N) -> Steps[None]:
        """Take a nested guest out of the table, once; who holds it still may go on."""
        yield Point.LOCK
        there = self.guest.nested.get(nested.assigned) is nested
        if there:
            del self.guest.nested[nested.assigned]
        yield Point.UNLOCK
        if there:
            yield from self.put(nested)

    def flush(self, nested: N) -> Steps[None]:
        """Empty a nested guest's shadow and flush its tag."""
        yield Point.LOCK
        nested.shadow.clear_tree()
        yield Point.UNLOCK
        nested.shadow.flush(Flush(nested.tag, FlushKind.TAG))

    def each(self) -> Steps[list[N]]:
        """Hold every nested guest; the caller lets go of each."""
        yield Point.LOCK
        held = [cast("N", self.guest.nested[assigned]) for assigned in sorted(self.guest.nested)]
        for nested in held:
            nested.references += 1
        yield Point.UNLOCK
        return held

    def release_all(self) -> Steps[None]:
        """Remove every nested guest, and forget what led to their shadows."""
        for nested in list(self.guest.nested.values()):
            yield from self.remove(cast("N", nested))
        self.guest.rmap.clear()

    def after(self, assigned: int) -> int:
        """Return the next assigned tag above ``assigned``, or -1."""
        return min((tag for tag in self.guest.nested if tag > assigned), default=-1)

    def _release(self, nested: N) -> None:
        self.host.release_nested(nested)
        self.tags.free(nested.tag)
