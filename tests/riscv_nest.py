"""L0, an L1 in HS-mode as it believes, and its L2, on RISC-V; and the machine that L1 believes to be on.

That machine is a hart on a memory of its own, with what L1 stores in its memory, and with L1's own hgatp: whatever L2
does there is what it has to come to in the nest, with the same words changed.
"""

from __future__ import annotations

import attrs
from riscv_guest import ADUE, FULL, GUEST_FULL, LEVELS, MXR, SPVP, SV39, SV48, V, pte

from nestmmu.access import Access
from nestmmu.addresses import HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.hypervisor import Attempt
from nestmmu.invariants import violations
from nestmmu.memory import PhysicalMemory
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.points import finish
from nestmmu.slots import LinearBacking, Slot, Slots
from nestmmu.tlb import CachedCpu, Tlb
from nestmmu_riscv import exits
from nestmmu_riscv.cpu import Reached, RiscvCpu
from nestmmu_riscv.fences import Fence, FenceKind
from nestmmu_riscv.hypervisor import RiscvHypervisor
from nestmmu_riscv.traps import Trap

RAM, RAM_SIZE = 0x8000_0000, 0x40_0000
AT = 0x8000_0000
"""Where an address of L1 is in L0's memory, less that address."""
L1_TAG, L2_VMID, L2_ASID = 900, 5, 3
G_ROOT = RAM
G_TABLES = RAM + 0x4000
G_LOW = RAM + 0x8000
"""L1's table for L2's first 2 MiB, in pages of 4 KiB."""
L2_AT = RAM + 0x10_0000
"""Where L1 keeps L2's first 2 MiB; Bare, L2's addresses are L1's."""
VS_TABLES = 0x0010_0000
VS_LOW = VS_TABLES + 0x5000
"""L2's last table, for its addresses from 0 on, in L2's memory."""
DATA = 0x0011_0000
"""Where L2's virtual pages from 0 on are, in its memory."""
LARGE, LARGE_PAGE = 0x0020_0000, 31
"""L2's second 2 MiB, which L1 does not map at first, and the virtual page that leads to its beginning."""
GUEST_PAGE_FAULTS = {20, 21, 23}
EMULATED = {Access.FETCH: 1, Access.LOAD: 5, Access.STORE: 7}


