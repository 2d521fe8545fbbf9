"""The shadow does what two G-stages would: a nest against the machine that its L1 believes to be on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from riscv_guest import (
    ADUE,
    BARE,
    FULL,
    IO,
    MXR,
    NC,
    PBMTE,
    SUM,
    SV39,
    SV48,
    SV57,
    A,
    D,
    N,
    R,
    U,
    V,
    W,
    X,
    pte,
)  # fmt: skip
from riscv_nest import DATA, G_LOW, L2_AT, LARGE, LARGE_PAGE, RAM, RAM_SIZE, VS_LOW, VS_TABLES, Nest

from nestmmu import upkeep
from nestmmu.access import Access
from nestmmu_riscv import fences
from nestmmu_riscv.fences import Fence, FenceKind

if TYPE_CHECKING:
    from collections.abc import Callable

    Accesses = list[tuple[Access, int, int, bool]]

PAGES = 6
"""Few, so that what is changed is met again."""
PAGE = st.integers(0, PAGES - 1)
FLAGS = st.lists(st.sampled_from([R, W, X, A, D, V]), max_size=2, unique=True).map(lambda gone: FULL & ~sum(gone))
EXTRA = st.sampled_from([0] * 6 + [NC, IO, 3 << 61, 1 << 55])
USER = st.sampled_from([0] * 3 + [U])
ENVCFG = st.sampled_from([0, ADUE, PBMTE, ADUE | PBMTE, ADUE | PBMTE])
TARGET = st.sampled_from(["same"] * 5 + ["other", "device", "beyond"])


def target_of(nest: Nest, page: int, choice: str) -> int:
    where = {"same": L2_AT + DATA + (page << 12), "other": L2_AT + DATA + (page + 1 << 12), "device": 0x1000}
    return where.get(choice, RAM + RAM_SIZE) if nest.g_mode else 0


def do_access(nest: Nest, access: Access, page: int, offset: int, *, far: bool = False) -> None:
    start = page << 12
    if not nest.vs_mode:
        start = nest.first + (LARGE if page == LARGE_PAGE else DATA + start)
    nest.agree(access, (1 << 38) * (offset % 4 + 1) + start if far else start + offset)


def do_l1_entry(nest: Nest, page: int, flags: int, choice: str, *, napot: bool) -> None:
    """Change what L1 maps one of L2's pages to, or 16 of them at once; then the fence."""
    if not nest.g_mode:
        return
    first, count = (DATA >> 12, 16) if napot else ((DATA >> 12) + page, 1)
    entry = pte(target_of(nest, page, choice), flags)
    if napot:
        entry = pte(L2_AT + DATA & ~0xFFFF | 0x8000, flags) | N
    for index in range(first, first + count):
        nest.word(G_LOW + 8 * index, entry)
    for index in range(first, first + count):
        nest.fence(FenceKind.HFENCE_GVMA, index << 12, nest.nested.assigned if page % 2 else None)


def do_l1_table_page(nest: Nest, number: int, flags: int) -> None:
    """Change how L1 maps one of L2's own tables: never where to."""
    if nest.g_mode:
        at = VS_TABLES + (number << 12)
        nest.map(at, L2_AT + at, flags | U)
        nest.fence(FenceKind.HFENCE_GVMA, at)
        nest.fence(FenceKind.HFENCE_VVMA)


def do_l1_large(nest: Nest, flags: int, choice: str, page: int) -> None:
    """Map L2's second 2 MiB by one page, by nothing, or by a table that is not there; one address is fenced."""
    if not nest.g_mode:
        return
    entries = {"same": pte(RAM + 0x20_0000, flags | U), "other": pte(RAM + 0x20_0000, flags), "device": pte(0x1000, V)}
    nest.word(nest.g_middle + 8, entries.get(choice, 0))
    nest.fence(FenceKind.HFENCE_GVMA, 0x20_0000 + 0x1_1000 * page)
    nest.fence(FenceKind.HFENCE_GVMA, None, nest.nested.assigned)


def do_l2_entry(nest: Nest, page: int, flags: int, choice: str, *, by_l2: bool) -> None:
    """Change one of L2's own entries; then L1's fence, or L2's own, which does not trap."""
    targets = {"same": DATA + (page << 12), "other": 0x20_0000 + (page << 12), "device": 1 << 40, "beyond": VS_LOW}
    nest.vs_map(page, targets[choice], flags)
    address, space = (None if page == 1 else page << 12), (None if page == 2 else 3)
    if not by_l2:
        nest.fence(FenceKind.HFENCE_VVMA, address, space)
        return
    for flush in fences.decode(Fence(FenceKind.SFENCE_VMA, address, space, int(nest.nested.tag))):
        nest.host.flush(flush)


