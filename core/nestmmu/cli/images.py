"""Images that commands are given, of whatever kind, and the options that describe memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nestmmu.images import NestImage
    from nestmmu.memory import PhysicalMemory
    from nestmmu.nests import Nest
    from nestmmu.plugins import Plugins

DescribeOption = Annotated[
    Path | None,
    typer.Option("--describe", metavar="FILE.json", help="Of raw or ELF memory: the architecture and its registers."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="The same, one by one, as l1.page_shift=16; may be given again."),
]
BaseOption = Annotated[
    str, typer.Option("--base", metavar="ADDRESS", help="Of raw memory: the address of its first byte.")
]


def opened(
    path: Path, describe: Path | None, settings: list[str] | None, base: str, plugins: Plugins | None = None
) -> NestImage:
    """Open an image by the options of a command.

    :raises InputError: as :func:`~nestmmu.images.open_image` does, and for a base that is no address.
    """
    from nestmmu.images import Description, open_image  # noqa: PLC0415
    from nestmmu.images.documents import number  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.plugins import Plugins  # noqa: PLC0415

    description = Description(describe, tuple(settings or ()), number(base, "--base", ""))
    return open_image(path, description, (plugins or Plugins()).elf_machines)


def opened_nest(path: Path, describe: Path | None, settings: list[str] | None, base: str) -> Nest:
    """Open an image, and return the levels in it.

    :raises InputError: as :func:`opened` does.
    """
    from nestmmu.plugins import Plugins  # noqa: PLC0415  (lazy: see the package)

    plugins = Plugins()
    return plugins.nest(opened(path, describe, settings, base, plugins))


def opened_memory(path: Path, base: str, arch: str) -> PhysicalMemory:
    """Open the memory alone of an image.

    :raises InputError: as :func:`~nestmmu.images.open_memory` does, and for a base that is no address.
    """
    from nestmmu.images import open_memory  # noqa: PLC0415
    from nestmmu.images.documents import number  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.plugins import Plugins  # noqa: PLC0415

    return open_memory(path, number(base, "--base", ""), arch, Plugins().elf_machines)
