"""The CPU alone: section 2 of the reference, and the scenarios TN, on tables made of raw words."""

from __future__ import annotations

import struct

import pytest

from nestmmu.access import Access
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_HV, MSR_IR, MSR_PR, MSR_SF, Registers
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_radix.cpu import Power9Radix

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
HOST = 0x10_0000_0000
"""Host real minus guest real address, of all that the partition scope maps."""
PARTITION_TABLE, PARTITION_ROOT, PARTITION_PUD, PARTITION_PMD = 0x1000_0000, 0x1001_0000, 0x1002_0000, 0x1002_1000
LPID, PID = 7, 42
PROCESS_TABLE = 0x0300_0000
PROCESS_ROOT, PROCESS_PUD, PROCESS_PMD, PROCESS_PTE = 0x0301_0000, 0x0302_0000, 0x0302_1000, 0x0302_2000
EA = 0x0000_0001_2345_6789
PAGE = 0x0804_0000
"""Guest real address of the page that EA leads to."""
ROOT_WORD = 0x4000_0000_0000_00AD
MSR = MSR_SF | MSR_IR | MSR_DR


class Machine:
    """One guest: 4 GiB of guest real memory in 1 GiB pages, and one process with one page of 64 KiB at EA."""

    def __init__(self, **options: object) -> None:
        self.memory = PhysicalMemory()
        self.registers = Registers(msr=MSR, ptcr=PARTITION_TABLE | 4, lpidr=LPID, pidr=PID)
        self.options = options
        self.real(PARTITION_TABLE + 16 * LPID, 1 << 63 | ROOT_WORD | PARTITION_ROOT)
        self.real(PARTITION_TABLE + 16 * LPID + 8, 1 << 63 | PROCESS_TABLE | 4)
        self.real(PARTITION_ROOT, 1 << 63 | PARTITION_PUD | 9)
        for index in range(4):
            self.real(PARTITION_PUD + 8 * index, 3 << 62 | HOST + (index << 30) | 0x187)
        for pid in (PID, 0):
            self.guest(PROCESS_TABLE + 16 * pid, ROOT_WORD | PROCESS_ROOT)
        self.guest(PROCESS_ROOT, 1 << 63 | PROCESS_PUD | 9)
        self.guest(PROCESS_PUD + 8 * 4, 1 << 63 | PROCESS_PMD | 9)
        self.guest(PROCESS_PMD + 8 * 0x11A, 1 << 63 | PROCESS_PTE | 5)
        self.leaf(3 << 62 | PAGE | 0x187)

    def real(self, address: int, word: int) -> None:
        self.memory.write(address, struct.pack(">Q", word))

    def guest(self, address: int, word: int) -> None:
        self.real(address + HOST, word)

    def leaf(self, entry: int) -> None:
        self.guest(PROCESS_PTE + 8 * 5, entry)

    def read_leaf(self) -> int:
        return int(struct.unpack(">Q", self.memory.read(PROCESS_PTE + 8 * 5 + HOST, 8))[0])

    def access(self, access: Access = LOAD, address: int = EA, **registers: int) -> Reached | Interrupt:
        for name, value in registers.items():
            setattr(self.registers, name, value)
        return Power9Radix(self.registers, self.memory, **self.options).access(access, address)  # type: ignore[arg-type]

    def interrupt(self, access: Access = LOAD, address: int = EA, **registers: int) -> Interrupt:
        result = self.access(access, address, **registers)
        assert isinstance(result, Interrupt), result
        return result

    def reached(self, access: Access = LOAD, address: int = EA, **registers: int) -> int:
        result = self.access(access, address, **registers)
        assert isinstance(result, Reached), result
        return result.address


def test_the_machine_translates() -> None:
    assert Machine().reached() == HOST + PAGE + 0x6789


