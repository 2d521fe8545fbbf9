"""A hypervisor under a hypervisor: what L1 sees of its L2's faults, what its fences do, and what L0 keeps."""

from __future__ import annotations

import pytest
from riscv_guest import (
    ADUE,
    BARE,
    FULL,
    GUEST_FULL,
    IO,
    MXR,
    NC,
    PBMTE,
    SPVP,
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
    reached,
    trap,
)  # fmt: skip
from riscv_nest import (
    AT,
    DATA,
    G_LOW,
    G_ROOT,
    L1_TAG,
    L2_AT,
    L2_VMID,
    LARGE,
    LARGE_PAGE,
    RAM,
    RAM_SIZE,
    VS_LOW,
    VS_TABLES,
    Nest,
)  # fmt: skip

from nestmmu import upkeep
from nestmmu.access import EXECUTE, READ, Access
from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.errors import NestmmuError
from nestmmu.host_faults import HostFaultHandler
from nestmmu.invalidation import FlushKind
from nestmmu.mappings import Mapping
from nestmmu.outcomes import Outcome, Verdict
from nestmmu.plugins import Plugins
from nestmmu.points import finish
from nestmmu.slots import Slot
from nestmmu_riscv import exits
from nestmmu_riscv.composer import RiscvComposer
from nestmmu_riscv.cpu import RiscvCpu
from nestmmu_riscv.csrs import legal_hgatp
from nestmmu_riscv.fences import Fence, FenceKind
from nestmmu_riscv.formats import table_format
from nestmmu_riscv.traps import Trap

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
EVERY = [LOAD, STORE, FETCH]
CODES = {FETCH: 20, LOAD: 21, STORE: 23}
ACCESS_FAULTS = {FETCH: 1, LOAD: 5, STORE: 7}
PAGE_3 = DATA + 0x3000
GVMA, VVMA = FenceKind.HFENCE_GVMA, FenceKind.HFENCE_VVMA
SPV, GVA = 1 << 7, 1 << 6
RSW = 0x300


def l1_page(nest: Nest, guest: int, entry: int) -> None:
    """Write L1's entry for a page of L2, with its fence."""
    nest.word(G_LOW + 8 * (guest >> 12), entry)
    nest.fence(GVMA, guest, L2_VMID)


# What L0 makes of L2's faults


def test_an_access_is_composed_and_inserted() -> None:
    """Four faults: the three tables of L2, which are read in turn, and the page."""
    nest = Nest()
    result, outcome, faults = nest.attempt(STORE, 0x3008)
    assert (reached(result).address, outcome, faults) == (AT + L2_AT + PAGE_3 + 8, None, 4)
    shadow = nest.shadow()
    assert sorted(shadow) == [VS_TABLES, VS_TABLES + 0x1000, VS_LOW, PAGE_3]
    target, shift, entry = shadow[PAGE_3]
    assert (target, shift, entry) == (AT + L2_AT + PAGE_3, 12, pte(AT + L2_AT + PAGE_3, GUEST_FULL))
    assert [int(one.tag) for one in nest.guest.rmap.entries(L2_AT + PAGE_3 >> 12)] == [L2_VMID]
    assert nest.attempt(STORE, 0x3010)[2] == 0
    nest.sound()


def test_l2_takes_its_own_page_faults_without_l0() -> None:
    nest = Nest()
    nest.vs_map(3, PAGE_3, FULL & ~V)
    assert nest.access(FETCH, 0x3000) == Trap(12, 0x3000)


@pytest.mark.parametrize("access", EVERY)
def test_l1_gets_a_guest_page_fault_for_what_its_table_lacks(access: Access) -> None:
    nest = Nest()
    l1_page(nest, PAGE_3, 0)
    found = nest.agree(access, 0x3018)
    assert found == Trap(CODES[access], 0x3018, PAGE_3 + 0x18 >> 2, 0, gva=True)
    assert PAGE_3 not in nest.shadow()
    written = nest.host.deliver(nest.guest, trap(found))
    assert written == {
        "scause": CODES[access], "stval": 0x3018, "htval": 0x0011_3018 >> 2, "htinst": 0, "gva": 1,
        "hstatus": GVA | SPV | SPVP,
    }  # fmt: skip
    assert not nest.registers.virtual


