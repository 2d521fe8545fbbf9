"""The CPU: who takes which interrupt with which registers, R and C, the virtual real mode area, and a TLB around it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from nestmmu.access import Access
from nestmmu.addresses import HardwareTag
from nestmmu.errors import PoisonedError
from nestmmu.formats import AccessedDirty
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.memory import JournaledMemory
from nestmmu.tlb import CachedCpu, StaleHit, Tlb
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_HV, MSR_IR, MSR_PR, MSR_SF, Registers
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_hpt.cpu import Power9Hash
from nestmmu_ppc64_hpt.slb import Slb

if TYPE_CHECKING:
    from collections.abc import Iterable

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
MSR = MSR_SF | MSR_IR | MSR_DR
VPM1 = 1 << 62
LPID = 7
PARTITION_TABLE, TABLE, ORDER = 0x1000_0000, 0x4000_0000, 24
MASK = (1 << ORDER - 7) - 1
ESID, VSID = 0xC0000000_00000000, 0x123456
EA = ESID | 0x0ABC5678
PAGE = 0x7_2345_6000
WORD = VSID << 12 | 0xC00
"""The segment's word: Ks and Kp set."""
SLOT = (0x129F93 & MASK) * 8
V = 0x123456A81
R, C, N, G, RW = 0x100, 0x080, 0x4, 0x8, 2
NOHPTE, NOEXEC, PROTFAULT, ISSTORE, KEYFAULT = 0x40000000, 0x10000000, 0x08000000, 0x02000000, 0x00200000


class Machine:
    """A guest with one segment of 256 MiB and one page of 4 KiB, behind EA: the first worked row of the reference."""

    def __init__(self, r: int = PAGE | RW, *, word: int = WORD, page_size: int = 0) -> None:
        self.memory = JournaledMemory()
        self.registers = Registers(msr=MSR, lpcr=0, ptcr=PARTITION_TABLE | 4, lpidr=LPID)
        self.memory.store(PARTITION_TABLE + 16 * LPID, TABLE | page_size << 5 | ORDER - 18, 8, "big")
        self.entry(SLOT, V, r)
        self.cpu = Power9Hash(self.registers, self.memory, Slb([(ESID | 0x08000000, word)]))

    def entry(self, slot: int, first: int, second: int) -> None:
        self.memory.write(TABLE + 16 * slot, struct.pack(">QQ", first, second))
        self.memory.commit()

    def access(self, access: Access = LOAD, address: int = EA, **registers: int) -> Reached | Interrupt:
        for name, value in registers.items():
            setattr(self.registers, name, value)
        return self.cpu.access(access, address, 0xC0DE0000)

    def interrupt(self, access: Access = LOAD, address: int = EA, **registers: int) -> Interrupt:
        result = self.access(access, address, **registers)
        assert isinstance(result, Interrupt), result
        return result

    def reached(self, access: Access = LOAD, address: int = EA, **registers: int) -> int:
        result = self.access(access, address, **registers)
        assert isinstance(result, Reached), result
        return result.address

    def changes(self) -> list[tuple[int, int]]:
        return self.memory.changes(8, "big")


def test_the_machine_translates() -> None:
    machine = Machine()
    assert machine.access() == (PAGE | 0x678, 12, LOAD | STORE | FETCH, VSID << 28 | 0x0ABC5678)
    assert machine.cpu.hit is not None
    assert (machine.cpu.hit.slot, machine.cpu.hit.references) == (SLOT, 1)


