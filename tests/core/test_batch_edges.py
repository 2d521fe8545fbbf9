"""What is asked of a batch, and of the memory under it: dtypes, chunks, progress, circles, freed and watched memory."""

from __future__ import annotations

import importlib.util

import attrs
import numpy as np
import pytest
from batch_rows import by_table, of_batch

from nestmmu import batch, batch_stages
from nestmmu.access import ALL_PERMISSIONS, Access
from nestmmu.batch import translate_many
from nestmmu.errors import CycleError, InputError, NestmmuError, OutsideMemoryError, PoisonedError
from nestmmu.faults import FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.mappings import Mapping
from nestmmu.memory import JournaledMemory, PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.slots import LinearBacking, Slot, Slots, SlotTranslator
from nestmmu.translations import (
    MOST_STAGES,
    OUTSIDE,
    FaultSummary,
    Lanes,
    StageNames,
    fault_code,
    fault_summary,
    kind_number,
)
from toy_arch.formats import GRUBBY, LOOK, PAGE, POKE, PRESENT, RUN, TOY, USED

ALL = PRESENT | PAGE | LOOK | POKE | RUN | USED | GRUBBY
UPPER, LOWER = 0x100, 0x200


def small_table(memory: PhysicalMemory | None = None, policy: AccessedDirty = AccessedDirty.IGNORE) -> RadixTable:
    """Map pages 0 to 7 of 16 bytes, page n to 0x1000 + 32 n, and 64 bytes from 0x80 on to 0x4000."""
    memory = PhysicalMemory(1 << 24) if memory is None else memory
    words = {UPPER: PRESENT | LOWER, UPPER + 4: PRESENT | LOWER + 16, UPPER + 8: ALL | 0x4000}
    words |= {LOWER + 4 * page: ALL | 0x1000 + 32 * page for page in range(8)}
    for address, word in words.items():
        memory.write(address, word.to_bytes(4, "little"))
    return RadixTable(RadixWalker(TOY, memory, "toy table", policy), Root(UPPER, 2))


def test_a_translation_by_hand() -> None:
    found = translate_many(small_table(), [0x00, 0x7F, 0x80, 0xBF, 0xC0], Access.STORE)
    assert found.outputs.tolist() == [0x1000, 0x10EF, 0x4000, 0x403F, 0xC0]
    assert found.shifts.tolist() == [4, 4, 6, 6, 0]
    assert found.permissions.tolist() == [7, 7, 7, 7, 0]
    fault = FaultSummary(FaultKind.NOT_PRESENT, "toy table", 0, implicit=False)
    assert [found.fault(index) for index in range(5)] == [None, None, None, None, fault]
    assert found.fault_counts() == {fault: 1}
    assert str(fault) == "toy table: not present, level 0"
    assert (len(found), found.complete.tolist()) == (5, [True] * 4 + [False])
    kinds = [array.dtype for array in (found.outputs, found.shifts, found.permissions, found.faults)]
    assert kinds == [np.uint64, np.uint8, np.uint8, np.uint16]


@pytest.mark.parametrize("kind", [np.uint64, np.int64, np.uint32, np.uint8, ">u8", "<i2"])
def test_any_integers_are_addresses(kind: str) -> None:
    found = translate_many(small_table(), np.array([0x10, 0x1F], kind), Access.LOAD)
    assert found.outputs.tolist() == [0x1020, 0x102F]


def test_a_list_is_taken_exactly() -> None:
    """As numpy would have it, two such numbers are floats."""
    found = translate_many(small_table(), [0, (1 << 64) - 0xF0], Access.LOAD)
    assert found.outputs.tolist() == [0x1000, 0x1020]


def test_no_addresses() -> None:
    for nothing in (np.zeros(0, np.uint64), np.zeros(0, np.float64)):
        found = translate_many(small_table(), nothing, Access.LOAD)
        assert len(found) == 0
        assert found.fault_counts() == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([0.5], "has dtype float64"),
        (["0x10"], "has dtype <U4"),
        ([True], "has dtype bool"),
        ([1 << 64], "has a number 18446744073709551616"),
        (np.array([3, -1]), "has a number -1"),
        (np.zeros((2, 2), np.uint64), r"has shape \(2, 2\)"),
        (7, r"has shape \(\)"),
        ([[1], [2, 3]], "is no array of numbers"),
        ([3, -1], "has a number -1"),
        (np.array([1 << 64]), "has dtype object"),
        (np.array([b"x"]), r"has dtype \|S1"),
    ],
)
def test_what_are_no_addresses(given: object, said: str) -> None:
    with pytest.raises(InputError, match=f"^addresses: {said}; give whole numbers from 0 to 2"):
        translate_many(small_table(), given, Access.LOAD)  # type: ignore[arg-type]


def test_what_does_not_translate() -> None:
    with pytest.raises(NestmmuError, match="int does not translate addresses; give a table"):
        translate_many(5, [0], Access.LOAD)


