"""The hart by the rules of the privileged manual, on tables made of raw words."""

from __future__ import annotations

import pytest
from riscv_guest import (
    ADUE,
    BARE,
    EA,
    FULL,
    G_ROOT,
    GUEST_FULL,
    HOST,
    IO,
    LEVELS,
    MXR,
    NC,
    PAGE,
    PBMTE,
    RWX,
    RWXU,
    SPVP,
    SUM,
    SV39,
    SV48,
    SV57,
    VS_TABLES,
    A,
    D,
    G,
    Machine,
    N,
    R,
    U,
    V,
    W,
    X,
    pte,
    reached,
    trap,
)  # fmt: skip

from nestmmu.access import Access
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory
from nestmmu.plugins import Plugins
from nestmmu.radix import Step
from nestmmu.slots import Slot
from nestmmu_riscv.cpu import Reached, RiscvCpu
from nestmmu_riscv.csrs import Registers
from nestmmu_riscv.traps import Trap

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
EVERY = [LOAD, STORE, FETCH]
BOTH = ADUE | PBMTE
REAL = HOST + PAGE + 0x678
PAGE_FAULTS = {FETCH: 12, LOAD: 13, STORE: 15}
GUEST_PAGE_FAULTS = {FETCH: 20, LOAD: 21, STORE: 23}
ACCESS_FAULTS = {FETCH: 1, LOAD: 5, STORE: 7}


# Two stages, one, none


@pytest.mark.parametrize("g_mode", [SV39, SV48, SV57])
@pytest.mark.parametrize("vs_mode", [SV39, SV48, SV57])
@pytest.mark.parametrize("access", EVERY)
def test_two_stages(vs_mode: int, g_mode: int, access: Access) -> None:
    found = reached(Machine(vs_mode, g_mode).cpu.access(access, EA))
    assert (found.address, found.page_shift, found.guest) == (REAL, 12, PAGE + 0x678)
    assert (found.input_shift, found.guest_shift) == (12, 21)


@pytest.mark.parametrize("g_mode", [SV39, SV48, SV57])
def test_entries_read_by_two_stages(g_mode: int) -> None:
    """Three of the VS-stage, and before each and at the end those of a G-stage that ends in 2 MiB pages."""
    machine, steps = Machine(SV39, g_mode), list[Step]()
    cpu = machine.cpu
    cpu.trace(steps)
    reached(cpu.access(LOAD, EA))
    g_stage = LEVELS[g_mode] - 1
    assert [step.stage for step in steps] == [*(["G-stage"] * g_stage + ["VS-stage"]) * 3, *["G-stage"] * g_stage]
    assert [step.index for step in steps if step.stage == "VS-stage"] == [0, 0x91, 0x145]
    assert steps[0].entry_address == G_ROOT
    cpu.trace(None)
    reached(cpu.access(LOAD, EA))
    assert len(steps) == 4 * g_stage + 3


def test_the_vs_stage_alone() -> None:
    found = reached(Machine(SV48, BARE).cpu.access(LOAD, EA))
    assert (found.address, found.page_shift, found.guest) == (PAGE + 0x678, 12, PAGE + 0x678)


def test_the_g_stage_alone() -> None:
    found = reached(Machine(BARE, SV48).cpu.access(STORE, EA))
    assert (found.address, found.page_shift, found.guest) == (HOST + EA, 21, EA)


def test_neither_stage() -> None:
    found = reached(Machine(BARE, BARE).cpu.access(FETCH, EA))
    assert (found.address, found.page_shift, found.permissions) == (EA, 64, 7)


def test_hs_mode_by_satp() -> None:
    machine = Machine(SV39, BARE, virtual=False)
    machine.registers.satp, machine.registers.vsatp = machine.registers.vsatp, 0
    assert reached(machine.cpu.access(LOAD, EA)).guest is None
    machine.leaf(pte(PAGE, FULL & ~W))
    assert trap(machine.cpu.access(STORE, EA)) == Trap(15, EA, gva=False)
    machine.registers.satp = 0
    assert reached(machine.cpu.access(STORE, EA)).address == EA