class TestEffectiveAddresses:
    @pytest.mark.parametrize("address", [0x0010000000000000, 0x3FF0000000000000 | EA, 0xC010000000000000])
    def test_bits_that_must_be_zero_tn1(self, address: int) -> None:
        data, fetch = Machine().interrupt(LOAD, address), Machine().interrupt(FETCH, address)
        assert (data.vector, data.get("dar")) == (0x380, address)
        assert "dsisr" not in data.registers
        assert (fetch.vector, fetch.get("srr0")) == (0x480, address)

    @pytest.mark.parametrize("quadrant", [1, 2])
    def test_quadrants_1_and_2_are_the_hypervisors_tn2(self, quadrant: int) -> None:
        assert Machine().interrupt(LOAD, quadrant << 62 | EA).vector == 0x380

    def test_quadrant_3_is_pid_0_tn3(self) -> None:
        machine = Machine()
        machine.guest(PROCESS_TABLE + 16 * PID, 0)
        assert machine.interrupt().vector == 0x300
        assert machine.reached(LOAD, 3 << 62 | EA) == HOST + PAGE + 0x6789

    @pytest.mark.parametrize(("quadrant", "pid"), [(1, PID), (2, 0)])
    def test_hypervisor_reaches_its_guest_through_quadrants_1_and_2(self, quadrant: int, pid: int) -> None:
        machine = Machine()
        machine.guest(PROCESS_TABLE + 16 * (PID - pid), 0)
        assert machine.reached(LOAD, quadrant << 62 | EA, msr=MSR | MSR_HV) == HOST + PAGE + 0x6789

    @pytest.mark.parametrize("quadrant", [0, 3])
    def test_hypervisors_own_quadrants_have_one_scope(self, quadrant: int) -> None:
        machine = Machine()
        machine.real(PARTITION_TABLE, 1 << 63 | ROOT_WORD | PARTITION_ROOT)
        machine.real(PARTITION_TABLE + 8, PROCESS_TABLE | 4)
        for pid in (PID, 0):
            machine.guest(PROCESS_TABLE + 16 * pid, ROOT_WORD | 0x7000_0000)
        machine.real(0x7000_0000, 3 << 62 | 0x187)  # a leaf of 512 GiB, which leads to real address 0
        assert machine.reached(LOAD, quadrant << 62 | EA, msr=MSR | MSR_HV) == EA

    def test_real_mode_of_the_hypervisor(self) -> None:
        machine = Machine()
        assert machine.reached(LOAD, 0x1000, msr=MSR_SF | MSR_HV, hrmor=0x4000_0000) == 0x4000_1000
        assert machine.reached(LOAD, 1 << 63 | 0x1000) == 0x1000
        assert machine.reached(LOAD, 0xF000_0000_0000_1000) == 0x1000

    def test_real_mode_of_a_guest_tn16(self) -> None:
        assert Machine().reached(LOAD, 0xC000000000001000, msr=MSR_SF) == HOST + 0x1000


class TestPartitionTable:
    @pytest.mark.parametrize(
        ("lpid", "word"),
        [
            pytest.param(LPID, ROOT_WORD | PARTITION_ROOT, id="TN12-HR-0"),
            pytest.param(0, 1 << 63 | ROOT_WORD | PARTITION_ROOT, id="TN12-lpid-0"),
        ],
    )
    def test_configuration(self, lpid: int, word: int) -> None:
        machine = Machine()
        machine.real(PARTITION_TABLE + 16 * lpid, word)
        interrupt = machine.interrupt(lpidr=lpid)
        assert (interrupt.vector, interrupt.get("hdsisr"), interrupt.get("asdr")) == (0xE00, 0x00080000, EA)

    def test_an_lpid_beyond_the_table(self) -> None:
        interrupt = Machine().interrupt(ptcr=PARTITION_TABLE, lpidr=256)
        assert (interrupt.vector, interrupt.get("hdsisr")) == (0xE00, 0x00080000)

    def test_a_table_larger_than_any(self) -> None:
        interrupt = Machine().interrupt(ptcr=PARTITION_TABLE | 25)
        assert (interrupt.vector, interrupt.get("hdsisr"), interrupt.get("asdr")) == (0xE00, 0x00080000, EA)

    def test_an_entry_outside_memory(self) -> None:
        machine = Machine()
        machine.memory.size = 1 << 40
        interrupt = machine.interrupt(ptcr=1 << 41 | 4)
        assert (interrupt.vector, interrupt.get("hdsisr"), interrupt.get("asdr")) == (0xE00, 0x00080000, EA)

    @pytest.mark.parametrize(
        "word",
        [
            pytest.param(0x4000_0000_0000_008D, id="RTS-20"),
            pytest.param(0x6000_0000_0000_00AD, id="RTS-29"),
            pytest.param(0x4000_0000_0000_00AC, id="RPDS-12"),
        ],
    )
    def test_a_tree_of_another_size(self, word: int) -> None:
        """In real mode, and while the process table is read."""
        machine = Machine()
        machine.real(PARTITION_TABLE + 16 * LPID, 1 << 63 | word | PARTITION_ROOT)
        table = machine.interrupt()
        assert (table.vector, table.get("hdsisr"), table.get("asdr")) == (
            0xE00,
            0x000A0000,
            PROCESS_TABLE + 16 * PID,
        )
        operand = machine.interrupt(STORE, 0x1000, msr=MSR_SF)
        assert (operand.vector, operand.get("hdsisr"), operand.get("asdr")) == (0xE00, 0x02080000, 0x1000)

    def test_a_fetch_is_a_hisi(self) -> None:
        interrupt = Machine().interrupt(FETCH, ptcr=PARTITION_TABLE, lpidr=256)
        assert (interrupt.vector, interrupt.get("hsrr0")) == (0xE20, EA)
        assert interrupt.get("hsrr1") == MSR & ~0x783F0000 | 0x00080000


