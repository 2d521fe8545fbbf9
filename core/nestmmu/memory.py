"""Memory: the machine's, and a guest's, which is the machine's seen through a table.

All addresses and sizes are bytes, and every load and store names its byte order.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from nestmmu.access import Access
from nestmmu.addresses import ADDRESS_LIMIT
from nestmmu.errors import CycleError, OutsideMemoryError, PoisonedError
from nestmmu.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from nestmmu.mappings import Mapping

ByteOrder = Literal["big", "little"]

FRAME_SHIFT = 12
"""Log2 of the bytes of a frame, the unit in which memory is kept."""
FRAME_BYTES = 1 << FRAME_SHIFT
_OFFSET = FRAME_BYTES - 1
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def codec(size: int, byteorder: ByteOrder) -> struct.Struct:
    """Return the packer of an unsigned word of ``size`` bytes (1, 2, 4 or 8)."""
    return struct.Struct((">" if byteorder == "big" else "<") + _CODES[size])


class Translator(Protocol):
    """Anything that translates the addresses of a memory: a table, a nest, a cache of one."""

    @property
    def granule_shift(self) -> int:
        """Log2 of the bytes within which addresses always lead to one place: of the smallest page."""
        ...

    def translate(self, address: int, access: Access) -> Mapping:
        """Return where ``address`` leads.

        :raises ~nestmmu.faults.Fault: if it leads nowhere.
        """
        ...

    def locate(self, address: int, access: Access) -> int:
        """Return only the output address of :meth:`translate`: what reading a table needs."""
        ...

    def locator(self) -> Callable[[int, Access], int]:
        """Return :meth:`locate`, made for being called often."""
        ...


class Memory(Protocol):
    """What can be read and written by address."""

    name: str
    rank: int
    """How many translations lie between this memory and the machine's."""
    granule_shift: int
    """Log2 of the bytes within which addresses always lead to one place, at most a frame's."""

    def locate(self, address: int, access: Access) -> int:
        """Return the address in :attr:`physical` that ``address`` leads to."""
        ...

    def locator(self) -> Callable[[int, Access], int]:
        """Return :meth:`locate`, made for being called often."""
        ...

    @property
    def physical(self) -> PhysicalMemory:
        """The memory that holds the bytes in the end."""
        ...

    def loader(self, size: int, byteorder: ByteOrder) -> Callable[[int], int]:
        """Return :meth:`load` for aligned words of one size and order, made for being called often."""
        ...

    def storer(self, size: int, byteorder: ByteOrder) -> Callable[[int, int], None]:
        """Return :meth:`store` for aligned words of one size and order, made for being called often."""
        ...

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes from ``address`` on."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` from ``address`` on."""
        ...

    def load(self, address: int, size: int, byteorder: ByteOrder) -> int:
        """Return the unsigned word of ``size`` bytes (1, 2, 4 or 8) at ``address``."""
        ...

    def store(self, address: int, value: int, size: int, byteorder: ByteOrder) -> None:
        """Store the unsigned word of ``size`` bytes (1, 2, 4 or 8) at ``address``."""
        ...


def _pieces(address: int, size: int, shift: int = FRAME_SHIFT) -> Iterator[tuple[int, int]]:
    """Cut ``size`` bytes from ``address`` on at the borders of pages of 2**shift bytes: (address, size) pairs."""
    page = 1 << shift
    while size > 0:
        piece = min(size, page - (address & (page - 1)))
        yield address, piece
        address += piece
        size -= piece


