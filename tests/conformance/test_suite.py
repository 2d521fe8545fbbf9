"""The suite itself: what it refuses, skips and expects; how pytest and the command run it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from typer.testing import CliRunner

from nestmmu.cli import app
from nestmmu.errors import InputError, NestmmuError, PluginError
from nestmmu.formats import AccessedDirty
from nestmmu.hookspecs import hookimpl
from nestmmu.plugins import Plugins
from nestmmu.testing import Architecture, Capabilities, Feature, LevelShape
from nestmmu.testing.checks import ConformanceError, equal, require
from nestmmu.testing.run import Verdict, run, select
from nestmmu.testing.suite import TOPICS
from toy_arch.conformance import NO_NEST, Toy, WideToy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytest_plugins = ["pytester"]


def declared(**changes: Any) -> type[Toy]:
    """Return the toy with another declaration."""
    return type("Changed", (Toy,), {"capabilities": attrs.evolve(Toy.capabilities, **changes)})


def verdicts(architecture: type[Architecture], *topics: str) -> dict[str, Verdict]:
    """Run topics and return how each test ended."""
    return {f"{one.topic}.{one.test}": one.verdict for one in run(architecture, select(topics))}


class TestDeclarations:
    def test_a_wrong_number_makes_tests_fail(self) -> None:
        found = verdicts(declared(output_bits=25), "geometry")
        assert found["geometry.test_every_bit_of_a_target_is_kept"] is Verdict.FAILED
        assert found["geometry.test_every_bit_of_an_address_chooses_an_entry"] is Verdict.PASSED

    def test_a_test_that_was_to_fail_and_passes_is_not_fine(self) -> None:
        name = "geometry.test_every_bit_of_a_target_is_kept"
        found = verdicts(declared(expected_failures={name: "it is said to"}), "geometry")
        assert found[name] is Verdict.UNEXPECTED
        assert not found[name].fine
        found = verdicts(declared(output_bits=25, expected_failures={name: "one bit is not there"}), "geometry")
        assert found[name] is Verdict.EXPECTED
        assert found[name].fine

    def test_a_failure_expected_of_no_test_is_refused(self) -> None:
        with pytest.raises(NestmmuError, match=r"names geometry\.test_nothing"):
            verdicts(declared(expected_failures={"geometry.test_nothing": "why"}), "walks")

    def test_skips_are_those_of_the_capabilities_and_say_why(self) -> None:
        results = list(run(Toy))
        skipped = {one.topic for one in results if one.verdict is Verdict.SKIPPED}
        wanted = {topic.name() for topic in TOPICS if {Feature.NEST, Feature.COMPOSITION} & set(topic.needs)}
        assert skipped == wanted
        assert {one.message for one in results if one.verdict is Verdict.SKIPPED} == {NO_NEST}
        assert {one.verdict for one in results} == {Verdict.SKIPPED, Verdict.PASSED}

    def test_a_test_that_finds_nothing_to_ask_is_skipped_and_says_why(self) -> None:
        """It passes nowhere without having looked at anything."""
        policies = (AccessedDirty.FAULT, AccessedDirty.IGNORE)
        found = {
            (one.test, one.verdict, one.message)
            for one in run(declared(policies=policies), select(["accessed_dirty"]))
            if one.verdict is not Verdict.PASSED
        }
        why = "the hardware sets neither accessed nor dirty"
        assert ("test_only_the_page_that_was_accessed", Verdict.SKIPPED, why) in found
        assert {verdict for _, verdict, _ in found} == {Verdict.SKIPPED}

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"trees": ((LevelShape("upper", 6, 2), LevelShape("lower", 3, 2)),)}, r"lower covers 2\*\*4 bytes"),
            ({"page_shifts": (6, 5, 4)}, r"not those of the levels: \[4, 6\]"),
            ({"trees": ()}, "declares no levels"),
            ({"unsupported": {}}, "declares no nest"),
            ({"unsupported": {Feature.NEST: "", Feature.COMPOSITION: "why"}}, "needs a reason"),
            ({"expected_failures": {"geometry.test_x": ""}}, "needs a reason"),
        ],
    )
    def test_a_declaration_that_cannot_be_is_refused(self, changes: dict[str, Any], problem: str) -> None:
        with pytest.raises(NestmmuError, match=problem):
            attrs.evolve(Toy.capabilities, **changes)

    def test_topics_have_names_tests_and_words(self) -> None:
        names = Counter(f"{topic.name()}.{test}" for topic in TOPICS for test in topic.methods())
        assert set(names.values()) == {1}
        assert all(topic.methods() and topic.__doc__ for topic in TOPICS)
        assert {topic.name() for topic in select([])} == {topic.name() for topic in TOPICS}
        with pytest.raises(NestmmuError, match="no topic 'sums'; the topics are geometry, permissions"):
            select(["sums"])

    def test_a_seed_gives_other_tables_and_the_same_again(self) -> None:
        topic = select(["walks"])[0]
        draws = [topic.of(WideToy, seed)().random("walks 0").random() for seed in (0, 1, 0)]
        assert draws[0] == draws[2] != draws[1]

    def test_a_check_says_what_it_found(self) -> None:
        with pytest.raises(ConformanceError, match=r"a page: found \(0x10, True\), expected 0x20"):
            equal((16, True), 32, "a page")
        with pytest.raises(ConformanceError, match="it holds"):
            require(holds=False, what="it holds")


class Brings:
    """A plugin that declares the toy."""

    @hookimpl
    def nestmmu_conformance(self) -> Mapping[str, Callable[[], type[Architecture]]]:
        return {"toy": lambda: Toy}


class TestHook:
    def test_an_architecture_is_found_by_name(self) -> None:
        plugins = Plugins(discover=False)
        plugins.register(Brings(), "first")
        assert plugins.architecture("toy") is Toy
        with pytest.raises(InputError, match="'wide'; name one of: toy"):
            plugins.architecture("wide")

    def test_what_is_not_asked_for_is_not_loaded(self) -> None:
        assert {"ppc64_radix", "ppc64_radix_linux"} <= Plugins().conformance().keys()
        code = "import sys, nestmmu.plugins as p; p.Plugins().conformance(); print('numpy' in sys.modules)"
        assert run_python(code) == "False\n"

    def test_one_name_of_two_plugins_is_refused(self) -> None:
        plugins = Plugins(discover=False)
        plugins.register(Brings(), "first")
        plugins.register(Brings(), "second")
        with pytest.raises(PluginError, match=r"(first and second|second and first) both bring the architecture toy"):
            plugins.conformance()


def run_python(code: str) -> str:
    """Run a few statements in a process of their own and return what they print."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)  # noqa: S603  (our own)
    return done.stdout


