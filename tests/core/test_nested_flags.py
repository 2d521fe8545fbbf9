"""Accessed and dirty of three tables at once, in each way that hardware has; and what else ends the toy's ladder."""

from __future__ import annotations

import pytest

from nestmmu.access import Access
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.hypervisor import LivelockError
from nestmmu.mappings import Mapping
from nestmmu.nested_faults import REFLECT_UNCHANGED
from nestmmu.outcomes import RESUME, Exit, Outcome, Verdict
from nestmmu.slots import Slot, Slots
from nestmmu.upkeep import replace_slot
from toy_arch.formats import GRUBBY, LOOK, PAGE, PRESENT, USED
from toy_arch.nest import ALL, DATA, L1_AT, L1_LOWER, ToyNest

LOAD, STORE = Access.LOAD, Access.STORE
UPDATE, FAULT, IGNORE = AccessedDirty.UPDATE, AccessedDirty.FAULT, AccessedDirty.IGNORE
BOTH = USED | GRUBBY


def shadow_flags(nest: ToyNest) -> int:
    return nest.shadow()[0x30][2] & BOTH


def host_flags(nest: ToyNest) -> int:
    leaf = nest.guest.table.lookup(DATA)
    assert leaf is not None
    return (leaf.entry or 0) & BOTH


def l1_flags(nest: ToyNest) -> int:
    return nest.read_word(L1_LOWER + 4 * 3) & BOTH


def flagged(access: Access) -> Exit:
    return Exit(Fault(FaultKind.ACCESSED_DIRTY, "toy table", access, 0x35), None)


@pytest.mark.parametrize(
    ("policy", "order", "faults", "flags"),
    [
        # A load maps the page as used, and as grubby only what L2 stores to.
        pytest.param(FAULT, (LOAD, STORE), (1, 1), (USED, BOTH), id="fault-load-store"),
        pytest.param(FAULT, (STORE, LOAD), (1, 0), (BOTH, BOTH), id="fault-store-load"),
        pytest.param(UPDATE, (LOAD, STORE), (1, 0), (USED, BOTH), id="update-load-store"),
        pytest.param(UPDATE, (STORE, LOAD), (1, 0), (BOTH, BOTH), id="update-store-load"),
        pytest.param(IGNORE, (LOAD, STORE), (1, 0), (USED, USED), id="ignore-load-store"),
        pytest.param(IGNORE, (STORE, LOAD), (1, 0), (BOTH, BOTH), id="ignore-store-load"),
    ],
)
def test_both_orders(
    policy: AccessedDirty, order: tuple[Access, Access], faults: tuple[int, int], flags: tuple[int, int]
) -> None:
    nest = ToyNest(accessed_dirty=policy)
    nest.map(3, DATA)
    for access, taken, left in zip(order, faults, flags, strict=True):
        result, outcome, count = nest.access(access, 0x35)
        assert isinstance(result, Mapping)
        assert (outcome, count) == (None, taken)
        assert shadow_flags(nest) == left
    assert (host_flags(nest), l1_flags(nest)) == (BOTH, BOTH)


@pytest.mark.parametrize("access", [LOAD, STORE])
@pytest.mark.parametrize("l1", [0, USED, GRUBBY, BOTH])
@pytest.mark.parametrize("host", [0, USED, GRUBBY, BOTH])
@pytest.mark.parametrize("shadow", [0, USED, GRUBBY])
def test_who_has_to_set_what(access: Access, l1: int, host: int, shadow: int) -> None:
    """L1's own flags are L1's to set; where it has them the host sets its own and the shadow's, and no others."""
    nest = ToyNest(accessed_dirty=FAULT)
    nest.map(3, DATA)
    nest.access(LOAD, 0x35)
    nest.map(3, DATA, ALL & ~BOTH | l1)
    for editor, at, flags in ((nest.guest.table, DATA, host), (nest.nested.shadow, 0x30, shadow)):
        editor.clear_flags(at, accessed=True, dirty=True)
        editor.add_flags(at, accessed=bool(flags & USED), dirty=bool(flags & GRUBBY))
    needed = BOTH if access is STORE else USED
    outcome = nest.handle(flagged(access))
    if l1 & needed == needed:
        assert outcome is RESUME
        assert (host_flags(nest), shadow_flags(nest)) == (host | needed, shadow | needed)
    else:
        assert outcome is REFLECT_UNCHANGED
        assert (host_flags(nest), shadow_flags(nest)) == (host, shadow)
    assert l1_flags(nest) == l1


