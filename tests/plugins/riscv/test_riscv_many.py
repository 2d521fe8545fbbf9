"""Many accesses of a hart at once are the same accesses one by one: recorded ones, and random tables in every mode."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestmmu.access import Access
from nestmmu.batch import translate_many
from nestmmu.errors import NestmmuError, TooLargeError
from nestmmu.extract import extract
from nestmmu.faults import Fault
from nestmmu.formats import AccessedDirty
from nestmmu.memory import JournaledMemory, LazyMemory, PhysicalMemory
from nestmmu.plugins import Plugins
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.slots import Slot
from nestmmu.translations import FaultSummary
from nestmmu.vectors import read_vectors
from nestmmu_riscv.cpu import RiscvCpu
from nestmmu_riscv.csrs import (
    ENVCFG_ADUE,
    ENVCFG_PBMTE,
    MODES,
    STATUS_MXR,
    STATUS_SUM,
    SV39,
    SV48,
    Registers,
)
from nestmmu_riscv.formats import NAPOT_64K, PBMT_NC, A, D, G, N, R, U, V, W, X, root_bits, table_format

if TYPE_CHECKING:
    from pathlib import Path

    from nestmmu.translations import Translations
    from nestmmu.vectors import RecordedAccess

MODE_SHIFT = 60
PAGE = 4096
MEMORY = 1 << 16
ROOT, G_ROOT = 0x4000, 0x8000
"""Sixteen pages of memory: tables lie anywhere in it, so that any pointer may lead to one."""


def one_by_one(cpu: RiscvCpu, access: Access, address: int) -> tuple[object, ...]:
    """Return (end, page shift, permissions, fault) of an access on a copy of the hart's memory."""
    memory = LazyMemory.over(cpu.memory.physical)
    again = RiscvCpu(cpu.registers, memory, ram=cpu.ram, napot=cpu.napot, silent=cpu.silent)
    try:
        found = again.translated(access, address, again.rights())
    except Fault as fault:
        return fault.input_address, 0, 0, FaultSummary(fault.kind, fault.stage, fault.level, implicit=fault.implicit)
    return found.address, found.page_shift, found.permissions, None


def rows(found: Translations) -> list[tuple[object, ...]]:
    columns = (found.outputs.tolist(), found.shifts.tolist(), found.permissions.tolist())
    return [(*row, found.fault(index)) for index, row in enumerate(zip(*columns, strict=True))]


def test_recorded_accesses_end_where_they_did(data: Path) -> None:
    vectors = read_vectors(data / "riscv_h.json.gz")
    base, size = vectors.options["ram_base"], vectors.options["ram_size"]
    assert isinstance(base, int)
    assert isinstance(size, int)
    reached = faulted = 0
    for scene in vectors.scenes:
        memory = JournaledMemory()
        for address, word in scene.words:
            memory.store(address, word, 8, "little")
        modes: dict[tuple[bool, Access], list[RecordedAccess]] = defaultdict(list)
        for one in scene.accesses:
            modes[bool(one.fields.get("user")), one.access].append(one)
        for (user, access), accesses in modes.items():
            registers = Registers.from_recorded(scene.registers)
            registers.user = user
            cpu = RiscvCpu(registers, memory, ram=Slot(base, size))
            found = translate_many(cpu, [one.ea for one in accesses], access)
            assert rows(found) == [one_by_one(cpu, access, one.ea) for one in accesses]
            for index, one in enumerate(accesses):
                if "ra" in one.fields:
                    assert found.fault(index) is None
                    assert int(found.outputs[index]) == one.fields["ra"]
                    reached += 1
                else:
                    faulted += found.fault(index) is not None
    assert reached > 500
    assert faulted > 1000