@pytest.mark.parametrize(("depth", "shift"), [(0, 30), (1, 21)])
def test_superpages(depth: int, shift: int) -> None:
    machine = Machine()
    where = VS_TABLES + 0x1000 * depth + 8 * (0, 0x91)[depth]
    machine.guest(where, pte(0, FULL))
    found = reached(machine.cpu.access(LOAD, EA))
    assert (found.guest, found.page_shift, found.input_shift) == (EA % (1 << shift), 21, shift)
    machine.guest(where, pte(0x1000, FULL))
    assert trap(machine.cpu.access(LOAD, EA)).cause == 13


# Widths of addresses


@pytest.mark.parametrize("mode", [SV39, SV48, SV57])
@pytest.mark.parametrize("access", EVERY)
def test_virtual_addresses_are_sign_extended(mode: int, access: Access) -> None:
    width = {SV39: 39, SV48: 48, SV57: 57}[mode]
    machine = Machine(mode)
    for bit in (width - 1, width, 63):
        address = EA | 1 << bit
        assert trap(machine.cpu.access(access, address)) == Trap(PAGE_FAULTS[access], address)
    high = EA | (1 << 64) - (1 << width - 1)
    machine.guest(VS_TABLES + 8 * 256, pte(VS_TABLES + 0x1000, V))
    assert reached(machine.cpu.access(access, high)).address == REAL


@pytest.mark.parametrize("mode", [SV39, SV48, SV57])
@pytest.mark.parametrize("access", EVERY)
def test_guest_physical_addresses_are_zero_above_the_width(mode: int, access: Access) -> None:
    width = {SV39: 41, SV48: 50, SV57: 59}[mode]
    machine = Machine(BARE, mode)
    for bit in (width, 63):
        address = EA | 1 << bit
        assert trap(machine.cpu.access(access, address)) == Trap(GUEST_PAGE_FAULTS[access], address, address >> 2)
    top = (1 << width) - 0x1000
    machine.real(G_ROOT + 8 * 2047, pte(HOST, GUEST_FULL))
    if mode == SV39:
        assert reached(machine.cpu.access(access, top)).address == HOST + (1 << 30) - 0x1000
    else:
        assert trap(machine.cpu.access(access, top)).cause == GUEST_PAGE_FAULTS[access]


def test_a_page_wider_than_the_g_stage_takes() -> None:
    machine = Machine()
    machine.leaf(pte(1 << 41, FULL))
    assert trap(machine.cpu.access(LOAD, EA)) == Trap(21, EA, (1 << 41 | 0x678) >> 2)


def test_a_table_wider_than_the_g_stage_takes() -> None:
    machine = Machine()
    machine.guest(VS_TABLES, pte(1 << 41, V))
    assert trap(machine.cpu.access(FETCH, EA)) == Trap(20, EA, (1 << 41 | 8 * 0x91) >> 2, 0x3000)


def test_the_low_bits_of_hgatp_are_zero() -> None:
    """The root has 16 KiB: the two lowest bits of PPN are none."""
    machine = Machine()
    machine.registers.hgatp |= 3
    assert reached(machine.cpu.access(LOAD, EA)).address == REAL


# Entries


@pytest.mark.parametrize("bit", range(54, 61))
def test_reserved_bits(bit: int) -> None:
    machine = Machine(menvcfg=BOTH, henvcfg=BOTH)
    machine.leaf(pte(PAGE, FULL) | 1 << bit)
    assert trap(machine.cpu.access(LOAD, EA)).cause == 13
    machine.leaf(pte(PAGE, FULL))
    machine.real(machine.g_pages + 8 * (PAGE >> 21), pte(HOST + (PAGE >> 21 << 21), GUEST_FULL) | 1 << bit)
    assert trap(machine.cpu.access(LOAD, EA)) == Trap(21, EA, PAGE + 0x678 >> 2)


@pytest.mark.parametrize("flags", [V | W | A | D, V | W | X | A | D, 0, RWX | A | D])
def test_entries_that_are_none(flags: int) -> None:
    machine = Machine()
    machine.leaf(pte(PAGE, flags))
    assert trap(machine.cpu.access(STORE, EA)).cause == 15


