"""POWER9 radix, declared to the conformance suite from the manual (Power ISA 3.0B, Book III, 5.7.9 and 5.7.10.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs

from nestmmu.access import EXECUTE, READ, WRITE
from nestmmu.formats import AccessedDirty
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.testing import (
    Broken,
    Capabilities,
    Leads,
    LevelShape,
    Nothing,
    Page,
    RadixArchitecture,
    Scope,
)
from nestmmu_ppc64_radix.composer import KvmComposer
from nestmmu_ppc64_radix.conformance_nest import PowerNest
from nestmmu_ppc64_radix.conformance_stages import PowerStages
from nestmmu_ppc64_radix.formats import POWER9
from nestmmu_ppc64_radix.quirks import Quirk

if TYPE_CHECKING:
    from nestmmu.memory import Memory
    from nestmmu.testing import Meaning

_UPPER = (LevelShape("PGD", 39, 13), LevelShape("PUD", 30, 9), LevelShape("PMD", 21, 9))
TREE_64K = (*_UPPER, LevelShape("PTE", 16, 5))
TREE_4K = (*_UPPER, LevelShape("PTE", 12, 9))
_WIDTHS = ({13}, {9}, {9}, {5, 9})
"""NLS that the hardware takes, by level."""


class Ppc64Radix(RadixArchitecture):
    """Bit 0 of the manual is bit 63 here."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="ppc64_radix",
        input_bits=52,
        output_bits=57,
        page_shifts=(39, 30, 21, 16, 12),
        rights=(0, READ, READ | WRITE, EXECUTE, READ | EXECUTE, READ | WRITE | EXECUTE),
        byteorder="big",
        entry_bytes=8,
        trees=(TREE_64K, TREE_4K),
        policies=(AccessedDirty.UPDATE, AccessedDirty.FAULT, AccessedDirty.IGNORE),
        scopes=(Scope.PAGE, Scope.RANGE, Scope.TAG, Scope.ALL),
        nest_shifts=(16, 21),
        shadow_shifts=(16, 21, 30),
        attributes=(0x00, 0x10, 0x20, 0x30),
        most_faults=3,
    )

    def entry_word(
        self, tree: tuple[LevelShape, ...], depth: int, target: int, rights: int, *, accessed: bool, dirty: bool
    ) -> int:
        """Return V, L, RPN, R, C and EAA; a store's permission is 0b010 with the load's 0b100 beside it."""
        del tree, depth
        encoded = (4 if rights & READ else 0) | (2 if rights & WRITE else 0) | (1 if rights & EXECUTE else 0)
        return 0b11 << 62 | target | accessed << 8 | dirty << 7 | encoded

    def other_words(self, word: int) -> tuple[int, ...]:
        """Return the word with 0b010 alone for load and store."""
        return (word & ~4,) if word & 6 == 6 else ()  # noqa: PLR2004  (EAA)

    def table_word(self, tree: tuple[LevelShape, ...], depth: int, table: int) -> int:
        """Return V, NLB and NLS."""
        return 1 << 63 | table | tree[depth + 1].index_bits

    def decode(self, depth: int, shift: int, word: int) -> Meaning:
        """Read V, L, then a directory entry or a leaf; what is not aligned has its low bits dropped."""
        if not word >> 63:
            return Nothing()
        if not word >> 62 & 1:
            bits = word & 0x1F
            if depth == len(_WIDTHS) - 1 or bits not in _WIDTHS[depth + 1]:
                return Broken()
            base = word & 0x0FFF_FFFF_FFFF_FF00
            return Leads(base >> bits + 3 << bits + 3, bits)
        target = (word & 0x01FF_FFFF_FFFF_F000) >> shift << shift
        rights = (READ if word & 6 else 0) | (WRITE if word & 2 else 0) | (EXECUTE if word & 1 else 0)
        return Page(target, rights, bool(word & 0x100), bool(word & 0x80))

    def translator(
        self, memory: Memory, root: int, index_bits: int, policy: AccessedDirty, stage: str = "tree"
    ) -> RadixTable:
        """Return the hardware's walk of one tree."""
        return RadixTable(RadixWalker(POWER9, memory, stage, policy), Root(root, index_bits))

    def make_two_stages(self, policy: AccessedDirty = AccessedDirty.IGNORE, variant: int = 0) -> PowerStages:
        """Return a CPU in a guest, both of whose tables are empty."""
        return PowerStages(self, policy, variant)

    def make_nest(self, shift: int) -> PowerNest:
        """Return KVM, corrected, with base pages of 64 KiB, and an L1."""
        return PowerNest(self, shift)

    def composer(self) -> KvmComposer:
        """Return KVM's, corrected, for a shadow of base pages of 64 KiB."""
        return KvmComposer((30, 21, 16), Quirk.NONE)


