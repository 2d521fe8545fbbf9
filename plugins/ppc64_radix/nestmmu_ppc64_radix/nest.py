"""A recorded nest of POWER9 radix hypervisors, run again from an empty shadow table."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.addresses import AssignedTag, HardwareTag, align_down
from nestmmu.allocator import PageAllocator
from nestmmu.errors import InputError, NestmmuError
from nestmmu.faults import Fault
from nestmmu.hypervisor import Attempt
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT
from nestmmu.nests import Explained, Replayed, kind_text, size_text
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.points import finish
from nestmmu.radix import RadixTable, Step
from nestmmu.slots import Slot, Slots
from nestmmu_ppc64_book3s.interrupts import VECTOR_HDSI, VECTOR_HISI, VECTOR_SC, Interrupt
from nestmmu_ppc64_book3s.registers import LPIDR_LIMIT, MSR_HV, MSR_SF, PIDR_LIMIT, Registers, returned_to
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import HvExit, decode, inject, reflect
from nestmmu_ppc64_radix.formats import INPUT_BITS
from nestmmu_ppc64_radix.kvm import KvmGuest, KvmHostFaults, KvmHv, KvmNestedGuest
from nestmmu_ppc64_radix.nest_frames import table_frames
from nestmmu_ppc64_radix.nest_tables import image_ptcr, image_tables
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from nestmmu.images import NestImage
    from nestmmu.mappings import Mapping
    from nestmmu.memory import PhysicalMemory
    from nestmmu.nests import NestTables

NONE = (1 << 64) - 1
_OPERATIONS = {1: Access.LOAD, 2: Access.STORE, 3: Access.FETCH}
_REAL_MODE = MSR_SF
_INSTRUCTION_BYTES = 8
"""A completed access was made this far before the system call that reported it."""


def _l2_slots(image: NestImage) -> Slots:
    slots = Slots()
    for index, slot in enumerate(image.slots):
        try:
            slots.add(Slot(slot.l2_real, slot.size, read_only="readonly" in slot.kind, name=slot.kind))
        except NestmmuError as error:
            raise InputError(image.path, f"l2.slots[{index}]", str(error), "list each slot once") from None
    return slots


def _mapped_slots(leaves: list[Mapping]) -> Slots:
    """Return a guest's memory as far as its host's table says what it is: runs of mapped pages."""
    slots, start, end = Slots(), None, 0
    for leaf in leaves:
        if start is None or leaf.page_start != end:
            if start is not None:
                slots.add(Slot(start, end - start))
            start = leaf.page_start
        end = leaf.page_start + (1 << leaf.page_shift)
    if start is not None:
        slots.add(Slot(start, end - start))
    return slots


class _Levels:
    """What runs in the place of what an image was taken of, from an empty shadow."""

    def __init__(self, image: NestImage, memory: PhysicalMemory, tables: NestTables, quirks: Quirk) -> None:
        self.image = image
        self.memory = memory
        self.nested: KvmNestedGuest | None = None
        self.guest: KvmGuest | None = None
        self.kernel: list[Mapping] = []
        l1_lpid = AssignedTag(image.l2.number("l1_lpid", limit=LPIDR_LIMIT))
        l1_ptcr = image_ptcr(image, "l1", image.l1)
        l2_slots = _l2_slots(image)
        if image.l0 is None or tables.outer is None or tables.shadow is None:
            host = KvmHv(memory, PageAllocator(memory, 0, 0), ptcr=l1_ptcr, quirks=quirks)
            l2 = host.create_guest(HardwareTag(l1_lpid), l2_slots, None, tables.inner.root)
            registers = Registers(ptcr=l1_ptcr, lpidr=l1_lpid)
        else:
            ptcr, page_shift = image_ptcr(image, "l0", image.l0), image.l0.number("page_shift")
            if page_shift not in {12, 16}:
                raise InputError(image.path, "l0.page_shift", f"is {page_shift}", "a POWER kernel has 12 or 16")
            self.kernel = self._leaves(tables.shadow, "l2.shadow_lpid")
            l1_slots = _mapped_slots(self._leaves(tables.outer, "l1.lpid"))
            free = (max(memory.frame_numbers(), default=0) + 1) * FRAME_BYTES
            pages = PageAllocator(memory, free, 1 << INPUT_BITS)
            host = KvmHv(memory, pages, page_shift=page_shift, ptcr=ptcr, quirks=quirks)
            lpid = HardwareTag(image.l1.number("lpid", limit=LPIDR_LIMIT))
            self.guest = guest = host.create_guest(lpid, l1_slots, None, tables.outer.root)
            guest.ptcr = l1_ptcr
            shadow_lpid = HardwareTag(image.l2.number("shadow_lpid", limit=LPIDR_LIMIT))
            self.nested = nested = host.add_nested(guest, l1_lpid, shadow_lpid)
            host.update_ptbl_cache(guest, nested)
            self.handler = host.nested_faults(guest)
            l2 = KvmGuest(nested.tag, nested.tree, memory, l2_slots, None, guest.base_shift)
            registers = Registers(ptcr=ptcr, lpidr=nested.tag)
        self.l1_handler = KvmHostFaults(l2)
        self.cpu = Power9Radix(registers, memory)

    def _leaves(self, table: RadixTable, field: str) -> list[Mapping]:
        try:
            return list(table.leaves())
        except (Fault, NestmmuError) as error:
            raise InputError(
                self.image.path, field, f"{table.walker.stage} is broken: {error}", "take the image again"
            ) from None


class RadixNest:
    """L0, L1 and L2 of one image; where the image has no L0, L1 is all there is."""

    def __init__(self, image: NestImage, quirks: Quirk = Quirk.LINUX_6_1) -> None:
        self.image = image
        self.quirks = quirks
        self.faults: Counter[str] = Counter()
        self.memory = image.memory()
        self._tables = image_tables(image, self.memory)

    def tables(self) -> NestTables:
        """Return the tables in the image."""
        return self._tables

    def table_frames(self) -> NDArray[np.uint64]:
        """Return the numbers of the frames that translating reads, rising."""
        return table_frames(self.image, self.memory, self._tables)

    @cached_property
    def _levels(self) -> _Levels:
        return _Levels(self.image, self.memory, self._tables, self.quirks)

    def kernel_shadow(self) -> list[Mapping]:
        """Return the leaves of the shadow table that the kernel left."""
        return self._levels.kernel

    def rebuilt_shadow(self) -> list[Mapping]:
        """Return the leaves of the shadow table that :meth:`run` built."""
        nested = self._levels.nested
        return [] if nested is None else list(nested.shadow.table.leaves())

    def page_sizes(self, leaf: Mapping) -> str:
        """Return the sizes of the pages under a leaf of the shadow, L1's over L0's."""
        tables = self._tables
        if tables.outer is None:
            return ""
        try:
            inner = tables.inner.lookup(leaf.page_start)
            outer = tables.outer.lookup(inner.output_address)
        except Fault:
            return "not mapped below"
        return f"{size_text(inner.page_shift)} over {size_text(outer.page_shift)}"

    def run(self) -> Iterator[Replayed]:
        """Make the accesses of ``also``, which count for the shadow alone, then yield the recorded ones."""
        for touch in self.image.also:
            address: int = touch.l2_real
            while address < touch.l2_real + touch.size:
                self._perform(touch.access, address, address, 0, _REAL_MODE)
                address = align_down(address, FRAME_SHIFT) + FRAME_BYTES
        column = self.image.column
        names = ("op", "pid", "msr", "ea", "l0_real", "vector", "dar", "dsisr", "srr0", "srr1")
        for row in zip(*(column(name).tolist() for name in names), strict=True):
            yield self._replay(dict(zip(names, row, strict=True)))

    def _replay(self, row: dict[str, int]) -> Replayed:
        access = _OPERATIONS.get(row["op"])
        if access is None or row["pid"] >= PIDR_LIMIT or row["msr"] & MSR_HV:
            problem = f"op {row['op']}, pid {row['pid']}, msr {row['msr']:#x} is no access of L2"
            raise InputError(self.image.path, "accesses", problem, "record op 1 to 3, and MSR[HV] clear")
        completed = row["vector"] == VECTOR_SC
        at = row["ea"] if access is Access.FETCH else row["srr0"] - (_INSTRUCTION_BYTES if completed else 0)
        result = self._perform(access, row["ea"], at, row["pid"], row["msr"])
        if completed:
            expected = {"ra": row["l0_real"]}
        else:
            names = ("vector", "dsisr", "srr0", "srr1", *(("dar",) if row["dar"] != NONE else ()))
            expected = {name: row[name] for name in names}
        if isinstance(result, Reached):
            computed, outcome = {"ra": result.address}, "done"
        elif isinstance(result, Interrupt):
            computed = {"vector": result.vector} | {name: result.get(name) for name in expected if name != "vector"}
            computed.pop("ra", None)
            outcome = result.name
        else:
            computed, outcome = {}, result.error or result.verdict.value
        label = f"{access.label} of {row['ea']:#x}, PID {row['pid']}, MSR {row['msr']:#x}"
        return Replayed(label, outcome, expected, computed)

    def _perform(self, access: Access, address: int, at: int, pid: int, msr: int) -> Reached | Interrupt | Outcome:
        cpu = self._levels.cpu
        cpu.registers.pidr, cpu.registers.msr = pid, returned_to(msr)
        loop = Attempt(lambda: cpu.execute(access, address, at), _hypervisor_exit, self._handle)
        result, outcome = loop.run()
        for exit_, _ in loop.faults:
            self.faults[_fault_name(exit_)] += 1
        if outcome is None:
            return result
        return inject(outcome, loop.faults[-1][0], self.quirks) if outcome.verdict is Verdict.INJECT else outcome

    def _handle(self, exit_: Exit) -> Outcome:
        """Handle an exit as L0; where it reflects, as L1, whose own host L0 is."""
        levels = self._levels
        if levels.nested is not None:
            outcome = finish(levels.handler.handle(levels.nested, exit_))
            if outcome.verdict is not Verdict.REFLECT:
                return outcome
            self.faults["reflected to L1"] += 1
            exit_.record = reflect(outcome, exit_.record, self.quirks)
            exit_.fault = decode(exit_.record).fault
        return finish(levels.l1_handler.handle(exit_))

    def explain(self, space: str, address: int) -> list[Explained]:
        """Return how ``address`` translates, table by table, down to the machine's memory."""
        tables = self._tables
        if tables.outer is None or tables.shadow is None:
            if space != "l2":
                problem = "is null: there is neither a table for L1 nor a shadow"
                raise InputError(self.image.path, "l0", problem, "ask for --space l2")
            return [explain_table(tables.inner, address)[0]]
        if space != "l2":
            return [explain_table(tables.shadow if space == "shadow" else tables.outer, address)[0]]
        first, mapping = explain_table(tables.inner, address, tables.outer)
        return [first] if mapping is None else [first, explain_table(tables.outer, mapping.output_address)[0]]


def explain_table(table: RadixTable, address: int, *below: RadixTable) -> tuple[Explained, Mapping | None]:
    """Walk one table with every step noted.

    :param below: the tables through which this one's entries are read; their steps are noted too.
    """
    steps: list[Step] = []
    walkers = [one.walker for one in (table, *below)]
    for walker in walkers:
        walker.trace = steps
    mapping, problem = None, ""
    try:
        mapping = table.lookup(address)
    except Fault as fault:
        problem = str(fault)
    finally:
        for walker in walkers:
            walker.trace = None
    return Explained(table.walker.stage, address, steps, mapping, problem), mapping


def _hypervisor_exit(result: Reached | Interrupt) -> Exit | None:
    """Return the exit that a hypervisor storage interrupt is; None for what does not reach the hypervisor."""
    if isinstance(result, Interrupt) and result.vector in {VECTOR_HDSI, VECTOR_HISI}:
        return decode(HvExit.from_interrupt(result))
    return None


def _fault_name(exit_: Exit) -> str:
    trap = "HISI" if exit_.record.fetch else "HDSI"
    table = ", reading a table" if exit_.fault.implicit else ""
    return f"{trap} {kind_text(exit_.fault.kind)}{table}"
