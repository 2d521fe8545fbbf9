"""What may happen to a nest at any time: the steps of the state machine, of numbers that anyone may draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nestmmu.access import Access
from nestmmu.testing.checks import require
from nestmmu.testing.world import OFFSET, World

if TYPE_CHECKING:
    from nestmmu.addresses import AssignedTag
    from nestmmu.testing.architecture import Architecture
    from nestmmu.testing.capabilities import Scope


class Happenings:
    """A nest of an architecture, and what can be done to it; each step leaves it such that :meth:`check` holds."""

    architecture: ClassVar[type[Architecture]]
    world: World

    def begin(self, shift: int) -> None:
        """Make the nest.

        :param shift: log2 of the largest page with which the host maps its guest.
        """
        world = self.world = World(self.architecture(), shift)
        for place, tag in enumerate(world.nest.assigned):
            world.map(tag, 0, world.large, world.at(place))
            for page in (0, 1):
                world.map(tag, (1 << world.large) + (page << world.small), world.small, world.at(1 - place, 1 - page))
        self.written: set[int] = set()
        """Small pages of the guest's data, by number, that the log has to report, where it is on."""

    def _tag(self, number: int) -> AssignedTag:
        return self.world.nest.assigned[number]

    def map(
        self, number: int, chunk: int, page: int, shift: int, to: int, rights: int, flags: tuple[bool, bool],
        scope: Scope,
    ) -> None:  # fmt: skip
        """Map a page of a guest's guest, over whatever was there; chunk 4 is no memory."""
        world = self.world
        offset = page << world.small if shift == world.small else 0
        start, target = (chunk << world.large) + offset, world.at(to) + offset
        world.map(self._tag(number), start, shift, target, rights, accessed=flags[0], dirty=flags[1], scope=scope)

    def unmap(self, number: int, pick: int, scope: Scope) -> None:
        """Unmap a page of a guest's guest."""
        starts = sorted(self.world.leaves[self._tag(number)])
        if starts:
            self.world.unmap(self._tag(number), starts[pick % len(starts)], scope)

    def touch(self, number: int, kind: Access, page: int) -> None:
        """Access every page of a guest's guest."""
        world = self.world
        for leaf in list(world.leaves[self._tag(number)].values()):
            offset = page << world.small if leaf.shift > world.small else 0
            end = world.access(self._tag(number), kind, leaf.start + offset + OFFSET)
            if kind is Access.STORE and end.address is not None:
                self.written.add(leaf.target + offset - world.nest.data.base >> world.small)

    def take_away(self, chunk: int, moves: bool) -> None:  # noqa: FBT001  (drawn)
        """Have the host take a chunk away, and keep it elsewhere from now on."""
        if moves:
            self.world.nest.backing.move(chunk)
        self.world.nest.unmap(self.world.at(chunk), 1 << self.world.large)

    def age(self, chunk: int) -> None:
        """Have the host ask whether a page was used."""
        self.world.nest.age(self.world.at(chunk, 1))

    def slot(self, kind: dict[str, bool]) -> None:
        """Have the host replace the slot of the guest's data."""
        self.world.set_slot(**kind)
        self.written.clear()

    def take_log(self) -> None:
        """Have the host take the log: every page that was stored to is in it."""
        slot = self.world.data
        if slot is not None and slot.dirty_log:
            bits = np.unpackbits(self.world.nest.dirty_log(slot), bitorder="little")
            missing = self.written - {int(bit) for bit in np.flatnonzero(bits)}
            require(not missing, f"stores to pages {sorted(missing)} are not in the log")
            self.written.clear()

    def release(self, number: int) -> None:
        """Have the host release a guest's guest."""
        self.world.nest.release(self._tag(number))

    def check(self) -> None:
        """Look whether anything is kept that is not allowed."""
        if hasattr(self, "world"):
            self.world.check("at every step")
