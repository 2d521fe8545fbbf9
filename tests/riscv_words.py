"""A RISC-V machine for tests: tables written word by word, by arithmetic of the manual and by nothing of the plugin.

RAM is [0x8000_0000, 0xA000_0000). A guest physical address that :meth:`Machine.g_map` maps lies GUEST bytes further on.
"""

from __future__ import annotations

from nestmmu.access import Access
from nestmmu.memory import PhysicalMemory
from nestmmu.slots import Slot
from nestmmu_riscv.cpu import Reached, RiscvCpu
from nestmmu_riscv.csrs import Registers
from nestmmu_riscv.traps import Trap

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
KINDS = (LOAD, STORE, FETCH)
V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
N, NC, IO = 1 << 63, 1 << 61, 2 << 61
RWX = R | W | X
LEAF = V | RWX | A | D
GLEAF = LEAF | U
"""A leaf of the G-stage: every access there is one of U-mode."""
RAM = Slot(0x8000_0000, 0x2000_0000)
GUEST = 0x0800_0000
G_ROOT, G_TABLES = 0x8000_4000, 0x8001_0000
VS_ROOT, VS_TABLES = 0x8010_0000, 0x8010_1000
"""Guest physical."""
ADUE, PBMTE = 1 << 61, 1 << 62
SUM, MXR = 1 << 18, 1 << 19
VMID, ASID = 5, 9
LEVELS = {8: 3, 9: 4, 10: 5}


def pte(address: int, flags: int) -> int:
    """Return the entry that leads to ``address``: bits 53:10 are its page number."""
    return address >> 12 << 10 | flags


class Tree:
    """A tree of tables, written at a distance: a table at ``x`` is at ``x + offset`` in ``memory``."""

    def __init__(self, memory: PhysicalMemory, root: int, free: int, mode: int, offset: int = 0) -> None:
        self.memory = memory
        self.root = root
        self.free = free
        self.levels = LEVELS[mode]
        self.offset = offset
        self.pages = [root]
        """Every table, in the order of making."""

    def slot(self, address: int, level: int = 0) -> int:
        """Return where the entry for ``address`` is at a level (0 is the last), the tables above it made."""
        table = self.root
        for number in range(self.levels - 1, level, -1):
            at = table + 8 * self._index(address, number)
            entry = self.read(at)
            if not entry:
                entry = pte(self.free, V)
                self.write(at, entry)
                self.pages.append(self.free)
                self.free += 0x1000
            table = (entry >> 10) << 12
        return table + 8 * self._index(address, level)

    def _index(self, address: int, level: int) -> int:
        """Return the index: 9 bits, and at the root all that there are (the caller's are in range)."""
        bits = 11 if level == self.levels - 1 else 9
        return address >> 12 + 9 * level & (1 << bits) - 1

    def read(self, at: int) -> int:
        """Return an entry."""
        return self.memory.load(at + self.offset, 8, "little")

    def write(self, at: int, entry: int) -> None:
        """Store an entry."""
        self.memory.store(at + self.offset, entry, 8, "little")

    def put(self, address: int, entry: int, level: int = 0) -> int:
        """Write the entry of ``address`` at a level; return where it is."""
        at = self.slot(address, level)
        self.write(at, entry)
        return at


class Machine:
    """A hart in VS-mode, both stages on.

    :param vs: MODE of vsatp; 0: Bare.
    :param g: MODE of hgatp; 0: Bare, and guest physical addresses are physical ones.
    """

    def __init__(self, vs: int = 8, g: int = 8) -> None:
        self.memory = PhysicalMemory()
        self.g = Tree(self.memory, G_ROOT, G_TABLES, g) if g else None
        self.offset = GUEST if g else 0
        self.vs = Tree(self.memory, VS_ROOT, VS_TABLES, vs, self.offset) if vs else None
        self.registers = Registers(
            vsatp=vs << 60 | ASID << 44 | VS_ROOT >> 12 if vs else 0,
            hgatp=g << 60 | VMID << 44 | G_ROOT >> 12 if g else 0,
            menvcfg=ADUE | PBMTE,
            henvcfg=ADUE | PBMTE,
        )
        self.cpu = RiscvCpu(self.registers, self.memory, ram=RAM)
        self._mapped: set[int] = set()
        self._cover()

    def _cover(self) -> None:
        """Map every table of the VS-stage in the G-stage."""
        for page in [] if self.vs is None or self.g is None else self.vs.pages:
            if page not in self._mapped:
                self.g_map(page)

    def g_map(self, guest: int, flags: int = GLEAF, level: int = 0, to: int | None = None) -> int:
        """Write a leaf of the G-stage; return where it is."""
        assert self.g is not None
        if not level:
            self._mapped.add(guest & -0x1000)
        return self.g.put(guest, pte(guest + GUEST if to is None else to, flags), level)

    def vs_map(self, address: int, guest: int, flags: int = LEAF, level: int = 0) -> int:
        """Write a leaf of the VS-stage; return where it is, guest physical."""
        assert self.vs is not None
        at = self.vs.put(address, pte(guest, flags), level)
        self._cover()
        return at

    def access(self, access: Access, address: int) -> Reached | Trap:
        """Do one access."""
        return self.cpu.access(access, address)

    def reach(self, access: Access, address: int) -> int:
        """Return the physical address that an access ends at."""
        result = self.access(access, address)
        assert isinstance(result, Reached), result
        return result.address

    def trap(self, access: Access, address: int) -> Trap:
        """Return the exception that an access ends in."""
        result = self.access(access, address)
        assert isinstance(result, Trap), result
        return result

    def fields(self, access: Access, address: int) -> tuple[int, int, int, int, bool]:
        """Return (cause, tval, tval2, tinst, GVA) of the exception that an access ends in."""
        trap = self.trap(access, address)
        return trap.cause, trap.tval, trap.tval2, trap.tinst, trap.gva