@pytest.mark.parametrize("access", EVERY)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_l1_gets_a_pseudo_instruction_for_an_implicit_read(access: Access, level: int) -> None:
    nest = Nest()
    table = (VS_TABLES, VS_TABLES + 0x1000, VS_LOW)[level]
    l1_page(nest, table, 0)
    entry = table + (0, 0, 24)[level]
    assert nest.agree(access, 0x3000) == Trap(CODES[access], 0x3000, entry >> 2, 0x3000)


@pytest.mark.parametrize("access", EVERY)
def test_l1_gets_a_pseudo_instruction_for_an_implicit_write(access: Access) -> None:
    """L2's hart sets A (Svadu), and L1 lets no one write L2's table."""
    nest = Nest()
    nest.vs_map(3, PAGE_3, FULL & ~A)
    l1_page(nest, VS_LOW, pte(L2_AT + VS_LOW, GUEST_FULL & ~W))
    assert nest.agree(access, 0x3000) == Trap(CODES[access], 0x3000, VS_LOW + 24 >> 2, 0x3020)
    l1_page(nest, VS_LOW, pte(L2_AT + VS_LOW, GUEST_FULL))
    assert reached(nest.agree(access, 0x3000)).address == AT + L2_AT + PAGE_3


@pytest.mark.parametrize("user", [False, True])
def test_the_privilege_of_l2_is_in_spvp(*, user: bool) -> None:
    nest = Nest()
    nest.registers.hstatus = 0 if user else SPVP
    nest.enter()
    assert (nest.registers.virtual, nest.registers.user) == (True, user)
    nest.vs_map(3, PAGE_3, FULL | (U if user else 0))
    l1_page(nest, PAGE_3, 0)
    written = nest.host.deliver(nest.guest, trap(nest.agree(LOAD, 0x3000)))
    assert written["hstatus"] & SPVP == (0 if user else SPVP)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (pte(L2_AT + PAGE_3, GUEST_FULL & ~R & ~W), "execute only"),
        (pte(L2_AT + PAGE_3, FULL), "U is missing"),
        (pte(L2_AT + PAGE_3, V | W | U | A | D), "reserved"),
        (pte(L2_AT + PAGE_3, GUEST_FULL) | 1 << 54, "reserved bit"),
        (pte(L2_AT + PAGE_3, GUEST_FULL) | N, "no such size"),
        (pte(L2_AT + PAGE_3, V), "a pointer at the last level"),
    ],
)
def test_every_fault_of_l1s_entry_is_one_exception(entry: int, what: str) -> None:
    nest = Nest()
    l1_page(nest, PAGE_3, entry)
    assert nest.agree(LOAD, 0x3000) == Trap(21, 0x3000, PAGE_3 >> 2), what


@pytest.mark.parametrize("access", EVERY)
def test_a_table_of_l1_outside_its_memory_is_an_access_fault(access: Access) -> None:
    nest = Nest()
    nest.word(nest.g_middle + 8, pte(RAM + RAM_SIZE, V))
    assert nest.agree(access, LARGE_PAGE << 12) == Trap(ACCESS_FAULTS[access], LARGE_PAGE << 12, 0, 0, gva=True)


def test_a_guest_physical_address_wider_than_l1s_mode() -> None:
    """L1's Sv39x4 has 41 bits; the shadow is Sv48x4, and would take it."""
    nest = Nest(SV48, SV39)
    nest.vs_map(3, 1 << 41)
    assert nest.agree(STORE, 0x3008) == Trap(23, 0x3008, (1 << 41 | 8) >> 2)


def test_a_devices_address_is_emulated() -> None:
    nest = Nest()
    l1_page(nest, PAGE_3, pte(0x1000, GUEST_FULL))
    _, outcome, _ = nest.attempt(LOAD, 0x3018)
    assert outcome == Outcome(Verdict.EMULATE, address=0x1018)


def test_a_table_of_l2_on_a_device_is_l2s_access_fault() -> None:
    nest = Nest()
    l1_page(nest, VS_LOW, pte(0x1000, GUEST_FULL))
    result, outcome, _ = nest.attempt(STORE, 0x3018)
    assert outcome is not None
    assert outcome.verdict is Verdict.INJECT
    assert exits.inject(outcome, exits.decode(trap(result))) == Trap(7, 0x3018)


