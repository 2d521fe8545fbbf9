"""Which exception an access ends in, with which cause, tval, tval2, tinst and GVA (hypervisor extension, "Traps")."""

from __future__ import annotations

import pytest
from riscv_words import (
    ADUE,
    FETCH,
    G_ROOT,
    GLEAF,
    GUEST,
    KINDS,
    LEAF,
    LOAD,
    RWX,
    STORE,
    VS_ROOT,
    A,
    D,
    Machine,
    R,
    U,
    V,
    W,
    X,
    pte,
)

from nestmmu.access import Access

ACCESS = {FETCH: 1, LOAD: 5, STORE: 7}
PAGE = {FETCH: 12, LOAD: 13, STORE: 15}
GUEST_PAGE = {FETCH: 20, LOAD: 21, STORE: 23}
READ_PTE, WRITE_PTE = 0x3000, 0x3020
VA, GPA = 0x12_3456_7000, 0x8123_4000
OUTSIDE = 0xA000_0000

every_kind = pytest.mark.parametrize("access", KINDS, ids=lambda kind: kind.label)


def machine() -> Machine:
    """Return a machine where VA leads to GPA, and that to GPA + GUEST."""
    made = Machine()
    made.vs_map(VA, GPA)
    made.g_map(GPA)
    return made


@every_kind
def test_an_access_goes_through_both_stages(access: Access) -> None:
    assert machine().reach(access, VA + 0x678) == GPA + GUEST + 0x678


@every_kind
@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_entry_of_the_vs_stage_without_v_is_a_page_fault(access: Access, level: int) -> None:
    made = machine()
    assert made.vs is not None
    made.vs.put(VA, 0, level)
    assert made.fields(access, VA + 5) == (PAGE[access], VA + 5, 0, 0, True)


@every_kind
@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_entry_of_the_g_stage_without_v_is_a_guest_page_fault(access: Access, level: int) -> None:
    made = Machine(vs=0)
    made.g_map(GPA)
    assert made.g is not None
    made.g.put(GPA, 0, level)
    assert made.fields(access, GPA + 0x67A) == (GUEST_PAGE[access], GPA + 0x67A, (GPA + 0x67A) >> 2, 0, True)


@every_kind
def test_tval_is_the_virtual_and_tval2_the_guest_physical_address(access: Access) -> None:
    made = machine()
    made.g_map(GPA, 0)
    assert made.fields(access, VA + 0x6) == (GUEST_PAGE[access], VA + 6, 0x2048_D001, 0, True)  # 0x8123_4006 >> 2


@every_kind
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_vs_stage_entry_that_the_g_stage_does_not_map_names_that_entry(access: Access, level: int) -> None:
    made = machine()
    assert made.vs is not None
    at = made.vs.slot(VA, level)
    made.g_map(at & -0x1000, 0)
    assert made.fields(access, VA + 5) == (GUEST_PAGE[access], VA + 5, at >> 2, READ_PTE, True)


@every_kind
def test_the_root_of_the_vs_stage_lies_behind_the_g_stage_too(access: Access) -> None:
    made = machine()
    made.g_map(VS_ROOT, 0)
    at = VS_ROOT + 8 * (VA >> 30)
    assert made.fields(access, VA) == (GUEST_PAGE[access], VA, at >> 2, READ_PTE, True)


@every_kind
def test_reading_an_entry_is_a_load_whatever_the_access_is(access: Access) -> None:
    made = machine()
    assert made.vs is not None
    page = made.vs.slot(VA) & -0x1000
    made.g_map(page, V | R | U | A)
    assert made.reach(access, VA) == GPA + GUEST
    at = made.vs.slot(VA)
    made.g_map(page, V | X | U | A)
    assert made.fields(access, VA) == (GUEST_PAGE[access], VA, at >> 2, READ_PTE, True)


@every_kind
def test_setting_a_in_an_entry_is_a_store_to_the_g_stage(access: Access) -> None:
    made = machine()
    at = made.vs_map(VA, GPA, LEAF & ~A)
    made.g_map(at & -0x1000, V | R | U | A | D)
    assert made.fields(access, VA + 1) == (GUEST_PAGE[access], VA + 1, at >> 2, WRITE_PTE, True)
    assert made.vs is not None
    assert made.vs.read(at) == pte(GPA, LEAF & ~A)