class TestSegments:
    def test_no_segment(self) -> None:
        data, fetch = Machine().interrupt(STORE, 0x1234), Machine().interrupt(FETCH, 0x1234)
        assert (data.vector, data.registers) == (0x380, {"srr0": 0xC0DE0000, "srr1": MSR, "dar": 0x1234})
        assert (fetch.vector, fetch.registers) == (0x480, {"srr0": 0x1234, "srr1": MSR})

    def test_is_the_guests_whatever_vpm_says(self) -> None:
        assert Machine().interrupt(LOAD, 0, lpcr=VPM1).vector == 0x380
        assert not Machine().interrupt(LOAD, 0, lpcr=VPM1).hv

    def test_of_a_segment_without_execution_the_table_is_not_asked(self) -> None:
        machine = Machine(word=WORD | 0x200)
        fetch = machine.interrupt(FETCH, EA ^ 0x1000)
        assert (fetch.vector, fetch.get("srr1")) == (0x400, MSR | NOEXEC), "there is no entry, and it does not matter"
        assert machine.interrupt(FETCH).get("srr1") == MSR | NOEXEC
        assert machine.changes() == []
        loaded = machine.access(LOAD)
        assert isinstance(loaded, Reached)
        assert loaded.permissions == LOAD | STORE


class TestInterrupts:
    """No entry is behind EA ^ 0x1000."""

    @pytest.mark.parametrize(("access", "cause"), [(LOAD, NOHPTE), (STORE, NOHPTE | ISSTORE)])
    @pytest.mark.parametrize("msr", [MSR, MSR | MSR_PR, MSR | MSR_HV])
    def test_data_of_the_one_who_runs(self, access: Access, cause: int, msr: int) -> None:
        taken = Machine().interrupt(access, EA ^ 0x1000, msr=msr)
        assert taken.vector == 0x300
        assert taken.registers == {"srr0": 0xC0DE0000, "srr1": msr, "dar": EA ^ 0x1000, "dsisr": cause}
        assert taken.hv == bool(msr & MSR_HV)

    @pytest.mark.parametrize(("access", "cause"), [(LOAD, NOHPTE), (STORE, NOHPTE | ISSTORE)])
    @pytest.mark.parametrize("msr", [MSR, MSR | MSR_PR])
    def test_data_of_the_hypervisor_by_vpm(self, access: Access, cause: int, msr: int) -> None:
        taken = Machine().interrupt(access, EA ^ 0x1000, lpcr=VPM1, msr=msr)
        assert taken.vector == 0xE00
        assert taken.registers == {
            "hsrr0": 0xC0DE0000, "hsrr1": msr, "hdar": EA ^ 0x1000, "hdsisr": cause, "asdr": WORD
        }  # fmt: skip
        assert taken.hv

    def test_a_fetch(self) -> None:
        own, hypervisors = Machine(), Machine()
        taken = own.interrupt(FETCH, EA ^ 0x1000)
        assert (taken.vector, taken.registers) == (0x400, {"srr0": EA ^ 0x1000, "srr1": MSR | NOHPTE})
        taken = hypervisors.interrupt(FETCH, EA ^ 0x1000, lpcr=VPM1)
        assert taken.vector == 0xE20
        assert taken.registers == {"hsrr0": EA ^ 0x1000, "hsrr1": MSR | NOHPTE, "asdr": WORD}

    def test_vpm_leaves_the_hypervisor_its_own(self) -> None:
        assert Machine().interrupt(LOAD, EA ^ 0x1000, lpcr=VPM1, msr=MSR | MSR_HV).vector == 0x300
        assert Machine().interrupt(FETCH, EA ^ 0x1000, lpcr=VPM1, msr=MSR | MSR_HV).vector == 0x400

    @pytest.mark.parametrize(
        ("r", "access", "cause"),
        [
            pytest.param(PAGE, LOAD, PROTFAULT, id="pp 0"),
            pytest.param(PAGE | 1, STORE, PROTFAULT | ISSTORE, id="pp 1"),
            pytest.param(PAGE, FETCH, PROTFAULT, id="pp 0, fetch"),
            pytest.param(PAGE | RW | N, FETCH, NOEXEC, id="N"),
            pytest.param(PAGE | RW | G, FETCH, NOEXEC, id="G"),
            pytest.param(PAGE | RW | 0xA00, STORE, KEYFAULT | ISSTORE, id="TP14-key-5"),
            pytest.param(PAGE | RW | 0x600, FETCH, KEYFAULT, id="key 3"),
            pytest.param(PAGE | 1 | 0xA00, STORE, KEYFAULT | PROTFAULT | ISSTORE, id="pp 1 and key 5"),
        ],
    )
    def test_what_is_denied_changes_nothing(self, r: int, access: Access, cause: int) -> None:
        """AMR denies key 5 stores, IAMR denies key 3 fetches; the key of the segment is 1."""
        machine = Machine(r)
        taken = machine.interrupt(access, amr=0x0020000000000000, iamr=1 << 62 - 6)
        assert taken.get("srr1") & 0x783F0000 | taken.get("dsisr") == cause
        assert machine.changes() == []

    def test_kp_is_for_problem_state_and_ks_for_all_else(self) -> None:
        only_ks, only_kp = (Machine(PAGE, word=VSID << 12 | key) for key in (0x800, 0x400))
        assert only_ks.interrupt().get("dsisr") == PROTFAULT
        assert only_ks.interrupt(msr=MSR | MSR_HV).get("dsisr") == PROTFAULT
        assert only_ks.reached(msr=MSR | MSR_PR) == PAGE | 0x678
        assert only_kp.interrupt(msr=MSR | MSR_PR).get("dsisr") == PROTFAULT
        assert only_kp.reached(msr=MSR) == PAGE | 0x678


