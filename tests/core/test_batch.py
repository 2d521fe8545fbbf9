"""A batch says what the scalar path says, address by address: on recorded nests, and on tables of any words."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import attrs
import numpy as np
import pytest
from batch_rows import by_memory, by_table, of_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from nest_tables import IMAGES, nest_tables

from nestmmu.access import Access
from nestmmu.batch import translate_many
from nestmmu.formats import AccessedDirty, Match
from nestmmu.memory import GuestMemory, PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu_ppc64_radix.formats import KVM_WALK, POWER9
from toy_arch.formats import FORBIDDEN, GRUBBY, LOOK, PAGE, POKE, PRESENT, RUN, TOY, USED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.formats import RadixFormat
    from nestmmu.memory import Memory

NUMBA = importlib.util.find_spec("numba") is not None
JIT = [False, pytest.param(True, marks=pytest.mark.skipif(not NUMBA, reason="numba is not installed"))]
NONE = np.uint64(2**64 - 1)
COMPLETED = 0xC00
ACCESSES = [*Access, None]


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("name", IMAGES)
def test_recorded_nests(name: str, *, jit: bool) -> None:
    nest = nest_tables(name)
    column = nest.image.column("l2_real")
    known = column[column != NONE][::5]
    anywhere = np.random.default_rng(7).integers(0, 1 << 53, 200, dtype=np.uint64)
    addresses = np.concatenate((known, known ^ np.uint64(1 << 16), known ^ np.uint64(1 << 21), anywhere))
    for access in ACCESSES:
        for table in nest.all():
            found = translate_many(table, addresses, access, jit=jit)
            for index, address in enumerate(addresses.tolist()):
                assert of_batch(found, index) == by_table(table, address, access)
        if access is not None:
            found = translate_many(nest.l2_real, addresses, access, jit=jit)
            for index, address in enumerate(addresses.tolist()):
                assert of_batch(found, index, whole=False) == by_memory(nest.l2_real, address, access)


@pytest.mark.parametrize("name", IMAGES)
def test_accesses_of_a_nest_end_where_its_kernels_said(name: str) -> None:
    """By the recorder's own map and the kernels' pagemap, not by the tables."""
    nest = nest_tables(name)
    l2_real, expected = nest.image.column("l2_real"), nest.image.column("l0_real")
    known = (l2_real != NONE) & (expected != NONE) & (nest.image.column("vector") == np.uint64(COMPLETED))
    found = translate_many(nest.l2_real, l2_real[known], Access.LOAD)
    assert found.complete.all()
    assert known.sum() > 2000
    assert np.array_equal(found.outputs, expected[known])


WORDS = st.one_of(
    st.integers(0, 0xFFFFFFFF),
    st.builds(
        lambda flags, at: flags | at << 4,
        st.sampled_from([
            PRESENT, PRESENT | PAGE | LOOK, PRESENT | PAGE | LOOK | POKE | RUN | USED, PRESENT | FORBIDDEN,
            PRESENT | PAGE | POKE | USED | GRUBBY,
        ]),
        st.integers(0, 0x3F),
    ),
)  # fmt: skip
TABLE_WORDS = st.lists(WORDS, min_size=64, max_size=64)
POLICIES = st.sampled_from(AccessedDirty)
LOOSE = attrs.evolve(TOY, name="loose", strict_table=False, strict_output=False)
WIDE = attrs.evolve(
    TOY, name="wide", width_mask=0x30, late_geometry=True,
    levels=(TOY.levels[0], attrs.evolve(TOY.levels[1], index_bits=(0x10, 0x20), may_table=True)), input_bits=2 + 0x20,
)  # fmt: skip
DEEP = attrs.evolve(
    TOY, name="deep", input_bits=11,
    levels=(attrs.evolve(TOY.levels[0], index_bits=(3,), may_leaf=False), TOY.levels[0], TOY.levels[1]),
    permissions=(*TOY.permissions, (Match(0x80000000, 0x80000000), 7), (Match(1 << 3, 1 << 3), 4)),
)  # fmt: skip
JITS = st.booleans() if NUMBA else st.just(False)  # noqa: FBT003  (what is drawn)
FORMATS = st.sampled_from([TOY, LOOSE, WIDE, DEEP])


def toy(form: RadixFormat, memory: Memory, base: int, policy: AccessedDirty, stage: str) -> RadixTable:
    return RadixTable(RadixWalker(form, memory, stage, policy), Root(base, form.levels[0].index_bits[0]))


def fresh(words: list[int], size: int) -> PhysicalMemory:
    memory = PhysicalMemory(size)
    memory.write(0, b"".join(word.to_bytes(4, "little") for word in words)[: size // 4 * 4])
    return memory


def every(form: RadixFormat) -> NDArray[np.uint64]:
    """Return addresses of all pages, and some that have bits which the table does not translate."""
    step = max(5, (1 << min(form.input_bits, 12)) // 50)
    low = np.arange(0, 1 << min(form.input_bits, 12), step, dtype=np.uint64)
    return np.concatenate((low, low << np.uint64(max(form.input_bits - 8, 0)), low | np.uint64(1 << 63)))


@settings(max_examples=60)
@given(
    words=TABLE_WORDS,
    base=st.integers(0, 15),
    policy=POLICIES,
    form=FORMATS,
    size=st.sampled_from([256, 200, 1 << 20]),
    jit=JITS,
)
def test_any_words_as_a_table(
    words: list[int], base: int, policy: AccessedDirty, form: RadixFormat, size: int, *, jit: bool
) -> None:
    addresses = every(form)
    for access in ACCESSES:
        one_by_one = toy(form, fresh(words, size), 16 * base, AccessedDirty.IGNORE, "toy")
        if policy is AccessedDirty.FAULT:
            one_by_one.walker.accessed_dirty = policy
        table = toy(form, fresh(words, size), 16 * base, policy, "toy")
        found = translate_many(table, addresses, access, jit=jit)
        for index, address in enumerate(addresses.tolist()):
            assert of_batch(found, index) == by_table(one_by_one, address, access)


@settings(max_examples=60)
@given(
    words=TABLE_WORDS, bases=st.tuples(st.integers(0, 15), st.integers(0, 15)), policy=POLICIES, form=FORMATS,
    kind=st.sampled_from([TranslatedMemory, GuestMemory]), jit=JITS,
)  # fmt: skip
def test_any_words_as_a_nest(
    words: list[int],
    bases: tuple[int, int],
    policy: AccessedDirty,
    form: RadixFormat,
    kind: type[TranslatedMemory],
    *,
    jit: bool,
) -> None:
    """The guest's table lies wherever the host's leads; both, and what is in between, are the same words."""
    quiet = AccessedDirty.FAULT if policy is AccessedDirty.FAULT else AccessedDirty.IGNORE
    form = attrs.evolve(form, late_geometry=form.late_geometry and kind is TranslatedMemory)

    def nest(policy: AccessedDirty) -> tuple[RadixTable, TranslatedMemory]:
        machine = fresh(words, 1 << 20)
        guest = kind(machine, toy(TOY, machine, 16 * bases[0], policy, "outer"), "guest")
        inner = toy(form, guest, 16 * bases[1], policy, "inner")
        return inner, kind(guest, inner, "nested")

    addresses = every(form)
    for access in Access:
        (table, memory), (scalar_table, scalar_memory) = nest(policy), nest(quiet)
        found = translate_many(table, addresses, access, jit=jit)
        through = translate_many(memory, addresses, access, jit=jit)
        for index, address in enumerate(addresses.tolist()):
            assert of_batch(found, index) == by_table(scalar_table, address, access)
            assert of_batch(through, index, whole=False) == by_memory(scalar_memory, address, access)


def power9_table(data: st.DataObject, form: RadixFormat) -> tuple[RadixTable, NDArray[np.uint64]]:
    """Return a tree of few pages, its entries tampered with, and addresses in and around what it maps."""
    memory = PhysicalMemory(1 << 20)
    entries = st.sampled_from([0, 1, 4, 5, 9, 0x100, 0x185, 0x187, 0x10B, 0x12F, 0x40_0187, 0x1F])
    tops = st.sampled_from([0, 1 << 63, 3 << 62])
    for index in range(data.draw(st.integers(1, 24))):
        page, slot = data.draw(st.integers(0, 4)), data.draw(st.sampled_from([0, 1, 2, 31, 511]))
        target = data.draw(st.integers(0, 5)) << data.draw(st.sampled_from([12, 16, 21]))
        at = (0xF000 + (page << 12) if page else 0) + 8 * slot
        target += 0x10000 if index % 2 else 0
        memory.store(at, data.draw(tops) | target + data.draw(entries), 8, "big")
    parts = st.sampled_from([0, 1, 2, 31, 511])
    count = range(60)
    addresses = [
        data.draw(parts) << 39 | data.draw(parts) << 30 | data.draw(parts) << 21 | data.draw(parts) << 12 | 8 * index
        for index in count
    ]
    return RadixTable(RadixWalker(form, memory, "tree"), Root(0, 13)), np.array(addresses, np.uint64)


@settings(max_examples=40)
@given(data=st.data(), form=st.sampled_from([POWER9, KVM_WALK]), jit=JITS)
def test_power9_trees(data: st.DataObject, form: RadixFormat, *, jit: bool) -> None:
    table, addresses = power9_table(data, form)
    for access in ACCESSES:
        found = translate_many(table, addresses, access, jit=jit)
        for index, address in enumerate(addresses.tolist()):
            assert of_batch(found, index) == by_table(table, address, access)


@settings(max_examples=30)
@given(words=TABLE_WORDS, bases=st.tuples(st.integers(0, 15), st.integers(0, 15)), jit=JITS)
def test_accessed_and_dirty_are_set_where_the_accesses_would(
    words: list[int], bases: tuple[int, int], *, jit: bool
) -> None:
    """No bit of accessed or dirty is one that the toy's walks look at: in what order they are set is all the same."""

    def nest() -> TranslatedMemory:
        machine = fresh([word & ~0x00FFF000 for word in words], 1 << 20)
        machine.write(0x400, b"".join((word & ~0x00FFF000).to_bytes(4, "little") for word in reversed(words)))
        outer = toy(TOY, machine, 0x400 + 16 * bases[0], AccessedDirty.UPDATE, "outer")
        guest = TranslatedMemory(machine, outer, "guest")
        return TranslatedMemory(guest, toy(TOY, guest, 16 * bases[1], AccessedDirty.UPDATE, "inner"), "nested")

    addresses = np.arange(0, 256, 8, dtype=np.uint64)
    for access in Access:
        one_by_one, at_once = nest(), nest()
        for address in addresses.tolist():
            by_memory(one_by_one, address, access)
        translate_many(at_once, addresses, access, update=True, jit=jit)
        for number in one_by_one.physical.frame_numbers():
            assert at_once.physical.read(number << 12, 4096) == one_by_one.physical.read(number << 12, 4096)
