"""The suite: its topics, the cheapest first, and the class by which pytest collects them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from nestmmu.testing.topics.accessed_dirty import AccessedAndDirty, InBothStages
from nestmmu.testing.topics.batch import Batch
from nestmmu.testing.topics.composition import Composition
from nestmmu.testing.topics.dirty import Dirty
from nestmmu.testing.topics.entries import Entries, EveryWord
from nestmmu.testing.topics.events import Events
from nestmmu.testing.topics.faults import Faults
from nestmmu.testing.topics.geometry import Geometry
from nestmmu.testing.topics.hostile import Hostile, HostileGuest, HostileTree
from nestmmu.testing.topics.invalidation import Invalidation
from nestmmu.testing.topics.isolation import Isolation
from nestmmu.testing.topics.lifetime import Lifetime
from nestmmu.testing.topics.permissions import BothStages, Permissions
from nestmmu.testing.topics.progress import Progress
from nestmmu.testing.topics.references import References
from nestmmu.testing.topics.reflection import Reflection
from nestmmu.testing.topics.reverse_map import ReverseMap
from nestmmu.testing.topics.shadow import Shadow
from nestmmu.testing.topics.silence import Silence
from nestmmu.testing.topics.state_machine import StateMachine
from nestmmu.testing.topics.walks import ManyPages, Walks

if TYPE_CHECKING:
    from nestmmu.testing.architecture import Architecture
    from nestmmu.testing.topic import Topic

TOPICS: tuple[type[Topic], ...] = (
    Geometry, Permissions, BothStages, AccessedAndDirty, InBothStages, Faults, ManyPages, Walks, Composition,
    References, Reflection, Hostile, HostileGuest, HostileTree, Batch, Lifetime, Entries, EveryWord, Events,
    Isolation, Silence, Shadow, ReverseMap, Dirty, Invalidation, Progress, StateMachine,
)  # fmt: skip


class Conformance:
    """Collected by pytest, it runs the suite: one nested class for each topic.

    A subclass, whose name begins with ``Test``, names the architecture::

        class TestMine(Conformance):
            architecture = Mine
    """

    architecture: ClassVar[type[Architecture]]

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401  (of whoever else is a base)
        """Add the topics."""
        super().__init_subclass__(**options)
        for topic in TOPICS:
            setattr(cls, f"Test{topic.__name__}", topic.of(cls.architecture))
