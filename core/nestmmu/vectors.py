"""Recorded translations: what a CPU did with real tables, one access at a time.

A file is a JSON document, gzipped where its name ends in ``.gz``. What its registers are
called, and what was recorded of an access, is the architecture's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs

from nestmmu.addresses import ADDRESS_LIMIT
from nestmmu.images.documents import VALUE_LIMIT, Field, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nestmmu.access import Access

VECTORS_LIMIT_BYTES = 1 << 26
"""Bytes of a file of vectors, unpacked."""
WORD_LIMIT = 1_000_000
"""Words of memory in one scene."""

_WORD_BYTES = 8
_EXTRA_DEPTH = 4

Words = tuple[tuple[int, int], ...]
"""(address in bytes, value) of 64-bit words; the byte order in memory is the architecture's."""


@attrs.frozen
class RecordedAccess:
    """One access, and what came of it."""

    ea: int
    access: Access
    fields: Mapping[str, int | bool]
    """The mode and the outcome, by the names that the file has."""
    changed: Words
    """Each word that the access changed, and its new value."""


@attrs.frozen
class Scene:
    """A state of a machine, from which each of the accesses starts."""

    registers: Mapping[str, int]
    words: Words
    """Memory that is not zero, each address once."""
    extra: Mapping[str, object]
    """What else the scene has: integers, and lists of them."""
    accesses: tuple[RecordedAccess, ...]


@attrs.frozen
class Vectors:
    """A file of recorded translations."""

    path: Path
    arch: str
    machine: str
    """What it was recorded on."""
    options: Mapping[str, str | int]
    """What else the file says at its top."""
    scenes: tuple[Scene, ...] = attrs.field(repr=False)


def _is_word(value: object) -> bool:
    return type(value) is int and 0 <= value < ADDRESS_LIMIT


def _words(field: Field) -> Words:
    """Return (address, value) pairs: aligned, each address once."""
    pairs = cast("list[list[int]]", field.sequence(WORD_LIMIT))
    for index, pair in enumerate(pairs):
        good = type(pair) is list and len(pair) == 2 and _is_word(pair[0]) and _is_word(pair[1])  # noqa: PLR2004
        if not good or pair[0] % _WORD_BYTES:
            remedy = f"write [address, word], 64 bits each, the address a multiple of {_WORD_BYTES}"
            field.element(index).fail("is no word of memory", remedy)
    words = {address: value for address, value in pairs}  # noqa: C416  (dict() takes no lists for mypy)
    if len(words) < len(pairs):
        field.fail("has an address twice", "keep one word for each address")
    return tuple(words.items())


def _extra(field: Field, depth: int = _EXTRA_DEPTH) -> object:
    """Return integers and lists of them, nested as deep as ``depth``."""
    if not isinstance(field.value, list):
        return field.integer()
    if not depth:
        field.fail("is nested too deeply", f"write at most {_EXTRA_DEPTH} lists in each other")
    return [_extra(item, depth - 1) for item in field.elements(VALUE_LIMIT)]


def _flag_or_integer(field: Field) -> int | bool:
    return field.value if isinstance(field.value, bool) else field.integer()


def _access(field: Field) -> RecordedAccess:
    members = field.members()
    ea, kind = field.member("ea").integer(), field.member("kind").access()
    changed = members.get("changed")
    fields = {
        name: _flag_or_integer(member) for name, member in members.items() if name not in {"ea", "kind", "changed"}
    }
    return RecordedAccess(ea, kind, fields, _words(changed) if changed else ())


def _scene(field: Field) -> Scene:
    registers, words, accesses = (field.member(name) for name in ("regs", "mem", "accesses"))
    extra = {name: _extra(item) for name, item in field.members().items() if name not in {"regs", "mem", "accesses"}}
    return Scene(
        registers={name: register.integer() for name, register in registers.members().items()},
        words=_words(words),
        extra=extra,
        accesses=tuple(_access(access) for access in accesses.elements(VALUE_LIMIT)),
    )


def _option(field: Field) -> str | int:
    return field.text() if isinstance(field.value, str) else field.integer()


def read_vectors(path: Path) -> Vectors:
    """Read a file of recorded translations.

    :raises InputError: if it cannot be read, or is not of the format.
    """
    top = read_json(path, VECTORS_LIMIT_BYTES)
    arch, machine, scenes = (top.member(name) for name in ("arch", "machine", "scenes"))
    others = {name: item for name, item in top.members().items() if name not in {"arch", "machine", "scenes"}}
    return Vectors(
        path=path,
        arch=arch.text(),
        machine=machine.text(),
        options={name: _option(item) for name, item in others.items()},
        scenes=tuple(_scene(scene) for scene in scenes.elements(VALUE_LIMIT)),
    )