def test_chunks_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "CHUNK", 100)
    addresses = np.arange(256, dtype=np.uint64)
    told: list[tuple[int, int]] = []
    found = translate_many(
        small_table(), addresses, Access.LOAD, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(100, 256), (200, 256), (256, 256)]
    table = small_table()
    assert [of_batch(found, index) for index in range(256)] == [
        by_table(table, address, Access.LOAD) for address in range(256)
    ]


def test_what_is_remembered_is_bounded_and_may_be_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "CHUNK", 16)
    monkeypatch.setattr(batch_stages, "_MOST_FRAMES", 0)
    machine = PhysicalMemory(1 << 24)
    guest = TranslatedMemory(machine, small_table(machine), "guest")
    inner = RadixTable(RadixWalker(TOY, guest, "inner"), Root(0, 2))
    for page in range(4):
        machine.write(0x1000 + 4 * page, (ALL | 0x40 * page & 0x40).to_bytes(4, "little"))
    found = translate_many(inner, np.arange(256), Access.LOAD)
    assert [of_batch(found, index) for index in range(256)] == [
        by_table(inner, address, Access.LOAD) for address in range(256)
    ]


def test_addresses_far_apart_are_found_by_search() -> None:
    level = attrs.evolve(TOY.levels[0], index_bits=(8,))
    form = attrs.evolve(TOY, name="far", input_bits=56, levels=(level,) * 6 + (attrs.evolve(level, may_table=False),))
    memory = PhysicalMemory(1 << 24)
    for depth in range(6):
        for index in (0, 3, 255):
            memory.write(depth << 12 | index << 2, (PRESENT | depth + 1 << 12).to_bytes(4, "little"))
    memory.write(0x6008, (ALL | 0x8000).to_bytes(4, "little"))
    form = attrs.evolve(form, input_bits=60)
    table = RadixTable(RadixWalker(form, memory, "far"), Root(0, 8))
    values = (0, 3, 255, 7)
    addresses = [
        a << 52 | b << 36 | c << 12 | d << 4 | 5 for a in values for b in values for c in values for d in (2, 3)
    ]
    found = translate_many(table, np.array(addresses, np.uint64), Access.LOAD)
    assert [of_batch(found, index) for index in range(len(addresses))] == [
        by_table(table, address, Access.LOAD) for address in addresses
    ]
    assert found.complete.sum() == 27


class TestMemories:
    def test_circles_are_named(self) -> None:
        machine = PhysicalMemory()
        one = TranslatedMemory(machine, small_table(), "A")
        two = TranslatedMemory(machine, RadixTable(RadixWalker(TOY, one, "a"), Root(0, 2)), "B")
        one.table = RadixTable(RadixWalker(TOY, two, "b"), Root(0, 2))
        for memory, names in ((one, ("A", "B", "A")), (two, ("B", "A", "B"))):
            with pytest.raises(CycleError) as caught:
                translate_many(memory, [0], Access.LOAD)
            assert caught.value.names == names

    def test_a_malformed_root_is_found_before_a_circle(self) -> None:
        memory = TranslatedMemory(PhysicalMemory(), small_table(), "A")
        memory.table = RadixTable(RadixWalker(TOY, memory, "a"), Root(0, 7))
        found = translate_many(memory, [5], Access.LOAD)
        assert found.fault(0) == FaultSummary(FaultKind.MALFORMED, "a", None, implicit=False)

    def test_freed_memory_is_not_read(self) -> None:
        memory = PhysicalMemory(1 << 24)
        table = small_table(memory)
        memory.poison(0)
        with pytest.raises(PoisonedError, match="which was freed"):
            translate_many(table, [0], Access.LOAD)

    def test_watched_memory_is_read_all_the_same(self) -> None:
        class Watched(PhysicalMemory):
            def loader(self, size, byteorder):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
                return lambda address: self.load(address, size, byteorder)

        found = translate_many(small_table(Watched(1 << 24)), [0x7F], Access.LOAD)
        assert found.outputs.tolist() == [0x10EF]

    def test_updates_can_be_rolled_back(self) -> None:
        memory = JournaledMemory(1 << 24)
        table = small_table(memory, AccessedDirty.UPDATE)
        memory.store(LOWER, PRESENT | PAGE | POKE | LOOK | 0x1000, 4, "little")
        memory.commit()
        translate_many(table, [0, 3, 0x10], Access.STORE, update=True)
        assert memory.changes(4, "little") == [(LOWER, PRESENT | PAGE | POKE | LOOK | USED | GRUBBY | 0x1000)]
        memory.rollback()
        assert memory.load(LOWER, 4, "little") == PRESENT | PAGE | POKE | LOOK | 0x1000

    def test_a_guest_found_by_slots(self) -> None:
        slots = SlotTranslator(Slots((Slot(0, 0x40, read_only=True),)), LinearBacking(0x1000, 4), 4)
        found = translate_many(TranslatedMemory(PhysicalMemory(), slots, "guest"), [0, 0x3F, 0x40], Access.LOAD)
        assert found.outputs.tolist() == [0x1000, 0x103F, 0x40]
        assert found.shifts.tolist() == [4, 4, 0]
        assert found.fault(2) == FaultSummary(None, "SlotTranslator", None, implicit=False)
        with pytest.raises(OutsideMemoryError):
            slots.translate(0x40, Access.LOAD)
        stores = translate_many(TranslatedMemory(PhysicalMemory(), slots, "guest"), [0], Access.STORE)
        assert str(stores.fault(0)) == "SlotTranslator: outside memory"

    def test_a_wrapped_walker_is_asked_itself(self) -> None:
        class Nudged(RadixWalker):
            def mapping(self, address, found):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
                return attrs.evolve(super().mapping(address, found), output_address=1)

        table = small_table()
        wrapped = RadixTable(Nudged(TOY, table.walker.memory, "toy table"), table.root)
        found = translate_many(wrapped, [0, 0x80, 0xFF], Access.LOAD)
        assert found.outputs.tolist() == [1, 1, 0xFF]
        assert found.fault(2) == FaultSummary(FaultKind.NOT_PRESENT, "toy table", 0, implicit=False)


