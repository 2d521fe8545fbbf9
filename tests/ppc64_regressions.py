"""A mistake that Linux or QEMU once made, a scene that shows it, and how to make it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from nestmmu_ppc64_radix.quirks import Quirk

Undo = Callable[[pytest.MonkeyPatch], None]


@attrs.frozen
class Regression:
    """One row of section 4 of the reference."""

    scene: Callable[[Quirk], Any]
    """Builds a nest, and returns what is seen."""
    right: Any
    wrong: Any
    """What the scene shows with the fix taken out."""
    undo: Quirk | Undo
    """Takes the fix out: a quirk, or a patch."""

    def with_fix(self) -> Any:
        """Return what the model shows."""
        return self.scene(Quirk.NONE)

    def without_fix(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Return what it shows with the mistake made again."""
        if isinstance(self.undo, Quirk):
            return self.scene(self.undo)
        self.undo(monkeypatch)
        return self.scene(Quirk.NONE)
