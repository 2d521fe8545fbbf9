"""L2 behind a shadow is L2 behind two real stages: random tables of L1 and L2, edits with their fences, upkeep by L0.

The truth is a hart whose physical memory is L1's and whose hgatp is L1's. After every event the ends, the exceptions,
A and D in L1's and L2's tables, and what a TLB has kept are compared with it.
"""

from __future__ import annotations

import functools
import operator

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from riscv_words import ADUE, IO, KINDS, MXR, NC, PBMTE, RWX, SUM, A, D, N, R, U, V, W, X, pte

from nestmmu import upkeep
from nestmmu.access import Access
from nestmmu.addresses import HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.host_faults import HostFaultHandler
from nestmmu.hypervisor import Attempt
from nestmmu.invariants import violations
from nestmmu.memory import PhysicalMemory
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.points import finish
from nestmmu.slots import LinearBacking, Slot, Slots
from nestmmu.tlb import Tlb
from nestmmu_riscv.cpu import Reached, RiscvCpu
from nestmmu_riscv.csrs import Registers
from nestmmu_riscv.exits import decode, inject, reflect
from nestmmu_riscv.fences import Fence, FenceKind
from nestmmu_riscv.fences import decode as scopes_of
from nestmmu_riscv.hypervisor import RiscvHypervisor
from nestmmu_riscv.traps import Trap

L1 = Slot(0x8000_0000, 0x0100_0000)
OFFSET = 0x1_0000_0000
"""Where L1's memory is in L0's, further on."""
HOST_TABLES = 0x4000_0000
SV39, SV48 = 8, 9
VMID, ASID = 3, 7
G_ROOT, G_MID, G_LOW, G_NEXT = 0x8000_0000, 0x8000_4000, 0x8000_5000, 0x8000_6000
"""L1's tables for L2: of all, of the first GiB, of its first and of its second 2 MiB."""
VS_ROOT, VS_MID, VS_LOW = 0x8001_0000, 0x8001_1000, 0x8001_2000
"""L2's tables as L1 has them; L2 has them from 0x1000 on."""
DATA = 0x8020_0000
VS_TABLE_PAGES = (1, 2, 3)
PAGES = (1, 2, 3, *range(16, 32))
SPOTS = st.sampled_from([0, 0, 1, 5, 11, 16, 17])
"""Where L2 looks and changes: few places, so that what happens meets."""
G_PAGES = st.sampled_from([1, 2, 3, 16, 16, 16, 17, 17, 21, 27])
"""L2's pages in its first 2 MiB: its tables, and one aligned group of 16."""
MIB2 = 1 << 21

RIGHTS = st.sampled_from([RWX, RWX, RWX, R | W, R, X, X, R | X])
FLAGS = st.sampled_from([A | D, A | D, A, 0, D])
TARGETS = st.sampled_from([0, 0x1000, 0x7000, 0x1F_F000, 0x20_0000, 0x1000_0000 - DATA])
"""From DATA on; the last is a device."""
GROUP = st.sampled_from([0, 0, 0, N])
MEMORY_TYPE = st.sampled_from([0, 0, 0, NC, IO])


@attrs.frozen
class GPage:
    """L1 has one of L2's pages elsewhere, and makes the fence for it."""

    page: int
    target: int
    bits: int
    every_vmid: bool


@attrs.frozen
class GLarge:
    """L1 has L2's second 2 MiB as one page, or behind a table, and makes a fence at an address of them."""

    target: int | None
    bits: int
    fence_at: int


@attrs.frozen
class VsPage:
    """L2 changes the entry of one of its 16 pages of program (``page`` 16: the next 2 MiB), and makes the fence."""

    page: int
    guest_page: int
    bits: int
    by_address: bool


@attrs.frozen
class Go:
    """L2 makes an access."""

    access: Access
    page: int
    offset: int
    user: bool
    status: int
    """SUM and MXR of vsstatus."""
    mxr: int = 0
    """MXR of HS-mode."""


@attrs.frozen
class Upkeep:
    """L0 takes a page away, asks whether it was used, or whether it was written."""

    what: str
    frame: int