def test_a_store_to_a_read_only_slot_is_l2s_access_fault() -> None:
    nest = Nest()
    nest.guest.slots.remove(nest.slot)
    nest.guest.slots.add(Slot(RAM, RAM_SIZE, read_only=True))
    assert reached(nest.access(LOAD, 0x3000)).address == AT + L2_AT + PAGE_3
    assert nest.access(STORE, 0x3000) == Trap(7, 0x3000)


def test_what_is_no_guest_page_fault_is_not_l0s() -> None:
    with pytest.raises(NestmmuError, match="load page fault"):
        exits.decode(Trap(13, 0))
    with pytest.raises(NestmmuError, match="INJECT"):
        exits.inject(Outcome(Verdict.REFLECT), exits.decode(Trap(21, 0)))


def test_the_low_bits_of_an_explicit_address_are_stvals() -> None:
    fault = exits.decode(Trap(21, 0x1237, 0x8000_1234 >> 2)).fault
    assert (fault.input_address, fault.access, fault.implicit) == (0x8000_1237, LOAD, False)
    fault = exits.decode(Trap(20, 0x1237, 0x8000_1238 >> 2, 0x3020)).fault
    assert (fault.input_address, fault.access, fault.implicit) == (0x8000_1238, STORE, True)


# Accessed and dirty


@pytest.mark.parametrize("machine", [ADUE, 0])
@pytest.mark.parametrize(("flags", "access", "needed"), [(D, LOAD, A), (A, STORE, D), (0, STORE, A | D), (0, FETCH, A)])
def test_l1_on_a_machine_with_svadu_or_svade(flags: int, access: Access, needed: int, machine: int) -> None:
    """With Svadu L0 sets the bits in L1's table, as L1's machine would; without, L1 gets the fault."""
    nest = Nest(machine=machine)
    entry = pte(L2_AT + PAGE_3, V | R | W | X | U | flags)
    l1_page(nest, PAGE_3, entry)
    found = nest.agree(access, 0x3000)
    if machine:
        assert reached(found).address == AT + L2_AT + PAGE_3
        assert nest.read_word(G_LOW + 8 * (PAGE_3 >> 12)) == entry | needed
    else:
        assert found == Trap(CODES[access], 0x3000, PAGE_3 >> 2)
        assert nest.read_word(G_LOW + 8 * (PAGE_3 >> 12)) == entry


def test_svade_for_l1_on_a_machine_with_svadu() -> None:
    nest = Nest(machine=ADUE, l1=0)
    l1_page(nest, PAGE_3, pte(L2_AT + PAGE_3, GUEST_FULL & ~D))
    assert reached(nest.agree(LOAD, 0x3000)).address == AT + L2_AT + PAGE_3
    assert nest.agree(STORE, 0x3000) == Trap(23, 0x3000, PAGE_3 >> 2)


@pytest.mark.parametrize("machine", [ADUE, 0])
def test_the_first_store_after_a_load_is_seen_by_l1(machine: int) -> None:
    """The shadow may not be written before L1's D is set, or a hart with Svadu would set D where L1 never looks."""
    nest = Nest(machine=machine)
    l1_page(nest, PAGE_3, pte(L2_AT + PAGE_3, GUEST_FULL & ~D))
    reached(nest.agree(LOAD, 0x3000))
    assert nest.shadow()[PAGE_3][2] & (W | D) == (0 if machine else W)
    nest.agree(STORE, 0x3000)
    assert nest.read_word(G_LOW + 8 * (PAGE_3 >> 12)) & D == (D if machine else 0)


@pytest.mark.parametrize("machine", [ADUE, 0])
def test_l0_sees_which_pages_were_used_and_written(machine: int) -> None:
    nest = Nest(machine=machine)
    address = L2_AT + PAGE_3
    reached(nest.agree(STORE, 0x3000))
    assert upkeep.age(nest.guest, address)
    assert upkeep.take_dirty(nest.guest, address)
    assert not upkeep.age(nest.guest, address)
    assert not upkeep.take_dirty(nest.guest, address)
    reached(nest.agree(LOAD, 0x3000))
    assert upkeep.is_young(nest.guest, address)
    assert not upkeep.take_dirty(nest.guest, address)
    reached(nest.agree(STORE, 0x3000))
    assert upkeep.take_dirty(nest.guest, address)


