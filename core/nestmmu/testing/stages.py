"""Two stages: a table behind a table, whose words lie in what the outer one translates."""

from __future__ import annotations

import abc
import enum
from typing import TYPE_CHECKING

import attrs

from nestmmu.access import Access
from nestmmu.addresses import align_down
from nestmmu.faults import Fault, FaultKind
from nestmmu.memory import TranslatedMemory
from nestmmu.testing.trees import Tree, Upwards

if TYPE_CHECKING:
    from nestmmu.formats import AccessedDirty
    from nestmmu.testing.architecture import RadixArchitecture


class Stage(enum.Enum):
    """One of the two tables."""

    INNER = "inner"
    """Of the program's own addresses; its words, and what it leads to, are translated by the other."""
    OUTER = "outer"


@attrs.frozen
class Landed:
    """An access that ended in an address of the machine's memory."""

    address: int
    shift: int
    """Log2 of the bytes of the smaller page of the two."""
    rights: int
    """What both permit."""


@attrs.frozen
class StageFault:
    """A fault, as whoever owns the table at fault gets to know of it."""

    stage: Stage
    kind: FaultKind
    access: Access
    address: int
    """What that table was to translate, in bytes."""
    implicit: bool = False
    """Whether it was met while reading a word of the inner table."""

    def __str__(self) -> str:
        how = "reading the inner table" if self.implicit else f"a {self.access.label}"
        return f"{self.stage.value} fault ({self.kind.name}) at {self.address:#x} by {how}"


class TwoStages(abc.ABC):
    """An inner and an outer table, written by raw words, and what the plugin makes of an access through both."""

    page_shifts: tuple[int, ...]
    """Log2 of the bytes of the pages that either table can hold."""
    implicit_shift = 0
    """Log2 of the bytes within which the record of an implicit fault says no more where it was."""
    data: int
    """From here on the middle space is free for pages, in bytes; below are the words of the inner table."""

    @abc.abstractmethod
    def map(
        self, stage: Stage, address: int, target: int, shift: int, rights: int, *, accessed: bool = True,
        dirty: bool = True,
    ) -> None:  # fmt: skip
        """Write a page by raw words; what the inner table's own words need of the outer one is mapped."""

    @abc.abstractmethod
    def drop(self, address: int) -> None:
        """Unmap, by a raw word, the smallest page of the outer table around an address."""

    @abc.abstractmethod
    def table_page(self, address: int, *, accessed: bool = True) -> None:
        """Map (again) the page of the outer table that holds words of the inner one around an address."""

    @abc.abstractmethod
    def flags(self, stage: Stage, address: int) -> tuple[bool, bool]:
        """Return accessed and dirty of a page, as its raw word has them."""

    @abc.abstractmethod
    def words_read(self, address: int) -> list[int]:
        """Return where, in the middle space, the words lie that an access reads before it has the inner leaf."""

    def implicit_access(self, access: Access) -> Access:
        """Return the access that a fault met while reading the inner table says, of an access like this."""
        del access
        return Access.LOAD

    @abc.abstractmethod
    def access(self, access: Access, address: int) -> Landed | StageFault:
        """Do one access by the plugin, records of hardware and their decoding included where it has them."""


class TreeStages(TwoStages):
    """Two trees of one architecture, the plugin's translators one upon the other.

    :param variant: which of the architecture's trees both are.
    """

    def __init__(self, architecture: RadixArchitecture, policy: AccessedDirty, variant: int = 0) -> None:
        form = architecture.capabilities
        levels = form.trees[variant]
        self.architecture = architecture
        self.memory = architecture.make_memory()
        self.page_shifts = tuple(level.shift for level in levels if level.leaf)
        self.small = min(self.page_shifts)
        self.rights = max(form.rights, key=int.bit_count)
        self.host_at = 1 << min(form.output_bits, 40) - 2
        """Where the middle space's first byte is in the machine's memory."""
        self.data = 1 << min(form.input_bits, form.output_bits) - 1
        self._mapped: set[int] = set()
        upwards = Upwards(architecture.table_base)
        self.outer = Tree(architecture, levels, self.memory.read, self.memory.write, upwards)
        self.inner = Tree(architecture, levels, self._load, self._store, Upwards(1 << self.small, 1 << self.small))
        self.make_translators(policy)

    def make_translators(self, policy: AccessedDirty) -> None:
        """Make what the plugin translates with."""
        arch, outer, inner = self.architecture, self.outer, self.inner
        self.outer_by_plugin = arch.translator(self.memory, outer.root, outer.root_bits, policy, Stage.OUTER.value)
        middle = TranslatedMemory(self.memory, self.outer_by_plugin, "middle")
        self.inner_by_plugin = arch.translator(middle, inner.root, inner.root_bits, policy, Stage.INNER.value)

    def _load(self, address: int, size: int) -> bytes:
        return self.memory.read(self.host_at + address, size)

    def _store(self, address: int, data: bytes) -> None:
        for start in range(align_down(address, self.small), address + len(data), 1 << self.small):
            if start not in self._mapped:
                self.table_page(start)
        self.memory.write(self.host_at + address, data)

    def map(
        self, stage: Stage, address: int, target: int, shift: int, rights: int, *, accessed: bool = True,
        dirty: bool = True,
    ) -> None:  # fmt: skip
        """Write a page by raw words."""
        self._tree(stage).map(address, target, shift, rights, accessed=accessed, dirty=dirty)

    def _tree(self, stage: Stage) -> Tree:
        return self.inner if stage is Stage.INNER else self.outer

    def drop(self, address: int) -> None:
        """Unmap, by a raw word, the smallest page of the outer table around an address."""
        self.outer.put(self.outer.places(address)[-1], 0)

    def table_page(self, address: int, *, accessed: bool = True) -> None:
        """Map (again) the page of the outer table that holds words of the inner one around an address."""
        start = align_down(address, self.small)
        self._mapped.add(start)
        self.outer.map(start, self.host_at + start, self.small, self.rights, accessed=accessed, dirty=accessed)

    def flags(self, stage: Stage, address: int) -> tuple[bool, bool]:
        """Return accessed and dirty of a page, as its raw word has them."""
        end = self._tree(stage).read(address)
        return getattr(end, "accessed", False), getattr(end, "dirty", False)

    def words_read(self, address: int) -> list[int]:
        """Return where, in the middle space, the words lie that an access reads before it has the inner leaf."""
        return self.inner.places(address)

    def access(self, access: Access, address: int) -> Landed | StageFault:
        """Do one access by the plugin."""
        try:
            first = self.inner_by_plugin.translate(address, access)
            second = self.outer_by_plugin.translate(first.output_address, access)
        except Fault as fault:
            return StageFault(Stage(fault.stage), fault.kind, fault.access, fault.input_address, fault.implicit)
        shift = min(first.page_shift, second.page_shift)
        return Landed(second.output_address, shift, first.permissions & second.permissions)
