"""Fences as instructions, as scopes, and what they leave in a TLB and in a page-walk cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from riscv_guest import (
    ASID,
    EA,
    FULL,
    GUEST_FULL,
    HOST,
    PAGE,
    SUM,
    VMID,
    VS_TABLES,
    G,
    Machine,
    N,
    U,
    pte,
    reached,
)  # fmt: skip

from nestmmu.access import Access
from nestmmu.addresses import HardwareTag
from nestmmu.invalidation import HOST_OWN, Flush, FlushKind
from nestmmu.radix import RadixWalker
from nestmmu.tlb import CachedCpu, StaleHit, Tlb
from nestmmu.walk_cache import CachedWalker, WalkCache
from nestmmu_riscv.cpu import RiscvCpu
from nestmmu_riscv.fences import Fence, FenceKind, decode

if TYPE_CHECKING:
    from nestmmu.formats import AccessedDirty, RadixFormat
    from nestmmu.memory import Memory

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
SFENCE, VVMA, GVMA = FenceKind.SFENCE_VMA, FenceKind.HFENCE_VVMA, FenceKind.HFENCE_GVMA
REAL = HOST + PAGE + 0x678
SPACE, INPUT = FlushKind.ADDRESS_SPACE, FlushKind.INPUT_PAGE


def word(funct7: int, rs2: int, rs1: int) -> int:
    return funct7 << 25 | rs2 << 20 | rs1 << 15 | 0x73


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [
        (0x12B5_0073, SFENCE),
        (0x22B5_0073, VVMA),
        (0x62B5_0073, GVMA),
        (0x16B5_0073, SFENCE),
        (0x26B5_0073, VVMA),
        (0x66B5_0073, GVMA),
    ],
)
def test_instructions(instruction: int, kind: FenceKind) -> None:
    """With a0 (x10) and a1 (x11), as an assembler encodes them; the last three are Svinval's."""
    values = [0] * 32
    values[10], values[11] = 0x4000, 7
    assert Fence.decode(instruction, values, 5) == Fence(kind, 0x4000, 7, 5)


def test_x0_is_no_operand_and_another_register_of_zero_is() -> None:
    assert Fence.decode(word(0b0110001, 0, 0), [0] * 32) == Fence(GVMA)
    assert Fence.decode(word(0b0110001, 5, 6), [0] * 32) == Fence(GVMA, 0, 0)


@pytest.mark.parametrize("instruction", [0, 0x0000_0073, 0x1200_00F3, 0x1200_1073, 0x1200_0033, 0x1000_0073])
def test_what_is_no_fence(instruction: int) -> None:
    with pytest.raises(ValueError, match="is no fence"):
        Fence.decode(instruction, [0] * 32)


@pytest.mark.parametrize(
    ("fence", "flush"),
    [
        (Fence(SFENCE), Flush(HOST_OWN, SPACE)),
        (Fence(SFENCE, None, 7), Flush(HOST_OWN, SPACE, process=7)),
        (Fence(SFENCE, 0x1234, None, 5), Flush(HardwareTag(5), INPUT, 0x1000, 12)),
        (Fence(VVMA, None, None, 5), Flush(HardwareTag(5), SPACE)),
        (Fence(VVMA, 0x1FFF, 0x1_0007, 5), Flush(HardwareTag(5), INPUT, 0x1000, 12, process=7)),
        (Fence(GVMA), Flush(HardwareTag(0), FlushKind.TAG, every=True)),
        (Fence(GVMA, None, 0x4005), Flush(HardwareTag(5), FlushKind.TAG)),
        (Fence(GVMA, 0x1FFF >> 2, 5), Flush(HardwareTag(5), FlushKind.PAGE, 0x1000, 12)),
        (Fence(GVMA, 0x2000 >> 2), Flush(HardwareTag(0), FlushKind.PAGE, 0x2000, 12, every=True)),
    ],
)
def test_scopes(fence: Fence, flush: Flush) -> None:
    assert decode(fence) == [flush]


def test_hfence_vvma_is_of_a_guest() -> None:
    with pytest.raises(ValueError, match=r"name hgatp\.VMID"):
        decode(Fence(VVMA))


class Cached:
    """A machine behind a TLB."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.tlb, self.stale = machine, Tlb(), list[StaleHit]()

    def cached(self, address: int = EA) -> bool:
        """Tell whether an access hits."""
        hits = self.tlb.hits
        CachedCpu(self.machine.cpu, self.tlb, self.stale.append).access(LOAD, address)
        return self.tlb.hits > hits

    def fence(self, fence: Fence) -> None:
        for flush in decode(fence):
            self.tlb.flush(flush)


@pytest.mark.parametrize(
    ("fence", "stays"),
    [
        (Fence(VVMA, None, None, VMID), False),
        (Fence(VVMA, None, ASID, VMID), False),
        (Fence(VVMA, None, ASID + 1, VMID), True),
        (Fence(VVMA, EA, ASID, VMID), False),
        (Fence(VVMA, EA, None, VMID), False),
        (Fence(VVMA, EA, ASID + 1, VMID), True),
        (Fence(VVMA, EA + 0x1000, None, VMID), True),
        (Fence(VVMA, None, None, VMID + 1), True),
        (Fence(SFENCE), True),
        (Fence(GVMA), False),
        (Fence(GVMA, None, VMID), False),
        (Fence(GVMA, None, VMID + 1), True),
        (Fence(GVMA, PAGE >> 2, VMID), False),
        (Fence(GVMA, PAGE >> 2), False),
        (Fence(GVMA, PAGE >> 2, VMID + 1), True),
        (Fence(GVMA, PAGE + 0x20_0000 >> 2), True),
    ],
)
def test_what_a_fence_leaves_in_a_tlb(*, fence: Fence, stays: bool) -> None:
    cached = Cached(Machine())
    assert [cached.cached(), cached.cached()] == [False, True]
    cached.fence(fence)
    assert cached.cached() is stays
    assert cached.stale == []


def test_any_address_of_the_g_stages_page_will_do() -> None:
    """The TLB keeps 4 KiB, as the VS-stage has it; the G-stage's page has 2 MiB, and one fence is for all of it."""
    cached = Cached(Machine())
    cached.cached()
    cached.fence(Fence(GVMA, (PAGE & ~0x1F_FFFF) >> 2, VMID))
    assert not cached.cached()