def do_mode(nest: Nest, bits: int, *, user: bool) -> None:
    nest.registers.user = user
    nest.registers.vsstatus = (SUM if bits & 1 else 0) | (MXR if bits & 2 else 0)
    nest.registers.mstatus = MXR if bits & 4 else 0


def do_host(nest: Nest, what: str, page: int) -> None:
    """Let L0 take pages away, or ask which were used or written."""
    if what == "unmap":
        upkeep.unmap_range(nest.guest, L2_AT + DATA + (page << 12), RAM + RAM_SIZE)
    elif what == "log" and nest.slot.dirty_log:
        upkeep.dirty_log(nest.guest, nest.slot)
    else:
        ask: Callable[..., bool] = upkeep.age if what == "age" else upkeep.take_dirty
        for leaf in list(nest.guest.table.table.leaves()):
            ask(nest.guest, leaf.page_start)
    nest.sound()


L1_FLAGS = st.tuples(FLAGS, EXTRA, st.sampled_from([U] * 9 + [0])).map(sum)
L2_FLAGS = st.tuples(FLAGS, EXTRA, USER).map(sum)
ACCESSES = st.lists(
    st.tuples(
        st.sampled_from(list(Access)), st.one_of(PAGE, PAGE, PAGE, st.just(LARGE_PAGE)),
        st.sampled_from([0, 8, 0xFF8]), st.sampled_from([False] * 9 + [True]),
    ),
    min_size=3, max_size=8,
)  # fmt: skip
CHANGES = st.one_of(
    st.tuples(st.just(do_l1_entry), st.fixed_dictionaries(
        {"page": PAGE, "flags": L1_FLAGS, "choice": TARGET, "napot": st.booleans()}
    )),
    st.tuples(st.just(do_l1_table_page), st.fixed_dictionaries({"number": st.integers(0, 5), "flags": FLAGS})),
    st.tuples(st.just(do_l1_large), st.fixed_dictionaries({"flags": FLAGS, "choice": TARGET, "page": PAGE})),
    st.tuples(st.just(do_l2_entry), st.fixed_dictionaries(
        {"page": PAGE, "flags": L2_FLAGS, "choice": TARGET, "by_l2": st.booleans()}
    )),
    st.tuples(st.just(do_mode), st.fixed_dictionaries({"bits": st.integers(0, 7), "user": st.booleans()})),
    st.tuples(st.just(do_host), st.fixed_dictionaries(
        {"what": st.sampled_from(["unmap", "log", "age", "dirty"]), "page": PAGE}
    )),
)  # fmt: skip
DOINGS = st.lists(st.tuples(ACCESSES, CHANGES, ACCESSES), min_size=2, max_size=10)
MODES = st.sampled_from([SV39, SV48, SV57])


@settings(max_examples=20)
@given(
    host_mode=MODES, g_mode=st.sampled_from([BARE, SV39, SV39, SV48, SV57]),
    vs_mode=st.sampled_from([BARE, SV39, SV57]),
    machine=ENVCFG, l1=ENVCFG, l2=ENVCFG, page_shift=st.sampled_from([12, 16, 21]), dirty_log=st.booleans(),
    doings=DOINGS,
)  # fmt: skip
def test_the_nest_does_what_l1_believes(
    *, host_mode: int, g_mode: int, vs_mode: int, machine: int, l1: int, l2: int, page_shift: int, dirty_log: bool,
    doings: list[tuple[Accesses, tuple[Callable[..., None], dict[str, object]], Accesses]],
) -> None:  # fmt: skip
    nest = Nest(
        host_mode, min(g_mode, host_mode), vs_mode,
        machine=machine, l1=l1, l2=l2, page_shift=page_shift, dirty_log=dirty_log,
    )  # fmt: skip
    for before, (change, arguments), after in doings:
        for access, page, offset, far in before:
            do_access(nest, access, page, offset, far=far)
        change(nest, **arguments)
        for access, page, offset, far in after:
            do_access(nest, access, page, offset, far=far)


@pytest.mark.parametrize("machine", [0, ADUE])
@pytest.mark.parametrize("g_mode", [BARE, SV39, SV48])
@pytest.mark.parametrize("vs_mode", [BARE, SV39, SV57])
def test_every_kind_of_access_of_every_mode(vs_mode: int, g_mode: int, machine: int) -> None:
    nest = Nest(SV48, g_mode, vs_mode, machine=machine)
    for access in Access:
        for page in range(3):
            do_access(nest, access, page, 8)
    assert len(nest.shadow()) > 2