class TestProcessTable:
    @pytest.mark.parametrize(("pid", "dsisr"), [(4096, 0x40000000), (1 << 20, 0x40000000)])
    def test_pid_beyond_the_table_tn4(self, pid: int, dsisr: int) -> None:
        interrupt = Machine().interrupt(pidr=pid)
        assert (interrupt.vector, interrupt.get("dsisr"), interrupt.get("dar")) == (0x300, dsisr, EA)

    def test_last_pid_of_the_table_tn4(self) -> None:
        machine = Machine()
        machine.guest(PROCESS_TABLE + 16 * 4095, ROOT_WORD | PROCESS_ROOT)
        assert machine.reached(pidr=4095) == HOST + PAGE + 0x6789

    def test_a_base_that_is_not_aligned_to_its_size_tn5(self) -> None:
        machine = Machine()
        machine.real(PARTITION_TABLE + 16 * LPID + 8, 0x03001004)
        assert machine.interrupt().get("dsisr") == 0x00080000

    def test_a_tree_of_another_size(self) -> None:
        machine = Machine()
        machine.guest(PROCESS_TABLE + 16 * PID, 0x4000_0000_0000_008D | PROCESS_ROOT)
        assert machine.interrupt(STORE).get("dsisr") == 0x02080000

    @pytest.mark.parametrize("bits", [5, 9, 12, 14])
    def test_a_root_of_another_width(self, bits: int) -> None:
        machine = Machine()
        machine.guest(PROCESS_TABLE + 16 * PID, ROOT_WORD & ~0x1F | PROCESS_ROOT | bits)
        assert machine.interrupt().get("dsisr") == 0x00080000

    @pytest.mark.parametrize("bits", [5, 8, 10])
    def test_an_upper_directory_of_another_width(self, bits: int) -> None:
        machine = Machine()
        machine.guest(PROCESS_ROOT, 1 << 63 | PROCESS_PUD | bits)
        assert machine.interrupt().get("dsisr") == 0x00080000

    def test_a_directory_below_the_last_level(self) -> None:
        machine = Machine()
        machine.leaf(1 << 63 | PAGE | 9)
        assert machine.interrupt(STORE).get("dsisr") == 0x02080000
        fetch = machine.interrupt(FETCH)
        assert (fetch.vector, fetch.get("srr1")) == (0x400, MSR | 0x00080000)

    def test_low_bits_of_a_base_that_is_not_aligned_are_dropped(self) -> None:
        machine = Machine()
        machine.guest(PROCESS_PMD + 8 * 0x11A, 1 << 63 | PROCESS_PTE | 0x800 | 9)
        machine.guest(PROCESS_PTE + 8 * 0x56, 3 << 62 | PAGE | 0x187)
        assert machine.reached() == HOST + PAGE + 0x789

    @pytest.mark.parametrize("bits", [8, 4, 13])
    def test_a_directory_of_another_width(self, bits: int) -> None:
        machine = Machine()
        machine.guest(PROCESS_PUD + 8 * 4, 1 << 63 | PROCESS_PMD | bits)
        assert machine.interrupt().get("dsisr") == 0x00080000

    @pytest.mark.parametrize("entry", [0, 0x4000_0000_0000_0187])
    def test_an_entry_that_is_not_valid(self, entry: int) -> None:
        machine = Machine()
        machine.leaf(entry)
        assert machine.interrupt().get("dsisr") == 0x40000000
        assert machine.interrupt(STORE).get("dsisr") == 0x42000000
        fetch = machine.interrupt(FETCH)
        assert (fetch.vector, fetch.get("srr0"), fetch.get("srr1")) == (0x400, EA, MSR | 0x40000000)