def test_any_address_of_the_vs_stages_page_will_do() -> None:
    machine = Machine()
    machine.leaf(pte(PAGE & ~0xFFFF | 0x8000, FULL) | N)
    cached = Cached(machine)
    assert [cached.cached(), cached.cached(EA ^ 0x1000)] == [False, True]
    cached.fence(Fence(VVMA, EA & ~0xFFFF, ASID, VMID))
    assert not cached.cached()


def test_what_is_global_outlives_a_fence_of_an_asid() -> None:
    machine = Machine()
    machine.leaf(pte(PAGE, FULL | G))
    for fence, stays in ((Fence(VVMA, EA, ASID, VMID), True), (Fence(VVMA, EA, None, VMID), False)):
        cached = Cached(machine)
        cached.cached()
        cached.fence(fence)
        assert cached.cached() is stays


def test_a_missing_fence_shows() -> None:
    cached = Cached(Machine())
    cached.cached()
    cached.machine.leaf(pte(PAGE + 0x1000, FULL))
    assert cached.cached()
    assert [hit.address for hit in cached.stale] == [EA]


def test_a_translation_is_of_one_mode() -> None:
    """SUM and the privilege are no part of a fence: what hangs on them is kept apart."""
    machine = Machine(vsstatus=SUM)
    machine.leaf(pte(PAGE, FULL | U))
    cached = Cached(machine)
    assert [cached.cached(), cached.cached()] == [False, True]
    machine.registers.vsstatus = 0
    assert not cached.cached()
    machine.registers.user = True
    assert [cached.cached(), cached.cached()] == [False, True]


def test_hs_modes_own_translations() -> None:
    machine = Machine(g_mode=0, virtual=False)
    machine.registers.satp = machine.registers.vsatp
    cached = Cached(machine)
    for fence, stays in ((Fence(GVMA), True), (Fence(VVMA, None, None, 0), True), (Fence(SFENCE, EA, ASID), False)):
        cached.cached()
        cached.fence(fence)
        assert cached.cached() is stays
    machine.registers.satp = 0
    assert not cached.cached()
    assert not cached.cached()


@pytest.mark.parametrize(("taken", "is_stale"), [(VS_TABLES, False), (PAGE, True)])
def test_a_table_that_its_host_takes_away_leaves_the_pages_that_it_leads_to(taken: int, is_stale: bool) -> None:
    """HFENCE.GVMA with the address of the table's page: nothing makes a hart forget more than that page."""
    cached = Cached(Machine())
    cached.cached()
    cached.machine.g_leaf(taken, 0)
    assert cached.cached()
    assert bool(cached.stale) is is_stale


def test_a_hit_ends_where_a_walk_would() -> None:
    machine, tlb = Machine(), Tlb()
    cpu = CachedCpu(machine.cpu, tlb, lambda _: None)
    first = reached(cpu.access(STORE, EA))
    second = reached(cpu.access(LOAD, EA + 8))
    assert tlb.hits == 1
    assert (second.address, second.guest) == (first.address + 8, (first.guest or 0) + 8) == (REAL + 8, PAGE + 0x680)


def test_a_walk_cache_keeps_the_g_stages_directories_by_vmid() -> None:
    machine, cache = Machine(), WalkCache()
    stale: list[object] = []

    def make_walker(
        table_format: RadixFormat, memory: Memory, stage: str, accessed_dirty: AccessedDirty
    ) -> CachedWalker:
        return CachedWalker(RadixWalker(table_format, memory, stage, accessed_dirty), cache, stale.append)

    cpu = RiscvCpu(machine.registers, machine.memory, make_walker=make_walker)
    assert reached(cpu.access(LOAD, EA)).address == REAL
    assert len(cache) == 1
    for fence, left in (
        (Fence(GVMA, VS_TABLES >> 2, VMID), 1), (Fence(VVMA, None, None, VMID), 1), (Fence(GVMA, None, VMID + 1), 1),
        (Fence(GVMA, None, VMID), 0),
    ):  # fmt: skip
        for flush in decode(fence):
            cache.flush(flush)
        assert len(cache) == left
    assert reached(cpu.access(LOAD, EA)).address == REAL
    machine.real(0x8000_0000, pte(0x8005_0000, 1))
    machine.real(0x8005_0000, pte(HOST, GUEST_FULL))
    cpu.access(LOAD, EA)
    assert stale
