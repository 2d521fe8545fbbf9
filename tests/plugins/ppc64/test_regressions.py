"""Regressions of sections 4.1 to 4.3 of the reference: dirty tracking, flushes, lifetime and races.

Each is right in the model, and shows again as soon as its fix is taken out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest
from ppc64_fixture import ISSTORE, LEAF_64K, PATE_DW0, SET_RC, N
from ppc64_nest import GPA, LARGE, PAGE, REAL, Nest
from ppc64_regressions import Regression

from nestmmu import edit, host_faults, nested_faults, upkeep
from nestmmu.access import Access
from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.edit import TableEditor
from nestmmu.errors import PoisonedError
from nestmmu.explore import Explorer
from nestmmu.host_faults import page_depth
from nestmmu.invalidation import Flush
from nestmmu.mappings import Mapping
from nestmmu.nested_faults import NestedFaultHandler
from nestmmu.nested_guests import NestedGuests
from nestmmu.outcomes import RESUME, Outcome, Verdict
from nestmmu.points import Point, finish
from nestmmu.rmap import ReverseEntry
from nestmmu.slots import Slot
from nestmmu.tlb import Translation
from nestmmu_ppc64_book3s.partition import pate_address
from nestmmu_ppc64_radix.composer import KvmComposer
from nestmmu_ppc64_radix.exits import decode
from nestmmu_ppc64_radix.kvm import KvmHostFaults
from nestmmu_ppc64_radix.nested_hcalls import NestedHcalls, RptRequest
from nestmmu_ppc64_radix.nested_tlbie import NestedTlbie
from nestmmu_ppc64_radix.process_table import MmuModes
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from nestmmu.points import Steps

LOAD, STORE = Access.LOAD, Access.STORE
LEAF = 0xC000000580050000
LEAF_2M = 0xC000000180000187
Patch = pytest.MonkeyPatch


def names(nest: Nest) -> list[str]:
    """Return the invariants that do not hold."""
    return sorted(nest.broken())


def log(nest: Nest) -> list[int]:
    """Take the dirty log of the only slot, and return the frames in it."""
    bits = np.unpackbits(upkeep.dirty_log(nest.guest, next(iter(nest.guest.slots))), bitorder="little")
    return [int(frame) for frame in np.nonzero(bits)[0]]


def with_log(nest: Nest) -> None:
    upkeep.set_dirty_log(nest.guest, next(iter(nest.guest.slots)), on=True)


# 4.1: R and C


def b1(quirks: Quirk) -> str:
    """Explore a fault for C against an unmap of the host's."""

    def make() -> Nest:
        nest = Nest(quirks)
        nest.plant_l0(GPA, LEAF | 0x107)
        nest.handle(nest.load())
        return nest

    def sets(nest: Nest) -> Steps[Any]:
        return nest.handler.handle(nest.nested, decode(nest.store(SET_RC | ISSTORE)))

    def unmaps(nest: Nest) -> Steps[None]:
        yield Point.LOCK
        nest.guest.begin_invalidation()
        upkeep.unmap(nest.guest, GPA)
        nest.guest.end_invalidation()
        yield Point.UNLOCK

    report = Explorer(make, [sets, unmaps], lambda nest: ",".join(names(nest)), Nest.state).explore(4000)
    return report.problem if report.problem or report.complete else "not all of it was explored"


def b1_undo(monkeypatch: Patch) -> None:
    """Write what was read without the lock: both leaves come back after the unmap, and what led to the shadow's not."""

    def unlocked(self: NestedFaultHandler, nested: Any, exit_: Any, inner: Any) -> Steps[Outcome | None]:
        tables = ((self.guest.table, inner.output_address), (nested.shadow, exit_.fault.input_address))
        places = [(editor, editor.finder()(address)) for editor, address in tables]
        yield Point.PREEMPT
        for editor, place in places:
            if place is not None:
                editor._store(place.entry_address, place.entry | 0x180)
        return RESUME

    monkeypatch.setattr(NestedFaultHandler, "_set_accessed_dirty", unlocked)


def b2(quirks: Quirk) -> Any:
    """Fault in the middle of a page of 2 MiB of L0's, then age it: what is broken, and the shadow's low bits."""
    nest = Nest(quirks, backing_shift=21)
    nest.handle(nest.store())
    broken = names(nest)
    upkeep.age(nest.guest, GPA)
    return broken, nest.low()[1]


def b2_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(nested_faults, "align_down", lambda address, _: address)


