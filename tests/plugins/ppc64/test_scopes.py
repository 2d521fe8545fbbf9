"""The hardware's own tlbie forms (2.6 of the reference) against the TLB and the page-walk cache."""

from __future__ import annotations

import itertools

import pytest

from nestmmu.addresses import HardwareTag
from nestmmu.invalidation import Flush, FlushKind
from nestmmu.plugins import Plugins
from nestmmu.tlb import Tlb, Translation
from nestmmu.walk_cache import WalkCache
from nestmmu_ppc64_book3s.tlbie import Tlbie
from nestmmu_ppc64_radix.exit_path import flush_process
from nestmmu_ppc64_radix.nested_hcalls import NestedHcalls, RptRequest
from nestmmu_ppc64_radix.scopes import decode

L1, L2 = HardwareTag(1), HardwareTag(7)
PAGE, INPUT_PAGE, TRANSLATIONS = FlushKind.PAGE, FlushKind.INPUT_PAGE, FlushKind.TRANSLATIONS
WALK_CACHE, TAG = FlushKind.WALK_CACHE, FlushKind.TAG
ENTRIES = {
    "A": Translation(L2, "A", 0x10_0000, 16, 0x80_0000, 0x20_0000, 7, 4),
    "B": Translation(L2, "B", 0x10_0000, 16, 0x80_0000, 0x20_0000, 7, 5),
    "C": Translation(L2, "C", 0x30_0000, 21, 0x80_0000, 0x40_0000, 7, 4),
    "D": Translation(L2, "D", 0x20_0000, 16, 0x80_0000, 0x20_0000, 7, None),
    "E": Translation(L1, "E", 0x10_0000, 16, 0x80_0000, 0x20_0000, 7, 4),
}
"""Two processes, guest real mode and another guest."""


def tlbie(ric: int, prs: int, scope: int, ap: int = 0, address: int = 0, pid: int = 0) -> Tlbie:
    return Tlbie(ric, prs, 1, scope, ap, address >> 12, L2, pid)


def left(*flushes: Flush) -> str:
    tlb = Tlb()
    for entry in ENTRIES.values():
        tlb.insert(entry)
    for flush in flushes:
        tlb.flush(flush)
    return "".join(
        name for name, one in ENTRIES.items() if tlb.lookup(one.tag, one.context, one.input_start) is not None
    )


@pytest.mark.parametrize(
    ("operands", "flush", "stays"),
    [
        pytest.param(tlbie(0, 0, 0, 5, 0x20_0000), Flush(L2, PAGE, 0x20_0000, 16), "CE", id="guest page, 64 KiB"),
        pytest.param(tlbie(0, 0, 0, 1, 0x41_0000), Flush(L2, PAGE, 0x40_0000, 21), "ABDE", id="guest page, 2 MiB"),
        pytest.param(tlbie(0, 0, 0, 2, 0x41_0000), Flush(L2, PAGE, 0, 30), "E", id="guest page, 1 GiB"),
        pytest.param(
            tlbie(0, 1, 0, 5, 0x10_0000, 4), Flush(L2, INPUT_PAGE, 0x10_0000, 16, process=4), "BCDE", id="page of a PID"
        ),
        pytest.param(tlbie(0, 1, 1, pid=4), Flush(L2, TRANSLATIONS, process=4), "BDE", id="a PID"),
        pytest.param(tlbie(1, 1, 1, pid=4), Flush(L2, WALK_CACHE, process=4), "ABCDE", id="a PID's walks"),
        pytest.param(tlbie(2, 1, 1, pid=4), Flush(L2, TAG, process=4), "BDE", id="all of a PID"),
        pytest.param(tlbie(0, 0, 2), Flush(L2, TRANSLATIONS), "E", id="an LPID's leaves"),
        pytest.param(tlbie(1, 0, 2), Flush(L2, WALK_CACHE), "ABCDE", id="an LPID's walks"),
        pytest.param(tlbie(2, 0, 2), Flush(L2, TAG), "E", id="all of an LPID"),
        pytest.param(tlbie(2, 1, 2), Flush(L2, TAG), "E", id="what the kernel does for K4"),
        pytest.param(tlbie(0, 0, 3), Flush(L2, TRANSLATIONS, every=True), "", id="every leaf"),
        pytest.param(tlbie(1, 0, 3), Flush(L2, WALK_CACHE, every=True), "ABCDE", id="every walk"),
        pytest.param(tlbie(2, 0, 3), Flush(L2, TAG, every=True), "", id="everything"),
    ],
)
def test_each_form(operands: Tlbie, flush: Flush, stays: str) -> None:
    assert decode(operands) == [flush]
    assert left(flush) == stays


