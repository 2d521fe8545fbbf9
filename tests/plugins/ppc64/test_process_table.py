"""H_REGISTER_PROC_TBL, and an L1 that changes to hash and back: N11, L13, B20."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ppc64_fixture import L1_PTCR, Fixture, N

from nestmmu.addresses import AssignedTag
from nestmmu.invariants import violations
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.outcomes import RESUME
from nestmmu.points import finish
from nestmmu_ppc64_radix.exits import decode
from nestmmu_ppc64_radix.kvm import KvmNestedGuest
from nestmmu_ppc64_radix.nested_entry import L1Vcpu, L2Exit, L2Vcpu, NestedEntry
from nestmmu_ppc64_radix.nested_hcalls import NestedHcalls, RptRequest
from nestmmu_ppc64_radix.process_table import EBUSY, EINVAL, MmuModes
from nestmmu_ppc64_radix.quirks import Quirk

GR = 1 << 63
RADIX, HASH = 0x1C, 0x18
"""Flags: modify, register, and radix or not."""
HASH_PATE = 0x7_0000_0000 | 6
H_HARDWARE, H_FUNCTION, H_PARAMETER, H_P2, H_P3, H_P4, H_UNSUPPORTED = -1, -2, -4, -55, -56, -57, -67


class Modes(Fixture):
    """The fixture, whose L1 may change its translation; L2 5 has a page in its shadow."""

    def __init__(self, *, hashes: bool = True, nested_host: bool = False) -> None:
        super().__init__(Quirk.NONE)
        self.host.release_nested(self.guest.nested.pop(AssignedTag(5)))
        self.tags = TagAllocator(7, 64)
        self.guests: NestedGuests[KvmNestedGuest] = NestedGuests(self.host, self.guest, self.tags, lambda: 4096)
        found = finish(self.guests.get(AssignedTag(5), create=True))
        assert found is not None
        self.nested = found
        finish(self.guests.put(found))
        self.hcalls = NestedHcalls(self.host, self.guest, self.guests)
        self.modes = MmuModes(
            self.host, self.guest, self.guests, (lambda _: HASH_PATE) if hashes else None, nested_host=nested_host
        )
        assert self.handle(self.load()) == RESUME

    def register(self, flags: int, base: int = 0x300_0000, page_size: int = 0, size: int = 4) -> int:
        return finish(self.modes.register(flags, base, page_size, size))

    def pate(self, lpid: int = 1) -> tuple[int, int]:
        """Return L0's hardware PATE of an LPID, by raw words."""
        first, second = struct.unpack(">2Q", self.memory.read(0x8_0000_0000 + 16 * lpid, 16))
        return int(first), int(second)


class TestArguments:
    """Every refusal, in the order of the checks; nothing changes."""

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            pytest.param((0x20, 0, 0, 0), H_PARAMETER, id="reserved flag"),
            pytest.param((0x3C, 0xFFF, 1, 25), H_PARAMETER, id="reserved flag before all else"),
            pytest.param((RADIX, 0x300_0800, 0, 4), H_P2, id="radix: base within 4 KiB"),
            pytest.param((RADIX, 1 << 60, 0, 4), H_P2, id="radix: base beyond 2^60"),
            pytest.param((RADIX, 0x300_0800, 1, 25), H_P2, id="radix: base first"),
            pytest.param((RADIX, 0x300_0000, 1, 25), H_P3, id="radix: page size"),
            pytest.param((RADIX, 0x300_0000, 0, 25), H_P4, id="radix: size"),
            pytest.param((HASH | 2, 0, 0, 0), H_PARAMETER, id="segment tables"),
            pytest.param((HASH, 1 << 38, 8, 25), H_P2, id="hash: base"),
            pytest.param((HASH, 0, 8, 25), H_P3, id="hash: page size"),
            pytest.param((HASH, 0, 7, 25), H_P4, id="hash: size"),
            pytest.param((0x00, 0, 0, 0), H_PARAMETER, id="keep: but it is radix"),
        ],
    )
    def test_refusals(self, arguments: tuple[int, int, int, int], code: int) -> None:
        nest = Modes()
        before = nest.pate()
        assert nest.register(*arguments) == code
        assert (nest.pate(), nest.guest.radix, nest.guest.process_table) == (before, True, GR)
        assert nest.shadow() is not None

    def test_a_radix_table(self) -> None:
        nest = Modes()
        root = nest.guest.table.table.root.base
        assert nest.register(RADIX | 1, 0x300_0000, 0, 4) == 0
        assert nest.pate() == (0xC000_0000_0000_00AD | root, GR | 0x300_0004)
        assert nest.modes.guest_tlbie
        assert nest.shadow() is not None

    def test_keeping_and_deregistering(self) -> None:
        nest = Modes()
        nest.register(RADIX)
        assert nest.register(0x04) == 0
        assert nest.pate()[1] == GR | 0x300_0004
        assert nest.register(0x10) == 0
        assert nest.pate()[1] == GR
        assert nest.guest.radix

    @given(st.integers(0, (1 << 64) - 1), st.lists(st.integers(0, (1 << 64) - 1), min_size=3, max_size=3))
    def test_anything_is_a_code(self, flags: int, rest: list[int]) -> None:
        assert Modes().register(flags, *rest) in {0, H_PARAMETER, H_P2, H_P3, H_P4}


