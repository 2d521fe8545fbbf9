"""The same state machine for hash L2s of radix L1s: L1's tables are hash tables, and so are the shadows."""

from __future__ import annotations

import pytest
from hypothesis import settings
from power_nests import KIB64, LPIDS, MIB2, PARTITION_TABLE, Core, Leaf, Level1, PowerNests

from nestmmu.access import EXECUTE, READ, WRITE, Access
from nestmmu.addresses import AssignedTag
from nestmmu.formats import AccessedDirty
from nestmmu.outcomes import Exit, Verdict
from nestmmu.points import finish
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_DR, MSR_IR, MSR_SF
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_hpt.hashing import Segment, make_v, segment_of, tlbie_rb, vsid_word
from nestmmu_ppc64_hpt.host import HashKvm
from nestmmu_ppc64_hpt.nested import decode
from nestmmu_ppc64_hpt.nested_tlbie import emulate
from nestmmu_ppc64_hpt.table import HashTable
from nestmmu_ppc64_radix.kvm import KvmNestedGuest

ORDER = 18
LPCR_VPM1 = 1 << 62
RESERVED_PP = 1 << 63 | 3


def segment(lpid: int) -> Segment:
    found = segment_of(vsid_word(0x100 * lpid, 28, 16))
    assert found is not None
    return found


class HashLeaf(Leaf):
    """What pp and N can say: who may not read may do nothing."""

    @property
    def permissions(self) -> int:
        if not self.bits & 6:
            return 0
        return READ | (WRITE if self.bits & 2 else 0) | (EXECUTE if self.bits & 1 else 0)

    @property
    def r(self) -> int:
        """Doubleword 1 without the page: 64 KiB in 64 KiB, memory, R and C."""
        pp = 2 if self.bits & 2 else 3 if self.bits & 4 else RESERVED_PP
        return 0x1000 | 0x10 | self.bits & 0x180 | pp | (0 if self.bits & 1 else 4)


class HashLevel1(Level1):
    """An L1 whose L2s are hash guests; what it maps in one piece of 2 MiB has an entry for each 64 KiB."""

    arch = "ppc64_hpt"
    accessed_dirty = AccessedDirty.UPDATE
    make_leaf = HashLeaf

    def lay_out(self) -> None:
        for lpid in LPIDS:
            self.word(PARTITION_TABLE + 16 * lpid, self.root(lpid) | ORDER - 18)

    def entries(self, lpid: int, start: int, size: int) -> list[tuple[HashTable, int, int]]:
        """Return (L1's table, slot, address) of each 64 KiB of a page."""
        table, one = HashTable(self.guest.memory, self.root(lpid), ORDER), segment(lpid)
        return [(table, table.candidates(one, at)[0], at) for at in range(start, start + size, KIB64)]

    def clear(self, lpid: int, start: int) -> Leaf:
        leaf = self.pages[lpid].pop(start)
        for table, slot, _ in self.entries(lpid, start, leaf.size):
            table.clear(slot)
        return leaf

    def put(self, lpid: int, start: int, leaf: Leaf) -> None:
        assert isinstance(leaf, HashLeaf)
        for table, slot, at in self.entries(lpid, start, leaf.size):
            table.write(slot, make_v(segment(lpid), at, large=True), leaf.target + at - start | leaf.r)
        self.pages[lpid][start] = leaf

    def invalidate(self, form: str, lpid: int, start: int, size: int) -> None:
        if form in {"page", "range"}:
            for _, slot, at in self.entries(lpid, start, size):
                assert self.tlbie(lpid, tlbie_rb(make_v(segment(lpid), at, large=True), 0x1000, slot)) == 0
        else:
            ric, scope = 2 if form.endswith("RIC 2") else 0, 0xC00 if form.startswith("all") else 0x800
            assert self.tlbie(lpid, scope, ric) == 0

    def tlbie(self, lpid: int, rb: int, ric: int = 0) -> int:
        """Do a tlbie with R=0."""
        return finish(emulate(self.guests, ric << 18, lpid, rb))

    def ends(self, lpid: int, address: int, access: Access) -> int | Verdict:
        """Return where an access ends: for R and C of L1's no one is asked, L0 sets them."""
        found, truth = self.find(lpid, address), self.truth(lpid, address)
        if found is None or not found[0].permissions & access:
            return Verdict.REFLECT
        if truth is None:
            return Verdict.EMULATE
        return truth[0] if truth[1] & access else Verdict.INJECT

    def aim(self, core: Core, nested: KvmNestedGuest) -> None:
        super().aim(core, nested)
        core.cpu.registers.msr, core.cpu.registers.lpcr = MSR_SF | MSR_IR | MSR_DR, LPCR_VPM1
        core.cpu.slb.slbmte(segment(nested.assigned).word, 1 << 27)

    def decoded(self, result: Reached | Interrupt) -> Exit | None:
        return decode(result) if isinstance(result, Interrupt) else None


class HashNests(PowerNests):
    host_type = HashKvm
    level_type = HashLevel1


TestHash = HashNests.TestCase
TestHash.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, print_blob=True)


def test_the_machine_has_every_l2_of_the_radix_one() -> None:
    assert MIB2 // KIB64 * 4 <= 1 << ORDER - 7
    assert len({segment(lpid).hash(page * KIB64) for lpid in LPIDS for page in range(128)}) == 256


@pytest.mark.parametrize(
    ("ric", "prs", "r", "scope", "code", "stays"),
    [
        pytest.param(0, 0, 0, 0, 0, False, id="page"),
        pytest.param(0, 0, 0, 2, 0, False, id="LPID"),
        pytest.param(2, 0, 0, 2, 0, False, id="LPID, RIC 2"),
        pytest.param(2, 1, 0, 2, 0, False, id="LPID, RIC 2, PRS"),
        pytest.param(0, 0, 0, 3, 0, False, id="all"),
        pytest.param(0, 0, 1, 2, 0, True, id="radix's"),
        pytest.param(0, 1, 0, 0, -4, True, id="PRS=1 without RIC 2"),
        pytest.param(1, 0, 0, 2, -4, True, id="RIC 1"),
        pytest.param(3, 0, 0, 2, -4, True, id="RIC 3"),
        pytest.param(2, 0, 0, 0, -4, True, id="a page with RIC 2"),
        pytest.param(0, 0, 0, 1, -4, True, id="IS 1"),
    ],
)
def test_each_form_of_l1s_tlbie_x8(ric: int, prs: int, r: int, scope: int, code: int, stays: bool) -> None:
    nests = HashNests()
    nests.build(shifts=(21, 21))
    one = nests.l1s[0]
    assert one.access(nests.core, 7, 0x124, Access.STORE) == one.ends(7, 0x124, Access.STORE)
    shadow = one.guest.nested[AssignedTag(7)].shadow
    (leaf,) = shadow.table.leaves()
    rb = tlbie_rb(
        make_v(segment(7), 0, large=True),
        0x1000,
        HashTable(one.guest.memory, one.root(7), ORDER).candidates(segment(7), 0)[0],
    )
    assert finish(emulate(one.guests, ric << 18 | prs << 17 | r << 16, 7, rb if scope == 0 else scope << 10)) == code
    assert list(shadow.table.leaves()) == ([leaf] if stays else [])


def test_a_tlbie_of_an_lpid_that_no_one_knows() -> None:
    nests = HashNests()
    nests.build(shifts=(21, 21))
    assert finish(emulate(nests.l1s[0].guests, 0, 9, 0x800)) == 0