def test_exactly_the_illegal_forms_are_refused() -> None:
    """RIC = 3; RIC 1 or 2 with IS = 0; PRS = 0 with IS = 1."""
    refused = set()
    for ric, prs, scope in itertools.product(range(4), range(2), range(4)):
        try:
            decode(tlbie(ric, prs, scope))
        except ValueError:
            refused.add((ric, prs, scope))
    expected = {
        (ric, prs, scope)
        for ric, prs, scope in itertools.product(range(4), range(2), range(4))
        if ric == 3 or (ric in {1, 2} and scope == 0) or (prs, scope) == (0, 1)
    }
    assert refused == expected


@pytest.mark.parametrize("ap", [3, 4, 6, 7])
def test_a_page_size_that_there_is_not(ap: int) -> None:
    with pytest.raises(ValueError, match=f"AP={ap}"):
        decode(tlbie(0, 0, 0, ap))


def test_radix_does_not_hear_of_a_hash_tlbie() -> None:
    assert decode(Tlbie(0, 0, 0, 0, 0, 0x200, L2)) == []


@pytest.mark.parametrize(
    ("flush", "stays"),
    [
        (Flush(L2, TRANSLATIONS), [1, 7]),
        (Flush(L2, PAGE, 0, 30), [1, 7]),
        (Flush(L2, INPUT_PAGE, 0, 30, process=4), [1, 7]),
        (Flush(L2, WALK_CACHE), [1]),
        (Flush(L2, TAG), [1]),
        (Flush(L2, WALK_CACHE, every=True), []),
        (Flush(L2, TAG, every=True), []),
    ],
)
def test_what_stays_of_the_walks(flush: Flush, stays: list[int]) -> None:
    cache = WalkCache()
    for tag in (1, 7):
        cache.insert(tag, 0x10_0000, 21, ({}, 0x1000, 16, 31, 3, 0))
    cache.flush(flush)
    assert [tag for tag in (1, 7) if cache.lookup(tag, 0x10_0000) is not None] == stays


def test_the_hook() -> None:
    assert Plugins().invalidator("ppc64_radix").decode(tlbie(2, 0, 2)) == [Flush(L2, TAG)]


class Host:
    """What NestedHcalls needs of a host, to be told of flushes."""

    def __init__(self) -> None:
        self.flushes: list[Flush] = []

    def flush(self, flush: Flush) -> None:
        self.flushes.append(flush)


class Guest:
    tag = L1
    radix = True


@pytest.mark.parametrize(
    ("request_", "flushes"),
    [
        (RptRequest(9, 1, 0xE, 0, 0, 0), [Flush(L1, TAG, process=9)]),
        (RptRequest(9, 1, 4, 0, 0, 0), [Flush(L1, WALK_CACHE, process=9)]),
        (RptRequest(9, 1, 2, 2, 0, (1 << 64) - 1), [Flush(L1, TRANSLATIONS, process=9)]),
        (
            RptRequest(9, 1, 6, 2, 0x10_0000, 0x12_0000),
            [
                Flush(L1, WALK_CACHE, process=9),
                Flush(L1, INPUT_PAGE, 0x10_0000, 16, process=9),
                Flush(L1, INPUT_PAGE, 0x11_0000, 16, process=9),
            ],
        ),
    ],
)
def test_what_h_rpt_invalidate_of_a_process_tells_the_hardware(request_: RptRequest, flushes: list[Flush]) -> None:
    host = Host()
    calls = NestedHcalls.__new__(NestedHcalls)
    calls.host, calls.guest, calls.process_flushes = host, Guest(), []  # type: ignore[assignment]
    calls.process_scoped(request_)
    assert host.flushes == flushes
    host.flushes.clear()
    flush_process(calls, L2, request_)
    assert [flush.tag for flush in host.flushes] == [L2] * len(flushes)
