"""Every scenario of the reference has a test that names it, in its own name or in the id of a parameter.

And every regression has a test that fails where its fix is taken out, or a reason why not.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
LAST = {
    "TA": 20, "TB": 23, "TC": 24, "TD": 9, "TE": 13, "TF": 14, "TG": 14, "TH": 20, "TI": 13, "TJ": 22, "TK": 12,
    "TN": 16,
}  # fmt: skip
"""The scenarios of each part of section 6, from 1 on, but for those of hash guests."""
SCENARIOS = {f"{part}{number}" for part, last in LAST.items() for number in range(1, last + 1)}
ELSEWHERE = {
    "B11": ("test_migration.py", "a vcpu that moves, with and without need_tlb_flush"),
    "B30": ("test_entry.py", "the states of transactional memory, which no table depends on"),
    "B34": ("test_entry.py", "facilities that are not available, likewise"),
    "B36": ("test_entry.py", "a trap that no one knows is L1's"),
}
"""Tested in another file, and what."""
NOT_HERE = {
    "B12": "the model has one TLB where a POWER9 has an ERAT before it",
    "B21": "a slot that was read stays what it was: that it is out of date is B19",
    "B29": "what a hypercall of L2 returns is L1's",
    "B32": "an L1 has no hash tables to allocate",
    "B35": "performance counters",
    "B42": "nested hash guests: another plugin's",
    "B43": "nothing but shadow entries is in the model's reverse map",
}
"""No state of the memory management, or none that the model has."""
ID = re.compile(r"(?:(?<![A-Za-z0-9])|(?<=[a-z])(?=T))(T[A-OQ-Z]\d+)(?!\d)", re.IGNORECASE)


def labels(source: str) -> list[str]:
    """Return the names of tests and of their classes, and the ids of their parameters."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test"):
            found.append(node.name.replace("_", " "))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given = [keyword.value for keyword in node.keywords if keyword.arg in {"id", "ids"}]
            if node.func.attr in {"param", "parametrize"}:
                constants = (one for value in given for one in ast.walk(value) if isinstance(one, ast.Constant))
                found += [one.value for one in constants if isinstance(one.value, str)]
    return found


def named(folder: Path) -> Counter[str]:
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("test_*.py"))]
    return Counter(one.upper() for text in texts for label in labels(text) for one in ID.findall(label))


def test_every_scenario_is_named_by_a_test() -> None:
    assert len(SCENARIOS) == 200
    assert sorted(SCENARIOS - named(HERE).keys()) == []


def test_no_test_names_a_scenario_that_there_is_not() -> None:
    assert sorted(named(HERE).keys() - SCENARIOS) == []


def test_every_regression_has_its_mistake_made_again_or_a_reason_why_not() -> None:
    texts = {path.name: path.read_text("utf-8") for path in HERE.glob("test_*.py") if path != Path(__file__)}
    made = {
        one for text in texts.values() for one in re.findall(r'^    "(B\d+)[-a-z]*": Regression\(', text, re.MULTILINE)
    }
    assert sorted(made | ELSEWHERE.keys() | NOT_HERE.keys(), key=lambda one: int(one[1:])) == [
        f"B{number}" for number in range(1, 48)
    ]
    assert len(made) + len(ELSEWHERE) + len(NOT_HERE) == 47
    for one, (name, _) in ELSEWHERE.items():
        assert re.search(rf"(?<![A-Za-z0-9]){one}(?!\d)", texts[name].replace("_", " "), re.IGNORECASE), one


def test_a_name_is_one_only_where_it_names_a_test(tmp_path: Path) -> None:
    source = '''
"""TA1"""
x = "TA2"
def helper_ta3(): ...
def test_it_ta4_tb5(): "TA6"
class TestThingTC7: ...
@pytest.mark.parametrize("a", [pytest.param(1, id="TD8-K-B7"), "TA9"], ids=["TE9"])
def test_that(a): ...
'''
    (tmp_path / "test_one.py").write_text(source, "utf-8")
    (tmp_path / "other.py").write_text("def test_it_tf1(): ...", "utf-8")
    assert sorted(named(tmp_path)) == ["TA4", "TB5", "TC7", "TD8", "TE9"]