class PhysicalMemory:
    """The machine's memory: sparse, every byte that was never written reads as zero.

    :param size: bytes; what lies beyond is outside.
    """

    rank = 0
    granule_shift = FRAME_SHIFT

    def __init__(self, size: int = ADDRESS_LIMIT, name: str = "L0 real") -> None:
        self.name = name
        self.size = size
        self._frames: dict[int, memoryview] = {}
        self._poisoned: set[int] = set()

    @classmethod
    def from_frames(
        cls, numbers: NDArray[np.uint64], data: NDArray[np.uint8], size: int = ADDRESS_LIMIT, name: str = "L0 real"
    ) -> PhysicalMemory:
        """Return a memory that holds the given frames, without copying them.

        :param numbers: frame numbers, shape (n,), uint64.
        :param data: the frames' bytes, shape (n, 4096), uint8, C order, writable.
        """
        memory = cls(size, name)
        rows = data.data
        memory._frames = {number: rows[index : index + 1].cast("B") for index, number in enumerate(numbers.tolist())}
        return memory

    @property
    def physical(self) -> PhysicalMemory:
        """Return this memory itself."""
        return self

    def locate(self, address: int, access: Access) -> int:  # noqa: ARG002  (the protocol's)
        """Return ``address``: it is physical already."""
        return address

    def locator(self) -> Callable[[int, Access], int]:
        """Return :meth:`locate`."""
        return self.locate

    def frame_numbers(self) -> list[int]:
        """Return the numbers of the frames that are kept, sorted."""
        return sorted(self._frames)

    def frame_count(self) -> int:
        """Return how many frames are kept."""
        return len(self._frames)

    def holds(self, address: int) -> bool:
        """Tell whether anything was ever stored in the frame of an address."""
        return address >> FRAME_SHIFT in self._frames

    def readable_frames(self) -> dict[int, memoryview]:
        """Return the frames by number, live, for code that cannot pay for a call a load.

        A memory that watches its loads, because its class overrides :meth:`loader`, shows none.
        """
        return self._frames if type(self).loader is PhysicalMemory.loader else {}

    def poison(self, number: int) -> None:
        """Drop a frame that was freed: whoever reads or writes it before :meth:`clear` is in error."""
        self._frames.pop(number, None)
        self._poisoned.add(number)

    def clear(self, number: int) -> None:
        """Make a frame read as zero, poisoned or not."""
        self._frames.pop(number, None)
        self._poisoned.discard(number)

    def _check(self, address: int, size: int) -> None:
        if address < 0 or address + size > self.size:
            raise OutsideMemoryError(address, size)
        if self._poisoned and not self._poisoned.isdisjoint(
            range(address >> FRAME_SHIFT, (address + size - 1 >> FRAME_SHIFT) + 1)
        ):
            raise PoisonedError(address, "access to table memory")

    def _frame(self, number: int) -> memoryview:
        frame = self._frames.get(number)
        if frame is None:
            frame = self._frames[number] = np.zeros(FRAME_BYTES, np.uint8).data
        return frame

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes from ``address`` on.

        :raises OutsideMemoryError: if any of them is outside.
        :raises PoisonedError: if any of them was freed.
        """
        self._check(address, size)
        parts: list[bytes | memoryview] = []
        for at, piece in _pieces(address, size):
            frame = self._frames.get(at >> FRAME_SHIFT)
            offset = at & _OFFSET
            parts.append(bytes(piece) if frame is None else frame[offset : offset + piece])
        return b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` from ``address`` on.

        :raises OutsideMemoryError: if any of it is outside; nothing is stored then.
        """
        self._check(address, len(data))
        done = 0
        for at, piece in _pieces(address, len(data)):
            offset = at & _OFFSET
            self._frame(at >> FRAME_SHIFT)[offset : offset + piece] = data[done : done + piece]
            done += piece

    def load(self, address: int, size: int, byteorder: ByteOrder) -> int:
        """Return the unsigned word of ``size`` bytes (1, 2, 4 or 8) at ``address``."""
        return int.from_bytes(self.read(address, size), byteorder)

    def store(self, address: int, value: int, size: int, byteorder: ByteOrder) -> None:
        """Store the unsigned word of ``size`` bytes (1, 2, 4 or 8) at ``address``."""
        self.write(address, value.to_bytes(size, byteorder))

    def loader(self, size: int, byteorder: ByteOrder) -> Callable[[int], int]:
        """Return :meth:`load` for words of one size and order, made for being called often."""
        unpack = codec(size, byteorder).unpack_from
        frames = self._frames
        slow = self.load

        def load(address: int) -> int:
            frame = frames.get(address >> FRAME_SHIFT)
            if frame is None:
                return slow(address, size, byteorder)
            try:
                return unpack(frame, address & _OFFSET)[0]  # type: ignore[no-any-return]
            except struct.error:  # the word crosses into the next frame
                return slow(address, size, byteorder)

        return load

    def storer(self, size: int, byteorder: ByteOrder) -> Callable[[int, int], None]:
        """Return :meth:`store` for words of one size and order, made for being called often."""
        pack = codec(size, byteorder).pack_into
        frames = self._frames
        slow = self.store

        def store(address: int, value: int) -> None:
            frame = frames.get(address >> FRAME_SHIFT)
            if frame is None or address & _OFFSET > FRAME_BYTES - size:
                slow(address, value, size, byteorder)
            else:
                pack(frame, address & _OFFSET, value)

        return store


