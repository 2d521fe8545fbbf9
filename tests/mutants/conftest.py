"""At the end of a run, which topic caught each fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = []
    for report in terminalreporter.getreports("passed"):
        properties = dict(getattr(report, "user_properties", ()))
        if "caught by" in properties and report.when == "call":
            rows.append((str(properties["caught by"]), str(properties["fault"])))
    if rows:
        terminalreporter.section("faults planted, and the topic that caught each")
        for topic, fault in sorted(rows):
            terminalreporter.write_line(f"{topic:16} {fault}")
