"""Many accesses of a hash CPU at once are the same accesses one by one: recorded ones, and random tables."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestmmu.access import Access
from nestmmu.batch import translate_many
from nestmmu.errors import NestmmuError
from nestmmu.faults import FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.translations import FaultSummary
from nestmmu.vectors import Scene, read_vectors
from nestmmu_ppc64_book3s.interrupts import (
    DSISR_KEYFAULT,
    DSISR_NOEXEC_OR_G,
    DSISR_NOHPTE,
    DSISR_PROTFAULT,
    VECTOR_DSEG,
    VECTOR_HDSI,
    VECTOR_HISI,
    VECTOR_ISEG,
    VECTOR_ISI,
    Interrupt,
)
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_HV, MSR_IR, MSR_PR, MSR_SF, Registers, machine_state
from nestmmu_ppc64_hpt.cpu import VECTOR_MACHINE_CHECK, Power9Hash
from nestmmu_ppc64_hpt.hashing import SLB_KP, SLB_KS, SLB_N, make_v, vsid_word
from nestmmu_ppc64_hpt.hpte import R_C, R_G, R_N, R_PP0, R_R, key_bits
from nestmmu_ppc64_hpt.many import BOTH, KEYS, SEGMENTS
from nestmmu_ppc64_hpt.pages import SHIFT_4K, SHIFT_16M, SHIFT_64K, lp_bits
from nestmmu_ppc64_hpt.slb import ESID_V, Slb
from nestmmu_ppc64_hpt.table import STAGE, HashTable

if TYPE_CHECKING:
    from pathlib import Path

    from nestmmu.translations import Translations
    from nestmmu.vectors import RecordedAccess

SEGMENT_VECTORS = {VECTOR_DSEG, VECTOR_ISEG}
FETCHES = {VECTOR_ISI, VECTOR_HISI}
PTCR, BASE, ORDER = 0x10000, 0x40000, 18


def expected_fault(result: Interrupt, *, no_execute: bool = False) -> FaultSummary:
    """Return what a batch has to say where hardware takes an interrupt: by its vector, and by what it wrote why."""
    if result.vector in SEGMENT_VECTORS:
        return FaultSummary(FaultKind.INPUT_RANGE, SEGMENTS, None, implicit=False)
    if result.vector == VECTOR_MACHINE_CHECK:
        return FaultSummary(FaultKind.UNREADABLE, STAGE, None, implicit=False)
    cause = result.get("srr1" if result.vector == VECTOR_ISI else "hdsisr" if result.vector == VECTOR_HDSI else "dsisr")
    if result.vector == VECTOR_HISI:
        cause = result.get("hsrr1")
    if cause & DSISR_NOHPTE:
        return FaultSummary(FaultKind.NOT_PRESENT, STAGE, None, implicit=False)
    other = cause & DSISR_PROTFAULT or (result.vector in FETCHES and cause & DSISR_NOEXEC_OR_G)
    stage = (BOTH if other else KEYS) if cause & DSISR_KEYFAULT else STAGE
    return FaultSummary(FaultKind.PERMISSION, SEGMENTS if no_execute else stage, None, implicit=False)


def compare(cpu: Power9Hash, addresses: list[int], access: Access, found: Translations) -> int:
    """Compare a batch with the same accesses one by one; return how many ended in an address."""
    reached = 0
    for index, address in enumerate(addresses):
        result = cpu.probe(access, address)
        fault = found.fault(index)
        if not isinstance(result, Interrupt):
            reached += 1
            assert fault is None, f"{address:#x}: {fault}"
            got = (int(found.outputs[index]), int(found.shifts[index]), int(found.permissions[index]))
            assert got == (result.address, result.page_shift, result.permissions), hex(address)
            continue
        relocated = cpu.registers.msr & (MSR_IR if access is Access.FETCH else MSR_DR)
        segment = cpu.slb.lookup(address) if relocated else None
        no_execute = access is Access.FETCH and segment is not None and segment.no_execute
        assert fault == expected_fault(result, no_execute=no_execute), hex(address)
        assert int(found.outputs[index]) == address
        assert found.permissions[index] == found.shifts[index] == 0
    return reached


def memory_of(scene: Scene) -> PhysicalMemory:
    memory = PhysicalMemory()
    for address, word in scene.words:
        memory.store(address, word, 8, "big")
    return memory


def test_recorded_accesses_end_where_they_did(data: Path) -> None:
    vectors = read_vectors(data / "ppc64_hpt.json.gz")
    reached = faulted = 0
    for scene in vectors.scenes:
        memory = memory_of(scene)
        slb = Slb(cast("list[tuple[int, int]]", scene.extra.get("slb", [])))
        modes: dict[tuple[bool, bool, bool, Access], list[RecordedAccess]] = defaultdict(list)
        for one in scene.accesses:
            hv, pr, real = (bool(one.fields.get(name)) for name in ("hv", "pr", "real"))
            modes[hv, pr, real, one.access].append(one)
        for (hv, pr, real, access), accesses in modes.items():
            registers = Registers.from_recorded(scene.registers)
            registers.msr = machine_state(hv=hv, pr=pr, real=real, fetch=access is Access.FETCH)
            cpu = Power9Hash(registers, memory, slb, real_mode_keys=True)
            found = translate_many(cpu, [one.ea for one in accesses], access)
            compare(cpu, [one.ea for one in accesses], access, found)
            for index, one in enumerate(accesses):
                fault = found.fault(index)
                if "ra" in one.fields:
                    assert fault is None
                    assert int(found.outputs[index]) == one.fields["ra"]
                    reached += 1
                elif one.fields["vector"] not in {*FETCHES, VECTOR_ISEG} or access is Access.FETCH:
                    assert fault is not None
                    faulted += 1
                # else: the instruction of a load or store could not be fetched, which a batch does not do
    assert reached > 1000
    assert faulted > 500


SEGMENTS_USED = [
    (0x0000_0000, vsid_word(0x1234, 28, SHIFT_4K)),
    (0x1000_0000, vsid_word(0x77, 28, SHIFT_64K, SLB_KS)),
    (0x2000_0000, vsid_word(0x3FF_FFFF, 28, SHIFT_4K, SLB_N | SLB_KP)),
    (1 << 40, vsid_word(0x99, 40, SHIFT_16M, SLB_KS | SLB_KP)),
    (2 << 40, vsid_word(0xABCD, 40, SHIFT_4K)),
]
PAIRS = [
    (SHIFT_4K, SHIFT_4K),
    (SHIFT_4K, SHIFT_64K),
    (SHIFT_64K, SHIFT_64K),
    (SHIFT_64K, SHIFT_16M),
    (SHIFT_16M, SHIFT_16M),
]


@st.composite
def entries(draw: st.DrawFn) -> tuple[int, int, int, bool, int]:
    """Draw (segment, page in it, doubleword 1 without its page size, secondary, slot in the PTEG)."""
    pp = draw(st.sampled_from([0, 1, 2, 3, R_PP0 | 2, R_PP0]))
    bits = pp | draw(st.sampled_from([0, R_N, R_G])) | draw(st.sampled_from([0, R_R, R_R | R_C]))
    bits |= key_bits(draw(st.integers(0, 3))) | draw(st.integers(0, 63)) << 24
    return (
        draw(st.integers(0, len(SEGMENTS_USED) - 1)), draw(st.integers(0, 40)), bits,
        draw(st.booleans()), draw(st.integers(0, 7)),
    )  # fmt: skip


@settings(max_examples=60)
@given(data=st.data(), rows=st.lists(entries(), min_size=1, max_size=60), access=st.sampled_from(list(Access)))
def test_random_tables(data: st.DataObject, rows: list[tuple[int, int, int, bool, int]], access: Access) -> None:
    memory = PhysicalMemory()
    memory.store(PTCR, BASE | 0 << 5, 8, "big")
    table = HashTable(memory, BASE, ORDER)
    slb = Slb([(esid | ESID_V, word) for esid, word in SEGMENTS_USED])
    addresses = []
    for number, index, bits, secondary, slot in rows:
        segment = slb.lookup(SEGMENTS_USED[number][0])
        assert segment is not None
        address = SEGMENTS_USED[number][0] + (index << segment.base_shift)
        addresses += [address, address + data.draw(st.integers(0, (1 << segment.base_shift) - 1))]
        base, actual = data.draw(st.sampled_from([pair for pair in PAIRS if pair[0] == segment.base_shift]))
        large, penc = lp_bits(base, actual)
        v = make_v(segment, address, large=bool(large), secondary=secondary)
        if data.draw(st.integers(0, 5)) == 0:
            penc ^= 1 << 12
        first = table.candidates(segment, address)[secondary]
        table.write(first + slot, v, bits >> actual << actual | bits & 0xFFF | bits & (0xF << 60) | penc)
    addresses += data.draw(st.lists(st.integers(0, (1 << 42) - 1), max_size=10))
    registers = Registers(ptcr=PTCR, amr=data.draw(st.sampled_from([0, 0x4 << 60, 0xB << 60])), iamr=0x1 << 60)
    registers.msr = (
        MSR_SF
        | data.draw(st.sampled_from([0, MSR_PR, MSR_HV]))
        | data.draw(st.sampled_from([MSR_IR | MSR_DR, MSR_IR | MSR_DR, 0]))
    )
    cpu = Power9Hash(registers, memory, slb)
    before = memory.read(BASE, 1 << ORDER)
    found = translate_many(cpu, addresses, access)
    compare(cpu, addresses, access, found)
    assert memory.read(BASE, 1 << ORDER) == before
    translate_many(cpu, addresses, access, update=True)
    after = memory.read(BASE, 1 << ORDER)
    memory.write(BASE, before)
    for address in addresses:
        cpu.access(access, address)
    assert memory.read(BASE, 1 << ORDER) == after


def test_more_addresses_than_a_chunk() -> None:
    memory = PhysicalMemory()
    memory.store(PTCR, BASE, 8, "big")
    table = HashTable(memory, BASE, ORDER)
    slb = Slb([(ESID_V, vsid_word(5, 28, SHIFT_4K))])
    segment = slb.lookup(0)
    assert segment is not None
    for number in range(0, 512, 2):
        first, _ = table.candidates(segment, number << 12)
        slot = table.free_slot(first)
        assert slot is not None
        table.write(slot, make_v(segment, number << 12, large=False), (number + 7) << 12 | R_R | R_C | 2)
    addresses = np.arange(0, 512 << 12, 32, dtype=np.uint64)
    cpu = Power9Hash(Registers(ptcr=PTCR, msr=MSR_SF | MSR_DR | MSR_IR), memory, slb)
    found = translate_many(cpu, addresses, Access.STORE)
    even = addresses >> np.uint64(12) & np.uint64(1) == 0
    assert np.array_equal(found.complete, even)
    assert np.array_equal(found.outputs[even], addresses[even] + np.uint64(7 << 12))
    assert found.fault_counts() == {FaultSummary(FaultKind.NOT_PRESENT, STAGE, None, implicit=False): 256 * 128}


def test_no_table_and_no_access() -> None:
    memory = PhysicalMemory(1 << 20)
    slb = Slb([(ESID_V, vsid_word(5, 28, SHIFT_4K))])
    relocated = MSR_SF | MSR_DR
    for registers, address in (
        (Registers(ptcr=1 << 40, msr=relocated), 0),  # beyond the memory
        (Registers(ptcr=0, lpidr=4000, msr=relocated), 0),  # beyond the partition table
        (Registers(ptcr=1 << 40, msr=MSR_SF), 0),  # guest real mode without an entry
        (Registers(msr=MSR_SF | MSR_HV, hrmor=0x30000), 0x123),  # the hypervisor's own real mode
        (Registers(msr=MSR_SF | MSR_HV, hrmor=0x30000), 1 << 63 | 0x123),
    ):
        cpu = Power9Hash(registers, memory, slb)
        compare(cpu, [address], Access.LOAD, translate_many(cpu, [address], Access.LOAD))
    with pytest.raises(NestmmuError, match="name one"):
        translate_many(cpu, [0], None)


def test_a_table_of_a_radix_partition() -> None:
    memory = PhysicalMemory()
    memory.store(PTCR, 1 << 63, 8, "big")
    cpu = Power9Hash(Registers(ptcr=PTCR, msr=MSR_SF | MSR_DR), memory, Slb([(ESID_V, vsid_word(5))]))
    compare(cpu, [0, 0x1000], Access.LOAD, translate_many(cpu, [0, 0x1000], Access.LOAD))


def test_looking_changes_nothing() -> None:
    memory = PhysicalMemory()
    memory.store(PTCR, BASE, 8, "big")
    table = HashTable(memory, BASE, ORDER)
    slb = Slb([(ESID_V, vsid_word(5))])
    segment = slb.lookup(0)
    assert segment is not None
    slot, _ = table.candidates(segment, 0)
    table.write(slot, make_v(segment, 0, large=False), 0x7002)
    registers = Registers(ptcr=PTCR, msr=MSR_SF | MSR_DR)
    silent = Power9Hash(registers, memory, slb, reference_change=AccessedDirty.IGNORE)
    assert int(translate_many(silent, [5], Access.STORE, update=True).outputs[0]) == 0x7005
    assert table.read(slot)[1] == 0x7002
    translate_many(Power9Hash(registers, memory, slb), [5], Access.LOAD, update=True)
    assert table.read(slot)[1] == 0x7002 | R_R
    translate_many(Power9Hash(registers, memory, slb), [5], Access.STORE, update=True)
    assert table.read(slot)[1] == 0x7002 | R_R | R_C


def test_a_translated_memory() -> None:
    from nestmmu_ppc64_radix.formats import POWER9  # noqa: PLC0415  (any format will do)

    memory = PhysicalMemory()
    table = RadixTable(RadixWalker(POWER9, memory, "below"), Root(0, 13))
    cpu = Power9Hash(Registers(), TranslatedMemory(memory, table, "guest real"))
    with pytest.raises(NestmmuError, match="one access at a time"):
        translate_many(cpu, [0], Access.LOAD)