class Nest:
    """L1's table maps all of L2's 2 MiB, L2's its pages 0 to 30, and everything is allowed."""

    def __init__(
        self, host_mode: int = SV48, g_mode: int = SV39, vs_mode: int = SV39, *,
        machine: int = ADUE, l1: int = ADUE, l2: int = ADUE, page_shift: int = 12, dirty_log: bool = False,
    ) -> None:  # fmt: skip
        self.g_mode, self.vs_mode = g_mode, vs_mode
        self.memory, self.believed = PhysicalMemory(), PhysicalMemory()
        self.allocator = PageAllocator(self.memory, 0x4000_0000, 0x6000_0000)
        self.host = RiscvHypervisor(self.memory, self.allocator, mode=host_mode, menvcfg=machine)
        self.slot = Slot(RAM, RAM_SIZE, dirty_log=dirty_log)
        backing = LinearBacking(AT, page_shift)
        self.guest = self.host.create_guest(HardwareTag(L1_TAG), Slots((self.slot,)), backing)
        self.registers = self.guest.registers
        self.registers.menvcfg, self.registers.henvcfg = machine & l1, l2
        self.registers.hstatus = SPVP
        self.guests = self.host.nested_guests(self.guest)
        self.handler = self.host.handler(self.guest)
        self.tlb = Tlb()
        self.host.listeners.append(self.tlb.flush)
        self.offset = L2_AT if g_mode else 0
        self.first = 0 if g_mode else L2_AT
        """L2's guest physical address 0, or what stands for it where L1's hgatp is Bare."""
        self._build()
        self.host.write_hgatp(self.guest, g_mode << 60 | L2_VMID << 44 | (G_ROOT >> 12 if g_mode else 0))
        if vs_mode:
            self.registers.vsatp = vs_mode << 60 | L2_ASID << 44 | self.first + VS_TABLES >> 12
        self.enter()

    def _build(self) -> None:
        if self.g_mode:
            at = G_ROOT
            for level in range(LEVELS[self.g_mode] - 2):
                self.word(at, pte(G_TABLES + 0x1000 * level, V))
                at = G_TABLES + 0x1000 * level
            self.g_middle = at
            self.word(at, pte(G_LOW, V))
            for page in range(512):
                self.map(page << 12, L2_AT + (page << 12))
        if self.vs_mode:
            at = VS_TABLES
            for level in range(LEVELS[self.vs_mode] - 2):
                self.l2_word(at, pte(self.first + VS_TABLES + 0x1000 * (level + 1), V))
                at = VS_TABLES + 0x1000 * (level + 1)
            self.l2_word(at, pte(self.first + VS_LOW, V))
            for page in range(32):
                self.vs_map(page, DATA + (page << 12))
            self.vs_map(LARGE_PAGE, LARGE)

    def word(self, address: int, value: int) -> None:
        """Let L1 store a word, here and on the machine that it believes to be on."""
        self.memory.store(address + AT, value, 8, "little")
        self.believed.store(address, value, 8, "little")

    def read_word(self, address: int) -> int:
        """Return a word of L1's memory."""
        return self.memory.load(address + AT, 8, "little")

    def l2_word(self, address: int, value: int) -> None:
        """Store a word of L2's memory, from its first address on."""
        self.word(L2_AT + address, value)

    def map(self, guest: int, target: int, flags: int = GUEST_FULL) -> None:
        """Write L1's entry for one of L2's pages of 4 KiB; there is no fence."""
        self.word(G_LOW + 8 * (guest >> 12), pte(target, flags))

    def vs_map(self, page: int, target: int, flags: int = FULL) -> None:
        """Write L2's entry for one of its virtual pages; there is no fence."""
        self.l2_word(VS_LOW + 8 * page, pte(self.first + target, flags))

    def enter(self) -> None:
        """Let L1 enter L2."""
        nested = finish(self.host.enter(self.guest, self.guests))
        assert nested is not None
        self.nested = nested
        finish(self.guests.put(nested))

    def fence(self, kind: FenceKind, address: int | None = None, space: int | None = None) -> None:
        """Let L1 do an HFENCE; of HFENCE.GVMA the address is in bytes."""
        if kind is FenceKind.HFENCE_GVMA and address is not None:
            address >>= 2
        self.host.fence(self.guest, Fence(kind, address, space))

    def handle(self, exit_: Exit) -> Outcome:
        """Handle one guest-page fault of L2 as L0."""
        return finish(self.handler.handle(self.nested, exit_))

    def attempt(self, access: Access, address: int) -> tuple[Reached | Trap, Outcome | None, int]:
        """Let L2 make an access: what the hart said last, what ended the loop, and how many faults L0 handled."""
        hart = RiscvCpu(self.host.registers_of(self.guest, self.nested), self.memory)
        cached = CachedCpu(hart, self.tlb, lambda _: None)
        loop = Attempt(lambda: cached.access(access, address), as_exit, self.handle)
        result, outcome = loop.run()
        return result, outcome, len(loop.faults)

    def access(self, access: Access, address: int) -> Reached | Trap:
        """Let L2 make an access, and return where it ended, or what L1, or L2 itself, gets."""
        result, outcome, _ = self.attempt(access, address)
        if outcome is None or isinstance(result, Reached):
            return result
        if outcome.verdict is Verdict.REFLECT:
            return exits.reflect(outcome, result)
        if outcome.verdict is Verdict.INJECT:
            return exits.inject(outcome, exits.decode(result))
        assert outcome.verdict is Verdict.EMULATE
        return Trap(EMULATED[access], address, user=self.registers.user)

    def believed_access(self, access: Access, address: int) -> Reached | Trap:
        """Make an access of L2 on the machine that L1 believes to be on, where its devices are no memory."""
        registers = attrs.evolve(self.registers, mstatus=self.registers.mstatus & MXR)
        return RiscvCpu(registers, self.believed, ram=self.slot).access(access, address)

    def agree(self, access: Access, address: int) -> Reached | Trap:
        """Make an access in the nest and on the believed machine; they must agree in all that is seen of them."""
        found, expected = self.access(access, address), self.believed_access(access, address)
        if isinstance(expected, Reached):
            assert isinstance(found, Reached), (found, expected)
            assert found.address == expected.address + AT
        else:
            assert found == expected
        assert self.differing_words() == []
        self.sound()
        return found

    def sound(self) -> None:
        """Check that every invariant holds."""
        assert violations(self.guest) == []

    def differing_words(self) -> list[tuple[int, int, int]]:
        """Return (address, word, believed word) of each frame's first word of L1's memory that differs."""
        found = []
        frames = {number - (AT >> 12) for number in self.memory.frame_numbers()} | {*self.believed.frame_numbers()}
        for base in (number << 12 for number in frames if RAM <= number << 12 < RAM + RAM_SIZE):
            ours, theirs = self.memory.read(base + AT, 4096), self.believed.read(base, 4096)
            if ours != theirs:
                at = next(at for at in range(0, 4096, 8) if ours[at : at + 8] != theirs[at : at + 8])
                first, second = (int.from_bytes(one[at : at + 8], "little") for one in (ours, theirs))
                found.append((base + at, first, second))
        return found

    def shadow(self) -> dict[int, tuple[int, int, int]]:
        """Return the shadow: guest physical address to (target, page shift, entry)."""
        leaves = self.nested.shadow.table.leaves()
        return {leaf.page_start: (leaf.target_start, leaf.page_shift, leaf.entry or 0) for leaf in leaves}


def as_exit(result: Reached | Trap) -> Exit | None:
    """Return the exit that a guest-page fault is; L2 takes its own exceptions itself."""
    return exits.decode(result) if isinstance(result, Trap) and result.cause in GUEST_PAGE_FAULTS else None
