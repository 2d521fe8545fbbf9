"""Batches of formats that arrays cannot read: nothing is set in a table where it is not to be."""

from __future__ import annotations

import attrs
import pytest

from nestmmu.access import Access
from nestmmu.batch import translate_many
from nestmmu.faults import FaultKind
from nestmmu.formats import AccessedDirty, Level, Match, Unlike
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from toy_arch.formats import GRUBBY, LOOK, PAGE, POKE, PRESENT, TOY, USED


class Other(Unlike):
    """A rule of someone's own, which no array knows."""


SLOW = attrs.evolve(
    TOY,
    name="slow toy",
    levels=(
        Level("upper", (2,), Other(PAGE, 0)),
        Level("lower", (2,), Match(PAGE, PAGE), may_table=False),
    ),
)
"""The toy, said in a way that is not one mask and one value."""
OUTER, INNER = 0x100, 0x40
LEAF = PRESENT | PAGE | LOOK | POKE


def two_stages() -> tuple[PhysicalMemory, TranslatedMemory]:
    """Return the machine's memory, and what an inner and an outer table make of it: one page of 64 bytes each."""
    machine = PhysicalMemory(0x1000)
    machine.store(OUTER + 4 * 1, LEAF | 0x240, 4, "little")
    outer = RadixTable(RadixWalker(SLOW, machine, "outer", AccessedDirty.UPDATE), Root(OUTER, 2))
    middle = TranslatedMemory(machine, outer, "middle")
    machine.store(0x240 + 4 * 2, LEAF | 0x40, 4, "little")  # at 0x40 + 8 of the middle memory
    inner = RadixTable(RadixWalker(SLOW, middle, "inner", AccessedDirty.UPDATE), Root(INNER, 2))
    return machine, TranslatedMemory(middle, inner, "program's")


@pytest.mark.parametrize(
    ("update", "inner", "outer"), [(False, 0, 0), (True, USED | GRUBBY, USED | GRUBBY)], ids=["not", "updated"]
)
def test_flags_of_both_tables(update: bool, inner: int, outer: int) -> None:
    assert not SLOW.plain
    machine, program = two_stages()
    found = translate_many(program, [0x84], Access.STORE, update=update)
    assert (found.faults.tolist(), found.outputs.tolist()) == ([0], [0x244])
    assert machine.load(0x248, 4, "little") == LEAF | 0x40 | inner
    assert machine.load(OUTER + 4, 4, "little") == LEAF | 0x240 | outer


@pytest.mark.parametrize("access", [Access.LOAD, Access.STORE])
def test_a_missing_flag_faults_as_before_where_the_policy_is_to_fault(access: Access) -> None:
    machine, _ = two_stages()
    table = RadixTable(RadixWalker(SLOW, machine, "outer", AccessedDirty.FAULT), Root(OUTER, 2))
    found = translate_many(table, [0x44], access, update=False)
    fault = found.fault(0)
    assert fault is not None
    assert fault.kind is FaultKind.ACCESSED_DIRTY
    assert machine.load(OUTER + 4, 4, "little") == LEAF | 0x240
