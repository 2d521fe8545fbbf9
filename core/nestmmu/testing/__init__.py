"""The conformance suite: what every architecture has to do, checked for the one that an author declares.

An author writes one file: a subclass of :class:`RadixArchitecture` (or of :class:`Architecture`, where tables are no
trees) with its :class:`Capabilities`, and a subclass of :class:`Conformance` that names it. The pytest plugin stands in
this package too, so importing the package imports nothing; its names are found when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nestmmu.testing.architecture import Architecture, RadixArchitecture, Table
    from nestmmu.testing.capabilities import Capabilities, Feature, LevelShape, Scope
    from nestmmu.testing.nest import Leaf, Nest, TreeNest
    from nestmmu.testing.stages import Landed, Stage, StageFault, TreeStages, TwoStages
    from nestmmu.testing.suite import Conformance
    from nestmmu.testing.trees import Broken, Leads, Meaning, Nothing, Page, Tree, Upwards

_HOMES = {
    "architecture": ("Architecture", "RadixArchitecture", "Table"),
    "capabilities": ("Capabilities", "Feature", "LevelShape", "Scope"),
    "nest": ("Leaf", "Nest", "TreeNest"),
    "stages": ("Landed", "Stage", "StageFault", "TreeStages", "TwoStages"),
    "suite": ("Conformance",),
    "trees": ("Broken", "Leads", "Meaning", "Nothing", "Page", "Tree", "Upwards"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Architecture",
    "Broken",
    "Capabilities",
    "Conformance",
    "Feature",
    "Landed",
    "Leads",
    "Leaf",
    "LevelShape",
    "Meaning",
    "Nest",
    "Nothing",
    "Page",
    "RadixArchitecture",
    "Scope",
    "Stage",
    "StageFault",
    "Table",
    "Tree",
    "TreeNest",
    "TreeStages",
    "TwoStages",
    "Upwards",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  (whatever has the name)
    """Return a name of the package, imported when it is first asked for."""
    if name not in _MODULES:
        message = f"module {__name__} has no {name}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
