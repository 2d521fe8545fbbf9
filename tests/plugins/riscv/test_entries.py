"""Entries: what is reserved where, superpages, Svnapot, Svpbmt, and A and D by Svadu or Svade, at either stage."""

from __future__ import annotations

import pytest
from riscv_words import (
    ADUE,
    FETCH,
    GLEAF,
    GUEST,
    IO,
    KINDS,
    LEAF,
    LOAD,
    NC,
    PBMTE,
    RWX,
    STORE,
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
)

from nestmmu.access import Access
from nestmmu_riscv.cpu import Reached

VA, GPA = 0x12_3456_7000, 0x8123_4000
KIB64 = 1 << 16

both_stages = pytest.mark.parametrize("stage", ["vs", "g"])


def one_stage(stage: str, mode: int = 8) -> tuple[Machine, int, int]:
    """Return a machine with one stage, the address that it translates here, and the bits of a good leaf."""
    return (Machine(vs=mode, g=0), VA, LEAF) if stage == "vs" else (Machine(vs=0, g=mode), GPA, GLEAF)


def faults(made: Machine, address: int, stage: str) -> bool:
    """Tell whether every access ends in the stage's own fault; else all must pass."""
    causes = [made.cpu.access(access, address) for access in KINDS]
    ended = [isinstance(one, Reached) for one in causes]
    assert all(ended) or not any(ended)
    if any(ended):
        return False
    assert [one.cause for one in causes] == ([13, 15, 12] if stage == "vs" else [21, 23, 20])  # type: ignore[union-attr]
    return True


def write(made: Machine, address: int, entry: int, level: int = 0) -> None:
    """Write an entry of the one tree."""
    chosen = made.vs or made.g
    assert chosen is not None
    chosen.put(address, entry, level)


@both_stages
@pytest.mark.parametrize("bit", range(54, 61))
@pytest.mark.parametrize("level", [0, 1, 2])
def test_bits_60_to_54_are_reserved_in_every_leaf(stage: str, bit: int, level: int) -> None:
    made, _, leaf = one_stage(stage)
    write(made, 0, pte(0x8000_0000, leaf), level)
    assert not faults(made, 0x123, stage)
    write(made, 0, pte(0x8000_0000, leaf) | 1 << bit, level)
    assert faults(made, 0x123, stage)


@both_stages
@pytest.mark.parametrize("rights", [W, W | X])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_write_without_read_is_reserved(stage: str, rights: int, level: int) -> None:
    made, address, leaf = one_stage(stage)
    write(made, address, pte(0x8000_0000, leaf & ~RWX | rights), level)
    assert faults(made, address, stage)


@both_stages
@pytest.mark.parametrize("bit", [U, A, D, NC, IO, N, *(1 << bit for bit in range(54, 61))])
def test_what_only_a_leaf_may_have_is_reserved_in_a_directory(stage: str, bit: int) -> None:
    for level in (1, 2):
        made, address, leaf = one_stage(stage)
        write(made, address, pte(GPA, leaf))
        chosen = made.vs or made.g
        assert chosen is not None
        at = chosen.slot(address, level)
        chosen.write(at, chosen.read(at) | bit)
        assert faults(made, address, stage)


@both_stages
def test_g_and_the_bits_of_software_are_no_matter_in_a_directory(stage: str) -> None:
    made, address, leaf = one_stage(stage)
    write(made, address, pte(GPA, leaf | 3 << 8))
    chosen = made.vs or made.g
    assert chosen is not None
    at = chosen.slot(address, 1)
    chosen.write(at, chosen.read(at) | G | 3 << 8)
    assert not faults(made, address, stage)


@both_stages
def test_an_entry_of_the_last_level_has_to_be_a_leaf(stage: str) -> None:
    made, address, _ = one_stage(stage)
    write(made, address, pte(GPA, V))
    assert faults(made, address, stage)


@both_stages
@pytest.mark.parametrize("level", [1, 2])
def test_a_superpage_keeps_the_low_bits_of_the_address(stage: str, level: int) -> None:
    made, _, leaf = one_stage(stage)
    write(made, 0, pte(0x8000_0000, leaf), level)
    inside = 0x0123_4567 & (1 << 12 + 9 * level) - 1
    result = made.cpu.access(LOAD, inside)
    assert isinstance(result, Reached)
    assert (result.address, result.page_shift) == (0x8000_0000 + inside, 12 + 9 * level)


