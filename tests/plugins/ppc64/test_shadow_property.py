"""The shadow is the composition: random tables of L1 and L0, and random accesses of L2, against plain dicts."""

from __future__ import annotations

import functools
import operator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ppc64_fixture import HOST_TABLES, LEAF_64K, PUD, SLOT_BYTES, Fixture

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.formats import AccessedDirty
from nestmmu.hypervisor import Attempt, LivelockError
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.points import finish
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_SF, Registers
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import HvExit, decode
from nestmmu_ppc64_radix.quirks import Quirk

GIB, MIB2, KIB64 = 1 << 30, 1 << 21, 1 << 16
SIZES = (GIB, MIB2, KIB64)
L1_TARGETS, L0_TARGETS = 0x4000_0000, 0x20_0000_0000
TABLES = 0x0210_0000
MOST_FAULTS = 4
"""A miss, a permission, R, C: what one access can need of its host."""

Leaf = tuple[int, int, int, int, int, int]
"""One page of a table: GiB, page bytes, slot of 2 MiB, slot of 64 KiB, which target, the entry's low bits."""
Where = tuple[int, int, int, Access]
"""One access: GiB, slot of 2 MiB, slot of 64 KiB, kind."""


def granted(entry: int) -> int:
    """Return what a leaf permits: the write bit implies read (ISA: read/write)."""
    return (READ if entry & 6 else 0) | (WRITE if entry & 2 else 0) | (EXECUTE if entry & 1 else 0)


class Model:
    """Both tables as dicts: page start to (target, page bytes, entry's low bits)."""

    def __init__(self) -> None:
        self.l1: dict[int, tuple[int, int, int]] = {}
        self.l0: dict[int, tuple[int, int, int]] = {}

    @staticmethod
    def find(table: dict[int, tuple[int, int, int]], address: int) -> tuple[int, int] | None:
        for size in SIZES:
            page = table.get(address & -size)
            if page is not None and page[1] == size:
                return page[0] + (address & (size - 1)), page[2]
        return None

    def truth(self, address: int) -> tuple[int, int] | None:
        """Return (L0 real address, permissions) of an address of L2."""
        inner = self.find(self.l1, address)
        outer = None if inner is None else self.find(self.l0, inner[0])
        if inner is None or outer is None:
            return None
        return outer[0], granted(inner[1]) & granted(outer[1])

    def ends(self, address: int, access: Access) -> int | Verdict:
        """Return where an access of L2 ends in L0's memory, or how its host, which has no page to give, refuses it.

        Who permits comes first, L1 before L0; then L1's R, and its C for a store. L0's own R and C stop no one.
        """
        inner = self.find(self.l1, address)
        if inner is None or not granted(inner[1]) & access:
            return Verdict.REFLECT
        outer = self.find(self.l0, inner[0])
        if outer is None or not granted(outer[1]) & access:
            return Verdict.FAIL
        needed = 0x180 if access is Access.STORE else 0x100
        return outer[0] if inner[1] & needed == needed else Verdict.REFLECT


BITS = st.builds(
    operator.or_,
    st.sampled_from([0x180, 0x180, 0x180, 0x100, 0x080, 0x000]),
    st.sampled_from([7, 7, 7, 6, 5, 4, 3, 2, 1, 0]),
)
READABLE = BITS.filter(lambda bits: bits & 6 != 2)


def plans(bits: st.SearchStrategy[int]) -> st.SearchStrategy[list[Leaf]]:
    sizes = st.sampled_from([GIB, MIB2, MIB2, KIB64, KIB64])
    return st.lists(
        st.tuples(st.integers(0, 1), sizes, st.integers(0, 2), st.integers(0, 3), st.integers(0, 2), bits),
        min_size=1,
        max_size=12,
    )


ACCESSES = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 3), st.sampled_from(list(Access))),
    min_size=1,
    max_size=30,
)


def start_of(leaf: Leaf) -> int:
    gib, size, slot, small, _, _ = leaf
    return (gib * GIB + slot * MIB2 + small * KIB64) & -size


def target_of(leaf: Leaf, flip: int) -> int:
    """Return how far into its owner's memory a page leads; ``flip`` lets small pages change places."""
    _, size, _, small, target, _ = leaf
    return {GIB: target % 2 * GIB, MIB2: target * MIB2, KIB64: target * MIB2 + (small ^ flip) * KIB64}[size]


def plant_l1(fixture: Fixture, model: Model, leaf: Leaf) -> None:
    """Give L1's table a page by raw words, unless another is in its place."""
    gib, size, slot, small, _, bits = leaf
    start, output = start_of(leaf), L1_TARGETS + target_of(leaf, 1)
    directory = TABLES + gib * 0x10000
    last = directory + 0x1000 + slot * 0x100
    path = [
        (GIB, PUD + gib * 8, 1 << 63 | directory | 9),
        (MIB2, directory + slot * 8, 1 << 63 | last | 5),
        (KIB64, last + small * 8, 0),
    ]
    for span, at, table in path:
        existing = fixture.read_word(at)
        if span == size:
            if not existing:
                fixture.word(at, 3 << 62 | output | bits)
                model.l1[start] = (output, size, bits)
            return
        if existing >> 62 & 1:
            return
        fixture.word(at, table)


def plant_l0(fixture: Fixture, model: Model, leaf: Leaf) -> None:
    """Give L0's table for L1 a page, unless it overlaps another."""
    _, size, _, _, _, bits = leaf
    page, output = L1_TARGETS + start_of(leaf), L0_TARGETS + target_of(leaf, 9)
    if any(page < at + length and at < page + size for at, (_, length, _) in model.l0.items()):
        return
    model.l0[page] = (output, size, bits)
    fixture.plant_l0(page, 3 << 62 | output | bits, size.bit_length() - 1)


