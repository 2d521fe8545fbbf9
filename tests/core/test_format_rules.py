"""What a format may say beyond masks and values: levels' own reserved bits, groups of entries, widths of addresses."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestmmu.access import ALL_PERMISSIONS, READ, Access
from nestmmu.addresses import HardwareTag
from nestmmu.batch import translate_many
from nestmmu.batch_formats import EntryArrays
from nestmmu.errors import NestmmuError, TooLargeError
from nestmmu.extract import extract
from nestmmu.faults import Fault, FaultKind
from nestmmu.formats import AccessedDirty, InputRule, Level, Match, RadixFormat, Unlike
from nestmmu.invalidation import HOST_OWN, Flush, FlushKind
from nestmmu.memory import PhysicalMemory, TranslatedMemory
from nestmmu.radix import RadixTable, RadixWalker, Root
from nestmmu.tlb import Tlb, Translation
from nestmmu.walk_cache import WalkCache
from toy_arch.formats import GLITTER, LOOK, PAGE, POKE, PRESENT, RUN, TOY

UPPER, LOWER = 0x100, 0x200
RIGHTS = LOOK | POKE | RUN
LOAD = Access.LOAD
GROUP = Match(GLITTER | 0x10, GLITTER | 0x10)
"""Two small pages of 16 bytes that are one of 32; the lowest bit of the address is set."""


def with_lower(**changes: Any) -> RadixFormat:
    return attrs.evolve(TOY, levels=(TOY.levels[0], attrs.evolve(TOY.levels[1], **changes)))


def table(form: RadixFormat, lower: dict[int, int], upper: int = PRESENT | LOWER) -> RadixTable:
    memory = PhysicalMemory(1 << 24)
    for index in range(4):
        memory.store(UPPER + 4 * index, upper, 4, "little")
    for index, entry in lower.items():
        memory.store(LOWER + 4 * index, entry, 4, "little")
    return RadixTable(RadixWalker(form, memory, "toy table"), Root(UPPER, 2))


def kind_of(walked: RadixTable, address: int) -> FaultKind:
    with pytest.raises(Fault) as caught:
        walked.lookup(address)
    return caught.value.kind


def end_of(walked: RadixTable, address: int) -> int | FaultKind:
    try:
        return walked.lookup(address).output_address
    except Fault as fault:
        return fault.kind


def test_unlike_is_every_other_value() -> None:
    rule = Unlike(0b110, 0b100)
    assert [entry for entry in range(8) if rule(entry)] == [0, 1, 2, 3, 6, 7]


def test_a_leaf_by_any_right() -> None:
    """No bit says that an entry is a page: that it permits something does."""
    leaf = Unlike(RIGHTS, 0)
    form = attrs.evolve(
        TOY, levels=(Level("upper", (2,), leaf), Level("lower", (2,), leaf, may_table=False)), output_mask=0x00FFFFC0
    )
    assert table(form, {1: PRESENT | LOOK | 0x40}).lookup(0x15).output_address == 0x45
    assert kind_of(table(form, {1: PRESENT | 0x40}), 0x15) is FaultKind.MALFORMED
    assert form.leaf_entry(1, 0x40, READ, accessed=False, dirty=False) == PRESENT | LOOK | 0x40


def test_reserved_at_one_level() -> None:
    form = with_lower(reserved=(Match(GLITTER, GLITTER),))
    good, bad = PRESENT | PAGE | LOOK | 0x40, PRESENT | PAGE | LOOK | GLITTER | 0x40
    walked = table(form, {0: good, 1: bad})
    assert walked.lookup(0x05).output_address == 0x45
    assert kind_of(walked, 0x15) is FaultKind.MALFORMED
    assert table(form, {}, upper=bad).lookup(0x05).output_address == 0x45


def test_a_group_of_entries_is_one_page() -> None:
    form = with_lower(groups=((GROUP, 1),))
    entry = PRESENT | PAGE | LOOK | GLITTER | 0x450
    walked = table(form, {2: entry, 3: entry})
    for address, target in ((0x25, 0x445), (0x35, 0x455)):
        found = walked.lookup(address)
        assert (found.output_address, found.page_shift, found.target_start) == (target, 5, 0x440)
        assert (found.page_start, found.entry) == (0x20, entry)
    assert "one of 2 pages" in form.describe(entry, 1)
    assert "one of" not in form.describe(entry & ~GLITTER, 1)


def test_each_entry_of_a_group_is_a_leaf_of_its_own() -> None:
    """Its neighbours may say something else: a walk reads only the one at the address."""
    form = with_lower(groups=((GROUP, 1),))
    entry = PRESENT | PAGE | LOOK | GLITTER | 0x450
    walked = table(form, {2: entry, 3: PRESENT | PAGE | RUN | 0x990})
    found = [(leaf.page_start, leaf.target_start, leaf.page_shift) for leaf in walked.leaves(0, 0x40)]
    assert found == [(0x20, 0x440, 4), (0x30, 0x990, 4)]


@pytest.mark.parametrize(
    ("rule", "address", "canonical"),
    [
        (InputRule.ANY, 0x1234, 0x1234),
        (InputRule.ZERO, 0x1234, 0x34),
        (InputRule.ZERO, 0x12F4, 0xF4),
        (InputRule.SIGN, 0x1234, 0x34),
        (InputRule.SIGN, 0x1284, 0xFFFF_FFFF_FFFF_FF84),
    ],
)
def test_addresses_that_a_format_takes(rule: InputRule, address: int, canonical: int) -> None:
    form = attrs.evolve(TOY, input_rule=rule)
    walked = table(form, {1: PRESENT | PAGE | RIGHTS | 0x40})
    assert form.canonical(address) == canonical
    if address != canonical:
        assert kind_of(walked, address) is FaultKind.INPUT_RANGE
        with pytest.raises(Fault) as caught:
            TranslatedMemory(walked.walker.memory, walked, "guest").locator()(address, LOAD)
        assert (caught.value.kind, caught.value.level) == (FaultKind.INPUT_RANGE, None)
    else:
        assert kind_of(walked, address) is FaultKind.NOT_PRESENT
    high = 0x95 | canonical & ~0xFF if canonical >> 8 else 0x15
    assert walked.locator()(high, LOAD) == 0x45


@pytest.mark.parametrize(("rule", "top"), [(InputRule.ZERO, 0), (InputRule.SIGN, (1 << 64) - 0x100)])
def test_leaves_are_where_a_walk_finds_them(rule: InputRule, top: int) -> None:
    walked = table(attrs.evolve(TOY, input_rule=rule), {1: PRESENT | PAGE | RIGHTS | 0x40})
    starts = [leaf.page_start for leaf in walked.leaves()]
    assert starts == [0x10, 0x50, top | 0x90, top | 0xD0]
    assert [walked.lookup(start).output_address for start in starts] == [0x40] * 4
    assert [leaf.page_start for leaf in walked.leaves(0x20, top | 0x95)] == [0x50, top | 0x90]


RULES = [
    attrs.evolve(TOY, input_rule=InputRule.ZERO),
    with_lower(groups=((GROUP, 1),)),
    with_lower(reserved=(Match(GLITTER, GLITTER),)),
    attrs.evolve(TOY, reserved=(Unlike(GLITTER, 0),)),
]


def ends(walked: RadixTable, addresses: list[int]) -> list[object]:
    """Return where a batch says that addresses lead, or the kind of each fault."""
    many = translate_many(walked, np.array(addresses, np.uint64), None)
    faults = [many.fault(index) for index in range(len(addresses))]
    return [int(end) if fault is None else fault.kind for end, fault in zip(many.outputs, faults, strict=True)]


@pytest.mark.parametrize("form", RULES)
def test_many_at_once_are_as_one_by_one(form: RadixFormat) -> None:
    """By classes of entries and groups, where a plain mask and value do not tell a leaf."""
    assert TOY.simple
    assert form.simple == (form is RULES[0])
    assert form.plain
    walked = table(form, {1: PRESENT | PAGE | RIGHTS | GLITTER | 0x50, 2: PRESENT | PAGE | LOOK | 0x990})
    addresses = [0x15, 0x25, 0x35, 0x1025]
    assert ends(walked, addresses) == [end_of(walked, address) for address in addresses]


class Odd(Match):
    """A rule of someone's own."""

    def __call__(self, entry: int) -> bool:
        return bool(entry & self.mask) and (entry & self.mask).bit_count() % 2 == self.value


