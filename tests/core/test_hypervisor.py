"""A host alone with its guest, on the toy: its own table, and the fault loop of one access."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.addresses import HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty
from nestmmu.host_faults import HostFaultHandler
from nestmmu.hypervisor import MOST_TRIES, Attempt, LivelockError
from nestmmu.mappings import Mapping
from nestmmu.memory import PhysicalMemory
from nestmmu.outcomes import RESUME, Exit, Outcome, Verdict
from nestmmu.points import Point, finish
from nestmmu.slots import HostPage, LinearBacking, Slot, Slots
from toy_arch.cpu import ToyCpu, Trap
from toy_arch.formats import GRUBBY, LOOK, PAGE, POKE, PRESENT, RUN, USED
from toy_arch.hypervisor import ToyHypervisor, decode
from toy_arch.nest import as_exit

if TYPE_CHECKING:
    from nestmmu.slots import Backing

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
AT, ROOTS, TABLES = 0x10000, 0x8000, 0x100000
TAG = HardwareTag(1)
WRITABLE = PRESENT | PAGE | LOOK | POKE | RUN | USED | GRUBBY
READABLE = PRESENT | PAGE | LOOK | RUN | USED


class Host:
    """A host with one guest, whose memory is at ``AT`` unless its backing says otherwise."""

    def __init__(
        self,
        slot: Slot | None = None,
        backing: Backing | None = None,
        *,
        policy: AccessedDirty = AccessedDirty.UPDATE,
        tables: int = 16,
    ) -> None:
        self.memory = PhysicalMemory(1 << 24)
        allocator = PageAllocator(self.memory, TABLES, TABLES + 4096 * tables)
        self.hypervisor = ToyHypervisor(self.memory, allocator, ROOTS)
        slots = Slots((slot or Slot(0, 256),))
        self.guest = self.hypervisor.create_guest(TAG, slots, backing or LinearBacking(AT, 4))
        self.handler = HostFaultHandler(self.guest)
        self.cpu = ToyCpu(self.memory, ROOTS, TAG, policy)

    def access(self, access: Access, address: int) -> tuple[int | None, Outcome | None, int]:
        """Return where an access ended, the outcome that ended it, and how many faults it took."""
        loop = Attempt(
            lambda: self.cpu.access(access, address), as_exit, lambda exit_: finish(self.handler.handle(exit_))
        )
        result, outcome = loop.run()
        return result.output_address if isinstance(result, Mapping) else None, outcome, len(loop.faults)

    def leaves(self) -> dict[int, tuple[int, int]]:
        """Return the host's table: page start to (page shift, entry)."""
        return {leaf.page_start: (leaf.page_shift, leaf.entry or 0) for leaf in self.guest.table.table.leaves()}


@pytest.mark.parametrize("access", [LOAD, STORE, FETCH])
def test_a_page_is_mapped_when_it_is_used(access: Access) -> None:
    """The host may write it, so it is writable and dirty at once, whatever the access."""
    host = Host()
    assert host.access(access, 0x95) == (AT + 0x95, None, 1)
    assert host.leaves() == {0x90: (4, WRITABLE | AT + 0x90)}
    assert host.access(STORE, 0x9C) == (AT + 0x9C, None, 0)


def test_large_pages_where_both_memories_allow_it() -> None:
    host = Host(backing=LinearBacking(AT, 6))
    assert host.access(LOAD, 0x95) == (AT + 0x95, None, 1)
    assert host.leaves() == {0x80: (6, WRITABLE | AT + 0x80)}


@pytest.mark.parametrize(
    ("slot", "offset", "backing_shift"),
    [
        pytest.param(Slot(0, 256, dirty_log=True), AT, 6, id="dirty-log"),
        pytest.param(Slot(0x90, 0x70), AT, 6, id="slot-begins-inside"),
        pytest.param(Slot(0, 0xB0), AT, 6, id="slot-ends-inside"),
        pytest.param(Slot(0, 256), AT + 0x10, 6, id="lies-otherwise-in-the-host"),
        pytest.param(Slot(0, 256), AT, 5, id="the-hosts-page-is-smaller"),
    ],
)
def test_only_small_pages(slot: Slot, offset: int, backing_shift: int) -> None:
    host = Host(slot, LinearBacking(offset, backing_shift))
    assert host.access(LOAD, 0x95) == (offset + 0x95, None, 1)
    assert host.leaves() == {0x90: (4, WRITABLE | offset + 0x90)}


