"""A translation explained, as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text
from rich.tree import Tree

from nestmmu.access import permission_text
from nestmmu.cli.output import console
from nestmmu.cli.walk import nested_steps
from nestmmu.nests import size_text

if TYPE_CHECKING:
    from nestmmu.nests import Explained
    from nestmmu.radix import Step


def show_walk(space: str, address: int, parts: list[Explained]) -> None:
    """Print a translation: a branch for each table, under it each entry read, and under that how it was found."""
    tree = Tree(Text(f"{space} {address:#x}"))
    for part in parts:
        branch = tree.add(Text(f"{part.table}: {part.address:#x}"))
        for step in nested_steps(part.steps):
            _add(branch, step)
        if part.result is None:
            branch.add(Text(f"no translation: {part.problem}"))
        else:
            leaf = part.result
            flags = permission_text(leaf.permissions) + (" R" if leaf.accessed else " -") + ("C" if leaf.dirty else "-")
            branch.add(Text(f"=> {leaf.output_address:#x}, in a page of {size_text(leaf.page_shift)}, {flags}"))
    reads = sum(len(part.steps) for part in parts)
    last = parts[-1].result
    tree.add(Text(f"{reads} reads; " + ("no translation" if last is None else f"L0 real {last.output_address:#x}")))
    console().print(tree)


def _add(branch: Tree, tree: tuple[Step, list[Any]]) -> None:
    step, below = tree
    text = f"{step.level}[{step.index:#x}] at {step.memory} {step.entry_address:#x}: {step.entry:#018x} {step.meaning}"
    node = branch.add(Text(text))
    for one in below:
        _add(node, one)
