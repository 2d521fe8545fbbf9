"""``nestmmu run``: the levels of an image, run again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from nestmmu.cli.errors import EXIT_DIFFERENT, DebugOption, JsonOption, guarded
from nestmmu.cli.images import BaseOption, DescribeOption, SetOption, opened
from nestmmu.errors import InputError, NestmmuError

if TYPE_CHECKING:
    from nestmmu.images import NestImage
    from nestmmu.nests import Nest, Replayed, ShadowComparison

_SHOWN = 10
"""How many differences a person is shown."""


@attrs.define
class RunResult:
    """What came of a run."""

    image: NestImage
    nest: Nest
    total: int
    outcomes: Counter[str]
    different: list[Replayed]
    shadow: ShadowComparison
    explained: Counter[str]
    """Entries that differ for a reason that the image gives, by reason."""

    @property
    def fine(self) -> bool:
        """Whether nothing differs that the image does not explain."""
        return not self.different and not self.shadow.unexplained


def run_image(image: NestImage) -> RunResult:
    """Run an image.

    :raises InputError: if it holds what cannot be run.
    """
    from nestmmu.cli.output import followed  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.faults import Fault  # noqa: PLC0415
    from nestmmu.nests import compare_shadows  # noqa: PLC0415
    from nestmmu.plugins import Plugins  # noqa: PLC0415

    outcomes: Counter[str] = Counter()
    different = []
    try:
        nest = Plugins().nest(image)
        count = max((len(column) for column in image.columns.values()), default=0)
        for replayed in followed(nest.run(), count, "accesses"):
            outcomes[replayed.outcome] += 1
            if not replayed.equal:
                different.append(replayed)
        kernel, rebuilt = nest.kernel_shadow(), nest.rebuilt_shadow()
    except InputError:
        raise
    except (NestmmuError, Fault) as error:
        raise InputError(
            image.path, "", f"cannot be run: {error}", "take the image again, or look with --debug"
        ) from error
    dropped = [(one.l2_real, one.size, one.why) for one in image.dropped]
    shadow = compare_shadows(kernel, rebuilt, dropped)
    explained = Counter(one.why for one in shadow.only_rebuilt if one.why)
    return RunResult(image, nest, outcomes.total(), outcomes, different, shadow, explained)


def as_json(result: RunResult) -> dict[str, Any]:
    """Return a result as ``--json`` prints it."""
    shadow = result.shadow
    return {
        "image": str(result.image.path),
        "accesses": {
            "total": result.total,
            "equal": result.total - len(result.different),
            "different": len(result.different),
        },
        "faults": dict(sorted(result.nest.faults.items())),
        "shadow": {
            "kernel": shadow.kernel,
            "rebuilt": shadow.rebuilt,
            "equal": shadow.equal,
            "different": len(shadow.different),
            "only_kernel": len(shadow.only_kernel),
            "only_rebuilt": len(shadow.only_rebuilt),
        },
        "explained": [{"entries": count, "why": why} for why, count in sorted(result.explained.items())],
    }


def write_shadow(result: RunResult, path: Path) -> None:
    """Write the rebuilt shadow: uint64 ``l2_real``, ``l0_real``, ``entry`` and uint8 ``page_shift``, by ``l2_real``."""
    import numpy as np  # noqa: PLC0415  (lazy: see the package)

    from nestmmu.files import output_file  # noqa: PLC0415

    leaves = result.nest.rebuilt_shadow()
    with output_file(path, "--output") as stream:
        np.savez_compressed(
            stream,
            l2_real=np.array([leaf.page_start for leaf in leaves], np.uint64),
            l0_real=np.array([leaf.target_start for leaf in leaves], np.uint64),
            page_shift=np.array([leaf.page_shift for leaf in leaves], np.uint8),
            entry=np.array([leaf.entry or 0 for leaf in leaves], np.uint64),
        )


@guarded
def run(
    image: Annotated[
        Path | None, typer.Argument(help="A nest-image/1; without one, the image that is installed.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write the rebuilt shadow here (.npz).")] = None,
    describe: DescribeOption = None,
    settings: SetOption = None,
    base: BaseOption = "0",
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Run a recorded nest again from an empty shadow table, and compare.

    The innermost guest makes its recorded accesses; each fault is handled as its hypervisor would. Every outcome is
    compared with the recorded one, and the shadow table, entry by entry, with the one that the kernel left.

    Example: nestmmu run nest-4k-64k.json --output shadow.npz
    """
    if image is None:
        from nestmmu.images import shipped_image  # noqa: PLC0415  (lazy: see the package)

        image = shipped_image()
    result = run_image(opened(image, describe, settings, base))
    if output is not None:
        write_shadow(result, output)
    if json:
        from nestmmu.cli.output import print_json  # noqa: PLC0415  (lazy: see the package)

        print_json(as_json(result))
    else:
        from nestmmu.report.runs import show_run  # noqa: PLC0415  (lazy: see the package)

        show_run(result, _SHOWN)
    if not result.fine:
        raise typer.Exit(EXIT_DIFFERENT)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        short_help="Run a recorded nest again and compare.",
        epilog="Exit status 1 where anything differs that the image's `dropped` does not explain.",
    )(run)