LEAVES = st.builds(
    lambda *bits: functools.reduce(operator.or_, bits), RIGHTS, FLAGS, st.sampled_from([U, U, U, 0]), MEMORY_TYPE
)
GROUPED = st.builds(operator.or_, LEAVES, GROUP)
KIND = st.sampled_from(KINDS)
STATUS = st.sampled_from([0, SUM, MXR, SUM | MXR])
GOES = st.one_of(
    st.builds(Go, KIND, SPOTS, st.integers(0, 4088), st.booleans(), STATUS, st.sampled_from([0, 0, MXR])),
    st.builds(Go, KIND, SPOTS, st.just(0), st.just(value=False), st.just(SUM)),
)
VS_TARGETS = st.sampled_from([*PAGES, 512, 700, 1024, 1 << 29])
EDITS = st.one_of(
    st.builds(GPage, G_PAGES, TARGETS, GROUPED, st.booleans()),
    st.builds(GLarge, st.sampled_from([None, 0, MIB2, 0x1000]), LEAVES, st.integers(0, 511)),
    st.builds(VsPage, SPOTS.map(lambda page: min(page, 16)), VS_TARGETS, GROUPED, st.booleans()),
)
UPKEEP = st.builds(
    Upkeep, st.sampled_from(["unmap", "age", "dirty"]), st.sampled_from([0, 4, 5, 17, 18, 512, 513, 519])
)
EVENTS = st.lists(st.one_of(GOES, EDITS, UPKEEP), min_size=4, max_size=40)


