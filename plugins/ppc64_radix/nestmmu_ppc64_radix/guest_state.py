"""The state of L2 that L1 and L0 hand each other in L1's memory: ``struct hv_guest_state`` and ``struct pt_regs``.

Both are words in L1's byte order. Layout: the kernel's ``asm/hvcall.h`` and ``asm/ptrace.h``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from nestmmu_ppc64_book3s.interrupts import VECTOR_HDSI, VECTOR_HEAI, VECTOR_HISI

if TYPE_CHECKING:
    from nestmmu.memory import ByteOrder
    from nestmmu_ppc64_radix.exits import HvExit

VERSION_BYTES = {1: 232, 2: 248}
"""Bytes of ``hv_guest_state`` by version."""
VECTOR_HFU = 0xF80
HFSCR_CAUSE = 0xFF << 56
"""HFSCR: the facility that was not available."""
_LAYOUT = "QII" + "Q" * 29
_WORDS = 44


@attrs.define
class HvGuestState:
    """``hv_guest_state``, its fields in order; what version 1 lacks is zero."""

    version: int = 2
    lpid: int = 0
    vcpu_token: int = 0
    lpcr: int = 0
    pcr: int = 0
    amor: int = 0
    dpdes: int = 0
    hfscr: int = 0
    tb_offset: int = 0
    dawr0: int = 0
    dawrx0: int = 0
    ciabr: int = 0
    hdec_expiry: int = 0
    purr: int = 0
    spurr: int = 0
    ic: int = 0
    vtb: int = 0
    hdar: int = 0
    hdsisr: int = 0
    heir: int = 0
    asdr: int = 0
    srr0: int = 0
    srr1: int = 0
    sprg0: int = 0
    sprg1: int = 0
    sprg2: int = 0
    sprg3: int = 0
    pidr: int = 0
    cfar: int = 0
    ppr: int = 0
    dawr1: int = 0
    dawrx1: int = 0

    def to_bytes(self, byteorder: ByteOrder) -> bytes:
        """Return the structure, as long as its version is.

        :raises KeyError: for a version that is neither 1 nor 2.
        """
        return _struct(byteorder).pack(*attrs.astuple(self))[: VERSION_BYTES[self.version]]

    @classmethod
    def from_bytes(cls, raw: bytes, byteorder: ByteOrder) -> HvGuestState:
        """Return the structure that 232 or 248 bytes hold."""
        whole = _struct(byteorder)
        return cls(*whole.unpack(raw[: whole.size].ljust(whole.size, b"\0")))


def _struct(byteorder: ByteOrder) -> struct.Struct:
    return struct.Struct((">" if byteorder == "big" else "<") + _LAYOUT)


@attrs.define
class PtRegs:
    """``pt_regs``: the general registers, and the special ones of the program itself."""

    gpr: list[int] = attrs.field(factory=lambda: [0] * 32)
    nip: int = 0
    msr: int = 0
    rest: list[int] = attrs.field(factory=lambda: [0] * (_WORDS - 34))
    """orig_gpr3, ctr, link, xer, ccr, softe, trap, dar, dsisr, result."""

    def to_bytes(self, byteorder: ByteOrder) -> bytes:
        """Return the 352 bytes of the structure."""
        words = (*self.gpr, self.nip, self.msr, *self.rest)
        return b"".join(word.to_bytes(8, byteorder) for word in words)

    @classmethod
    def from_bytes(cls, raw: bytes, byteorder: ByteOrder) -> PtRegs:
        """Return the structure that 352 bytes hold."""
        words = [int.from_bytes(raw[at : at + 8], byteorder) for at in range(0, _WORDS * 8, 8)]
        return cls(words[:32], words[32], words[33], words[34:])


PT_REGS_BYTES = _WORDS * 8


def save_return_state(state: HvGuestState, regs: PtRegs, seen: HvExit, *, heir: int = 0, hfscr: int = 0) -> None:
    """Write what L1 sees of an exit into the state that goes back to it (``save_hv_return_state``).

    Registers of another trap than this one keep what L1 passed in.

    :param seen: the exit, as :func:`~nestmmu_ppc64_radix.exits.reflect` left it.
    :param heir: the instruction, for an emulation assist.
    :param hfscr: the CPU's, whose cause names the facility, for a facility unavailable.
    """
    regs.msr, regs.nip = seen.msr, seen.pc
    if seen.trap == VECTOR_HDSI:
        state.hdar, state.hdsisr, state.asdr = seen.dar, seen.dsisr, seen.asdr
    elif seen.trap == VECTOR_HISI:
        state.asdr = seen.asdr
    elif seen.trap == VECTOR_HEAI:
        state.heir = heir
    elif seen.trap == VECTOR_HFU:
        state.hfscr = state.hfscr & ~HFSCR_CAUSE | hfscr & HFSCR_CAUSE