@pytest.mark.parametrize("bits", [A, D, U, NC, IO, N])
def test_bits_that_a_pointer_must_not_have(bits: int) -> None:
    machine = Machine(menvcfg=BOTH, henvcfg=BOTH)
    machine.guest(VS_TABLES, pte(VS_TABLES + 0x1000, V | G | 0x300))
    assert reached(machine.cpu.access(LOAD, EA)).address == REAL
    machine.guest(VS_TABLES, pte(VS_TABLES + 0x1000, V | bits))
    assert trap(machine.cpu.access(LOAD, EA)).cause == 13


def test_a_pointer_at_the_last_level() -> None:
    machine = Machine()
    machine.leaf(pte(PAGE, V))
    assert trap(machine.cpu.access(LOAD, EA)).cause == 13


def test_svnapot_at_the_vs_stage() -> None:
    """PPN bits 3:0 are 1000; the address has those of the virtual page: 5."""
    machine = Machine()
    machine.leaf(pte(PAGE & ~0xFFFF | 0x8000, FULL) | N)
    found = reached(machine.cpu.access(LOAD, EA))
    assert (found.address, found.page_shift, found.input_shift) == (REAL, 16, 16)
    machine.leaf(pte(0x7770_8000, FULL) | N)
    assert trap(machine.cpu.access(LOAD, EA)).tval2 == 0x7770_5678 >> 2


def test_svnapot_at_the_g_stage() -> None:
    machine = Machine(BARE, SV39)
    machine.real(G_ROOT + 8 * 1, pte(0x9000_0000, V))
    machine.real(0x9000_0000, pte(0x9000_1000, V))
    for index in range(16):
        machine.real(0x9000_1000 + 8 * index, pte(HOST + 0x5_8000, GUEST_FULL) | N)
    found = reached(machine.cpu.access(STORE, 0x4000_ABCD))
    assert (found.address, found.page_shift) == (HOST + 0x5_ABCD, 16)


@pytest.mark.parametrize("low", [n for n in range(16) if n != 8])
def test_other_svnapot_sizes_are_reserved(low: int) -> None:
    machine = Machine()
    machine.leaf(pte(PAGE & ~0xFFFF | low << 12, FULL) | N)
    assert trap(machine.cpu.access(LOAD, EA)).cause == 13


def test_svnapot_of_a_superpage_is_reserved() -> None:
    machine = Machine()
    machine.guest(VS_TABLES + 0x1000 + 8 * 0x91, pte(0x80_0000, FULL) | N)
    assert trap(machine.cpu.access(LOAD, EA)).cause == 13


def test_without_svnapot_n_is_reserved() -> None:
    machine = Machine()
    machine.leaf(pte(PAGE & ~0xFFFF | 0x8000, FULL) | N)
    assert trap(RiscvCpu(machine.registers, machine.memory, napot=False).access(LOAD, EA)).cause == 13


@pytest.mark.parametrize(
    ("menvcfg", "henvcfg", "vs", "g", "cause", "kind"),
    [
        (PBMTE, PBMTE, NC, 0, 0, NC),
        (PBMTE, PBMTE, 0, IO, 0, IO),
        (PBMTE, PBMTE, NC, IO, 0, NC),
        (PBMTE, PBMTE, 3 << 61, 0, 13, 0),
        (PBMTE, PBMTE, 0, 3 << 61, 21, 0),
        (PBMTE, 0, NC, 0, 13, 0),
        (PBMTE, 0, 0, NC, 0, NC),
        (0, 0, 0, NC, 21, 0),
        (0, PBMTE, NC, 0, 13, 0),
    ],
)
def test_svpbmt(menvcfg: int, henvcfg: int, vs: int, g: int, cause: int, kind: int) -> None:
    """henvcfg.PBMTE counts where menvcfg.PBMTE is set; the VS-stage's type overrides the G-stage's."""
    machine = Machine(menvcfg=menvcfg, henvcfg=henvcfg)
    machine.leaf(pte(PAGE, FULL) | vs)
    machine.real(machine.g_pages + 8 * (PAGE >> 21), pte(HOST + (PAGE >> 21 << 21), GUEST_FULL) | g)
    result = machine.cpu.access(LOAD, EA)
    assert (result.cause if isinstance(result, Trap) else 0) == cause
    if isinstance(result, Reached):
        assert result.pbmt == kind