class Nest:
    """L0, L1's memory twice (in L0's, and as the truth has it), and L2.

    :param host_shift: log2 of the pages behind L1's memory.
    :param menvcfg: of the machine, and of L1's as L1 sees it (``virtual``).
    """

    def __init__(self, host_shift: int, menvcfg: int, virtual: int, henvcfg: int) -> None:
        self.memory, self.truth_memory = PhysicalMemory(), PhysicalMemory()
        allocator = PageAllocator(self.memory, HOST_TABLES, HOST_TABLES + 0x0100_0000)
        self.host = RiscvHypervisor(self.memory, allocator, mode=SV48, menvcfg=menvcfg)
        self.guest = self.host.create_guest(HardwareTag(1), Slots((L1,)), LinearBacking(OFFSET, host_shift))
        self.host.tags.used.add(1)
        own = self.guest.registers
        own.menvcfg, own.henvcfg = virtual, henvcfg
        own.vsatp = SV39 << 60 | ASID << 44 | 1
        own.hstatus = 1 << 8
        self.guests = self.host.nested_guests(self.guest)
        self.host.write_hgatp(self.guest, SV39 << 60 | VMID << 44 | G_ROOT >> 12)
        self.handler = self.host.handler(self.guest)
        self.tlb = Tlb()
        self.kept: list[tuple[Registers, Access, int]] = []
        self.host.listeners.append(self.tlb.flush)
        self._build()
        nested = finish(self.host.enter(self.guest, self.guests))
        assert nested is not None
        self.nested = nested

    def _build(self) -> None:
        self.word(G_ROOT, pte(G_MID, V))
        self.word(G_MID, pte(G_LOW, V))
        self.word(G_MID + 8, pte(G_NEXT, V))
        for page, home in zip(VS_TABLE_PAGES, (VS_ROOT, VS_MID, VS_LOW), strict=True):
            self.word(G_LOW + 8 * page, pte(home, V | RWX | U | A | D))
        self.word(VS_ROOT, pte(0x2000, V))
        self.word(VS_MID, pte(0x3000, V))
        for page in range(16):
            self.word(VS_LOW + 8 * page, pte(0x1_0000 + 0x1000 * page, V | RWX))
            self.word(G_LOW + 8 * (16 + page), pte(DATA + 0x1000 * page, V | RWX | U))
            self.word(G_NEXT + 8 * page, pte(DATA + MIB2 + 0x1000 * page, V | RWX | U))
        self.word(VS_MID + 8, pte(MIB2, V | RWX))

    def word(self, address: int, value: int) -> None:
        """Store a word in L1's memory, without a fence."""
        self.memory.store(address + OFFSET, value, 8, "little")
        self.truth_memory.store(address, value, 8, "little")

    def read(self, address: int) -> int:
        """Return a word of L1's memory."""
        return self.truth_memory.load(address, 8, "little")

    def rewrite(self, table: int, page: int, target: int, bits: int) -> bool:
        """Write an entry of a table of pages of 4 KiB, or all 16 of its group where it is of one, or shall be.

        :returns: whether a fence of one address of the page is enough: one leaf was there before.
        """
        was_group = bool(self.read(table + 8 * page) & N)
        if table == G_LOW and page < 16:
            bits &= ~N
        if not bits & N and not was_group:
            self.word(table + 8 * page, pte(target, V | bits))
            return True
        for number in range(16):
            low = 0x8000 if bits & N else 0x1000 * number
            self.word(table + 8 * (page & -16) + 8 * number, pte(target & -0x1_0000 | low, V | bits))
        return was_group

    def fence(self, kind: FenceKind, address: int | None, space: int | None) -> None:
        """Do a fence of L1, or L2's SFENCE.VMA, which is the hart's to do."""
        if kind is FenceKind.SFENCE_VMA:
            for flush in scopes_of(Fence(kind, address, space, vmid=self.nested.tag)):
                self.tlb.flush(flush)
        else:
            self.host.fence(self.guest, Fence(kind, address, space, vmid=VMID))

    def do(self, event: GPage | GLarge | VsPage | Go | Upkeep) -> None:
        """Let an event happen."""
        if isinstance(event, GPage):
            by_address = self.rewrite(G_LOW, event.page, DATA + event.target, event.bits)
            self.fence(
                FenceKind.HFENCE_GVMA, event.page << 10 if by_address else None, None if event.every_vmid else VMID
            )
            if event.page in VS_TABLE_PAGES:  # what was read there is the VS-stage's
                self.fence(FenceKind.HFENCE_VVMA, None, None)
        elif isinstance(event, GLarge):
            leaf, was_leaf = event.target is not None, bool(self.read(G_MID + 8) & RWX)
            self.word(G_MID + 8, pte(DATA + (event.target or 0), V | event.bits) if leaf else pte(G_NEXT, V))
            # A fence by address is of leaves alone; at any address of a leaf's page it is of that leaf.
            self.fence(FenceKind.HFENCE_GVMA, MIB2 + 0x1000 * event.fence_at >> 2 if was_leaf else None, VMID)
        elif isinstance(event, VsPage):
            by_address, address = event.by_address, event.page << 12
            if event.page == 16:
                self.word(VS_MID + 8, pte(event.guest_page << 12, V | event.bits))
                address = MIB2 + 0x5000
            else:
                by_address &= self.rewrite(VS_LOW, event.page, event.guest_page << 12, event.bits)
            self.fence(FenceKind.SFENCE_VMA, address if by_address else None, ASID)
        elif isinstance(event, Go):
            self.go(event)
        else:
            self.upkeep(event)

    def upkeep(self, event: Upkeep) -> None:
        """Let L0 look after L1's memory."""
        address = L1.base + (event.frame << 12)
        if event.what == "unmap":
            upkeep.unmap_range(self.guest, address, address + 0x1000)
        elif event.what == "age":
            upkeep.age(self.guest, address)
            assert not upkeep.is_young(self.guest, address)
        else:
            upkeep.take_dirty(self.guest, address)

    def registers(self) -> tuple[Registers, Registers]:
        """Return the hart's registers while L2 runs, and those of the truth's."""
        own = self.guest.registers
        return self.host.registers_of(self.guest, self.nested), attrs.evolve(own, virtual=True)

    def go(self, event: Go) -> None:
        """Make an access on both, and compare."""
        own = self.guest.registers
        own.user, own.vsstatus, own.mstatus = event.user, event.status, event.mxr
        address = event.page << 12 | event.offset
        if event.page > 15:
            address = MIB2 + (event.page - 16 << 12) | event.offset
        hart, plain = self.registers()
        cpu = RiscvCpu(hart, self.memory)
        truth = RiscvCpu(plain, self.truth_memory, ram=L1).access(event.access, address)
        loop = Attempt(lambda: cpu.access(event.access, address), as_exit, self.handle)
        result, outcome = loop.run()
        assert len(loop.faults) <= 8  # three entries read and one written, the page itself, each missing or clean
        self.compare(result, outcome, truth, loop.faults[-1][0] if loop.faults else None)
        if isinstance(result, Reached):
            kept = cpu.translation(event.access, address, result)
            assert kept is not None
            self.tlb.insert(kept)
            self.kept.append((attrs.evolve(plain), event.access, address))

    def handle(self, exit_: Exit) -> Outcome:
        """Handle one exit of L2 as L0."""
        return finish(self.handler.handle(self.nested, exit_))

    def compare(
        self, result: Reached | Trap, outcome: Outcome | None, truth: Reached | Trap, last: Exit | None
    ) -> None:
        """Compare how an access of L2 has ended."""
        if outcome is None and isinstance(result, Reached):
            assert isinstance(truth, Reached), (result, truth)
            assert (result.address, result.guest, result.pbmt) == (truth.address + OFFSET, truth.guest, truth.pbmt)
        elif outcome is None:
            assert result == truth
        elif outcome.verdict is Verdict.EMULATE:
            assert isinstance(truth, Trap)
            assert truth.name.endswith("access fault")
            assert outcome.address is not None
            assert not L1.base <= outcome.address < L1.end
            assert outcome.address & 0xFFF == truth.tval & 0xFFF
        elif outcome.verdict is Verdict.INJECT:
            assert last is not None
            assert inject(outcome, last) == truth
        else:
            assert outcome.verdict is Verdict.REFLECT
            assert isinstance(result, Trap)
            assert reflect(outcome, result) == truth

    def check(self) -> None:
        """Compare all that is to be alike when no fence is outstanding."""
        assert violations(self.guest) == []
        for number in self.truth_memory.frame_numbers():
            mine = self.memory.read((number << 12) + OFFSET, 4096)
            assert mine == self.truth_memory.read(number << 12, 4096), f"L1 frame {number:#x}"
        for registers, access, address in self.kept:
            hart = attrs.evolve(registers, hgatp=self.registers()[0].hgatp)
            place = RiscvCpu(hart, self.memory).context(access, address)
            assert place is not None
            found = self.tlb.lookup(*place, address)
            if found is not None and found.permissions & access:
                fresh = RiscvCpu(registers, self.truth_memory, ram=L1).probe(access, address)
                assert isinstance(fresh, Reached), (found, fresh)
                assert found.output_start + address - found.input_start == fresh.address + OFFSET


