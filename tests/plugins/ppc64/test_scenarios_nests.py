"""Scenarios of the reference on whole nests: the order of locks (TK8), L3 under L2 (TK9), every access ends (TK12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ppc64_fixture import ISSTORE, LEAF_64K, NOHPTE, PROTFAULT, PTE_ENTRY, SET_RC
from ppc64_nest import GPA, NONE, REAL, Nest

from nestmmu.access import Access
from nestmmu.events import Event, EventKind
from nestmmu.explore import Explorer
from nestmmu.outcomes import Verdict
from nestmmu.plugins import Plugins
from nestmmu.points import Point, finish
from nestmmu.stack import Arrival, Stack
from nestmmu_ppc64_radix.exits import HvExit, decode, reflect
from nestmmu_ppc64_radix.guest_state import HvGuestState, PtRegs
from nestmmu_ppc64_radix.kvm import KvmHostFaults
from nestmmu_ppc64_radix.nested_entry import L1Vcpu, L2Exit, NestedEntry
from nestmmu_ppc64_radix.nested_hcalls import CopyRequest, RptRequest
from nestmmu_ppc64_radix.quirks import Quirk
from nestmmu_ppc64_radix.stack import PowerMachine

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.outcomes import Exit, Outcome
    from nestmmu.points import Steps

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
TAKES = {Point.LOCK_NESTED: "nested", Point.LOCK: "guest"}
GIVES = {Point.UNLOCK_NESTED: "nested", Point.UNLOCK: "guest"}


def enters(nest: Nest) -> Steps[Any]:
    nest.guest.memory.write(0x0500_0000, HvGuestState(lpid=6).to_bytes("big"))
    nest.guest.memory.write(0x0501_0000, PtRegs().to_bytes("big"))
    entry = NestedEntry(nest.host, nest.guest, nest.guests, L1Vcpu(byteorder="big"), byteorder="big")
    return entry.enter(0x0500_0000, 0x0501_0000, lambda _: L2Exit(2, HvExit(0xC00, 0, 0, 0, 0, 0)))


def faults(record: Callable[[Nest], HvExit]) -> Callable[[Nest], Steps[Any]]:
    return lambda nest: nest.handler.handle(nest.nested, decode(record(nest)))


SCRIPTS: dict[str, Callable[[Nest], Steps[Any]]] = {
    "load": faults(lambda nest: nest.load()),
    "store": faults(lambda nest: nest.store()),
    "set-rc": faults(lambda nest: nest.store(SET_RC | ISSTORE)),
    "protection": faults(lambda nest: nest.store(PROTFAULT | ISSTORE)),
    "fault-of-l1": lambda nest: KvmHostFaults(nest.guest).handle(decode(nest.load(asdr=GPA))),
    "tlbie-page": lambda nest: nest.hcalls.tlb_invalidate(0x10000, 5, 0x1234500A0),
    "tlbie-lpid": lambda nest: nest.hcalls.tlb_invalidate(0x10000, 5, 0x800),
    "tlbie-lpid-with-pate": lambda nest: nest.hcalls.tlb_invalidate(0x90000, 5, 0x800),
    "tlbie-all": lambda nest: nest.hcalls.tlb_invalidate(0x90000, 0, 0xC00),
    "rpt": lambda nest: nest.hcalls.rpt_invalidate(RptRequest(5, 1, 3, 2, 0x123400000, 0x123500000)),
    "copy": lambda nest: nest.hcalls.copy_tofrom_guest(CopyRequest(5, 3, 0x1000, 0x5000, 0, 8)),
    "release-all": lambda nest: nest.guests.release_all(),
    "enter": enters,
}


def disorder(points: list[Point]) -> str:
    """Return what is wrong with the order of a trace's locks; the nested guest's comes before the guest's."""
    held: list[str] = []
    for at, point in enumerate(points):
        lock = TAKES.get(point)
        if lock is not None:
            if lock in held or "guest" in held:
                return f"step {at}: takes the {lock}'s lock and has {held}"
            held.append(lock)
        elif point in GIVES and (not held or held.pop() != GIVES[point]):
            return f"step {at}: gives the {GIVES[point]}'s lock back, which was not the last that it took"
    return f"ends with {held}" if held else ""


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("leaf", [LEAF_64K, 0, LEAF_64K & ~0x182], ids=["mapped", "absent", "read-only"])
def test_the_nested_guests_lock_comes_before_the_guests_tk8(name: str, leaf: int) -> None:
    nest = Nest()
    nest.with_processes()
    nest.leaf(leaf)
    points = list(SCRIPTS[name](nest))
    assert TAKES.keys() & set(points)
    assert disorder(points) == ""


