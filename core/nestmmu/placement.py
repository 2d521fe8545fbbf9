"""Where the virtual CPUs of a guest last ran: a CPU that one left may keep what later local flushes do not reach.

The source is Linux's ``kvmppc_prepare_radix_vcpu``, ``radix_flush_cpu`` and ``kvmppc_check_need_tlb_flush``.
"""

from __future__ import annotations

import enum


class Arriving(enum.Enum):
    """What a CPU does before it runs a guest."""

    NOTHING = "nothing"
    SYNC = "sync"
    """Wait: another CPU of the core has flushed what they share."""
    FLUSH = "flush"
    """Flush all of the guest from what the core keeps."""


class Placement:
    """The virtual CPUs of one guest, on CPUs that are numbered from 0.

    :param threads: how many CPUs share the caches of a core.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self.last: dict[int, int] = {}
        """The CPU on which each virtual CPU last ran."""
        self.pending: set[int] = set()
        """CPUs that have to flush, or to wait for it, before they next run the guest."""

    def core(self, cpu: int) -> range:
        """Return the CPUs that share a core with ``cpu``, itself included."""
        first = cpu - cpu % self.threads
        return range(first, first + self.threads)

    def enter(self, vcpu: int, cpu: int) -> Arriving:
        """Note that a virtual CPU is about to run on ``cpu``, and return what ``cpu`` has to do first.

        A core that the virtual CPU has left for another has to flush before it runs the guest again: the first of its
        CPUs to come for all of them.
        """
        before = self.last.get(vcpu)
        self.last[vcpu] = cpu
        if before is not None and cpu not in self.core(before):
            self.pending.update(self.core(before))
        if cpu not in self.pending:
            return Arriving.NOTHING
        first = self.pending.issuperset(self.core(cpu))
        self.pending.discard(cpu)
        return Arriving.FLUSH if first else Arriving.SYNC