def test_l0s_own_write_to_l1s_table_is_in_the_dirty_log() -> None:
    nest = Nest(dirty_log=True)
    frame = G_LOW - RAM >> 12
    l1_page(nest, PAGE_3, pte(L2_AT + PAGE_3, GUEST_FULL & ~A))
    reached(nest.agree(LOAD, 0x3000))
    log = upkeep.dirty_log(nest.guest, nest.slot)
    assert log[frame >> 3] >> (frame & 7) & 1
    assert not upkeep.dirty_log(nest.guest, nest.slot).any()


def test_l1s_table_in_a_read_only_slot_is_an_access_fault_where_a_would_be_set() -> None:
    nest = Nest()
    entry = pte(L2_AT + PAGE_3, GUEST_FULL & ~A)
    l1_page(nest, PAGE_3, entry)
    nest.guest.slots.remove(nest.slot)
    nest.guest.slots.add(Slot(RAM, 0x10_0000, read_only=True))
    nest.guest.slots.add(Slot(L2_AT, RAM_SIZE - 0x10_0000))
    assert nest.access(LOAD, 0x3000) == Trap(5, 0x3000)
    assert nest.read_word(G_LOW + 8 * (PAGE_3 >> 12)) == entry


@pytest.mark.parametrize(("l1", "henvcfg", "sets"), [(ADUE, ADUE, True), (0, ADUE, False), (ADUE, 0, False)])
def test_l2s_own_bits_by_l1s_henvcfg(*, l1: int, henvcfg: int, sets: bool) -> None:
    """L1's henvcfg.ADUE is read-only zero where L1's machine has none, whatever the real one has."""
    nest = Nest(machine=ADUE, l1=l1, l2=henvcfg)
    nest.vs_map(3, PAGE_3, FULL & ~A)
    found = nest.agree(LOAD, 0x3000)
    assert isinstance(found, Trap) is not sets
    assert bool(nest.read_word(L2_AT + VS_LOW + 24) & A) is sets


# Rights and memory types


@pytest.mark.parametrize("mstatus", [0, MXR])
def test_l1s_mxr_acts_at_both_stages_of_l2(mstatus: int) -> None:
    nest = Nest()
    nest.registers.mstatus = mstatus
    nest.vs_map(3, PAGE_3, V | X | A | D)
    l1_page(nest, PAGE_3, pte(L2_AT + PAGE_3, V | X | U | A | D))
    found = nest.agree(LOAD, 0x3000)
    assert found == Trap(13, 0x3000) if not mstatus else reached(found).address == AT + L2_AT + PAGE_3
    nest.vs_map(3, PAGE_3)
    nest.fence(VVMA)
    assert isinstance(nest.agree(LOAD, 0x3000), Trap) is not bool(mstatus)


def test_hlv_of_l1_has_the_shadow_behind_it() -> None:
    nest = Nest()
    registers = nest.host.registers_of(nest.guest, nest.nested)
    registers.virtual = False
    found = trap(RiscvCpu(registers, nest.memory).as_guest(LOAD, 0x3000))
    assert (found.cause, found.tinst) == (21, 0x3000)
    reached(nest.agree(LOAD, 0x3000))
    assert reached(RiscvCpu(registers, nest.memory).as_guest(LOAD, 0x3008)).address == AT + L2_AT + PAGE_3 + 8


@pytest.mark.parametrize(("inner", "outer", "kind"), [(NC, IO, NC), (0, IO, IO), (IO, 0, IO), (0, 0, 0)])
def test_l1s_memory_type_overrides_l0s(inner: int, outer: int, kind: int) -> None:
    nest = Nest(machine=ADUE | PBMTE, l1=ADUE | PBMTE)
    l1_page(nest, PAGE_3, pte(L2_AT + PAGE_3, GUEST_FULL) | inner)
    address = L2_AT + PAGE_3
    entry = pte(AT + address, GUEST_FULL) | outer
    nest.guest.table.insert(address, entry, 3, nest.guest.table.prepare(address, 3))
    found = reached(nest.agree(LOAD, 0x3000))
    assert (found.pbmt, nest.shadow()[PAGE_3][2] & 3 << 61) == (kind, kind)