def test_by_habit_a_large_page_reaches_beyond_its_slot() -> None:
    host = Host(Slot(0x90, 0x70), LinearBacking(AT, 6))
    host.guest.habits = attrs.evolve(host.guest.habits, maps_beyond_slots=True)
    host.access(LOAD, 0x95)
    assert host.leaves() == {0x80: (6, WRITABLE | AT + 0x80)}


def test_a_devices_address() -> None:
    host = Host(Slot(0, 0x90))
    assert host.access(STORE, 0x95) == (None, Outcome(Verdict.EMULATE, address=0x95), 1)
    assert host.leaves() == {}


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("kind", [FaultKind.NOT_PRESENT, FaultKind.ACCESSED_DIRTY])
def test_no_device_has_tables(kind: FaultKind, *, implicit: bool) -> None:
    host = Host(Slot(0, 0x90))
    fault = Fault(kind, "toy table", LOAD, 0x95, implicit=implicit)
    outcome = finish(host.handler.handle(Exit(fault, None)))
    expected = Verdict.INJECT if implicit or kind is FaultKind.ACCESSED_DIRTY else Verdict.EMULATE
    assert outcome.verdict is expected
    assert outcome.fault is (fault if expected is Verdict.INJECT else None)


def test_a_read_only_slot() -> None:
    host = Host(Slot(0, 256, read_only=True))
    assert host.access(LOAD, 0x95) == (AT + 0x95, None, 1)
    assert host.leaves() == {0x90: (4, READABLE | AT + 0x90)}
    where, outcome, _ = host.access(STORE, 0x9C)
    assert where is None
    assert outcome is not None
    assert outcome.verdict is Verdict.INJECT
    assert outcome.fault is not None
    assert (outcome.fault.kind, outcome.fault.access, outcome.fault.input_address) == (
        FaultKind.PERMISSION, STORE, 0x9C,
    )  # fmt: skip
    assert host.leaves() == {0x90: (4, READABLE | AT + 0x90)}


def test_a_page_that_cannot_be_written_yet() -> None:
    """A load maps the page read-only; a store gets a page of its own, elsewhere."""

    class CopyOnWrite:
        def page(self, slot: Slot, address: int, *, write: bool) -> HostPage:
            del slot
            return HostPage(address + (0x30000 if write else 0x20000), 4, writable=write)

    host = Host(backing=CopyOnWrite())
    assert host.access(LOAD, 0x95) == (0x20095, None, 1)
    assert host.leaves() == {0x90: (4, READABLE | 0x20090)}
    assert host.access(STORE, 0x95) == (0x30095, None, 1)
    assert host.leaves() == {0x90: (4, WRITABLE | 0x30090)}
    # The old page was taken away before the new one was there.
    assert [(flush.kind.value, flush.address) for flush in host.hypervisor.flushes] == [("page", 0x90)]


def test_a_host_without_a_page() -> None:
    host = Host(backing=LinearBacking(AT, 4, writable=False))
    assert host.access(STORE, 0x95) == (None, Outcome(Verdict.FAIL, error="EFAULT"), 1)
    host.guest.backing = None
    assert host.access(LOAD, 0x95) == (None, Outcome(Verdict.FAIL, error="EFAULT"), 1)


def test_a_host_without_room_for_a_table() -> None:
    host = Host(tables=1)
    assert host.access(LOAD, 0x95) == (None, Outcome(Verdict.FAIL, error="ENOMEM"), 1)
    assert host.leaves() == {}


def test_a_garbled_table_of_the_hosts_own() -> None:
    host = Host()
    host.memory.write(host.guest.table.table.root.base + 8, (PRESENT | 4).to_bytes(4, "little"))
    assert host.access(LOAD, 0x95) == (None, Outcome(Verdict.FAIL, error="EFAULT"), 1)


