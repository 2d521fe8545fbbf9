"""A RISC-V machine with one guest, its tables made of raw words: numbers from the manual, none from the plugin."""

from __future__ import annotations

from nestmmu.memory import PhysicalMemory
from nestmmu_riscv.cpu import Reached, RiscvCpu
from nestmmu_riscv.csrs import Registers
from nestmmu_riscv.traps import Trap

V, R, W, X, U, G, A, D = 1, 2, 4, 8, 16, 32, 64, 128
RWX, RWXU = R | W | X, R | W | X | U
FULL = V | RWX | A | D
GUEST_FULL = FULL | U
N = 1 << 63
NC, IO = 1 << 61, 2 << 61
ADUE, PBMTE = 1 << 61, 1 << 62
SUM, MXR = 1 << 18, 1 << 19
SPVP = 1 << 8
BARE, SV39, SV48, SV57 = 0, 8, 9, 10
LEVELS = {SV39: 3, SV48: 4, SV57: 5}

HOST = 0x1_0000_0000
"""Supervisor physical minus guest physical address."""
G_ROOT, G_TABLES = 0x8000_0000, 0x8001_0000
"""The G-stage: 16 KiB of root, and the tables below, one for each level, in the machine's memory."""
VS_TABLES = 0x0010_0000
"""The VS-stage, one table of 4 KiB for each level, root first, in the guest's memory."""
EA = 0x1234_5678
"""Indices 0, 0x91 and 0x145 in the three lowest levels; all above are 0."""
INDICES = (0, 0x91, 0x145)
PAGE = 0x0804_5000
"""The guest physical page that EA leads to; G-stage indices 0, 0x40 and 0x45."""
ASID, VMID = 0x123, 0x45


def pte(address: int, flags: int) -> int:
    """Return an entry: PPN in bits 53:10."""
    return address >> 12 << 10 | flags


class Machine:
    """One guest; its first GiB is mapped by the G-stage in 2 MiB pages, and EA by the VS-stage in one of 4 KiB."""

    def __init__(self, vs_mode: int = SV39, g_mode: int = SV39, **registers: int) -> None:
        self.memory = PhysicalMemory()
        self.g_mode, self.vs_mode = g_mode, vs_mode
        self.registers = Registers(
            vsatp=vs_mode << 60 | ASID << 44 | VS_TABLES >> 12 if vs_mode else 0,
            hgatp=g_mode << 60 | VMID << 44 | G_ROOT >> 12 if g_mode else 0,
        )
        for name, value in registers.items():
            setattr(self.registers, name, value)
        if g_mode:
            self.build_g_stage()
        if vs_mode:
            depth = LEVELS[vs_mode]
            for level in range(depth - 1):
                at = VS_TABLES + 0x1000 * level
                index = INDICES[level - depth + 3] if level >= depth - 3 else 0
                self.guest(at + 8 * index, pte(at + 0x1000, V))
            self.leaf(pte(PAGE, FULL))

    def build_g_stage(self) -> None:
        count = LEVELS[self.g_mode]
        at = G_ROOT
        for level in range(count - 2):
            below = G_TABLES + 0x1000 * level
            self.real(at, pte(below, V))
            at = below
        self.g_pages = at
        for index in range(512):
            self.real(at + 8 * index, pte(HOST + (index << 21), GUEST_FULL))

    def real(self, address: int, word: int) -> None:
        self.memory.store(address, word, 8, "little")

    def guest(self, address: int, word: int) -> None:
        self.real(address + (HOST if self.g_mode else 0), word)

    @property
    def leaf_at(self) -> int:
        """The guest physical address of EA's leaf."""
        return VS_TABLES + 0x1000 * (LEVELS[self.vs_mode] - 1) + 8 * INDICES[2]

    def leaf(self, entry: int) -> None:
        self.guest(self.leaf_at, entry)

    def read_leaf(self) -> int:
        return self.memory.load(self.leaf_at + (HOST if self.g_mode else 0), 8, "little")

    def g_leaf(self, guest: int, entry_flags: int) -> None:
        """Let the G-stage's 2 MiB page around a guest physical address have other flags."""
        self.real(self.g_pages + 8 * (guest >> 21), pte(HOST + (guest >> 21 << 21), entry_flags))

    def read_g_leaf(self, guest: int) -> int:
        return self.memory.load(self.g_pages + 8 * (guest >> 21), 8, "little")

    @property
    def cpu(self) -> RiscvCpu:
        return RiscvCpu(self.registers, self.memory)


def reached(result: Reached | Trap) -> Reached:
    assert isinstance(result, Reached), result
    return result


def trap(result: Reached | Trap) -> Trap:
    assert isinstance(result, Trap), result
    return result