def test_l1_without_svpbmt() -> None:
    nest = Nest(machine=ADUE | PBMTE, l1=ADUE)
    l1_page(nest, PAGE_3, pte(L2_AT + PAGE_3, GUEST_FULL) | NC)
    assert nest.agree(LOAD, 0x3000) == Trap(21, 0x3000, PAGE_3 >> 2)


# Sizes


@pytest.mark.parametrize(("host_shift", "shift"), [(12, 12), (16, 12), (21, 21)])
def test_a_large_page_of_l1(host_shift: int, shift: int) -> None:
    """There is no table entry of 64 KiB in the shadow: L0 makes no use of Svnapot."""
    nest = Nest(page_shift=host_shift)
    nest.word(nest.g_middle + 8, pte(RAM + 0x20_0000, GUEST_FULL))
    found = reached(nest.agree(STORE, LARGE_PAGE << 12))
    assert found.address == AT + RAM + 0x20_0000
    target, found_shift, entry = nest.shadow()[LARGE]
    assert (target, found_shift, entry & RSW) == (AT + RAM + 0x20_0000, shift, 0x100)


def test_svnapot_of_l1() -> None:
    nest = Nest(page_shift=21)
    for index in range(16):
        nest.word(G_LOW + 8 * ((DATA >> 12) + index), pte(L2_AT + DATA | 0x8000, GUEST_FULL) | N)
    assert reached(nest.agree(LOAD, 0x3008)).address == AT + L2_AT + PAGE_3 + 8
    target, shift, entry = nest.shadow()[PAGE_3]
    assert (target, shift, entry & (N | RSW)) == (AT + L2_AT + PAGE_3, 12, 0x100)


# L1's fences


@pytest.mark.parametrize("address", [LARGE, LARGE + 0x1F_F000])
@pytest.mark.parametrize("space", [None, L2_VMID])
def test_a_fence_of_one_address_drops_all_of_l1s_page(address: int, space: int | None) -> None:
    """L1's page had 2 MiB and is gone; the shadow has its pages of 4 KiB, and the fence has no size."""
    nest = Nest()
    nest.word(nest.g_middle + 8, pte(RAM + 0x20_0000, GUEST_FULL))
    for page in (0, 7, 511):
        nest.vs_map(4, LARGE + (page << 12))
        nest.fence(VVMA)
        reached(nest.agree(LOAD, 0x4000))
    reached(nest.agree(LOAD, 0x3000))
    assert {LARGE, LARGE + 0x7000, LARGE + 0x1F_F000, PAGE_3} <= nest.shadow().keys()
    nest.word(nest.g_middle + 8, 0)
    nest.fence(GVMA, address, space)
    left = nest.shadow().keys()
    assert not {start for start in left if start >= LARGE}
    assert PAGE_3 in left
    nest.sound()
    assert trap(nest.agree(LOAD, 0x4FF8)).cause == 21


def test_a_fence_of_a_small_page_drops_that_page_alone() -> None:
    nest = Nest()
    for page in range(4):
        reached(nest.agree(LOAD, page << 12))
    before = nest.shadow().keys()
    nest.map(PAGE_3, L2_AT + DATA)
    nest.host.flushes.clear()
    nest.fence(GVMA, PAGE_3 + 0x123, L2_VMID)
    assert before - nest.shadow().keys() == {PAGE_3}
    flushes = [(one.tag, one.kind, one.address, one.page_shift) for one in nest.host.flushes]
    assert flushes == [(nest.nested.tag, FlushKind.PAGE, PAGE_3, 12)]
    assert reached(nest.agree(LOAD, 0x3000)).address == AT + L2_AT + DATA


@pytest.mark.parametrize("space", [None, L2_VMID])
def test_a_fence_of_a_vmid_or_of_all_empties_the_shadow(space: int | None) -> None:
    nest = Nest()
    reached(nest.agree(LOAD, 0x3000))
    nest.host.flushes.clear()
    nest.fence(GVMA, None, space)
    assert nest.shadow() == {}
    assert [(one.tag, one.kind) for one in nest.host.flushes] == [(nest.nested.tag, FlushKind.TAG)]
    reached(nest.agree(LOAD, 0x3000))