class TestReferenceAndChange:
    """R is bit 0x100 of doubleword 1, C is 0x80; the word that changes is the whole doubleword."""

    @pytest.mark.parametrize(
        ("access", "before", "after"),
        [
            (LOAD, 0, R),
            (FETCH, 0, R),
            (STORE, 0, R | C),
            (LOAD, C, R | C),
            (STORE, R, R | C),
            (STORE, C, R | C),
            (LOAD, R, R),
            (STORE, R | C, R | C),
        ],
    )
    def test_are_set_by_what_is_done(self, access: Access, before: int, after: int) -> None:
        machine = Machine(PAGE | 0x610 | RW | before)
        machine.reached(access)
        changed = [(TABLE + 16 * SLOT + 8, PAGE | 0x610 | RW | after)]
        assert machine.changes() == (changed if before != after else [])

    def test_are_stores_of_one_byte_each(self) -> None:
        machine = Machine(PAGE | 0x610 | RW)
        stores: list[tuple[int, bytes]] = []
        machine.memory.write = lambda address, data: stores.append((address, data))  # type: ignore[method-assign]
        machine.reached(STORE)
        at = TABLE + 16 * SLOT
        assert stores == [(at + 14, b"\x67"), (at + 15, b"\x92")], "0x710 | 2 and then 0x80"

    def test_looking_sets_none(self) -> None:
        machine = Machine()
        assert machine.cpu.probe(STORE, EA) == machine.cpu.access(STORE, EA)
        machine.memory.rollback()
        machine.cpu.probe(STORE, EA)
        silent = Power9Hash(machine.registers, machine.memory, machine.cpu.slb, reference_change=AccessedDirty.IGNORE)
        assert isinstance(silent.access(STORE, EA), Reached)
        assert machine.changes() == []


def vrma(page_size: int, pages: Iterable[tuple[int, int]], base_shift: int) -> Machine:
    """Return a guest with entries for (page number, doubleword 1), each in slot 7 of its PTEG, as KVM places them."""
    machine = Machine(page_size=page_size)
    machine.registers.msr = MSR_SF
    for number, r in pages:
        slot = ((number ^ 0x1FFFFFF ^ 0x1FFFFFF << 25) & MASK) * 8 + 7
        avpn = (number << base_shift) >> 16 & ~0x7F
        large = 0x4 if base_shift > 12 else 0
        machine.entry(slot, 0x0001FFFFFF000000 | 0x10 | large | avpn | 1, 1 << 58 | r)
    return machine


