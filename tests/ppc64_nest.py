"""The canonical POWER9 nest at work: L1's hypercalls, and L2 on a CPU behind a TLB."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any

from ppc64_fixture import GPA_TO_HPA, HOST_PTCR, Fixture, N

from nestmmu.access import Access
from nestmmu.addresses import AssignedTag
from nestmmu.formats import AccessedDirty
from nestmmu.hypervisor import Attempt, LivelockError
from nestmmu.invariants import violations
from nestmmu.nested_guests import NestedGuests, TagAllocator
from nestmmu.plugins import Plugins
from nestmmu.points import Point, finish
from nestmmu.quirks import Invariant
from nestmmu.tlb import TlbPlugin
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_book3s.registers import MSR_SF
from nestmmu_ppc64_radix.exits import HvExit, decode
from nestmmu_ppc64_radix.kvm import KvmNestedGuest
from nestmmu_ppc64_radix.nested_hcalls import CopyRequest, NestedHcalls
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from collections.abc import Hashable

    from nestmmu.outcomes import Exit, Outcome
    from nestmmu.points import Steps

GPA, PAGE, LARGE = 0x180050000, 0x123450000, 0x123400000
"""L1's page behind N; N's own page of 64 KiB, and of 2 MiB."""
REAL = 0x580056789
"""Where N leads in L0's memory."""
NONE: frozenset[str] = frozenset()
PROCESS_ROOT_WORD = 0x4000_0000_0000_00AD
PROCESS_HPA = 0x6_0300_0000
"""Where L0 keeps L2's 2 MiB from 0x0300_0000 on: the process table and the trees of :meth:`Nest.with_processes`."""
PAGE_OF_PID = {3: 0x7_0000_0000, 0: 0x7_0001_0000}
"""Where L0 keeps the page that effective address 0 of a process leads to."""


class Nest(Fixture):
    """The fixture with L1's hypercalls, a TLB, and L2's LPIDs from an allocator that begins at 7."""

    def __init__(self, quirks: Quirk = Quirk.NONE, **options: Any) -> None:
        super().__init__(quirks, **options)
        self.guest.nested.clear()
        self.tags = TagAllocator(7, 4096)
        self.guests: NestedGuests[KvmNestedGuest] = NestedGuests(
            self.host, self.guest, self.tags, lambda: 1 << (self.guest.ptcr & 0x1F) + 8
        )
        self.hcalls = NestedHcalls(self.host, self.guest, self.guests)
        self.plugin = TlbPlugin()
        self.host.listeners.append(self.plugin.flush)
        self.nested = self.enter(5)
        finish(self.guests.put(self.nested))
        self.results: dict[str, Any] = {}
        self.exits: list[int] = []
        """HDSISR of each HDSI that :meth:`access` took."""

    @functools.cached_property
    def cpu(self) -> Any:
        """L2's CPU, which takes an interrupt where R or C is missing."""
        plugins = Plugins()
        plugins.register(self.plugin, "tlb")
        registers = {"msr": MSR_SF, "ptcr": HOST_PTCR, "lpidr": 7}
        return plugins.cpu("ppc64_radix", registers, self.memory, AccessedDirty.FAULT)

    def enter(self, l1_lpid: int) -> KvmNestedGuest:
        """Hold an L2, a new one where there is none."""
        found = finish(self.guests.get(AssignedTag(l1_lpid), create=True))
        assert found is not None
        return found

    def tlbie(self, instruction: int = 0x10000, rs: int = 5, rb: int = 0x1234500A0) -> int:
        """Do L1's H_TLB_INVALIDATE: of N's page of 64 KiB, where nothing else is said."""
        return finish(self.hcalls.tlb_invalidate(instruction, rs, rb))

    def access(self, access: Access = Access.LOAD, address: int = N) -> Any:
        """Let L2 make an access; return where it ended, how L0 ended it, or "livelock"."""

        def decoded(result: Any) -> Exit | None:
            if not isinstance(result, Interrupt):
                return None
            exit_ = decode(HvExit.from_interrupt(result))
            self.exits.append(exit_.record.dsisr)
            return exit_

        try:
            result, outcome = Attempt(lambda: self.cpu.access(access, address), decoded, self.handle_exit).run()
        except LivelockError:
            return "livelock"
        return result.address if outcome is None else outcome.verdict

    def broken(self) -> frozenset[str]:
        """Return the names of the invariants that do not hold now, by the tables and by the TLB's hits so far."""
        found = {one.invariant.name for one in violations(self.guest)}
        if self.plugin.stale:
            found.add(Invariant.INVALIDATION.name)
        return frozenset(found)

    def start(self, record: HvExit, *, nth_lock: int = 1) -> Steps[Outcome]:
        """Begin to handle an exit, and stop where the guest's lock is about to be taken for the nth time."""
        steps = self.handler.handle(self.nested, decode(record))
        for _ in range(nth_lock):
            while next(steps) is not Point.LOCK:
                pass
        return steps

    def low(self) -> tuple[int | None, int | None]:
        """Return the low bits of L0's leaf for N's page and of the shadow's."""
        leaves = (self.l0_leaf(GPA), self.shadow())
        l0, shadow = (None if leaf is None else leaf[0] & 0xFFF for leaf in leaves)
        return l0, shadow

    def state(self) -> Hashable:
        """Return all that an explorer must tell apart."""
        shadows = tuple(
            (int(tag), one.references, tuple((leaf.page_start, leaf.entry) for leaf in one.shadow.table.leaves()))
            for tag, one in sorted(self.guest.nested.items())
        )
        host = tuple((leaf.page_start, leaf.entry) for leaf in self.guest.table.table.leaves())
        rmap = tuple((frame, tuple(self.guest.rmap.entries(frame))) for frame in self.guest.rmap.frames())
        moving = (self.guest.sequence, self.guest.invalidating, self.read_word(0x02012028), len(self.flushes))
        return shadows, host, rmap, moving, tuple(sorted(self.tags.used)), tuple(sorted(self.results.items()))

    def with_processes(self) -> None:
        """Give L2 processes 3 and 0, each with 64 KiB from effective address 0 on, all of it shadowed."""

        def word(gpa_of_l2: int, value: int) -> None:
            self.memory.write(PROCESS_HPA + gpa_of_l2 - 0x0300_0000, struct.pack(">Q", value))

        self.host.update_ptbl_cache(self.guest, self.nested)
        self.plant_shadow(0x0300_0000, 3 << 62 | PROCESS_HPA | 0x187, 21)
        for pid, root, page in ((3, 0x0301_0000, 0x4000_0000), (0, 0x0302_0000, 0x8000_0000)):
            tables = root + 0x10_0000
            word(0x0300_0000 + 16 * pid, PROCESS_ROOT_WORD | root)
            word(root, 1 << 63 | tables | 9)
            word(tables, 3 << 62 | page | 0x187)
            self.plant_shadow(page, 3 << 62 | PAGE_OF_PID[pid] | 0x187)

    def copy(self, **values: int) -> int:
        """Do H_COPY_TOFROM_GUEST: 8 bytes of process 3 at 0x1000 to L1's 0x5000, where nothing else is said."""
        request = {"l1_lpid": 5, "pid": 3, "eaddr": 0x1000, "to": 0x5000, "source": 0, "size": 8} | values
        return finish(self.hcalls.copy_tofrom_guest(CopyRequest(**request)))

    def l1(self, gpa: int, size: int = 8) -> bytes:
        """Return bytes of L1's memory."""
        return self.memory.read(gpa + GPA_TO_HPA, size)