def as_exit(result: Reached | Trap) -> Exit | None:
    """Return the exit to L0 that a result is."""
    return decode(result) if isinstance(result, Trap) and result.name.endswith("guest-page fault") else None


SVADU, SVADE = ADUE | PBMTE, PBMTE


@pytest.mark.parametrize(
    ("menvcfg", "virtual", "henvcfg"),
    [(SVADU, SVADU, SVADU), (SVADU, SVADE, SVADU), (SVADU, SVADU, SVADE), (SVADE, SVADE, SVADE)],
)
@settings(max_examples=60)
@given(events=EVENTS, host_shift=st.sampled_from([12, 21]))
def test_the_shadow_is_the_two_stages(
    menvcfg: int, virtual: int, henvcfg: int, events: list[GPage | GLarge | VsPage | Go | Upkeep], host_shift: int
) -> None:
    nest = Nest(host_shift, menvcfg, virtual, henvcfg)
    for event in events:
        nest.do(event)
        nest.check()


def test_the_host_of_the_host_faults_with_the_same_record() -> None:
    nest = Nest(21, SVADU, SVADU, SVADU)
    hart = nest.host.registers_of(nest.guest)
    hart.vsatp = 0
    trap = RiscvCpu(hart, nest.memory).access(Access.STORE, G_ROOT + 8)
    assert isinstance(trap, Trap)
    assert trap == Trap(23, G_ROOT + 8, (G_ROOT + 8) >> 2)
    outcome = finish(HostFaultHandler(nest.guest).handle(decode(trap)))
    assert outcome.verdict is Verdict.RESUME
    again = RiscvCpu(hart, nest.memory).access(Access.STORE, G_ROOT + 8)
    assert isinstance(again, Reached)
    assert (again.address, again.page_shift) == (G_ROOT + 8 + OFFSET, 21)