def b3(quirks: Quirk) -> Any:
    """Store where L1's leaf has no C, in a nest whose own has it."""
    nest = Nest(quirks)
    nest.leaf(LEAF_64K & ~0x080)
    nest.handle(nest.store())
    return nest.low(), names(nest)


def b3_undo(monkeypatch: Patch) -> None:
    compose = KvmComposer.compose

    def of_l0_alone(self: KvmComposer, inner: Mapping, outer: Mapping, access: Access) -> Mapping:
        leaf = compose(self, inner, outer, access)
        return attrs.evolve(leaf, entry=(leaf.entry or 0) | (outer.entry or 0) & 0x180)

    monkeypatch.setattr(KvmComposer, "compose", of_l0_alone)


def b4(quirks: Quirk) -> Any:
    """Age a page and take its dirty log: the bits of both leaves that have changed."""
    nest = Nest(quirks)
    nest.handle(nest.store())
    upkeep.age(nest.guest, GPA)
    upkeep.take_dirty(nest.guest, GPA)
    return tuple(None if low is None else low ^ 0x187 for low in nest.low())


def b4_undo(monkeypatch: Patch) -> None:
    clear = TableEditor.clear_flags

    def more(self: TableEditor, address: int, *, accessed: bool, dirty: bool) -> Mapping | None:
        found = clear(self, address, accessed=accessed, dirty=dirty)
        if found is not None and found.entry_address is not None:
            self._store(found.entry_address, self._load(found.entry_address) & ~0x002)
        return found

    monkeypatch.setattr(TableEditor, "clear_flags", more)


def b5(quirks: Quirk) -> Any:
    """Store, take the dirty log, store, take it again."""
    nest = Nest(quirks)
    with_log(nest)
    nest.access(STORE)
    first = log(nest)
    broken = names(nest)
    nest.access(STORE)
    return first, broken, log(nest)


def b5_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(upkeep, "_clear_shadows", lambda *_, **__: None)


def b6(quirks: Quirk) -> Any:
    """Turn the log on over 2 MiB that were written, read it, store to two of the small pages, and read it again."""
    nest = Nest(quirks, backing_shift=21)
    nest.leaf(LEAF_2M, "2M")
    nest.access(STORE)
    with_log(nest)
    log(nest)
    for address in (N, N + 0x10000):
        nest.access(STORE, address)
    leaf = nest.shadow()
    return leaf and leaf[1], log(nest)


def b6_undo_size(monkeypatch: Patch) -> None:
    def always_large(guest: Any, slot: Slot, *rest: int) -> int:
        return page_depth(guest, attrs.evolve(slot, dirty_log=False), *rest)

    monkeypatch.setattr(host_faults, "page_depth", always_large)


def b6_undo_flush(monkeypatch: Patch) -> None:
    monkeypatch.setattr(upkeep, "flush_slot", lambda *_: None)


def b7(quirks: Quirk) -> Any:
    """Take the dirty log while a store's fault has L0's leaf in hand: what is broken, and the next log's answer."""
    nest = Nest(quirks)
    nest.plant_l0(GPA, LEAF | 0x187)
    steps = nest.start(nest.store(), nth_lock=2)
    upkeep.take_dirty(nest.guest, GPA)
    finish(steps)
    broken = names(nest)
    nest.access(STORE)
    return broken, upkeep.take_dirty(nest.guest, GPA)


def b8(quirks: Quirk) -> Any:
    """Age and log a page: the LPIDs under which L2's translations are flushed."""
    nest = Nest(quirks)
    nest.access(STORE)
    nest.flushes.clear()
    upkeep.age(nest.guest, GPA)
    upkeep.take_dirty(nest.guest, GPA)
    return {tag for tag, *_ in nest.flush_log()} - {1}, len(nest.plugin.tlb)


def b9(quirks: Quirk) -> Any:
    """Age a frame in the middle of a page of 2 MiB of L0's."""
    nest = Nest(quirks, backing_shift=21)
    nest.handle(nest.store())
    upkeep.age(nest.guest, GPA)
    return nest.low(), names(nest)


def b10(quirks: Quirk) -> Any:
    """Two faults raced with leaves that differ in W, C and R: the one that is left."""
    nest = Nest(quirks)
    nest.plant_shadow(PAGE, LEAF | 0x107)
    nest.plant_shadow(PAGE, LEAF | 0x184)
    return nest.low()[1], nest.flush_log()


def b10_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(TableEditor, "merged", lambda _, __, new: new)