class TestCommand:
    def test_json_has_each_topic_and_each_test(self) -> None:
        result = CliRunner().invoke(app, ["conformance", "ppc64_radix", "--topic", "geometry", "--json"])
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        assert (document["architecture"], document["seed"]) == ("ppc64_radix", 0)
        (row,) = document["topics"]
        assert row == {
            "topic": "geometry", "tests": 5, "passed": 5, "failed": 0, "skipped": 0, "expected": 0, "unexpected": 0,
        }  # fmt: skip
        assert {one["verdict"] for one in document["tests"]} == {"passed"}

    def test_people_see_what_was_expected_to_fail_and_why(self) -> None:
        result = CliRunner().invoke(app, ["conformance", "ppc64_radix_linux", "--topic", "composition"])
        assert result.exit_code == 0, result.output
        assert "BASE_PAGES_UNDER_GIGANTIC" in result.stdout

    def test_a_failure_is_a_line_and_status_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Plugins, "architecture", lambda _self, _name: declared(output_bits=25))
        result = CliRunner().invoke(app, ["conformance", "toy", "--topic", "geometry"])
        assert result.exit_code == 1
        assert "geometry.test_every_bit_of_a_target_is_kept: failed: form 0, page of 2**6 bytes" in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [(["nothing"], "no plugin brings"), (["ppc64_radix", "--topic", "sums"], "there is no topic 'sums'")],
    )
    def test_bad_input_is_one_line_and_status_2(self, arguments: list[str], problem: str) -> None:
        result = CliRunner().invoke(app, ["conformance", *arguments])
        assert result.exit_code == 2
        assert problem in result.stderr
        assert result.stderr.count("\n") == 1


SUITE = """
import attrs
from nestmmu.testing import Conformance
from toy_arch.conformance import Toy

class Said(Toy):
    capabilities = attrs.evolve(
        Toy.capabilities, expected_failures={"geometry.test_the_first_and_the_last_page_of_all": "it is said to"}
    )

class TestSaid(Conformance):
    architecture = Said
"""


class TestPytest:
    def test_an_architecture_by_name(self, pytester: pytest.Pytester) -> None:
        result = pytester.runpytest_inprocess("--nestmmu-arch", "ppc64_radix", "-k", "TestGeometry")
        result.assert_outcomes(passed=5)

    def test_a_name_that_no_plugin_brings(self, pytester: pytest.Pytester) -> None:
        result = pytester.runpytest_inprocess("--nestmmu-arch", "nothing")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*no plugin brings a conformance declaration of 'nothing'*"])

    def test_the_subclass_skips_and_expected_failures_that_pass(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(SUITE)
        result = pytester.runpytest_inprocess("-k", "TestGeometry or TestLifetime", "-rs")
        result.assert_outcomes(passed=4, failed=1, skipped=4)
        result.stdout.fnmatch_lines(["*XPASS(strict)*it is said to*", f"*{NO_NEST}*"])

    def test_a_test_that_finds_nothing_to_ask(self, pytester: pytest.Pytester) -> None:
        result = pytester.runpytest_inprocess(
            "--nestmmu-arch", "ppc64_radix", "-k", "test_a_page_larger_than_the_hosts", "-rs"
        )
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["*a page that is larger than the host's is shadowed in part*"])

    def test_an_expected_failure_of_no_test(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(SUITE.replace("test_the_first_and_the_last_page_of_all", "test_nothing"))
        result = pytester.runpytest_inprocess("-k", "TestGeometry")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*expected_failures names geometry.test_nothing*"])

    def test_the_plugin_imports_nothing_of_weight(self) -> None:
        names = "numpy", "attr", "hypothesis"
        code = f"import sys, nestmmu.testing.plugin; print([m for m in {names} if m in sys.modules])"
        assert run_python(code) == "[]\n"


def test_the_package_gives_its_names_when_they_are_asked_for() -> None:
    import nestmmu.testing  # noqa: PLC0415  (the package, not a name of it)

    assert nestmmu.testing.Capabilities is Capabilities
    for name in nestmmu.testing.__all__:
        assert getattr(nestmmu.testing, name).__name__ if name != "Meaning" else True
    with pytest.raises(AttributeError, match="has no Nonsense"):
        _ = nestmmu.testing.Nonsense
