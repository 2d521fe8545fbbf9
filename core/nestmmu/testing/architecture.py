"""What the author of an architecture gives to the suite: a declaration, and verbs behind the plugin's back."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar

import attrs

from nestmmu.addresses import align_down
from nestmmu.batch import translate_many
from nestmmu.errors import NestmmuError
from nestmmu.formats import AccessedDirty
from nestmmu.mappings import Mapping
from nestmmu.memory import PhysicalMemory
from nestmmu.testing.stages import TreeStages, TwoStages
from nestmmu.testing.trees import Page, Tree, Upwards

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nestmmu.access import Access
    from nestmmu.compose import Composer
    from nestmmu.memory import Memory, Translator
    from nestmmu.testing.capabilities import Capabilities, Feature, LevelShape
    from nestmmu.testing.ends import Reached, Refused
    from nestmmu.testing.nest import Nest
    from nestmmu.testing.trees import Meaning
    from nestmmu.translations import Translations


class Table(abc.ABC):
    """One table in a memory of its own: written by the author's raw words, walked by the plugin."""

    memory: PhysicalMemory
    page_shifts: tuple[int, ...]
    """Log2 of the bytes of the pages that this very table can hold."""

    @abc.abstractmethod
    def map(
        self, address: int, target: int, shift: int, rights: int, *, accessed: bool = True, dirty: bool = True
    ) -> None:
        """Write a page by raw words."""

    @abc.abstractmethod
    def flags(self, address: int) -> tuple[bool, bool]:
        """Return accessed and dirty of a page that was mapped, as its raw word has them."""

    @abc.abstractmethod
    def places(self, address: int) -> list[int]:
        """Return where in :attr:`memory` each entry stands that a search for ``address`` may read, in its order."""

    @abc.abstractmethod
    def allowed(self, address: int, access: Access) -> Reached | Refused:
        """Return how an access ends by the author's own reading of the raw words; nothing is updated.

        Of what only a tree's walk knows (level, entry) nothing is compared where both sides leave it out.
        """

    @abc.abstractmethod
    def translate(self, address: int, access: Access) -> Mapping:
        """Do an access by the plugin.

        :raises Fault: if it does not end in an address.
        """

    def translate_many(self, addresses: NDArray[np.uint64], access: Access | None, *, update: bool) -> Translations:
        """Do many accesses at once by the plugin.

        :raises NotImplementedError: where :attr:`Capabilities.unsupported` says that it cannot.
        """
        raise NotImplementedError


class Architecture(abc.ABC):
    """An architecture as the suite sees it. It has no state: each call makes something new."""

    capabilities: ClassVar[Capabilities]

    def lacks(self, feature: Feature) -> str | None:
        """Return why a feature is not there; None if it is."""
        return self.capabilities.unsupported.get(feature)

    @property
    def form(self) -> Capabilities:
        """The declaration."""
        return self.capabilities

    @property
    def variants(self) -> range:
        """The numbers of the forms that a table may have: of its trees, where it is one."""
        return range(max(len(self.capabilities.trees), 1))

    @abc.abstractmethod
    def make_table(self, policy: AccessedDirty = AccessedDirty.IGNORE, variant: int = 0) -> Table:
        """Return an empty table.

        :param policy: what its walker does with accessed and dirty.
        :param variant: one of :attr:`variants`.
        """

    def make_nest(self, shift: int) -> Nest:
        """Return a host, its guest, and nothing in that yet.

        :param shift: log2 of the largest page with which the host maps its guest.
        :raises NotImplementedError: where :attr:`Capabilities.unsupported` says that there is none.
        """
        raise NotImplementedError

    def leaf_mapping(
        self, address: int, output: int, shift: int, rights: int, *, accessed: bool, dirty: bool
    ) -> Mapping:
        """Return a leaf as a walk would have found it: for a composer.

        :param output: where ``address`` itself leads, in bytes.
        """
        return Mapping(address, output, shift, rights, accessed, dirty)

    def with_attributes(self, leaf: Mapping, attributes: int) -> Mapping:
        """Return a leaf with one of :attr:`Capabilities.attributes`."""
        entry = None if leaf.entry is None else leaf.entry & ~self.capabilities.attribute_mask | attributes
        return attrs.evolve(leaf, attributes=attributes, entry=entry)

    def composed_attributes(self, inner: int, outer: int) -> int:
        """Return the attributes of what is composed of two leaves: the host's, unless the manual has it otherwise."""
        del inner
        return outer

    def entry_page(self, leaf: Mapping) -> Page:
        """Return what the raw entry of a composed leaf says.

        :raises NotImplementedError: where :attr:`Capabilities.unsupported` says that nothing is composed.
        """
        raise NotImplementedError

    def composer(self) -> Composer:
        """Return what makes a leaf of a shadow.

        :raises NotImplementedError: where :attr:`Capabilities.unsupported` says that there is none.
        """
        raise NotImplementedError

    def make_two_stages(self, policy: AccessedDirty = AccessedDirty.IGNORE, variant: int = 0) -> TwoStages:
        """Return two empty tables, one behind the other.

        :raises NotImplementedError: where :attr:`Capabilities.unsupported` says that there are none.
        """
        raise NotImplementedError