class TestPermissions:
    def with_leaf(self, bits: int) -> Machine:
        machine = Machine()
        machine.leaf(3 << 62 | PAGE | bits)
        return machine

    def test_a_privileged_page_is_no_problems_tn6(self) -> None:
        machine = self.with_leaf(0x18F)
        user = MSR | MSR_PR
        assert machine.interrupt(LOAD, msr=user).get("dsisr") == 0x08000000
        assert machine.interrupt(STORE, msr=user).get("dsisr") == 0x0A000000
        fetch = machine.interrupt(FETCH, msr=user)
        assert (fetch.vector, fetch.get("srr1") & 0x783F0000) == (0x400, 0x10000000)
        assert machine.reached(LOAD, msr=MSR) == HOST + PAGE + 0x6789

    @pytest.mark.parametrize(
        ("register", "value", "access", "cause"),
        [
            pytest.param("amr", 0x4000000000000000, LOAD, 0x08000000, id="TN7-read"),
            pytest.param("amr", 0x8000000000000000, STORE, 0x0A000000, id="TN7-write"),
            pytest.param("iamr", 0x4000000000000000, FETCH, 0x10000000, id="TN7-fetch"),
        ],
    )
    def test_key_0_for_the_privileged_on_others_pages(
        self, register: str, value: int, access: Access, cause: int
    ) -> None:
        machine = self.with_leaf(0x187)
        interrupt = machine.interrupt(access, **{register: value})
        assert (interrupt.get("srr1") & 0x783F0000 if access is FETCH else interrupt.get("dsisr")) == cause
        assert machine.reached(access, msr=MSR | MSR_PR) == HOST + PAGE + 0x6789
        assert self.with_leaf(0x18F).reached(access, **{register: value}) == HOST + PAGE + 0x6789

    def test_keys_say_nothing_of_the_partition_scope_tn8(self) -> None:
        every_key = {"amr": 3 << 62, "iamr": 1 << 62, "msr": MSR_SF}
        assert Machine().reached(LOAD, 0x1000, **every_key) == HOST + 0x1000

    def test_no_fetch_from_memory_that_is_not_idempotent_tn9(self) -> None:
        machine = self.with_leaf(0x1A7)
        assert machine.interrupt(FETCH).get("srr1") & 0x783F0000 == 0x10000000
        assert machine.reached(LOAD) == HOST + PAGE + 0x6789

    @pytest.mark.parametrize(
        ("nibble", "allowed"),
        [(4, {LOAD}), (2, {LOAD, STORE}), (6, {LOAD, STORE}), (1, {FETCH}), (0, set()), (7, {LOAD, STORE, FETCH})],
    )
    def test_each_bit_of_eaa(self, nibble: int, allowed: set[Access]) -> None:
        for access in Access:
            result = self.with_leaf(0x180 | nibble).access(access)
            assert isinstance(result, Reached) == (access in allowed), access


