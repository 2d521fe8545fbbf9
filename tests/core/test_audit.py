"""The audit of shadow tables: each verdict by hand, and recorded nests with one entry damaged in each way."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nest_tables import DATA, IMAGES, NestTables, nest_tables
from typer.testing import CliRunner

from nestmmu.audit import Judge, Verdict
from nestmmu.cli import app
from nestmmu.extents import ACCESSED, DIRTY, Extents
from nestmmu.images import shipped_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nestmmu.mappings import Mapping

R, C, WRITE, EAA = 0x100, 0x80, 0x2, 0x7
VALID, LEAF, RPN = 1 << 63, 1 << 62, 0x01FF_FFFF_FFFF_F000
RX, RW, RWX = 5, 6, 7
MARKED = ACCESSED | DIRTY
SHIFT = 12


def page(
    start: int, target: int, shift: int = SHIFT, permissions: int = RWX, flags: int = MARKED
) -> tuple[int, int, int, int, int, int]:
    return start, 1 << shift, target, permissions, flags, shift


def space(*pages: tuple[int, ...]) -> Extents:
    return Extents.make(*(list(column) for column in zip(*pages, strict=True)))


INNER = space(page(0x1000, 0x8000), page(0x2000, 0x9000, flags=ACCESSED), page(0x20_0000, 0x40_0000, 21, RX))
OUTER = space(page(0x8000, 0x5000), page(0x9000, 0x3000, permissions=RX), page(0x40_0000, 0x80_0000, 21))

JUDGED = {
    "as composed": (page(0x1000, 0x5000), Verdict.SOUND),
    "fewer rights, not yet written": (page(0x1000, 0x5000, permissions=4, flags=ACCESSED), Verdict.SOUND),
    "a smaller page": (page(0x20_3000, 0x80_3000, permissions=RX), Verdict.SOUND),
    "what the inner table denies": (page(0x20_3000, 0x80_3000, permissions=RW), Verdict.TOO_PERMISSIVE),
    "what the outer table denies": (page(0x2000, 0x3000, flags=ACCESSED), Verdict.TOO_PERMISSIVE),
    "written, unseen by the inner table": (page(0x2000, 0x3000, permissions=RX), Verdict.DIRTY_UNSEEN),
    "another page of the guest hypervisor's": (page(0x1000, 0x3000), Verdict.WRONG_TARGET),
    "another page, and what is denied": (page(0x2000, 0x5000), Verdict.WRONG_TARGET),
    "a page of nobody's": (page(0x1000, 0x6000), Verdict.OUTSIDE),
    "larger than the inner page": (page(0, 0x4000, 14), Verdict.TOO_LARGE),
    "larger, and elsewhere": (page(0, 0x10_0000, 20), Verdict.TOO_LARGE),
    "unmapped by the inner table": (page(0x3000, 0x5000), Verdict.STALE),
    "unmapped before and after": (page(0x10_0000, 0x5000), Verdict.STALE),
    "beyond all": (page(1 << 50, 0x5000), Verdict.STALE),
}


@pytest.mark.parametrize("what", JUDGED)
def test_one_entry(what: str) -> None:
    entry, expected = JUDGED[what]
    assert Judge(INNER, OUTER).judge(space(entry)).tolist() == [expected]


def test_attributes_are_no_permissions() -> None:
    table = space(page(0, 0, permissions=4, flags=0xFFFC))
    rows = [(4, 0xFFFC, Verdict.SOUND), (6, 0, Verdict.TOO_PERMISSIVE), (4, DIRTY, Verdict.DIRTY_UNSEEN)]
    for permissions, flags, verdict in rows:
        assert Judge(table, table).judge(space(page(0, 0, SHIFT, permissions, flags))).tolist() == [verdict]


def test_all_at_once() -> None:
    rows = sorted({entry[0]: (entry, verdict) for entry, verdict in JUDGED.values() if entry[1] == 1 << SHIFT}.items())
    entries, verdicts = zip(*(row for _, row in rows), strict=True)
    assert Judge(INNER, OUTER).judge(space(*entries)).tolist() == list(verdicts)


def test_what_the_host_has_taken_away_is_stale() -> None:
    inner, host = space(page(0x1000, 0x8000), page(0x2000, 0x9000)), space(page(0x8000, 0x5000), page(0xA000, 0x7000))
    shadow = space(page(0x1000, 0x5000), page(0x2000, 0x6000))
    assert Judge(inner, host).judge(shadow).tolist() == [Verdict.SOUND, Verdict.STALE]


def test_what_the_inner_table_leads_beyond_all_memory() -> None:
    inner, host = space(page(0x1000, 0x8000), page(0x2000, 0xB000)), space(page(0x8000, 0x5000), page(0xA000, 0x7000))
    shadow = space(page(0x1000, 0x5000), page(0x2000, 0x6000))
    assert Judge(inner, host).judge(shadow).tolist() == [Verdict.SOUND, Verdict.OUTSIDE]


def test_a_host_without_memory_for_its_guest() -> None:
    assert Judge(INNER, Extents.empty()).judge(space(page(0x1000, 0x5000))).tolist() == [Verdict.OUTSIDE]
    assert Judge(Extents.empty(), OUTER).judge(space(page(0x1000, 0x5000))).tolist() == [Verdict.STALE]


def test_one_page_of_memory_under_many_costs_no_more_than_they_are() -> None:
    """All pages lead to one of 1 GiB, which the host maps by pages of 4 KiB: a composition would have 2^31 pieces."""
    count = 1 << 13
    starts = np.arange(count, dtype=np.uint64) << np.uint64(30)
    inner = Extents.make(starts, [1 << 30] * count, [0] * count, [RWX] * count, [MARKED] * count, [30] * count)
    pages = np.arange(1 << 18, dtype=np.uint64) << np.uint64(SHIFT)
    small = np.full(1 << 18, SHIFT)
    outer = Extents.make(pages, small * 0 + (1 << SHIFT), pages, small * 0 + RWX, small * 0 + MARKED, small)
    assert set(Judge(inner, outer).judge(inner).tolist()) == {Verdict.TOO_LARGE}


PAGES = st.dictionaries(st.integers(0, 15), st.tuples(st.integers(0, 15), st.integers(0, 7), st.integers(0, 3)))


@settings(max_examples=200)
@given(inner=PAGES, outer=PAGES, shadow=PAGES)
def test_beside_dictionaries(
    inner: dict[int, tuple[int, int, int]],
    outer: dict[int, tuple[int, int, int]],
    shadow: dict[int, tuple[int, int, int]],
) -> None:
    def made(pages: dict[int, tuple[int, int, int]]) -> Extents:
        rows = (page(at << 12, to << 12, SHIFT, may, flags) for at, (to, may, flags) in sorted(pages.items()))
        return space(*rows) if pages else Extents.empty()

    def expected(at: int) -> Verdict:
        to, may, flags = shadow[at]
        middle = inner.get(at)
        if middle is None:
            return Verdict.STALE
        end = outer.get(middle[0])
        if end is None:
            return Verdict.OUTSIDE if middle[0] > max(outer, default=-1) else Verdict.STALE
        if to != end[0]:
            return Verdict.WRONG_TARGET if to in {one[0] for one in outer.values()} else Verdict.OUTSIDE
        if may & ~(middle[1] & end[1]):
            return Verdict.TOO_PERMISSIVE
        return Verdict.DIRTY_UNSEEN if flags & DIRTY & ~(middle[2] & end[2]) else Verdict.SOUND

    verdicts = Judge(made(inner), made(outer)).judge(made(shadow)).tolist()
    assert verdicts == [expected(at) for at in sorted(shadow)]


def audited(path: Path, status: int) -> dict[str, Any]:
    """Return what the command prints as JSON."""
    result = CliRunner().invoke(app, ["audit", str(path), "--json"], catch_exceptions=False)
    assert result.exit_code == status, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def image_path(name: str) -> Path:
    return shipped_image() if name == "nest-64k-64k" else DATA / f"{name}.json"


@pytest.mark.parametrize("name", IMAGES)
def test_the_recorded_nests_are_sound(name: str) -> None:
    """The README: each shadow entry is the composition of the tables under it; there are 1,348, 2,797 and none."""
    found = audited(image_path(name), 0)
    entries = {"nest-64k-64k": 1348, "nest-4k-64k": 2797}.get(name, 0)
    assert found["entries"] == entries
    assert found["verdicts"] == {verdict.label: entries if verdict is Verdict.SOUND else 0 for verdict in Verdict}
    assert found["offenders"] == found["tables"] == []


@attrs.define
class Damaged:
    """A copy of a recorded nest, and its tables as they were before it was damaged."""

    path: Path
    nest: NestTables
    frames: dict[int, int]
    data: Any

    @classmethod
    def of(cls, folder: Path, name: str) -> Damaged:
        source = image_path(name)
        for file in source.parent.glob(f"{name}.*"):
            shutil.copyfile(file, folder / file.name)
        with np.load(folder / f"{name}.pages.npz") as pages:
            frames = {number: index for index, number in enumerate(pages["frame"].tolist())}
            return cls(folder / f"{name}.json", nest_tables(name), frames, pages["data"].copy())

    def word(self, address: int) -> int:
        row, offset = self.frames[address >> 12], address & 0xFFF
        return int.from_bytes(self.data[row, offset : offset + 8].tobytes(), "big")

    def put(self, address: int, word: int) -> None:
        row, offset = self.frames[address >> 12], address & 0xFFF
        self.data[row, offset : offset + 8] = np.frombuffer(word.to_bytes(8, "big"), np.uint8)

    def save(self) -> Path:
        np.savez(
            self.path.with_name(f"{self.path.stem}.pages.npz"),
            frame=np.array(list(self.frames), np.uint64),
            data=self.data,
        )
        return self.path

    def shadow(self, wanted: Callable[[Mapping], bool]) -> Mapping:
        """Return the first leaf of the shadow that is as wanted."""
        assert self.nest.shadow is not None
        return next(leaf for leaf in self.nest.shadow.leaves() if wanted(leaf))

    def inner_place(self, address: int) -> int:
        """Return where L1's entry for an address is in L0's memory."""
        assert self.nest.l0 is not None
        entry_address = self.nest.l1.lookup(address).entry_address
        assert entry_address is not None
        return self.nest.l0.lookup(entry_address).output_address


def entry_of(leaf: Mapping) -> tuple[int, int]:
    assert leaf.entry_address is not None
    assert leaf.entry is not None
    return leaf.entry_address, leaf.entry


def base_page(leaf: Mapping) -> bool:
    """Tell whether a leaf is of a base page that was written."""
    return leaf.page_shift <= 16 and leaf.dirty


def read_page(leaf: Mapping) -> bool:
    """Tell whether a leaf is of a base page that can only be read."""
    return leaf.page_shift <= 16 and not leaf.permissions & WRITE


def wrong_target(image: Damaged) -> int:
    leaf = image.shadow(base_page)
    other = image.shadow(lambda one: base_page(one) and one.page_start > leaf.page_start)
    place, word = entry_of(leaf)
    image.put(place, word & ~RPN | entry_of(other)[1] & RPN)
    return leaf.page_start


def outside(image: Damaged) -> int:
    leaf = image.shadow(base_page)
    place, word = entry_of(leaf)
    image.put(place, word & ~RPN | 1 << 44)
    return leaf.page_start


def inner_leads_outside(image: Damaged) -> int:
    leaf = image.shadow(lambda one: base_page(one) and image.nest.l1.lookup(one.page_start).page_shift == 16)
    place = image.inner_place(leaf.page_start)
    image.put(place, image.word(place) & ~RPN | 1 << 44)
    return leaf.page_start


def too_permissive(image: Damaged) -> int:
    leaf = image.shadow(read_page)
    place, word = entry_of(leaf)
    image.put(place, word | WRITE)
    return leaf.page_start


def dirty_unseen(image: Damaged) -> int:
    leaf = image.shadow(lambda one: read_page(one) and not one.dirty)
    place, word = entry_of(leaf)
    image.put(place, word | C)
    return leaf.page_start


def stale(image: Damaged) -> int:
    leaf = image.shadow(lambda one: base_page(one) and image.nest.l1.lookup(one.page_start).page_shift == 16)
    place = image.inner_place(leaf.page_start)
    image.put(place, image.word(place) & ~VALID)
    return leaf.page_start


def too_large(image: Damaged) -> int:
    """Put a leaf of 2 MiB in place of the directory that leads to base pages."""
    assert image.nest.shadow is not None
    leaf = image.shadow(base_page)
    steps: list[Any] = []
    image.nest.shadow.walker.trace = steps
    image.nest.shadow.lookup(leaf.page_start)
    image.nest.shadow.walker.trace = None
    image.put(steps[-2].entry_address, leaf.target_start & RPN & -(1 << 21) | VALID | LEAF | R | C | EAA)
    return leaf.page_start & -(1 << 21)


DAMAGES: dict[str, tuple[Callable[[Damaged], int], str]] = {
    "another frame of L1's": (wrong_target, "wrong target"),
    "a frame that is not L1's": (outside, "outside L1's memory"),
    "L1 leads outside its memory": (inner_leads_outside, "outside L1's memory"),
    "writable where L1 only reads": (too_permissive, "too permissive"),
    "C where L1 has none": (dirty_unseen, "dirty without C below"),
    "L1's entry gone": (stale, "stale"),
    "2 MiB over base pages": (too_large, "too large"),
}


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("name", ["nest-64k-64k", "nest-4k-64k"])
def test_a_damaged_nest(name: str, what: str, tmp_path: Path) -> None:
    damage, verdict = DAMAGES[what]
    image = Damaged.of(tmp_path, name)
    address = damage(image)
    found = audited(image.save(), 1)
    # A kernel of 4 KiB pages shadows a page of L1's by up to sixteen of its own.
    bound = 1 << 16 if verdict in {"stale", "outside L1's memory"} and damage != outside else 1
    assert {row["verdict"] for row in found["offenders"]} == {verdict}
    assert all(0 <= row["l2_real"] - address < bound for row in found["offenders"])
    assert found["verdicts"][verdict] == len(found["offenders"]) > 0
    assert len(found["offenders"]) == 1 or name == "nest-4k-64k"
    assert sum(found["verdicts"].values()) == found["entries"]
    assert found["tables"] == []


def test_a_malformed_entry_is_found_where_it_is(tmp_path: Path) -> None:
    image = Damaged.of(tmp_path, "nest-64k-64k")
    leaf = image.shadow(base_page)
    place, word = entry_of(leaf)
    image.put(place, word & ~LEAF)  # no table can be below the last level
    found = audited(image.save(), 1)
    assert found["tables"] == [
        {
            "table": "L0's shadow for L2",
            "problem": "malformed entry",
            "address": leaf.page_start,
            "place": place,
        }
    ]
    assert found["entries"] == found["verdicts"]["sound"] == 1347


def test_a_table_page_that_l1_can_write(tmp_path: Path) -> None:
    """One page of L1's memory that L2 has nothing of is led to where the shadow's root lies."""
    image = Damaged.of(tmp_path, "nest-64k-64k")
    assert image.nest.l0 is not None
    assert image.nest.shadow is not None
    used = {leaf.target_start >> 21 for leaf in image.nest.shadow.leaves()}
    tables = {number >> 9 for number in image.frames}
    leaf = next(one for one in image.nest.l0.leaves() if one.target_start >> 21 not in used | tables)
    place, word = entry_of(leaf)
    root = image.nest.shadow.root.base
    image.put(place, word & ~RPN | root & -(1 << 21))
    found = audited(image.save(), 1)
    exposed = [one for one in found["tables"] if one["problem"] == "table page mapped writable"]
    assert len(exposed) == 1
    assert exposed[0]["table"] == "L0's table for L1"
    assert 0 <= exposed[0]["address"] - leaf.page_start < 1 << 21
    assert exposed[0]["place"] - (root & -(1 << 21)) == exposed[0]["address"] - leaf.page_start
    assert found["verdicts"]["sound"] == 1348


def test_a_frame_given_to_l1_twice(tmp_path: Path) -> None:
    image = Damaged.of(tmp_path, "nest-64k-64k")
    assert image.nest.l0 is not None
    assert image.nest.shadow is not None
    used = {leaf.target_start >> 21 for leaf in image.nest.shadow.leaves()}
    tables = {number >> 9 for number in image.frames}
    free = [one for one in image.nest.l0.leaves() if one.target_start >> 21 not in used | tables]
    place, word = entry_of(free[1])
    image.put(place, word & ~RPN | entry_of(free[0])[1] & RPN)
    (found,) = audited(image.save(), 1)["tables"]
    assert found == {
        "table": "L0's table for L1",
        "problem": "page written at one address and mapped at another",
        "address": free[1].page_start,
        "place": free[0].target_start,
    }


def test_a_table_that_two_directories_lead_to(tmp_path: Path) -> None:
    image = Damaged.of(tmp_path, "nest-64k-64k")
    assert image.nest.shadow is not None
    ways: list[list[Any]] = []
    for wanted in (0, 1):
        leaf = [one for one in image.nest.shadow.leaves() if one.page_shift == 16][wanted * 500]
        steps: list[Any] = []
        image.nest.shadow.walker.trace = steps
        image.nest.shadow.lookup(leaf.page_start)
        image.nest.shadow.walker.trace = None
        ways.append(steps)
    first, second = (steps[-2] for steps in ways)
    assert first.entry != second.entry
    image.put(second.entry_address, first.entry)
    found = audited(image.save(), 1)["tables"]
    again = [one for one in found if one["problem"] == "table page used twice"]
    assert [one["place"] for one in again] == [first.entry & 0x0FFF_FFFF_FFFF_FF00]


def test_what_a_person_sees(tmp_path: Path) -> None:
    image = Damaged.of(tmp_path, "nest-64k-64k")
    address = wrong_target(image)
    result = CliRunner().invoke(app, ["audit", str(image.save())], catch_exceptions=False)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any("wrong target" in line and "sound" in line for line in lines)
    assert f"{address:#x}: wrong target" in lines
    assert f"shadow {address:#x}" in lines
    assert f"l2 {address:#x}" in lines


def test_all_verdicts_in_a_file(tmp_path: Path) -> None:
    image = Damaged.of(tmp_path, "nest-64k-64k")
    address = stale(image)
    result = CliRunner().invoke(app, ["audit", str(image.save()), "--output", str(tmp_path / "v.npz")])
    assert result.exit_code == 1
    with np.load(tmp_path / "v.npz", allow_pickle=False) as file:
        assert len(file["verdict"]) == 1348
        assert file["l2_real"][file["verdict"] == Verdict.STALE].tolist() == [address]
        assert np.count_nonzero(file["verdict"]) == 1
