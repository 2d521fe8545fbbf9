"""Planting faults: one line of a function's source is replaced, and the function runs what was compiled of that.

The function object stays the same, so everything that holds it, under whatever name, runs the fault; nothing is
written to disk and no module is imported again.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import types
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_CACHED = ("permission_mask", "_permission_memo")
"""What a format computes of its fields once."""


@attrs.frozen
class Line:
    """A fault in a line of a function."""

    name: str
    where: str
    """``module:Class.method``."""
    old: str
    """A part of one line; it stands in the function once."""
    new: str
    topic: str = ""
    """The topic that is known to catch it: it is run first."""


@attrs.frozen
class Field:
    """A fault in a format."""

    name: str
    where: str
    """``module:FORMAT``."""
    field: str
    value: Any
    topic: str = ""
    """The topic that is known to catch it: it is run first."""


Mutant = Line | Field


def resolve(where: str) -> Any:
    """Return the object that ``module:name.name`` stands for, as it lies in its class."""
    module, _, path = where.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    return found


def function_of(found: Any) -> types.FunctionType:
    """Return the function in a method, a property, a static method, or what wraps one."""
    for attribute in ("__func__", "fget", "func"):
        found = getattr(found, attribute, found)
    found = inspect.unwrap(found)
    assert isinstance(found, types.FunctionType), found
    return found


def compiled(function: types.FunctionType, old: str, new: str) -> types.CodeType:
    """Return the function's code with ``old`` replaced by ``new`` in its source."""
    source_file = inspect.getsourcefile(function)
    assert source_file is not None
    lines, first = inspect.getsourcelines(function)
    text = "".join(lines)
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {function.__qualname__}"
    assert old != new
    before, after = _whole(source_file)[: first - 1], _whole(source_file)[first - 1 + len(lines) :]
    changed = "".join(before) + text.replace(old, new) + "".join(after)
    module = compile(changed, source_file, "exec", dont_inherit=True)
    return next(code for code in _codes(module) if code.co_qualname == function.__code__.co_qualname)


@functools.cache
def _whole(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123  (a line list)
        return file.readlines()


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


@contextlib.contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Let a fault be there for a while."""
    if isinstance(mutant, Field):
        target = resolve(mutant.where)
        before = getattr(target, mutant.field)
        assert before != mutant.value
        _set(target, mutant.field, mutant.value)
        try:
            yield
        finally:
            _set(target, mutant.field, before)
        return
    function = function_of(resolve(mutant.where))
    code = function.__code__
    function.__code__ = compiled(function, mutant.old, mutant.new)
    try:
        yield
    finally:
        function.__code__ = code


def _set(target: Any, field: str, value: Any) -> None:
    """Set a field of a frozen object, and forget what was computed of its fields."""
    object.__setattr__(target, field, value)
    for name in _CACHED:
        with contextlib.suppress(AttributeError):
            object.__delattr__(target, name)