@pytest.mark.parametrize("address", [None, PAGE_3])
def test_a_fence_of_another_vmid_drops_nothing(address: int | None) -> None:
    nest = Nest()
    reached(nest.agree(LOAD, 0x3000))
    before = nest.shadow()
    nest.host.flushes.clear()
    nest.fence(GVMA, address, L2_VMID + 1)
    assert (nest.shadow(), nest.host.flushes) == (before, [])


@pytest.mark.parametrize(
    ("address", "space", "kind", "process"),
    [
        (None, None, FlushKind.ADDRESS_SPACE, None),
        (None, 3, FlushKind.ADDRESS_SPACE, 3),
        (0x3000, None, FlushKind.INPUT_PAGE, None),
        (0x3000, 3, FlushKind.INPUT_PAGE, 3),
    ],
)
def test_l1s_hfence_vvma_names_the_hardwares_vmid(
    address: int | None, space: int | None, kind: FlushKind, process: int | None
) -> None:
    nest = Nest()
    reached(nest.agree(LOAD, 0x3000))
    before = nest.shadow()
    nest.host.flushes.clear()
    nest.fence(VVMA, address, space)
    assert [(one.tag, one.kind, one.process) for one in nest.host.flushes] == [(nest.nested.tag, kind, process)]
    assert nest.shadow() == before


def test_what_l1_changed_is_seen_after_its_fence_and_not_before() -> None:
    nest = Nest()
    assert reached(nest.access(LOAD, 0x3000)).address == AT + L2_AT + PAGE_3
    nest.map(PAGE_3, L2_AT + DATA)
    assert reached(nest.access(LOAD, 0x3000)).address == AT + L2_AT + PAGE_3
    nest.fence(GVMA, PAGE_3)
    assert reached(nest.agree(LOAD, 0x3000)).address == AT + L2_AT + DATA


def test_an_sfence_of_l1_does_not_come_to_l0() -> None:
    nest = Nest()
    with pytest.raises(ValueError, match="hart's to do"):
        nest.host.fence(nest.guest, Fence(FenceKind.SFENCE_VMA))


# L1's hgatp


def test_each_vmid_has_a_shadow_of_its_own() -> None:
    nest = Nest()
    reached(nest.agree(LOAD, 0x3000))
    first = nest.nested
    nest.host.write_hgatp(nest.guest, SV39 << 60 | 9 << 44 | G_ROOT >> 12)
    nest.enter()
    assert nest.nested is not first
    assert nest.nested.tag != first.tag
    assert nest.shadow() == {}
    reached(nest.agree(LOAD, 0x3000))
    nest.fence(GVMA, None, L2_VMID)
    assert list(first.shadow.table.leaves()) == []
    assert PAGE_3 in nest.shadow()
    assert set(nest.guest.nested) == {AssignedTag(L2_VMID), AssignedTag(9)}


def test_another_root_for_a_vmid_leaves_nothing_of_the_first() -> None:
    nest = Nest()
    reached(nest.agree(LOAD, 0x3000))
    nest.host.write_hgatp(nest.guest, SV39 << 60 | L2_VMID << 44 | RAM + 0x3_0000 >> 12)
    nest.enter()
    assert nest.shadow() == {}
    assert trap(nest.agree(LOAD, 0x3000)) == Trap(21, 0x3000, VS_TABLES >> 2, 0x3000)


def test_bare() -> None:
    nest = Nest(g_mode=BARE)
    assert reached(nest.agree(STORE, 0x3008)).address == AT + L2_AT + PAGE_3 + 8
    assert nest.shadow()[L2_AT + PAGE_3][2] & RSW == RSW
    nest.fence(GVMA, 0x1000)
    assert nest.shadow() == {}


@pytest.mark.parametrize(
    ("value", "mode"), [(SV39, SV39), (SV48, SV48), (SV57, SV39), (BARE, BARE), (1, SV39), (15, SV39)]
)
def test_l1_is_offered_no_wider_mode_than_l0s_own(value: int, mode: int) -> None:
    nest = Nest(SV48, SV39)
    nest.host.write_hgatp(nest.guest, value << 60 | 7 << 44 | 0x80007)
    assert nest.registers.hgatp == mode << 60 | 7 << 44 | 0x80004


