"""What can be wrong with a plugin, in words for whoever installed it."""

from __future__ import annotations

import inspect
import traceback
from typing import TYPE_CHECKING

from nestmmu import API_VERSION
from nestmmu.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib import metadata

    import pluggy

API = "NESTMMU_API"
"""The attribute by which a plugin says for which version of the hooks it is written; without it, for any."""


def brought_by(point: metadata.EntryPoint) -> str:
    """Return name and version of the distribution that an entry point is of."""
    name = point.dist.metadata["Name"] if point.dist else None
    if point.dist is None or name is None:
        return "an unknown distribution"
    return f"{name} {point.dist.metadata['Version'] or '(no version)'}"


def one_line(error: BaseException) -> str:
    """Return an error's class and message in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def check_api(plugin: object) -> None:
    """Look whether a plugin is written for these hooks.

    :raises PluginError: if it says that it is not.
    """
    version = getattr(plugin, API, API_VERSION)
    if version != API_VERSION:
        message = (
            f"it is written for version {version} of nestmmu's hooks, and this nestmmu has version {API_VERSION}; "
            "install the version of one of them that fits the other"
        )
        raise PluginError(message)


def culprit(error: BaseException, implementations: Iterable[pluggy.HookImpl]) -> str | None:
    """Return the name of the plugin in whose hook an error was raised; None if it was in none."""
    codes = {getattr(inspect.unwrap(one.function), "__code__", None): one.plugin_name for one in implementations}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code in codes:
            return codes[frame.f_code]
    return None
