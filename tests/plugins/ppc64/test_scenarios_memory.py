"""Scenarios of the reference on L1's memory and L2's: TF10, TG13, TG14, TH10, TH12, TH19, TH20, TI1, TJ20."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ppc64_fixture import GPA_TO_HPA, LEAF_64K, PATE_DW0, N
from ppc64_nest import GPA, LARGE, NONE, PAGE, PAGE_OF_PID, REAL, Nest

from nestmmu import upkeep
from nestmmu.access import Access
from nestmmu.formats import AccessedDirty
from nestmmu.outcomes import Verdict
from nestmmu.points import finish
from nestmmu.slots import Slot
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_radix import nested_hcalls
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import decode, inject
from nestmmu_ppc64_radix.nested_entry import L1Vcpu, L2Exit, NestedEntry
from nestmmu_ppc64_radix.nested_hcalls import RptRequest
from nestmmu_ppc64_radix.process_table import MmuModes
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from collections.abc import Callable

    from nestmmu.guests import Guest

STORE = Access.STORE
LEAF = 0xC000000580050000
QUIRKS = pytest.mark.parametrize("quirks", [Quirk.LINUX_6_1, Quirk.NONE], ids=["K", "C"])


@QUIRKS
@pytest.mark.parametrize("ask", [upkeep.age, upkeep.take_dirty])
@pytest.mark.parametrize("bits", [0x187, 0x1BF, 0x105, 0x007, 0x1A6, 0x180])
def test_upkeep_changes_reference_and_change_alone_tf10(
    quirks: Quirk, ask: Callable[[Guest, int], bool], bits: int
) -> None:
    nest = Nest(quirks)
    nest.handle(nest.store())
    nest.nested.shadow.remove(PAGE)
    nest.guest.table.removed = None
    nest.guest.table.remove(GPA)
    nest.plant_l0(GPA, LEAF | bits)
    nest.plant_shadow(PAGE, LEAF | bits)
    asked = 0x100 if ask is upkeep.age else 0x080
    assert ask(nest.guest, GPA) == bool(bits & asked)
    assert nest.low() == (bits & ~asked, bits & ~asked)


@QUIRKS
def test_a_slot_that_is_being_moved_is_no_slot_tg13(quirks: Quirk) -> None:
    """What a fault finds between the two halves of a move: an address of a device, or of a table that is not there."""
    nest = Nest(quirks)
    whole = next(iter(nest.guest.slots))
    low, high = Slot(0, 0x1_0000_0000), Slot(0x1_0000_0000, 0x1_0000_0000)
    upkeep.replace_slot(nest.guest, whole, low)
    upkeep.replace_slot(nest.guest, None, high)
    assert nest.access(STORE) == REAL
    upkeep.replace_slot(nest.guest, high, None)
    assert nest.low() == (None, None)
    outcome = nest.handle(nest.store())
    assert (outcome.verdict, outcome.address) == (Verdict.EMULATE, 0x180056789)
    implicit = decode(nest.load(0x40020000))
    assert inject(nest.handle_exit(implicit), implicit, quirks).get("dsisr") == 0x40020000
    assert nest.shadow() is None
    upkeep.replace_slot(nest.guest, None, high)
    assert nest.access(STORE) == REAL
    assert nest.broken() == NONE


@QUIRKS
def test_an_l1_that_goes_over_to_hash_tg14(quirks: Quirk) -> None:
    nest = Nest(quirks)
    nest.access(STORE)
    finish(nest.guests.put(nest.enter(6)))
    modes = MmuModes(nest.host, nest.guest, nest.guests, lambda _: 0x0000000400000006)
    assert finish(modes.configure(0, radix=False, guest_tlbie=False)) == 0
    assert (nest.guest.nested, nest.tags.used, len(nest.guest.rmap)) == ({}, set(), 0)
    assert nest.l0_leaf(GPA) is None
    entry = NestedEntry(nest.host, nest.guest, nest.guests, L1Vcpu())
    assert finish(entry.enter(0x0500_0000, 0x0501_0000, lambda _: L2Exit(2, nest.load()))).r3 == -2
    pates = nest.memory.read(0x8_0000_0000, 16 * 9)
    assert pates[16:32] == (0x0000000400000006).to_bytes(8, "big") + bytes(8)
    assert pates[16 * 7 :] == bytes(32)


@QUIRKS
def test_a_partition_table_entry_that_has_changed_reaches_the_hardware_th10(quirks: Quirk) -> None:
    nest = Nest(quirks)
    nest.access(STORE)
    at = 0x8_0000_0000 + 16 * 7
    before = nest.memory.read(at, 8)
    nest.word(0x0100_0058, 0x0000_0000_0400_0004)
    assert nest.memory.read(at + 8, 8) == (0x0000_0000_0300_0004).to_bytes(8, "big")
    assert nest.tlbie(0x90000, 5, 0x800) == 0
    assert nest.memory.read(at, 16) == before + (0x0000_0000_0400_0004).to_bytes(8, "big")
    assert list(nest.nested.shadow.table.leaves()) == []
    assert len(nest.plugin.tlb) == 0


@QUIRKS
def test_every_lpid_with_its_partition_table_entry_th12(quirks: Quirk) -> None:
    nest = Nest(quirks)
    nest.word(0x0100_0060, PATE_DW0 + 0x10000)
    held = [nest.enter(lpid) for lpid in (6, 9)]
    for one in (nest.nested, *held):
        nest.plant(one.shadow, PAGE, LEAF | 0x187, 16)
    nest.flushes.clear()
    assert nest.tlbie(0x90000, 0, 0xC00) == 0
    assert [tag for tag, kind, *_ in nest.flush_log() if kind == "tag"] == [7, 8, 9]
    assert [list(one.shadow.table.leaves()) for one in (nest.nested, *held)] == [[], [], []]
    assert [one.gr_to_hr for one in (nest.nested, *held)] == [PATE_DW0, PATE_DW0 + 0x10000, 0]
    assert sorted(nest.guest.nested) == [5, 6]
    assert [one.references for one in held] == [2, 1]


@QUIRKS
def test_l1_follows_what_l2_writes_by_its_own_change_bit_th19(quirks: Quirk) -> None:
    nest = Nest(quirks)
    assert nest.access(STORE) == REAL
    assert nest.low() == (0x187, 0x187)
    nest.leaf(LEAF_64K & ~0x080)
    assert nest.tlbie() == 0
    nest.exits.clear()
    assert nest.access(STORE) is Verdict.REFLECT
    assert nest.exits == [0x42000000, 0x02040000]
    assert nest.low() == (0x187, 0x107)
    nest.leaf(LEAF_64K)
    assert nest.access(STORE) == REAL
    assert nest.low() == (0x187, 0x187)
    assert nest.broken() == NONE


@QUIRKS
def test_l1_that_ages_without_an_invalidation_learns_nothing_th20(quirks: Quirk) -> None:
    nest = Nest(quirks)
    nest.access(STORE)
    nest.exits.clear()
    nest.leaf(LEAF_64K & ~0x100)
    assert nest.access() == REAL
    without_tlb = Power9Radix(nest.cpu.registers, nest.memory, reference_change=AccessedDirty.FAULT)
    reached = without_tlb.access(Access.LOAD, N)
    assert isinstance(reached, Reached)
    assert reached.address == REAL
    assert nest.exits == []
    assert nest.read_word(0x02012028) == LEAF_64K & ~0x100


@QUIRKS
def test_33_pages_are_33_invalidations_ti1(quirks: Quirk) -> None:
    nest = Nest(quirks)
    starts = [LARGE + (index << 16) for index in range(34)]
    for start in starts:
        nest.plant_shadow(start, LEAF | 0x187)
    nest.flushes.clear()
    request = RptRequest(5, 1, 3, 2, LARGE, 0x123610000)
    assert finish(nest.hcalls.rpt_invalidate(request)) == 0
    assert nest.flush_log() == [(7, "page", start, 16) for start in starts[:33]]
    assert [leaf.page_start for leaf in nest.nested.shadow.table.leaves()] == [0x123610000]


@pytest.mark.parametrize(
    ("pid", "reached"), [(3, (0x4000000000001000, 7, 3)), (0, (0x8000000000001000, 7, 0))], ids=["pid-3", "pid-0"]
)
@pytest.mark.parametrize("load", [True, False])
def test_a_copy_goes_through_quadrant_1_or_2_of_the_shadows_lpid_tj20(
    monkeypatch: pytest.MonkeyPatch, pid: int, reached: tuple[int, int, int], *, load: bool
) -> None:
    seen = []

    class Watched(Power9Radix):
        def access(self, access: Access, address: int, at: int | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN202
            seen.append((address, self.registers.lpidr, self.registers.pidr))
            return super().access(access, address, at)

    monkeypatch.setattr(nested_hcalls, "Power9Radix", Watched)
    nest = Nest()
    nest.with_processes()
    texts = {3: b"of pid 3", 0: b"of pid 0"}
    for one, text in texts.items():
        nest.memory.write(PAGE_OF_PID[one] + 0x1000, text)
    nest.memory.write(0x6000 + GPA_TO_HPA, b"from L1.")
    assert nest.copy(pid=pid, **({} if load else {"to": 0, "source": 0x6000})) == 0
    assert seen == [reached]
    assert nest.l1(0x5000) == (texts[pid] if load else bytes(8))
    now = {one: nest.memory.read(PAGE_OF_PID[one] + 0x1000, 8) for one in texts}
    assert now == (texts if load else texts | {pid: b"from L1."})
