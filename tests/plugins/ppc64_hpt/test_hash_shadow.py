"""Nested hash guests: L1's hash table in its memory, L0's shadow in two placements, by the core's fault loop."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestmmu import upkeep
from nestmmu.access import Access
from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.formats import AccessedDirty
from nestmmu.guests import NestedGuest
from nestmmu.hypervisor import Attempt
from nestmmu.invariants import violations
from nestmmu.memory import PhysicalMemory
from nestmmu.outcomes import Outcome, Verdict
from nestmmu.plugins import Plugins
from nestmmu.points import finish
from nestmmu.slots import LinearBacking, Slot, Slots
from nestmmu.tlb import TlbPlugin
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_IR, MSR_SF
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_hpt.hashing import Segment, make_v, segment_of, tlbie_groups, tlbie_rb, vsid_word
from nestmmu_ppc64_hpt.nested import HashComposer, HashNestedFaults, Marking, decode, reflected_cause
from nestmmu_ppc64_hpt.pages import lp_bits
from nestmmu_ppc64_hpt.shadow import HashShadow, MappedSegments, Placement, SameSlot
from nestmmu_ppc64_hpt.table import HashTable
from nestmmu_ppc64_hpt.virtual import NumberedTable
from nestmmu_ppc64_radix.kvm import KvmHv
from nestmmu_ppc64_radix.quirks import Quirk

LOAD, STORE, FETCH = Access.LOAD, Access.STORE, Access.FETCH
DISTANCE, PTCR, SHADOW_LPID = 0x4_0000_0000, 0x8_0000_0004, 7
SHADOWS, L1_TABLE = 0xA_0000_0000, 0x100_0000
MEMORY = Slot(0, 0x800_0000)
R, C, M = 0x100, 0x080, 0x010
LPCR_VPM1 = 1 << 62
KS = 0x800


class Nest:
    """A radix L1 that runs a hash L2, whose segments it maps by VSIDs from 0x100 on, effective address by 256 MiB."""

    def __init__(
        self,
        placement: Placement | None = None,
        backing_shift: int = 24,
        order: int = 18,
        marking: Marking = Marking.FIRST_STORE,
    ) -> None:
        self.memory = PhysicalMemory()
        allocator = PageAllocator(self.memory, 0x9_0000_0000, 0x9_4000_0000)
        self.host = KvmHv(self.memory, allocator, page_shift=12, ptcr=PTCR, quirks=Quirk.NONE)
        self.guest = self.host.create_guest(HardwareTag(1), Slots((MEMORY,)), LinearBacking(DISTANCE, backing_shift))
        self.placement = SameSlot() if placement is None else placement
        hash_table = HashTable(self.memory, SHADOWS, order)
        self.shadow = HashShadow(hash_table, HardwareTag(SHADOW_LPID), self.host.flush, self.placement)
        self.nested = NestedGuest(AssignedTag(5), HardwareTag(SHADOW_LPID), self.shadow)
        self.guest.nested[AssignedTag(5)] = self.nested
        self.l1 = HashTable(self.guest.memory, L1_TABLE, 18)
        self.nested.table = NumberedTable(self.l1)
        self.host.set_pate(HardwareTag(SHADOW_LPID), SHADOWS | order - 18, 0)
        self.handler = HashNestedFaults(self.guest, HashComposer(marking), self.host.tell)
        self.tlb = TlbPlugin()
        plugins = Plugins()
        plugins.register(self.tlb, "TLB")
        registers = {"msr": MSR_SF | MSR_DR | MSR_IR, "ptcr": PTCR, "lpidr": SHADOW_LPID, "lpcr": LPCR_VPM1}
        self.cpu: Any = plugins.cpu("ppc64_hpt", registers, self.memory, AccessedDirty.UPDATE)
        self.host.listeners.append(self.tlb.flush)
        self.faults = 0

    def segment(self, number: int, base: int = 12) -> Segment:
        found = segment_of(vsid_word(0x100 + number, 28, base, KS))
        assert found is not None
        return found

    def enter(
        self, offset: int, real: int, pp: int = 2, pair: tuple[int, int] = (12, 12), *, secondary: bool = False
    ) -> int:
        """Have L1 map a page of L2's segment 0, by a word in its own memory; return the slot."""
        one = self.segment(0, pair[0])
        large, penc = lp_bits(*pair)
        slot = self.l1.free_slot(self.l1.candidates(one, offset)[secondary])
        assert slot is not None
        self.l1.write(slot, make_v(one, offset, large=bool(large), secondary=secondary), real | penc | M | pp)
        return slot

    def access(self, address: int, access: Access = LOAD, base: int = 12) -> int | Outcome:
        """Let L2 make an access in its segments, and L0 handle what it has to."""
        slb = self.cpu.slb
        slb.slbia(4)
        original = self.segment(address >> 28, base)
        slb.slbmte(self.placement.segment(original).word, address >> 28 << 28 | 1 << 27)

        def handle(exit_):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            self.faults += 1
            return finish(self.handler.handle(self.nested, exit_))

        def decoded(result: Reached | Interrupt):  # type: ignore[no-untyped-def]  # noqa: ANN202
            if not isinstance(result, Interrupt):
                return None
            found = decode(result)
            if found is not None and self.placement.segment(original).word != original.word:
                registers = result.registers | {"asdr": original.word}
                found = decode(Interrupt(result.vector, registers, result.hv))
            return found

        result, outcome = Attempt(functools.partial(self.cpu.access, access, address), decoded, handle).run()
        self.last = result
        if outcome is not None:
            return outcome
        assert isinstance(result, Reached)
        return result.address


