"""Images of a nest: those that were recorded, and those that are refused."""

from __future__ import annotations

import errno
import io
import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestmmu.access import Access
from nestmmu.errors import InputError
from nestmmu.images import read_nest_image, shipped_image
from nestmmu.images.arrays import read_arrays
from nestmmu.images.nest import Dropped, ImageSlot, Touch
from writers.files import (
    ABSENT,
    Arrays,
    npy_bytes,
    npz_bytes,
    replaced,
    small_accesses,
    small_image,
    small_pages,
    write_image,
    zip_bytes,
)
from writers.refusals import refused

DATA = Path(__file__).parents[1] / "data"
RECORDED = [shipped_image(), DATA / "nest-4k-64k.json", DATA / "l1-64k.json", DATA / "l1-4k.json"]
U64 = "{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }\n"


# What the images' own description says of them.
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_image_has_what_its_description_says(path: Path) -> None:
    image = read_nest_image(path)
    assert image.arch == "ppc64_radix"
    assert len(image.columns) == 12
    assert {len(column) for column in image.columns.values()} == {5020}
    assert len(image.slots) == 7
    assert len(image.also) == 3
    assert image.l1.number("page_shift") == (12 if path.stem == "l1-4k" else 16)
    assert len(image.dropped) == (1 if path.stem == "nest-4k-64k" else 0)
    if path.stem.startswith("l1-"):
        assert image.l0 is None
        assert image.l1.optional("lpid") is None
    else:
        assert image.l0 is not None
        assert image.l0.number("page_shift") == (12 if path.stem == "nest-4k-64k" else 16)
        assert image.l1.number("lpid") == 1


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_image_holds_the_bytes_and_columns_that_numpy_reads(path: Path) -> None:
    image = read_nest_image(path)
    memory = image.memory()
    with np.load(path.with_suffix(".pages.npz")) as file:
        pages = dict(file)
    frames, data = pages["frame"], pages["data"]
    assert memory.frame_numbers() == sorted(frames.tolist())
    for number, row in zip(frames.tolist(), data, strict=True):
        assert memory.read(number << 12, 4096) == row.tobytes()
    with np.load(path.with_suffix(".accesses.npz")) as file:
        accesses = dict(file)
    assert set(image.columns) == set(accesses)
    for name, column in accesses.items():
        assert np.array_equal(image.column(name), column)


def test_the_shipped_image_is_in_the_package() -> None:
    assert shipped_image().name == "nest-64k-64k.json"
    assert shipped_image().is_file()


def test_small_image_field_by_field(tmp_path: Path) -> None:
    image = read_nest_image(write_image(tmp_path))
    assert (image.arch, image.origin) == ("toy", "by hand")
    assert image.l0 is not None
    assert image.l0.number("root") == 0x1000
    assert image.l1.optional("tag") is None
    assert image.l2.optional("absent") is None
    assert image.l2.optional("tag") == 1
    assert [(slot.l2_real, slot.size, slot.kind) for slot in image.slots] == [(0, 0x10000, "base")]
    touches = [(touch.access, touch.l2_real, touch.size) for touch in image.also]
    assert touches == [(Access.FETCH, 0, 0x1000), (Access.STORE, 8, 8)]
    assert [(one.l2_real, one.size, one.why) for one in image.dropped] == [(0x3000, 0x1000, "it was replaced")]
    assert (type(image.slots[0]), type(image.also[0]), type(image.dropped[0])) == (ImageSlot, Touch, Dropped)
    assert image.column("ea").tolist() == [0, 8, 0x1000, (1 << 64) - 1]
    assert image.column("ea").dtype == np.uint64


def test_each_memory_is_a_new_one(tmp_path: Path) -> None:
    image = read_nest_image(write_image(tmp_path))
    first = image.memory()
    first.write(0x1000, b"written")
    assert first.read(0x1000, 7) == b"written"
    assert image.memory().read(0x1000, 7) == b"\x01" * 7
    assert image.memory().read(((1 << 52) - 1) << 12, 4096) == b"\x03" * 4096
    assert image.memory().read(0x5000, 4) == bytes(4)