def test_a_rule_that_no_array_knows_is_asked_one_by_one() -> None:
    form = attrs.evolve(TOY, reserved=(Odd(GLITTER, 1),))
    assert not form.plain
    with pytest.raises(NestmmuError, match="one address at a time"):
        EntryArrays(form)
    walked = table(form, {1: PRESENT | PAGE | RIGHTS | GLITTER | 0x50, 2: PRESENT | PAGE | LOOK | 0x990})
    with pytest.raises(NestmmuError, match="take the leaves one by one"):
        extract(walked)
    assert ends(walked, [0x15, 0x25, 0x35]) == [end_of(walked, address) for address in (0x15, 0x25, 0x35)]
    assert end_of(walked, 0x15) is FaultKind.MALFORMED


@pytest.mark.parametrize("form", RULES)
@given(
    words=st.dictionaries(st.integers(0, 3), st.integers(0, (1 << 32) - 1)),
    addresses=st.lists(st.integers(0, 0x1FF), min_size=1),
)
def test_any_words(form: RadixFormat, words: dict[int, int], addresses: list[int]) -> None:
    walked = table(form, {index: word | PRESENT for index, word in words.items()})
    wanted = [form.canonical(address) if address & 1 else address for address in addresses]
    assert ends(walked, wanted) == [end_of(walked, address) for address in wanted]
    try:
        leaves, broken = list(walked.leaves()), False
    except (Fault, NestmmuError):
        leaves, broken = [], True
    try:
        found = extract(walked)
    except TooLargeError:
        return
    assert broken or len(found.broken) == 0
    if not broken:
        rows = [(leaf.page_start, leaf.target_start, leaf.page_shift, leaf.permissions) for leaf in leaves]
        names = ("start", "target", "page_shift", "permissions")
        assert list(zip(*(getattr(found.extents, name).tolist() for name in names), strict=True)) == rows
        assert found.entries.tolist() == [leaf.entry for leaf in leaves]


