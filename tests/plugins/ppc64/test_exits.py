"""The registers of an exit: rows E1 and E3 of 1.5, and the first table of 1.7 in full, each error for each access."""

from __future__ import annotations

import pytest
from ppc64_fixture import ASDR, HDAR, HSRR1_FETCH, MSR, NOHPTE, PATE_ADDRESS, PC, PUD_ENTRY, Fixture

from nestmmu.errors import NestmmuError
from nestmmu.outcomes import Verdict
from nestmmu_ppc64_book3s.interrupts import Interrupt
from nestmmu_ppc64_radix.exits import HvExit, reflect

PLAIN = 0x8000000000009033
"""L2's MSR with no cause in it."""


@pytest.mark.parametrize(
    ("hsrr1", "dsisr"), [(0x800000007FFE9033, 0x582E0000), (0x800000007FFF9033, 0x5A2E0000), (PLAIN, 0)]
)
def test_a_hisi_gives_an_image_of_dsisr_e3(hsrr1: int, dsisr: int) -> None:
    interrupt = Interrupt(0xE20, {"hsrr0": PC, "hsrr1": hsrr1, "asdr": ASDR}, hv=True)
    assert HvExit.from_interrupt(interrupt) == HvExit(0xE20, hsrr1, PC, dsisr, ASDR, PC)


def test_an_hdsi_gives_its_registers_e1() -> None:
    registers = {"hsrr0": PC, "hsrr1": MSR, "hdar": HDAR, "hdsisr": NOHPTE, "asdr": ASDR}
    assert HvExit.from_interrupt(Interrupt(0xE00, registers, hv=True)) == HvExit(0xE00, MSR, HDAR, NOHPTE, ASDR, PC)


def test_other_interrupts_are_no_exits() -> None:
    with pytest.raises(NestmmuError, match="DSI does not reach"):
        HvExit.from_interrupt(Interrupt(0x300, {}, hv=False))


@pytest.mark.parametrize(
    ("access", "store", "image"),
    [
        pytest.param("load", 0, None, id="load"),
        pytest.param("store", 0x02000000, None, id="store"),
        pytest.param("fetch", 0, PLAIN, id="fetch"),
        pytest.param("fetch-that-writes", 0, PLAIN | 0x02000000, id="fetch-that-writes"),
    ],
)
@pytest.mark.parametrize(
    ("error", "flags"),
    [
        pytest.param("EINVAL", 0x00080000, id="EINVAL"),
        pytest.param("ENOENT", 0x40000000, id="ENOENT"),
        pytest.param("EFAULT", 0x00020000, id="EFAULT"),
    ],
)
def test_each_error_of_the_walk_for_each_access(
    error: str, flags: int, access: str, store: int, image: int | None
) -> None:
    """The flags are the error's and ISSTORE; a fetch has them in its MSR image, as the kernel puts them there."""
    fixture = Fixture()
    if error == "EINVAL":
        fixture.word(PATE_ADDRESS, 0xC00000000200008D)
    elif error == "ENOENT":
        fixture.leaf(0)
    else:
        fixture.word(PUD_ENTRY, 0x8000000900000009)
    record = {
        "load": fixture.load(),
        "store": fixture.store(),
        "fetch": fixture.fetch(),
        "fetch-that-writes": fixture.fetch(HSRR1_FETCH | 0x10000),
    }[access]
    outcome = fixture.handle(record)
    assert outcome.verdict is Verdict.REFLECT
    shown = reflect(outcome, record)
    assert shown.asdr == (0x9000008D0 if error == "EFAULT" else ASDR)
    if image is None:
        assert (shown.dsisr, shown.msr) == (flags | store, MSR)
    else:
        assert shown.msr == image | flags
    assert fixture.shadow() is None