def test_a_host_entry_that_may_not_be_written_takes_the_shadows_with_it() -> None:
    nest = ToyNest(accessed_dirty=FAULT)
    nest.map(3, DATA)
    nest.access(LOAD, 0x35)
    where = nest.guest.table.lookup(DATA)
    assert where is not None
    assert where.entry_address is not None
    before = PRESENT | PAGE | LOOK | USED | L1_AT + DATA
    nest.memory.write(where.entry_address, before.to_bytes(4, "little"))
    nest.host.flushes.clear()
    assert nest.handle(flagged(STORE)) is RESUME
    assert nest.shadow() == {}
    assert nest.flush_log() == [(2, "page", 0x30, 4)]
    assert nest.memory.load(where.entry_address, 4, "little") == before
    # The next try finds a page that may be written.
    result, outcome, faults = nest.access(STORE, 0x35)
    assert isinstance(result, Mapping)
    assert (outcome, faults) == (None, 1)


def test_a_shadow_entry_that_is_gone_leaves_the_hosts_flags_set() -> None:
    nest = ToyNest(accessed_dirty=FAULT)
    nest.map(3, DATA)
    nest.access(LOAD, 0x35)
    nest.guest.table.clear_flags(DATA, accessed=True, dirty=True)
    nest.nested.shadow.remove(0x30)
    assert nest.handle(flagged(STORE)) is RESUME
    assert (host_flags(nest), nest.shadow()) == (BOTH, {})


@pytest.mark.parametrize("more", [False, True])
def test_a_fault_of_flags_and_more_goes_on_to_the_rest(*, more: bool) -> None:
    """L1 has moved the page: flags alone leave the shadow where it leads, with more to mend it is made anew."""
    nest = ToyNest(accessed_dirty=FAULT)
    for page, target in ((3, DATA), (4, DATA + 16)):
        nest.map(page, target)
        nest.access(LOAD, page << 4)
    nest.map(3, DATA + 16)
    kinds = FaultKind.ACCESSED_DIRTY | (FaultKind.NOT_PRESENT if more else FaultKind(0))
    assert nest.handle(Exit(Fault(kinds, "toy table", STORE, 0x35), None)) is RESUME
    target = L1_AT + DATA + (16 if more else 0)
    assert nest.shadow()[0x30] == (target, 4, PRESENT | PAGE | target | ALL)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_table_of_l2s_is_no_device(*, implicit: bool) -> None:
    nest = ToyNest()
    nest.guest.slots = Slots((Slot(0, DATA),))
    nest.map(3, DATA)
    fault = Fault(FaultKind.NOT_PRESENT, "toy table", LOAD, 0x35, implicit=implicit)
    outcome = nest.handle(Exit(fault, None))
    if implicit:
        assert outcome == Outcome(Verdict.INJECT, fault=fault)
    else:
        assert outcome == Outcome(Verdict.EMULATE, address=DATA + 5)


def test_without_a_page_for_the_shadow_there_is_no_progress() -> None:
    """The host's own table takes the second and third page; the shadow's lower table would be the fourth."""
    nest = ToyNest(tables=3 * 4096)
    nest.map(3, DATA)
    with pytest.raises(LivelockError):
        nest.access(LOAD, 0x35)
    assert nest.shadow() == {}
    nest.allocator.limit += 4096
    assert isinstance(nest.access(LOAD, 0x35)[0], Mapping)


def test_without_a_page_for_the_hosts_own_table_the_access_fails() -> None:
    nest = ToyNest(tables=2 * 4096)
    nest.map(3, DATA)
    _, outcome, faults = nest.access(LOAD, 0x35)
    assert (outcome, faults) == (Outcome(Verdict.FAIL, error="ENOMEM"), 1)


def test_what_a_deleted_slot_left_in_the_reverse_map_is_forgotten() -> None:
    """An entry that is out of date stands under a frame behind which the host has no page."""
    nest = ToyNest()
    nest.map(3, DATA)
    nest.access(LOAD, 0x35)
    (entry,) = nest.guest.rmap.entries(DATA >> 4)
    nest.guest.rmap.insert(0, entry)
    replace_slot(nest.guest, nest.slot, None)
    assert (nest.shadow(), nest.guest.rmap.frames()) == ({}, [])