# Permissions


@pytest.mark.parametrize("flags", [R, R | W, X, R | X, RWX])
@pytest.mark.parametrize("access", EVERY)
def test_permissions_of_both_stages(flags: int, access: Access) -> None:
    allowed = bool(flags & {LOAD: R, STORE: W, FETCH: X}[access])
    machine = Machine()
    machine.leaf(pte(PAGE, V | A | D | flags))
    assert isinstance(machine.cpu.access(access, EA), Reached) is allowed
    if not allowed:
        assert trap(machine.cpu.access(access, EA)) == Trap(PAGE_FAULTS[access], EA)
    machine.leaf(pte(PAGE, FULL))
    machine.g_leaf(PAGE, V | A | D | U | flags)
    assert isinstance(machine.cpu.access(access, EA), Reached) is allowed
    if not allowed:
        assert trap(machine.cpu.access(access, EA)) == Trap(GUEST_PAGE_FAULTS[access], EA, PAGE + 0x678 >> 2)


def test_a_page_permits_what_both_stages_do() -> None:
    machine = Machine()
    machine.leaf(pte(PAGE, V | A | D | R | X))
    machine.g_leaf(PAGE, V | A | D | U | R | W)
    assert reached(machine.cpu.access(LOAD, EA)).permissions == LOAD


@pytest.mark.parametrize("access", EVERY)
def test_the_g_stage_needs_u_in_every_mode(access: Access) -> None:
    for user in (False, True):
        machine = Machine(user=user)
        machine.leaf(pte(PAGE, FULL | (U if user else 0)))
        machine.g_leaf(PAGE, FULL)
        assert trap(machine.cpu.access(access, EA)).cause == GUEST_PAGE_FAULTS[access]


@pytest.mark.parametrize(
    ("user", "flag", "vs_sum", "passing"),
    [
        (True, U, 0, {LOAD, STORE, FETCH}),
        (True, 0, 0, set()),
        (True, 0, SUM, set()),
        (False, 0, 0, {LOAD, STORE, FETCH}),
        (False, U, 0, set()),
        (False, U, SUM, {LOAD, STORE}),
    ],
)
def test_u_and_sum_at_the_vs_stage(*, user: bool, flag: int, vs_sum: int, passing: set[Access]) -> None:
    machine = Machine(user=user, vsstatus=vs_sum)
    machine.leaf(pte(PAGE, FULL | flag))
    assert {access for access in EVERY if isinstance(machine.cpu.access(access, EA), Reached)} == passing
    if passing:
        assert reached(machine.cpu.access(LOAD, EA)).permissions == sum(passing)


def test_sum_of_hs_mode_does_not_count_for_a_guest() -> None:
    machine = Machine(mstatus=SUM)
    machine.leaf(pte(PAGE, FULL | U))
    assert trap(machine.cpu.access(LOAD, EA)).cause == 13


@pytest.mark.parametrize(
    ("vsstatus", "mstatus", "vs_flags", "g_flags", "cause"),
    [
        (0, 0, X, RWX, 13),
        (MXR, 0, X, RWX, 0),
        (0, MXR, X, RWX, 0),
        (0, 0, RWX, X, 21),
        (MXR, 0, RWX, X, 21),
        (0, MXR, RWX, X, 0),
        (0, MXR, X, X, 0),
    ],
)
def test_mxr(vsstatus: int, mstatus: int, vs_flags: int, g_flags: int, cause: int) -> None:
    """vsstatus.MXR is the VS-stage's alone, HS-mode's is of both stages; neither lets anything be stored."""
    machine = Machine(vsstatus=vsstatus, mstatus=mstatus)
    machine.leaf(pte(PAGE, V | A | D | vs_flags))
    machine.g_leaf(PAGE, V | A | D | U | g_flags)
    result = machine.cpu.access(LOAD, EA)
    assert (result.cause if isinstance(result, Trap) else 0) == cause
    assert isinstance(machine.cpu.access(STORE, EA), Trap)


