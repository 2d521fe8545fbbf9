"""Whole address spaces of hostile images: whatever the tables hold, a command ends in a result or in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from nestmmu.cli import app
from nestmmu.images import shipped_image

if TYPE_CHECKING:
    from pathlib import Path

VALID, LEAF = 1 << 63, 1 << 62
WORDS = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, VALID, VALID | LEAF, VALID | 9, VALID | 5, VALID | 13, VALID | LEAF | 0x187, (1 << 64) - 1]),
)
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), WORDS, st.booleans()), min_size=1, max_size=40)
COMMANDS = (
    ["audit"],
    ["audit", "--json"],
    ["extents", "--json"],
    ["extents", "--space", "shadow", "--coalesce"],
    ["extents", "--leading-to", "0xdd30000"],
    ["translate", "--json", "0x100000000", "0x600000", "0"],
    ["translate", "--access", "store", "--space", "shadow", "0x8000000800000"],
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a folder with the shipped image without accesses, and its pages."""
    folder = tmp_path_factory.mktemp("spaces")
    source = shipped_image()
    np.savez(folder / "a.npz", op=np.zeros(0, np.uint64))
    with np.load(source.with_suffix(".pages.npz")) as file:
        pages = dict(file)
    document = json.loads(source.read_text(encoding="utf-8")) | {"pages": "p.npz", "accesses": "a.npz"}
    (folder / "image.json").write_text(json.dumps(document), encoding="utf-8")
    return folder, pages


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_no_other_exception_escapes(parts: tuple[Path, dict[str, Any]], changes: list[tuple[int, int, bool]]) -> None:
    folder, pages = parts
    data = pages["data"].copy()
    words = data.reshape(-1).view(">u8")
    used = np.nonzero(words)[0]
    frames = pages["frame"]
    for number, word, elsewhere in changes:
        at = used[number % len(used)]
        # A pointer to some page that is there goes further than one to nowhere.
        target = int(frames[word % len(frames)]) << 12
        words[at] = int(words[at]) & 0xF000_0000_0000_0FFF | target if elsewhere else word
    np.savez(folder / "p.npz", frame=frames, data=data)
    image = str(folder / "image.json")
    for command, *options in COMMANDS:
        result = CliRunner().invoke(app, [command, image, *options], catch_exceptions=False)
        assert result.exit_code in {0, 1, 2}
        if result.exit_code == 2:
            assert result.stderr.count("\n") == 1
            assert result.stderr.startswith("nestmmu: ")
        else:
            assert result.stdout
        if "--json" in options and result.exit_code != 2:
            assert json.loads(result.stdout)["image" if command != "extents" else "source"] == image