def test_columns_are_read_only(tmp_path: Path) -> None:
    image = read_nest_image(write_image(tmp_path))
    with pytest.raises(ValueError, match="read-only"):
        image.column("ea")[0] = 1


def test_an_image_may_have_no_frames_and_no_accesses(tmp_path: Path) -> None:
    pages: Arrays = {"frame": np.zeros(0, np.uint64), "data": np.zeros((0, 4096), np.uint8)}
    image = read_nest_image(write_image(tmp_path, pages=pages, accesses={"op": np.zeros(0, np.uint64)}))
    assert image.memory().frame_count() == 0
    assert len(image.column("op")) == 0


@pytest.mark.parametrize("packed", [True, False])
def test_arrays_stored_or_deflated(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes(small_pages(), packed=packed))
    arrays = read_arrays(path)
    assert arrays["frame"].tolist() == [1, 2, (1 << 52) - 1]
    assert arrays["data"].shape == (3, 4096)


def test_arrays_with_headers_that_others_write(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    header = "{'shape':(1, ),'fortran_order':False,'descr':'<u8'}"
    wide = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header.encode() + (7).to_bytes(8, "little")
    path.write_bytes(zip_bytes([("a.npy", npy_bytes(header, (5).to_bytes(8, "little"))), ("b.npy", wide)]))
    assert {name: array.tolist() for name, array in read_arrays(path).items()} == {"a": [5], "b": [7]}


def test_section_names_the_field_and_the_range(tmp_path: Path) -> None:
    path = write_image(tmp_path)
    image = read_nest_image(path)
    refused(lambda _: image.l1.number("absent"), path, "l1.absent", "is missing")
    refused(lambda _: image.l1.number("tag"), path, "l1.tag", "is null, not an integer")
    refused(lambda _: image.l1.number("root", limit=0x2000), path, "l1.root", "is 8192, outside 0..8191")
    refused(lambda _: image.l2.optional("slots"), path, "l2.slots", "is a list, not an integer")
    assert image.l1.number("root", limit=0x2001) == 0x2000


def test_column_that_is_missing(tmp_path: Path) -> None:
    image = read_nest_image(write_image(tmp_path))
    refused(lambda _: image.column("pid"), image.path, "pid", "is missing", file="small.accesses.npz")


BIG = 1 << 64
DOCUMENTS = [
    ("format-of-another-kind", "format", "nest-image/2", "format", "is 'nest-image/2'"),
    ("format-missing", "format", ABSENT, "format", "is missing"),
    ("arch-is-a-number", "arch", 5, "arch", "is an integer, not a string"),
    ("origin-with-an-escape-sequence", "origin", "\x1b[2J", "origin", "cannot be printed"),
    ("origin-with-a-lone-surrogate", "origin", "\ud800", "origin", "cannot be printed"),
    ("origin-too-long", "origin", "x" * 5000, "origin", "too long"),
    ("level-missing", "l1", ABSENT, "l1", "is missing"),
    ("level-null", "l2", None, "l2", "is null, not an object"),
    ("level-is-a-list", "l1", [], "l1", "is a list, not an object"),
    ("l0-missing", "l0", ABSENT, "l0", "is missing"),
    ("number-over-64-bits", "l1.root", BIG, "l1.root", "is 18446744073709551616, outside 0..2^64-1"),
    ("number-of-a-thousand-digits", "l1.root", 10**1000, "l1.root", "outside 0..2^64-1"),
    ("number-negative", "l0.root", -1, "l0.root", "is -1, outside"),
    ("number-is-a-boolean", "l1.root", True, "l1.root", "is a boolean, not an integer"),
    ("number-is-a-fraction", "l1.root", 1.0, "l1.root", "is a fraction, not an integer"),
    ("name-of-a-field", "l1.\x07", 1, "l1", "has a field named '\\x07'"),
    ("slots-missing", "l2.slots", ABSENT, "l2.slots", "is missing"),
    ("slots-is-an-object", "l2.slots", {}, "l2.slots", "is an object, not a list"),
    ("slots-too-many", "l2.slots", [0] * 4097, "l2.slots", "has 4097 elements"),
    ("also-too-many", "l2.also", [0] * 4097, "l2.also", "has 4097 elements"),
    ("dropped-too-many", "l2.dropped", [0] * 4097, "l2.dropped", "has 4097 elements"),
    ("slot-is-a-number", "l2.slots.0", 3, "l2.slots[0]", "is an integer, not an object"),
    ("slot-without-size", "l2.slots.0.size", ABSENT, "l2.slots[0].size", "is missing"),
    ("slot-empty", "l2.slots.0.size", 0, "l2.slots[0].size", "is empty"),
    ("slot-ends-beyond-64-bits", "l2.slots.0", {"l2_real": BIG - 8, "size": 9}, "l2.slots[0].size", "beyond 2^64"),
    ("slot-address-over-64-bits", "l2.slots.0.l2_real", BIG, "l2.slots[0].l2_real", "outside 0..2^64-1"),
    ("slot-kind-is-null", "l2.slots.0.kind", None, "l2.slots[0].kind", "is null, not a string"),
    ("touch-of-another-kind", "l2.also.1.kind", "peek", "l2.also[1].kind", "is 'peek', no kind of access"),
    ("touch-kind-is-a-list", "l2.also.1.kind", [], "l2.also[1].kind", "no kind of access"),
    ("touches-of-more-than-2^32-bytes", "l2.also.0.size", (1 << 32) - 7, "l2.also", "has 4294967297 bytes"),
    ("dropped-without-why", "l2.dropped.0.why", ABSENT, "l2.dropped[0].why", "is missing"),
    ("pages-in-the-parent", "pages", "../small.pages.npz", "pages", "not a plain file name"),
    ("pages-below", "pages", "x/small.pages.npz", "pages", "not a plain file name"),
    ("pages-absolute", "pages", "/small.pages.npz", "pages", "not a plain file name"),
    ("pages-with-a-backslash", "pages", "..\\small.pages.npz", "pages", "not a plain file name"),
    ("pages-with-a-drive", "pages", "c:small.pages.npz", "pages", "not a plain file name"),
    ("pages-is-the-directory", "pages", ".", "pages", "not a plain file name"),
    ("pages-is-empty", "pages", "", "pages", "not a plain file name"),
    ("pages-with-a-zero-byte", "pages", "small\0.npz", "pages", "cannot be printed"),
    ("accesses-in-the-parent", "accesses", "..", "accesses", "not a plain file name"),
]


@pytest.mark.parametrize(
    ("at", "value", "field", "says"), [row[1:] for row in DOCUMENTS], ids=[r[0] for r in DOCUMENTS]
)
def test_document_refused(tmp_path: Path, at: str, value: object, field: str, says: str) -> None:
    document = replaced(small_image(), at, value)
    refused(read_nest_image, write_image(tmp_path, document), field, says)


def test_touches_of_2_to_the_32_bytes_are_taken(tmp_path: Path) -> None:
    document = small_image()
    document["l2"]["also"][0]["size"] = (1 << 32) - 8
    assert sum(touch.size for touch in read_nest_image(write_image(tmp_path, document)).also) == 1 << 32


def test_a_range_may_end_at_2_to_the_64(tmp_path: Path) -> None:
    document = small_image()
    document["l2"]["slots"] = [{"l2_real": BIG - 8, "size": 8, "kind": ""}, {"l2_real": 0, "size": BIG, "kind": ""}]
    sizes = [slot.size for slot in read_nest_image(write_image(tmp_path, document)).slots]
    assert sizes == [8, BIG]


TEXTS = [
    ("empty", b"", "is not JSON: Expecting value at line 1, column 1"),
    ("cut-short", b'{"format": "nest-im', "is not JSON"),
    ("not-utf-8", b'{"origin": "\xff"}', "is not UTF-8 text (byte 12)"),
    ("top-is-a-list", b"[1, 2]", "is a list, not an object"),
    ("top-is-null", b"null", "is null, not an object"),
    ("nested-too-deeply", b'{"l1":' * 200_000, "is nested too deeply"),
    ("nested-lists", b"[" * 1_000_000, "is nested too deeply"),
    ("a-number-of-100,000-digits", b'{"l1": ' + b"9" * 100_000 + b"}", "has a number that is too long"),
    ("nan", b'{"l1": NaN}', "NaN"),
    ("infinity", b'{"l1": -Infinity}', "Infinity"),
    ("larger-than-16-MiB", b" " * ((1 << 24) + 1), "has more than 16777216 bytes"),
    ("too-many-values", b"[" + b"," * (1 << 22), "has more than 4194304 values"),
]


@pytest.mark.parametrize(("text", "says"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_text_of_the_document_refused(tmp_path: Path, text: bytes, says: str) -> None:
    path = write_image(tmp_path)
    path.write_bytes(text)
    refused(read_nest_image, path, "", says)


def test_document_missing(tmp_path: Path) -> None:
    refused(read_nest_image, tmp_path / "none.json", "", "no such file")


def test_document_is_a_directory(tmp_path: Path) -> None:
    refused(read_nest_image, tmp_path, "", "is not a regular file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_document_is_a_pipe_that_nobody_writes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    refused(read_nest_image, tmp_path / "pipe.json", "", "is not a regular file")


def test_document_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read what has no rights
    refused(read_nest_image, path, "", "permission denied")


def test_name_of_the_document_with_a_zero_byte() -> None:
    with pytest.raises(InputError, match="is not a file name"):
        read_nest_image(Path("a\0b"))


@pytest.mark.parametrize("kind", ["pages", "accesses"])
def test_npz_missing(tmp_path: Path, kind: str) -> None:
    path = write_image(tmp_path)
    (tmp_path / f"small.{kind}.npz").unlink()
    refused(read_nest_image, path, kind, "there is no such file")


def changed(arrays: dict[str, Any], **changes: object) -> dict[str, Any]:
    """Return arrays with some replaced, or dropped where None."""
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


FRAME, BYTES = small_pages()["frame"], small_pages()["data"]
PAGES = [
    ("frame-missing", {"frame": None}, "frame", "is missing"),
    ("data-missing", {"data": None}, "data", "is missing"),
    ("frame-of-another-dtype", {"frame": BYTES[0, :3]}, "frame", "is uint8 (3,)"),
    ("frame-of-two-dimensions", {"frame": FRAME.reshape(3, 1)}, "frame", "is uint64 (3, 1)"),
    ("frame-signed", {"frame": FRAME.astype(np.int64)}, "frame", "has dtype \"'<i8'\""),
    ("frame-big-endian", {"frame": FRAME.astype(">u8")}, "frame", "has dtype \"'>u8'\""),
    ("frame-twice", {"frame": np.array([1, 2, 1], np.uint64)}, "frame", "has a number twice"),
    ("frame-of-53-bits", {"frame": np.array([1, 2, 1 << 52], np.uint64)}, "frame", "2^52"),
    ("data-of-another-length", {"data": BYTES[:2]}, "data", "is uint8 (2, 4096)"),
    ("data-of-other-pages", {"data": BYTES.reshape(6, 2048)}, "data", "is uint8 (6, 2048)"),
    ("data-of-words", {"data": BYTES.view(np.uint64)}, "data", "is uint64 (3, 512)"),
    ("data-in-fortran-order", {"data": np.asfortranarray(BYTES)}, "data", "is in Fortran order"),
    ("frame-of-floats", {"frame": FRAME.astype(np.float64)}, "frame", "has dtype \"'<f8'\""),
    ("frame-of-objects", {"frame": np.array([1, 2, 3], object)}, "frame", "has dtype \"'|O'\""),
    ("frame-of-records", {"frame": np.zeros(3, [("a", "<u8")])}, "frame", "not that of a plain array"),
]


@pytest.mark.parametrize(("changes", "field", "says"), [row[1:] for row in PAGES], ids=[row[0] for row in PAGES])
def test_pages_refused(tmp_path: Path, changes: dict[str, Any], field: str, says: str) -> None:
    path = write_image(tmp_path, pages=changed(small_pages(), **changes))
    refused(read_nest_image, path, field, says, file="small.pages.npz")


ACCESSES = [
    ("lengths-differ", {"ea": np.zeros(3, np.uint64)}, "ea", "has 3 values where op has 4"),
    ("another-dtype", {"ea": np.zeros(4, np.uint8)}, "ea", "is uint8 (4,)"),
    ("two-dimensions", {"ea": np.zeros((4, 1), np.uint64)}, "ea", "is uint64 (4, 1)"),
    ("no-dimension", {"op": np.array(4, np.uint64)}, "op", "is uint64 ()"),
    ("of-32-bits", {"ea": np.zeros(4, np.uint32)}, "ea", "has dtype \"'<u4'\""),
]


@pytest.mark.parametrize(("changes", "field", "says"), [row[1:] for row in ACCESSES], ids=[row[0] for row in ACCESSES])
def test_accesses_refused(tmp_path: Path, changes: dict[str, Any], field: str, says: str) -> None:
    path = write_image(tmp_path, accesses=changed(small_accesses(), **changes))
    refused(read_nest_image, path, field, says, file="small.accesses.npz")


def claims(header: str, values: bytes = b"") -> bytes:
    """Return an ``.npz`` of one array with any header."""
    return zip_bytes([("frame.npy", npy_bytes(header, values))])


def shaped(shape: str) -> str:
    """Return the header of an array of 64-bit words."""
    return f"{{'descr': '<u8', 'fortran_order': False, 'shape': {shape}, }}\n"


def with_directory_size(content: bytes, size: int) -> bytes:
    """Return a zip file of one member whose directory claims another size of it when unpacked."""
    entry = content.rindex(b"PK\x01\x02")
    return content[: entry + 24] + size.to_bytes(4, "little") + content[entry + 28 :]


def twice() -> bytes:
    """Return a zip file with two members of one name."""
    content = zip_bytes([("frame.npy", npy_bytes(U64, bytes(8))), ("fram2.npy", npy_bytes(U64, bytes(8)))])
    return content.replace(b"fram2.npy", b"frame.npy")


GOOD = claims(U64, bytes(8))
ARCHIVES = [
    ("empty", b"", "", "is cut short"),
    ("no-zip", b"x" * 100, "", "is no .npz file"),
    ("an-npy", npy_bytes(U64, bytes(8)), "", "is no .npz file"),
    ("cut-short", GOOD[:-1], "", "is no .npz file, or cut short"),
    ("cut-in-the-middle", npz_bytes(small_pages())[:200], "", "is no .npz file, or cut short"),
    ("something-after-the-end", GOOD + b"x", "", "is no .npz file"),
    ("a-comment-that-is-not-there", GOOD[:-2] + b"\x01\0", "", "is no .npz file"),
    ("deflated-bytes-flipped", GOOD[:39] + b"\xff" + GOOD[40:], "frame", "is damaged or cut short"),
    ("local-header-flipped", GOOD.replace(b"PK\x03\x04", b"PK\x03\x05"), "frame", "is damaged or cut short"),
    ("a-value-flipped", zip_bytes([("frame.npy", npy_bytes(U64, b"VALUE..."))], 0).replace(b"VALUE", b"VALUF"),
     "frame", "is damaged or cut short"),
    ("claims-100-GB", claims(shaped("(12500000000,)")), "frame", "claims shape (12500000000,) of uint64"),
    ("claims-10^60-bytes", claims(shaped(f"({10**30}, {10**30})")), "frame", "claims shape"),
    ("claims-no-bytes-of-10^30-rows", claims(shaped(f"(0, {10**30})")), "frame", "claims shape"),
    ("claims-more-than-the-member", claims(shaped("(2,)"), bytes(8)), "frame", "has 8 bytes of values"),
    ("claims-less-than-the-member", claims(U64, bytes(16)), "frame", "has 16 bytes of values"),
    ("directory-claims-4-GB", with_directory_size(GOOD, 0xFFFFFFFE), "frame", "claims 4294967294 bytes"),
    ("directory-claims-too-little", with_directory_size(GOOD, 10 + len(U64)), "frame", "is damaged or cut short"),
    ("member-that-is-no-array", zip_bytes([("frame.npy", b"x" * 100)]), "frame", "is no array of numpy"),
    ("member-that-is-empty", zip_bytes([("frame.npy", b"")]), "frame", "is no array of numpy"),
    ("member-of-another-name", zip_bytes([("../frame.npy", b"")]), "", "has a member named '../frame.npy'"),
    ("member-of-a-long-name", zip_bytes([("f" * 65 + ".npy", b"")]), "", "has a member named"),
    ("member-twice", twice(), "frame", "is there twice"),
    ("members-too-many", zip_bytes((f"a{i}.npy", b"") for i in range(257)), "", "has 257 members"),
    ("members-far-too-many", zip_bytes((f"a{i}.npy", b"") for i in range(2000)), "", "has too many members"),
    ("packed-by-lzma", zip_bytes([("frame.npy", npy_bytes(U64, bytes(8)))], zipfile.ZIP_LZMA), "frame", "packed"),
    ("header-cut-short", claims("{'descr': '<u8', 'fortran_order': False"), "frame", "not that of a plain array"),
    ("header-with-code", claims("{'descr': exit(), 'fortran_order': False, 'shape': (), }"), "frame", "plain array"),
    ("header-without-shape", claims("{'descr': '<u8', 'fortran_order': False, }"), "frame", "plain array"),
    ("header-too-long", claims(U64 + " " * 5000, bytes(8)), "frame", "plain array"),
    ("version-of-numpy", zip_bytes([("frame.npy", npy_bytes(U64, bytes(8), magic=b"\x93NUMPY\x09\x00"))]),
     "frame", "is no array of numpy"),
    ("pickle", npz_bytes({"frame": np.array([{"a": 1}], object)}), "frame", "has dtype \"'|O'\""),
]  # fmt: skip


@pytest.mark.parametrize(("content", "field", "says"), [row[1:] for row in ARCHIVES], ids=[row[0] for row in ARCHIVES])
def test_archive_refused(tmp_path: Path, content: bytes, field: str, says: str) -> None:
    refused(read_nest_image, write_image(tmp_path, pages=content), field, says, file="small.pages.npz")


def test_archive_encrypted(tmp_path: Path) -> None:
    content = bytearray(GOOD)
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    refused(
        read_nest_image, write_image(tmp_path, pages=bytes(content)), "frame", "is encrypted", file="small.pages.npz"
    )


def test_directory_of_64_bits_that_claims_100_gb(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("frame.npy", npy_bytes(U64, bytes(8)))
        archive.infolist()[0].file_size = 100 << 30
    path = write_image(tmp_path, pages=file.getvalue())
    refused(read_nest_image, path, "frame", f"claims {100 << 30} bytes", file="small.pages.npz")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    size = 64 << 20
    path.write_bytes(claims(shaped(f"({size // 8},)"), bytes(size)))
    tracemalloc.start()
    try:
        refused(lambda file: read_arrays(file, limit_bytes=1 << 20), path, "frame", "when unpacked")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_the_limit_counts_all_arrays_together(tmp_path: Path) -> None:
    path = tmp_path / "two.npz"
    content = npz_bytes({"a": np.zeros(1000, np.uint64), "b": np.zeros(1000, np.uint64)})
    path.write_bytes(content)
    total = 2 * (128 + 8000)  # numpy pads a header to a multiple of 64 bytes
    assert len(read_arrays(path, limit_bytes=total)) == 2
    refused(lambda file: read_arrays(file, limit_bytes=total - 1), path, "a", f"claims {total} bytes")
    refused(lambda file: read_arrays(file, limit_bytes=len(content) - 1), path, "", "has more than")


def test_the_document_may_be_indented_and_gzipped_is_told_by_the_name(tmp_path: Path) -> None:
    path = write_image(tmp_path)
    path.write_text(json.dumps(small_image(), indent=4))
    assert read_nest_image(path).arch == "toy"
    packed = path.rename(path.with_suffix(".json.gz"))
    refused(read_nest_image, packed, "", "is not gzip")