@pytest.mark.parametrize("mstatus", [0, MXR])
def test_mxr_does_not_count_where_entries_are_read(mstatus: int) -> None:
    """MXR is of explicit loads alone (riscv-isa-manual, pull request 1543; Spike, pull request 1760)."""
    machine = Machine(mstatus=mstatus, vsstatus=mstatus)
    machine.g_leaf(VS_TABLES, V | A | D | U | X)
    assert trap(machine.cpu.access(LOAD, EA)).tinst == 0x3000


# Accessed and dirty


@pytest.mark.parametrize(
    ("flags", "access", "needed"), [(D, LOAD, A), (D, FETCH, A), (A, STORE, D), (0, STORE, A | D), (0, LOAD, A)]
)
@pytest.mark.parametrize(("menvcfg", "henvcfg", "on"), [(ADUE, ADUE, True), (ADUE, 0, False), (0, ADUE, False)])
def test_svadu_and_svade_at_the_vs_stage(
    *, flags: int, access: Access, needed: int, menvcfg: int, henvcfg: int, on: bool
) -> None:
    """henvcfg.ADUE is read-only zero where menvcfg.ADUE is zero."""
    machine = Machine(menvcfg=menvcfg, henvcfg=henvcfg)
    entry = pte(PAGE, V | RWX | flags)
    machine.leaf(entry)
    result = machine.cpu.access(access, EA)
    if on:
        assert reached(result).address == REAL
        assert machine.read_leaf() == entry | needed
    else:
        assert result == Trap(PAGE_FAULTS[access], EA)
        assert machine.read_leaf() == entry


@pytest.mark.parametrize(("flags", "access", "needed"), [(D, LOAD, A), (A, STORE, D), (0, STORE, A | D), (0, FETCH, A)])
@pytest.mark.parametrize("menvcfg", [ADUE, 0])
def test_svadu_and_svade_at_the_g_stage(flags: int, access: Access, needed: int, menvcfg: int) -> None:
    machine = Machine(menvcfg=menvcfg)
    machine.g_leaf(PAGE, V | RWXU | flags)
    before = machine.read_g_leaf(PAGE)
    result = machine.cpu.access(access, EA)
    if menvcfg:
        assert reached(result).address == REAL
        assert machine.read_g_leaf(PAGE) == before | needed
    else:
        assert result == Trap(GUEST_PAGE_FAULTS[access], EA, PAGE + 0x678 >> 2)
        assert machine.read_g_leaf(PAGE) == before


@pytest.mark.parametrize("access", [LOAD, FETCH, STORE])
def test_the_harts_own_write_of_a_is_a_store_at_the_g_stage(access: Access) -> None:
    """An entry that may not be written: the pseudo-instruction is a write's, the code the access's own."""
    machine = Machine(menvcfg=ADUE, henvcfg=ADUE)
    machine.leaf(pte(PAGE, V | RWX))
    machine.g_leaf(VS_TABLES, GUEST_FULL & ~W)
    assert trap(machine.cpu.access(access, EA)) == Trap(GUEST_PAGE_FAULTS[access], EA, machine.leaf_at >> 2, 0x3020)
    assert machine.read_leaf() == pte(PAGE, V | RWX)
    machine.g_leaf(VS_TABLES, GUEST_FULL & ~D)
    assert reached(machine.cpu.access(access, EA)).address == REAL
    assert machine.read_g_leaf(VS_TABLES) & D


def test_a_page_that_refuses_is_not_marked() -> None:
    machine = Machine(menvcfg=ADUE, henvcfg=ADUE)
    machine.leaf(pte(PAGE, V | R))
    assert trap(machine.cpu.access(STORE, EA)).cause == 15
    assert machine.read_leaf() == pte(PAGE, V | R)


def test_a_probe_changes_nothing() -> None:
    machine = Machine(menvcfg=ADUE, henvcfg=ADUE)
    machine.leaf(pte(PAGE, V | RWX))
    assert reached(machine.cpu.probe(STORE, EA)).address == REAL
    assert machine.read_leaf() == pte(PAGE, V | RWX)


# Exceptions