class TestPartitionScope:
    def test_a_miss_while_reading_a_table_tn10(self) -> None:
        machine = Machine()
        machine.guest(PROCESS_ROOT, 1 << 63 | 0x1_0000_0000 | 9)
        interrupt = machine.interrupt(STORE)
        assert interrupt.vector == 0xE00
        assert (interrupt.get("hdsisr"), interrupt.get("hdar"), interrupt.get("asdr")) == (
            0x40020000,
            EA,
            0x1_0000_0020,
        )

    def test_a_miss_of_a_fetch_while_reading_a_table(self) -> None:
        machine = Machine()
        machine.guest(PROCESS_ROOT, 1 << 63 | 0x1_0000_0000 | 9)
        interrupt = machine.interrupt(FETCH)
        assert (interrupt.vector, interrupt.get("hsrr0"), interrupt.get("asdr")) == (0xE20, EA, 0x1_0000_0020)
        assert interrupt.get("hsrr1") == MSR | 0x40020000

    def test_a_miss_of_the_process_table(self) -> None:
        machine = Machine()
        machine.real(PARTITION_PUD, 0)
        assert machine.interrupt().get("asdr") == PROCESS_TABLE + 16 * PID

    def test_a_miss_of_the_operand_tn11(self) -> None:
        machine = Machine()
        machine.leaf(3 << 62 | 0x1_0804_0000 | 0x187)
        interrupt = machine.interrupt(STORE)
        registers = [interrupt.get(name) for name in ("hdsisr", "hdar", "asdr", "hsrr0", "hsrr1")]
        assert registers == [0x42000000, EA, 0x1_0804_6789, EA, MSR]

    def test_a_miss_of_a_fetch(self) -> None:
        machine = Machine()
        machine.leaf(3 << 62 | 0x1_0804_0000 | 0x187)
        interrupt = machine.interrupt(FETCH)
        assert (interrupt.vector, interrupt.get("hsrr0"), interrupt.get("asdr")) == (0xE20, EA, 0x1_0804_6789)
        assert interrupt.get("hsrr1") == MSR | 0x40000000

    def test_reference_and_change_of_the_process_are_set_before_the_operand_is_looked_for(self) -> None:
        machine = Machine()
        machine.leaf(3 << 62 | 0x1_0804_0000 | 0x007)
        assert machine.interrupt(STORE).vector == 0xE00
        assert machine.read_leaf() & 0x180 == 0x180

    @pytest.mark.parametrize(("bits", "index", "shift"), [(5, 5, 16), (9, 0x56, 12)])
    def test_small_page_in_a_large_one_tn14(self, bits: int, index: int, shift: int) -> None:
        """In 2 MiB of the host that begin at PAGE, rounded down: it is 0x40000 into them."""
        machine = Machine()
        machine.guest(PROCESS_PMD + 8 * 0x11A, 1 << 63 | PROCESS_PTE | bits)
        machine.guest(PROCESS_PTE + 8 * index, 3 << 62 | PAGE | 0x187)
        machine.real(PARTITION_PUD, 1 << 63 | PARTITION_PMD | 9)
        for slot in (PROCESS_TABLE >> 21, PAGE >> 21):
            machine.real(PARTITION_PMD + 8 * slot, 3 << 62 | HOST + (slot << 21) | 0x187)
        result = machine.access()
        assert isinstance(result, Reached)
        assert result.address == HOST + PAGE + (EA & (1 << shift) - 1)
        assert result.page_shift == shift

    @pytest.mark.parametrize("process", range(8))
    @pytest.mark.parametrize("partition", [1, 2, 4, 5, 6, 7])
    def test_both_scopes_have_to_permit(self, process: int, partition: int) -> None:
        """The tables themselves lie in another page of the host, which permits all."""
        machine = Machine()
        machine.leaf(3 << 62 | 0x4000_0000 | PAGE | 0x180 | process)
        machine.real(PARTITION_PUD + 8, 3 << 62 | HOST + 0x4000_0000 | 0x180 | partition)
        for access, permits in ((LOAD, {2, 3, 4, 5, 6, 7}), (STORE, {2, 3, 6, 7}), (FETCH, {1, 3, 5, 7})):
            result = machine.access(access)
            if process in permits and partition in permits:
                assert isinstance(result, Reached)
            else:
                assert isinstance(result, Interrupt)
                vectors = (0x400, 0xE20) if access is FETCH else (0x300, 0xE00)
                assert result.vector == vectors[process in permits]


