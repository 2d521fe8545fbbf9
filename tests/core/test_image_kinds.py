"""Memory from raw files and ELF core files: what is read, what is refused, and that nothing is changed or kept."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nestmmu.errors import InputError
from nestmmu.images import Description, kind_of, open_image, open_memory, read_nest_image, shipped_image
from nestmmu.images.elf_core import read_elf_core
from nestmmu.images.raw import raw_memory
from nestmmu.plugins import Plugins
from writers.elf import ENTRY_BYTES, ET_EXEC, HEADER_BYTES, elf_core
from writers.refusals import check_refusal

if TYPE_CHECKING:
    from pathlib import Path

    from nestmmu.memory import PhysicalMemory

PAGE = 4096


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def pattern(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(1, 256, size, np.uint8).tobytes()


class TestMemory:
    def test_raw(self, tmp_path: Path) -> None:
        data = pattern(3 * PAGE + 100)
        memory = raw_memory(written(tmp_path / "m", data), 0x10000).memory()
        assert memory.read(0x10000, len(data)) == data
        assert memory.read(0xFFF0, 0x20) == bytes(16) + data[:16]
        assert memory.read(0x10000 + len(data) - 4, 8) == data[-4:] + bytes(4)
        assert memory.load(0x10FFC, 8, "big") == int.from_bytes(data[0xFFC:0x1004], "big")
        assert memory.loader(8, "little")(0x10008) == int.from_bytes(data[8:16], "little")
        assert memory.frame_count() == 4
        assert memory.frame_numbers() == [16, 17, 18, 19]
        assert memory.holds(0x13FFF)
        assert not memory.holds(0x14000)

    def test_a_base_that_is_no_multiple_of_a_page(self, tmp_path: Path) -> None:
        memory = raw_memory(written(tmp_path / "m", pattern(PAGE)), 0x1800).memory()
        assert memory.frame_numbers() == [1, 2]
        assert memory.read(0x1000, 0x2000) == bytes(0x800) + pattern(PAGE) + bytes(0x800)
        assert memory.load(0x1800, 8, "big") == int.from_bytes(pattern(PAGE)[:8], "big")

    def test_stores_stay_in_their_memory(self, tmp_path: Path) -> None:
        data = pattern(2 * PAGE)
        source = raw_memory(written(tmp_path / "m", data))
        one, other = source.memory(), source.memory()
        one.write(PAGE - 2, b"abcd")
        one.storer(8, "big")(0x10, 7)
        assert one.read(PAGE - 4, 8) == data[PAGE - 4 : PAGE - 2] + b"abcd" + data[PAGE + 2 : PAGE + 4]
        assert one.load(0x10, 8, "big") == 7
        assert other.read(0, 2 * PAGE) == data
        assert (tmp_path / "m").read_bytes() == data

    def test_what_is_freed_and_cleared_is_zero(self, tmp_path: Path) -> None:
        memory = raw_memory(written(tmp_path / "m", pattern(PAGE))).memory()
        memory.clear(0)
        assert memory.read(0, PAGE) == bytes(PAGE)

    def test_a_large_file_costs_what_is_read_of_it(self, tmp_path: Path) -> None:
        with (tmp_path / "m").open("wb") as file:
            file.truncate(1 << 36)
            file.seek((1 << 36) - PAGE)
            file.write(pattern(PAGE))
        tracemalloc.start()
        memory = raw_memory(tmp_path / "m").memory()
        assert memory.frame_count() == 1 << 24
        assert memory.load((1 << 36) - PAGE, 8, "big") == int.from_bytes(pattern(PAGE)[:8], "big")
        assert memory.load(0, 8, "big") == 0
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()

    @given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 9000)), max_size=4), st.data())
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    def test_segments_beside_one_array(
        self, tmp_path: Path, wanted: list[tuple[int, int]], data: st.DataObject
    ) -> None:
        plain, segments, end = bytearray(70_000), [], 0
        for gap, size in wanted:
            start = end + gap % 10_000
            plain[start : start + size] = pattern(size, start)
            segments.append((start, bytes(plain[start : start + size])))
            end = start + size
        if not segments:
            return
        memory = read_elf_core(written(tmp_path / "core", elf_core(segments[::-1]))).memory.memory()
        for _ in range(4):
            at = data.draw(st.integers(0, 60_000))
            size = data.draw(st.integers(0, 9000))
            assert memory.read(at, size) == bytes(plain[at : at + size])
            assert memory.load(at, 8, "little") == int.from_bytes(plain[at : at + 8], "little")


class TestElf:
    @pytest.mark.parametrize("machine", ["EM_PPC64", "EM_RISCV", "EM_X86_64", "EM_AARCH64"])
    @pytest.mark.parametrize("order", ["big", "little"])
    @pytest.mark.parametrize("extended", [False, True])
    def test_each_machine(self, tmp_path: Path, machine: str, order: Any, *, extended: bool) -> None:
        one, other = pattern(PAGE), pattern(2 * PAGE, 2)
        path = written(tmp_path / "core", elf_core([(0x8000_0000, other), (0, one)], machine, order, extended=extended))
        core = read_elf_core(path)
        assert (core.machine, core.byteorder) == (machine, order)
        memory = core.memory.memory()
        assert memory.frame_count() == 3
        assert memory.read(0, PAGE + 1) == one + b"\0"
        assert memory.read(0x8000_0000, 2 * PAGE) == other

    def test_what_the_file_leaves_out_is_zero(self, tmp_path: Path) -> None:
        path = written(tmp_path / "core", elf_core([(0, pattern(100), PAGE), (PAGE, b"", PAGE)]))
        assert read_elf_core(path).memory.memory().read(0, 2 * PAGE) == pattern(100) + bytes(2 * PAGE - 100)

    REFUSED: ClassVar[dict[str, tuple[bytes, str, str]]] = {
        "32 bits": (elf_core([(0, b"1")], width=1), "", ""),
        "a program": (elf_core([(0, b"1")], kind=ET_EXEC), "e_type", "no core file"),
        "no memory": (elf_core([]), "", "no PT_LOAD"),
        "overlapping": (elf_core([(0, bytes(PAGE)), (PAGE - 1, b"1")]), "p_paddr", "0xfff"),
        "the same twice": (elf_core([(PAGE, b"1"), (PAGE, b"1")]), "p_paddr", "0x1000"),
        "beyond 2^64": (elf_core([((1 << 64) - 1, b"12")]), "p_paddr[1]", "2^64"),
        "of claimed size": (elf_core([(0, b"1", (1 << 64) - 1), (1 << 63, b"1", 1 << 63 | 1)]), "p_paddr[2]", "2^64"),
        "cut short": (elf_core([(0, bytes(PAGE))])[:-1], "p_paddr[1]", "ends after"),
        "more in the file than in memory": (elf_core([(0, b"12", 1)]), "p_paddr[1]", "2 bytes of 1"),
        "too many headers": (elf_core([(0, b"1")])[:56] + struct.pack(">H", 0xFFFE) + bytes(50), "", ""),
    }

    @pytest.mark.parametrize("what", REFUSED)
    def test_refused(self, tmp_path: Path, what: str) -> None:
        data, field, says = self.REFUSED[what]
        with pytest.raises(InputError) as caught:
            read_elf_core(written(tmp_path / "core", data))
        check_refusal(caught.value, field or None)
        assert says in caught.value.problem

    def test_cut_anywhere(self, tmp_path: Path) -> None:
        whole = elf_core([(0, bytes(300)), (PAGE, bytes(300))], extended=True)
        for size in range(4, len(whole), 16):
            with pytest.raises(InputError) as caught:
                read_elf_core(written(tmp_path / "core", whole[:size]))
            check_refusal(caught.value)

    @given(st.data())
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
    def test_any_header(self, tmp_path: Path, data: st.DataObject) -> None:
        whole = bytearray(
            elf_core([(0, bytes(300)), (PAGE, bytes(300))], order=data.draw(st.sampled_from(["big", "little"])))
        )
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(4, HEADER_BYTES + 3 * ENTRY_BYTES - 1))
            whole[at] = data.draw(st.integers(0, 255))
        try:
            memory = read_elf_core(written(tmp_path / "core", bytes(whole))).memory
            assert all(one.size <= len(whole) for one in memory.segments)
        except InputError as error:
            check_refusal(error)


def frames_of(image: Path) -> tuple[list[int], Any]:
    with np.load(image.with_suffix(".pages.npz")) as pages:
        return pages["frame"].tolist(), pages["data"]


def description(folder: Path, image: Path) -> Path:
    """Return a document that describes an image's memory."""
    document = json.loads(image.read_text(encoding="utf-8"))
    for name in ("format", "pages", "accesses"):
        del document[name]
    return written(folder / "nest.description", json.dumps(document).encode())


