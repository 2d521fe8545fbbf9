"""Composition: two leaves, one behind the other, made into one of a shadow."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs

from nestmmu.access import WRITE, Access, permission_text
from nestmmu.addresses import align_down, low_mask
from nestmmu.testing.architecture import RadixArchitecture
from nestmmu.testing.capabilities import Feature
from nestmmu.testing.checks import applies, equal, require
from nestmmu.testing.topic import NO_TREES, ONE_WORD, Topic
from nestmmu.testing.trees import Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu.mappings import Mapping

FLAGS = ((False, False), (False, True), (True, False), (True, True))


def text(mapping: Mapping) -> str:
    """Return a mapping for people."""
    flags = permission_text(mapping.permissions) + ("A" if mapping.accessed else "-") + ("D" if mapping.dirty else "-")
    return f"{mapping.input_address:#x} to {mapping.output_address:#x}, 2**{mapping.page_shift} bytes {flags}"


def fields(mapping: Mapping) -> tuple[int | bool, ...]:
    """Return what two compositions are compared by."""
    return (
        mapping.input_address, mapping.output_address, mapping.page_shift, mapping.permissions, mapping.accessed,
        mapping.dirty,
    )  # fmt: skip


class Composition(Topic):
    """What of two leaves may, and has to, reach a shadow."""

    needs = (Feature.COMPOSITION,)

    def _leaf(
        self, address: int, target: int, shift: int, rights: int, flags: tuple[bool, bool] = (True, True)
    ) -> Mapping:
        """Return the page around ``address``, which leads into the page around ``target``."""
        output = align_down(target, shift) | address & low_mask(shift)
        return self.arch.leaf_mapping(address, output, shift, rights, accessed=flags[0], dirty=flags[1])

    def _sizes(self) -> Iterator[tuple[int, int]]:
        for inner, outer in itertools.product(self.form.shadow_shifts, repeat=2):
            if inner <= outer or not self.form.whole_pages:
                yield inner, outer

    def _kept(self, rights: int, *, dirty: bool) -> int:
        """Return what a shadow permits of what both leaves permit."""
        return rights & ~WRITE if self.form.writable_if_dirty and not dirty else rights

    def _pair(
        self, sizes: tuple[int, int], rights: tuple[int, int], flags: tuple[tuple[bool, bool], ...]
    ) -> tuple[Mapping, Mapping]:
        """Return two leaves whose addresses lie anywhere in their pages."""
        top = 1 << max(self.form.shadow_shifts)
        small = 1 << min(self.form.shadow_shifts)
        inner = self._leaf(3 * top + 3 * small + 0x124, 2 * top + 2 * small, sizes[0], rights[0], flags[0])
        return inner, self._leaf(inner.output_address, 5 * top + small, sizes[1], rights[1], flags[1])

    def test_the_largest_page_that_both_map(self) -> None:
        composer, rights = self.arch.composer(), self.most_rights()
        for sizes in self._sizes():
            inner, outer = self._pair(sizes, (rights, rights), ((True, True), (True, True)))
            for access in Access:
                found = composer.compose(inner, outer, access)
                what = f"2**{sizes[0]} behind 2**{sizes[1]} bytes for a {access.label}"
                equal(found.page_shift, min(sizes), f"{what}: its size")
                equal(found.output_address, outer.output_address, f"{what}: where {inner.input_address:#x} leads")
                equal(found.input_address, inner.input_address, f"{what}: its address")

    def test_never_more_than_both_permit(self) -> None:
        composer = self.arch.composer()
        for one, other in itertools.product(self.form.rights, repeat=2):
            rights = one, other
            for sizes, access in itertools.product(self._sizes(), Access):
                inner, outer = self._pair(sizes, rights, ((True, True), (True, True)))
                found = composer.compose(inner, outer, access)
                both = rights[0] & rights[1]
                what = f"{permission_text(rights[0])} behind {permission_text(rights[1])} for a {access.label}"
                require(not found.permissions & ~both, f"{what}: permits {permission_text(found.permissions)}")
                stored = bool(found.permissions & WRITE) or not self.form.writable_if_dirty
                require(stored or not found.dirty, f"{what}: dirty, and nothing can be stored")
                if both in self.form.rights and found.permissions != self._kept(both, dirty=access is Access.STORE):
                    equal(found.permissions, both, f"{what}: all that both permit")

    def test_accessed_and_dirty_are_never_made_up(self) -> None:
        composer, rights = self.arch.composer(), self.most_rights()
        for flags in itertools.product(FLAGS, repeat=2):
            for sizes, access in itertools.product(self._sizes(), Access):
                inner, outer = self._pair(sizes, (rights, rights), flags)
                found = composer.compose(inner, outer, access)
                what = f"{text(inner)} behind {text(outer)} for a {access.label}"
                require(not found.accessed or (inner.accessed and outer.accessed), f"{what}: accessed")
                require(not found.dirty or (inner.dirty and outer.dirty), f"{what}: dirty")
                require(not found.dirty or access is Access.STORE, f"{what}: dirty, and nothing was stored")
                if all((*flags[0], *flags[1])) and access is Access.STORE:
                    equal((found.accessed, found.dirty), (True, True), f"{what}: accessed and dirty")

    def test_words_that_mean_the_same(self) -> None:
        arch = self.arch
        applies(isinstance(arch, RadixArchitecture), NO_TREES)
        composer, others = arch.composer(), 0
        flags = ((True, True), (True, True))
        for one, other in itertools.product(self.form.rights, repeat=2):
            for sizes, access in itertools.product(self._sizes(), Access):
                inner, outer = self._pair(sizes, (one, other), flags)
                wanted = composer.compose(inner, outer, access)
                pairs = list(itertools.product(self._alike(inner), self._alike(outer)))
                others += len(pairs) - 1
                for first, second in pairs:
                    found = composer.compose(first, second, access)
                    what = f"{first.entry:#x} behind {second.entry:#x} for a {access.label}"
                    equal(fields(found), fields(wanted), what)
        applies(others, ONE_WORD)

    def _alike(self, leaf: Mapping) -> list[Mapping]:
        words = self.trees.other_words(leaf.entry or 0)
        return [leaf, *(attrs.evolve(leaf, entry=word) for word in words)]

    def test_the_entry_says_what_the_mapping_says(self) -> None:
        arch = self.arch
        composer = arch.composer()
        for rights, flags in itertools.product(self.form.rights, itertools.product(FLAGS, repeat=2)):
            for sizes, access in itertools.product(self._sizes(), Access):
                inner, outer = self._pair(sizes, (rights, self.most_rights()), flags)
                found = composer.compose(inner, outer, access)
                page = Page(found.target_start, found.permissions, found.accessed, found.dirty)
                require(found.entry is not None, "a composed leaf has an entry")
                what = f"{text(inner)} behind {text(outer)} for a {access.label}: the entry {found.entry or 0:#x}"
                equal(arch.entry_page(found), page, what)

    def test_attributes(self) -> None:
        arch, rights, every = self.arch, self.most_rights(), self.form.attributes
        applies(every, "a leaf has no attributes")
        composer, mask = arch.composer(), self.form.attribute_mask
        for one, other in itertools.product(every, repeat=2):
            for sizes, access in itertools.product(self._sizes(), Access):
                inner, outer = self._pair(sizes, (rights, rights), ((True, True), (True, True)))
                inner, outer = arch.with_attributes(inner, one), arch.with_attributes(outer, other)
                found = (composer.compose(inner, outer, access).entry or 0) & mask
                what = f"attributes {one:#x} behind {other:#x} for a {access.label}"
                equal(found, arch.composed_attributes(one, other), what)

    def test_an_identity_behind_changes_nothing_and_twice_is_once(self) -> None:
        composer, most = self.arch.composer(), self.most_rights()
        for sizes, rights, flags in itertools.product(self._sizes(), self.form.rights, FLAGS):
            inner, _ = self._pair(sizes, (rights, most), (flags, flags))
            same = self._leaf(inner.output_address, inner.output_address, max(sizes), most)
            once = composer.compose(inner, same, Access.STORE)
            kept = self._kept(rights, dirty=inner.dirty)
            dirty = inner.dirty and (bool(kept & WRITE) or not self.form.writable_if_dirty)
            wanted = (*fields(inner)[:3], kept, inner.accessed, dirty)
            equal(fields(once), wanted, f"{text(inner)} before the identity of 2**{max(sizes)} bytes")
            twice = composer.compose(once, same, Access.STORE)
            equal(fields(twice), fields(once), f"{text(inner)} before the identity, twice")

    def test_in_whatever_order_three_are_composed(self) -> None:
        composer, chance = self.arch.composer(), self.random("associative")
        shifts, small = self.form.shadow_shifts, min(self.form.shadow_shifts)
        top = 1 << min(self.form.input_bits, self.form.output_bits) - 1
        for _ in range(120):
            leaves, address = [], chance.randrange(top >> small) << small | 0x124
            sizes = [chance.choice(shifts) for _ in range(3)]
            for shift in sorted(sizes) if self.form.whole_pages else sizes:
                flags, target = chance.choice(FLAGS), chance.randrange(top)
                leaves.append(self._leaf(address, target, shift, chance.choice(self.form.rights), flags))
                address = leaves[-1].output_address
            one, two, three = leaves
            left = composer.compose(composer.compose(one, two, Access.STORE), three, Access.STORE)
            right = composer.compose(one, composer.compose(two, three, Access.STORE), Access.STORE)
            what = f"seed {self.seed}: " + "; ".join(text(leaf) for leaf in leaves)
            equal(fields(left), fields(right), what)
