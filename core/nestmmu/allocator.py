"""Pages for tables, from a region that nothing else uses; what is freed is poisoned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.errors import OutOfPagesError, PoisonedError
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT

if TYPE_CHECKING:
    from nestmmu.memory import Memory


class PageAllocator:
    """Hands out table pages, each in frames of its own, zeroed and aligned to its size.

    :param memory: where the pages are.
    :param base: first address of the region, in bytes.
    :param limit: first address after it.
    """

    def __init__(self, memory: Memory, base: int, limit: int) -> None:
        self.memory = memory
        self.limit = limit
        self._next = base
        self._free: dict[int, list[int]] = {}
        self.used: dict[int, int] = {}
        """What is handed out: size in bytes by address."""

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` zeroed bytes (a power of two).

        :raises OutOfPagesError: if the region is full.
        """
        size = max(size, FRAME_BYTES)
        free = self._free.get(size)
        if free:
            address = free.pop()
        else:
            address = -(-self._next // size) * size
            if address + size > self.limit:
                message = f"no room for a table of {size} bytes below {self.limit:#x}"
                raise OutOfPagesError(message)
            self._next = address + size
        for number in self._frames(address, size):
            self.memory.physical.clear(number)
        self.used[address] = size
        return address

    def free(self, address: int) -> None:
        """Take a page back and poison it.

        :raises PoisonedError: if it is not handed out: freed twice, or never allocated.
        """
        size = self.used.pop(address, None)
        if size is None:
            raise PoisonedError(address, "second free of a table")
        for number in self._frames(address, size):
            self.memory.physical.poison(number)
        self._free.setdefault(size, []).append(address)

    def _frames(self, address: int, size: int) -> list[int]:
        locate = self.memory.locate
        return [locate(at, Access.STORE) >> FRAME_SHIFT for at in range(address, address + size, FRAME_BYTES)]
