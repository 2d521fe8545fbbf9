"""Insertion into the shadow: section 1.10 of the reference, rows T, and the scenarios TE."""

from __future__ import annotations

import pytest
from ppc64_fixture import LEAF_64K, Fixture, N

from nestmmu.edit import Insertion
from nestmmu.errors import OutOfPagesError
from nestmmu.outcomes import Verdict
from nestmmu.points import Point, finish
from nestmmu_ppc64_radix.exits import decode, return_code
from nestmmu_ppc64_radix.quirks import Quirk

PAGE, LARGE = 0x123450000, 0x123400000
LEAF = 0xC000000580050000


def insert(fixture: Fixture, address: int, entry: int, shift: int) -> Insertion:
    shadow = fixture.nested.shadow
    depth = shadow.depths[shift]
    spares = shadow.prepare(address, depth)
    result = shadow.insert(address, entry, depth, spares)
    shadow.release(spares)
    return result


def entry_at(fixture: Fixture, address: int = N) -> int:
    found = fixture.shadow(address)
    assert found is not None
    return found[0]


def test_empty_shadow_te1_t1_t8() -> None:
    fixture = Fixture()
    before = len(fixture.allocator.used)
    fixture.plant_l0(0x180050000, LEAF | 0x187)
    between = len(fixture.allocator.used)
    fixture.handle(fixture.store())
    assert (between - before, len(fixture.allocator.used) - between) == (3, 3)
    assert entry_at(fixture) == LEAF | 0x187
    assert fixture.rmap(0x18005) == [(5, PAGE)]
    assert fixture.flush_log() == []


def test_the_same_leaf_again_te2_t4() -> None:
    fixture = Fixture()
    fixture.handle(fixture.store())
    assert insert(fixture, PAGE, LEAF | 0x187, 16) is Insertion.SAME
    fixture.handle(fixture.store())
    assert fixture.rmap(0x18005) == [(5, PAGE)]
    assert fixture.flush_log() == []


@pytest.mark.parametrize(
    ("old", "new", "after"),
    [
        pytest.param(0x105, 0x187, 0x187, id="TE3-T5"),
        pytest.param(0x187, 0x105, 0x187, id="TE4-T5-B10"),
        pytest.param(0x107, 0x186, 0x187, id="T5-race-of-two-faults"),
    ],
)
@pytest.mark.parametrize("quirks", [Quirk.LINUX_6_1, Quirk.NONE])
def test_bits_are_only_added(old: int, new: int, after: int, quirks: Quirk) -> None:
    fixture = Fixture(quirks)
    insert(fixture, PAGE, LEAF | old, 16)
    assert insert(fixture, PAGE, LEAF | new, 16) is Insertion.MERGED
    assert entry_at(fixture) == LEAF | after
    assert fixture.flush_log() == []
    assert len(fixture.guest.rmap) == 0


@pytest.mark.parametrize(
    ("quirks", "entry", "flushes"),
    [
        pytest.param(Quirk.LINUX_6_1, 0xC000000580070187, [], id="TE5-K"),
        pytest.param(Quirk.NONE, 0xC000000580060187, [(7, "page", PAGE, 16)], id="TE5-C"),
    ],
)
def test_another_target(quirks: Quirk, entry: int, flushes: list[tuple[int, str, int, int]]) -> None:
    fixture = Fixture(quirks)
    insert(fixture, PAGE, LEAF | 0x187, 16)
    insert(fixture, PAGE, 0xC000000580060187, 16)
    assert entry_at(fixture) == entry
    assert fixture.flush_log() == flushes


def raced(fixture: Fixture, *, under_way: bool) -> None:
    """Handle a store, with a change behind L1's memory after the fault took its snapshot."""
    steps = fixture.handler.handle(fixture.nested, decode(fixture.store()))
    while next(steps) is not Point.LOCK:
        pass
    fixture.guest.begin_invalidation()
    if not under_way:
        fixture.guest.end_invalidation()
    assert finish(steps).verdict is Verdict.RESUME


@pytest.mark.parametrize("under_way", [pytest.param(False, id="TE6-T2"), pytest.param(True, id="TE7-T2")])
def test_a_race_writes_nothing(under_way: bool) -> None:
    fixture = Fixture()
    fixture.plant_l0(0x180050000, LEAF | 0x187)
    used = dict(fixture.allocator.used)
    raced(fixture, under_way=under_way)
    assert fixture.shadow() is None
    assert len(fixture.guest.rmap) == 0
    assert fixture.allocator.used == used
    assert fixture.flush_log() == []


def test_a_larger_leaf_gives_way_te8_t6() -> None:
    fixture = Fixture()
    insert(fixture, LARGE, 0xC000000580000187, 21)
    assert insert(fixture, PAGE, LEAF | 0x187, 16) is Insertion.ADDED
    assert fixture.flush_log() == [(7, "page", LARGE, 21)]
    mapped = [address for address in range(LARGE, LARGE + (1 << 21), 1 << 16) if fixture.shadow(address) is not None]
    assert mapped == [PAGE]


def test_a_larger_leaf_that_came_after_the_unlocked_look_t6() -> None:
    fixture = Fixture()
    shadow = fixture.nested.shadow
    insert(fixture, 0x123600000, LEAF | 0x187, 16)
    spares = shadow.prepare(0x123600000, shadow.depths[16])
    insert(fixture, 0x123600000, 0xC000000580000187, 21)
    assert shadow.insert(0x123600000, LEAF | 0x187, shadow.depths[16], spares) is Insertion.AGAIN