class Folded:
    """A table of another shape: all addresses lead to eight bytes, and only loads do."""

    granule_shift = 3

    def translate(self, address: int, access: Access) -> Mapping:
        raise NotImplementedError

    def batch_stage(self, batch: batch_stages.Batch) -> Folded:
        self.number = batch.names.number("folded")
        return self

    def run(self, lanes: Lanes, access: Access | None) -> None:
        if access is Access.STORE:
            codes = np.full(len(lanes), fault_code(kind_number(FaultKind.PERMISSION), self.number), np.uint16)
            lanes.fail(np.arange(len(lanes)), codes, lanes.addresses)
            return
        lanes.addresses &= np.uint64(7)
        np.minimum(lanes.shifts, 3, out=lanes.shifts)


def test_a_table_of_another_shape_takes_part() -> None:
    found = translate_many(Folded(), [0x105, 9], Access.LOAD)
    assert (found.outputs.tolist(), found.shifts.tolist()) == ([5, 1], [3, 3])
    guest = TranslatedMemory(small_table().walker.memory, Folded(), "folded guest")  # type: ignore[arg-type]
    inner = RadixTable(RadixWalker(TOY, guest, "inner"), Root(0, 2))
    guest.physical.write(0, (ALL | 0x40).to_bytes(4, "little"))
    assert translate_many(inner, [0x3F], Access.STORE).outputs.tolist() == [0x7F]
    stored = translate_many(TranslatedMemory(guest, inner, "nested"), [0x3F], Access.STORE)
    assert str(stored.fault(0)) == "folded: permission"


def test_codes_say_all_of_a_fault() -> None:
    for kind in FaultKind:
        for level in (None, 0, 3, 30):
            for implicit in (False, True):
                code = fault_code(kind_number(kind), 2, level, implicit=implicit)
                assert 0 < code < 1 << 16
                assert fault_summary(code, ["a", "b", "c"]) == FaultSummary(kind, "c", level, implicit)
    assert fault_summary(fault_code(OUTSIDE, 63), [str(number) for number in range(64)]).stage == "63"
    assert kind_number(FaultKind.PERMISSION | FaultKind.ATTRIBUTE) == kind_number(FaultKind.PERMISSION)
    names = StageNames()
    assert [names.number(str(number)) for number in range(MOST_STAGES)] == list(range(MOST_STAGES))
    with pytest.raises(NestmmuError, match="more than 64"):
        names.number("one more")


def test_a_format_that_is_too_large_is_refused() -> None:
    form = attrs.evolve(TOY, name="huge", output_mask=1 << 63, address_shift=2)
    table = RadixTable(RadixWalker(form, PhysicalMemory(), "huge"), Root(0, 2))
    with pytest.raises(NestmmuError, match="huge is too large a format"):
        translate_many(table, [0], Access.LOAD)


def test_numba_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    many = np.zeros(1 << 17, np.uint64)
    assert translate_many(small_table(), many, Access.LOAD).outputs[-1] == 0x1000
    with pytest.raises(NestmmuError, match=r"install nestmmu\[jit\]"):
        translate_many(small_table(), many, Access.LOAD, jit=True)


def test_lookups_need_no_permission() -> None:
    table = small_table()
    table.walker.memory.write(LOWER, (PRESENT | PAGE | 0x1000).to_bytes(4, "little"))
    found = translate_many(table, [0], None)
    assert (found.outputs.tolist(), found.permissions.tolist(), found.access) == ([0x1000], [0], None)
    assert translate_many(table, [0x10], None).permissions.tolist() == [ALL_PERMISSIONS]
