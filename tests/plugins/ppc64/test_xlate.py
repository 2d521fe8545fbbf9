"""KVM's software translation: rows W11 and W12 of 1.3, and the scenario TA19."""

from __future__ import annotations

import pytest
from ppc64_fixture import LEAF_64K, PATE_DW0, PTE_ENTRY, Fixture, N

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.faults import Fault, FaultKind
from nestmmu_ppc64_book3s.registers import MSR_PR, Registers
from nestmmu_ppc64_radix.exits import walk_errno
from nestmmu_ppc64_radix.xlate import translate_table, xlate

TABLE = 0x0400_0000
RWX = READ | WRITE | EXECUTE


def lookup(fixture: Fixture, table: int, index: int) -> int:
    """Return the L1 real address of N by the process table's entry, or the error's number."""
    try:
        return translate_table(fixture.guest.memory, N, table, index, Access.LOAD).output_address
    except Fault as fault:
        return walk_errno(fault)


@pytest.mark.parametrize(
    ("field", "index", "result"),
    [
        pytest.param(25, 0, -22, id="TA19-PRTS-25"),
        pytest.param(25, 255, -22, id="TA19-PRTS-25-of-a-good-entry"),
        pytest.param(24, 255, 0x1_8005_6789, id="W11-PRTS-24"),
        pytest.param(0, 256, -22, id="TA19-pid-256"),
        pytest.param(0, 255, 0x1_8005_6789, id="TA19-pid-255"),
        pytest.param(4, 4095, 0x1_8005_6789, id="W11-last"),
        pytest.param(4, 4096, -22, id="W11-beyond"),
    ],
)
def test_table_lookup(field: int, index: int, result: int) -> None:
    fixture = Fixture()
    fixture.word(TABLE + 0xFF0, PATE_DW0)
    fixture.word(TABLE + 0xFFF0, PATE_DW0)
    assert lookup(fixture, TABLE | field, index) == result


def test_a_table_outside_memory_names_no_entry_w11() -> None:
    fixture = Fixture()
    with pytest.raises(Fault) as caught:
        translate_table(fixture.guest.memory, N, 0x3_0000_0004, 1, Access.LOAD)
    assert caught.value.kind is FaultKind.UNREADABLE
    assert caught.value.entry_address is None


class TestXlate:
    def permissions(self, bits: int, quadrant: int = 0, **registers: int) -> int:
        fixture = Fixture()
        fixture.word(TABLE + 16 * 3, PATE_DW0)
        fixture.word(PTE_ENTRY, LEAF_64K & ~0xF | bits)
        state = Registers(pidr=3, **registers)
        return xlate(fixture.guest.memory, state, TABLE | 4, quadrant << 62 | N, Access.LOAD).permissions

    @pytest.mark.parametrize("quadrant", [1, 2])
    def test_quadrants_1_and_2_are_refused(self, quadrant: int) -> None:
        with pytest.raises(Fault) as caught:
            self.permissions(7, quadrant)
        assert walk_errno(caught.value) == -22

    def test_quadrant_3_is_pid_0(self) -> None:
        with pytest.raises(Fault) as caught:
            self.permissions(7, 3)
        assert walk_errno(caught.value) == -22  # entry 0 holds no tree

    def test_privileged_pages(self) -> None:
        assert self.permissions(0xF, msr=MSR_PR) == 0
        assert self.permissions(0x7, msr=MSR_PR) == RWX
        assert self.permissions(0xF, msr=0) == RWX

    @pytest.mark.parametrize(
        ("registers", "left"),
        [
            ({"amr": 1 << 62}, WRITE | EXECUTE),
            ({"amr": 1 << 63}, READ | EXECUTE),
            ({"iamr": 1 << 62}, READ | WRITE),
            ({"iamr": 1 << 63}, RWX),
        ],
    )
    def test_key_0(self, registers: dict[str, int], left: int) -> None:
        assert self.permissions(0x7, msr=0, **registers) == left
        assert self.permissions(0xF, msr=0, **registers) == RWX
        assert self.permissions(0x7, msr=MSR_PR, **registers) == RWX
