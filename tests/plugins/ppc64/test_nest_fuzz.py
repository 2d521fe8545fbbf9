"""Hostile images: whatever the tables hold, a run ends in a result or in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nestmmu.cli.run import run_image
from nestmmu.errors import InputError
from nestmmu.images import read_nest_image, shipped_image

if TYPE_CHECKING:
    from pathlib import Path

ACCESSES = 40
VALID, LEAF = 1 << 63, 1 << 62


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return a folder with a short list of accesses, the image's document and its pages."""
    folder = tmp_path_factory.mktemp("fuzz")
    source = shipped_image()
    with np.load(source.with_suffix(".accesses.npz")) as file:
        np.savez(folder / "a.npz", **{name: column[:ACCESSES] for name, column in file.items()})
    with np.load(source.with_suffix(".pages.npz")) as file:
        pages = dict(file)
    document = json.loads(source.read_text(encoding="utf-8")) | {"pages": "p.npz", "accesses": "a.npz"}
    document["l2"]["also"] = []
    return folder, document, pages


WORDS = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, VALID, VALID | LEAF, VALID | 9, VALID | 5, VALID | LEAF | 0x187, (1 << 64) - 1]),
)
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), WORDS, st.booleans()), min_size=1, max_size=40)
REGISTERS = st.dictionaries(
    st.sampled_from(["l0.ptcr", "l0.page_shift", "l1.ptcr", "l1.lpid", "l2.l1_lpid", "l2.shadow_lpid"]),
    st.integers(0, (1 << 64) - 1) | st.integers(0, 20),
    max_size=1,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, registers=REGISTERS)
def test_no_other_exception_escapes(
    parts: tuple[Path, dict[str, Any], dict[str, Any]],
    changes: list[tuple[int, int, bool]],
    registers: dict[str, int],
) -> None:
    folder, document, pages = parts
    data = pages["data"].copy()
    words = data.reshape(-1).view(">u8")
    used = np.nonzero(words)[0]
    frames = pages["frame"]
    for number, word, elsewhere in changes:
        at = used[number % len(used)]
        # A pointer to some page that is there goes further than one to nowhere.
        target = int(frames[word % len(frames)]) << 12
        words[at] = int(words[at]) & 0xF000_0000_0000_0FFF | target if elsewhere else word
    changed = json.loads(json.dumps(document))
    for name, value in registers.items():
        level, field = name.split(".")
        changed[level][field] = value
    np.savez(folder / "p.npz", frame=frames, data=data)
    path = folder / "image.json"
    path.write_text(json.dumps(changed), encoding="utf-8")
    try:
        total, line = run_image(read_nest_image(path)).total, ""
    except InputError as error:
        total, line = 0, str(error)
    assert total == ACCESSES or str(path) in line
    assert "\n" not in line
