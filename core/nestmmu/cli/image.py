"""``nestmmu image``: what an image is, and an image made of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nestmmu.cli.errors import DebugOption, JsonOption, guarded
from nestmmu.cli.images import BaseOption, DescribeOption, SetOption, opened
from nestmmu.errors import InputError, NestmmuError


@guarded
def pack(
    memory: Annotated[Path, typer.Argument(help="Raw memory, an ELF core file, or an image.")],
    output: Annotated[Path, typer.Option("--output", help="The image (.json); two files are written beside it.")],
    describe: DescribeOption = None,
    settings: SetOption = None,
    base: BaseOption = "0",
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Make an image of memory that keeps only the pages that its tables reach.

    Example: nestmmu image pack dump.elf --describe registers.json --output nest.json
    """
    from nestmmu.cli.output import print_json, progress_bar  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.faults import Fault  # noqa: PLC0415
    from nestmmu.images.packing import pack as pack_image  # noqa: PLC0415
    from nestmmu.plugins import Plugins  # noqa: PLC0415

    plugins = Plugins()
    image = opened(memory, describe, settings, base, plugins)
    try:
        numbers = plugins.nest(image).table_frames()
    except InputError:
        raise
    except (NestmmuError, Fault) as error:
        problem = f"its tables cannot be followed: {error}"
        raise InputError(memory, "", problem, "take the memory again, or correct its registers") from error
    with progress_bar("frames") as progress:
        packed = pack_image(image, numbers, output, progress)
    if json:
        print_json({"image": str(output), "frames": packed.frames, "zero": packed.zero})
    else:
        typer.echo(f"{output}: {packed.frames:,} frames; {packed.zero:,} more are reached and hold zeros")


@guarded
def info(
    memory: Annotated[Path, typer.Argument(help="An image, an ELF core file, or raw memory.")],
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Say what an image is, and how much memory it holds.

    Example: nestmmu image info dump.elf
    """
    from nestmmu.cli.output import print_json  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.images import kind_of, open_memory, read_nest_image  # noqa: PLC0415
    from nestmmu.images.elf_core import read_elf_core  # noqa: PLC0415

    kind = kind_of(memory)
    found: dict[str, Any] = {"file": str(memory), "kind": kind}
    if kind == "nest-image":
        image = read_nest_image(memory)
        accesses = max((len(column) for column in image.columns.values()), default=0)
        found |= {"arch": image.arch, "origin": image.origin, "accesses": accesses}
        frames = image.memory().frame_count()
    elif kind == "elf":
        core = read_elf_core(memory)
        segments = [{"address": one.address, "size": one.size} for one in core.memory.segments]
        found |= {"machine": core.machine, "byteorder": core.byteorder, "segments": segments}
        frames = core.memory.memory().frame_count()
    else:
        frames = open_memory(memory).frame_count()
    found["frames"] = frames
    if json:
        print_json(found)
        return
    for name, value in found.items():
        shown = f"{len(value):,}" if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else value
        typer.echo(f"{name}: {shown}")


def add_to(app: typer.Typer) -> None:
    """Add the command and what it consists of."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command(
        short_help="Make an image of memory.",
        epilog="--describe and --set give what memory does not say: arch, and each level's registers by name.",
    )(pack)
    group.command(short_help="Say what an image is.")(info)
    app.add_typer(group, name="image", help="Look at images, and make them of raw memory or ELF core files.")
