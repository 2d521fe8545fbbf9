"""A recorded nest of POWER9 radix hypervisors, run again from an empty shadow table."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from nestmmu.access import Access
from nestmmu.addresses import AssignedTag, HardwareTag, align_down
from nestmmu.allocator import PageAllocator
from nestmmu.errors import InputError, NestmmuError, OutsideMemoryError
from nestmmu.faults import Fault
from nestmmu.hypervisor import Attempt
from nestmmu.memory import FRAME_BYTES, FRAME_SHIFT, TranslatedMemory
from nestmmu.nests import Explained, Replayed, kind_text, size_text
from nestmmu.outcomes import Exit, Outcome, Verdict
from nestmmu.points import finish
from nestmmu.radix import RadixTable, RadixWalker, Root, Step
from nestmmu.slots import Slot, Slots
from nestmmu_ppc64_book3s.interrupts import VECTOR_HDSI, VECTOR_HISI, VECTOR_SC, Interrupt
from nestmmu_ppc64_book3s.partition import (
    LARGEST_TABLE_FIELD,
    PATE_HR,
    PATS,
    pate_address,
    radix_root,
    read_pair,
    tree_bits,
)
from nestmmu_ppc64_book3s.registers import LPIDR_LIMIT, MSR_HV, MSR_SF, PIDR_LIMIT, Registers, returned_to
from nestmmu_ppc64_book3s.threads import Reached
from nestmmu_ppc64_radix.cpu import Power9Radix
from nestmmu_ppc64_radix.exits import HvExit, decode, inject, reflect
from nestmmu_ppc64_radix.formats import INPUT_BITS, POWER9
from nestmmu_ppc64_radix.kvm import KvmGuest, KvmHostFaults, KvmHv, KvmNestedGuest
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu.images import NestImage, Section
    from nestmmu.mappings import Mapping
    from nestmmu.memory import Memory

NONE = (1 << 64) - 1
_OPERATIONS = {1: Access.LOAD, 2: Access.STORE, 3: Access.FETCH}
_REAL_MODE = MSR_SF
_INSTRUCTION_BYTES = 8
"""A completed access was made this far before the system call that reported it."""


def image_root(image: NestImage, memory: Memory, ptcr: int, index: int, field: str) -> tuple[Root, int]:
    """Return the tree that the entry ``index`` of a partition table in an image leads to, and the entry's doubleword 1.

    :raises InputError: naming ``field``, if there is no radix tree of 52 bits.
    """
    where = pate_address(ptcr, index)
    remedy = "take the register and the LPID from the machine that the image is of"
    if where is None:
        raise InputError(image.path, field, f"PTCR {ptcr:#x} has no entry for LPID {index}", remedy)
    try:
        dw0, dw1 = read_pair(memory, where)
    except (OutsideMemoryError, Fault):
        raise InputError(image.path, field, f"the partition table at {where:#x} cannot be read", remedy) from None
    if not dw0 & PATE_HR or tree_bits(dw0) != INPUT_BITS:
        problem = f"the partition-table entry of LPID {index} at {where:#x} is {dw0:#x}, not a radix tree of 52 bits"
        raise InputError(image.path, field, problem, remedy)
    base, bits = radix_root(dw0)
    return Root(base, bits), dw1


def _ptcr(image: NestImage, level: str, section: Section) -> int:
    """Return the PTCR of a level.

    :raises InputError: if its size is one that the register does not take.
    """
    ptcr = section.number("ptcr")
    if ptcr & PATS > LARGEST_TABLE_FIELD:
        problem = f"size field {ptcr & PATS} of {ptcr:#x} is over {LARGEST_TABLE_FIELD}"
        raise InputError(image.path, f"{level}.ptcr", problem, "give the register as the machine held it")
    return ptcr


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


class RadixNest:
    """L0, L1 and L2 of one image; where the image has no L0, L1 is all there is."""

    def __init__(self, image: NestImage, quirks: Quirk = Quirk.LINUX_6_1) -> None:
        self.image = image
        self.quirks = quirks
        self.faults: Counter[str] = Counter()
        self.memory = image.memory()
        self.l1_lpid = AssignedTag(image.l2.number("l1_lpid", limit=LPIDR_LIMIT))
        self.l1_ptcr = _ptcr(image, "l1", image.l1)
        self.nested: KvmNestedGuest | None = None
        self.guest: KvmGuest | None = None
        self._kernel: list[Mapping] = []
        l2_slots = _l2_slots(image)
        if image.l0 is None:
            root, _ = image_root(image, self.memory, self.l1_ptcr, self.l1_lpid, "l1.ptcr, l2.l1_lpid")
            self.l1_table = RadixTable(RadixWalker(POWER9, self.memory, "L1's table for L2"), root)
            host = KvmHv(self.memory, PageAllocator(self.memory, 0, 0), ptcr=self.l1_ptcr, quirks=quirks)
            l2 = host.create_guest(HardwareTag(self.l1_lpid), l2_slots, None, root)
            registers = Registers(ptcr=self.l1_ptcr, lpidr=self.l1_lpid)
        else:
            guest, nested = self._build(image, image.l0)
            self.guest, self.nested = guest, nested
            l2 = KvmGuest(nested.tag, nested.tree, self.memory, l2_slots, None, guest.base_shift)
            registers = Registers(ptcr=_ptcr(image, "l0", image.l0), lpidr=nested.tag)
        self.l1_handler = KvmHostFaults(l2)
        self.cpu = Power9Radix(registers, self.memory)

    def _build(self, image: NestImage, l0: Section) -> tuple[KvmGuest, KvmNestedGuest]:
        """Take L0's table for L1 as it is, and begin an empty shadow in the kernel's place."""
        ptcr, page_shift = _ptcr(image, "l0", l0), l0.number("page_shift")
        if page_shift not in {12, 16}:
            raise InputError(image.path, "l0.page_shift", f"is {page_shift}", "a POWER kernel has 12 or 16")
        lpid = HardwareTag(image.l1.number("lpid", limit=LPIDR_LIMIT))
        shadow_lpid = HardwareTag(image.l2.number("shadow_lpid", limit=LPIDR_LIMIT))
        root, _ = image_root(image, self.memory, ptcr, lpid, "l0.ptcr, l1.lpid")
        shadow_root, _ = image_root(image, self.memory, ptcr, shadow_lpid, "l0.ptcr, l2.shadow_lpid")
        self.shadow_table = RadixTable(RadixWalker(POWER9, self.memory, "L0's shadow for L2"), shadow_root)
        self._kernel = self._leaves(self.shadow_table, "l2.shadow_lpid")
        free = (max(self.memory.frame_numbers(), default=0) + 1) * FRAME_BYTES
        pages = PageAllocator(self.memory, free, 1 << INPUT_BITS)
        host = KvmHv(self.memory, pages, page_shift=page_shift, ptcr=ptcr, quirks=self.quirks)
        l0_table = RadixTable(RadixWalker(POWER9, self.memory, "L0's table for L1"), root)
        guest = host.create_guest(lpid, _mapped_slots(self._leaves(l0_table, "l1.lpid")), None, root)
        guest.ptcr = self.l1_ptcr
        nested = host.add_nested(guest, self.l1_lpid, shadow_lpid)
        image_root(image, guest.memory, self.l1_ptcr, self.l1_lpid, "l1.ptcr, l2.l1_lpid")
        host.update_ptbl_cache(guest, nested)
        self.handler = host.nested_faults(guest)
        return guest, nested

    def _leaves(self, table: RadixTable, field: str) -> list[Mapping]:
        try:
            return list(table.leaves())
        except (Fault, NestmmuError) as error:
            raise InputError(
                self.image.path, field, f"{table.walker.stage} is broken: {error}", "take the image again"
            ) from None

    def kernel_shadow(self) -> list[Mapping]:
        """Return the leaves of the shadow table that the kernel left."""
        return self._kernel

    def rebuilt_shadow(self) -> list[Mapping]:
        """Return the leaves of the shadow table that :meth:`run` built."""
        return [] if self.nested is None else list(self.nested.shadow.table.leaves())

    def page_sizes(self, leaf: Mapping) -> str:
        """Return the sizes of the pages under a leaf of the shadow, L1's over L0's."""
        if self.nested is None or self.nested.table is None or self.guest is None:
            return ""
        try:
            inner = self.nested.table.lookup(leaf.page_start)
            outer = self.guest.table.table.lookup(inner.output_address)
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
        registers = self.cpu.registers
        registers.pidr, registers.msr = pid, returned_to(msr)
        loop = Attempt(lambda: self.cpu.execute(access, address, at), _hypervisor_exit, self._handle)
        result, outcome = loop.run()
        for exit_, _ in loop.faults:
            self.faults[_fault_name(exit_)] += 1
        if outcome is None:
            return result
        return inject(outcome, loop.faults[-1][0], self.quirks) if outcome.verdict is Verdict.INJECT else outcome

    def _handle(self, exit_: Exit) -> Outcome:
        """Handle an exit as L0; where it reflects, as L1, whose own host L0 is."""
        if self.nested is not None:
            outcome = finish(self.handler.handle(self.nested, exit_))
            if outcome.verdict is not Verdict.REFLECT:
                return outcome
            self.faults["reflected to L1"] += 1
            exit_.record = reflect(outcome, exit_.record, self.quirks)
            exit_.fault = decode(exit_.record).fault
        return finish(self.l1_handler.handle(exit_))

    def explain(self, space: str, address: int) -> list[Explained]:
        """Return how ``address`` translates, table by table, down to the machine's memory."""
        if self.image.l0 is None or self.nested is None or self.guest is None:
            if space != "l2":
                problem = "is null: there is neither a table for L1 nor a shadow"
                raise InputError(self.image.path, "l0", problem, "ask for --space l2")
            return [explain_table(self.l1_table, address)[0]]
        if space == "shadow":
            return [explain_table(self.shadow_table, address)[0]]
        l0_table = RadixTable(RadixWalker(POWER9, self.memory, "L0's table for L1"), self.guest.table.table.root)
        if space == "l1":
            return [explain_table(l0_table, address)[0]]
        l1_memory = TranslatedMemory(self.memory, l0_table, "L1 real")
        root = Root(*radix_root(self.nested.gr_to_hr))
        l1_table = RadixTable(RadixWalker(POWER9, l1_memory, "L1's table for L2"), root)
        first, mapping = explain_table(l1_table, address, l0_table)
        return [first] if mapping is None else [first, explain_table(l0_table, mapping.output_address)[0]]


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