@pytest.mark.parametrize("trace", [[Point.LOCK, Point.LOCK_NESTED], [Point.LOCK_NESTED], [Point.LOCK, Point.LOCK]])
def test_a_trace_in_another_order_is_found_tk8(trace: list[Point]) -> None:
    assert disorder(trace)


def reversed_order(nest: Nest) -> Steps[None]:
    del nest
    yield from (Point.LOCK, Point.LOCK_NESTED, Point.UNLOCK_NESTED, Point.UNLOCK)


@pytest.mark.parametrize(
    ("other", "problem"),
    [(SCRIPTS["tlbie-page"], ""), (SCRIPTS["copy"], ""), (reversed_order, "every script waits for another")],
    ids=["tlbie-page", "copy", "reversed"],
)
def test_no_two_wait_for_each_other_tk8(other: Callable[[Nest], Steps[Any]], problem: str) -> None:
    def make() -> Nest:
        nest = Nest()
        nest.plant_l0(GPA, 0xC000000580050187)
        return nest

    report = Explorer(make, [SCRIPTS["store"], other], lambda _: "", Nest.state).explore(bound=3000)
    assert (report.problem, report.complete) == (problem, not problem)


class Nested3:
    """Three hypervisors, and what each was told of: L3 is the guest of the last."""

    def __init__(self) -> None:
        self.stack = Stack(PowerMachine(Plugins().cpu), 3, [16, 16, 16])
        self.told: list[tuple[int, Event]] = []
        for level in self.stack.levels:
            level.hypervisor.announce = lambda event, number=level.number: self.told.append((number, event))
        self.end = Arrival(3 * self.stack.machine.layout.start)

    def load(self) -> list[tuple[int, int]]:
        """Load from L3's address 0; return (level, address) of each fault that a hypervisor gave to its guest."""
        self.told.clear()
        assert self.stack.access(3, LOAD, 0) == self.end
        return [(number, event.address) for number, event in self.told if event.kind is EventKind.REFLECT]

    def shadow_of_l3(self, level: int) -> Any:
        """Return the editor of the shadow that a level keeps of L3: L1's is a shadow over a shadow."""
        nested = self.stack.levels[level].guest.nested
        return nested[max(nested)].shadow


def test_l3_is_resolved_in_two_stages_by_the_shadow_of_a_shadow_tk9() -> None:
    nest = Nested3()
    nest.load()
    l0, l1, l2 = nest.stack.levels
    assert nest.shadow_of_l3(1).lookup(0) is not None
    before = [level.faults for level in nest.stack.levels]
    nest.shadow_of_l3(0).remove(0)
    assert nest.load() == []
    assert [level.faults - was for level, was in zip((l0, l1, l2), before, strict=True)] == [1, 0, 0]
    nest.shadow_of_l3(1).remove(0)
    assert nest.shadow_of_l3(0).lookup(0) is None
    assert nest.load() == [(0, 0)]
    assert l2.faults == before[2]


def test_l1_passes_on_only_what_l2s_table_lacks_tk9() -> None:
    """L0 shows L1 a fault of L1's shadow; L1 shows L2 one only where L2's own table for L3 has nothing."""
    nest = Nested3()
    nest.load()
    l2 = nest.stack.levels[2]
    l2.guest.table.remove(0)
    reflected = nest.load()
    assert [address for level, address in reflected if level == 1] == [0]
    assert reflected[0] == (0, 0)
    assert l2.faults == 2