@both_stages
@pytest.mark.parametrize("level", [1, 2])
def test_a_superpage_that_is_not_aligned_faults(stage: str, level: int) -> None:
    for bit in range(12, 12 + 9 * level):
        made, address, leaf = one_stage(stage)
        write(made, address, pte(0x8000_0000 | 1 << bit, leaf), level)
        assert faults(made, address, stage)


@pytest.mark.parametrize("vs_level", [0, 1, 2])
@pytest.mark.parametrize("g_level", [0, 1])
def test_a_translation_holds_over_the_smaller_of_the_two_pages(vs_level: int, g_level: int) -> None:
    made = Machine()
    made.vs_map(0x20_0000_0000, 0x8000_0000, LEAF, vs_level)
    guest = 0x8000_0000 + (0x80_0000 if vs_level == 2 else 0)
    made.g_map(guest, GLEAF, g_level)
    result = made.access(LOAD, 0x20_0000_0123 + guest - 0x8000_0000)
    assert isinstance(result, Reached)
    assert result.address == guest + GUEST + 0x123
    assert (result.input_shift, result.guest_shift) == (12 + 9 * vs_level, 12 + 9 * g_level)
    assert result.page_shift == min(result.input_shift, result.guest_shift)


@both_stages
def test_svnapot_makes_sixteen_entries_one_page(stage: str) -> None:
    made, address, leaf = one_stage(stage)
    start, target = address & -KIB64, GPA & -KIB64
    for page in range(16):
        write(made, start + 0x1000 * page, pte(target + 0x8000, leaf) | N)
    for page in range(16):
        result = made.cpu.access(LOAD, start + 0x1000 * page + 0x21)
        assert isinstance(result, Reached)
        assert (result.address, result.page_shift) == (target + 0x1000 * page + 0x21, 16)


@both_stages
@pytest.mark.parametrize("low", [low for low in range(16) if low != 8])
def test_svnapot_has_no_other_size(stage: str, low: int) -> None:
    made, address, leaf = one_stage(stage)
    write(made, address, pte((GPA & -KIB64) + 0x1000 * low, leaf) | N)
    assert faults(made, address, stage)


@both_stages
@pytest.mark.parametrize("level", [1, 2])
def test_svnapot_is_of_the_last_level_alone(stage: str, level: int) -> None:
    made, address, leaf = one_stage(stage)
    write(made, address, pte(0x8000_8000, leaf) | N, level)
    assert faults(made, address, stage)
    write(made, address, pte(0x8000_0000, leaf) | N, level)
    assert faults(made, address, stage)


@both_stages
def test_without_svnapot_n_is_reserved(stage: str) -> None:
    made, address, leaf = one_stage(stage)
    write(made, address, pte((GPA & -KIB64) + 0x8000, leaf) | N)
    assert not faults(made, address, stage)
    made.cpu.napot = False
    made.cpu._tables.clear()
    assert faults(made, address, stage)


@both_stages
@pytest.mark.parametrize("memory_type", [NC, IO, NC | IO])
def test_pbmt_is_reserved_without_svpbmt_and_its_last_value_always(stage: str, memory_type: int) -> None:
    made, address, leaf = one_stage(stage)
    write(made, address, pte(GPA, leaf) | memory_type)
    assert faults(made, address, stage) == (memory_type == NC | IO)
    made.registers.menvcfg = ADUE
    assert faults(made, address, stage)
    made.registers.menvcfg = ADUE | PBMTE
    made.registers.henvcfg = ADUE
    assert faults(made, address, stage) == (stage == "vs" or memory_type == NC | IO)


@pytest.mark.parametrize("g_type", [0, NC, IO])
@pytest.mark.parametrize("vs_type", [0, NC, IO])
def test_the_memory_type_of_the_vs_stage_overrides_that_of_the_g_stage(vs_type: int, g_type: int) -> None:
    made = Machine()
    made.vs_map(VA, GPA, LEAF | vs_type)
    made.g_map(GPA, GLEAF | g_type)
    result = made.access(LOAD, VA)
    assert isinstance(result, Reached)
    assert result.pbmt == (vs_type or g_type)