class TestReferenceAndChange:
    def test_a_load_sets_reference_and_a_store_change_tn13(self) -> None:
        machine = Machine()
        machine.leaf(3 << 62 | PAGE | 0x007)
        machine.reached(LOAD)
        assert machine.read_leaf() & 0x180 == 0x100
        machine.reached(STORE)
        assert machine.read_leaf() & 0x180 == 0x180

    @pytest.mark.parametrize(
        ("access", "bits", "cause"), [(LOAD, 0x087, 0x00040000), (STORE, 0x107, 0x02040000), (STORE, 0x087, 0x02040000)]
    )
    def test_a_cpu_that_faults_instead(self, access: Access, bits: int, cause: int) -> None:
        machine = Machine(reference_change=AccessedDirty.FAULT)
        machine.leaf(3 << 62 | PAGE | bits)
        assert machine.interrupt(access).get("dsisr") == cause
        assert machine.read_leaf() & 0xFFF == bits

    def test_a_fetch_that_faults(self) -> None:
        machine = Machine(reference_change=AccessedDirty.FAULT)
        machine.leaf(3 << 62 | PAGE | 0x087)
        interrupt = machine.interrupt(FETCH)
        assert (interrupt.vector, interrupt.get("srr1") & 0x783F0000) == (0x400, 0x00040000)

    def test_the_partition_scope_faults_too(self) -> None:
        machine = Machine(reference_change=AccessedDirty.FAULT)
        machine.real(PARTITION_PUD, 3 << 62 | HOST | 0x107)
        interrupt = machine.interrupt(STORE)
        assert (interrupt.vector, interrupt.get("hdsisr"), interrupt.get("asdr")) == (0xE00, 0x02040000, PAGE + 0x6789)

    def test_the_partition_scope_faults_for_a_fetch(self) -> None:
        machine = Machine(reference_change=AccessedDirty.FAULT)
        machine.leaf(3 << 62 | 0x4000_0000 | PAGE | 0x187)
        machine.real(PARTITION_PUD + 8, 3 << 62 | HOST + 0x4000_0000 | 0x087)
        interrupt = machine.interrupt(FETCH)
        assert (interrupt.vector, interrupt.get("asdr")) == (0xE20, 0x4000_0000 + PAGE + 0x6789)
        assert interrupt.get("hsrr1") == MSR | 0x00040000

    def test_its_own_update_may_need_the_partition_scopes_permission(self) -> None:
        machine = Machine(guarded_updates=True)
        machine.leaf(3 << 62 | PAGE | 0x007)
        machine.real(PARTITION_PUD, 3 << 62 | HOST | 0x185)
        interrupt = machine.interrupt(LOAD)
        assert interrupt.vector == 0xE00
        assert interrupt.get("hdsisr") == 0x08000000 | 0x00020000 | 0x02000000
        assert interrupt.get("asdr") == PROCESS_PTE + 8 * 5

    def test_its_own_update_changes_the_page_that_holds_the_entry(self) -> None:
        machine = Machine(guarded_updates=True)
        machine.leaf(3 << 62 | 0x4000_0000 | PAGE | 0x007)
        for index in (0, 1):
            machine.real(PARTITION_PUD + 8 * index, 3 << 62 | HOST + (index << 30) | 0x107)
        machine.reached(LOAD)
        words = [int.from_bytes(machine.memory.read(PARTITION_PUD + 8 * index, 8), "big") for index in (0, 1)]
        assert [word & 0x180 for word in words] == [0x180, 0x100]

    def test_and_for_a_fetch_it_is_told_by_hisi_write(self) -> None:
        machine = Machine(guarded_updates=True)
        machine.leaf(3 << 62 | PAGE | 0x007)
        machine.real(PARTITION_PUD, 3 << 62 | HOST | 0x185)
        interrupt = machine.interrupt(FETCH)
        assert (interrupt.vector, interrupt.get("asdr")) == (0xE20, PROCESS_PTE + 8 * 5)
        assert interrupt.get("hsrr1") == MSR | 0x08000000 | 0x00020000 | 0x00010000

    def test_the_emulated_cpus_update_looks_at_no_permission(self) -> None:
        machine = Machine()
        machine.leaf(3 << 62 | PAGE | 0x007)
        machine.real(PARTITION_PUD, 3 << 62 | HOST | 0x185)
        assert machine.reached(LOAD) == HOST + PAGE + 0x6789
        assert machine.read_leaf() & 0x180 == 0x100


