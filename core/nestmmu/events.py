"""What is announced to ``nestmmu_event``: things coarse enough for a hook call each."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from nestmmu.addresses import HardwareTag


class EventKind(enum.Enum):
    """What happened."""

    FAULT = "fault"
    """A hypervisor took a fault of its guest."""
    REFLECT = "reflect"
    """It gave it to the guest hypervisor."""
    SHADOW_ADD = "shadow add"
    SHADOW_REMOVE = "shadow remove"
    INVALIDATE = "invalidate"
    HYPERCALL = "hypercall"


@attrs.frozen
class Event:
    """One event."""

    kind: EventKind
    tag: HardwareTag
    """The guest that it is about."""
    address: int = 0
    """In the guest's memory, in bytes."""
    detail: object = None
    """What the kind has more: the fault, the mapping, the flush."""