class TestRealMode:
    @pytest.mark.parametrize(("page_size", "shift", "lp"), [(0, 12, 0), (5, 16, 0x1000), (4, 24, 0)])
    def test_of_a_guest_is_the_vrma_of_its_page_size(self, page_size: int, shift: int, lp: int) -> None:
        """PS of the PATE is 0xA0 in place for 64 KiB, and 0x80 for 16 MiB."""
        machine = vrma(page_size, [(3, 0x4500_0000 | lp), (0, 0x6700_0000 | lp)], shift)
        assert machine.reached(STORE, 3 << shift | 0x123) == 0x4500_0123
        assert machine.reached(FETCH, 0x123) == 0x6700_0123
        assert machine.reached(LOAD, 0xF000000000000123) == 0x6700_0123, "the top four bits do not count"
        taken = machine.interrupt(STORE, 0xF000000000000000 | 5 << shift)
        assert taken.get("hdar") == 0xF000000000000000 | 5 << shift, "though they did not count"
        assert (taken.vector, taken.get("hdsisr")) == (0xE00, NOHPTE | ISSTORE)
        assert taken.get("asdr") & ~0x130 == 0x4001FFFFFF000000
        assert taken.get("asdr") & 0x130 == {12: 0, 16: 0x110, 24: 0x100}[shift]

    def test_data_and_fetches_each_by_their_own_relocation(self) -> None:
        machine = vrma(0, [(3, 0x4500_0000)], 12)
        assert machine.reached(FETCH, 0x3123, msr=MSR_SF | MSR_DR) == 0x4500_0123
        assert machine.reached(LOAD, EA, msr=MSR_SF | MSR_DR) == PAGE | 0x678
        assert machine.reached(LOAD, 0x3123, msr=MSR_SF | MSR_IR) == 0x4500_0123
        assert machine.reached(FETCH, EA, msr=MSR_SF | MSR_IR) == PAGE | 0x678

    def test_storage_interrupts_are_the_hypervisors_even_without_vpm(self) -> None:
        machine = vrma(0, [], 12)
        taken = machine.interrupt(FETCH, 0x9000, lpcr=0)
        assert (taken.vector, taken.hv) == (0xE20, True)
        assert taken.registers == {"hsrr0": 0x9000, "hsrr1": MSR_SF | NOHPTE, "asdr": 0x4001FFFFFF000000}

    def test_ks_of_the_vrma_is_0(self) -> None:
        machine = vrma(0, [(1, 0x1000), (2, 0x2003)], 12)
        assert machine.reached(STORE, 0x1000) == 0x1000
        assert machine.interrupt(STORE, 0x2000).get("hdsisr") == PROTFAULT | ISSTORE

    @pytest.mark.parametrize("access", list(Access))
    def test_has_no_keys(self, access: Access) -> None:
        """Key 5, denied everything; the emulated CPU that the recorded data come from checks it here too."""
        machine = vrma(0, [(1, 0x1A00)], 12)
        denied = 3 << 62 - 10
        assert machine.reached(access, 0x1000, amr=denied, iamr=denied) == 0x1000
        emulated = Power9Hash(machine.registers, machine.memory, machine.cpu.slb, real_mode_keys=True)
        result = emulated.probe(access, 0x1000)
        assert isinstance(result, Interrupt)
        assert result.get("hsrr1") & KEYFAULT | result.get("hdsisr") & KEYFAULT == KEYFAULT

    @pytest.mark.parametrize("page_size", [1, 2, 3, 7])
    def test_a_page_size_that_there_is_not_is_a_machine_check(self, page_size: int) -> None:
        assert vrma(page_size, [], 12).interrupt(LOAD, 0).vector == 0x200

    def test_of_the_hypervisor_is_not_translated(self) -> None:
        machine = Machine()
        msr = MSR_SF | MSR_HV
        assert machine.access(LOAD, 0x123456, msr=msr, hrmor=0x8000_0000) == (0x8012_3456, 64, 7, None)
        assert machine.reached(STORE, 0x8000000000123456, msr=msr) == 0x123456
        assert machine.changes() == []