@pytest.mark.parametrize("leaf", [0, 3 << 62 | 0x1_0804_0000 | 0x187])
def test_which_bits_of_the_msr_an_interrupt_keeps(leaf: int) -> None:
    """In both scopes: all of them for data; for a fetch those outside 0x783F0000, as VEC and VSX are."""
    machine = Machine()
    machine.leaf(leaf)
    vec_and_vsx, lost = 0x0280_0000, 0x0030_0000
    msr = MSR | vec_and_vsx | lost
    prefix = "h" if leaf else ""
    assert machine.interrupt(LOAD, msr=msr).get(f"{prefix}srr1") == msr
    assert machine.interrupt(FETCH, msr=msr).get(f"{prefix}srr1") == MSR | vec_and_vsx | 0x4000_0000


CHECKS = {
    1: (0x380, 0x480, 0),
    2: (0xE00, 0xE20, 0x00080000),
    4: (0x300, 0x400, 0x00080000),
    5: (0x300, 0x400, 0x40000000),
    6: (0xE00, 0xE20, 0x40020000),
    7: (0xE00, 0xE20, 0x40020000),
    8: (0x300, 0x400, 0x00080000),
    9: (0x300, 0x400, 0x40000000),
    11: (0, 0x400, 0x10000000),
    14: (0x300, 0x400, 0x10000000),
    15: (0x300, 0x400, 0x00040000),
    16: (0xE00, 0xE20, 0x40000000),
}
"""The rows of 2.2 that make an interrupt of their own (3 is as 2, 10 masks, 12 and 13 lead to 14): vector of a load,
vector of a fetch, cause of a fetch."""
LOAD_CAUSES = {row: cause for row, (_, _, cause) in CHECKS.items()} | {14: 0x08000000}
CHECKED_ASDR = {2: EA, 6: 0x1_0300_02A0, 16: 0x1_0804_6789}
PAIRS = [(first, second) for first in CHECKS for second in CHECKS if first <= second]


class TestOrderOfChecks:
    """Each two checks of 2.2 failing at once: the one that stands first in the table decides."""

    def broken(self, rows: tuple[int, ...], access: Access) -> Interrupt:
        beyond = {row: 1 << 32 if row in rows else 0 for row in (6, 7, 16)}
        machine = Machine(reference_change=AccessedDirty.FAULT)
        machine.real(PARTITION_TABLE + 16 * LPID + 8, PROCESS_TABLE | 4 | beyond[6] | (0x1000 if 4 in rows else 0))
        machine.guest(PROCESS_ROOT, 1 << 63 | PROCESS_PUD | beyond[7] | (8 if 8 in rows else 9))
        if 9 in rows:
            machine.guest(PROCESS_PUD + 8 * 4, 0)
        attribute, permissions = 0x20 if 11 in rows else 0, 0 if 14 in rows else 7
        machine.leaf(3 << 62 | PAGE | beyond[16] | (0 if 15 in rows else 0x180) | attribute | permissions)
        interrupt = machine.interrupt(
            access,
            EA | (1 << 52 if 1 in rows else 0),
            ptcr=PARTITION_TABLE | (25 if 2 in rows else 4),
            pidr=4096 if 5 in rows else PID,
        )
        if rows[0] in CHECKED_ASDR:
            assert interrupt.get("asdr") == CHECKED_ASDR[rows[0]]
        return interrupt

    @pytest.mark.parametrize("rows", [pair for pair in PAIRS if 11 not in pair])
    def test_a_load(self, rows: tuple[int, int]) -> None:
        interrupt = self.broken(rows, LOAD)
        assert interrupt.vector == CHECKS[rows[0]][0]
        assert interrupt.get("hdsisr") | interrupt.get("dsisr") == LOAD_CAUSES[rows[0]]

    @pytest.mark.parametrize("rows", PAIRS)
    def test_a_fetch(self, rows: tuple[int, int]) -> None:
        interrupt = self.broken(rows, FETCH)
        _, vector, cause = CHECKS[rows[0]]
        assert interrupt.vector == vector
        assert interrupt.get("hsrr1") | interrupt.get("srr1") == MSR | cause
