"""Recorded hash translations, and hash L1s: all accesses agree; an L1 that changes its translation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nestmmu.access import Access
from nestmmu.addresses import HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.formats import AccessedDirty
from nestmmu.memory import PhysicalMemory
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.outcomes import Outcome
from nestmmu.plugins import Plugins
from nestmmu.points import finish
from nestmmu.slots import LinearBacking, Slot, Slots
from nestmmu.vectors import read_vectors
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_SF
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_hpt.cpu import VECTOR_MACHINE_CHECK
from nestmmu_ppc64_hpt.guest import HashGuest
from nestmmu_ppc64_hpt.hcalls import H_EXACT, HashHcalls
from nestmmu_ppc64_hpt.replay import HashReplayer
from nestmmu_ppc64_hpt.table import HashTable
from nestmmu_ppc64_radix.kvm import KvmHv, KvmNestedGuest
from nestmmu_ppc64_radix.process_table import MmuModes
from nestmmu_ppc64_radix.quirks import Quirk

DATA = Path(__file__).resolve().parents[2] / "data"
PTCR, DISTANCE, HPT = 0x8_0000_0004, 0x4_0000_0000, 0xA_0000_0000


def test_all_recorded_accesses_agree() -> None:
    vectors = read_vectors(DATA / "ppc64_hpt.json.gz")
    replayer = HashReplayer(vectors)
    agreed = 0
    for scene in vectors.scenes:
        for recorded in scene.accesses:
            fields, changed = replayer.perform(scene, recorded)
            assert changed == list(recorded.changed)
            left, right = replayer.comparable(dict(recorded.fields), fields)
            assert left == right
            agreed += 1
    assert agreed == 2400


@pytest.mark.parametrize("dw0", [29, 0x1F, 1 << 63 | 6])
def test_a_pate_that_is_no_hash_table_is_a_machine_check(dw0: int) -> None:
    """HTABSIZE above 28, or HR."""
    memory = PhysicalMemory()
    memory.store(0x100_0000, dw0, 8, "big")
    cpu: Any = Plugins().cpu("ppc64_hpt", {"msr": MSR_SF, "ptcr": 0x100_0000}, memory, AccessedDirty.UPDATE)
    result = cpu.access(Access.LOAD, 0)
    assert isinstance(result, Interrupt)
    assert result.vector == VECTOR_MACHINE_CHECK


def test_an_l1_changes_to_hash_and_enters_its_first_page() -> None:
    """H_REGISTER_PROC_TBL; H_ENTER with the VRMA's entry of page 5 as KVM has it (reference 3.1); and back to radix.

    Slot 7 of PTEG (5 XOR 0x1FFFFFF XOR 0x1FFFFFF << 25) & 0x7FF: 5 XOR 0x7FF.
    """
    memory = PhysicalMemory()
    host = KvmHv(memory, PageAllocator(memory, 0x9_0000_0000, 0x9_4000_0000), ptcr=PTCR, quirks=Quirk.NONE)
    slots, backing = Slots((Slot(0, 0x1000_0000),)), LinearBacking(DISTANCE, 16)
    guest = host.create_guest(HardwareTag(1), slots, backing)
    nested: NestedGuests[KvmNestedGuest] = NestedGuests(host, guest, TagAllocator(2, 64), lambda: 256)
    modes = MmuModes(host, guest, nested, lambda _: HPT)
    assert finish(modes.register(0x18, 0, 0, 0)) == 0
    hashed = HashGuest(guest.tag, HashTable(memory, HPT, 18), guest.memory, slots, backing, 16, lambda _: None)
    slot = (5 ^ 0x7FF) * 8 + 7
    v = 0x4001_FFFF_FF00_0000 | 0x10
    assert HashHcalls(hashed).enter(H_EXACT, slot, v, 0x5000 | 0x190) == (0, slot)
    registers = {"msr": MSR_SF, "ptcr": PTCR, "lpidr": 1}
    cpu: Any = Plugins().cpu("ppc64_hpt", registers, memory, AccessedDirty.UPDATE)
    reached = cpu.access(Access.STORE, 0x5678)
    assert isinstance(reached, Reached)
    assert reached.address == DISTANCE | 0x5678
    assert isinstance(cpu.access(Access.LOAD, 0x6000), Interrupt)
    assert finish(modes.register(0x1C, 0x300_0000, 0, 4)) == 0
    radix: Any = Plugins().cpu("ppc64_radix", registers, memory, AccessedDirty.FAULT)
    assert isinstance(radix.access(Access.LOAD, 0x5678), Interrupt)
    assert not isinstance(radix.access(Access.LOAD, 0x5678), Outcome)
