"""The TLB on POWER9: what is flushed is gone, what is not is a stale hit, and a flush of the wrong LPID shows."""

from __future__ import annotations

from typing import Any

import pytest
from ppc64_fixture import HOST_PTCR, LEAF_64K, Fixture, N

from nestmmu import upkeep
from nestmmu.access import Access
from nestmmu.addresses import HardwareTag
from nestmmu.formats import AccessedDirty
from nestmmu.hypervisor import Attempt
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.memory import PhysicalMemory
from nestmmu.outcomes import Verdict
from nestmmu.plugins import Plugins
from nestmmu.tlb import Tlb, TlbPlugin, Translation
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_SF, Registers
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import HvExit, decode
from nestmmu_ppc64_radix.quirks import Quirk

LOAD, STORE = Access.LOAD, Access.STORE
REAL = 0x580056789


class Machine:
    """The fixture, with L2 on a CPU behind a TLB that L0 tells of its invalidations."""

    def __init__(self, quirks: Quirk = Quirk.NONE) -> None:
        self.nest = Fixture(quirks)
        self.plugin = TlbPlugin()
        plugins = Plugins()
        plugins.register(self.plugin, "tlb")
        registers = {"msr": MSR_SF, "ptcr": HOST_PTCR, "lpidr": 7}
        self.cpu: Any = plugins.cpu("ppc64_radix", registers, self.nest.memory, AccessedDirty.FAULT)
        self.nest.host.listeners.append(self.plugin.tlb.flush)

    def access(self, access: Access = LOAD, address: int = N) -> Any:
        """Let L2 make an access; return where it ended, or how L0 ended it."""

        def decoded(result: Any) -> Any:
            return decode(HvExit.from_interrupt(result)) if isinstance(result, Interrupt) else None

        loop = Attempt(lambda: self.cpu.access(access, address), decoded, self.nest.handle_exit)
        result, outcome = loop.run()
        return result.address if outcome is None else outcome.verdict


def test_the_second_access_is_a_hit() -> None:
    machine = Machine()
    assert [machine.access(), machine.access(), machine.access(address=N + 8)] == [REAL, REAL, REAL + 8]
    assert machine.plugin.tlb.hits == 2
    assert len(machine.plugin.tlb) == 1
    assert machine.plugin.stale == []


def test_a_store_after_a_load_walks_and_sets_change() -> None:
    machine = Machine()
    machine.access(LOAD)
    machine.access(STORE)
    leaf = machine.nest.shadow()
    assert leaf is not None
    assert leaf[0] & 0x080


def test_every_way_to_lose_a_page_leaves_nothing_in_the_tlb() -> None:
    for lose in (
        lambda nest: upkeep.unmap(nest.guest, 0x180050000),
        lambda nest: nest.nested.shadow.remove(N),
        lambda nest: upkeep.flush_slot(nest.guest, next(iter(nest.guest.slots))),
        lambda nest: nest.host.forget_root(nest.nested),
    ):
        machine = Machine()
        machine.access()
        lose(machine.nest)
        assert len(machine.plugin.tlb) == 0
        assert machine.access() == REAL
        assert machine.plugin.stale == []


def test_an_invalidation_that_is_missing_is_a_stale_hit() -> None:
    machine = Machine()
    machine.access()
    machine.nest.host.listeners.remove(machine.plugin.tlb.flush)
    upkeep.unmap(machine.nest.guest, 0x180050000)
    assert machine.access() == REAL
    assert [(hit.access, hit.address, hit.fresh) for hit in machine.plugin.stale] == [(LOAD, N, None)]


def test_l1_that_changes_its_leaf_and_says_nothing_is_served_from_the_shadow_th17() -> None:
    """That is allowed: no walk reads L1's leaf, so the hit is not even stale."""
    machine = Machine()
    machine.access()
    machine.nest.leaf(0)
    assert machine.access() == REAL
    assert machine.plugin.stale == []
    machine.nest.nested.shadow.remove(N)
    assert machine.access() is Verdict.REFLECT