def test_setting_d_in_an_entry_is_a_store_to_the_g_stage() -> None:
    made = machine()
    at = made.vs_map(VA, GPA, LEAF & ~D)
    made.g_map(at & -0x1000, V | R | U | A | D)
    assert made.reach(LOAD, VA) == GPA + GUEST
    assert made.fields(STORE, VA) == (23, VA, at >> 2, WRITE_PTE, True)


@every_kind
def test_without_svadu_in_the_g_stage_an_entry_whose_page_is_clean_cannot_be_written(access: Access) -> None:
    made = machine()
    at = made.vs_map(VA, GPA, LEAF & ~A)
    made.g_map(at & -0x1000, GLEAF & ~D)
    made.registers.menvcfg = made.registers.menvcfg & ~ADUE
    assert made.fields(access, VA)[0] == PAGE[access]  # henvcfg.ADUE is zero where menvcfg's is: the VS-stage faults
    assert made.vs is not None
    assert made.vs.read(at) == pte(GPA, LEAF & ~A)


def test_with_svadu_an_entry_that_is_written_makes_its_page_dirty() -> None:
    made = machine()
    at = made.vs_map(VA, GPA, LEAF & ~A)
    below = made.g_map(at & -0x1000, GLEAF & ~D)
    assert made.reach(LOAD, VA) == GPA + GUEST
    assert made.g is not None
    assert made.g.read(below) == pte((at & -0x1000) + GUEST, GLEAF)


@every_kind
def test_a_table_of_the_vs_stage_outside_ram_is_an_access_fault(access: Access) -> None:
    made = Machine(g=0)
    assert made.vs is not None
    made.vs.put(VA, pte(OUTSIDE, V), 2)
    assert made.fields(access, VA + 4) == (ACCESS[access], VA + 4, 0, 0, True)


@every_kind
def test_a_guests_table_that_the_g_stage_leads_outside_ram_is_an_access_fault(access: Access) -> None:
    made = machine()
    assert made.vs is not None
    made.g_map(made.vs.slot(VA) & -0x1000, to=OUTSIDE)
    assert made.fields(access, VA) == (ACCESS[access], VA, 0, 0, True)


@every_kind
def test_a_table_of_the_g_stage_outside_ram_is_an_access_fault(access: Access) -> None:
    made = Machine(vs=0)
    assert made.g is not None
    made.g.put(GPA, pte(OUTSIDE, V), 2)
    assert made.fields(access, GPA) == (ACCESS[access], GPA, 0, 0, True)


@every_kind
def test_what_both_stages_lead_outside_ram_is_an_access_fault(access: Access) -> None:
    made = machine()
    made.g_map(GPA, to=OUTSIDE)
    assert made.fields(access, VA + 0x10) == (ACCESS[access], VA + 0x10, 0, 0, True)
    made.g_map(GPA, to=OUTSIDE - 0x1000)
    assert made.reach(access, VA + 0xFFF) == OUTSIDE - 1


@every_kind
def test_below_ram_is_no_memory_either(access: Access) -> None:
    made = Machine(vs=0, g=0)
    assert made.fields(access, 0x7FFF_FFFF) == (ACCESS[access], 0x7FFF_FFFF, 0, 0, True)
    assert made.reach(access, 0x8000_0000) == 0x8000_0000
    assert made.fields(access, 1 << 56 | 0x8000_0000)[0] == ACCESS[access]


@every_kind
@pytest.mark.parametrize(("mode", "bits"), [(8, 39), (9, 48), (10, 57)])
def test_a_virtual_address_has_to_be_sign_extended(access: Access, mode: int, bits: int) -> None:
    made = Machine(vs=mode)
    made.g_map(GPA)
    top, above = 1 << bits - 1, (1 << 64) - (1 << bits)
    made.vs_map(top, GPA)  # the entry of the highest half: its index has the top bit
    assert made.reach(access, above | top | 0x123) == GPA + GUEST + 0x123
    assert made.fields(access, top | 0x123) == (PAGE[access], top | 0x123, 0, 0, True)
    made.vs_map(0, GPA)
    assert made.reach(access, 0x123) == GPA + GUEST + 0x123
    for bit in range(bits, 64):
        assert made.fields(access, 1 << bit) == (PAGE[access], 1 << bit, 0, 0, True)
        wrong = (above | top) & ~(1 << bit)
        assert made.fields(access, wrong) == (PAGE[access], wrong, 0, 0, True)


