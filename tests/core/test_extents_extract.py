"""Whole tables as extents: those of recorded nests, of any words, and broken ones."""

from __future__ import annotations

from collections import Counter

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nest_tables import IMAGES, nest_tables

from nestmmu.access import Access
from nestmmu.errors import NestmmuError, TooLargeError
from nestmmu.extent_algebra import difference, differing
from nestmmu.extents import ACCESSED, DIRTY, Extents
from nestmmu.extract import extents_of, extract
from nestmmu.faults import Fault, FaultKind
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.translations import kind_number
from toy_arch.formats import FORBIDDEN, GLITTER, LOOK, PAGE, POKE, PRESENT, TOY, USED

MALFORMED, UNREADABLE = kind_number(FaultKind.MALFORMED), kind_number(FaultKind.UNREADABLE)
LEAVES = {
    "nest-64k-64k": ({21: 677}, {16: 1022, 21: 326}, {16: 1022, 21: 37, 30: 1}),
    "nest-4k-64k": ({21: 676, 12: 512}, {12: 2471, 21: 326}, {16: 1022, 21: 37, 30: 1}),
    "l1-64k": ({16: 1022, 21: 37, 30: 1},),
    "l1-4k": ({12: 2494, 21: 37, 30: 1},),
}
"""By page shift, as the images' README counts them: L0's table for L1, the shadow, L1's table for L2."""


@pytest.mark.parametrize("name", IMAGES)
def test_leaves_of_recorded_tables(name: str) -> None:
    nest = nest_tables(name)
    for table, expected in zip(nest.all(), LEAVES[name], strict=True):
        found = extract(table)
        assert Counter(found.extents.page_shift.tolist()) == expected
        found.extents.check()
        leaves = list(table.leaves())
        plain = attrs.evolve(found.extents, flags=found.extents.flags & np.uint16(ACCESSED | DIRTY))
        assert plain.equal(Extents.from_mappings(leaves))
        assert found.entries.tolist() == [leaf.entry for leaf in leaves]
        assert found.entry_addresses.tolist() == [leaf.entry_address for leaf in leaves]
        assert len(found.broken) == 0


@pytest.mark.parametrize("name", ["nest-64k-64k", "nest-4k-64k"])
def test_the_kernels_shadow_lies_in_the_ideal_one(name: str) -> None:
    """The README: each entry is the composition, to the bit of address and permission; only its page may be smaller."""
    nest = nest_tables(name)
    assert nest.shadow is not None
    ideal, shadow = extents_of(nest.l2_real), extents_of(nest.shadow)
    assert len(difference(shadow, ideal)) == 0
    real, wanted = differing(shadow, ideal)
    assert np.array_equal(real.target, wanted.target)
    assert np.array_equal(real.permissions, wanted.permissions)
    assert (real.page_shift <= wanted.page_shift).all()
    assert (real.flags & ~wanted.flags & DIRTY == 0).all()


def toy_table(words: dict[int, int], size: int = 1 << 24) -> RadixTable:
    memory = PhysicalMemory(size)
    for address, word in words.items():
        memory.write(address, word.to_bytes(4, "little"))
    return RadixTable(RadixWalker(TOY, memory, "toy table"), Root(0x100, 2))


def test_a_table_by_hand() -> None:
    table = toy_table({
        0x100: PRESENT | 0x200, 0x108: PRESENT | PAGE | LOOK | GLITTER | 0x4000, 0x10C: PRESENT | 0x200,
        0x200: PRESENT | PAGE | POKE | USED | 0x1230, 0x20C: PRESENT | PAGE | 0x50,
    })  # fmt: skip
    found = extract(table)
    assert found.extents.start.tolist() == [0x00, 0x30, 0x80, 0xC0, 0xF0]
    assert found.extents.length.tolist() == [16, 16, 64, 16, 16]
    assert found.extents.target.tolist() == [0x1230, 0x50, 0x4000, 0x1230, 0x50]
    assert found.extents.permissions.tolist() == [2, 0, 4, 2, 0]
    assert found.extents.flags.tolist() == [ACCESSED, 0, 4, ACCESSED, 0]
    assert found.extents.page_shift.tolist() == [4, 4, 6, 4, 4]
    assert found.entry_addresses.tolist() == [0x200, 0x20C, 0x108, 0x200, 0x20C]
    tables = zip(found.tables.address.tolist(), found.tables.size.tolist(), found.tables.level.tolist(), strict=True)
    assert list(tables) == [(0x100, 16, 0), (0x200, 16, 1), (0x200, 16, 1)]
    assert extract(table, 0x3F, 0x81).extents.start.tolist() == [0x30, 0x80]
    assert extract(table, 0x40, 0x80).extents.start.tolist() == []


