"""Each quirk by name: what Linux 6.1 does with it, what is right, and the invariant that it breaks, or why none.

A scene is run four times: with the quirk alone and with none, with all that Linux has and with all but this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
from ppc64_fixture import GPA_TO_HPA, LEAF_64K, MSR, PC, N
from ppc64_nest import GPA, LARGE, NONE, PAGE, PAGE_OF_PID, REAL, Nest

from nestmmu import upkeep
from nestmmu.access import Access
from nestmmu.addresses import AssignedTag
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.outcomes import Verdict
from nestmmu.points import Point, finish
from nestmmu.quirks import Invariant
from nestmmu.slots import Slot
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_radix.exits import HvExit, decode, inject, reflect, return_code
from nestmmu_ppc64_radix.guest_state import HvGuestState, PtRegs
from nestmmu_ppc64_radix.nested_entry import L1Vcpu, L2Exit, L2Vcpu, NestedEntry
from nestmmu_ppc64_radix.nested_hcalls import RptRequest
from nestmmu_ppc64_radix.quirks import Quirk, quirk_infos

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.outcomes import Exit, Outcome

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
LEAF_2M = 0xC000000180000187
Scene = tuple[Any, frozenset[str]]
"""What is seen, and the invariants that do not hold."""


def breaks(invariant: Invariant, *, when: bool) -> frozenset[str]:
    return frozenset({invariant.name}) if when else NONE


def gigantic(quirks: Quirk) -> Scene:
    """2 MiB of L1's under 1 GiB of L0's: (faults to reach all of it, log2 of the shadow's page)."""
    nest = Nest(quirks, backing_shift=30)
    nest.leaf(LEAF_2M, "2M")
    for start in range(LARGE, LARGE + (1 << 21), 1 << 16):
        assert nest.access(STORE, start) == 0x580000000 + start - LARGE
    leaf = nest.shadow()
    return (len(nest.exits), leaf and leaf[1]), nest.broken()


def merged(quirks: Quirk) -> Scene:
    """L1 has changed its leaf, and a fault is handled before its flush: the shadow's leaf."""
    nest = Nest(quirks)
    nest.handle(nest.load())
    nest.leaf(0xC000000180060187)
    nest.handle(nest.load())
    return nest.shadow(), nest.broken()


def children(quirks: Quirk) -> Scene:
    """Two pages that L2 has used make way for a large one: the addresses that are flushed."""
    nest = Nest(quirks)
    nest.word(0x02012030, 0xC000000180060187)
    for address in (N, N + 0x10000):
        nest.access(LOAD, address)
    nest.flushes.clear()
    nest.plant_shadow(LARGE, 0xC000000600000187, 21)
    flushed = [address for _, kind, address, _ in nest.flush_log() if kind == "page"]
    nest.access(LOAD, N)
    return flushed, breaks(Invariant.INVALIDATION, when=bool(nest.plugin.stale))


def fetch_that_writes(quirks: Quirk) -> Scene:
    """Fetch where R needs write permission, L1 adding what it is shown to lack: (MSR that L1 first sees, the end)."""
    nest = Nest(quirks)
    nest.leaf(LEAF_64K & ~2)
    record = nest.fetch(0x8000000040019033)
    shown: list[int] = []
    for _ in range(8):
        outcome = nest.handle(record)
        if outcome.verdict is not Verdict.REFLECT:
            return (shown[0], outcome.verdict), NONE
        seen = reflect(outcome, record, quirks)
        shown.append(seen.msr)
        interrupt = Interrupt(0xE20, {"hsrr0": seen.pc, "hsrr1": seen.msr, "asdr": seen.asdr}, hv=True)
        fault = decode(HvExit.from_interrupt(interrupt)).fault
        leaf = nest.read_word(0x02012028)
        nest.leaf(leaf | {FETCH: 1, STORE: 2, LOAD: 4}[fault.access])
    return (shown[0], "livelock"), breaks(Invariant.PROGRESS, when=True)


def fetch_from_nowhere(quirks: Quirk) -> Scene:
    """Fetch where L2's process table lies outside memory: the vector by which L2 hears of it; a POWER9 raises ISI."""
    nest = Nest(quirks)
    nest.leaf(0xC000000300000187)
    exit_ = decode(nest.fetch(0x8000000040029033))
    vector = inject(nest.handle_exit(exit_), exit_, quirks).vector
    return vector, breaks(Invariant.EQUIVALENCE, when=vector != 0x400)


def no_memory(quirks: Quirk) -> Scene:
    """No page for a table, but for the next fault there is one: (return codes, the end)."""
    nest = Nest(quirks)
    nest.plant_l0(GPA, 0xC000000580050187)
    limit, nest.allocator.limit = nest.allocator.limit, nest.allocator._next + 4096
    codes: list[int] = []
    handle = nest.handle_exit

    def noted(exit_: Exit) -> Outcome:
        outcome = handle(exit_)
        codes.append(return_code(outcome))
        nest.allocator.limit = limit
        return outcome

    nest.handle_exit = noted  # type: ignore[method-assign]
    end = nest.access(STORE)
    return (codes, end), nest.broken() | breaks(Invariant.PROGRESS, when=end is Verdict.FAIL)


def write_alone(quirks: Quirk) -> Scene:
    """Load from a page that L1 lets be written, and so read, and L0 read: where it ends."""
    nest = Nest(quirks, writable=False)
    nest.leaf(LEAF_64K & ~0x004)
    end = nest.access(LOAD)
    return end, nest.broken() | breaks(Invariant.PROGRESS, when=end == "livelock")


def beyond_slot(quirks: Quirk) -> Scene:
    """Make a slot of 1 MiB in the middle of a page of 2 MiB of the host: log2 of L0's page."""
    nest = Nest(quirks, backing_shift=21)
    upkeep.replace_slot(nest.guest, next(iter(nest.guest.slots)), Slot(0, 0x1000_0000))
    upkeep.replace_slot(nest.guest, None, Slot(0x180010000, 0x100000))
    nest.leaf(LEAF_2M, "2M")
    assert nest.access() == REAL
    leaf = nest.l0_leaf(GPA)
    return leaf and leaf[1], nest.broken()


def aged_in_the_middle(quirks: Quirk) -> Scene:
    """Age a page of 2 MiB of L0's by a frame in its middle, and use it: (low bits of both leaves, whether young).

    The TLB is empty by then, so that it is the shadow that lets the page be used and no one see it.
    """
    nest = Nest(quirks, backing_shift=21)
    nest.access(STORE)
    assert upkeep.age(nest.guest, GPA)
    low, broken = nest.low(), nest.broken()
    nest.plugin.flush(Flush(nest.nested.tag, FlushKind.TAG))
    nest.access(LOAD)
    return (low, upkeep.is_young(nest.guest, GPA)), broken


def wrong_lpid(quirks: Quirk) -> Scene:
    """Write a page, report it, and write it again: (LPIDs that are flushed, whether the second write is reported)."""
    nest = Nest(quirks)
    nest.access(STORE)
    nest.flushes.clear()
    assert upkeep.take_dirty(nest.guest, GPA)
    lpids = [tag for tag, *_ in nest.flush_log()]
    nest.access(STORE)
    again = upkeep.take_dirty(nest.guest, GPA)
    return (lpids, again), breaks(Invariant.DIRTY, when=not again)


def stale_change(quirks: Quirk) -> Scene:
    """Take the dirty log while a store's fault has L0's leaf in hand: (low bits, whether the store is reported)."""
    nest = Nest(quirks)
    nest.plant_l0(GPA, 0xC000000580050187)
    steps = nest.start(nest.store(), nth_lock=2)
    assert upkeep.take_dirty(nest.guest, GPA)
    finish(steps)
    low, broken = nest.low(), nest.broken()
    nest.access(STORE)
    return (low, upkeep.take_dirty(nest.guest, GPA)), broken


def creation_race(quirks: Quirk) -> Scene:
    """Two vcpus enter a new L2 at once: whether each gets it."""
    nest = Nest(quirks)
    both = [nest.guests.get(AssignedTag(6), create=True) for _ in range(2)]
    for steps in both:
        assert [next(steps), next(steps)] == [Point.LOCK, Point.UNLOCK]
    next(both[0])
    second = finish(both[1]) is not None
    first = finish(both[0]) is not None
    return (first, second), breaks(Invariant.PROGRESS, when=not (first and second))


def moved_partition_table(quirks: Quirk) -> Scene:
    """L1 gives another partition table, which has nothing for its L2: how L2's next load ends."""
    nest = Nest(quirks)
    nest.access(LOAD)
    assert nest.hcalls.set_partition_table(0x05000004) == 0
    end = nest.access(LOAD)
    return end, nest.broken() | breaks(Invariant.INVALIDATION, when=end is not Verdict.REFLECT)


def walk_flush(quirks: Quirk) -> Scene:
    """L1 flushes walk caches alone, over all addresses: (whether the shadow is still there, where L2 gets to)."""
    nest = Nest(quirks)
    nest.access(STORE)
    request = RptRequest(5, 1, 5, 0, 0, (1 << 64) - 1)
    assert finish(nest.hcalls.rpt_invalidate(request)) == 0
    left = nest.shadow() is not None
    return (left, nest.access(STORE)), nest.broken()


def copy_from_zero(quirks: Quirk) -> Scene:
    """Copy with neither pointer, where L1 has "zero" at 0: (the code, L2's memory)."""
    nest = Nest(quirks)
    nest.with_processes()
    nest.memory.write(GPA_TO_HPA, b"zero")
    nest.memory.write(PAGE_OF_PID[3] + 0x1000, b"mine")
    code = nest.copy(to=0, size=4)
    return (code, nest.memory.read(PAGE_OF_PID[3] + 0x1000, 4)), NONE


def mixed_endian(quirks: Quirk) -> Scene:
    """Have a little-endian L1 on a big-endian L0 enter an L2 that does one instruction: (code, L2's pc afterwards)."""
    nest = Nest(quirks)
    state, regs = 0x0500_0000, 0x0501_0000
    nest.guest.memory.write(state, HvGuestState(lpid=5).to_bytes("little"))
    nest.guest.memory.write(regs, PtRegs(nip=PC, msr=MSR).to_bytes("little"))
    entry = NestedEntry(nest.host, nest.guest, nest.guests, L1Vcpu(msr=MSR, byteorder="little"), byteorder="big")

    def step(cpu: L2Vcpu) -> L2Exit:
        return L2Exit(2, HvExit(0xC00, cpu.regs.msr, 0, 0, 0, cpu.regs.nip + 4))

    code = finish(entry.enter(state, regs, step)).r3
    after = PtRegs.from_bytes(nest.guest.memory.read(regs, 352), "little").nip
    return (code, after), breaks(Invariant.PROGRESS, when=after == PC)


@attrs.frozen
class Case:
    """What a scene shows with a quirk, and without."""

    scene: Callable[[Quirk], Scene]
    kernel: Any
    corrected: Any
    why: str = ""
    """Of the sentence that says why no invariant breaks: what it must say; empty: the table has one that breaks."""


CASES = {
    Quirk.BASE_PAGES_UNDER_GIGANTIC: Case(gigantic, (32, 16), (1, 21), "more faults"),
    Quirk.MERGED_TARGETS: Case(merged, (0xC000000580070107, 16), (0xC000000580060107, 16)),
    Quirk.CHILDREN_FLUSHED_AT_HOST_ADDRESS: Case(children, [0x580050000, 0x580060000], [PAGE, PAGE + 0x10000]),
    Quirk.FETCH_REFLECTED_AS_STORE: Case(
        fetch_that_writes, (0x800000000A009033, "livelock"), (0x8000000008019033, Verdict.RESUME)
    ),
    Quirk.DATA_INTERRUPT_FOR_FETCH: Case(fetch_from_nowhere, 0x300, 0x400),
    Quirk.NO_MEMORY_TO_GUEST: Case(no_memory, ([-12], Verdict.FAIL), ([0, 0], REAL)),
    Quirk.WRITE_WITHOUT_READ: Case(write_alone, "livelock", REAL),
    Quirk.PAGES_BEYOND_SLOT: Case(beyond_slot, 21, 16),
    Quirk.AGED_BY_FRAME: Case(aged_in_the_middle, ((0x087, 0x187), False), ((0x087, 0x087), True)),
    Quirk.FLUSHED_BY_L1_LPID: Case(wrong_lpid, ([1, 5], False), ([1, 7], True)),
    Quirk.STALE_REFERENCE_CHANGE: Case(stale_change, ((0x107, 0x187), False), ((0x107, None), True)),
    Quirk.CREATION_RACE_LOST: Case(creation_race, (True, False), (True, True)),
    Quirk.PARTITION_TABLE_STAYS_CACHED: Case(moved_partition_table, REAL, Verdict.REFLECT),
    Quirk.WALK_FLUSH_FLUSHES_ALL: Case(walk_flush, (False, REAL), (True, REAL), "always allowed"),
    Quirk.COPY_FROM_ZERO: Case(copy_from_zero, (0, b"zero"), (-4, b"mine"), "its own guest's memory"),
    Quirk.MIXED_ENDIAN_EXIT_FAILS: Case(mixed_endian, (-10, PC), (0xC00, PC + 4)),
}
"""K and C of the reference."""


def test_every_quirk_has_a_case() -> None:
    assert list(CASES) == [quirk for quirk in Quirk if quirk in Quirk.LINUX_6_1]
    assert [info.name for info in quirk_infos()] == [quirk.name for quirk in CASES]


@pytest.mark.parametrize("others", [Quirk.NONE, Quirk.LINUX_6_1], ids=["alone", "among-all"])
@pytest.mark.parametrize("quirk", CASES, ids=lambda quirk: quirk.name)
def test_a_quirk_breaks_what_the_table_says(quirk: Quirk, others: Quirk) -> None:
    case = CASES[quirk]
    info = next(info for info in quirk_infos() if info.name == quirk.name)
    seen, broken = case.scene(others | quirk)
    assert seen == case.kernel
    assert broken == (NONE if info.breaks is None else {info.breaks.name})
    assert case.scene(others & ~quirk) == (case.corrected, NONE)
    assert case.why in info.why_none
    assert bool(case.why) == (info.breaks is None)