def build(quirks: Quirk, l1: list[Leaf], l0: list[Leaf]) -> tuple[Fixture, Model]:
    """Return a nest with both tables, and the same in a model. L0 has no page beyond those of its table."""
    fixture, model = Fixture(quirks), Model()
    for leaf in l1:
        plant_l1(fixture, model, leaf)
    for leaf in l0:
        plant_l0(fixture, model, leaf)
    fixture.guest.backing = None
    fixture.host.update_ptbl_cache(fixture.guest, fixture.nested)
    return fixture, model


def attempt(fixture: Fixture, access: Access, address: int) -> Attempt[Reached | Interrupt]:
    """Return one access of L2, in real mode, by a CPU that takes an interrupt where R or C is missing."""
    registers = Registers(msr=MSR_SF, ptcr=fixture.host.ptcr, lpidr=7)
    cpu = Power9Radix(registers, fixture.memory, reference_change=AccessedDirty.FAULT)

    def decoded(result: Reached | Interrupt) -> Exit | None:
        return decode(HvExit.from_interrupt(result)) if isinstance(result, Interrupt) else None

    def handled(exit_: Exit) -> Outcome:
        return finish(fixture.handler.handle(fixture.nested, exit_))

    return Attempt(functools.partial(cpu.access, access, address), decoded, handled)


def accesses_end_as_the_truth_says(fixture: Fixture, model: Model, accesses: list[Where]) -> None:
    for gib, slot, small, access in accesses:
        address = gib * GIB + slot * MIB2 + small * KIB64 + 0x123
        loop = attempt(fixture, access, address)
        result, outcome = loop.run()
        ended = result.address if isinstance(result, Reached) else outcome and outcome.verdict
        assert ended == model.ends(address, access), (hex(address), access, outcome)
        assert len(loop.faults) <= MOST_FAULTS


def shadow_is_sound(fixture: Fixture, model: Model) -> None:
    """Each leaf leads where both tables do, permits no more, and has R or C only where both leaves have it."""
    for leaf in fixture.nested.shadow.table.leaves():
        assert leaf.entry is not None
        size = 1 << leaf.page_shift
        for offset in {0, KIB64, size // 2, size - KIB64} - {size}:
            address = leaf.page_start + offset
            truth, inner = model.truth(address), model.find(model.l1, address)
            assert truth is not None
            assert inner is not None
            assert leaf.target_start + offset == truth[0]
            assert granted(leaf.entry) & ~truth[1] == 0
            outer = fixture.l0_leaf(inner[0])
            assert outer is not None
            assert leaf.entry & 0x180 & ~(inner[1] & outer[0]) == 0


@settings(max_examples=60)
@given(l1=plans(BITS), l0=plans(BITS), accesses=ACCESSES)
@example(  # L0's own leaf permits nothing: a host that only looks for write permission never gets on
    l1=[(0, MIB2, 1, 0, 0, 0x181)], l0=[(0, KIB64, 0, 0, 0, 0x180)], accesses=[(0, 1, 0, Access.FETCH)]
)
@example(  # a load, then a store, through 1 GiB of L1 and 2 MiB of L0: R and C come one after the other
    l1=[(1, GIB, 0, 0, 0, 0x187)],
    l0=[(0, MIB2, 2, 0, 1, 0x007)],
    accesses=[(1, 2, 3, Access.LOAD), (1, 2, 3, Access.STORE)],
)
def test_corrected_tk11(l1: list[Leaf], l0: list[Leaf], accesses: list[Where]) -> None:
    fixture, model = build(Quirk.NONE, l1, l0)
    accesses_end_as_the_truth_says(fixture, model, accesses)
    shadow_is_sound(fixture, model)


@settings(max_examples=60)
@given(l1=plans(READABLE), l0=plans(READABLE), accesses=ACCESSES)
def test_as_linux_does_it_tk11(l1: list[Leaf], l0: list[Leaf], accesses: list[Where]) -> None:
    """On leaves that permit write but not read, Quirk.WRITE_WITHOUT_READ makes no progress: they are left out."""
    fixture, model = build(Quirk.LINUX_6_1, l1, l0)
    accesses_end_as_the_truth_says(fixture, model, accesses)
    shadow_is_sound(fixture, model)


@pytest.mark.parametrize(("l1", "l0"), [(0x183, 0x185), (0x185, 0x183)])
def test_what_is_left_out_of_linux(l1: int, l0: int) -> None:
    """Both permit the load, and the corrected host lets it through; Linux gives a shadow that never does."""
    for quirks in (Quirk.NONE, Quirk.LINUX_6_1):
        fixture, model = build(quirks, [(0, MIB2, 1, 0, 0, l1)], [(0, MIB2, 0, 0, 3, l0)])
        loop = attempt(fixture, Access.LOAD, MIB2 + 0x123)
        assert model.ends(MIB2 + 0x123, Access.LOAD) == L0_TARGETS + 3 * MIB2 + 0x123
        if quirks is Quirk.NONE:
            accesses_end_as_the_truth_says(fixture, model, [(0, 1, 0, Access.LOAD)])
        else:
            with pytest.raises(LivelockError):
                loop.run()


def test_the_fixtures_own_tables_are_out_of_the_way() -> None:
    assert TABLES + 2 * 0x10000 < L1_TARGETS
    assert L1_TARGETS + 2 * GIB <= SLOT_BYTES
    assert L0_TARGETS + 8 * GIB < 1 << 52
    assert HOST_TABLES + (1 << 30) <= L0_TARGETS
    assert LEAF_64K >> 62 == 3
