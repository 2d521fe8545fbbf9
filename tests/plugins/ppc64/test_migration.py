"""Vcpus of L2 that move between cores: K4, K4b, B11, TK6, TK7 with a TLB for each core."""

from __future__ import annotations

from typing import Any

from ppc64_fixture import HOST_PTCR, Fixture, N

from nestmmu import upkeep
from nestmmu.access import Access
from nestmmu.formats import AccessedDirty
from nestmmu.hypervisor import Attempt
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.placement import Arriving, Placement
from nestmmu.plugins import Plugins
from nestmmu.tlb import Tlb, TlbPlugin
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_SF
from nestmmu_ppc64_book3s.tlbie import flush_core
from nestmmu_ppc64_radix.exits import HvExit, decode
from nestmmu_ppc64_radix.quirks import Quirk

TOKEN = 3
FRAME = 0x180050000
"""Where N leads in L1."""


class Cores:
    """The fixture on two cores of four threads, each with a TLB of its own."""

    def __init__(self) -> None:
        self.nest = Fixture(Quirk.NONE)
        self.plugins = [TlbPlugin(Tlb(cpus=range(first, first + 4))) for first in (0, 4)]
        self.cpus: list[Any] = []
        for plugin in self.plugins:
            plugins = Plugins()
            plugins.register(plugin, "tlb")
            registers = {"msr": MSR_SF, "ptcr": HOST_PTCR, "lpidr": 7}
            self.cpus.append(plugins.cpu("ppc64_radix", registers, self.nest.memory, AccessedDirty.FAULT))
            self.nest.host.listeners.append(plugin.flush)

    def run(self, cpu: int, access: Access = Access.LOAD) -> Any:
        """Enter L2's vcpu on a CPU and let it make one access."""
        self.nest.host.arrive(self.nest.nested, TOKEN, cpu)
        core = self.cpus[cpu // 4]

        def decoded(result: Any) -> Any:
            return decode(HvExit.from_interrupt(result)) if isinstance(result, Interrupt) else None

        result, _ = Attempt(lambda: core.access(access, N), decoded, self.nest.handle_exit).run()
        return result.address

    def change_under_a_local_flush(self, cpu: int) -> None:
        """Take N's page away with a flush that reaches one core alone, as a guest's own tlbiel does."""
        host, everyone = self.nest.host, list(self.nest.host.listeners)
        here = Flush(self.nest.nested.tag, FlushKind.TAG, cpu=cpu)
        host.listeners[:] = [lambda _, plugin=plugin: plugin.flush(here) for plugin in self.plugins]  # type: ignore[misc]
        upkeep.unmap(self.nest.guest, FRAME)
        host.listeners[:] = everyone

    def stale(self) -> list[int]:
        return [len(plugin.stale) for plugin in self.plugins]


def test_a_vcpu_that_comes_back_finds_nothing_that_it_left() -> None:
    cores = Cores()
    for cpu in (0, 5):
        cores.run(cpu)
    cores.change_under_a_local_flush(5)
    cores.run(0)
    assert cores.stale() == [0, 0]


def test_without_need_tlb_flush_it_goes_on_with_a_stale_translation() -> None:
    """B11: the fix of 4.20 taken out."""
    cores = Cores()
    cores.nest.nested.placement = Forgetful()
    for cpu in (0, 5):
        cores.run(cpu)
    cores.change_under_a_local_flush(5)
    cores.run(0)
    assert cores.stale() == [1, 0]


class Forgetful(Placement):
    """Asks no core to flush."""

    def enter(self, vcpu: int, cpu: int) -> Arriving:
        super().enter(vcpu, cpu)
        return Arriving.NOTHING


def test_l2_has_the_threads_of_power9() -> None:
    cores = Cores()
    cores.run(0)
    cores.run(5)
    assert cores.nest.nested.placement.pending == {0, 1, 2, 3}
    before = len(cores.nest.flush_log())
    assert cores.nest.host.arrive(cores.nest.nested, 9, 2) is Arriving.FLUSH
    assert cores.nest.host.arrive(cores.nest.nested, 10, 1) is Arriving.SYNC
    assert [(one.tag, one.kind, one.cpu) for one in cores.nest.flushes[before:]] == [(7, FlushKind.TAG, 2)]


def test_each_l2_has_placements_of_its_own() -> None:
    cores = Cores()
    other = cores.nest.host.add_nested(cores.nest.guest, 6, 8)  # type: ignore[arg-type]
    cores.run(0)
    cores.run(5)
    assert other.placement.pending == set()
    assert other.placement.threads == 4


def test_the_tlbiel_of_a_core() -> None:
    """Set 0 with RIC=2, sets 1 to 127 with RIC=0; PRS=1, R=1, IS=2: RB is the set << 12 | 0x800."""
    operands = [one.encode() for one in flush_core()]
    assert operands[0] == (0xB0000, 0, 0x800)
    assert operands[1] == (0x30000, 0, 0x1800)
    assert operands[-1] == (0x30000, 0, 0x7F800)
    assert len(operands) == 128
