"""The whole nested path on the made-up architecture: nothing here knows POWER, and nothing in the core may."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.events import Event, EventKind
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.mappings import Mapping
from nestmmu.memory import GuestMemory, TranslatedMemory
from nestmmu.outcomes import Verdict
from nestmmu.points import Point, finish
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.slots import LinearBacking, Slot, Slots
from toy_arch import formats
from toy_arch.cpu import Trap
from toy_arch.formats import FORBIDDEN, GRUBBY, LOOK, PAGE, POKE, PRESENT, RUN, USED
from toy_arch.hypervisor import decode, reflect
from toy_arch.nest import ALL, DATA, L1_AT, L1_ROOTS, L1_UPPER, L2_ASSIGNED, ToyNest

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH


def reached(nest: ToyNest, access: Access, address: int) -> Mapping:
    result, outcome, _ = nest.access(access, address)
    assert isinstance(result, Mapping), (result, outcome)
    assert outcome is None
    return result


def seen(nest: ToyNest, access: Access, address: int) -> Trap:
    """Make an access that L1 is to hear of, and return what it hears."""
    result, outcome, _ = nest.access(access, address)
    assert isinstance(result, Trap)
    assert outcome is not None
    assert outcome.verdict is Verdict.REFLECT
    return reflect(outcome, result)


def test_an_access_is_composed_and_inserted() -> None:
    nest = ToyNest()
    nest.map(3, DATA)
    result, outcome, faults = nest.access(STORE, 0x35)
    assert isinstance(result, Mapping)
    assert (result.output_address, outcome, faults) == (L1_AT + DATA + 5, None, 1)
    assert nest.shadow() == {0x30: (L1_AT + DATA, 4, PRESENT | PAGE | L1_AT + DATA | ALL)}
    assert [(int(one.tag), one.address) for one in nest.guest.rmap.entries(DATA >> 4)] == [(L2_ASSIGNED, 0x30)]
    assert nest.flush_log() == []


@pytest.mark.parametrize(
    ("entry", "access", "name"),
    [
        (0, LOAD, "NOPE"),
        (PRESENT | PAGE | DATA | POKE | RUN, LOAD, "KEEP OUT"),
        (PRESENT | PAGE | DATA | LOOK | RUN, STORE, "KEEP OUT"),
        (PRESENT | PAGE | DATA | LOOK | POKE, FETCH, "KEEP OUT"),
        (PRESENT | PAGE | DATA | ALL | FORBIDDEN, LOAD, "GARBLED"),
        (PRESENT | DATA, LOAD, "GARBLED"),
    ],
)
def test_what_l1_does_not_allow_goes_to_l1_under_its_own_name(entry: int, access: Access, name: str) -> None:
    nest = ToyNest()
    nest.lower(3, entry)
    trap = seen(nest, access, 0x35)
    assert (trap.name, trap.address) == (name, 0x35)
    assert nest.shadow() == {}


def test_a_table_outside_l1s_memory_is_lost_and_the_entry_named() -> None:
    nest = ToyNest()
    nest.upper(2, PRESENT | 0x100)
    trap = seen(nest, LOAD, 0x95)
    assert (trap.name, trap.entry_address) == ("LOST", 0x104)


def test_without_a_root_l1_sees_the_trap_as_it_was() -> None:
    nest = ToyNest()
    nest.word(L1_ROOTS + 4 * L2_ASSIGNED, 0)
    trap = seen(nest, LOAD, 0x35)
    assert trap.name == "NOPE"
    nest.word(L1_ROOTS + 4 * L2_ASSIGNED, L1_UPPER)
    nest.map(3, DATA)
    reached(nest, LOAD, 0x35)


def test_a_shadow_that_is_out_of_date_is_dropped_before_l1_hears_of_it() -> None:
    nest = ToyNest()
    nest.map(3, DATA, LOOK | USED)
    reached(nest, LOAD, 0x35)
    nest.host.flushes.clear()
    result, outcome, faults = nest.access(STORE, 0x35)
    assert isinstance(result, Trap)
    assert result.name == "NOPE"
    assert outcome is not None
    assert outcome.fault is not None
    assert outcome.fault.kind is FaultKind.PERMISSION
    assert faults == 2
    assert nest.flush_log() == [(2, "page", 0x30, 4)]


def test_a_load_never_makes_grubby_and_the_first_store_is_seen() -> None:
    nest = ToyNest(accessed_dirty=AccessedDirty.FAULT)
    nest.map(3, DATA)
    reached(nest, LOAD, 0x35)
    assert nest.shadow()[0x30][2] & GRUBBY == 0
    result, outcome, faults = nest.access(STORE, 0x35)
    assert isinstance(result, Mapping)
    assert (outcome, faults) == (None, 1)
    assert nest.shadow()[0x30][2] & GRUBBY


@pytest.mark.parametrize(("missing", "access"), [(USED, LOAD), (GRUBBY, STORE), (USED, STORE)])
def test_l1_sets_used_and_grubby_in_its_own_table(missing: int, access: Access) -> None:
    nest = ToyNest(accessed_dirty=AccessedDirty.FAULT)
    nest.map(3, DATA, ALL & ~missing)
    trap = seen(nest, access, 0x35)
    assert trap.name == "GRUBBY"
    assert nest.read_word(0x30 + 4 * 3) & missing == 0
    nest.map(3, DATA)
    reached(nest, access, 0x35)


def test_flags_are_set_in_the_hosts_entry_before_the_shadows() -> None:
    nest = ToyNest(accessed_dirty=AccessedDirty.FAULT)
    nest.map(3, DATA)
    reached(nest, LOAD, 0x35)
    nest.guest.table.clear_flags(DATA, accessed=True, dirty=True)
    nest.nested.shadow.clear_flags(0x30, accessed=True, dirty=True)
    reached(nest, STORE, 0x35)
    below = nest.guest.table.lookup(DATA)
    assert below is not None
    assert (below.accessed, below.dirty) == (True, True)
    assert nest.shadow()[0x30][2] & (USED | GRUBBY) == USED | GRUBBY


def test_a_host_entry_that_vanished_before_its_flags_were_set() -> None:
    nest = ToyNest(accessed_dirty=AccessedDirty.FAULT)
    nest.map(3, DATA)
    reached(nest, LOAD, 0x35)
    steps = nest.handler.handle(nest.nested, decode(Trap("GRUBBY", 2, 0x35, STORE)))
    while next(steps) is not Point.LOCK:
        pass
    nest.guest.table.remove(DATA)
    assert finish(steps).verdict is Verdict.RESUME
    assert nest.shadow() == {}
    reached(nest, STORE, 0x35)


def test_setting_flags_is_all_that_a_grubby_trap_asks_for() -> None:
    nest = ToyNest(accessed_dirty=AccessedDirty.FAULT)
    nest.map(3, DATA)
    reached(nest, LOAD, 0x35)
    points = list(nest.handler.handle(nest.nested, decode(Trap("GRUBBY", 2, 0x35, STORE))))
    assert points == [Point.LOCK_NESTED, Point.LOCK, Point.UNLOCK, Point.UNLOCK_NESTED]
    assert nest.shadow()[0x30][2] & GRUBBY


def test_flags_are_not_set_in_a_shadow_that_the_host_has_no_page_for() -> None:
    """The reverse map lost it: it is dropped as soon as the host sees it."""
    nest = ToyNest(accessed_dirty=AccessedDirty.FAULT)
    nest.map(3, DATA)
    reached(nest, LOAD, 0x35)
    nest.guest.rmap.clear()
    nest.guest.table.remove(DATA)
    assert sorted(nest.shadow()) == [0x30]
    assert nest.handle(decode(Trap("GRUBBY", 2, 0x35, STORE))).verdict is Verdict.RESUME
    assert nest.shadow() == {}


def test_a_devices_address_is_emulated() -> None:
    nest = ToyNest()
    nest.guest.slots = Slots((Slot(0, DATA),))
    nest.map(3, DATA)
    _, outcome, _ = nest.access(LOAD, 0x35)
    assert outcome is not None
    assert (outcome.verdict, outcome.address) == (Verdict.EMULATE, DATA + 5)


def test_a_read_only_slot() -> None:
    nest = ToyNest()
    nest.guest.slots = Slots((Slot(0, 256, read_only=True),))
    nest.map(3, DATA)
    assert reached(nest, LOAD, 0x35).permissions == READ | EXECUTE
    _, outcome, _ = nest.access(STORE, 0x35)
    assert outcome is not None
    assert outcome.verdict is Verdict.INJECT
    assert outcome.fault is not None
    assert outcome.fault.kind is FaultKind.PERMISSION


def test_a_host_without_a_page_fails() -> None:
    nest = ToyNest()
    nest.guest.backing = LinearBacking(L1_AT, 4, writable=False)
    nest.map(3, DATA)
    reached(nest, LOAD, 0x35)
    _, outcome, _ = nest.access(STORE, 0x35)
    assert outcome is not None
    assert (outcome.verdict, outcome.error) == (Verdict.FAIL, "EFAULT")


@pytest.mark.parametrize("under_way", [False, True])
def test_a_race_with_the_hosts_memory_is_tried_again(*, under_way: bool) -> None:
    nest = ToyNest()
    nest.map(3, DATA)
    reached(nest, LOAD, 0x35)
    nest.nested.shadow.remove(0x30)
    steps = nest.handler.handle(nest.nested, decode(Trap("NOPE", 2, 0x35, LOAD)))
    while next(steps) is not Point.LOCK:
        pass
    nest.guest.begin_invalidation()
    if not under_way:
        nest.guest.end_invalidation()
    assert finish(steps).verdict is Verdict.RESUME
    assert nest.shadow() == {}


def test_a_race_while_the_host_makes_its_own_entry_is_tried_again() -> None:
    nest = ToyNest()
    nest.map(3, DATA)
    tables = set(nest.allocator.used)
    steps = nest.handler.handle(nest.nested, decode(Trap("NOPE", 2, 0x35, LOAD)))
    while next(steps) is not Point.PREEMPT:
        pass
    nest.guest.begin_invalidation()
    nest.guest.end_invalidation()
    assert finish(steps).verdict is Verdict.RESUME
    assert (nest.guest.table.lookup(DATA), nest.shadow()) == (None, {})
    assert set(nest.allocator.used) == tables


def test_a_race_gives_back_the_tables_that_were_made_for_it() -> None:
    nest = ToyNest()
    nest.map(3, DATA)
    nest.guest.table.insert(DATA, PRESENT | PAGE | L1_AT + DATA | ALL, 1, nest.guest.table.prepare(DATA, 1))
    tables = set(nest.allocator.used)
    steps = nest.handler.handle(nest.nested, decode(Trap("NOPE", 2, 0x35, LOAD)))
    while len(nest.allocator.used) == len(tables):
        next(steps)
    nest.guest.begin_invalidation()
    assert finish(steps).verdict is Verdict.RESUME
    assert set(nest.allocator.used) == tables


def test_without_room_in_the_reverse_map_nothing_is_shadowed() -> None:
    nest = ToyNest()
    nest.map(3, DATA)
    nest.guest.rmap.capacity = 0
    assert nest.handle(decode(Trap("NOPE", 2, 0x35, LOAD))).verdict is Verdict.RESUME
    assert nest.shadow() == {}
    nest.guest.rmap.capacity = 1
    reached(nest, LOAD, 0x35)
    assert len(nest.guest.rmap) == 1


def test_without_pages_for_tables_the_guest_tries_again() -> None:
    nest = ToyNest()
    nest.map(3, DATA)
    nest.guest.table.insert(DATA, PRESENT | PAGE | L1_AT + DATA | ALL, 1, nest.guest.table.prepare(DATA, 1))
    nest.allocator.limit = nest.allocator._next
    assert nest.handle(decode(Trap("NOPE", 2, 0x35, LOAD))).verdict is Verdict.RESUME
    assert nest.shadow() == {}


@pytest.mark.parametrize(
    ("large_inner", "host_shift", "shift", "start"),
    [(False, 4, 4, 0x40), (False, 6, 4, 0x40), (True, 4, 4, 0x40), (True, 6, 6, 0x40)],
)
def test_the_smaller_page_of_the_two(*, large_inner: bool, host_shift: int, shift: int, start: int) -> None:
    nest = ToyNest(host_shift)
    if large_inner:
        nest.upper(1, PRESENT | PAGE | DATA | ALL)
    else:
        nest.map(4, DATA)
    reached(nest, STORE, 0x45)
    assert nest.shadow() == {start: (L1_AT + DATA, shift, PRESENT | PAGE | L1_AT + DATA | ALL)}


@pytest.mark.parametrize(("habit", "shift"), [(False, 4), (True, 6)])
def test_a_large_page_across_the_end_of_a_slot(*, habit: bool, shift: int) -> None:
    """The slot ends 32 bytes after DATA. Only by mistake does L2 reach the 32 bytes behind it."""
    nest = ToyNest(6)
    nest.guest.habits = attrs.evolve(nest.guest.habits, maps_beyond_slots=habit)
    nest.guest.slots = Slots((Slot(0, DATA + 32),))
    nest.upper(1, PRESENT | PAGE | DATA | ALL)
    reached(nest, STORE, 0x45)
    assert nest.shadow() == {0x40: (L1_AT + DATA, shift, PRESENT | PAGE | L1_AT + DATA | ALL)}
    result, outcome, _ = nest.access(LOAD, 0x65)
    assert isinstance(result, Mapping) is habit
    assert (outcome and outcome.verdict) is (None if habit else Verdict.EMULATE)


def test_a_page_below_the_hosts_own_is_refused() -> None:
    nest = ToyNest(6)
    nest.guest.base_shift = 6
    nest.map(4, DATA)
    _, outcome, _ = nest.access(LOAD, 0x45)
    assert outcome is not None
    assert (outcome.verdict, outcome.error) == (Verdict.FAIL, "EINVAL")


def test_events_are_told() -> None:
    nest = ToyNest()
    events: list[Event] = []
    nest.host.announce = events.append
    nest.map(3, DATA)
    reached(nest, LOAD, 0x35)
    seen(nest, LOAD, 0x05)
    nest.guest.table.remove(DATA)
    kinds = [event.kind for event in events]
    assert kinds == [
        EventKind.FAULT, EventKind.SHADOW_ADD, EventKind.FAULT, EventKind.REFLECT,
        EventKind.INVALIDATE, EventKind.INVALIDATE, EventKind.SHADOW_REMOVE,
    ]  # fmt: skip
    assert {int(event.tag) for event in events[:4]} == {2}


def test_memory_of_memory_is_the_recursive_truth() -> None:
    """L2's memory read through L1's table, whose words are read through L0's."""
    nest = ToyNest()
    for address in range(0, 256, 16):
        entry = PRESENT | PAGE | L1_AT + address | ALL
        nest.guest.table.insert(address, entry, 1, nest.guest.table.prepare(address, 1))
    l1 = TranslatedMemory(nest.memory, nest.guest.table.table, "L1")
    table = RadixTable(RadixWalker(formats.TOY, l1, "L1's table"), Root(L1_UPPER, 2))
    l2 = TranslatedMemory(l1, table, "L2")
    nest.map(3, DATA)
    nest.map(4, DATA + 0x20)
    nest.memory.write(L1_AT + DATA, bytes(range(16)))
    nest.memory.write(L1_AT + DATA + 0x20, bytes(range(16, 32)))
    assert l2.read(0x3C, 8) == bytes([12, 13, 14, 15, 16, 17, 18, 19])
    l2.write(0x3F, b"\xaa\xbb")
    assert nest.memory.read(L1_AT + DATA + 15, 1) + nest.memory.read(L1_AT + DATA + 0x20, 1) == b"\xaa\xbb"
    assert (l1.rank, l2.rank) == (1, 2)
    with pytest.raises(Fault):
        l2.read(0x50, 1)
    assert isinstance(nest.guest.memory, GuestMemory)