def test_a_table_that_vanished_after_the_unlocked_look_t3() -> None:
    fixture = Fixture()
    shadow = fixture.nested.shadow
    insert(fixture, PAGE, LEAF | 0x187, 16)
    spares = shadow.prepare(PAGE, shadow.depths[16])
    assert spares == {}
    shadow.clear_tree()
    assert shadow.insert(PAGE, LEAF | 0x187, shadow.depths[16], spares) is Insertion.NO_MEMORY


@pytest.mark.parametrize(
    ("quirks", "addresses"),
    [
        pytest.param(Quirk.LINUX_6_1, [0x580050000, 0x580060000, 0x580070000], id="TE9-K-B15"),
        pytest.param(Quirk.NONE, [0x123410000, 0x123450000, 0x1235F0000], id="TE9-C"),
    ],
)
def test_a_large_leaf_takes_the_place_of_a_table_t7_te9(quirks: Quirk, addresses: list[int]) -> None:
    fixture = Fixture(quirks)
    for address, target in ((0x123410000, 5), (0x123450000, 6), (0x1235F0000, 7)):
        insert(fixture, address, 0xC000000580000187 | target << 16, 16)
    used = len(fixture.allocator.used)
    assert insert(fixture, LARGE, 0xC000000580000187, 21) is Insertion.ADDED
    assert fixture.flush_log() == [(7, "walk cache", 0, 0), *((7, "page", address, 16) for address in addresses)]
    assert fixture.shadow() == (0xC000000580000187, 21)
    assert len(fixture.allocator.used) == used - 1


@pytest.mark.parametrize(
    ("quirks", "flushes", "shadowed"),
    [
        pytest.param(Quirk.LINUX_6_1, [(1, "page", 0x580050000, 16)], [(5, PAGE)], id="T7-K-B15"),
        pytest.param(Quirk.NONE, [(1, "page", 0x180050000, 16), (7, "page", PAGE, 16)], [], id="T7-C"),
    ],
)
def test_a_large_leaf_of_l0s_takes_the_place_of_a_table(
    quirks: Quirk, flushes: list[tuple[int, str, int, int]], shadowed: list[tuple[int, int]]
) -> None:
    """At the wrong address, the kernel finds neither the page in the TLB nor the frame's reverse map."""
    fixture = Fixture(quirks)
    fixture.handle(fixture.store())
    fixture.plant_l0(0x180000000, 0xC000000580000187, 21)
    assert fixture.flush_log() == [(1, "walk cache", 0, 0), *flushes]
    assert fixture.rmap(0x18005) == shadowed
    assert (fixture.shadow() is not None) == bool(shadowed)


def test_a_leaf_of_1g_gives_way_to_one_of_2m_te10() -> None:
    fixture = Fixture()
    insert(fixture, 0x100000000, 0xC000000580000187, 30)
    insert(fixture, LARGE, 0xC000000580000187, 21)
    assert fixture.flush_log() == [(7, "page", 0x100000000, 30)]
    assert fixture.shadow() == (0xC000000580000187, 21)
    assert fixture.shadow(0x100000000) is None


@pytest.mark.parametrize(
    ("quirks", "code"), [pytest.param(Quirk.LINUX_6_1, -12, id="TE11-K"), pytest.param(Quirk.NONE, 0, id="TE11-C")]
)
def test_no_page_for_a_table(quirks: Quirk, code: int) -> None:
    fixture = Fixture(quirks)
    fixture.plant_l0(0x180050000, LEAF | 0x187)
    used = dict(fixture.allocator.used)
    fixture.allocator.limit = fixture.allocator._next + 4096
    assert return_code(fixture.handle(fixture.store())) == code
    assert fixture.shadow() is None
    assert fixture.allocator.used == used


def test_unlocked_look_keeps_nothing_when_it_fails() -> None:
    fixture = Fixture()
    fixture.allocator.limit = fixture.allocator._next + 4096
    used = dict(fixture.allocator.used)
    with pytest.raises(OutOfPagesError):
        fixture.nested.shadow.prepare(PAGE, 3)
    assert fixture.allocator.used == used


def test_the_hosts_page_vanishes_before_it_is_used_te12() -> None:
    fixture = Fixture()
    lookup = fixture.guest.table.lookup
    answers = [None, None]

    def vanished(address: int) -> object:
        return answers.pop() if answers else lookup(address)

    fixture.guest.table.lookup = vanished  # type: ignore[method-assign, assignment]
    assert return_code(fixture.handle(fixture.store())) == 0
    assert fixture.shadow() is None


def test_pages_that_were_not_needed_are_given_back_t9() -> None:
    fixture = Fixture()
    shadow = fixture.nested.shadow
    spares = shadow.prepare(PAGE, 3)
    assert len(spares) == 3
    insert(fixture, PAGE, LEAF | 0x187, 16)
    used = len(fixture.allocator.used)
    assert shadow.insert(PAGE, LEAF | 0x187, 3, spares) is Insertion.SAME
    shadow.release(spares)
    assert len(fixture.allocator.used) == used - 3


def test_no_room_in_the_reverse_map_te13() -> None:
    fixture = Fixture()
    fixture.guest.rmap.capacity = 0
    assert return_code(fixture.handle(fixture.store())) == 0
    assert fixture.shadow() is None
    fixture.guest.rmap.capacity = None
    fixture.handle(fixture.store())
    assert fixture.rmap(0x18005) == [(5, PAGE)]


def test_l1s_leaf_is_not_written_by_l0() -> None:
    fixture = Fixture()
    fixture.handle(fixture.store())
    assert fixture.read_word(0x02012028) == LEAF_64K
