"""Hypervisors upon hypervisors: the toy's, and KVM on KVM."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from nestmmu import upkeep
from nestmmu.access import Access
from nestmmu.cli import app
from nestmmu.demo import Demo
from nestmmu.errors import NestmmuError, OutsideMemoryError
from nestmmu.hookspecs import hookimpl
from nestmmu.host_faults import HostFaultHandler
from nestmmu.hypervisor import LivelockError
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.invariants import violations
from nestmmu.outcomes import Verdict
from nestmmu.plugins import Plugins
from nestmmu.points import Point
from nestmmu.quirks import Invariant
from nestmmu.stack import Arrival, ChunkBacking, Layout, Stack
from nestmmu_ppc64_radix.stack import PowerMachine
from toy_arch.stack import ToyMachine

if TYPE_CHECKING:
    from nestmmu.guests import Guest
    from nestmmu.outcomes import Exit, Outcome
    from nestmmu.points import Steps
    from nestmmu.stack import Machine

LOAD, STORE = Access.LOAD, Access.STORE


def stack(arch: str, depth: int) -> Stack:
    machine: Machine = ToyMachine() if arch == "toy" else PowerMachine(Plugins().cpu)
    return Stack(machine, depth, [machine.page_shifts[number % 2] for number in range(depth)])


def test_a_layout_is_the_sum_of_what_each_level_keeps() -> None:
    layout = Layout(low=0x2000, tables=0x3E000, chunk=0x10000, work=0x40000)
    assert layout.start == 0x40000
    assert layout.size(0) == 0x40000
    assert layout.size(1) == 0x40000 + 0x40000 + 0x20000
    assert layout.size(2) == 0x40000 + 0xA0000 + 0x20000


def test_a_chunk_moves_to_the_oldest_free_place() -> None:
    backing = ChunkBacking(0x40000, 0x10000, 4, 2, 12)
    assert backing.where(0x1F00F) == 0x5F00F
    assert backing.where(0x40000) is None
    assert backing.move(1) == (0x50000, 0x80000)
    assert backing.where(0x1F00F) == 0x8F00F
    assert backing.move(0) == (0x40000, 0x90000)
    assert backing.move(2) == (0x60000, 0x50000)


@pytest.mark.parametrize("arch", ["toy", "power"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_access_arrives_where_the_chain_of_backings_leads(arch: str, depth: int) -> None:
    made = stack(arch, depth)
    start = made.machine.layout.start
    for address in (0, 0x12348, made.machine.layout.work - 8):
        for access in Access:
            assert made.access(depth, access, address) == Arrival(address + depth * start)
    made.quiet = True
    assert [violations(level.guest) for level in made.levels] == [[]] * depth


@pytest.mark.parametrize("arch", ["toy", "power"])
def test_who_handles_the_first_load_of_the_innermost_guest(arch: str) -> None:
    """L1 and L2 map a page once each, the host of each asked by it; L0 sees every exit first."""
    made = stack(arch, 3)
    made.access(3, LOAD, 0)
    outer, middle, inner = made.levels
    assert inner.faults == 1
    assert inner.reflected == 0
    assert middle.faults > inner.faults
    assert outer.faults > middle.faults
    assert outer.reflected == middle.faults
    assert middle.reflected == inner.faults
    assert [len(level.guest.nested) for level in made.levels] == [2, 1, 0]


@pytest.mark.parametrize("arch", ["toy", "power"])
def test_an_address_beyond_the_innermost_memory_is_its_own_hosts_device(arch: str) -> None:
    made = stack(arch, 3)
    arrival = made.access(3, LOAD, made.machine.layout.work)
    assert arrival.address is None
    assert arrival.level == 2
    assert arrival.outcome is not None
    assert arrival.outcome.verdict is Verdict.EMULATE


@pytest.mark.parametrize("arch", ["toy", "power"])
def test_a_hypervisor_has_no_memory_beyond_what_its_host_gave_it(arch: str) -> None:
    made = stack(arch, 2)
    with pytest.raises(OutsideMemoryError):
        made.levels[1].hypervisor.memory.read(made.levels[0].guest.slots.find(0).end, 1)  # type: ignore[union-attr]


@pytest.mark.parametrize("arch", ["toy", "power"])
def test_what_l1_unmaps_is_gone_from_the_shadow_that_l0_keeps(arch: str) -> None:
    made = stack(arch, 2)
    made.access(2, STORE, 0)
    (nested,) = made.levels[0].guest.nested.values()
    assert len(list(nested.shadow.table.leaves())) == 1
    upkeep.unmap(made.levels[1].guest, 0)
    assert list(nested.shadow.table.leaves()) == []


class Watched(HostFaultHandler):
    """L1's handler, which first looks at what L0 wrote into L1's memory."""

    def __init__(self, guest: Guest, seen: list[bytes], made: Stack) -> None:
        super().__init__(guest)
        self.seen = seen
        self.made = made

    def handle(self, exit_: Exit) -> Steps[Outcome]:
        self.seen.append(self.made.levels[0].guest.memory.read(0x1000, 248))
        return super().handle(exit_)


def idle(*_: object, **__: object) -> Steps[str]:
    yield Point.PREEMPT
    return ""


def test_l1_writes_hv_guest_state_and_finds_the_exit_in_it() -> None:
    """Big-endian L1 on big-endian L0, word by word: version, LPID, HDAR, HDSISR, ASDR of a load that L1 must map."""
    machine = PowerMachine(Plugins().cpu, byteorder="big")
    made = Stack(machine, 2, [16, 16])
    seen: list[bytes] = []
    made.levels[1].host_faults = Watched(made.levels[1].guest, seen, made)
    made.access(2, LOAD, 0x12340)
    raw = seen[0]
    version, lpid, token = struct.unpack_from(">QII", raw)
    words = struct.unpack_from(">29Q", raw, 16)
    assert (version, lpid, token) == (2, 1, 0)
    assert words[14:16] == (0x12340, 0x4000_0000)
    assert words[17] & ~0xFFF == 0x12000


def test_a_flush_that_l1_keeps_to_itself_shows() -> None:
    made = stack("power", 2)
    made.access(2, STORE, 0)
    host = made.levels[1].hypervisor
    host.listeners = host.listeners[:1]
    upkeep.unmap(made.levels[1].guest, 0)
    made.quiet = True
    broken = [violation.invariant for violation in violations(made.levels[0].guest)]
    assert broken == [Invariant.INVALIDATION]


def test_a_hypervisor_that_mends_nothing_is_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stack("power", 1)
    monkeypatch.setattr("nestmmu.host_faults.instantiate", idle)
    with pytest.raises(LivelockError, match="L0 handles faults of 0x0 again and again"):
        made.access(1, LOAD, 0)


def test_no_tag_is_left_for_a_nested_guest() -> None:
    made = stack("toy", 2)
    tags = made.levels[0].nested.tags
    while tags.allocate() is not None:
        pass
    with pytest.raises(NestmmuError, match="L0 cannot run guest 1 of its guest"):
        made.access(2, LOAD, 0)


class ToyPlugin:
    @hookimpl
    def nestmmu_machine(self, arch: str) -> ToyMachine | None:
        return ToyMachine() if arch == "toy" else None


@pytest.mark.parametrize(("arch", "depth", "events"), [("toy", 2, 150), ("toy", 3, 80), ("ppc64_radix", 2, 120)])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_invariant_breaks_while_every_level_is_busy(arch: str, depth: int, events: int, seed: int) -> None:
    plugins = Plugins()
    plugins.register(ToyPlugin(), "toy")
    demo = Demo(plugins, arch, depth, seed)
    assert [one for found in demo.run(events) for one in found] == []
    assert demo.counts["access"] > events / 2
    assert set(demo.counts) == {"access", "age", "flush", "log", "move", "unmap"}


@pytest.mark.parametrize(
    ("lost", "invariant"),
    [
        pytest.param(lambda demo: demo.stack.levels[1].hypervisor.listeners.pop(), Invariant.INVALIDATION, id="L1's"),
        pytest.param(
            lambda demo: demo.stack.levels[0].hypervisor.listeners.__delitem__(slice(1, None)),
            Invariant.INVALIDATION,
            id="L0's",
        ),
    ],
)
def test_flushes_that_are_lost_break_an_invariant(lost, invariant: Invariant) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    demo = Demo(Plugins(), "ppc64_radix", 2, 0)
    lost(demo)
    found = [one for broken in demo.run(120) for one in broken]
    assert invariant in {one.violation.invariant for one in found}


def test_a_demo_is_the_same_for_one_seed() -> None:
    first, second = (CliRunner().invoke(app, ["demo", "--events", "40", "--seed", "5", "--json"]) for _ in range(2))
    assert first.exit_code == 0
    assert first.output == second.output
    found = json.loads(first.output)
    assert found["depth"] == 2
    assert sum(found["events"].values()) == 40
    assert found["violations"] == []
    assert [level["level"] for level in found["levels"]] == [0, 1]


def test_the_table_of_a_demo() -> None:
    result = CliRunner().invoke(app, ["demo", "--events", "30", "--depth", "2"])
    assert result.exit_code == 0
    assert "A nest of depth 2" in result.output
    assert "invariants broken: 0" in result.output


def test_the_kernels_mistakes_lose_a_store() -> None:
    """FLUSHED_BY_L1_LPID leaves C in the TLB: the log of L0 misses a store."""
    result = CliRunner().invoke(app, ["demo", "--events", "300", "--seed", "1", "--faithful", "--json"])
    assert result.exit_code == 1
    assert {one["invariant"] for one in json.loads(result.output)["violations"]} == {"dirty"}


def test_an_architecture_without_a_machine() -> None:
    result = CliRunner().invoke(app, ["demo", "--arch", "abacus"])
    assert result.exit_code == 2
    assert "abacus" in result.output


def test_flush_of_the_whole_guest_is_a_request_to_the_parent() -> None:
    made = stack("toy", 2)
    made.access(2, LOAD, 0)
    before = made.levels[0].requests
    made.levels[1].hypervisor.flush(Flush(made.levels[1].guest.tag, FlushKind.TAG))
    assert made.levels[0].requests == before + 1
    (nested,) = made.levels[0].guest.nested.values()
    assert list(nested.shadow.table.leaves()) == []