def b47(quirks: Quirk) -> Any:
    """Let L2 5, LPID 7, set C, where L1 has another L2 that it calls 7: the end, and C in the other's leaf."""
    nest = Nest(quirks)
    other = nest.enter(7)
    nest.plant(other.shadow, PAGE, LEAF | 0x107, 16)
    nest.access(LOAD)
    end = nest.access(STORE)
    leaf = other.shadow.lookup(N)
    return end, leaf is not None and leaf.dirty


def b47_undo(monkeypatch: Patch) -> None:
    right = NestedFaultHandler._set_accessed_dirty

    def by_shadow_lpid(self: NestedFaultHandler, nested: Any, exit_: Any, inner: Any) -> Steps[Outcome | None]:
        return (yield from right(self, self.guest.nested[AssignedTag(nested.tag)], exit_, inner))

    monkeypatch.setattr(NestedFaultHandler, "_set_accessed_dirty", by_shadow_lpid)


# 4.2: TLB and page-walk cache


def b13(quirks: Quirk) -> Any:
    """Drop a shadow leaf of 2 MiB, of which L2 has a page of 64 KiB in the TLB: operands, and what the TLB keeps."""
    nest = Nest(quirks)
    nest.plant_shadow(LARGE, 0xC000000580000187, 21)
    nest.plugin.tlb.insert(Translation(HardwareTag(7), "a process", 0x10000, 16, REAL & ~0xFFFF, PAGE, 7))
    nest.flushes.clear()
    nest.nested.shadow.remove(PAGE)
    (flush,) = nest.flushes
    return nest.hcalls.as_tlbie(flush.address, flush.page_shift, 5)[2], len(nest.plugin.tlb)


def b13_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(edit, "Flush", lambda tag, kind, address=0, _=0: Flush(tag, kind, address, 16))


def b14(quirks: Quirk) -> Any:
    """Put 1 GiB in the place of a table: pages that stay in the TLB, and tables of L0's."""
    nest = Nest(quirks)
    nest.plant_l0(GPA, LEAF | 0x187)
    before = len(nest.allocator.used)
    nest.access(LOAD)
    nest.plant_shadow(0x100000000, 0xC000000580000187, 30)
    return len(nest.plugin.tlb), len(nest.allocator.used) - before


def b14_undo(monkeypatch: Patch) -> None:
    def only_the_first(self: TableEditor, base: int, *_: object, unmap: bool) -> None:
        del unmap
        self.allocator.free(base)

    monkeypatch.setattr(TableEditor, "_free_below", only_the_first)


def b15(quirks: Quirk) -> Any:
    """Put 2 MiB of L0's in the place of a table: the addresses flushed, and what is broken."""
    nest = Nest(quirks)
    nest.handle(nest.store())
    nest.plant_l0(0x180000000, 0xC000000580000187, 21)
    return [address for tag, kind, address, _ in nest.flush_log() if (tag, kind) == (1, "page")], names(nest)


def b16(quirks: Quirk) -> Any:
    """Unmap a page in L1 and flush it by H_RPT_INVALIDATE: how L2's next load ends."""
    nest = Nest(quirks)
    nest.access(LOAD)
    nest.leaf(0)
    finish(nest.hcalls.rpt_invalidate(RptRequest(5, 1, 3, 2, PAGE, PAGE + 0x10000)))
    return nest.access(LOAD), names(nest)


def b16_undo(monkeypatch: Patch) -> None:
    right = NestedHcalls._rpt_scope

    def walks_alone(self: NestedHcalls, nested: Any, request: RptRequest) -> Steps[int]:
        return (yield from right(self, nested, attrs.evolve(request, type=5)))

    monkeypatch.setattr(NestedHcalls, "_rpt_scope", walks_alone)


def b17(quirks: Quirk) -> Any:
    """Have the host's page vanish after it was found: the shadow then, and what is broken."""
    nest = Nest(quirks)
    nest.guest.table.insert = lambda *_: edit.Insertion.SAME  # type: ignore[method-assign]
    nest.handle(nest.store())
    return nest.shadow(), names(nest)


def b17_undo(monkeypatch: Patch) -> None:
    right = NestedFaultHandler._host_entry

    def whatever_was_there(
        self: NestedFaultHandler, slot: Slot, fault: Any, inner: Any, snapshot: int
    ) -> Steps[Mapping | Outcome]:
        found = yield from right(self, slot, fault, inner, snapshot)
        stale = Mapping(inner.output_address, 0, 16, 7, accessed=True, dirty=True, entry=3 << 62 | 0x187)
        return stale if isinstance(found, Outcome) else found

    monkeypatch.setattr(NestedFaultHandler, "_host_entry", whatever_was_there)


# 4.3: lifetime, locks, races