def registers(image: Path) -> tuple[str, ...]:
    """Return what --set takes for an image."""
    document = json.loads(image.read_text(encoding="utf-8"))
    fields = {"l0": ("ptcr", "page_shift"), "l1": ("lpid", "page_shift", "ptcr"), "l2": ("l1_lpid", "shadow_lpid")}
    numbers = [f"{level}.{name}={document[level][name]:#x}" for level, names in fields.items() for name in names]
    return f"arch={document['arch']}", *numbers


@pytest.fixture(scope="module")
def as_elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the memory of the shipped image as a core file: a segment for each run of frames."""
    numbers, data = frames_of(shipped_image())
    order = np.argsort(numbers)
    runs = np.split(order, np.flatnonzero(np.diff(np.array(numbers)[order]) != 1) + 1)
    segments = [(numbers[run[0]] * PAGE, data[run].tobytes()) for run in runs]
    return written(tmp_path_factory.mktemp("elf") / "dump.elf", elf_core(segments, order="little"))


class TestOpening:
    def test_kinds(self, tmp_path: Path, as_elf: Path) -> None:
        assert kind_of(shipped_image()) == "nest-image"
        assert kind_of(as_elf) == "elf"
        assert kind_of(written(tmp_path / "m", b"")) == "raw"
        assert kind_of(written(tmp_path / "m", b"{1234567")) == "raw"
        assert kind_of(written(tmp_path / "without an ending", b'{\n "format": 1}')) == "nest-image"

    def test_an_elf_file_with_a_document(self, as_elf: Path, tmp_path: Path, plugins: Plugins) -> None:
        document = description(tmp_path, shipped_image())
        image = open_image(as_elf, Description(document), plugins.elf_machines)
        known = read_nest_image(shipped_image())
        assert image.slots == known.slots
        assert image.columns == {}
        shadow, expected = (plugins.nest(one).tables().shadow for one in (image, known))
        assert shadow is not None
        assert expected is not None
        assert [leaf.entry for leaf in shadow.leaves()] == [leaf.entry for leaf in expected.leaves()]

    def test_registers_alone(self, as_elf: Path, plugins: Plugins) -> None:
        image = open_image(as_elf, Description(settings=registers(shipped_image())), plugins.elf_machines)
        assert len(plugins.nest(image).kernel_shadow()) == 1348
        assert image.slots == ()

    def test_settings_instead_of_what_a_document_says(self, as_elf: Path, tmp_path: Path, plugins: Plugins) -> None:
        document = description(tmp_path, shipped_image())
        image = open_image(as_elf, Description(document, ("l1.lpid=77",)), plugins.elf_machines)
        assert image.l1.number("lpid") == 77
        with pytest.raises(InputError, match="LPID 77"):
            plugins.nest(image)

    def test_another_architecture(self, tmp_path: Path, plugins: Plugins) -> None:
        for machine, order, field in (("EM_X86_64", "little", "e_machine"), ("EM_RISCV", "big", "EI_DATA")):
            path = written(tmp_path / "core", elf_core([(0, b"1")], machine, order))  # type: ignore[arg-type]
            with pytest.raises(InputError) as caught:
                open_memory(path, arch="riscv", machines=plugins.elf_machines)
            check_refusal(caught.value, field)
        assert open_memory(path, arch="", machines=plugins.elf_machines).frame_count() == 1
        assert open_memory(path, arch="one that no plugin knows", machines=plugins.elf_machines).frame_count() == 1

    REFUSED: ClassVar[dict[str, tuple[bytes, Description, str]]] = {
        "nothing that describes it": (b"1", Description(), "does not say"),
        "compressed": (b"KDUMP   1", Description(settings=("arch=x",)), "kdump"),
        "empty": (b"", Description(settings=("arch=x",)), "empty"),
        "no architecture": (b"1", Description(settings=("l1.lpid=1",)), "is missing"),
        "a field of nothing": (b"1", Description(settings=("ptcr=1",)), "names nothing"),
        "a level without a field": (b"1", Description(settings=("l1.=1",)), "names nothing"),
        "no value": (b"1", Description(settings=("l1.lpid",)), "names nothing"),
        "no number": (b"1", Description(settings=("l1.lpid=x",)), "'x' is no address"),
        "beyond 2^64": (b"12", Description(settings=("arch=x",), base=(1 << 64) - 1), "2^64"),
        "an ELF file with a base": (elf_core([(0, b"1")]), Description(settings=("arch=x",), base=1), "says where"),
    }

    @pytest.mark.parametrize("what", REFUSED)
    def test_refused(self, tmp_path: Path, what: str) -> None:
        data, described, says = self.REFUSED[what]
        with pytest.raises(InputError) as caught:
            open_image(written(tmp_path / "m", data), described)
        check_refusal(caught.value)
        assert says in caught.value.problem

    def test_an_image_says_all_itself(self) -> None:
        with pytest.raises(InputError, match="says all itself"):
            open_image(shipped_image(), Description(settings=("arch=x",)))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            open_image(tmp_path / "none", Description(settings=("arch=x",)))


def test_an_elf_file_without_pyelftools(as_elf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "elftools.elf.elffile", None)
    with pytest.raises(InputError, match=r"install nestmmu\[elf\]"):
        read_elf_core(as_elf)


def test_a_loaded_frame_is_read_fast_again(tmp_path: Path) -> None:
    memory: PhysicalMemory = raw_memory(written(tmp_path / "m", pattern(PAGE))).memory()
    assert memory.readable_frames() == {}
    memory.load(8, 8, "big")
    assert list(memory.readable_frames()) == [0]
