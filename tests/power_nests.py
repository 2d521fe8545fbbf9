"""Two L1s with two L2s each, on a host with two cores, changed in any order: invariants and truth at every step."""

from __future__ import annotations

import functools
import operator
import struct
from typing import Any

import attrs
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ppc64_fixture import HOST_PTCR, HOST_TABLES

from nestmmu import upkeep
from nestmmu.access import ALL_PERMISSIONS, EXECUTE, READ, WRITE, Access
from nestmmu.addresses import AssignedTag, HardwareTag
from nestmmu.allocator import PageAllocator
from nestmmu.formats import AccessedDirty
from nestmmu.hypervisor import Attempt
from nestmmu.invariants import tables, violations
from nestmmu.memory import PhysicalMemory
from nestmmu.nested_faults import NestedFaultHandler
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.plugins import Plugins
from nestmmu.points import finish
from nestmmu.slots import HostPage, Slot, Slots
from nestmmu.tlb import Tlb, TlbPlugin
from nestmmu.walk_cache import WalkCache, WalkCachePlugin
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_SF
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_radix.exits import HvExit, decode
from nestmmu_ppc64_radix.kvm import KvmHv, KvmNestedGuest
from nestmmu_ppc64_radix.nested_hcalls import NestedHcalls, RptRequest
from nestmmu_ppc64_radix.quirks import Quirk

MIB2, KIB64 = 1 << 21, 1 << 16
TABLES = Slot(0, 0x100_0000)
"""Where an L1 has its partition table and its trees; the host leaves this slot alone."""
DATA = Slot(0x100_0000, 4 * MIB2 - (1 << 20))
REST = Slot(DATA.end, 1 << 20)
"""The upper half of the last 2 MiB: a page of 2 MiB there would reach into another slot."""
DEVICE = REST.end
PARTITION_TABLE = 0x1_0000
LPIDS = (7, 3)
"""What either L1 calls its L2s. The first that runs gets LPID 3 of the host, and 3 is another's name."""
FIRST_LPID = 3
MOST_FAULTS = 5
"""The partition-table entry that is not there yet, a miss, a permission, R, C."""
REFERENCE, CHANGE = 0x100, 0x080
TOKEN = 0
OFFSET = 0x124


@attrs.define
class Leaf:
    """A page of L1's for L2: its size and target in bytes, and the low bits of the entry."""

    size: int
    target: int
    bits: int

    @property
    def permissions(self) -> int:
        """What the entry permits: the write bit implies read (ISA: read/write)."""
        read = READ if self.bits & 6 else 0
        return read | (WRITE if self.bits & 2 else 0) | (EXECUTE if self.bits & 1 else 0)


class MovingBacking:
    """What the host keeps behind an L1: its tables in one piece, and each 2 MiB of data anywhere."""

    def __init__(self, number: int, page_shift: int) -> None:
        self.tables = 0x4_0000_0000 + (number << 32)
        self.page_shift = page_shift
        self.homes = [0x6_0000_0000 + (number << 32) + index * MIB2 for index in (2, 0, 3, 1)]
        self.next_home = self.homes[2] + MIB2

    def where(self, address: int) -> int:
        """Return where an address of L1 is."""
        if address < DATA.base:
            return self.tables + address
        chunk, offset = divmod(address - DATA.base, MIB2)
        return self.homes[chunk] + offset

    def move(self, chunk: int) -> None:
        """Keep 2 MiB of data elsewhere from now on."""
        self.homes[chunk] = self.next_home
        self.next_home += MIB2

    def page(self, slot: Slot, address: int, *, write: bool) -> HostPage:
        """Return the page behind an address."""
        del slot, write
        return HostPage(self.where(address), self.page_shift)


class Core:
    """Four CPUs that share a TLB and a page-walk cache."""

    def __init__(self, host: KvmHv, first: int, arch: str, accessed_dirty: AccessedDirty) -> None:
        self.first = first
        cpus = range(first, first + 4)
        self.tlb, self.walks = TlbPlugin(Tlb(cpus=cpus)), WalkCachePlugin(WalkCache(cpus=cpus))
        plugins = Plugins()
        plugins.register(self.tlb, "TLB")
        plugins.register(self.walks, "page-walk cache")
        registers = {"msr": MSR_SF, "ptcr": host.ptcr}
        self.cpu: Any = plugins.cpu(arch, registers, host.memory, accessed_dirty)
        host.listeners += [self.tlb.flush, self.walks.flush]