class TestAccessedAndDirty:
    """The host's own entry, in each of the three ways that hardware has."""

    @pytest.mark.parametrize(
        ("policy", "faults", "load", "store"),
        [
            (AccessedDirty.UPDATE, 0, USED, USED | GRUBBY),
            (AccessedDirty.FAULT, 1, USED, USED | GRUBBY),
            (AccessedDirty.IGNORE, 0, 0, 0),
        ],
    )
    def test_who_sets_them(self, policy: AccessedDirty, faults: int, load: int, store: int) -> None:
        host = Host(policy=policy)
        host.access(LOAD, 0x95)
        host.guest.table.clear_flags(0x95, accessed=True, dirty=True)
        entry = PRESENT | PAGE | LOOK | POKE | RUN | AT + 0x90
        assert host.access(LOAD, 0x95) == (AT + 0x95, None, faults)
        assert host.leaves() == {0x90: (4, entry | load)}
        assert host.access(STORE, 0x95) == (AT + 0x95, None, faults)
        assert host.leaves() == {0x90: (4, entry | store)}

    def test_of_a_page_that_went_away_meanwhile(self) -> None:
        """The fault was about flags; the entry is gone by the time that the host looks, so it is made anew."""
        host = Host(policy=AccessedDirty.FAULT)
        outcome = finish(host.handler.handle(decode(Trap("GRUBBY", 1, 0x95, STORE))))
        assert outcome is RESUME
        assert host.leaves() == {0x90: (4, WRITABLE | AT + 0x90)}


def test_a_race_with_a_change_is_tried_again() -> None:
    host = Host()
    steps = host.handler.handle(decode(Trap("NOPE", 1, 0x95, LOAD)))
    while next(steps) is not Point.LOCK:
        pass
    host.guest.begin_invalidation()
    host.guest.end_invalidation()
    assert finish(steps) is RESUME
    assert host.leaves() == {}
    assert len(host.hypervisor.allocator.used) == 1
    assert host.access(LOAD, 0x95) == (AT + 0x95, None, 1)


class Flaky:
    """An access that faults the first times."""

    def __init__(self, faults: int) -> None:
        self.left = faults
        self.tried = 0

    def attempt(self) -> str:
        self.tried += 1
        self.left -= 1
        return "fault" if self.left >= 0 else "done"

    def decode(self, result: str) -> Exit | None:
        if result == "done":
            return None
        return Exit(Fault(FaultKind.NOT_PRESENT, "table", LOAD, self.tried), result)


@pytest.mark.parametrize("faults", [0, 1, 5, MOST_TRIES - 1])
def test_an_access_is_tried_until_it_is_done(faults: int) -> None:
    flaky = Flaky(faults)
    loop = Attempt(flaky.attempt, flaky.decode, lambda _: RESUME)
    assert loop.run() == ("done", None)
    assert flaky.tried == faults + 1
    assert [exit_.fault.input_address for exit_, _ in loop.faults] == list(range(1, faults + 1))


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.RESUME])
def test_any_other_verdict_ends_it(verdict: Verdict) -> None:
    flaky = Flaky(9)
    outcomes = iter([RESUME, Outcome(verdict)])
    loop = Attempt(flaky.attempt, flaky.decode, lambda _: next(outcomes))
    assert loop.run() == ("fault", Outcome(verdict))
    assert [outcome.verdict for _, outcome in loop.faults] == [Verdict.RESUME, verdict]


def test_an_access_that_never_ends_is_a_livelock() -> None:
    flaky = Flaky(MOST_TRIES)
    with pytest.raises(LivelockError, match="table: not present for a load of 0x40"):
        Attempt(flaky.attempt, flaky.decode, lambda _: RESUME).run()
    assert flaky.tried == MOST_TRIES == 0x40


@given(
    begin=st.integers(0, 15), pages=st.integers(1, 16), offset=st.integers(0, 8), shift=st.sampled_from([4, 5, 6]),
    log=st.booleans(), accesses=st.lists(st.tuples(st.integers(0, 255), st.sampled_from(list(Access))), max_size=20),
)  # fmt: skip
def test_a_guest_reaches_its_slot_and_nothing_else(
    *, begin: int, pages: int, offset: int, shift: int, log: bool, accesses: list[tuple[int, Access]]
) -> None:
    base, end = 16 * begin, min(256, 16 * (begin + pages))
    host = Host(Slot(base, end - base, dirty_log=log), LinearBacking(AT + 16 * offset, shift))
    for address, access in accesses:
        where, outcome, faults = host.access(access, address)
        assert faults <= 1
        if base <= address < end:
            assert (where, outcome) == (AT + 16 * offset + address, None)
        else:
            assert outcome == Outcome(Verdict.EMULATE, address=address)
    for leaf in host.guest.table.table.leaves():
        assert base <= leaf.page_start
        assert leaf.page_start + (1 << leaf.page_shift) <= end
        assert leaf.target_start == leaf.page_start + AT + 16 * offset
        assert leaf.permissions == READ | WRITE | EXECUTE