class LazyMemory(PhysicalMemory):
    """A memory that begins as something else says; a frame is kept from when a word of it is loaded or stored.

    :param source: returns bytes from an address on, as many as asked for, and is never written.
    """

    def __init__(self, source: Callable[[int, int], bytes], size: int = ADDRESS_LIMIT, name: str = "L0 real") -> None:
        super().__init__(size, name)
        self._source = source

    @classmethod
    def over(cls, memory: PhysicalMemory) -> LazyMemory:
        """Return a memory that begins as another one is: what is stored in it does not reach that one."""
        return cls(memory.read, memory.size, memory.name)

    def clear(self, number: int) -> None:
        """Make a frame read as zero, whatever it was at first."""
        super().clear(number)
        self._frames[number] = np.zeros(FRAME_BYTES, np.uint8).data

    def _frame(self, number: int) -> memoryview:
        frame = self._frames.get(number)
        if frame is None:
            start = number << FRAME_SHIFT
            held = self._source(start, min(FRAME_BYTES, self.size - start))
            frame = self._frames[number] = memoryview(bytearray(held.ljust(FRAME_BYTES, b"\0")))
        return frame

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes from ``address`` on; no frame is kept for it.

        :raises OutsideMemoryError: if any of them is outside.
        :raises PoisonedError: if any of them was freed.
        """
        self._check(address, size)
        parts = []
        for at, piece in _pieces(address, size):
            frame, offset = self._frames.get(at >> FRAME_SHIFT), at & _OFFSET
            parts.append(self._source(at, piece) if frame is None else bytes(frame[offset : offset + piece]))
        return b"".join(parts)

    def load(self, address: int, size: int, byteorder: ByteOrder) -> int:
        """Return the unsigned word of ``size`` bytes at ``address``, and keep its frame: tables are read again."""
        self._check(address, size)
        self._frame(address >> FRAME_SHIFT)
        return super().load(address, size, byteorder)


class JournaledMemory(PhysicalMemory):
    """A memory that remembers what was there before each write, and can go back."""

    def __init__(self, size: int = ADDRESS_LIMIT, name: str = "L0 real") -> None:
        super().__init__(size, name)
        self._journal: list[tuple[int, bytes]] = []

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` from ``address`` on, and note what it replaced."""
        self._journal.append((address, self.read(address, len(data))))
        super().write(address, data)

    def storer(self, size: int, byteorder: ByteOrder) -> Callable[[int, int], None]:
        """Return :meth:`store` for words of one size and order."""
        return lambda address, value: self.store(address, value, size, byteorder)

    def commit(self) -> None:
        """Forget what was before: :meth:`rollback` goes no further back than this."""
        self._journal.clear()

    def rollback(self) -> None:
        """Undo every write since :meth:`commit`."""
        for address, data in reversed(self._journal):
            super().write(address, data)
        self._journal.clear()

    def changes(self, size: int, byteorder: ByteOrder) -> list[tuple[int, int]]:
        """Return (address, value) of each aligned word of ``size`` bytes that is not as it was, by address."""
        before: dict[int, bytes] = {}
        touched = set()
        for address, data in reversed(self._journal):
            for offset, byte in enumerate(data):
                before[address + offset] = bytes([byte])
                touched.add((address + offset) // size * size)
        result = []
        for word in sorted(touched):
            now = self.read(word, size)
            if any(
                before.get(word + offset, now[offset : offset + 1]) != now[offset : offset + 1]
                for offset in range(size)
            ):
                result.append((word, int.from_bytes(now, byteorder)))
        return result


class TranslatedMemory:
    """A guest's memory: its parent's, read through a table.

    :param parent: the memory that the table's output addresses belong to.
    :param table: what translates a guest address to one of the parent's.
    """

    def __init__(self, parent: Memory, table: Translator, name: str) -> None:
        self.name = name
        self.rank = parent.rank + 1
        self.granule_shift = min(parent.granule_shift, table.granule_shift)
        self.parent = parent
        self.table = table
        self._busy = False
        self._last = isinstance(parent, PhysicalMemory)
        self.straight = getattr(getattr(table, "walker", None), "memory", None) is parent
        """Whether the table itself lies in the parent, so that reading it never comes back here."""

    @property
    def physical(self) -> PhysicalMemory:
        """The memory that holds the bytes in the end."""
        return self.parent.physical

    def locate(self, address: int, access: Access) -> int:
        """Return the physical address that ``address`` leads to.

        :raises ~nestmmu.faults.Fault: if the table does not translate it.
        :raises CycleError: if reading the table needs this very memory.
        """
        if self._busy:
            raise CycleError((self.name,))
        self._busy = True
        try:
            output = self.table.locate(address, access)
            return output if self._last else self.parent.locate(output, access)
        except CycleError as cycle:
            if len(cycle.names) > 1 and cycle.names[0] == cycle.names[-1]:
                raise
            raise CycleError((self.name, *cycle.names)) from None
        finally:
            self._busy = False

    def locator(self) -> Callable[[int, Access], int]:
        """Return :meth:`locate`, made for being called often; straight from the table where no cycle can be."""
        return self.table.locator() if self._last and self.straight else self.locate

    def loader(self, size: int, byteorder: ByteOrder) -> Callable[[int], int]:
        """Return :meth:`load` for aligned words of one size and order, made for being called often."""
        load, locate = self.physical.loader(size, byteorder), self.locate
        return lambda address: load(locate(address, Access.LOAD))

    def storer(self, size: int, byteorder: ByteOrder) -> Callable[[int, int], None]:
        """Return :meth:`store` for aligned words of one size and order, made for being called often."""
        store, locate = self.physical.storer(size, byteorder), self.locate

        def translated(address: int, value: int) -> None:
            store(locate(address, Access.STORE), value)

        return translated

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes from ``address`` on."""
        physical = self.physical
        pieces = _pieces(address, size, self.granule_shift)
        return b"".join(physical.read(self.locate(at, Access.LOAD), piece) for at, piece in pieces)

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` from ``address`` on; nothing is stored where any part does not translate."""
        places = [
            (self.locate(at, Access.STORE), piece) for at, piece in _pieces(address, len(data), self.granule_shift)
        ]
        done = 0
        for at, piece in places:
            self.physical.write(at, data[done : done + piece])
            done += piece

    def load(self, address: int, size: int, byteorder: ByteOrder) -> int:
        """Return the unsigned word of ``size`` bytes (1, 2, 4 or 8) at ``address``."""
        return int.from_bytes(self.read(address, size), byteorder)

    def store(self, address: int, value: int, size: int, byteorder: ByteOrder) -> None:
        """Store the unsigned word of ``size`` bytes (1, 2, 4 or 8) at ``address``."""
        self.write(address, value.to_bytes(size, byteorder))


class GuestMemory(TranslatedMemory):
    """A guest's memory as its host's software reads it: what does not translate is not there."""

    def locator(self) -> Callable[[int, Access], int]:
        """Return :meth:`locate`."""
        return self.locate

    def locate(self, address: int, access: Access) -> int:
        """Return the physical address that ``address`` leads to.

        :raises OutsideMemoryError: if the table does not translate it.
        """
        try:
            return super().locate(address, access)
        except Fault:
            raise OutsideMemoryError(address, 1) from None