def test_a_write_to_hgatp_takes_each_field_by_itself() -> None:
    assert legal_hgatp((1 << 64) - 1, 0) == 0x3FFF << 44 | 0xFFF_FFFF_FFFC
    assert legal_hgatp(9 << 60 | 1 << 44 | 0x1234, 0) == 9 << 60 | 1 << 44 | 0x1234


# L1 itself, and the hosts's side


def test_l1_runs_behind_l0s_table() -> None:
    nest = Nest()
    nest.registers.virtual = False
    nest.registers.satp = SV39 << 60 | RAM + 0x2_0000 >> 12
    nest.word(RAM + 0x2_0000 + 8 * 2, pte(RAM & ~0x3FFF_FFFF, FULL & ~A))
    registers = nest.host.registers_of(nest.guest)
    assert registers.hgatp >> 44 & 0x3FFF == L1_TAG
    handler = HostFaultHandler(nest.guest)
    ends = []
    for _ in range(4):
        end = RiscvCpu(registers, nest.memory).access(STORE, RAM + 0x3_0000)
        ends.append(end)
        if isinstance(end, Trap):
            assert finish(handler.handle(exits.decode(end))).verdict is Verdict.RESUME
    assert [(trap(end).cause, end.tinst) for end in ends[:2] if isinstance(end, Trap)] == [(23, 0x3000), (23, 0)]
    assert reached(ends[-1]).address == AT + RAM + 0x3_0000
    assert nest.read_word(RAM + 0x2_0000 + 16) & A


def test_a_page_that_l0_takes_away_leaves_the_shadow() -> None:
    nest = Nest()
    reached(nest.agree(STORE, 0x3000))
    assert upkeep.unmap_range(nest.guest, L2_AT + PAGE_3, L2_AT + PAGE_3 + 0x1000) == 1
    assert PAGE_3 not in nest.shadow()
    nest.sound()
    assert reached(nest.agree(STORE, 0x3000)).address == AT + L2_AT + PAGE_3


def test_without_a_vmid_or_memory_l2_is_not_entered() -> None:
    nest = Nest()
    nest.host.write_hgatp(nest.guest, SV39 << 60 | 9 << 44 | G_ROOT >> 12)
    nest.host.tags.limit = 2
    assert finish(nest.host.enter(nest.guest, nest.guests)) is None
    nest.host.tags.limit, nest.allocator.limit = 9, nest.allocator._next
    assert finish(nest.host.enter(nest.guest, nest.guests)) is None


def test_nothing_is_left_when_all_is_released() -> None:
    nest = Nest()
    reached(nest.agree(LOAD, 0x3000))
    finish(nest.guests.release_all())
    nest.guest.table.clear_tree()
    assert set(nest.allocator.used) == {nest.guest.table.table.root.base}
    assert nest.host.tags.used == set()


def test_a_leaf_that_permits_nothing_is_no_pointer() -> None:
    form = table_format(SV39, g_stage=True)
    inner = Mapping(0x1000, 0x2000, 12, READ, accessed=True, dirty=True)
    outer = Mapping(0x2000, 0x3000, 12, EXECUTE, accessed=True, dirty=True)
    leaf = RiscvComposer(form, (11, 9, 9)).compose(inner, outer, LOAD)
    assert (leaf.permissions, leaf.entry) == (0, pte(0x3000, V | R | A))


def test_the_hooks_give_what_the_nest_is_made_of() -> None:
    plugins = Plugins()
    form = table_format(SV48, g_stage=True)
    assert isinstance(plugins.composer(form, (11, 9, 9, 9)), RiscvComposer)
    assert not isinstance(plugins.composer(table_format(SV48), (9, 9, 9, 9)), RiscvComposer)
    assert plugins.reflector("riscv").decode(Trap(21, 0, 2)).fault.input_address == 8
    flush = plugins.invalidator("riscv").decode(Fence(GVMA, 0x1000 >> 2, 4))[0]
    assert (flush.tag, flush.kind, flush.address) == (HardwareTag(4), FlushKind.PAGE, 0x1000)
