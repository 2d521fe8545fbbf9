"""``nestmmu walk``: one translation, explained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestmmu.cli.errors import DebugOption, JsonOption, address_argument, guarded
from nestmmu.cli.images import BaseOption, DescribeOption, SetOption, opened_nest
from nestmmu.cli.spaces import Space

if TYPE_CHECKING:
    from nestmmu.nests import Explained
    from nestmmu.radix import Step


def nested_steps(steps: list[Step]) -> list[tuple[Step, list[Any]]]:
    """Return steps as trees: under each, the steps by which its entry was found, made alike."""
    trees: list[tuple[Step, list[Any]]] = []
    for step in steps:
        below: list[tuple[Step, list[Any]]] = []
        while trees and trees[-1][0].rank < step.rank:
            below.insert(0, trees.pop())
        trees.append((step, below))
    return trees


def _step_json(tree: tuple[Step, list[Any]]) -> dict[str, Any]:
    step, below = tree
    return {
        "table": step.stage,
        "level": step.level,
        "index": step.index,
        "address": step.entry_address,
        "memory": step.memory,
        "entry": step.entry,
        "meaning": step.meaning,
        "read_by": [_step_json(one) for one in below],
    }


def as_json(space: str, address: int, parts: list[Explained]) -> dict[str, Any]:
    """Return an explanation as ``--json`` prints it; addresses and entries are integers."""
    tables = []
    for part in parts:
        table: dict[str, Any] = {
            "table": part.table,
            "address": part.address,
            "steps": [_step_json(tree) for tree in nested_steps(part.steps)],
        }
        if part.result is None:
            table["fault"] = part.problem
        else:
            table["result"] = {
                "address": part.result.output_address,
                "page_shift": part.result.page_shift,
                "permissions": part.result.permissions,
                "accessed": part.result.accessed,
                "dirty": part.result.dirty,
            }
        tables.append(table)
    last = parts[-1].result
    return {
        "space": space,
        "address": address,
        "tables": tables,
        "l0_real": None if last is None else last.output_address,
        "reads": sum(len(part.steps) for part in parts),
    }


@guarded
def walk(
    image: Annotated[Path, typer.Argument(help="A nest-image/1.")],
    address: Annotated[str, typer.Argument(help="A real address of that level, as 0x1000 or 4096.")],
    space: Annotated[Space, typer.Option("--space", help="Whose address: L1's, L2's, or L2's through the shadow.")],
    describe: DescribeOption = None,
    settings: SetOption = None,
    base: BaseOption = "0",
    *,
    json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001  (guarded looks at it)
) -> None:
    """Explain one translation, step by step, down to the machine's memory.

    For l2 it is the recursive truth: every entry of L1's table is itself found through L0's.

    Example: nestmmu walk nest-4k-64k.json --space l2 0x100000000
    """
    where = address_argument(address)
    parts = opened_nest(image, describe, settings, base).explain(space.value, where)
    if json:
        from nestmmu.cli.output import print_json  # noqa: PLC0415  (lazy: see the package)

        print_json(as_json(space.value, where, parts))
    else:
        from nestmmu.report.walks import show_walk  # noqa: PLC0415  (lazy: see the package)

        show_walk(space.value, where, parts)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        short_help="Explain one translation, step by step.",
        epilog="An address that does not translate is an answer too: exit status 0.",
    )(walk)