class RadixArchitecture(Architecture):
    """An architecture whose tables are trees: three statements about words, and the plugin's own translator."""

    memory_bytes: int | None = None
    """Bytes of a test's memory; None: half of what a table can lead to, so that entries can lead outside it."""
    table_base = 0x10000
    """Where a test's tables begin, in bytes."""

    @abc.abstractmethod
    def entry_word(
        self, tree: tuple[LevelShape, ...], depth: int, target: int, rights: int, *, accessed: bool, dirty: bool
    ) -> int:
        """Return the word of a leaf, as the manual has it.

        :param depth: its level, 0 for the root.
        :param target: the page's address, in bytes, aligned to the page.
        """

    @abc.abstractmethod
    def table_word(self, tree: tuple[LevelShape, ...], depth: int, table: int) -> int:
        """Return the word, at level ``depth``, that leads to a table of the next level at ``table``."""

    @abc.abstractmethod
    def decode(self, depth: int, shift: int, word: int) -> Meaning:
        """Return what a word at level ``depth`` says, whose entry covers 2**``shift`` bytes."""

    def other_words(self, word: int) -> tuple[int, ...]:
        """Return other words that mean the same as the word of a leaf, where the format has such."""
        del word
        return ()

    @abc.abstractmethod
    def translator(
        self, memory: Memory, root: int, index_bits: int, policy: AccessedDirty, stage: str = "tree"
    ) -> Translator:
        """Return what the plugin translates with by the table at ``root``.

        :param stage: what faults are to call it.
        """

    def make_two_stages(self, policy: AccessedDirty = AccessedDirty.IGNORE, variant: int = 0) -> TwoStages:
        """Return two tables, one behind the other: the truth by recursion, or the hardware where it has two stages."""
        return TreeStages(self, policy, variant)

    def leaf_mapping(
        self, address: int, output: int, shift: int, rights: int, *, accessed: bool, dirty: bool
    ) -> Mapping:
        """Return a leaf, its word included."""
        tree = next(one for one in self.capabilities.trees if any(level.shift == shift for level in one))
        depth = next(depth for depth, level in enumerate(tree) if level.shift == shift)
        word = self.entry_word(tree, depth, align_down(output, shift), rights, accessed=accessed, dirty=dirty)
        return attrs.evolve(
            super().leaf_mapping(address, output, shift, rights, accessed=accessed, dirty=dirty), entry=word
        )

    def entry_page(self, leaf: Mapping) -> Page:
        """Return what the word of a composed leaf says.

        :raises NestmmuError: if it is no leaf's.
        """
        levels = self.capabilities.trees[0]
        depth = next(place for place, level in enumerate(levels) if level.shift == leaf.page_shift)
        page = self.decode(depth, leaf.page_shift, leaf.entry or 0)
        if not isinstance(page, Page):
            message = f"the entry of a composed leaf, {leaf.entry or 0:#x}, is {page}"
            raise NestmmuError(message)
        return page

    def make_memory(self) -> PhysicalMemory:
        """Return an empty memory for one test."""
        size = self.memory_bytes
        return PhysicalMemory(1 << self.capabilities.output_bits - 1 if size is None else size)

    def make_table(self, policy: AccessedDirty = AccessedDirty.IGNORE, variant: int = 0) -> TreeTable:
        """Return an empty tree."""
        return TreeTable(self, policy, self.capabilities.trees[variant])


class TreeTable(Table):
    """A tree of an architecture, and the plugin's translator on it."""

    def __init__(self, architecture: RadixArchitecture, policy: AccessedDirty, levels: tuple[LevelShape, ...]) -> None:
        self.architecture = architecture
        self.memory = architecture.make_memory()
        self.levels = levels
        self.page_shifts = tuple(level.shift for level in levels if level.leaf)
        self.tree = Tree(architecture, levels, self.memory.read, self.memory.write, Upwards(architecture.table_base))
        self.by_plugin = architecture.translator(self.memory, self.tree.root, self.tree.root_bits, policy)

    def map(
        self, address: int, target: int, shift: int, rights: int, *, accessed: bool = True, dirty: bool = True
    ) -> None:
        """Write a page by raw words."""
        self.tree.map(address, target, shift, rights, accessed=accessed, dirty=dirty)

    def flags(self, address: int) -> tuple[bool, bool]:
        """Return accessed and dirty of a page that was mapped, as its raw word has them."""
        return self.tree.flags(address)

    def places(self, address: int) -> list[int]:
        """Return where the entries of ``address`` are, root first, as far as there are tables."""
        return self.tree.places(address)

    def allowed(self, address: int, access: Access) -> Reached | Refused:
        """Walk slowly, and refuse what the leaf does not permit."""
        return self.tree.allowed(address, access)

    def translate(self, address: int, access: Access) -> Mapping:
        """Do an access by the plugin."""
        return self.by_plugin.translate(address, access)

    def translate_many(self, addresses: NDArray[np.uint64], access: Access | None, *, update: bool) -> Translations:
        """Do many accesses at once by the plugin."""
        return translate_many(self.by_plugin, addresses, access, update=update)
