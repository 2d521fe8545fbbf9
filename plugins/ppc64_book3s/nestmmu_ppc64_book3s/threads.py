"""What the POWER9 threads of both translations have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nestmmu.access import Access
from nestmmu_ppc64_book3s.interrupts import Interrupt

if TYPE_CHECKING:
    from nestmmu_ppc64_book3s.registers import Registers

REAL_ADDRESS = 0x0FFFFFFFFFFFFFFF
"""The bits of an effective address that count without relocation."""


class Reached(NamedTuple):
    """An access that ended in a host real address."""

    address: int
    """Host real, in bytes."""
    page_shift: int
    """Log2 of the bytes over which the same translation holds; 64 where there is none."""
    permissions: int
    """What all that translated it permits."""
    guest: int | None = None
    """What the hypervisor flushes by: the guest real address, in bytes, or the virtual one of a hash guest; None where
    there is none."""


class Thread:
    """A CPU's thread: a subclass says what one access is."""

    registers: Registers

    def access(self, access: Access, address: int, at: int | None = None) -> Reached | Interrupt:
        """Do one access as the hardware does it.

        :param address: effective address, in bytes.
        :param at: the address of the instruction, for SRR0; a fetch's own where absent.
        :returns: where it ended, or the interrupt with every register that it writes.
        """
        raise NotImplementedError

    def execute(self, access: Access, address: int, at: int, fetch_msr: int | None = None) -> Reached | Interrupt:
        """Fetch a load or store instruction from ``at``, then do its access; a fetch is its own instruction.

        :param address: the effective address of the access, in bytes.
        :param at: the effective address of the instruction.
        :param fetch_msr: the MSR under which the instruction is fetched, where it is another.
        """
        if access is not Access.FETCH:
            msr = self.registers.msr
            self.registers.msr = msr if fetch_msr is None else fetch_msr
            try:
                fetched = self.access(Access.FETCH, at, at)
            finally:
                self.registers.msr = msr
            if isinstance(fetched, Interrupt):
                return fetched
        return self.access(access, address, at)