def test_a_reserved_entry_is_no_leaf() -> None:
    for form in RULES[2:]:
        walked = table(form, {1: PRESENT | PAGE | RIGHTS | GLITTER | 0x50})
        assert kind_of(walked, 0x15) is FaultKind.MALFORMED
        with pytest.raises(Fault) as caught:
            list(walked.leaves())
        assert caught.value.kind is FaultKind.MALFORMED


def test_the_flags_of_a_group_are_those_of_the_entry_at_the_address() -> None:
    form = with_lower(groups=((GROUP, 1),))
    entry = PRESENT | PAGE | RIGHTS | GLITTER | 0x450
    walked = table(form, {2: entry, 3: entry})
    walked.walker.accessed_dirty = AccessedDirty.UPDATE
    assert walked.translate(0x35, Access.STORE).dirty
    words = [walked.walker.memory.load(LOWER + 4 * index, 4, "little") for index in (2, 3)]
    assert words == [entry, entry | form.accessed | form.dirty]


# What invalidations of such tables need


def kept(tag: HardwareTag = HardwareTag(1), process: int | None = 7, **shifts: int) -> Translation:  # noqa: B008  (an int)
    return Translation(tag, None, 0x5000, 12, 0x9000, 0x3_5000, ALL_PERMISSIONS, process, **shifts)


@pytest.mark.parametrize(
    ("entry", "flush", "goes"),
    [
        (kept(), Flush(HardwareTag(1), FlushKind.PAGE, 0x2_0000, 12), False),
        (kept(guest_shift=20), Flush(HardwareTag(1), FlushKind.PAGE, 0x2_0000, 12), True),
        (kept(guest_shift=20), Flush(HardwareTag(1), FlushKind.PAGE, 0x12_0000, 12), False),
        (kept(), Flush(HardwareTag(1), FlushKind.INPUT_PAGE, 0x4000, 12), False),
        (kept(input_shift=16), Flush(HardwareTag(1), FlushKind.INPUT_PAGE, 0x4000, 12), True),
        (kept(input_shift=16), Flush(HardwareTag(1), FlushKind.INPUT_PAGE, 0x1_0000, 12), False),
        (kept(), Flush(HardwareTag(1), FlushKind.ADDRESS_SPACE), True),
        (kept(), Flush(HardwareTag(1), FlushKind.ADDRESS_SPACE, process=7), True),
        (kept(), Flush(HardwareTag(1), FlushKind.ADDRESS_SPACE, process=8), False),
        (kept(process=None), Flush(HardwareTag(1), FlushKind.ADDRESS_SPACE, process=7), False),
        (kept(), Flush(HardwareTag(2), FlushKind.ADDRESS_SPACE), False),
        (kept(), Flush(HardwareTag(2), FlushKind.TAG, every=True), True),
        (kept(HOST_OWN), Flush(HardwareTag(2), FlushKind.TAG, every=True), False),
        (kept(HOST_OWN), Flush(HOST_OWN, FlushKind.ADDRESS_SPACE), True),
    ],
)
def test_what_goes_from_a_tlb(*, entry: Translation, flush: Flush, goes: bool) -> None:
    tlb = Tlb()
    tlb.insert(entry)
    tlb.flush(flush)
    assert len(tlb) == (0 if goes else 1)


def test_a_guests_own_tables_are_not_in_the_walk_cache_of_the_hosts() -> None:
    cache = WalkCache()
    walked = table(TOY, {})
    cache.insert(HardwareTag(1), 0, 6, walked.node(0, LOAD))
    cache.flush(Flush(HardwareTag(1), FlushKind.ADDRESS_SPACE))
    assert len(cache) == 1
    cache.flush(Flush(HardwareTag(1), FlushKind.TAG))
    assert len(cache) == 0
