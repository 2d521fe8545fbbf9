"""``nestmmu demo``: hypervisors upon hypervisors, at work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestmmu.cli.errors import EXIT_DIFFERENT, DebugOption, JsonOption, guarded

if TYPE_CHECKING:
    from nestmmu.demo import Broken, Demo

_SHOWN = 10
"""How many broken invariants a person is shown."""


def as_json(demo: Demo, broken: list[Broken]) -> dict[str, Any]:
    """Return what went on as ``--json`` prints it."""
    stack, tlb, walks = demo.stack, demo.caches.tlb, demo.walks.cache
    stack.quiet = True
    levels = [
        {
            "level": level.number,
            "page_bytes": 1 << level.backing.page_shift,
            "faults": level.faults,
            "reflected": level.reflected,
            "requests": level.requests,
            "nested": len(level.guest.nested),
            "shadow_entries": sum(len(list(one.shadow.table.leaves())) for one in level.guest.nested.values()),
            "table_pages": len(level.hypervisor.allocator.used),
        }
        for level in stack.levels
    ]
    stack.quiet = False
    return {
        "depth": stack.depth,
        "events": dict(sorted(demo.counts.items())),
        "levels": levels,
        "tlb": {"hits": tlb.hits, "misses": tlb.misses},
        "walk_cache": {"hits": walks.hits, "misses": walks.misses},
        "violations": [
            {
                "event": one.event,
                "what": one.what,
                "level": one.level,
                "invariant": one.violation.invariant.name.lower(),
                "detail": one.violation.what,
            }
            for one in broken
        ],
    }


def show(found: dict[str, Any]) -> None:
    """Print it for a person."""
    from nestmmu.cli.output import console  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.report.tables import show_table  # noqa: PLC0415

    columns = {
        "level": "hypervisor", "page_bytes": "page bytes", "faults": "exits handled", "reflected": "given to its guest",
        "requests": "guest's flushes", "nested": "nested guests", "shadow_entries": "shadow entries",
        "table_pages": "table pages",
    }  # fmt: skip
    rows = [tuple(f"L{level['level']}" if name == "level" else str(level[name]) for name in columns)
            for level in found["levels"]]  # fmt: skip
    show_table(f"A nest of depth {found['depth']}", tuple(columns.values()), rows)
    out = console()
    out.print(f"events: {', '.join(f'{count} {what}' for what, count in found['events'].items())}")
    for name, key in (("TLB", "tlb"), ("page-walk cache", "walk_cache")):
        out.print(f"{name}: {found[key]['hits']} hits, {found[key]['misses']} misses")
    for one in found["violations"][:_SHOWN]:
        where = f"L{one['level']} after event {one['event']} ({one['what']})"
        out.print(f"{one['invariant']} broken at {where}: {one['detail']}", markup=False)
    out.print(f"invariants broken: {len(found['violations'])}")


@guarded
def demo(
    depth: Annotated[int, typer.Option(min=1, max=6, help="How many hypervisors, one in the other.")] = 2,
    events: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many things happen.")] = 300,
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
    arch: Annotated[str | None, typer.Option(help="The architecture; else that of the first plugin that can.")] = None,
    *,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Hypervisors do as the modelled kernel does, mistakes included.")
    ] = False,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Run hypervisors upon hypervisors, with a random program in the innermost guest.

    Each is a whole hypervisor over its parent: it keeps its own tables in its own memory, and asks its parent by the
    architecture's hypercalls. Behind the program's back they take pages away, move them, ask which were used, log
    which were written. After every event, every level's tables are checked against the invariants, and every access
    against the truth.

    Example: nestmmu demo --depth 3 --seed 7
    """
    from nestmmu.cli.output import followed, print_json  # noqa: PLC0415  (lazy: see the package)
    from nestmmu.demo import Demo  # noqa: PLC0415
    from nestmmu.plugins import Plugins  # noqa: PLC0415

    plugins = Plugins()
    able = [name for name in plugins.names() if "nestmmu_machine" in plugins.hooks_of(name)]
    arch = arch or next(iter(able), "any architecture")
    made = Demo(plugins, arch, depth, seed, faithful=faithful)
    broken = [one for found in followed(made.run(events), events, "events") for one in found]
    result = {"arch": arch, "seed": seed, "faithful": faithful} | as_json(made, broken)
    if json:
        print_json(result)
    else:
        show(result)
    if broken:
        raise typer.Exit(EXIT_DIFFERENT)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        short_help="Run hypervisors upon hypervisors.", epilog="Exit status 1 where an invariant does not hold."
    )(demo)