class TestPartitionTable:
    def test_of_another_partition_other_tables(self) -> None:
        machine = Machine()
        machine.memory.store(PARTITION_TABLE + 16 * 9, TABLE + (1 << ORDER) | ORDER - 18, 8, "big")
        machine.reached()
        assert machine.interrupt(lpidr=9).get("dsisr") == NOHPTE
        machine.memory.write(TABLE + (1 << ORDER) + 16 * SLOT, struct.pack(">QQ", V, PAGE + 0x1000 | RW))
        assert machine.reached(lpidr=9) == PAGE + 0x1000 | 0x678
        assert machine.reached(lpidr=LPID) == PAGE | 0x678

    def test_the_table_is_read_anew_with_every_access(self) -> None:
        machine = Machine()
        machine.reached()
        machine.entry(SLOT, V, PAGE + 0x5000 | RW)
        assert machine.reached() == PAGE + 0x5000 | 0x678
        machine.memory.store(PARTITION_TABLE + 16 * LPID, TABLE + (1 << ORDER) | ORDER - 18, 8, "big")
        assert machine.interrupt().get("dsisr") == NOHPTE

    def test_what_cannot_be_read_is_a_machine_check_and_a_bug_of_software_is_not(self) -> None:
        machine = Machine()
        machine.memory.size = TABLE + (1 << ORDER - 1)
        assert machine.interrupt().vector == 0x200, "the table ends beyond the memory"
        machine = Machine()
        machine.memory.poison(TABLE + 16 * SLOT >> 12)
        with pytest.raises(PoisonedError):
            machine.access()


class TestBehindATlb:
    def machine(self) -> tuple[Machine, CachedCpu, Tlb, list[StaleHit]]:
        machine, tlb, stale = Machine(), Tlb(), list[StaleHit]()
        return machine, CachedCpu(machine.cpu, tlb, stale.append), tlb, stale

    def test_the_first_store_sets_c_though_a_load_was_kept(self) -> None:
        machine, cpu, tlb, stale = self.machine()
        assert cpu.access(LOAD, EA).address == cpu.access(LOAD, EA).address == PAGE | 0x678
        assert (tlb.hits, machine.changes()) == (1, [(TABLE + 16 * SLOT + 8, PAGE | RW | R)])
        cpu.access(STORE, EA)
        assert machine.changes() == [(TABLE + 16 * SLOT + 8, PAGE | RW | R | C)]
        assert cpu.access(STORE, EA + 1).address == PAGE | 0x679
        assert stale == []

    def test_an_entry_that_goes_without_tlbie_shows(self) -> None:
        machine, cpu, tlb, stale = self.machine()
        cpu.access(LOAD, EA)
        machine.entry(SLOT, 0, 0)
        assert cpu.access(LOAD, EA).address == PAGE | 0x678
        assert [hit.address for hit in stale] == [EA]
        tlb.flush(Flush(HardwareTag(LPID), FlushKind.PAGE, VSID << 28 | 0x0ABC5000, 12))
        assert cpu.access(LOAD, EA).get("dsisr") == NOHPTE
        assert len(stale) == 1

    def test_what_is_kept_is_of_one_partition_segment_and_key(self) -> None:
        machine, cpu, tlb, _ = self.machine()
        cpu.access(LOAD, EA)
        for name, value in (("lpidr", 8), ("msr", MSR | MSR_PR), ("amr", 1), ("iamr", 1)):
            kept = getattr(machine.registers, name)
            setattr(machine.registers, name, value)
            cpu.access(LOAD, EA)
            setattr(machine.registers, name, kept)
        machine.cpu.slb.slbmte(WORD ^ 0x1000, ESID | 0x08000000)
        cpu.access(LOAD, EA)
        assert tlb.hits == 0