def b18(quirks: Quirk) -> Any:
    """Remove an L2 while a tlbie of all LPIDs is under way: the hypercall's code, or what it died of."""
    nest = Nest(quirks)
    finish(nest.guests.put(nest.enter(6)))
    steps = nest.hcalls.tlb_invalidate(0x10000, 0, 0xC00)
    while next(steps) is not Point.LOCK_NESTED:
        pass
    finish(nest.guests.remove(nest.guest.nested[AssignedTag(6)]))  # type: ignore[arg-type]
    try:
        return finish(steps), sorted(nest.tags.used)
    except PoisonedError as error:
        return type(error), sorted(nest.tags.used)


def b18_undo(monkeypatch: Patch) -> None:
    put = NestedGuests.put

    def unheld(self: NestedGuests[Any]) -> Steps[list[Any]]:
        yield Point.LOCK
        found = [self.guest.nested[assigned] for assigned in sorted(self.guest.nested)]
        yield Point.UNLOCK
        return found

    def put_what_is_held(self: NestedGuests[Any], nested: Any) -> Steps[None]:
        if nested.references > (nested.assigned in self.guest.nested):
            yield from put(self, nested)

    monkeypatch.setattr(NestedGuests, "each", unheld)
    monkeypatch.setattr(NestedGuests, "put", put_what_is_held)


def b19(quirks: Quirk) -> Any:
    """Flush a slot while a fault has read it."""
    nest = Nest(quirks)
    nest.plant_l0(GPA, LEAF | 0x187)
    steps = nest.start(nest.store(), nth_lock=2)
    slot = next(iter(nest.guest.slots))
    upkeep.replace_slot(nest.guest, slot, Slot(slot.base, slot.size, read_only=True))
    finish(steps)
    return nest.shadow() is not None, names(nest)


def b19_undo(monkeypatch: Patch) -> None:
    def silent(guest: Any, slot: Slot) -> None:
        for leaf in list(guest.table.table.leaves(slot.base, slot.end)):
            upkeep.unmap(guest, leaf.page_start)

    monkeypatch.setattr(upkeep, "flush_slot", silent)


def b20(quirks: Quirk) -> Any:
    """Switch L1 to hash while a fault of its own has looked: what is left of L0's tree for it."""
    nest = Nest(quirks)
    modes = MmuModes(nest.host, nest.guest, nest.guests, lambda _: 6)
    steps = KvmHostFaults(nest.guest).handle(decode(nest.load(asdr=GPA)))
    while next(steps) is not Point.LOCK:
        pass
    finish(modes.configure(0, radix=False, guest_tlbie=False))
    finish(steps)
    return nest.guest.radix, nest.l0_leaf(GPA)


def b20_undo(monkeypatch: Patch) -> None:
    def unlocked(self: MmuModes, *, radix: bool) -> Steps[None]:
        self.guest.rmap.clear()
        self.guest.radix = radix
        yield Point.PREEMPT

    monkeypatch.setattr(MmuModes, "_switch", unlocked)


def b22(quirks: Quirk) -> Any:
    """Run L2s with the lowest, a middle and the highest LPID: how the first load of each ends, and LPIDs of L0."""
    nest = Nest(quirks)
    ends = []
    for lpid in (0, 1024, 4095):
        nest.word(0x0100_0000 + 16 * lpid, PATE_DW0)
        nested = nest.enter(lpid)
        ends.append(finish(nest.handler.handle(nested, decode(nest.load()))).verdict)
    return ends, sorted(nest.tags.used)


def b22_undo(monkeypatch: Patch) -> None:
    def of_1024(ptcr: int, index: int) -> int | None:
        return pate_address(ptcr, index) if index < 1024 else None

    monkeypatch.setattr("nestmmu_ppc64_radix.kvm.pate_address", of_1024)


def b23(quirks: Quirk) -> Any:
    """Remove an L2 while a tlbie of one of its pages waits for its lock: the hypercall's code, or what it died of."""
    nest = Nest(quirks)
    nest.access(LOAD)
    steps = nest.hcalls.tlb_invalidate(0x10000, 5, 0x1234500A0)
    while next(steps) is not Point.LOCK_NESTED:
        pass
    finish(nest.guests.remove(nest.nested))
    try:
        return finish(steps), sorted(nest.tags.used)
    except KeyError as error:
        return type(error), sorted(nest.tags.used)


def b23_undo(monkeypatch: Patch) -> None:
    def looked_up_again(self: NestedTlbie, nested: Any, address: int, size: int) -> Steps[None]:
        del size
        yield Point.LOCK_NESTED
        self.guest.nested[nested.assigned].shadow.remove(address)
        yield Point.UNLOCK_NESTED

    monkeypatch.setattr(NestedTlbie, "pages", looked_up_again)