class TestToHash:
    def test_everything_of_radix_goes_n11(self) -> None:
        """L2s, shadows, reverse map and L0's tree; the PATE is the hash table's, and L2's is cleared."""
        nest = Modes()
        assert nest.pate(7)[0] != 0
        tables = len(nest.allocator.used)
        assert nest.register(HASH, 0, 0, 0) == 0
        assert nest.pate() == (HASH_PATE, 0)
        assert nest.pate(7) == (0, 0)
        assert nest.guest.nested == {}
        assert nest.tags.used == set()
        assert len(nest.guest.rmap) == 0
        assert list(nest.guest.table.table.leaves()) == []
        assert len(nest.allocator.used) == 1 < tables
        assert violations(nest.guest) == []

    def test_a_hash_l1_does_not_nest_l13(self) -> None:
        nest = Modes()
        nest.register(HASH, 0, 0, 0)
        assert nest.hcalls.set_partition_table(L1_PTCR) == H_FUNCTION
        assert finish(nest.hcalls.tlb_invalidate(0x10000, 5, N >> 16 << 16 | 5 << 5)) == H_FUNCTION
        assert finish(nest.hcalls.rpt_invalidate(RptRequest(5, 1, 1, 0, 0, 0))) == H_UNSUPPORTED

        def run(_: L2Vcpu) -> L2Exit:
            raise AssertionError

        entry = NestedEntry(nest.host, nest.guest, nest.guests, L1Vcpu())
        assert finish(entry.enter(0x500_0000, 0x501_0000, run)).code == H_FUNCTION

    def test_and_back_again(self) -> None:
        nest = Modes()
        nest.register(HASH, 0, 0, 0)
        assert nest.register(RADIX) == 0
        assert nest.pate() == (0xC000_0000_0000_00AD | nest.guest.table.table.root.base, GR | 0x300_0004)
        assert nest.hcalls.set_partition_table(L1_PTCR) == 0
        found = finish(nest.guests.get(AssignedTag(5), create=True))
        assert found is not None
        nest.nested = found
        assert nest.handle(nest.load()) == RESUME
        assert nest.shadow() is not None

    def test_not_while_a_vcpu_runs(self) -> None:
        nest = Modes()
        nest.modes.running = 1
        assert nest.register(HASH, 0, 0, 0) == H_HARDWARE
        assert finish(nest.modes.configure(0, radix=False, guest_tlbie=False)) == EBUSY
        assert nest.guest.radix
        assert nest.shadow() is not None
        assert nest.register(RADIX) == 0

    @pytest.mark.parametrize(("hashes", "nested_host"), [(False, False), (True, True)])
    def test_a_host_without_hash_guests(self, hashes: bool, nested_host: bool) -> None:
        nest = Modes(hashes=hashes, nested_host=nested_host)
        assert nest.register(HASH, 0, 0, 0) == H_PARAMETER
        assert nest.guest.radix

    @pytest.mark.parametrize(("word", "radix"), [(GR, False), (0, True), (GR | 25, True)])
    def test_what_the_kernel_refuses(self, word: int, radix: bool) -> None:
        assert finish(Modes().modes.configure(word, radix=radix, guest_tlbie=False)) == EINVAL

    def test_a_fault_that_looked_before_the_switch_inserts_nothing_b20(self) -> None:
        """The fault handler stands between its look and its insertion while L1 becomes a hash guest."""
        nest = Modes()
        nest.nested.shadow.remove(N)
        steps = nest.handler.handle(nest.nested, decode(nest.load()))
        for _ in range(6):
            next(steps)
        nest.register(HASH, 0, 0, 0)
        for _ in steps:
            pass
        assert list(nest.guest.table.table.leaves()) == []
        assert nest.guest.nested == {}