@pytest.mark.parametrize(
    ("quirks", "left"),
    [pytest.param(Quirk.FLUSHED_BY_L1_LPID, 1, id="B8-K"), pytest.param(Quirk.NONE, 0, id="B8-C")],
)
def test_a_flush_of_the_wrong_lpid_leaves_the_cleared_change_bit_in_the_tlb(quirks: Quirk, left: int) -> None:
    """With it, a store goes on through the TLB and no one sees that the page was written: invariant 5."""
    machine = Machine(quirks)
    machine.access(STORE)
    machine.nest.flushes.clear()
    upkeep.take_dirty(machine.nest.guest, 0x180050000)
    assert len(machine.plugin.tlb) == left
    machine.access(STORE)
    leaf = machine.nest.shadow()
    assert leaf is not None
    assert bool(leaf[0] & 0x080) == (left == 0)
    assert bool(upkeep.take_dirty(machine.nest.guest, 0x180050000)) == (left == 0)


@pytest.mark.parametrize(
    ("vector", "registers", "on_table"),
    [
        (0xE00, {"hdsisr": 0x4002_0000}, True),
        (0xE00, {"hdsisr": 0x4000_0000}, False),
        (0xE20, {"hsrr1": 0x4002_0000}, True),
        (0xE20, {"hsrr1": 0x4000_0000}, False),
        (0x300, {"dsisr": 0x4002_0000}, False),
    ],
)
def test_which_interrupt_is_about_a_table_of_the_guests(vector: int, registers: dict[str, int], on_table: bool) -> None:
    """Bit 46 of HDSISR, or of HSRR1: the process table, or a table of the process, was not translated."""
    cpu = Power9Radix(Registers(), PhysicalMemory())
    assert cpu.on_table(Interrupt(vector, registers, hv=vector >= 0xE00)) is on_table
    assert not cpu.on_table(Reached(0, 16, 7))


def test_contexts_are_kept_apart() -> None:
    machine = Machine()
    machine.access()
    machine.cpu.registers.lpidr = 8
    assert isinstance(machine.cpu.access(LOAD, N), Interrupt)
    machine.cpu.registers.lpidr = 7
    assert isinstance(machine.cpu.access(LOAD, N), Reached)


def translation(tag: int, guest: int, shift: int = 16) -> Translation:
    return Translation(HardwareTag(tag), None, guest, shift, guest + (1 << 40), guest, 7)


@pytest.mark.parametrize(
    ("flush", "left"),
    [
        (Flush(HardwareTag(7), FlushKind.PAGE, 0x20000, 16), [(7, 0x10000), (8, 0x20000)]),
        (Flush(HardwareTag(7), FlushKind.PAGE, 0, 21), [(8, 0x20000)]),
        (Flush(HardwareTag(7), FlushKind.TAG), [(8, 0x20000)]),
        (Flush(HardwareTag(9), FlushKind.TAG), [(7, 0x10000), (7, 0x20000), (8, 0x20000)]),
        (Flush(HardwareTag(7), FlushKind.WALK_CACHE), [(7, 0x10000), (7, 0x20000), (8, 0x20000)]),
        (Flush(HardwareTag(7), FlushKind.PAGE, 0x1F000, 12), [(7, 0x20000), (8, 0x20000)]),
    ],
)
def test_each_scope(flush: Flush, left: list[tuple[int, int]]) -> None:
    tlb = Tlb()
    for tag, guest in ((7, 0x10000), (7, 0x20000), (8, 0x20000)):
        tlb.insert(translation(tag, guest))
    tlb.flush(flush)
    kept = [(tag, guest) for tag in (7, 8) for guest in (0x10000, 0x20000) if tlb.lookup(HardwareTag(tag), None, guest)]
    assert kept == left


def test_the_oldest_gives_way() -> None:
    tlb = Tlb(capacity=2)
    for guest in (0x10000, 0x20000, 0x30000):
        tlb.insert(translation(7, guest))
    assert len(tlb) == 2
    assert tlb.lookup(HardwareTag(7), None, 0x10000) is None


def test_the_fixtures_leaf_is_what_these_tests_take_it_for() -> None:
    assert LEAF_64K & 0x01FFFFFFFFFFF000 == 0x180050000
