"""Recorded translations: the files as they are, and files that are refused."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from nestmmu.access import Access
from nestmmu.images.documents import read_json
from nestmmu.vectors import read_vectors
from writers.files import ABSENT, gzip_json, replaced, small_vectors
from writers.refusals import refused

DATA = Path(__file__).parents[1] / "data"
BIG = 1 << 64


# Counts and the option are those of the recordings' own description.
@pytest.mark.parametrize(
    ("name", "rc", "count"), [("ppc64_radix", "update", 2213), ("ppc64_radix_rcfault", "fault", 2194)]
)
def test_recorded_vectors(name: str, rc: str, count: int) -> None:
    vectors = read_vectors(DATA / f"{name}.json.gz")
    assert vectors.arch == "ppc64_radix"
    assert vectors.options == {"rc": rc}
    assert sum(len(scene.accesses) for scene in vectors.scenes) == count
    for scene in vectors.scenes:
        assert scene.words
        assert {"ptcr", "lpidr", "lpcr"} <= set(scene.registers)
        for access in scene.accesses:
            assert ("ra" in access.fields) != ("vector" in access.fields)


def write(directory: Path, document: object) -> Path:
    """Write a document as a gzipped file."""
    path = directory / "small.json.gz"
    path.write_bytes(gzip_json(document))
    return path


def test_small_vectors_field_by_field(tmp_path: Path) -> None:
    vectors = read_vectors(write(tmp_path, small_vectors()))
    assert (vectors.arch, vectors.machine) == ("toy", "by hand")
    assert vectors.options == {"variant": "strict", "memory_bytes": 1 << 20}
    first, second = vectors.scenes
    assert first.registers == {"root": 0x1000, "mode": 3}
    assert first.words == ((0x1000, 0x2001), (0x2008, BIG - 1))
    assert first.extra == {"pairs": [[1, 2], [3, 4]]}
    load, fetch = first.accesses
    assert (load.ea, load.access, load.changed) == (0x10, Access.LOAD, ((0x2008, 5),))
    assert load.fields == {"user": True, "ra": 0x3010}
    assert load.fields["user"] is True
    assert (fetch.ea, fetch.access, fetch.changed) == (BIG - 1, Access.FETCH, ())
    assert fetch.fields == {"user": False, "vector": 7}
    assert (second.registers, second.words, second.extra) == ({}, (), {})
    assert second.accesses[0].access is Access.STORE


def test_vectors_need_not_be_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_bytes(gzip.decompress(gzip_json(small_vectors())))
    assert len(read_vectors(path).scenes) == 2


PAIR = "is no word of memory"
DOCUMENTS = [
    ("top-is-a-list", "", [], "", "is a list, not an object"),
    ("arch-missing", "arch", ABSENT, "arch", "is missing"),
    ("machine-is-null", "machine", None, "machine", "is null, not a string"),
    ("option-is-a-fraction", "variant", 0.5, "variant", "is a fraction"),
    ("option-is-a-list", "variant", [1], "variant", "is a list"),
    ("option-is-a-boolean", "variant", True, "variant", "is a boolean"),
    ("option-over-64-bits", "memory_bytes", BIG, "memory_bytes", "outside 0..2^64-1"),
    ("scenes-missing", "scenes", ABSENT, "scenes", "is missing"),
    ("scenes-is-an-object", "scenes", {}, "scenes", "is an object, not a list"),
    ("scene-is-a-string", "scenes.1", "x", "scenes[1]", "is a string, not an object"),
    ("registers-missing", "scenes.1.regs", ABSENT, "scenes[1].regs", "is missing"),
    ("register-is-a-string", "scenes.0.regs.root", "0x10", "scenes[0].regs.root", "is a string"),
    ("register-over-64-bits", "scenes.0.regs.root", BIG, "scenes[0].regs.root", "outside 0..2^64-1"),
    ("register-of-an-odd-name", "scenes.0.regs.a\nb", 1, "scenes[0].regs", "has a field named 'a\\nb'"),
    ("words-missing", "scenes.0.mem", ABSENT, "scenes[0].mem", "is missing"),
    ("word-is-a-number", "scenes.0.mem.1", 7, "scenes[0].mem[1]", PAIR),
    ("word-of-three", "scenes.0.mem.1", [8, 1, 1], "scenes[0].mem[1]", PAIR),
    ("word-misaligned", "scenes.0.mem.1", [12, 1], "scenes[0].mem[1]", PAIR),
    ("word-over-64-bits", "scenes.0.mem.1", [8, BIG], "scenes[0].mem[1]", PAIR),
    ("word-negative", "scenes.0.mem.1", [8, -1], "scenes[0].mem[1]", PAIR),
    ("word-address-over-64-bits", "scenes.0.mem.1", [BIG, 1], "scenes[0].mem[1]", PAIR),
    ("word-is-a-boolean", "scenes.0.mem.1", [8, True], "scenes[0].mem[1]", PAIR),
    ("word-is-a-fraction", "scenes.0.mem.1", [8.0, 1], "scenes[0].mem[1]", PAIR),
    ("word-twice", "scenes.0.mem.1", [0x1000, 1], "scenes[0].mem", "has an address twice"),
    ("words-too-many", "scenes.0.mem", [0] * 1_000_001, "scenes[0].mem", "has 1000001 elements"),
    ("extra-is-a-string", "scenes.0.pairs", "x", "scenes[0].pairs", "is a string"),
    ("extra-with-a-string", "scenes.0.pairs.1", [1, "x"], "scenes[0].pairs[1][1]", "is a string"),
    ("extra-with-an-object", "scenes.0.pairs.1", {}, "scenes[0].pairs[1]", "is an object"),
    ("extra-too-deep", "scenes.0.pairs", [[[[[1]]]]], "scenes[0].pairs[0][0][0][0]", "nested too deeply"),
    ("accesses-missing", "scenes.0.accesses", ABSENT, "scenes[0].accesses", "is missing"),
    ("access-is-null", "scenes.0.accesses.0", None, "scenes[0].accesses[0]", "is null"),
    ("access-without-address", "scenes.0.accesses.1.ea", ABSENT, "scenes[0].accesses[1].ea", "is missing"),
    ("access-beyond-64-bits", "scenes.0.accesses.1.ea", BIG, "scenes[0].accesses[1].ea", "outside 0..2^64-1"),
    ("access-without-kind", "scenes.0.accesses.1.kind", ABSENT, "scenes[0].accesses[1].kind", "is missing"),
    ("access-of-another-kind", "scenes.0.accesses.1.kind", "LOAD", "scenes[0].accesses[1].kind", "is 'LOAD'"),
    ("outcome-is-null", "scenes.0.accesses.0.ra", None, "scenes[0].accesses[0].ra", "is null"),
    ("outcome-negative", "scenes.0.accesses.0.ra", -4, "scenes[0].accesses[0].ra", "is -4, outside"),
    ("changed-is-a-number", "scenes.0.accesses.0.changed", 4, "scenes[0].accesses[0].changed", "not a list"),
    ("changed-is-flat", "scenes.0.accesses.0.changed", [8, 8], "scenes[0].accesses[0].changed[0]", PAIR),
]


@pytest.mark.parametrize(
    ("at", "value", "field", "says"), [row[1:] for row in DOCUMENTS], ids=[r[0] for r in DOCUMENTS]
)
def test_document_refused(tmp_path: Path, at: str, value: object, field: str, says: str) -> None:
    document = replaced(small_vectors(), at, value) if at else value
    refused(read_vectors, write(tmp_path, document), field, says)


GOOD = gzip_json(small_vectors())
FILES = [
    ("empty", b"", "is cut short"),
    ("truncated-gzip", GOOD[:-20], "is cut short: its gzip data does not end"),
    ("truncated-in-the-checksum", GOOD[:-1], "is cut short: its gzip data does not end"),
    ("truncated-in-the-header", GOOD[:5], "is cut short"),
    ("not-gzip", b'{"arch": "toy"}', "is not gzip"),
    ("checksum-wrong", GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "is not gzip, or damaged"),
    ("something-after-the-end", GOOD + b"x", "goes on after its gzip data"),
    ("two-members", GOOD + GOOD, "goes on after its gzip data"),
    ("not-utf-8", gzip.compress(b'{"arch": "\xc3("}'), "is not UTF-8 text (byte 10)"),
    ("not-json", gzip.compress(b"arch: toy"), "is not JSON: Expecting value at line 1, column 1"),
    ("nested-too-deeply", gzip.compress(b"[" * 1_000_000), "is nested too deeply"),
    ("a-number-of-100,000-digits", gzip.compress(b'{"a": ' + b"1" * 100_000 + b"}"), "has a number that is too long"),
    ("nan", gzip.compress(b'{"a": NaN}'), "NaN"),
    ("too-many-values", gzip.compress(b"[" + b"0," * (1 << 22) + b"0]", 1), "has more than 4194304 values"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "says"), [row[1:] for row in FILES], ids=[row[0] for row in FILES])
def test_file_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "small.json.gz"
    path.write_bytes(content)
    refused(read_vectors, path, "", says)


def test_file_missing(tmp_path: Path) -> None:
    refused(read_vectors, tmp_path / "none.json.gz", "", "no such file")


def test_gzip_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20), 9))
    tracemalloc.start()
    try:
        refused(lambda file: read_json(file, limit_bytes=1 << 20), path, "", "unpacks to more than 1048576 bytes")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_the_limit_is_the_last_size_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    text = b'{"a":' + b" " * (3 << 20) + b"1}"
    path.write_bytes(gzip.compress(text))
    assert read_json(path, len(text)).member("a").integer() == 1
    refused(lambda file: read_json(file, len(text) - 1), path, "", "unpacks to more than")
    refused(lambda file: read_json(file, 8), path, "", "has more than 8 bytes")


def test_the_name_of_a_packed_file_may_be_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    header = b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (3 << 20) + b"\0"  # RFC 1952: FLG.FNAME, then the name
    path.write_bytes(header + gzip.compress(b'{"a": 2}', mtime=0)[10:])
    assert read_json(path, 1 << 23).member("a").integer() == 2
