"""``nestmmu conformance``: whether an architecture does what it declares, and what every one has to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestmmu.cli.errors import EXIT_DIFFERENT, DebugOption, JsonOption, guarded
from nestmmu.errors import InputError, NestmmuError

if TYPE_CHECKING:
    from nestmmu.testing.run import Result


def as_json(name: str, seed: int, results: list[Result]) -> dict[str, Any]:
    """Return results as ``--json`` prints them."""
    return {
        "architecture": name,
        "seed": seed,
        "topics": [
            {"topic": topic, "tests": len(rows), **{verdict.name.lower(): count for verdict, count in counts.items()}}
            for topic, rows, counts in by_topic(results)
        ],
        "tests": [
            {"topic": one.topic, "test": one.test, "verdict": one.verdict.name.lower(), "message": one.message}
            for one in results
        ],
    }


def by_topic(results: list[Result]) -> list[tuple[str, list[Result], dict[Any, int]]]:
    """Return (topic, its results, how many of each verdict), in the order of running."""
    from nestmmu.testing.run import Verdict  # noqa: PLC0415  (lazy: see the package)

    rows: dict[str, list[Result]] = {}
    for one in results:
        rows.setdefault(one.topic, []).append(one)
    return [
        (topic, ones, {verdict: sum(one.verdict is verdict for one in ones) for verdict in Verdict})
        for topic, ones in rows.items()
    ]


def _show(name: str, results: list[Result]) -> None:
    from nestmmu.report.tables import show_table  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.testing.run import Verdict  # noqa: PLC0415

    rows = []
    for topic, ones, counts in by_topic(results):
        reasons = dict.fromkeys(one.message for one in ones if one.verdict in {Verdict.SKIPPED, Verdict.EXPECTED})
        numbers = (str(counts[verdict] or "") for verdict in Verdict)
        rows.append((topic.replace("_", " "), *numbers, "; ".join(reasons)))
    show_table(
        f"Conformance of {name}", ("topic", "passed", "failed", "skipped", "expected", "unexpected", "why"), rows
    )
    for one in results:
        if not one.verdict.fine:
            typer.echo(f"{one.topic}.{one.test}: {one.verdict.value}: {one.message}")


@guarded
def conformance(
    name: Annotated[str, typer.Argument(help="An architecture that a plugin declares.")],
    topic: Annotated[list[str] | None, typer.Option("--topic", help="Only this topic; may be given again.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn by lot.")] = 0,
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Run the conformance suite for an architecture, and sum up by topic.

    A test is skipped only where the architecture declares that it does not have what the test needs.

    Example: nestmmu conformance ppc64_radix --topic geometry --topic walks
    """
    from nestmmu.cli.output import followed  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.plugins import Plugins  # noqa: PLC0415
    from nestmmu.testing.run import run, select  # noqa: PLC0415

    architecture = Plugins().architecture(name)
    try:
        topics = select(topic or [])
        count = sum(len(one.methods()) for one in topics)
        results = list(followed(run(architecture, topics, seed=seed), count, "tests"))
    except InputError:
        raise
    except NestmmuError as error:
        raise InputError(name, "", str(error), "correct the name, or the declaration") from error
    if json:
        from nestmmu.cli.output import print_json  # noqa: PLC0415  (lazy: see the package)

        print_json(as_json(name, seed, results))
    else:
        _show(name, results)
    if not all(one.verdict.fine for one in results):
        raise typer.Exit(EXIT_DIFFERENT)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        short_help="Run the conformance suite for an architecture.",
        epilog="Exit status 1 where a test fails, or passes that the declaration expects to fail.",
    )(conformance)
