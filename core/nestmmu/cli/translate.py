"""``nestmmu translate``: many addresses at once."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestmmu.cli.errors import DebugOption, JsonOption, guarded
from nestmmu.cli.images import BaseOption, DescribeOption, SetOption, opened_memory, opened_nest
from nestmmu.cli.spaces import Space, table_of
from nestmmu.errors import InputError, NestmmuError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestmmu.access import Access
    from nestmmu.translations import Translations

_SHOWN = 40
"""How many translations a person is shown."""


class Kind(enum.StrEnum):
    """What is done at each address."""

    LOAD = "load"
    STORE = "store"
    FETCH = "fetch"
    LOOKUP = "lookup"

    def access(self) -> Access | None:
        """Return the access; None for looking up alone."""
        from nestmmu.access import Access  # noqa: PLC0415  (lazy: see the package)

        return next((one for one in Access if one.label == self.value), None)


def given(addresses: list[str], source: Path | None) -> NDArray[Any]:
    """Return the addresses of a command line: from its arguments, or from a file, or from standard input for ``-``.

    :raises InputError: if there are none, or both, or any is no address.
    """
    from nestmmu.address_files import read_addresses, read_lines  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.images.documents import number  # noqa: PLC0415

    if bool(addresses) == (source is not None):
        raise InputError("ADDRESS", "", "give addresses, or --input FILE", "write - as FILE for standard input")
    if source is None:
        import numpy as np  # noqa: PLC0415  (lazy: see the package)

        return np.array([number(text, "ADDRESS", "") for text in addresses], np.uint64)
    return read_lines(sys.stdin, "standard input") if str(source) == "-" else read_addresses(source)


def registers_of(given_registers: list[str]) -> dict[str, int]:
    """Return registers that are given as NAME=VALUE, by lower-case name.

    :raises InputError: if one is not written so, or named twice.
    """
    from nestmmu.images.documents import number  # noqa: PLC0415  (lazy: see the package)

    registers: dict[str, int] = {}
    for text in given_registers:
        name, sign, value = text.partition("=")
        name = name.strip().lower()
        if not sign or not name.isidentifier():
            raise InputError("--register", "", f"{text[:40]!r} is no NAME=VALUE", "write each as NAME=0x1000")
        if name in registers:
            raise InputError("--register", name, "is given twice", "give each once")
        registers[name] = number(value, "--register", name)
    return registers


def cpu_of(path: Path, base: str, arch: str, given_registers: list[str]) -> Any:  # noqa: ANN401  (the architecture's own CPU)
    """Return a CPU on the memory of an image.

    :raises InputError: if the image cannot be read, or the CPU has no such register.
    """
    from nestmmu.formats import AccessedDirty  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.plugins import Plugins  # noqa: PLC0415

    registers = registers_of(given_registers)
    memory = opened_memory(path, base, arch)
    try:
        return Plugins().cpu(arch, registers, memory, AccessedDirty.UPDATE)
    except ValueError as error:
        raise InputError("--register", "", str(error), f"name registers of {arch}") from None


def translations(target: Any, path: Path, addresses: NDArray[Any], kind: Kind) -> Translations:  # noqa: ANN401  (a table, a memory, a CPU)
    """Translate addresses.

    :raises InputError: if they cannot be translated so.
    """
    from nestmmu.batch import translate_many  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.cli.output import progress_bar  # noqa: PLC0415

    try:
        with progress_bar("addresses") as progress:
            return translate_many(target, addresses, kind.access(), progress=progress)
    except InputError:
        raise
    except NestmmuError as error:
        raise InputError(path, "", f"cannot be translated by: {error}", "give another image, or access") from error


def rows(addresses: NDArray[Any], found: Translations) -> list[dict[str, Any]]:
    """Return translations as ``--json`` prints them; where ``output`` is null, ``fault`` says why."""
    from nestmmu.translations import fault_summary  # noqa: PLC0415  (lazy: see the package)

    texts = {code: str(fault_summary(code, found.stages)) for code in set(found.faults.tolist()) if code}
    columns = (addresses, found.outputs, found.shifts, found.permissions, found.faults)
    return [
        {
            "address": address,
            "output": None if code else output,
            "page_shift": None if code else shift,
            "permissions": permissions,
            "fault": texts.get(code),
        }
        for address, output, shift, permissions, code in zip(*(column.tolist() for column in columns), strict=True)
    ]


def write(path: Path, addresses: NDArray[Any], found: Translations) -> None:
    """Write translations: as CSV, or as columns (npz, Parquet) with fault codes and the names of their stages.

    :raises InputError: if it cannot be written.
    """
    if path.suffix == ".csv":
        import csv  # noqa: PLC0415  (seldom needed)
        import io  # noqa: PLC0415

        from nestmmu.files import output_file  # noqa: PLC0415  (lazy: see the package)

        with output_file(path, "--output") as stream, io.TextIOWrapper(stream, encoding="utf-8", newline="") as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(("address", "output", "page_shift", "permissions", "fault"))
            writer.writerows(row.values() for row in rows(addresses, found))
        return
    from nestmmu.extent_files import save_columns  # noqa: PLC0415  (lazy: see the package)

    columns: dict[str, NDArray[Any]] = {
        "address": addresses,
        "output": found.outputs,
        "page_shift": found.shifts,
        "permissions": found.permissions,
        "fault": found.faults,
    }
    save_columns(path, "translations/1 " + "|".join(found.stages), columns)


@guarded
def translate(
    image: Annotated[Path, typer.Argument(help="An image of a nest.")],
    addresses: Annotated[list[str] | None, typer.Argument(metavar="[ADDRESS]...", help="As 0x1000 or 4096.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--input", help="Addresses from here: .npy, .csv, else one a line; - is standard input."),
    ] = None,
    space: Annotated[
        Space, typer.Option("--space", help="Whose addresses: L1's, L2's through both tables, or L2's by the shadow.")
    ] = Space.L2,
    arch: Annotated[
        str | None, typer.Option("--arch", help="Translate as a CPU of this architecture does, not by --space.")
    ] = None,
    register: Annotated[
        list[str] | None, typer.Option("--register", metavar="NAME=VALUE", help="Of the CPU; may be given again.")
    ] = None,
    kind: Annotated[Kind, typer.Option("--access", help="What is tried at each.")] = Kind.LOAD,
    output: Annotated[Path | None, typer.Option("--output", help="Write them here (.npz, .parquet, .csv).")] = None,
    describe: DescribeOption = None,
    settings: SetOption = None,
    base: BaseOption = "0",
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Translate addresses of a level of an image down to the machine's memory, millions of them at once.

    With --arch they are what a CPU with the given registers makes accesses to, on the image's memory: through the
    tables that its registers lead to, as its mode has it.

    Example: nestmmu translate nest-64k-64k.json --space l2 --access store 0x100000000 0x600000
    """
    wanted = given(addresses or [], source)
    if arch is None:
        if register:
            raise InputError("--register", "", "is given without a CPU", "name its architecture by --arch")
        target: Any = table_of(image, opened_nest(image, describe, settings, base).tables(), space)
    else:
        target = cpu_of(image, base, arch, register or [])
    found = translations(target, image, wanted, kind)
    if output is not None:
        write(output, wanted, found)
    if json:
        from nestmmu.cli.output import print_json  # noqa: PLC0415  (lazy: see the package)

        print_json(
            {
                "image": str(image),
                "space": space.value if arch is None else None,
                "arch": arch,
                "access": kind.value,
                "complete": int(found.complete.sum()),
                "translations": rows(wanted, found),
            }
        )
    else:
        from nestmmu.report.translations import show_translations  # noqa: PLC0415  (lazy: see the package)

        show_translations(wanted, found, _SHOWN)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        short_help="Translate many addresses at once.",
        epilog="An address that does not translate is an answer too: exit status 0.",
    )(translate)
