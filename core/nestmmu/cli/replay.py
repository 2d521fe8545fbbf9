"""``nestmmu replay``: recorded translations, made again."""

from __future__ import annotations

import json as json_module
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from nestmmu.cli.errors import EXIT_DIFFERENT, DebugOption, JsonOption, guarded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nestmmu.plugins import Plugins
    from nestmmu.vectors import RecordedAccess

_SHOWN = 5
"""How many differences a person is shown, a file."""


@attrs.define
class Difference:
    """One access that came out otherwise."""

    scene: int
    access: int
    recorded: RecordedAccess
    expected: dict[str, Any]
    computed: dict[str, Any]


@attrs.define
class FileResult:
    """What came of one file."""

    path: Path
    arch: str
    machine: str
    total: Counter[str] = attrs.field(factory=Counter)
    """Accesses by recorded outcome."""
    equal: Counter[str] = attrs.field(factory=Counter)
    differences: list[Difference] = attrs.field(factory=list)
    lines: list[dict[str, Any]] = attrs.field(factory=list)
    """What was computed, access by access."""


def replay_file(path: Path, plugins: Plugins) -> FileResult:
    """Make the accesses of one file again.

    :raises InputError: if the file cannot be read.
    """
    from nestmmu.vectors import read_vectors  # noqa: PLC0415  (lazy: see the package)

    vectors = read_vectors(path)
    replayer = plugins.replayer(vectors)
    result = FileResult(path, vectors.arch, vectors.machine)
    for number, scene in enumerate(vectors.scenes):
        for index, recorded in enumerate(scene.accesses):
            computed, changed = replayer.perform(scene, recorded)
            expected, got = replayer.comparable(dict(recorded.fields), computed)
            left: dict[str, Any] = {**expected, "changed": sorted(recorded.changed)}
            right: dict[str, Any] = {**got, "changed": sorted(changed)}
            outcome = replayer.outcome(dict(recorded.fields))
            result.total[outcome] += 1
            if left == right:
                result.equal[outcome] += 1
            else:
                result.differences.append(Difference(number, index, recorded, left, right))
            result.lines.append({"scene": number, "access": index, **computed, "changed": changed})
    return result


def differing_fields(difference: Difference) -> Iterator[tuple[str, Any, Any]]:
    """Yield (field, expected, computed) of each field that differs."""
    for name in sorted(difference.expected.keys() | difference.computed.keys()):
        left, right = difference.expected.get(name), difference.computed.get(name)
        if left != right:
            yield name, left, right


def as_json(results: list[FileResult]) -> dict[str, Any]:
    """Return results as ``--json`` prints them; at most the first differences of each file."""
    return {
        "files": [
            {
                "file": str(one.path),
                "arch": one.arch,
                "machine": one.machine,
                "accesses": {
                    "total": one.total.total(),
                    "equal": one.equal.total(),
                    "different": len(one.differences),
                },
                "outcomes": {
                    name: {"total": count, "equal": one.equal[name]} for name, count in sorted(one.total.items())
                },
                "differences": [
                    {"scene": diff.scene, "access": diff.access, "expected": diff.expected, "computed": diff.computed}
                    for diff in one.differences[:_SHOWN]
                ],
            }
            for one in results
        ]
    }


def write_lines(results: list[FileResult], path: Path) -> None:
    """Write one JSON object an access, in order; where there are several files, each names its own."""
    from nestmmu.cli.output import output_file  # noqa: PLC0415  (lazy: see the package)

    with output_file(path) as stream:
        for one in results:
            which = {"file": str(one.path)} if len(results) > 1 else {}
            for line in one.lines:
                stream.write(json_module.dumps(which | line).encode() + b"\n")


@guarded
def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.json.gz...", help="Recorded translations.")],
    output: Annotated[Path | None, typer.Option("--output", help="Write what was computed here (.jsonl).")] = None,
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Make recorded translations again, each access on a fresh CPU, and compare.

    Compared are the address that was reached, or the interrupt with its registers, and every table word that changed.

    Example: nestmmu replay ppc64_radix.json.gz --output computed.jsonl
    """
    from nestmmu.cli.output import followed, print_json  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.plugins import Plugins  # noqa: PLC0415

    plugins = Plugins()
    results = [replay_file(path, plugins) for path in followed(files, len(files), "files")]
    if output is not None:
        write_lines(results, output)
    if json:
        print_json(as_json(results))
    else:
        from nestmmu.report.replays import show_replay  # noqa: PLC0415  (lazy: see the package)

        for one in results:
            show_replay(one, _SHOWN)
    if any(one.differences for one in results):
        raise typer.Exit(EXIT_DIFFERENT)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        short_help="Make recorded translations again and compare.",
        epilog="Exit status 1 where an access came out otherwise.",
    )(replay)