@pytest.mark.parametrize("access", EVERY)
def test_a_page_fault(access: Access) -> None:
    machine = Machine()
    machine.leaf(0)
    assert trap(machine.cpu.access(access, EA)) == Trap(PAGE_FAULTS[access], EA, 0, 0, gva=True)


@pytest.mark.parametrize("access", EVERY)
def test_a_guest_page_fault_of_the_access_itself(access: Access) -> None:
    machine = Machine()
    machine.g_leaf(PAGE, 0)
    found = trap(machine.cpu.access(access, EA))
    assert found == Trap(GUEST_PAGE_FAULTS[access], EA, 0x0804_5678 >> 2, 0, gva=True)


@pytest.mark.parametrize("access", EVERY)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_guest_page_fault_of_an_implicit_read(access: Access, level: int) -> None:
    """Htval is the entry's address; the root's too is a guest physical address."""
    machine = Machine()
    tables = [VS_TABLES, 0x20_0000 * 3, 0x20_0000 * 4]
    machine.guest(tables[0], pte(tables[1], V))
    machine.guest(tables[1] + 8 * 0x91, pte(tables[2], V))
    machine.guest(tables[2] + 8 * 0x145, pte(PAGE, FULL))
    assert reached(machine.cpu.access(access, EA)).address == REAL
    machine.g_leaf(tables[level], 0)
    entry = tables[level] + 8 * (0, 0x91, 0x145)[level]
    assert trap(machine.cpu.access(access, EA)) == Trap(GUEST_PAGE_FAULTS[access], EA, entry >> 2, 0x3000)


@pytest.mark.parametrize("access", EVERY)
def test_access_faults(access: Access) -> None:
    """What is no memory: the page, a table of the G-stage, and one of the VS-stage, behind the G-stage."""
    machine = Machine()
    ram = Slot(G_ROOT, HOST + (1 << 30) - G_ROOT)
    cpu = RiscvCpu(machine.registers, machine.memory, ram=ram)
    expected = Trap(ACCESS_FAULTS[access], EA, 0, 0, gva=True)
    assert reached(cpu.access(access, EA)).address == REAL
    machine.real(machine.g_pages + 8 * (PAGE >> 21), pte(0x20_0000, GUEST_FULL))
    assert cpu.access(access, EA) == expected
    machine.real(machine.g_pages + 8 * (VS_TABLES >> 21), pte(0x20_0000, GUEST_FULL))
    assert cpu.access(access, EA) == expected
    machine.real(G_ROOT, pte(0x1000, V))
    assert cpu.access(access, EA) == expected
    assert cpu.probe(access, EA) == expected


def test_physical_addresses_have_56_bits() -> None:
    machine = Machine(BARE, BARE)
    assert reached(machine.cpu.access(LOAD, (1 << 56) - 8)).address == (1 << 56) - 8
    assert trap(machine.cpu.access(LOAD, 1 << 56)) == Trap(5, 1 << 56)


def test_registers_by_the_mode_that_takes_the_trap() -> None:
    machine = Machine(user=True)
    machine.leaf(pte(PAGE, FULL | U))
    machine.g_leaf(VS_TABLES, 0)
    found = trap(machine.cpu.access(FETCH, EA))
    at = VS_TABLES >> 2
    assert found.user
    assert found.written("m") == {"mcause": 20, "mtval": EA, "mtval2": at, "mtinst": 0x3000, "gva": 1}
    assert found.written("hs") == {"scause": 20, "stval": EA, "htval": at, "htinst": 0x3000, "gva": 1}
    machine.g_leaf(VS_TABLES, GUEST_FULL)
    machine.leaf(0)
    found = trap(machine.cpu.access(FETCH, EA))
    assert found.written("vs") == {"vscause": 12, "vstval": EA}
    assert found.name == "fetch page fault"


def test_an_instruction_is_fetched_first() -> None:
    machine = Machine()
    at = EA + 0x1000
    assert trap(machine.cpu.execute(STORE, EA, at)) == Trap(12, at)
    machine.guest(machine.leaf_at + 8, pte(PAGE, FULL))
    assert reached(machine.cpu.execute(STORE, EA, at)).address == REAL


# HLV, HLVX, HSV


