"""The shadow is the composition: random tables of L1 and L0, and random accesses of L2, against plain dicts."""

from __future__ import annotations

import functools
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from ppc64_fixture import HOST_TABLES, LEAF_64K, PUD, Fixture

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.hypervisor import Attempt
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.points import finish
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_SF, Registers
from nestmmu_ppc64_radix.cpu import Power9Radix, Reached
from nestmmu_ppc64_radix.exits import HvExit, decode
from nestmmu_ppc64_radix.quirks import Quirk

MIB2, KIB64 = 1 << 21, 1 << 16
SPAN = 8 * MIB2
"""L2 has this much memory at 0; each of its pages of 2 MiB is one of L1's, or 32 smaller ones."""
L1_TARGETS, L0_TARGETS = 0x4000_0000, 0x20_0000_0000
TABLES = 0x0210_0000


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
        for size in (MIB2, KIB64):
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


BITS = st.integers(0, 7).map(lambda nibble: 0x180 | nibble)
"""R and C are set on both sides here: what happens where they are not is in test_rc."""
PLAN = st.lists(
    st.tuples(st.integers(0, 7), st.booleans(), st.integers(0, 31), st.integers(0, 15), BITS), min_size=1, max_size=12
)
ACCESSES = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 31), st.sampled_from(list(Access))), min_size=1, max_size=30
)


def build(fixture: Fixture, model: Model, l1: list[Any], l0: list[Any]) -> None:
    """Plant L1's table by raw words, and L0's leaves; whatever is planted is in the model too."""
    fixture.word(PUD, 1 << 63 | TABLES | 9)
    for slot, large, small, target, bits in l1:
        start = slot * MIB2
        at = TABLES + slot * 8
        existing = fixture.read_word(at)
        if large and not existing:
            output = L1_TARGETS + target * MIB2
            fixture.word(at, 3 << 62 | output | bits)
            model.l1[start] = (output, MIB2, bits)
        elif not large and not existing >> 62 & 1:
            table = TABLES + 0x1000 + slot * 0x100
            fixture.word(at, 1 << 63 | table | 5)
            output = L1_TARGETS + target * MIB2 + (small ^ 5) * KIB64
            fixture.word(table + small * 8, 3 << 62 | output | bits)
            model.l1[start + small * KIB64] = (output, KIB64, bits)
    for slot, large, small, target, bits in l0:
        size = MIB2 if large else KIB64
        page = L1_TARGETS + slot * 2 * MIB2 + (0 if large else small * KIB64)
        output = L0_TARGETS + target * MIB2 + (0 if large else (small ^ 9) * KIB64)
        if any(page < at + length and at < page + size for at, (_, length, _) in model.l0.items()):
            continue
        model.l0[page] = (output, size, bits)
        fixture.plant_l0(page, 3 << 62 | output | bits, 21 if large else 16)


def accesses_end_as_the_truth_says(fixture: Fixture, model: Model, accesses: list[Any]) -> None:
    fixture.guest.backing = None
    fixture.host.update_ptbl_cache(fixture.guest, fixture.nested)
    cpu = Power9Radix(Registers(msr=MSR_SF, ptcr=fixture.host.ptcr, lpidr=7), fixture.memory)

    def decoded(result: Reached | Interrupt) -> Exit | None:
        return decode(HvExit.from_interrupt(result)) if isinstance(result, Interrupt) else None

    def handled(exit_: Exit) -> Outcome:
        return finish(fixture.handler.handle(fixture.nested, exit_))

    for slot, small, access in accesses:
        address = slot * MIB2 + small * KIB64 + 0x123
        loop = Attempt(functools.partial(cpu.access, access, address), decoded, handled)
        result, outcome = loop.run()
        truth = model.truth(address)
        if truth is not None and truth[1] & access:
            assert isinstance(result, Reached), (hex(address), outcome)
            assert result.address == truth[0]
        else:
            assert isinstance(result, Interrupt)
            assert outcome is not None
            assert outcome.verdict in {Verdict.REFLECT, Verdict.FAIL}
        assert len(loop.faults) <= 4


def shadow_is_sound(fixture: Fixture, model: Model) -> None:
    for leaf in fixture.nested.shadow.table.leaves():
        assert leaf.entry is not None
        for offset in range(0, 1 << leaf.page_shift, KIB64):
            truth = model.truth(leaf.page_start + offset)
            assert truth is not None
            assert leaf.target_start + offset == truth[0]
            assert granted(leaf.entry) & ~truth[1] == 0


@settings(max_examples=60)
@given(l1=PLAN, l0=PLAN, accesses=ACCESSES)
@example(  # L0's own leaf permits nothing: a host that only looks for write permission never gets on
    l1=[(0, False, 0, 0, 0x180), (1, True, 0, 0, 0x181)], l0=[(0, False, 0, 0, 0x180)], accesses=[(1, 0, Access.FETCH)]
)
def test_corrected(l1: list[Any], l0: list[Any], accesses: list[Any]) -> None:
    fixture, model = Fixture(Quirk.NONE), Model()
    build(fixture, model, l1, l0)
    accesses_end_as_the_truth_says(fixture, model, accesses)
    shadow_is_sound(fixture, model)


@settings(max_examples=60)
@given(l1=PLAN, l0=PLAN, accesses=ACCESSES)
def test_as_linux_does_it(l1: list[Any], l0: list[Any], accesses: list[Any]) -> None:
    """Without Quirk.WRITE_WITHOUT_READ: it makes no progress on a page that L1 lets write but not read."""
    fixture, model = Fixture(Quirk.LINUX_6_1 & ~Quirk.WRITE_WITHOUT_READ), Model()
    build(fixture, model, l1, l0)
    accesses_end_as_the_truth_says(fixture, model, accesses)
    shadow_is_sound(fixture, model)


def test_the_fixtures_own_tables_are_out_of_the_way() -> None:
    assert TABLES + 0x2000 < L1_TARGETS
    assert L0_TARGETS + 16 * MIB2 < 1 << 52
    assert HOST_TABLES + (1 << 30) <= L0_TARGETS
    assert LEAF_64K >> 62 == 3