_GIGANTIC = "BASE_PAGES_UNDER_GIGANTIC: under 1 GiB of the host's, the shadow gets a base page"
_BEYOND = "PAGES_BEYOND_SLOT: a large page of the host's may reach beyond the memory slot"
_BY_L1_LPID = "FLUSHED_BY_L1_LPID: when R or C is cleared in a shadow, the flush names the LPID that L1 assigned"
_CHILDREN = "CHILDREN_FLUSHED_AT_HOST_ADDRESS: pages of a dropped table are flushed where they lead to"
_STALE = "STALE_REFERENCE_CHANGE: a fault under way may put back the C that was just cleared"
_WRITE_ONLY = "WRITE_WITHOUT_READ: L1's write-only leaf takes read from the shadow, which it implies"
_RACE = "CREATION_RACE_LOST: of two vcpus that enter a new L2 at once, the second fails"
LINUX_FAILURES = {
    "composition.test_the_largest_page_that_both_map": _GIGANTIC,
    "composition.test_an_identity_behind_changes_nothing_and_twice_is_once": _GIGANTIC,
    "composition.test_words_that_mean_the_same": _WRITE_ONLY,
    "shadow.test_words_that_mean_the_same": _WRITE_ONLY,
    "composition.test_in_whatever_order_three_are_composed": _GIGANTIC,
    "references.test_two_cpus_that_make_one_at_once": _RACE,
    "isolation.test_a_large_page_across_the_end_of_a_slot": _BEYOND,
    "isolation.test_a_slot_that_begins_late": _BEYOND,
    "dirty.test_the_log_reports_each_store_and_nothing_else": _BY_L1_LPID,
    "dirty.test_a_store_right_after_the_log_was_taken_is_in_the_next": _BY_L1_LPID,
    "dirty.test_one_page_is_asked_again_and_again": _BY_L1_LPID,
    "dirty.test_two_guests_that_share_a_page": _BY_L1_LPID,
    "dirty.test_a_store_is_not_forgotten_with_the_use": _BY_L1_LPID,
    "dirty.test_a_page_looks_young_when_it_was_used_and_not_otherwise": _BY_L1_LPID,
    "dirty.test_the_log_is_taken_while_a_flag_is_set": _BY_L1_LPID,
    "dirty.test_the_log_is_taken_while_a_page_is_mapped": _STALE,
    "silence.test_the_old_page_or_the_new_one": _CHILDREN,
}
"""What each quirk breaks, by the suite's names."""


class Ppc64RadixLinux(Ppc64Radix):
    """The nest as Linux 6.1 has it, mistakes included: what each breaks is expected to fail."""

    capabilities: ClassVar[Capabilities] = attrs.evolve(
        Ppc64Radix.capabilities, name="ppc64_radix_linux", expected_failures=LINUX_FAILURES
    )

    def make_nest(self, shift: int) -> PowerNest:
        """Return KVM of Linux 6.1."""
        return PowerNest(self, shift, quirks=Quirk.LINUX_6_1)

    def composer(self) -> KvmComposer:
        """Return KVM's of Linux 6.1."""
        return KvmComposer((30, 21, 16), Quirk.LINUX_6_1)