def test_what_is_broken_is_told_with_its_place() -> None:
    table = toy_table(
        {0x100: PRESENT | 0x200, 0x104: PRESENT | 0xFFFFF0, 0x108: PRESENT | PAGE | 0x4010, 0x10C: PRESENT | FORBIDDEN,
         0x200: PRESENT | 0x300, 0x204: PRESENT | PAGE | 0x50}, 0xFFFFF0,
    )  # fmt: skip
    found = extract(table)
    assert found.extents.start.tolist() == [0x10]
    broken = found.broken
    assert broken.start.tolist() == [0x00, 0x40, 0x80, 0xC0]
    assert broken.kind.tolist() == [MALFORMED, UNREADABLE, MALFORMED, MALFORMED]
    assert broken.level.tolist() == [1, 1, 0, 0]
    assert broken.entry_address.tolist() == [0x200, 0xFFFFF0, 0x108, 0x10C]
    with pytest.raises(Fault) as caught:
        extents_of(table)
    fault = caught.value
    assert (fault.kind, fault.level, fault.input_address, fault.entry_address) == (FaultKind.MALFORMED, 1, 0, 0x200)
    assert extents_of(table, strict=False).equal(found.extents)


def test_what_cannot_be_extracted() -> None:
    table = toy_table({})
    with pytest.raises(Fault):
        extract(RadixTable(table.walker, Root(0x108, 2)))

    class Wrapped(RadixWalker):
        pass

    with pytest.raises(NestmmuError, match="Wrapped reads its table in a way of its own"):
        extract(RadixTable(Wrapped(TOY, table.walker.memory, "toy"), table.root))


def test_a_table_that_shares_itself_without_end_is_too_large() -> None:
    level = attrs.evolve(TOY.levels[0], index_bits=(1,))
    form = attrs.evolve(TOY, input_bits=24, levels=(level,) * 24)
    memory = PhysicalMemory()
    for at in (0x100, 0x104):
        memory.write(at, (PRESENT | 0x100).to_bytes(4, "little"))
    with pytest.raises(TooLargeError, match="loops or shares"):
        extract(RadixTable(RadixWalker(form, memory, "loop"), Root(0x100, 1)))


WORDS = st.one_of(
    st.integers(0, 0xFFFFFFFF).map(lambda word: word & ~FORBIDDEN),
    st.builds(lambda flags, at: flags | at << 4, st.sampled_from([PRESENT, PRESENT | PAGE | LOOK]), st.integers(0, 63)),
)


@settings(max_examples=150)
@given(words=st.lists(WORDS, min_size=64, max_size=64), base=st.integers(0, 15), nested=st.booleans())
def test_any_words_as_a_table(words: list[int], base: int, *, nested: bool) -> None:
    machine = PhysicalMemory(1 << 24)
    machine.write(0, b"".join(word.to_bytes(4, "little") for word in words))
    table = RadixTable(RadixWalker(TOY, machine, "toy table"), Root(16 * base, 2))
    if nested:
        guest = TranslatedMemory(machine, table, "guest")
        table = RadixTable(RadixWalker(TOY, guest, "toy table"), Root(16 * (15 - base), 2))
    found = extract(table)
    found.extents.check()
    for leaf in found.extents.mappings():
        truth = table.lookup(leaf.page_start)
        assert (truth.output_address, truth.page_shift, truth.permissions) == (
            leaf.output_address, leaf.page_shift, leaf.permissions,
        )  # fmt: skip
    mapped = found.extents.find(np.arange(0, 256, 16, dtype=np.uint64)) >= 0
    for page, there in enumerate(mapped.tolist()):
        if not there:
            with pytest.raises(Fault):
                table.lookup(16 * page, Access.LOAD)
    try:
        leaves = list(table.leaves())
    except Fault:
        assert len(found.broken)
    else:
        assert [leaf.page_start for leaf in leaves] == found.extents.start.tolist()
