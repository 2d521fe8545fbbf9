"""What a hypervisor makes of a fault of its guest."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from nestmmu.faults import Fault


class Verdict(enum.Enum):
    """Who goes on, and how."""

    RESUME = "resume"
    """The guest runs the instruction again."""
    REFLECT = "reflect"
    """The guest hypervisor gets the fault; it owns the table at fault."""
    INJECT = "inject"
    """The guest itself gets a fault."""
    EMULATE = "emulate"
    """The address is a device's."""
    FAIL = "fail"
    """The host cannot handle it."""


@attrs.frozen
class Outcome:
    """A verdict and what belongs to it."""

    verdict: Verdict
    fault: Fault | None = None
    """REFLECT: what the guest hypervisor's table said; None: it sees the fault as hardware raised it.
    INJECT: what the guest sees."""
    address: int | None = None
    """EMULATE: the address, in the memory of the guest hypervisor, in bytes."""
    error: str = ""
    """FAIL: the reason, by the name of the error of the kernel or architecture."""


@attrs.define
class Exit:
    """A fault of a guest as it reaches its host: decoded, and as hardware recorded it."""

    fault: Fault
    """What the reflector read out of the record: ``input_address`` is in the guest's memory."""
    record: Any
    """The architecture's own: its interrupt, its exit registers."""


RESUME = Outcome(Verdict.RESUME)