FLAGS = st.sets(st.sampled_from([LOOK, POKE, RUN])).map(sum)
RIGHTS = {LOAD: READ, STORE: WRITE, FETCH: EXECUTE}


def granted(flags: int) -> int:
    return (READ if flags & LOOK else 0) | (WRITE if flags & POKE else 0) | (EXECUTE if flags & RUN else 0)


@settings(max_examples=150)
@given(
    inner=st.dictionaries(st.integers(0, 15), st.tuples(st.integers(0, 7), FLAGS), max_size=16),
    large=st.dictionaries(st.integers(0, 3), st.tuples(st.integers(0, 1), FLAGS), max_size=2),
    outer=st.dictionaries(st.integers(0, 7), st.tuples(st.integers(0, 63), FLAGS), max_size=8),
    accesses=st.lists(st.tuples(st.integers(0, 255), st.sampled_from(list(Access))), max_size=30),
)
def test_the_shadow_is_the_composition(
    inner: dict[int, tuple[int, int]],
    large: dict[int, tuple[int, int]],
    outer: dict[int, tuple[int, int]],
    accesses: list[tuple[int, Access]],
) -> None:
    """Against plain dicts: L2's page to L1's page, L1's page to L0's, each with its rights."""
    nest = ToyNest()
    l1: dict[int, tuple[int, int]] = {}
    for page, (target, flags) in inner.items():
        nest.map(page, DATA + 16 * target, flags | USED | GRUBBY)
        l1[page] = ((DATA >> 4) + target, flags)
    for index, (target, flags) in large.items():
        nest.upper(index, PRESENT | PAGE | DATA + 64 * target | flags | USED | GRUBBY)
        for page in range(4):
            l1[4 * index + page] = ((DATA >> 4) + 4 * target + page, flags)
    l0: dict[int, tuple[int, int]] = {}
    for page, (target, flags) in outer.items():
        at, to = (DATA >> 4) + page, 0x2000 + target
        entry = PRESENT | PAGE | to << 4 | flags | USED | GRUBBY
        nest.guest.table.insert(at << 4, entry, 1, nest.guest.table.prepare(at << 4, 1))
        l0[at] = (to, flags)
    nest.guest.backing = None
    for address, access in accesses:
        page, offset = divmod(address, 16)
        result, outcome, faults = nest.access(access, address)
        middle = l1.get(page)
        final = None if middle is None else l0.get(middle[0])
        allowed = middle is not None and final is not None and granted(middle[1]) & granted(final[1]) & RIGHTS[access]
        assert faults <= 4
        if allowed and final is not None:
            assert isinstance(result, Mapping), outcome
            assert result.output_address == final[0] * 16 + offset
        else:
            assert outcome is not None
            inner_allows = middle is not None and granted(middle[1]) & RIGHTS[access]
            assert outcome.verdict is (Verdict.FAIL if inner_allows else Verdict.REFLECT)
    for start, (target, shift, entry) in nest.shadow().items():
        for step in range(1 << shift - 4):
            middle = l1[(start >> 4) + step]
            final = l0[middle[0]]
            assert target + 16 * step == final[0] * 16
            assert granted(entry) & ~(granted(middle[1]) & granted(final[1])) == 0


@pytest.mark.parametrize(("name", "kind"), [("NOPE", FaultKind.NOT_PRESENT), ("GRUBBY", FaultKind.ACCESSED_DIRTY)])
def test_faults_are_told_by_the_toys_own_names(name: str, kind: FaultKind) -> None:
    assert decode(Trap(name, 2, 0, LOAD)).fault.kind is kind
