"""What an entry permits: R, W, X and U under the privilege, SUM and MXR of each stage; HLV, HLVX and HSV."""

from __future__ import annotations

import itertools

import pytest
from riscv_words import (
    FETCH,
    GLEAF,
    GUEST,
    KINDS,
    LOAD,
    MXR,
    RWX,
    STORE,
    SUM,
    A,
    D,
    Machine,
    R,
    U,
    V,
    W,
    X,
)

from nestmmu.access import Access
from nestmmu_riscv.cpu import Reached
from nestmmu_riscv.traps import Trap

VA, GPA = 0x12_3456_7000, 0x8123_4000
SPVP = 1 << 8
LEGAL = (R, R | W, X, R | X, R | W | X)
BIT = {LOAD: R, STORE: W, FETCH: X}


def machine(flags: int, g_flags: int = GLEAF) -> Machine:
    """Return a machine with one page, these bits in its two leaves."""
    made = Machine()
    made.vs_map(VA, GPA, flags | V | A | D)
    made.g_map(GPA, g_flags | V | A | D)
    return made


def cause(result: Reached | Trap) -> int:
    """Return the cause of an exception; 0 where an access has ended."""
    return result.cause if isinstance(result, Trap) else 0


@pytest.mark.parametrize("rights", LEGAL)
def test_each_stage_permits_what_its_leaf_says(rights: int) -> None:
    for access in KINDS:
        passes = bool(rights & BIT[access])
        first, second = machine(rights).access(access, VA), machine(RWX, rights | U).access(access, VA)
        assert cause(first) == (0 if passes else {FETCH: 12, LOAD: 13, STORE: 15}[access])
        assert cause(second) == (0 if passes else {FETCH: 20, LOAD: 21, STORE: 23}[access])


@pytest.mark.parametrize("u", [0, U])
@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("sum_bit", [0, SUM])
def test_u_and_sum(u: int, user: bool, sum_bit: int) -> None:
    made = machine(RWX | u)
    made.registers.user = user
    made.registers.vsstatus = sum_bit
    made.registers.mstatus = SUM ^ sum_bit  # HS-mode's own SUM says nothing of a guest
    for access in KINDS:
        supervisor_may = not u or (bool(sum_bit) and access is not FETCH)
        passes = bool(u) if user else supervisor_may
        assert (cause(made.access(access, VA)) == 0) == passes


@pytest.mark.parametrize("sum_bit", [0, SUM])
def test_the_g_stage_wants_u_of_every_access(sum_bit: int) -> None:
    made = machine(RWX, RWX)
    made.registers.vsstatus = sum_bit
    assert [made.trap(access, VA).cause for access in KINDS] == [21, 23, 20]
    made.registers.user = True
    assert [made.trap(access, VA).cause for access in KINDS] == [13, 15, 12]


def test_the_g_bit_of_a_g_stage_entry_is_ignored() -> None:
    made = machine(RWX)
    made.g_map(GPA, GLEAF | 1 << 5)
    assert made.reach(LOAD, VA) == GPA + GUEST


@pytest.mark.parametrize(
    ("vsstatus", "mstatus", "vs_leaf", "g_leaf", "expected"),
    [
        (0, 0, X, RWX, 13),
        (MXR, 0, X, RWX, 0),
        (0, MXR, X, RWX, 0),
        (0, 0, RWX, X, 21),
        (MXR, 0, RWX, X, 21),
        (0, MXR, RWX, X, 0),
        (MXR, 0, X, X, 21),
        (0, MXR, X, X, 0),
    ],
)
def test_mxr_of_vsstatus_is_for_the_vs_stage_and_hs_modes_for_both(
    vsstatus: int, mstatus: int, vs_leaf: int, g_leaf: int, expected: int
) -> None:
    made = machine(vs_leaf, g_leaf | U)
    made.registers.vsstatus, made.registers.mstatus = vsstatus, mstatus
    assert cause(made.access(LOAD, VA)) == expected
    assert cause(made.access(FETCH, VA)) == 0
    assert cause(made.access(STORE, VA)) == (15 if vs_leaf == X else 23)


def test_mxr_makes_no_page_readable_that_may_not_be_executed() -> None:
    made = machine(RWX, U | W | R)
    made.registers.mstatus = made.registers.vsstatus = MXR
    assert made.reach(LOAD, VA) == GPA + GUEST
    assert made.trap(FETCH, VA).cause == 20


@pytest.mark.parametrize("spvp", [0, SPVP])
def test_hlv_and_hsv_have_the_privilege_of_spvp(spvp: int) -> None:
    for u, sum_bit in itertools.product((0, U), (0, SUM)):
        made = machine(RWX | u)
        made.registers.virtual = False
        made.registers.hstatus, made.registers.vsstatus = spvp, sum_bit
        passes = (not u or bool(sum_bit)) if spvp else bool(u)
        for access in (LOAD, STORE):
            result = made.cpu.as_guest(access, VA)
            assert cause(result) == (0 if passes else {LOAD: 13, STORE: 15}[access])
            if isinstance(result, Trap):
                assert (result.tval, result.gva) == (VA, True)
            else:
                assert result.address == GPA + GUEST


def test_hlv_faults_on_the_g_stage_with_the_guest_physical_address() -> None:
    made = machine(RWX)
    made.registers.virtual, made.registers.hstatus = False, SPVP
    made.g_map(GPA, 0)
    trap = made.cpu.as_guest(STORE, VA + 8)
    assert trap == Trap(23, VA + 8, (GPA + 8) >> 2, 0, gva=True)


@pytest.mark.parametrize("rights", LEGAL)
def test_hlvx_needs_the_right_to_execute_at_both_stages_and_no_other(rights: int) -> None:
    for first, second, expected in ((rights, RWX, 13), (RWX, rights, 21)):
        made = machine(first, second | U)
        made.registers.virtual, made.registers.hstatus = False, SPVP
        result = made.cpu.as_guest(LOAD, VA, execute=True)
        assert cause(result) == (0 if rights & X else expected)  # the causes are a load's


def test_hlvx_leaves_d_alone_and_sets_a() -> None:
    made = machine(RWX)
    at = made.vs_map(VA, GPA, V | X)
    made.registers.virtual, made.registers.hstatus = False, SPVP
    assert cause(made.cpu.as_guest(LOAD, VA, execute=True)) == 0
    assert made.vs is not None
    assert made.vs.read(at) & (A | D) == A


@pytest.mark.parametrize(("access", "execute"), [(FETCH, False), (STORE, True), (FETCH, True)])
def test_there_is_no_other_access_as_a_guest(access: Access, execute: bool) -> None:
    with pytest.raises(ValueError, match="no instruction"):
        machine(RWX).cpu.as_guest(access, VA, execute=execute)


def test_hs_mode_has_one_stage_and_its_own_exceptions() -> None:
    made = machine(RWX)
    registers = made.registers
    assert made.g is not None
    registers.virtual = False
    registers.satp = registers.hgatp & ~(0x3FFF << 44)  # G-stage tables have U, and the root is as good as Sv39's
    assert [made.trap(access, GPA).cause for access in KINDS] == [13, 15, 12]
    registers.mstatus = SUM
    assert made.reach(LOAD, GPA + 6) == GPA + GUEST + 6
    trap = made.trap(FETCH, GPA + 6)
    assert (trap.cause, trap.tval, trap.tval2, trap.gva) == (12, GPA + 6, 0, False)
    registers.user = True
    assert made.reach(FETCH, GPA + 6) == GPA + GUEST + 6
    registers.satp = 0
    assert made.reach(STORE, 0x8000_0000) == 0x8000_0000