@pytest.mark.parametrize("access", KINDS, ids=lambda kind: kind.label)
@pytest.mark.parametrize("flags", [0, A, D, A | D])
@both_stages
def test_svadu_sets_what_the_access_needs(stage: str, access: Access, flags: int) -> None:
    made, address, leaf = one_stage(stage)
    write(made, address, pte(GPA, leaf & ~(A | D) | flags))
    assert isinstance(made.cpu.access(access, address), Reached)
    chosen = made.vs or made.g
    assert chosen is not None
    needed = A | D if access is STORE else A
    assert chosen.read(chosen.slot(address)) == pte(GPA, leaf & ~(A | D) | flags | needed)


@pytest.mark.parametrize("access", KINDS, ids=lambda kind: kind.label)
@pytest.mark.parametrize("flags", [0, A, D, A | D])
@both_stages
def test_svade_faults_where_a_bit_is_missing(stage: str, access: Access, flags: int) -> None:
    made, address, leaf = one_stage(stage)
    entry = pte(GPA, leaf & ~(A | D) | flags)
    write(made, address, entry)
    made.registers.menvcfg = PBMTE
    needed = A | D if access is STORE else A
    result = made.cpu.access(access, address)
    if flags & needed == needed:
        assert isinstance(result, Reached)
    else:
        codes = {LOAD: 13, STORE: 15, FETCH: 12} if stage == "vs" else {LOAD: 21, STORE: 23, FETCH: 20}
        assert made.trap(access, address).cause == codes[access]
    chosen = made.vs or made.g
    assert chosen is not None
    assert chosen.read(chosen.slot(address)) == entry


@pytest.mark.parametrize(
    ("menvcfg", "henvcfg", "vs_faults", "g_faults"),
    [(ADUE, ADUE, False, False), (ADUE, 0, True, False), (0, ADUE, True, True), (0, 0, True, True)],
)
def test_menvcfg_rules_the_g_stage_and_both_rule_the_vs_stage(
    menvcfg: int, henvcfg: int, vs_faults: bool, g_faults: bool
) -> None:
    for vs_flags, g_flags, faulting, cause in ((0, A, vs_faults, 13), (A, 0, g_faults, 21)):
        made = Machine()
        made.vs_map(VA, GPA, V | R | vs_flags)
        made.g_map(GPA, V | R | U | g_flags)
        made.registers.menvcfg, made.registers.henvcfg = menvcfg, henvcfg
        result = made.access(LOAD, VA)
        assert isinstance(result, Reached) != faulting
        if faulting:
            assert made.trap(LOAD, VA).cause == cause


def test_a_is_set_in_the_vs_stage_although_the_g_stage_faults_afterwards() -> None:
    made = Machine()
    at = made.vs_map(VA, GPA, LEAF & ~(A | D))
    assert made.trap(STORE, VA).cause == 23
    assert made.vs is not None
    assert made.vs.read(at) == pte(GPA, LEAF)


def test_no_bit_is_set_where_the_access_is_not_permitted() -> None:
    made = Machine()
    at = made.vs_map(VA, GPA, V | R)
    made.g_map(GPA)
    assert made.trap(STORE, VA).cause == 15
    assert made.vs is not None
    assert made.vs.read(at) == pte(GPA, V | R)


def test_a_probe_sets_no_bit_and_says_what_an_access_would() -> None:
    made = Machine()
    at = made.vs_map(VA, GPA, V | RWX)
    below = made.g_map(GPA, V | RWX | U)
    before = made.cpu.probe(STORE, VA)
    assert made.vs is not None
    assert made.g is not None
    assert (made.vs.read(at), made.g.read(below)) == (pte(GPA, V | RWX), pte(GPA + GUEST, V | RWX | U))
    assert made.access(STORE, VA) == before


def test_pages_of_every_size_of_sv57x4() -> None:
    for level in range(5):
        made = Machine(vs=0, g=10)
        made.g_map(0, GLEAF, level, to=0 if level > 2 else 0x8000_0000 & -(1 << 12 + 9 * level))
        probe = {0: 0x8000_0FFF, 1: 0x801F_FFFF, 2: 0x9FFF_FFFF}.get(level, 0x9FFF_FFFF)
        address = probe if level > 2 else probe - 0x8000_0000
        result = made.access(LOAD, address)
        assert isinstance(result, Reached)
        assert (result.address, result.page_shift) == (probe, 12 + 9 * level)