@pytest.mark.parametrize("access", [LOAD, STORE])
@pytest.mark.parametrize(
    ("hstatus", "vsstatus", "flag", "passes"),
    [(0, 0, U, True), (0, 0, 0, False), (SPVP, 0, 0, True), (SPVP, 0, U, False), (SPVP, SUM, U, True)],
)
def test_hlv_and_hsv_have_the_privilege_in_spvp(
    *, access: Access, hstatus: int, vsstatus: int, flag: int, passes: bool
) -> None:
    machine = Machine(virtual=False, hstatus=hstatus, vsstatus=vsstatus, mstatus=SUM, satp=0)
    machine.leaf(pte(PAGE, FULL | flag))
    result = machine.cpu.as_guest(access, EA)
    if passes:
        assert reached(result).address == REAL
    else:
        assert result == Trap(PAGE_FAULTS[access], EA, gva=True, user=not hstatus)


def test_a_guest_page_fault_of_hsv_is_a_guests() -> None:
    machine = Machine(virtual=False, hstatus=SPVP)
    machine.g_leaf(PAGE, 0)
    assert machine.cpu.as_guest(STORE, EA) == Trap(23, EA, PAGE + 0x678 >> 2, 0, gva=True)


@pytest.mark.parametrize(
    ("vs_flags", "g_flags", "cause"), [(X, RWX, 0), (R | W, RWX, 13), (RWX, X, 0), (RWX, R | W, 21), (RWX, RWX, 0)]
)
def test_hlvx_needs_execute_in_place_of_read(vs_flags: int, g_flags: int, cause: int) -> None:
    """At both stages; the exception is a load's."""
    machine = Machine(virtual=False, hstatus=SPVP)
    machine.leaf(pte(PAGE, V | A | D | vs_flags))
    machine.g_leaf(PAGE, V | A | D | U | g_flags)
    result = machine.cpu.as_guest(LOAD, EA, execute=True)
    assert (result.cause if isinstance(result, Trap) else 0) == cause


def test_hlvx_reads_tables_as_any_load_does() -> None:
    machine = Machine(virtual=False, hstatus=SPVP)
    machine.g_leaf(VS_TABLES, V | A | D | U | X)
    assert trap(machine.cpu.as_guest(LOAD, EA, execute=True)).tinst == 0x3000


@pytest.mark.parametrize(("access", "execute"), [(FETCH, False), (STORE, True), (FETCH, True)])
def test_there_is_no_such_instruction(*, access: Access, execute: bool) -> None:
    with pytest.raises(ValueError, match="no instruction"):
        Machine().cpu.as_guest(access, EA, execute=execute)


# By the hook


def test_the_hook_makes_a_hart_with_svadu_or_without() -> None:
    machine = Machine()
    machine.leaf(pte(PAGE, V | RWX | D))
    registers = {"vsatp": machine.registers.vsatp, "hgatp": machine.registers.hgatp}
    ends = {
        policy: Plugins().cpu("riscv", registers, machine.memory, policy).access(LOAD, EA)
        for policy in (AccessedDirty.IGNORE, AccessedDirty.FAULT)
    }
    assert ends[AccessedDirty.FAULT] == Trap(13, EA)
    assert ends[AccessedDirty.IGNORE].address == REAL
    off = {**registers, "menvcfg": 0}
    assert Plugins().cpu("riscv", off, machine.memory, AccessedDirty.UPDATE).access(LOAD, EA) == Trap(13, EA)
    assert machine.read_leaf() == pte(PAGE, V | RWX | D)
    found = Plugins().cpu("riscv", registers, machine.memory, AccessedDirty.UPDATE).access(LOAD, EA)
    assert (found.address, machine.read_leaf()) == (REAL, pte(PAGE, FULL))


def test_the_hook_refuses_a_register_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="lpidr"):
        Plugins().cpu("riscv", {"lpidr": 1}, PhysicalMemory(), AccessedDirty.UPDATE)


def test_registers_by_name() -> None:
    found = Registers.from_recorded({"mstatus_mxr": 1, "mstatus": SUM, "user": 1, "virtual": 0, "satp": 5})
    assert found == Registers(mstatus=SUM | MXR, user=True, virtual=False, satp=5)