class Level1:
    """An L1, the tables that it writes for its L2s by raw words, and the same as plain dicts."""

    arch = "ppc64_radix"
    accessed_dirty = AccessedDirty.FAULT
    make_leaf: type[Leaf] = Leaf

    def __init__(self, host: KvmHv, tags: TagAllocator, number: int, backing_shift: int) -> None:
        self.host = host
        self.backing = MovingBacking(number, backing_shift)
        self.guest = host.create_guest(HardwareTag(1 + number), Slots((TABLES, DATA, REST)), self.backing)
        self.guest.ptcr = PARTITION_TABLE
        self.guests: NestedGuests[KvmNestedGuest] = NestedGuests(host, self.guest, tags, lambda: 256)
        self.hcalls = NestedHcalls(host, self.guest, self.guests)
        self.handler: NestedFaultHandler = host.nested_faults(self.guest)
        self.data: Slot | None = DATA
        self.pages: dict[int, dict[int, Leaf]] = {lpid: {} for lpid in LPIDS}
        self.written: set[int] = set()
        """Frames that the log, where it is on, has to report."""
        self.touched: set[int] = set()
        """Frames that anyone reached since the log was last taken: no others may be reported."""
        self.lay_out()

    def lay_out(self) -> None:
        """Write what L1's tables begin with."""
        for lpid in LPIDS:
            self.word(PARTITION_TABLE + 16 * lpid, 0xC000_0000_0000_00AD | self.root(lpid))
            self.word(self.root(lpid), 1 << 63 | self.root(lpid) + 0x10000 | 9)
            self.word(self.root(lpid) + 0x10000, 1 << 63 | self.root(lpid) + 0x11000 | 9)

    @staticmethod
    def root(lpid: int) -> int:
        return 0x10_0000 * lpid

    def word(self, address: int, value: int) -> None:
        self.host.memory.write(self.backing.tables + address, struct.pack(">Q", value))

    def place(self, lpid: int, start: int, size: int) -> int:
        """Return where the entry of a page lies."""
        chunk, small = divmod(start, MIB2)
        if size == MIB2:
            return self.root(lpid) + 0x11000 + 8 * chunk
        return self.root(lpid) + 0x12000 + 0x100 * chunk + 8 * (small // KIB64)

    def overlapping(self, lpid: int, start: int, size: int) -> list[int]:
        return [at for at, leaf in self.pages[lpid].items() if at < start + size and start < at + leaf.size]

    def clear(self, lpid: int, start: int) -> Leaf:
        leaf = self.pages[lpid].pop(start)
        self.word(self.place(lpid, start, leaf.size), 0)
        return leaf

    def put(self, lpid: int, start: int, leaf: Leaf) -> None:
        if leaf.size == KIB64:
            table = self.place(lpid, start // MIB2 * MIB2, KIB64)
            self.word(self.place(lpid, start // MIB2 * MIB2, MIB2), 1 << 63 | table | 5)
        self.word(self.place(lpid, start, leaf.size), 3 << 62 | leaf.target | leaf.bits)
        self.pages[lpid][start] = leaf

    def invalidate(self, form: str, lpid: int, start: int, size: int) -> None:
        """Do what the architecture wants after an entry was changed, in one of the forms that L1 may choose."""
        ap, pages = (1, 4) if size == MIB2 else (5, 2)
        forms = {
            "page": (0x10000, lpid, start | ap << 5),
            "lpid": (0x10000, lpid, 0x800),
            "lpid, RIC 2": (0x90000, lpid, 0x800),
            "all": (0x10000, 0, 0xC00),
            "all, RIC 2": (0x90000, 0, 0xC00),
        }
        if form == "range":
            request = RptRequest(lpid, 1, 3, pages, start, start + size)
            assert finish(self.hcalls.rpt_invalidate(request)) == 0
        else:
            assert finish(self.hcalls.tlb_invalidate(*forms[form])) == 0

    def find(self, lpid: int, address: int) -> tuple[Leaf, int] | None:
        """Return L1's leaf for an address of L2, and where it leads in L1's memory."""
        for size in (MIB2, KIB64):
            leaf = self.pages[lpid].get(address // size * size)
            if leaf is not None and leaf.size == size:
                return leaf, leaf.target + address % size
        return None

    def truth(self, lpid: int, address: int) -> tuple[int, int] | None:
        """Return (L0 real address, permissions) of an address of L2."""
        found = self.find(lpid, address)
        if found is None or found[1] >= DEVICE or (self.data is None and found[1] < DATA.end):
            return None
        read_only = self.data is not None and self.data.read_only and found[1] < DATA.end
        permitted = ALL_PERMISSIONS & ~WRITE if read_only else ALL_PERMISSIONS
        return self.backing.where(found[1]), found[0].permissions & permitted

    def ends(self, lpid: int, address: int, access: Access) -> int | Verdict:
        """Return where an access of L2 ends, or who gets the fault: L1's permission, memory, L0's, L1's R and C."""
        found, truth = self.find(lpid, address), self.truth(lpid, address)
        if found is None or not found[0].permissions & access:
            return Verdict.REFLECT
        if truth is None:
            return Verdict.EMULATE
        if not truth[1] & access:
            return Verdict.INJECT
        needed = REFERENCE | CHANGE if access is Access.STORE else REFERENCE
        return truth[0] if found[0].bits & needed == needed else Verdict.REFLECT

    def enter(self, lpid: int) -> KvmNestedGuest:
        """Return an L2, made if need be, that L1 runs."""
        nested = finish(self.guests.get(AssignedTag(lpid), create=True))
        assert nested is not None
        return nested

    def aim(self, core: Core, nested: KvmNestedGuest) -> None:
        """Have a core run an L2."""
        core.cpu.registers.lpidr = nested.tag

    def decoded(self, result: Reached | Interrupt) -> Exit | None:
        """Return an exit that L0 has to handle."""
        return decode(HvExit.from_interrupt(result)) if isinstance(result, Interrupt) else None

    def access(self, core: Core, lpid: int, address: int, access: Access) -> int | Verdict:
        """Do one access of an L2 and return where it ended, or who gets the fault."""
        nested = self.enter(lpid)
        self.host.arrive(nested, TOKEN, core.first)

        def handled(exit_: Exit) -> Outcome:
            return finish(self.handler.handle(nested, exit_))

        self.aim(core, nested)
        loop = Attempt(functools.partial(core.cpu.access, access, address), self.decoded, handled)
        result, outcome = loop.run()
        finish(self.guests.put(nested))
        assert len(loop.faults) <= MOST_FAULTS, loop.faults
        if isinstance(result, Reached):
            return result.address
        assert outcome is not None
        return outcome.verdict


NUMBERS = st.integers(0, 1)
L2S = st.sampled_from(LPIDS)
CHUNKS = st.sampled_from([0, 0, 1, 1, 2, 3])
SMALLS = st.sampled_from([0, 1, 31])
BITS = st.builds(operator.or_, st.sampled_from([0x180, 0x100, 0x080, 0]), st.sampled_from([7, 7, 7, 6, 5, 4, 3, 2, 1]))
KINDS = st.sampled_from([Access.LOAD, Access.STORE, Access.STORE, Access.FETCH])
BEHIND = ["change", "remap", "resize", "resize", "unmap", "move", "age", "log", "take", "take", "release", "migrate"]
"""What may happen to a page between two accesses."""
FORMS = st.sampled_from(["page", "page", "range", "lpid", "lpid, RIC 2", "all", "all, RIC 2"])
ADDRESSES = [chunk * MIB2 + small * KIB64 + OFFSET for chunk in range(4) for small in (0, 1, 31)]


class PowerNests(RuleBasedStateMachine):
    page_shift = 16
    quirks = Quirk.NONE
    host_type: type[KvmHv] = KvmHv
    level_type: type[Level1] = Level1

    @initialize(shifts=st.sampled_from([(0, 21), (21, 0), (21, 21), (0, 0), (30, 16)]))
    def build(self, shifts: tuple[int, int]) -> None:
        """Begin with no L2 known to the host; 0 stands for the host's base page."""
        self.memory = PhysicalMemory()
        self.allocator = PageAllocator(self.memory, HOST_TABLES, HOST_TABLES + (1 << 30))
        self.host = self.host_type(
            self.memory, self.allocator, page_shift=self.page_shift, ptcr=HOST_PTCR, quirks=self.quirks
        )
        self.tags = TagAllocator(FIRST_LPID, 64)
        level = self.level_type
        self.cores = [Core(self.host, first, level.arch, level.accessed_dirty) for first in (0, 4)]
        self.core = self.cores[0]
        self.l1s = [
            level(self.host, self.tags, number, max(self.page_shift, min(shift, 21)))
            for number, shift in enumerate(shifts)
        ]

        for one in self.l1s:
            for lpid in LPIDS:
                one.put(lpid, 0, one.make_leaf(MIB2, DATA.base, 0x187))
                one.put(lpid, 2 * MIB2, one.make_leaf(MIB2, DATA.base + 3 * MIB2, 0x187))
                for small in (0, 1):
                    one.put(
                        lpid, MIB2 + small * KIB64, one.make_leaf(KIB64, DATA.base + MIB2 + (small ^ 1) * KIB64, 0x187)
                    )

    @rule(number=NUMBERS, lpid=L2S, chunk=CHUNKS, small=SMALLS, large=st.booleans(), to=st.integers(0, 4), bits=BITS,
          form=FORMS)  # fmt: skip
    def map(self, number: int, lpid: int, chunk: int, small: int, large: bool, to: int, bits: int, form: str) -> None:
        """Map a page, over whatever was there; where nothing was, nothing has to be invalidated."""
        if self.quirks and bits & 6 == 2:
            bits |= 4
        one, size = self.l1s[number], MIB2 if large else KIB64
        start = chunk * MIB2 + (0 if large else small * KIB64)
        for at in one.overlapping(lpid, start, size):
            one.invalidate(form, lpid, at, one.clear(lpid, at).size)
        target = DATA.base + to * MIB2 + (0 if large else (small ^ 1) * KIB64)
        one.put(lpid, start, one.make_leaf(size, target, bits))

    @rule(number=NUMBERS, lpid=L2S, pick=st.integers(0, 99), form=FORMS)
    def unmap(self, number: int, lpid: int, pick: int, form: str) -> None:
        one = self.l1s[number]
        if one.pages[lpid]:
            at = sorted(one.pages[lpid])[pick % len(one.pages[lpid])]
            one.invalidate(form, lpid, at, one.clear(lpid, at).size)

    @rule(number=NUMBERS, lpid=L2S, pick=st.integers(0, 99), bits=BITS, form=FORMS)
    def change(self, number: int, lpid: int, pick: int, bits: int, form: str) -> None:
        """Change what a page permits, and its R and C."""
        if self.quirks and bits & 6 == 2:
            bits |= 4
        one = self.l1s[number]
        if one.pages[lpid]:
            at = sorted(one.pages[lpid])[pick % len(one.pages[lpid])]
            leaf = one.pages[lpid][at]
            one.put(lpid, at, attrs.evolve(leaf, bits=bits))
            one.invalidate(form, lpid, at, leaf.size)

    @rule(number=NUMBERS, lpid=L2S, small=SMALLS, kind=st.sampled_from(Access))
    def access(self, number: int, lpid: int, small: int, kind: Access) -> None:
        """Load, store or fetch somewhere in each page that L1 has for an L2, and where it has none."""
        one = self.l1s[number]
        for start, leaf in [*one.pages[lpid].items(), (0, Leaf(MIB2, 0, 0))]:
            self._access(one, lpid, start + OFFSET + (small * KIB64 if leaf.size == MIB2 else 0), kind)

    def _access(self, one: Level1, lpid: int, address: int, kind: Access) -> None:
        """Do one access; where L1 is shown that R or C is missing, it sets them, and the access is done again."""
        expected, found = one.ends(lpid, address, kind), one.find(lpid, address)
        assert one.access(self.core, lpid, address, kind) == expected, (hex(address), kind)
        if expected is Verdict.REFLECT and found is not None and found[0].permissions & kind:
            found[0].bits |= REFERENCE | CHANGE if kind is Access.STORE else REFERENCE
            one.put(lpid, address // found[0].size * found[0].size, found[0])
            expected = one.ends(lpid, address, kind)
            assert one.access(self.core, lpid, address, kind) == expected, (hex(address), kind)
        if found is not None and not isinstance(expected, Verdict):
            frame = found[1] >> self.page_shift
            one.touched.add(frame)
            in_data = found[1] < DATA.end
            if kind is Access.STORE and in_data and one.data is not None and one.data.dirty_log:
                one.written.add(frame)
            assert upkeep.is_young(one.guest, found[1])

    @rule(number=NUMBERS, lpid=L2S, small=SMALLS, first=KINDS, second=KINDS)
    def use_all(self, number: int, lpid: int, small: int, first: Access, second: Access) -> None:
        """Use every page of an L2 twice: the second time what was kept of the first is in the way."""
        for kind in (first, second):
            self.access(number, lpid, small, kind)

    @rule()
    def migrate(self) -> None:
        """Run on the other core from now on."""
        self.core = self.cores[self.core is self.cores[0]]

    @rule(number=NUMBERS, lpid=L2S, pick=st.integers(0, 99), small=SMALLS, first=KINDS, second=KINDS,
          between=st.lists(st.sampled_from(BEHIND), min_size=1, max_size=3), bits=BITS, form=FORMS)  # fmt: skip
    def behind_its_back(
        self, number: int, lpid: int, pick: int, small: int, first: Access, second: Access, between: list[str],
        bits: int, form: str,
    ) -> None:  # fmt: skip
        """Use a page, have something happen to this very page, and use it again."""
        one = self.l1s[number]
        if not one.pages[lpid]:
            return
        start = sorted(one.pages[lpid])[pick % len(one.pages[lpid])]
        inner = small * KIB64 if one.pages[lpid][start].size == MIB2 else 0
        self._access(one, lpid, start + inner + OFFSET, first)
        for what in between:
            self._happen_to_l1s(what, number, lpid, start, bits, form)
            if what == "resize":
                start, inner = start // MIB2 * MIB2, 0
            target = one.pages[lpid][start].target + inner
            if target < DEVICE:
                self._happen_to_l0s(what, number, target)
        if "release" in between:
            self.release(number, lpid, again=True)
        if "migrate" in between:
            self.migrate()
        self._access(one, lpid, start + inner + OFFSET, second)

    def _happen_to_l1s(self, what: str, number: int, lpid: int, start: int, bits: int, form: str) -> None:
        """Change the page at ``start`` in L1's table."""
        one = self.l1s[number]
        leaf = one.pages[lpid][start]
        if what == "change":
            self.change(number, lpid, sorted(one.pages[lpid]).index(start), bits, form)
        elif what == "remap":
            one.clear(lpid, start)
            target = DATA.base + (leaf.target - DATA.base + MIB2) % (4 * MIB2)
            one.put(lpid, start, attrs.evolve(leaf, target=target))
            one.invalidate(form, lpid, start, leaf.size)
        elif what == "resize":
            to = (leaf.target - DATA.base) // MIB2
            self.map(number, lpid, start // MIB2, small=0, large=leaf.size != MIB2, to=to, bits=bits, form=form)

    def _happen_to_l0s(self, what: str, number: int, target: int) -> None:
        """Change what L0 keeps behind an address of L1."""
        chunk, offset = divmod(target - DATA.base, MIB2)
        acts = {
            "log": lambda: self.switch_log(number, on=True),
            "take": lambda: self.take_log(number),
            "age": lambda: self.age(number, chunk, offset // KIB64),
            "unmap": lambda: self.host_unmap(number, chunk, offset // KIB64, moves=False),
            "move": lambda: self.host_unmap(number, chunk, None, moves=True),
        }
        acts.get(what, lambda: None)()

    @rule(number=NUMBERS, chunk=CHUNKS, small=st.none() | SMALLS, moves=st.booleans())
    def host_unmap(self, number: int, chunk: int, small: int | None, moves: bool) -> None:
        """Take pages of an L1 away, 64 KiB or 2 MiB; the larger may be elsewhere afterwards."""
        one, start = self.l1s[number], DATA.base + chunk * MIB2
        if small is None and moves:
            one.backing.move(chunk)
        first, last = (start, start + MIB2) if small is None else (start + small * KIB64, start + (small + 1) * KIB64)
        upkeep.unmap_range(one.guest, first, last)
        assert not list(one.guest.table.table.leaves(first, last))

    @rule(number=NUMBERS, chunk=CHUNKS, small=SMALLS)
    def age(self, number: int, chunk: int, small: int) -> None:
        one, address = self.l1s[number], DATA.base + chunk * MIB2 + small * KIB64
        young = upkeep.is_young(one.guest, address)
        assert upkeep.age(one.guest, address) == young
        assert not upkeep.is_young(one.guest, address)

    @rule(number=NUMBERS, on=st.booleans())
    def switch_log(self, number: int, on: bool) -> None:
        one = self.l1s[number]
        if one.data is not None:
            one.data = upkeep.set_dirty_log(one.guest, one.data, on=on)
            if not on:
                one.written.clear()
            else:  # large pages that were written before are reported whole
                one.touched.update(range(DATA.base >> self.page_shift, DATA.end >> self.page_shift))

    @rule(number=NUMBERS)
    def take_log(self, number: int) -> None:
        """Every page that was stored to is reported, and none that no one reached."""
        one = self.l1s[number]
        if one.data is not None and one.data.dirty_log:
            bits = np.unpackbits(upkeep.dirty_log(one.guest, one.data), bitorder="little")
            reported = {int(bit) + (DATA.base >> self.page_shift) for bit in np.flatnonzero(bits)}
            assert one.written <= reported
            assert reported <= one.touched
            one.written.clear()
            one.touched.clear()

    @rule(number=NUMBERS, read_only=st.none() | st.booleans())
    def replace_slot(self, number: int, read_only: bool | None) -> None:
        """Delete the data's slot, or make it anew, read-only or not; with a log that goes on, if it was on."""
        one = self.l1s[number]
        new = None if read_only is None else attrs.evolve(one.data or DATA, read_only=read_only)
        if one.data is not None or new is not None:
            upkeep.replace_slot(one.guest, one.data, new)
        one.data = new
        if new is None:
            one.written.clear()

    @rule(number=NUMBERS, lpid=L2S, again=st.booleans())
    def release(self, number: int, lpid: int, again: bool) -> None:
        """Release an L2; it is made again at once, with another LPID perhaps, or when it next runs."""
        one = self.l1s[number]
        nested = one.guest.nested.get(AssignedTag(lpid))
        if isinstance(nested, KvmNestedGuest):
            finish(one.guests.remove(nested))
        if again:
            finish(one.guests.put(one.enter(lpid)))

    @invariant()
    def invariants_hold(self) -> None:
        for one in self.l1s:
            assert violations(one.guest) == []

    @invariant()
    def what_the_cpu_reaches_is_the_truth(self) -> None:
        """Ask the CPU without changing R or C: it may fault, but never reach what both tables do not lead to."""
        cpu = self.core.cpu
        for one in self.l1s:
            for nested in one.guest.nested.values():
                assert isinstance(nested, KvmNestedGuest)
                one.aim(self.core, nested)
                for address in ADDRESSES:
                    for kind in (Access.LOAD, Access.STORE):
                        reached = cpu.probe(kind, address)
                        if isinstance(reached, Reached):
                            truth = one.truth(nested.assigned, address)
                            assert truth is not None
                            assert reached.address == truth[0]
                            assert reached.permissions & ~truth[1] == 0

    @invariant()
    def no_cache_gave_what_is_gone(self) -> None:
        for core in self.cores:
            assert core.tlb.stale == []
            assert core.walks.stale == []

    @invariant()
    def lpids_are_apart(self) -> None:
        tags = [nested.tag for one in self.l1s for nested in one.guest.nested.values()]
        assert len(set(tags)) == len(tags)
        assert set(tags) == self.tags.used

    def teardown(self) -> None:
        """After all, nothing is left but the tables of the L1s themselves."""
        if not hasattr(self, "l1s"):
            return
        for one in self.l1s:
            finish(one.guests.release_all())
        assert self.tags.used == set()
        assert set(self.allocator.used) == {table for one in self.l1s for table in tables(one.guest.table)}