def mend(entry: int, dsisr: int, leaf: int) -> int:
    """Return L1's leaf after L1 has mended one thing: a leaf that may only be read, then a permission, R, C."""
    if dsisr & NOHPTE:
        return leaf & ~0xFFF | 0x004
    if dsisr & (PROTFAULT | 0x10000000):
        return entry | (0x002 if dsisr & ISSTORE else 0x001 if dsisr & 0x10000000 else 0x004)
    return entry | (0x080 if entry & 0x100 else 0x100)


def cooperate(nest: Nest, access: Access) -> tuple[Any, list[int]]:
    """Let L2 make an access until it arrives, L1 mending its leaf; return the end and the causes that L1 saw."""
    seen: list[int] = []
    records: list[HvExit] = []
    handle = nest.handle_exit

    def noted(exit_: Exit) -> Outcome:
        records.append(exit_.record)
        return handle(exit_)

    nest.handle_exit = noted  # type: ignore[method-assign]
    for _ in range(8):
        end = nest.access(access)
        if end is not Verdict.REFLECT:
            return end, seen
        outcome = finish(nest.handler.handle(nest.nested, decode(records[-1])))
        shown = reflect(outcome, records[-1], nest.host.quirks)
        cause = shown.msr & 0x783F0000 | shown.dsisr & ISSTORE if shown.fetch else shown.dsisr
        seen.append(cause)
        nest.leaf(mend(nest.read_word(PTE_ENTRY), cause, LEAF_64K))
    return "livelock", seen


@pytest.mark.parametrize(
    ("access", "causes"),
    [
        (STORE, [0x42000000, 0x0A000000, 0x02040000, 0x02040000]),
        (LOAD, [0x40000000, 0x00040000]),
        (FETCH, [0x40000000, 0x10000000, 0x00040000]),
    ],
)
@pytest.mark.parametrize("quirks", [Quirk.LINUX_6_1, Quirk.NONE], ids=["K", "C"])
def test_l1_needs_four_faults_at_most_tk12(quirks: Quirk, access: Access, causes: list[int]) -> None:
    """No leaf, no permission, no R, no C: what L1 mends one by one."""
    nest = Nest(quirks)
    nest.leaf(0)
    assert cooperate(nest, access) == (REAL, causes)
    assert nest.broken() == NONE


@settings(max_examples=80)
@given(
    l1=st.one_of(st.none(), st.integers(0, 0x1FF)),
    l0=st.one_of(st.none(), st.sampled_from([0x187, 0x107, 0x087, 0x007, 0x185, 0x105])),
    accesses=st.lists(st.sampled_from(list(Access)), min_size=1, max_size=4),
    quirks=st.sampled_from([Quirk.LINUX_6_1, Quirk.NONE]),
)
@example(l1=0x004, l0=0x105, accesses=[LOAD, STORE, FETCH, STORE], quirks=Quirk.LINUX_6_1)
def test_it_converges_wherever_it_begins_tk12(
    l1: int | None, l0: int | None, accesses: list[Access], quirks: Quirk
) -> None:
    """But for leaves that permit write and not read: on them Quirk.WRITE_WITHOUT_READ makes no progress."""
    if quirks is Quirk.LINUX_6_1 and l1 is not None and l1 & 6 == 2:
        l1 |= 4
    nest = Nest(quirks)
    nest.leaf(0 if l1 is None else LEAF_64K & ~0xFFF | l1)
    if l0 is not None:
        nest.plant_l0(GPA, 0xC000000580050000 | l0)
    for access in accesses:
        before = len(nest.exits)
        end, seen = cooperate(nest, access)
        assert end == REAL
        assert len(seen) <= 4
        assert len(nest.exits) - before <= 2 * (len(seen) + 1)
    assert nest.broken() == NONE


def test_a_small_page_under_a_large_host_is_the_exception_tk12_tb20() -> None:
    nest = Nest()
    nest.leaf(LEAF_64K | 0x6000, "4K")
    assert [nest.access() for _ in range(3)] == [Verdict.FAIL] * 3
