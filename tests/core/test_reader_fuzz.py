"""Whatever a file holds, a reader returns something sound or raises one InputError."""

from __future__ import annotations

import copy
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestmmu.errors import InputError
from nestmmu.images import Dropped, Frames, ImageSlot, Touch, read_nest_image
from nestmmu.images.arrays import read_arrays
from nestmmu.vectors import read_vectors
from writers.files import (
    gzip_json,
    npy_bytes,
    npz_bytes,
    small_accesses,
    small_image,
    small_pages,
    small_vectors,
    write_image,
    zip_bytes,
)
from writers.refusals import check_refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FUZZ = settings(max_examples=200, deadline=None)
FEW = settings(max_examples=80, deadline=None)
LIMIT = 1 << 64


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a directory with a small image, for all examples of this module."""
    directory = tmp_path_factory.mktemp("fuzz")
    write_image(directory)
    yield directory
    shutil.rmtree(directory)


def image_outcome(path: Path) -> str:
    """Read an image, and check that it is sound or refused."""
    try:
        image = read_nest_image(path)
    except InputError as error:
        check_refusal(error)
        return "refused"
    assert len({len(column) for column in image.columns.values()}) <= 1
    ranges: list[ImageSlot | Touch | Dropped] = [*image.slots, *image.also, *image.dropped]
    assert all(0 <= item.l2_real < item.l2_real + item.size <= LIMIT for item in ranges)
    assert isinstance(image.source, Frames)
    assert image.memory().frame_count() == len(image.source.numbers)
    return "read"


def vectors_outcome(path: Path) -> str:
    """Read a file of vectors, and check that it is sound or refused."""
    try:
        vectors = read_vectors(path)
    except InputError as error:
        check_refusal(error)
        return "refused"
    for scene in vectors.scenes:
        assert all(0 <= value < LIMIT for value in scene.registers.values())
        assert all(address % 8 == 0 and 0 <= word < LIMIT for address, word in scene.words)
        assert all(0 <= access.ea < LIMIT for access in scene.accesses)
    return "read"


def arrays_outcome(path: Path) -> str:
    """Read arrays, and check that they are of a taken kind or refused."""
    try:
        arrays = read_arrays(path, limit_bytes=1 << 24)
    except InputError as error:
        check_refusal(error)
        return "refused"
    assert all(array.dtype.str in {"|u1", "<u8"} for array in arrays.values())
    return "read"


INTEGERS = st.one_of(
    st.integers(-2, 70), st.sampled_from([LIMIT - 1, LIMIT, -LIMIT, 1 << 52, 10**40]), st.integers(0, LIMIT - 1)
)
TEXTS = st.one_of(
    st.text(max_size=8), st.sampled_from(["load", "nest-image/1", "small.pages.npz", "../x", "\ud800", "\x1b[2J"])
)
SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, st.floats(), TEXTS)
NAMES = st.one_of(
    TEXTS,
    st.sampled_from(sorted(small_image()) + sorted(small_vectors())),
    st.sampled_from(["regs", "mem", "accesses", "ea", "kind", "changed", "slots", "also", "l2_real", "size"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=6)),
    max_leaves=12,
)


@FUZZ
@given(content=st.binary(max_size=400))
def test_random_bytes(place: Path, content: bytes) -> None:
    for name in ("bytes.json", "bytes.json.gz", "bytes.npz"):
        (place / name).write_bytes(content)
    assert image_outcome(place / "bytes.json") == "refused"
    assert vectors_outcome(place / "bytes.json") == "refused"
    assert vectors_outcome(place / "bytes.json.gz") == "refused"
    arrays_outcome(place / "bytes.npz")


@FUZZ
@given(document=VALUES)
def test_random_documents(place: Path, document: object) -> None:
    (place / "random.json").write_text(json.dumps(document))
    (place / "random.json.gz").write_bytes(gzip_json(document))
    image_outcome(place / "random.json")
    vectors_outcome(place / "random.json.gz")


def spots(value: object) -> list[tuple[Any, Any]]:
    """Return all (container, key) pairs of a document."""
    items: Any = []
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [pair for key, inner in items for pair in ((value, key), *spots(inner))]


def mutate(data: st.DataObject, document: dict[str, Any]) -> dict[str, Any]:
    """Drop, replace, double or add one to three values."""
    mutant = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        all_spots = spots(mutant)
        if not all_spots:
            break
        container, key = data.draw(st.sampled_from(all_spots))
        action = data.draw(st.sampled_from(["drop", "replace", "double", "add"]))
        if action == "drop":
            del container[key]
        elif action == "replace":
            container[key] = data.draw(VALUES)
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]) if action == "double" else data.draw(VALUES))
        else:
            container[data.draw(NAMES)] = data.draw(VALUES)
    return mutant


@FUZZ
@given(data=st.data())
def test_mutated_image_documents(place: Path, data: st.DataObject) -> None:
    (place / "mutant.json").write_text(json.dumps(mutate(data, small_image())))
    image_outcome(place / "mutant.json")


@FUZZ
@given(data=st.data())
def test_mutated_vectors(place: Path, data: st.DataObject) -> None:
    (place / "mutant.json.gz").write_bytes(gzip_json(mutate(data, small_vectors())))
    vectors_outcome(place / "mutant.json.gz")


def damage(data: st.DataObject, content: bytes) -> bytes:
    """Flip up to four bytes, and perhaps cut the end off or put something into the middle."""
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    at = data.draw(st.integers(0, len(damaged)))
    kind = data.draw(st.sampled_from(["none", "cut", "insert"]))
    if kind == "cut":
        del damaged[at:]
    elif kind == "insert":
        damaged[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    return bytes(damaged)


@FUZZ
@given(data=st.data())
def test_damaged_gzip(place: Path, data: st.DataObject) -> None:
    (place / "damaged.json.gz").write_bytes(damage(data, gzip_json(small_vectors())))
    vectors_outcome(place / "damaged.json.gz")


SMALL = {
    (kind, packed): npz_bytes(arrays, packed=packed)
    for kind, arrays in (("pages", small_pages()), ("accesses", small_accesses()))
    for packed in (True, False)
}


@FUZZ
@given(data=st.data(), which=st.sampled_from(sorted(SMALL)))
def test_damaged_archives(place: Path, data: st.DataObject, which: tuple[str, bool]) -> None:
    document = small_image()
    document[which[0]] = "damaged.npz"
    (place / "archive.json").write_text(json.dumps(document))
    (place / "damaged.npz").write_bytes(damage(data, SMALL[which]))
    image_outcome(place / "archive.json")


HEADERS = st.builds(
    "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}{}".format,
    st.sampled_from(["'<u8'", "'|u1'", "'>u8'", "'|O'", "'<U99999999999'", "[('a', '<u8')]", "''", "9"]),
    st.sampled_from(["False", "True", "0", "None"]),
    st.one_of(
        st.lists(INTEGERS, max_size=3).map(lambda shape: str(tuple(shape))),
        st.sampled_from(["(2,)", "(16,)", "()", "(0, 1)", "2", f"({'1, ' * 70})", f"({'9' * 5000},)"]),
    ),
    st.sampled_from(["", "\n", " " * 50, "x"]),
)


@FUZZ
@given(header=st.one_of(HEADERS, st.text(st.characters(max_codepoint=255), max_size=40)), count=st.integers(0, 17))
def test_headers_of_arrays(place: Path, header: str, count: int) -> None:
    (place / "header.npz").write_bytes(zip_bytes([("a.npy", npy_bytes(header, bytes(count)))]))
    arrays_outcome(place / "header.npz")


@FEW
@given(members=st.dictionaries(st.sampled_from(["a.npy", "b.npy", "c", "é.npy", "\x07.npy"]), st.binary(max_size=200)))
def test_members_that_are_anything(place: Path, members: dict[str, bytes]) -> None:
    (place / "members.npz").write_bytes(zip_bytes(members.items()))
    assert arrays_outcome(place / "members.npz") == ("refused" if members else "read")


def test_the_fuzz_starts_from_what_is_read(place: Path) -> None:
    assert image_outcome(place / "small.json") == "read"
    (place / "small.json.gz").write_bytes(gzip_json(small_vectors()))
    assert vectors_outcome(place / "small.json.gz") == "read"
    for (kind, packed), content in SMALL.items():
        (place / f"{kind}{packed}.npz").write_bytes(content)
        assert arrays_outcome(place / f"{kind}{packed}.npz") == "read"
