"""The reverse map."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nestmmu.addresses import AssignedTag
from nestmmu.rmap import ReverseEntry, ReverseMap

ONE, TWO, THREE = (ReverseEntry(AssignedTag(tag), address) for tag, address in ((5, 0x30), (5, 0x40), (6, 0x30)))


def test_entries_are_newest_first() -> None:
    rmap = ReverseMap()
    assert [rmap.insert(8, entry) for entry in (ONE, TWO, THREE)] == [True, True, True]
    assert rmap.entries(8) == [THREE, TWO, ONE]
    assert rmap.entries(9) == []
    assert len(rmap) == 3


def test_what_is_noted_is_not_noted_again() -> None:
    rmap = ReverseMap()
    rmap.insert(8, ONE)
    rmap.insert(8, TWO)
    assert not rmap.insert(8, ReverseEntry(AssignedTag(5), 0x30))
    assert rmap.entries(8) == [TWO, ONE]
    assert rmap.insert(9, ONE)
    assert rmap.frames() == [8, 9]


def test_take_forgets_one_frame() -> None:
    rmap = ReverseMap()
    rmap.insert(9, THREE)
    rmap.insert(8, ONE)
    rmap.insert(8, TWO)
    assert rmap.take(8) == [TWO, ONE]
    assert rmap.take(8) == []
    assert (rmap.frames(), len(rmap)) == ([9], 1)
    assert rmap.insert(8, ONE)


def test_looking_changes_nothing() -> None:
    rmap = ReverseMap()
    rmap.insert(8, ONE)
    rmap.entries(8).clear()
    assert rmap.entries(3) == []
    assert (rmap.entries(8), rmap.frames()) == ([ONE], [8])


def test_clear() -> None:
    rmap = ReverseMap()
    rmap.insert(8, ONE)
    rmap.clear()
    assert (len(rmap), rmap.frames(), rmap.take(8)) == (0, [], [])


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([ONE, TWO, THREE]), st.booleans()), max_size=30))
def test_it_is_a_dict_of_ordered_sets(steps: list[tuple[int, ReverseEntry, bool]]) -> None:
    rmap, model = ReverseMap(), dict[int, list[ReverseEntry]]()
    for frame, entry, insert in steps:
        known = model.setdefault(frame, [])
        if insert:
            assert rmap.insert(frame, entry) is (entry not in known)
            known[:0] = [] if entry in known else [entry]
        else:
            assert rmap.take(frame) == model.pop(frame)
        assert len(rmap) == sum(map(len, model.values()))
    for frame, entries in model.items():
        assert rmap.entries(frame) == entries