def entry(rng: np.random.Generator) -> int:
    """Return a random entry: a pointer, a leaf, or any low bits."""
    page = int(rng.choice([*range(MEMORY // PAGE), 8, 1 << 18, (1 << 44) - 1]))
    kind = rng.integers(4)
    if kind == 0:
        return page << 10 | V
    if kind == 1:
        return page << 10 | int(rng.integers(1024))
    rights = int(rng.choice([R, R | W, R | X, X, R | W | X, W]))
    flags = int(rng.choice([A | D, A | D | U, A, U, 0, A | D | U | G]))
    return page << 10 | V | rights | flags | [0, 0, 0, N, PBMT_NC, 1 << 55][rng.integers(6)]


def filled(seed: int) -> PhysicalMemory:
    """Return a memory of tables with random entries at the indices that the addresses drawn have."""
    memory, rng = PhysicalMemory(MEMORY), np.random.default_rng(seed)
    for table in range(MEMORY // PAGE):
        for index in (0, 1, 16, 17, 511):
            memory.store(table * PAGE + 8 * index, entry(rng), 8, "little")
    return memory


SEEDS = st.integers(0, (1 << 32) - 1)
INDEX = st.sampled_from([0, 0, 1, 16, 17, 511])


def drawn_addresses(data: st.DataObject, levels: int) -> list[int]:
    """Draw addresses, mostly canonical."""
    found = []
    for _ in range(data.draw(st.integers(1, 8))):
        address = data.draw(st.integers(0, PAGE - 1))
        for level in range(levels):
            address |= data.draw(INDEX) << 12 + 9 * level
        top = 12 + 9 * levels
        if address >> top - 1:
            address |= (1 << 64) - (1 << top)
        if data.draw(st.integers(0, 7)) == 0:
            address ^= 1 << data.draw(st.integers(top, 63))
        found.append(address)
    return found


@settings(max_examples=120)
@given(
    data=st.data(),
    seed=SEEDS,
    mode=st.sampled_from([SV39, SV48]),
    g_mode=st.sampled_from([0, SV39, SV48]),
    access=st.sampled_from(list(Access)),
)
def test_random_tables(data: st.DataObject, seed: int, mode: int, g_mode: int, access: Access) -> None:
    memory = filled(seed)
    flags = st.booleans()
    virtual = data.draw(flags)
    status = (STATUS_SUM if data.draw(flags) else 0) | (STATUS_MXR if data.draw(flags) else 0)
    satp = mode << MODE_SHIFT | ROOT >> 12 if data.draw(st.integers(0, 5)) else 0
    registers = Registers(
        satp=satp, vsatp=satp, hgatp=g_mode << MODE_SHIFT | G_ROOT >> 12, mstatus=status,
        vsstatus=(STATUS_SUM if data.draw(flags) else 0) | (STATUS_MXR if data.draw(flags) else 0),
        menvcfg=data.draw(st.sampled_from([0, ENVCFG_ADUE, ENVCFG_PBMTE, ENVCFG_ADUE | ENVCFG_PBMTE])),
        henvcfg=data.draw(st.sampled_from([0, ENVCFG_ADUE | ENVCFG_PBMTE])),
        virtual=virtual, user=data.draw(flags),
    )  # fmt: skip
    ram = data.draw(st.sampled_from([None, Slot(0, MEMORY), Slot(0x2000, MEMORY - 0x2000)]))
    cpu = RiscvCpu(registers, memory, ram=ram, napot=data.draw(flags))
    addresses = drawn_addresses(data, {SV39: 3, SV48: 4}[mode])
    before = memory.read(0, MEMORY)
    found = translate_many(cpu, addresses, access)
    assert rows(found) == [one_by_one(cpu, access, address) for address in addresses]
    assert memory.read(0, MEMORY) == before
    translate_many(cpu, addresses[:1], access, update=True)
    after = memory.read(0, MEMORY)
    memory.write(0, before)
    cpu.access(access, addresses[0])
    assert memory.read(0, MEMORY) == after


@settings(max_examples=60)
@given(
    data=st.data(),
    seed=SEEDS,
    mode=st.sampled_from(list(MODES)),
    g_stage=st.booleans(),
    policy=st.sampled_from(list(AccessedDirty)),
)
def test_tables_by_themselves(
    data: st.DataObject, seed: int, mode: int, policy: AccessedDirty, *, g_stage: bool
) -> None:
    memory = filled(seed)
    form = table_format(mode, g_stage=g_stage)
    table = RadixTable(RadixWalker(form, memory, "table", policy), Root(ROOT, root_bits(form)))
    addresses = drawn_addresses(data, len(form.levels))
    addresses += [form.canonical(address) for address in addresses]
    before = memory.read(0, MEMORY)
    for access in (*Access, None):
        found = rows(translate_many(table, addresses, access))
        for address, row in zip(addresses, found, strict=True):
            try:
                leaf = table.lookup(address) if access is None else table.translate(address, access)
                expected: tuple[object, ...] = (leaf.output_address, leaf.page_shift, leaf.permissions, None)
            except Fault as fault:
                expected = address, 0, 0, FaultSummary(fault.kind, fault.stage, fault.level, implicit=False)
            assert row == expected
            memory.write(0, before)


@settings(max_examples=60)
@given(data=st.data(), seed=SEEDS, mode=st.sampled_from([SV39, SV48]), g_stage=st.booleans())
def test_whole_tables(data: st.DataObject, seed: int, mode: int, *, g_stage: bool) -> None:
    """Each leaf is what a walk of its first and of its last address finds; what is left out is not mapped."""
    memory = filled(seed)
    form = table_format(mode, g_stage=g_stage)
    table = RadixTable(RadixWalker(form, memory, "table"), Root(ROOT, root_bits(form)))
    try:
        found = extract(table)
    except TooLargeError:
        return
    found.extents.check()
    for index in (
        data.draw(st.lists(st.integers(0, max(len(found.extents) - 1, 0)), max_size=30)) if len(found.extents) else []
    ):
        start, length, target = (int(getattr(found.extents, name)[index]) for name in ("start", "length", "target"))
        for offset in (0, length - 1):
            leaf = table.lookup(start + offset)
            assert leaf.output_address == target + offset
            assert leaf.permissions == found.extents.permissions[index]
    for address in drawn_addresses(data, len(form.levels)):
        try:
            table.lookup(address)
        except Fault:
            assert int(found.extents.find(np.array([address], np.uint64))[0]) == -1
        else:
            assert int(found.extents.find(np.array([address], np.uint64))[0]) >= 0


def test_a_page_of_64_kib() -> None:
    memory = PhysicalMemory(MEMORY)
    memory.store(ROOT, 0x1000 >> 2 | V, 8, "little")
    memory.store(0x1000, 0x2000 >> 2 | V, 8, "little")
    for index in range(16, 32):
        memory.store(0x2000 + 8 * index, 0x30000 >> 2 | NAPOT_64K | N | R | V | A, 8, "little")
    table = RadixTable(RadixWalker(table_format(SV39), memory, "table"), Root(ROOT, 9))
    found = translate_many(table, [0x10000, 0x1FFFF, 0x15008], Access.LOAD)
    assert found.outputs.tolist() == [0x30000, 0x3FFFF, 0x35008]
    assert found.shifts.tolist() == [16] * 3
    leaves = extract(table).extents
    assert leaves.start.tolist() == list(range(0x10000, 0x20000, PAGE))
    assert leaves.target.tolist() == list(range(0x30000, 0x40000, PAGE))


def test_harts_of_plugins_and_what_cannot_be() -> None:
    memory = PhysicalMemory(MEMORY)
    cpu = Plugins().cpu("riscv", {"satp": 0, "virtual": 0}, memory, AccessedDirty.UPDATE)
    assert translate_many(cpu, [0x123], Access.LOAD).outputs.tolist() == [0x123]
    with pytest.raises(NestmmuError, match="name one"):
        translate_many(cpu, [0], None)

    class Own(RadixWalker):
        pass

    with pytest.raises(NestmmuError, match="one access at a time"):
        translate_many(RiscvCpu(Registers(), memory, make_walker=Own), [0], Access.LOAD)
