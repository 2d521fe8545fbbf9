"""What the objects that plugins provide can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nestmmu.access import Access
    from nestmmu.formats import AccessedDirty, RadixFormat
    from nestmmu.invalidation import Flush
    from nestmmu.memory import Memory
    from nestmmu.outcomes import Exit, Outcome
    from nestmmu.radix import RadixWalker, Step
    from nestmmu.vectors import RecordedAccess, Scene


class WalkerFactory(Protocol):
    """Makes walkers; :class:`~nestmmu.radix.RadixWalker` itself is one."""

    def __call__(
        self, table_format: RadixFormat, memory: Memory, stage: str, accessed_dirty: AccessedDirty
    ) -> RadixWalker:
        """Return a walker (see the hook ``nestmmu_walker``)."""
        ...


class CpuFactory(Protocol):
    """Makes CPUs; :meth:`~nestmmu.plugins.Plugins.cpu` is one."""

    def __call__(self, arch: str, registers: Mapping[str, int], memory: Memory, accessed_dirty: AccessedDirty) -> Any:  # noqa: ANN401  (with what the architecture's CPU has beside a Cpu's)
        """Return a CPU (see the hook ``nestmmu_cpu``)."""
        ...


class Cpu(Protocol):
    """A CPU of an architecture."""

    def access(self, access: Access, address: int) -> Any:  # noqa: ANN401  (the architecture's own result)
        """Do one load, store or fetch as the hardware would, and return where it ended, or the interrupt."""
        ...

    def trace(self, steps: list[Step] | None) -> None:
        """Add the steps of every walk to ``steps`` from now on; None: stop."""
        ...


class Reflector(Protocol):
    """Reads and writes an architecture's fault registers."""

    def decode(self, record: Any) -> Exit:  # noqa: ANN401  (the architecture's own registers)
        """Return a fault that hardware recorded, as the hypervisor handles it."""
        ...

    def reflect(self, outcome: Outcome, record: Any) -> Any:  # noqa: ANN401
        """Return the registers that the guest hypervisor sees."""
        ...


class Invalidator(Protocol):
    """Reads an architecture's invalidation requests."""

    def decode(self, request: Any) -> Sequence[Flush]:  # noqa: ANN401
        """Return what a request invalidates.

        :raises ValueError: for a form that the architecture refuses.
        """
        ...


class Replayer(Protocol):
    """Makes recorded accesses again."""

    def perform(self, scene: Scene, recorded: RecordedAccess) -> tuple[dict[str, int | bool], list[tuple[int, int]]]:
        """Return the computed fields, by the recorded fields' names, and the (address, word) pairs that changed."""
        ...

    def comparable(
        self, recorded: dict[str, int | bool], computed: dict[str, int | bool]
    ) -> tuple[dict[str, int | bool], dict[str, int | bool]]:
        """Return both with what the recording machine is known to do otherwise taken out."""
        ...

    def outcome(self, fields: dict[str, int | bool]) -> str:
        """Return how an access ended, for counting."""
        ...