def b24(quirks: Quirk) -> Any:
    """Enter a new L2 on two vcpus at once: whether each gets it."""
    nest = Nest(quirks)
    both = [nest.guests.get(AssignedTag(6), create=True) for _ in range(2)]
    for steps in both:
        assert [next(steps), next(steps)] == [Point.LOCK, Point.UNLOCK]
    next(both[0])
    return [finish(steps) is not None for steps in reversed(both)]


def b25(quirks: Quirk) -> Any:
    """Delete a slot, of which the reverse map still has a page that L0 maps no more: its entries afterwards."""
    nest = Nest(quirks)
    nest.handle(nest.store())
    nest.guest.rmap.insert(0x18006, ReverseEntry(AssignedTag(5), PAGE + 0x10000))
    upkeep.replace_slot(nest.guest, next(iter(nest.guest.slots)), None)
    return len(nest.guest.rmap)


def b25_undo(monkeypatch: Patch) -> None:
    monkeypatch.setattr(upkeep, "range", lambda *_: (), raising=False)


REGRESSIONS = {
    "B1": Regression(b1, "", "REVERSE_MAP", b1_undo),
    "B2": Regression(b2, ([], 0x087), (["REVERSE_MAP"], 0x187), b2_undo),
    "B3": Regression(b3, ((0x187, 0x107), []), ((0x187, 0x187), ["DIRTY"]), b3_undo),
    "B4": Regression(b4, (0x180, 0x180), (0x182, 0x182), b4_undo),
    "B5": Regression(b5, ([0x18005], [], [0x18005]), ([0x18005], ["DIRTY"], []), b5_undo),
    "B6-size": Regression(b6, (16, [0x18005, 0x18006]), (21, list(range(0x18000, 0x18020))), b6_undo_size),
    "B6-flush": Regression(b6, (16, [0x18005, 0x18006]), (21, list(range(0x18000, 0x18020))), b6_undo_flush),
    "B7": Regression(b7, ([], True), (["DIRTY"], False), Quirk.STALE_REFERENCE_CHANGE),
    "B8": Regression(b8, ({7}, 0), ({5}, 1), Quirk.FLUSHED_BY_L1_LPID),
    "B9": Regression(b9, ((0x087, 0x087), []), ((0x087, 0x187), ["SOUNDNESS"]), Quirk.AGED_BY_FRAME),
    "B10": Regression(b10, (0x187, []), (0x184, []), b10_undo),
    "B13": Regression(b13, (0x123400020, 0), (0x1234000A0, 1), b13_undo),
    "B14": Regression(b14, (0, 1), (1, 2), b14_undo),
    "B15": Regression(
        b15, ([0x180050000], []), ([0x580050000], ["REVERSE_MAP"]), Quirk.CHILDREN_FLUSHED_AT_HOST_ADDRESS
    ),
    "B16": Regression(b16, (Verdict.REFLECT, []), (REAL, ["INVALIDATION"]), b16_undo),
    "B17": Regression(b17, (None, []), ((3 << 62 | 0x187, 16), ["INVALIDATION"]), b17_undo),
    "B18": Regression(b18, (0, [7]), (PoisonedError, [7]), b18_undo),
    "B19": Regression(b19, (False, []), (True, ["INVALIDATION"]), b19_undo),
    "B20": Regression(b20, (False, None), (False, (LEAF | 0x187, 16)), b20_undo),
    "B22": Regression(
        b22,
        ([Verdict.RESUME] * 3, [7, 8, 9, 10]),
        ([Verdict.RESUME, Verdict.REFLECT, Verdict.REFLECT], [7, 8, 9, 10]),
        b22_undo,
    ),
    "B23": Regression(b23, (0, []), (KeyError, [7]), b23_undo),
    "B24": Regression(b24, [True, True], [False, True], Quirk.CREATION_RACE_LOST),
    "B25": Regression(b25, 0, 1, b25_undo),
    "B47": Regression(b47, (REAL, False), ("livelock", True), b47_undo),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_it_is_right(name: str) -> None:
    assert REGRESSIONS[name].with_fix() == REGRESSIONS[name].right


@pytest.mark.parametrize("name", REGRESSIONS)
def test_it_shows_with_the_fix_taken_out(name: str, monkeypatch: Patch) -> None:
    assert REGRESSIONS[name].without_fix(monkeypatch) == REGRESSIONS[name].wrong != REGRESSIONS[name].right
