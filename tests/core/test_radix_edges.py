"""Where tables are not as they should be, or larger than the toy's: roots, alignment, bounds of enumeration."""

from __future__ import annotations

import attrs
import pytest

from nestmmu.access import Access
from nestmmu.errors import TooLargeError
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import Level, Match, RadixFormat
from nestmmu.memory import PhysicalMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from toy_arch.formats import LOOK, PAGE, PRESENT, TOY

LEAF = PRESENT | PAGE | LOOK
WIDE = attrs.evolve(
    TOY, name="wide", input_bits=10,
    levels=(attrs.evolve(TOY.levels[0], index_bits=(3,)), attrs.evolve(TOY.levels[1], index_bits=(3,))),
)  # fmt: skip
"""Tables of 8 entries, 32 bytes: an address of a table may be misaligned."""


def deep(levels: int) -> RadixFormat:
    """Return a format of so many levels of 4 entries, with leaves in the last alone, of 16 bytes."""
    upper = Level("upper", (2,), Match(PAGE, PAGE), may_leaf=False)
    last = Level("last", (2,), Match(PAGE, PAGE), may_table=False)
    return attrs.evolve(TOY, name="deep", input_bits=2 * levels + 4, levels=(*[upper] * (levels - 1), last))


def table_of(form: RadixFormat, memory: PhysicalMemory, base: int, bits: int = 2) -> RadixTable:
    return RadixTable(RadixWalker(form, memory, "table"), Root(base, bits))


def words(memory: PhysicalMemory, address: int, *values: int) -> None:
    memory.write(address, b"".join(value.to_bytes(4, "little") for value in values))


@pytest.mark.parametrize(("base", "bits"), [(0x110, 3), (0x104, 3), (0x100, 2), (0x100, 0), (0x100, 64)])
def test_a_root_that_the_format_forbids(base: int, bits: int) -> None:
    table = table_of(WIDE, PhysicalMemory(), base, bits)
    for use in (
        lambda: table.lookup(0x45, Access.STORE),
        lambda: table.translate(0x45, Access.STORE),
        lambda: table.locator()(0x45, Access.STORE),
    ):
        with pytest.raises(Fault) as caught:
            use()
        fault = caught.value
        assert (fault.kind, fault.level, fault.entry_address, fault.input_address, fault.access) == (
            FaultKind.MALFORMED, None, None, 0x45, Access.STORE,
        )  # fmt: skip
    with pytest.raises(Fault) as caught:
        list(table.leaves())
    assert caught.value.kind is FaultKind.MALFORMED


def test_a_table_that_is_not_aligned_to_its_size() -> None:
    memory = PhysicalMemory()
    words(memory, 0x100, PRESENT | 0x210)
    words(memory, 0x200, LEAF | 0x5550)
    with pytest.raises(Fault) as caught:
        table_of(WIDE, memory, 0x100, 3).lookup(0x4)
    fault = caught.value
    assert (fault.kind, fault.level, fault.entry_address, fault.entry) == (
        FaultKind.MALFORMED, 0, 0x100, PRESENT | 0x210,
    )  # fmt: skip
    lax = attrs.evolve(WIDE, strict_table=False)
    assert table_of(lax, memory, 0x100, 3).lookup(0x4).output_address == 0x5554
    assert table_of(lax, memory, 0x110, 3).lookup(0x4).output_address == 0x5554
    assert [leaf.output_address for leaf in table_of(lax, memory, 0x110, 3).leaves()] == [0x5550]


def test_address_bits_above_the_table_are_not_looked_at() -> None:
    memory = PhysicalMemory()
    words(memory, 0x100, PRESENT | 0x200)
    words(memory, 0x200, LEAF | 0x5550)
    table = table_of(TOY, memory, 0x100)
    assert table.lookup(0x4).output_address == table.lookup(0xFF00_0000_0000_0004).output_address == 0x5554


@pytest.mark.parametrize(
    ("entry", "kind"),
    [(LEAF | 0x5540, FaultKind.MALFORMED), (PRESENT | 0x100, FaultKind.MALFORMED), (0, FaultKind.NOT_PRESENT)],
)
def test_a_leaf_where_none_may_be_and_a_loop(entry: int, kind: FaultKind) -> None:
    """A table that leads to itself comes to the last level, which leads nowhere."""
    memory = PhysicalMemory()
    words(memory, 0x100, entry)
    table = table_of(deep(3), memory, 0x100)
    with pytest.raises(Fault) as caught:
        table.lookup(0)
    assert caught.value.kind is kind
    assert caught.value.level == (2 if entry == PRESENT | 0x100 else 0)
    if entry:
        with pytest.raises(Fault):
            list(table.leaves())
    else:
        assert list(table.leaves()) == []


def test_a_table_that_leads_to_itself_in_every_entry_ends() -> None:
    """Twelve levels of four entries in 16 bytes: 4 ** 11 ways to the last level, none of them a leaf."""
    memory = PhysicalMemory()
    words(memory, 0x100, *[PRESENT | 0x100] * 4)
    with pytest.raises((TooLargeError, Fault)):
        list(table_of(deep(12), memory, 0x100).leaves())


def test_a_shared_table_reached_too_often_ends() -> None:
    """Each of eleven tables leads to the next four times over: 4 ** 12 leaves out of 192 bytes."""
    memory = PhysicalMemory()
    for level in range(11):
        words(memory, 0x100 + 16 * level, *[PRESENT | 0x110 + 16 * level] * 4)
    words(memory, 0x1B0, *[LEAF | 0x5550] * 4)
    table = table_of(deep(12), memory, 0x100)
    assert table.lookup((1 << 28) - 1).output_address == 0x555F
    with pytest.raises(TooLargeError, match="0x100"):
        list(table.leaves())


def test_a_full_tree_of_small_tables_is_not_too_large() -> None:
    """Five levels: 341 tables of 16 bytes fill 5,456 bytes, which is two frames, and have 1,024 leaves."""
    memory = PhysicalMemory()
    first, count, at = 0x10000, 1, 0
    for level in range(5):
        below = first + 16 * count
        for number in range(count):
            entries = [
                LEAF | 0x20_0000 + 16 * (4 * number + index)
                if level == 4
                else PRESENT | below + 16 * (4 * number + index)
                for index in range(4)
            ]
            words(memory, first + 16 * number, *entries)
        at += count
        first, count = below, 4 * count
    assert (at, memory.frame_count()) == (341, 2)
    leaves = list(table_of(deep(5), memory, 0x10000).leaves())
    assert [leaf.input_address for leaf in leaves] == list(range(0, 1 << 14, 16))
    assert [leaf.output_address for leaf in leaves] == list(range(0x20_0000, 0x20_0000 + (1 << 14), 16))


def test_leaves_of_what_cannot_be_read() -> None:
    memory = PhysicalMemory(0x1000)
    words(memory, 0x100, PRESENT | 0x200, PRESENT | 0xFF_FFF0)
    words(memory, 0x200, LEAF | 0x5550)
    leaves = table_of(TOY, memory, 0x100).leaves()
    assert next(leaves).output_address == 0x5550
    with pytest.raises(Fault) as caught:
        next(leaves)
    fault = caught.value
    assert (fault.kind, fault.level, fault.input_address, fault.entry_address) == (
        FaultKind.UNREADABLE, 1, 0x40, 0xFF_FFF0,
    )  # fmt: skip