PLACEMENTS = [SameSlot, functools.partial(MappedSegments, 0x5000, 64)]
both = pytest.mark.parametrize("placement", PLACEMENTS, ids=["one-to-one", "re-hashed"])


@both
def test_a_load_is_mapped_read_only_and_the_store_makes_it_dirty_tp18(placement) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Two faults; L1's entry has R from L0 after the first, and C after the second, and so has L0's own."""
    nest = Nest(placement())
    slot = nest.enter(0x5000, 0x12_3000)
    assert nest.access(0x5008) == DISTANCE | 0x12_3008
    assert nest.l1.read(slot)[1] == 0x12_3000 | R | M | 2
    (leaf,) = nest.shadow.leaves()
    assert (leaf.permissions & 2, leaf.accessed, leaf.dirty) == (0, True, False)
    assert nest.access(0x5010, STORE) == DISTANCE | 0x12_3010
    assert nest.l1.read(slot)[1] == 0x12_3000 | R | C | M | 2
    (leaf,) = nest.shadow.leaves()
    assert leaf.dirty
    host = nest.guest.table.lookup(0x12_3000)
    assert host is not None
    assert host.dirty
    assert nest.faults == 2
    assert violations(nest.guest) == []
    assert nest.tlb.stale == []


@both
def test_marked_when_mapped_no_later_store_is_seen_s10(placement) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """A load maps the page writable; L0's own entry is dirty from then on, and L1's never becomes so."""
    nest = Nest(placement(), marking=Marking.AT_MAP)
    slot = nest.enter(0x5000, 0x12_3000)
    nest.enter(0x6000, 0x12_4000, pp=3)
    nest.access(0x5000)
    host = nest.guest.table.lookup(0x12_3000)
    assert host is not None
    assert host.dirty
    nest.access(0x5000, STORE)
    assert nest.faults == 1
    assert nest.l1.read(slot)[1] == 0x12_3000 | R | M | 2
    nest.access(0x6000)
    assert sorted(leaf.dirty for leaf in nest.shadow.leaves()) == [False, True]


def test_one_to_one_is_the_slot_of_l1() -> None:
    nest = Nest()
    first = nest.enter(0x5000, 0x12_3000)
    second = nest.enter(0x6000, 0x12_4000, secondary=True)
    for address in (0x5000, 0x6000):
        nest.access(address)
    assert [slot for slot, _, _ in nest.shadow.hash_table.valid()] == sorted((first, second))


def test_a_slot_that_l1_gives_to_another_page_is_given_up_in_the_shadow() -> None:
    nest = Nest()
    slot = nest.enter(0x5000, 0x12_3000)
    nest.access(0x5000)
    one = nest.segment(0)
    nest.l1.write(slot, 0, 0)
    nest.shadow.invalidate(tlbie_rb(make_v(one, 0x5000, large=False), 0x12_3000, slot))
    assert list(nest.shadow.leaves()) == []
    assert nest.access(0x5000).verdict is Verdict.REFLECT  # type: ignore[union-attr]


@both
def test_what_l1_does_not_map_or_permit_is_l1s_to_hear(placement) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    nest = Nest(placement())
    assert nest.access(0x5000, STORE).verdict is Verdict.REFLECT  # type: ignore[union-attr]
    nest.enter(0x5000, 0x12_3000, pp=3)
    outcome = nest.access(0x5000, STORE)
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is Verdict.REFLECT
    assert outcome.fault is not None
    assert list(nest.shadow.leaves()) == []


@pytest.mark.parametrize(
    ("pp", "access", "cause"),
    [(None, LOAD, 0x4000_0000), (None, STORE, 0x4200_0000), (3, STORE, 0x0A00_0000), (0, LOAD, 0x0800_0000)],
)
def test_the_cause_that_l1_sees(pp: int | None, access: Access, cause: int) -> None:
    """No entry; no entry for a store; read-only; none for key 1, which Ks makes of the kernel of L2."""
    nest = Nest()
    if pp is not None:
        nest.enter(0x5000, 0x12_3000, pp=pp)
    outcome = nest.access(0x5000, access)
    assert isinstance(outcome, Outcome)
    assert outcome.fault is not None
    exit_ = decode(nest.last)
    assert exit_ is not None
    assert reflected_cause(outcome.fault, exit_.record) == cause


def test_a_host_page_that_is_smaller_than_l1s_x6() -> None:
    nest = Nest(backing_shift=12)
    nest.enter(0, 0x100_0000, pair=(12, 16))
    outcome = nest.access(0)
    assert isinstance(outcome, Outcome)
    assert (outcome.verdict, outcome.error) == (Verdict.FAIL, "EINVAL")


def test_outside_l1s_memory_is_a_device() -> None:
    nest = Nest()
    nest.enter(0x5000, MEMORY.end)
    assert nest.access(0x5000).verdict is Verdict.EMULATE  # type: ignore[union-attr]


@both
def test_what_l0_takes_away_is_gone_by_the_reverse_map(placement) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    nest = Nest(placement())
    for page in range(4):
        nest.enter(page << 12, 0x12_0000 + (page << 12))
        nest.access(page << 12, STORE)
    assert len(nest.guest.rmap) == 4
    upkeep.unmap(nest.guest, 0x12_1000)
    assert list(nest.shadow.leaves()) == []
    assert nest.access(0x1000) == DISTANCE | 0x12_1000
    assert nest.tlb.stale == []
    assert violations(nest.guest) == []


@both
def test_the_dirty_log_takes_the_entry_away_so_that_the_next_store_is_seen_x7(placement) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    nest = Nest(placement(), backing_shift=12)
    nest.enter(0x5000, 0x12_3000)
    nest.access(0x5000, STORE)
    assert upkeep.take_dirty(nest.guest, 0x12_3000)
    assert list(nest.shadow.leaves()) == []
    assert not upkeep.take_dirty(nest.guest, 0x12_3000)
    nest.access(0x5000, STORE)
    assert upkeep.take_dirty(nest.guest, 0x12_3000)
    assert nest.tlb.stale == []


@both
def test_a_tlbie_of_one_page_removes_exactly_that_tp17(placement) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    nest = Nest(placement())
    for page in range(6):
        nest.enter(page << 12, 0x12_0000 + (page << 12))
        nest.access(page << 12)
    one = nest.placement.segment(nest.segment(0))
    slot = nest.shadow.hash_table.candidates(one, 0x3000)[0]
    assert nest.shadow.invalidate(tlbie_rb(make_v(one, 0x3000, large=False), 0, slot)) == 1
    assert sorted(leaf.input_address & 0xFFFFF for leaf in nest.shadow.leaves()) == [0, 0x1000, 0x2000, 0x4000, 0x5000]
    assert len(nest.tlb.tlb) == 5


@pytest.mark.parametrize("order", [18, 24, 46])
@given(vsid=st.integers(0, (1 << 38) - 1), page=st.integers(0, (1 << 28) - 1), large=st.booleans(), place=st.booleans(),
       base=st.sampled_from([12, 16, 24]))  # fmt: skip
def test_a_tlbie_names_the_groups_that_its_page_may_be_in_x8(
    order: int, vsid: int, page: int, large: bool, place: bool, base: int
) -> None:
    """At most 2^14 pairs, of the largest table; one pair where the top of the address is not hashed into its number."""
    one = segment_of(vsid_word(vsid, 40 if large else 28, base))
    assert one is not None
    mask = (1 << order - 7) - 1
    offset = page << base & one.offset_mask
    slot = ((~one.hash(offset) if place else one.hash(offset)) & mask) * 8
    bits, penc = lp_bits(base, base)
    groups = tlbie_groups(tlbie_rb(make_v(one, offset, large=bool(bits), secondary=place), penc, slot), mask)
    assert groups is not None
    assert slot // 8 in groups
    assert len(groups) <= (2 if order < 30 else 1 << 15)


@pytest.mark.parametrize("rb", [0x2001, 0x200, 0x300])
def test_a_tlbie_of_no_page(rb: int) -> None:
    with pytest.raises(ValueError, match="no page of POWER9"):
        tlbie_groups(rb, 0x7FF)


class TestMappedSegments:
    def test_the_fold_is_of_nine_bits(self) -> None:
        assert MappedSegments.fold(0x123456) == 0x056 ^ 0x11A ^ 0x004

    def test_two_of_one_fold_stand_in_the_slot_and_in_its_mirror(self) -> None:
        segments = MappedSegments(0x5000, 8)
        assert [segments.mapped(vsid, 28) for vsid in (1, 1 << 9, 1, 1 << 9)] == [0x5000, 0x5001, 0x5000, 0x5001]
        assert segments.mapped(1, 40) == 0x5002

    def test_a_third_takes_the_place_of_one(self) -> None:
        segments = MappedSegments(0x5000, 8)
        for vsid in (1, 1 << 9, 1 << 18):
            segments.mapped(vsid, 28)
        assert segments.original(0x5002, 28) == 1 << 18
        assert None in {segments.original(0x5000, 28), segments.original(0x5001, 28)}

    def test_when_all_are_given_away_everything_goes(self) -> None:
        gone: list[bool] = []
        segments = MappedSegments(0x5000, 2, lambda: gone.append(True))
        assert [segments.mapped(vsid, 28) for vsid in (1, 2, 3)] == [0x5000, 0x5001, 0x5000]
        assert gone == [True]
        assert segments.original(0x5001, 28) is None

    def test_no_more_entries_than_the_limit_s5(self) -> None:
        nest = Nest(MappedSegments(0x5000, 8))
        nest.shadow.most = 3
        for page in range(4):
            nest.enter(page << 12, 0x12_0000 + (page << 12))
            nest.access(page << 12)
        assert nest.shadow.count == 1


PAGES = st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([1, 2, 2, 3]), st.booleans())
STEPS = st.lists(
    st.tuples(st.sampled_from(["access", "access", "unmap", "dirty", "age", "change"]), st.integers(0, 5),
              st.sampled_from(list(Access))),
    max_size=25,
)  # fmt: skip


@both
@settings(max_examples=40)
@given(pages=st.lists(PAGES, max_size=6, unique_by=lambda page: page[0]), steps=STEPS)
def test_the_invariants_and_the_truth(placement, pages, steps) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """L2 reaches what L1's and L0's tables say, or the fault that they say, whatever L0 does behind it."""
    nest = Nest(placement(), backing_shift=12)
    mapped: dict[int, tuple[int, int, int]] = {}
    for page, target, pp, secondary in pages:
        slot = nest.enter(page << 12, 0x12_0000 + (target << 12), pp, secondary=secondary)
        mapped[page] = 0x12_0000 + (target << 12), pp, slot
    written: set[int] = set()
    for what, page, access in steps:
        target = 0x12_0000 + (page << 12)
        if what == "access":
            result = nest.access(page << 12, access)
            known = mapped.get(page)
            permitted = known is not None and (access is not STORE or known[1] == 2)
            if known is not None and permitted:
                assert result == DISTANCE | known[0]
                if access is STORE:
                    written.add(known[0])
            else:
                assert isinstance(result, Outcome)
                assert result.verdict is Verdict.REFLECT
        elif what == "unmap":
            upkeep.unmap(nest.guest, target)
            written.discard(target)
        elif what == "dirty":
            taken = upkeep.take_dirty(nest.guest, target)
            assert taken or target not in written
            written.discard(target)
        elif what == "age":
            upkeep.age(nest.guest, target)
            assert not upkeep.is_young(nest.guest, target)
        elif page in mapped:
            nest.l1.clear(mapped.pop(page)[2])
            one = nest.placement.segment(nest.segment(0))
            first = nest.shadow.hash_table.candidates(one, page << 12)[0]
            nest.shadow.invalidate(tlbie_rb(make_v(one, page << 12, large=False), 0, first))
        assert violations(nest.guest) == []
        assert nest.tlb.stale == []
