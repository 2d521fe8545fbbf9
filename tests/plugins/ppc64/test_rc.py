"""Reference and change: section 1.8 of the reference, and the scenarios TD."""

from __future__ import annotations

import pytest
from ppc64_fixture import ISSTORE, LEAF_64K, NOHPTE, SET_RC, Fixture, N

from nestmmu.outcomes import Verdict
from nestmmu.points import Point, finish
from nestmmu_ppc64_radix.exits import decode, reflect

STORE_RC = SET_RC | ISSTORE
L0_PAGE = 0xC000000580050000


def nest(l1: int, shadow: int | None, l0: int | None = 0x187) -> Fixture:
    """Return a nest whose three leaves for N have these low bits; None: there is no such leaf."""
    fixture = Fixture()
    fixture.leaf(LEAF_64K & ~0xFFF | l1)
    if l0 is not None:
        fixture.plant_l0(0x180050000, L0_PAGE | l0)
    if shadow is not None:
        fixture.plant_shadow(0x123450000, L0_PAGE | shadow)
    return fixture


def low(leaf: tuple[int, int] | None) -> int | None:
    return None if leaf is None else leaf[0] & 0xFFF


def state(fixture: Fixture) -> tuple[int | None, int | None]:
    """Return the low bits of L0's leaf and of the shadow's."""
    return low(fixture.l0_leaf(0x180050000)), low(fixture.shadow())


def test_l1_has_to_set_its_own_bits_first_td1() -> None:
    fixture = nest(0x107, 0x107)
    record = fixture.store(STORE_RC)
    outcome = fixture.handle(record)
    assert outcome.verdict is Verdict.REFLECT
    assert reflect(outcome, record).dsisr == 0x02040000
    assert state(fixture) == (0x187, 0x107)
    assert fixture.read_word(0x02012028) == LEAF_64K & ~0xFFF | 0x107


def test_then_l0_sets_its_own_and_the_shadows_td2() -> None:
    fixture = nest(0x107, 0x107, l0=0x107)
    fixture.handle(fixture.store(STORE_RC))
    fixture.leaf(LEAF_64K)
    assert fixture.handle(fixture.store(STORE_RC)).verdict is Verdict.RESUME
    assert state(fixture) == (0x187, 0x187)
    assert fixture.flush_log() == []


def test_a_load_needs_reference_alone_td3_td7() -> None:
    fixture = nest(0x087, 0x007, l0=0x007)
    assert fixture.handle(fixture.load(SET_RC)).verdict is Verdict.REFLECT
    fixture.leaf(LEAF_64K)
    assert fixture.handle(fixture.load(SET_RC)).verdict is Verdict.RESUME
    assert state(fixture) == (0x107, 0x107)


def test_without_a_shadow_l0_has_been_set_already_td4() -> None:
    fixture = nest(0x187, None, l0=0x007)
    assert fixture.handle(fixture.store(STORE_RC)).verdict is Verdict.RESUME
    assert state(fixture) == (0x187, None)


def test_an_entry_of_l0_that_is_not_writable_drops_the_shadow_td5() -> None:
    fixture = nest(0x187, 0x105, l0=0x105)
    assert fixture.handle(fixture.store(STORE_RC)).verdict is Verdict.RESUME
    assert state(fixture) == (0x105, None)
    assert fixture.flush_log() == [(7, "page", 0x123450000, 16)]


@pytest.mark.parametrize("shadow", [pytest.param(0x107, id="TD6-present"), pytest.param(None, id="TD6-absent")])
def test_together_with_no_translation(shadow: int | None) -> None:
    fixture = nest(0x187, shadow)
    assert fixture.handle(fixture.store(STORE_RC | NOHPTE)).verdict is Verdict.RESUME
    assert state(fixture) == (0x187, None if shadow is None else 0x187)


@pytest.mark.parametrize(
    ("more", "shadow"),
    [
        pytest.param(0, 0x105, id="alone"),
        pytest.param(NOHPTE, 0x107, id="TD6-NOHPTE"),
        pytest.param(0x08000000, 0x107, id="PROTFAULT"),
        pytest.param(0x00100000, 0x107, id="BAD_FAULT_64S"),
    ],
)
def test_what_else_was_wrong_is_mended_by_an_insertion_step_6(more: int, shadow: int) -> None:
    fixture = nest(0x187, 0x105)
    assert fixture.handle(fixture.load(SET_RC | more)).verdict is Verdict.RESUME
    assert state(fixture) == (0x187, shadow)  # a load's leaf is ...107; ORed into ...105


def test_any_address_in_a_large_page_sets_its_one_leaf_td8() -> None:
    fixture = Fixture(backing_shift=21)
    fixture.leaf(0xC000000180000187, "2M")
    fixture.handle(fixture.load())
    assert fixture.shadow() == (0xC000000580000107, 21)
    for asdr in (0x123400000, 0x1235FF000):
        fixture.nested.shadow.clear_flags(N, accessed=False, dirty=True)
        fixture.handle(fixture.store(STORE_RC, asdr=asdr))
        assert fixture.shadow() == (0xC000000580000187, 21)


def test_an_unmap_between_l1s_bits_and_the_lock_leaves_nothing_behind_td9() -> None:
    fixture = nest(0x187, None)
    fixture.handle(fixture.load())
    assert state(fixture) == (0x187, 0x107)
    steps = fixture.handler.handle(fixture.nested, decode(fixture.store(STORE_RC)))
    while next(steps) is not Point.LOCK:
        pass
    fixture.guest.table.remove(0x180050000)
    assert fixture.shadow() is None
    assert finish(steps).verdict is Verdict.RESUME
    assert state(fixture) == (None, None)


def test_the_shadow_is_found_by_l1s_lpid_even_where_another_guest_has_the_shadows_b47() -> None:
    fixture = nest(0x187, 0x107)
    other = fixture.host.add_nested(fixture.guest, type(fixture.nested.assigned)(7), type(fixture.nested.tag)(9))
    fixture.plant(other.shadow, 0x123450000, L0_PAGE | 0x107, 16)
    fixture.handle(fixture.store(STORE_RC))
    assert low(fixture.shadow()) == 0x187
    untouched = other.shadow.lookup(N)
    assert untouched is not None
    assert not untouched.dirty