@every_kind
@pytest.mark.parametrize(("mode", "bits"), [(8, 41), (9, 50), (10, 59)])
def test_a_guest_physical_address_has_to_be_zero_extended(access: Access, mode: int, bits: int) -> None:
    made = Machine(vs=0, g=mode)
    highest = (1 << bits) - 0x1000
    made.g_map(highest, to=0x8800_0000)
    assert made.reach(access, highest | 0x77) == 0x8800_0077
    for bit in range(bits, 64):
        address = 1 << bit | 0x8000_0001
        assert made.fields(access, address) == (GUEST_PAGE[access], address, address >> 2, 0, True)
    wide = (1 << 64) - 0x1000
    assert made.fields(access, wide) == (GUEST_PAGE[access], wide, wide >> 2, 0, True)


@every_kind
def test_a_leaf_of_the_vs_stage_may_lead_beyond_what_the_g_stage_translates(access: Access) -> None:
    made = machine()
    made.vs_map(VA, 1 << 41 | 0x5000)
    assert made.fields(access, VA + 9) == (GUEST_PAGE[access], VA + 9, (1 << 41 | 0x5009) >> 2, 0, True)


@every_kind
def test_a_table_of_the_vs_stage_may_lie_beyond_what_the_g_stage_translates(access: Access) -> None:
    made = machine()
    assert made.vs is not None
    made.vs.put(VA, pte(1 << 55, V), 1)
    at = (1 << 55) + 8 * (VA >> 12 & 511)
    assert made.fields(access, VA) == (GUEST_PAGE[access], VA, at >> 2, READ_PTE, True)


def test_the_cause_is_the_first_that_the_walk_meets() -> None:
    made = machine()
    made.vs_map(VA, GPA, LEAF & ~W)
    made.g_map(GPA, 0)
    assert made.trap(STORE, VA).cause == 15
    assert made.trap(LOAD, VA).cause == 21
    made.g_map(GPA, GLEAF & ~RWX | X, to=OUTSIDE)
    assert made.trap(LOAD, VA).cause == 21
    assert made.trap(FETCH, VA).cause == 1


def test_the_low_bits_of_the_page_number_of_hgatp_read_as_zero() -> None:
    made = machine()
    made.registers.hgatp |= 3
    assert made.registers.hgatp & 0xFFF_FFFF == (G_ROOT >> 12) + 3
    assert made.reach(LOAD, VA) == GPA + GUEST


def test_with_both_stages_bare_nothing_is_translated() -> None:
    made = Machine(vs=0, g=0)
    for access in KINDS:
        assert made.reach(access, 0x9FFF_FFFF) == 0x9FFF_FFFF


def test_the_vs_stage_alone() -> None:
    made = Machine(g=0)
    made.vs_map(VA, 0x8765_4000)
    assert made.reach(LOAD, VA + 8) == 0x8765_4008
    assert made.vs is not None
    at = made.vs.put(VA, pte(0x8765_4000, V | R | A))
    assert made.fields(STORE, VA) == (15, VA, 0, 0, True)
    assert at == VS_ROOT + 0x2000 + 8 * 0x167


def test_the_g_stage_alone() -> None:
    made = Machine(vs=0)
    made.g_map(GPA, V | R | U | A)
    assert made.reach(LOAD, GPA + 8) == GPA + GUEST + 8
    assert made.fields(STORE, GPA + 8) == (23, GPA + 8, (GPA + 8) >> 2, 0, True)


@pytest.mark.parametrize("access", [LOAD, STORE])
def test_the_instruction_is_fetched_before_its_access_is_made(access: Access) -> None:
    made = machine()
    code = VA + 0x1000
    made.vs_map(code, GPA + 0x1000, V | X | A)
    made.g_map(GPA + 0x1000)
    result = made.cpu.execute(access, VA, code)
    assert result == made.access(access, VA)
    made.g_map(GPA + 0x1000, 0)
    trap = made.cpu.execute(access, VA, code + 8)
    assert (trap.cause, trap.tval, trap.tval2) == (20, code + 8, (GPA + 0x1008) >> 2)  # type: ignore[union-attr]
