"""What loads when: the graph against a naive model, ranges, and the words of every refusal."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko import ConflictError, DependencyError, Kernel
from veko_plugins.dependencies import Dependencies, Plan, Requirement, engine_faults, plan


class Node(msgspec.Struct, frozen=True):
    name: str
    version: str = "1.0"
    dependencies: tuple[str, ...] = ()
    priority: float = 10


def node(name: str, *needs: str, version: str = "1.0", priority: float = 10) -> Node:
    return Node(name, version, needs, priority)


def in_waves(made: Plan, fail: frozenset[str] = frozenset()) -> list[list[str]]:
    """Load wave after wave; each is what could start while nothing else ran."""
    waves: list[list[str]] = []
    while wave := made.ready():
        waves.append(wave)
        for name in wave:
            if name in fail:
                made.failed(name, "failed: boom")
            else:
                made.done(name)
    assert made.finished
    return waves


def test_a15_what_is_needed_comes_first_whatever_its_priority() -> None:
    made = plan(
        [node("shop", "db", "auth", priority=99), node("auth", "db"), node("db", priority=1)]
    )
    assert made.order == ("db", "auth", "shop")
    assert in_waves(made) == [["db"], ["auth"], ["shop"]]


def test_m11_higher_priority_first_equals_side_by_side_and_by_name() -> None:
    nodes = [node("low", priority=1), node("b"), node("a"), node("high", priority=50)]
    for _ in range(5):
        random.shuffle(nodes)
        made = plan(nodes)
        assert made.order == ("high", "a", "b", "low")
        assert in_waves(made) == [["high"], ["a", "b"], ["low"]]


def test_a15_a_plugin_starts_as_soon_as_what_it_needs_is_there() -> None:
    made = plan([node("slow"), node("quick"), node("next", "quick"), node("last", priority=1)])
    assert made.ready() == ["quick", "slow"]
    assert made.ready() == []
    made.done("quick")
    assert made.ready() == ["next"], "slow still runs, next need not wait for it"
    made.done("next")
    assert made.ready() == [], "last is of lower priority than slow, which still runs"
    assert not made.finished
    made.done("slow")
    assert made.ready() == ["last"]
    made.done("last")
    assert made.finished


def test_a15_a_circle_is_shown_and_only_it_and_its_dependents_suffer() -> None:
    made = plan([node("c", "b"), node("a", "b"), node("b", "a"), node("free"), node("d", "c")])
    assert set(made.faults) == {"a", "b"}
    for name, fault in made.faults.items():
        assert "a -> b -> a" in str(fault)
        assert fault.plugin == name
    assert str(made.skipped["c"]) == "needs 'b', which is in a circle: a -> b -> a"
    assert made.skipped["d"].chain == ("c", "b")
    assert in_waves(made) == [["free"]]


def test_a15_the_circle_reads_from_who_needs_to_who_is_needed() -> None:
    made = plan([node("x", "z"), node("z", "y"), node("y", "x")])
    assert "x -> z -> y -> x" in str(made.faults["y"])
    assert "self -> self" in str(plan([node("self", "self")]).faults["self"])


def test_m3_what_is_missing_who_needs_it_and_what_is_near() -> None:
    made = plan([node("shop", "databse"), node("page", "shop")], known=["database"])
    text = str(made.faults["shop"])
    assert "'shop'" in text
    assert "'databse' is missing" in text
    assert "Did you mean 'database'?" in text
    assert str(made.skipped["page"]).startswith("needs 'shop', which cannot load: 'databse' is")
    assert "'db' is not loaded" in str(plan([node("x", "db")], known=["db"]).faults["x"])


def test_m3_a_wrong_version_names_both() -> None:
    made = plan([node("shop", "db>=2,<3")], active={"db": "1.4"})
    assert "db>=2,<3 is wanted, 'db' is 1.4" in str(made.faults["shop"])
    assert not plan([node("shop", "db>=2,<3")], active={"db": "2.1"}).faults
    odd = plan([node("shop", "db>=2")], active={"db": "yesterday"}).faults["shop"]
    assert "'yesterday' cannot be compared with '>=2'" in str(odd)


def test_m3_all_that_is_wrong_is_said_at_once() -> None:
    fault = plan([node("shop", "nope", "db>>2", "db@^3"), node("db")]).faults["shop"]
    assert "'nope' is missing" in str(fault)
    assert "'>>2' is neither a PEP 440 nor an npm range" in str(fault)
    assert "db@^3 is wanted, 'db' is 1.0" in str(fault)


def test_a2_a_failure_skips_all_that_needs_it_with_the_chain() -> None:
    made = plan([node("a"), node("b", "a"), node("c", "b"), node("other")])
    assert made.ready() == ["a", "other"]
    assert made.failed("a", "failed: boom") == ["b", "c"]
    made.done("other")
    assert made.finished
    assert str(made.skipped["c"]) == "needs 'b', which needs 'a', which failed: boom"


def test_a2_what_failed_before_the_plan_skips_too() -> None:
    nodes = [node("a", "bad>=2"), node("b", "a"), node("c", "db")]
    made = plan(
        nodes, {"db": "1.0"}, failed={"bad": "has a syntax error", "db": "failed to reload"}
    )
    assert str(made.skipped["a"]) == "needs 'bad', which has a syntax error"
    assert str(made.skipped["b"]) == "needs 'a', which needs 'bad', which has a syntax error"
    assert made.order == ("c",), "db is there, whatever became of its next generation"
    assert not made.faults


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ConflictError, match="two plugins are named 'a'"):
        plan([node("a"), node("a", version="2.0")])


names = st.sampled_from([f"p{i}" for i in range(9)])
graphs = st.dictionaries(
    names,
    st.tuples(st.lists(names, max_size=3, unique=True), st.integers(0, 2)),
    max_size=9,
)


@given(graphs, st.frozensets(names), st.randoms())
def test_the_plan_agrees_with_a_naive_model(
    graph: dict[str, tuple[list[str], int]], fail: frozenset[str], order: Any
) -> None:
    loaded: set[str] = set()
    while True:  # the model: whatever has all it needs and does not fail is loaded, until none is
        more = {n for n, (needs, _) in graph.items() if loaded.issuperset(needs)} - loaded - fail
        if not more:
            break
        loaded |= more

    nodes = [node(n, *needs, priority=priority) for n, (needs, priority) in graph.items()]
    order.shuffle(nodes)
    made = plan(nodes)
    assert made.order == plan(reversed(nodes)).order
    assert set(made.order) == set(graph) - set(made.faults) - set(made.skipped)
    running: list[str] = []
    done: set[str] = set()
    failed: set[str] = set()
    while not made.finished:
        started = made.ready()
        assert started or running, "a plan that is not finished has something to do"
        for name in started:
            assert done.issuperset(graph[name][0])
            assert all(graph[name][1] >= graph[other][1] for other in running)
        running += started
        ended = running.pop(order.randrange(len(running)))
        if ended in fail:
            made.failed(ended)
            failed.add(ended)
        else:
            made.done(ended)
            done.add(ended)
    assert done == loaded
    ends = [done, failed, set(made.faults), set(made.skipped)]
    assert set().union(*ends) == set(graph)
    assert sum(map(len, ends)) == len(graph)
    for skip in made.skipped.values():
        assert skip.chain[-1] in failed | set(made.faults)


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        ("^2.0.0", "2.9.1", "3.0.0"),
        ("^0.2.3", "0.2.9", "0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("~1.2.3", "1.2.9", "1.3.0"),
        ("~1.2", "1.2.0", "1.3.0"),
        ("~1", "1.9.0", "2.0.0"),
        ("1.x", "1.4.2", "2.0.0"),
        ("1.2.*", "1.2.7", "1.3.0"),
        ("*", "7.1.0", None),
        ("1.2.3 - 2.3.4", "2.3.4", "2.3.5"),
        (">=1.2 <2", "1.9.9", "2.0.0"),
        ("^1.2 || ^3", "3.1.0", "2.0.0"),
        ("1.2.3", "1.2.3", "1.2.4"),
    ],
)
def test_m5_the_thirteen_npm_ranges(range_: str, inside: str, outside: str | None) -> None:
    wanted = Requirement.parse(f"db@{range_}")
    assert wanted.name == "db"
    assert wanted.accepts(inside)
    assert outside is None or not wanted.accepts(outside)


@pytest.mark.parametrize(
    ("text", "name", "version", "accepted"),
    [
        ("auth", "auth", "anything", True),
        ("db>=2,<3", "db", "2.5", True),
        ("db>=2,<3", "db", "3.0", False),
        ("db ~= 2.1", "db", "2.9", True),
        ("db==2.*", "db", "2.7.1", True),
        ("db>=2", "db", "2.1rc1", True),
        ("db ^2.0.0", "db", "2.1", True),
        ("my-db.core_2@~1.2", "my-db.core_2", "1.2.8", True),
        ("db@^2.0.0", "db", "2.1.0rc1", False),
    ],
)
def test_m3_requirements(text: str, name: str, version: str, accepted: bool) -> None:
    wanted = Requirement.parse(text)
    assert wanted.name == name
    assert wanted.accepts(version) is accepted
    assert Requirement.parse(str(wanted)) == wanted


@pytest.mark.parametrize("text", ["", "@1", "db@", "db=>1", ">=2", "../x"])
def test_m3_what_is_no_requirement(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|begin"):
        Requirement.parse(text)


def test_m5_engines() -> None:
    here = {"python": "3.11.2", "veko": "2.0.0"}
    assert not engine_faults({"python": ">=3.11", "veko": "^2.0.0"}, here)
    faults = engine_faults({"python": "~2.7", "vekko": "1.x", "veko": "new"}, here)
    assert [str(fault) for fault in faults] == [
        "engines.python: ~2.7 is wanted, this is 3.11.2",
        "engines.vekko: there is no such engine. Did you mean 'veko'?",
        "engines.veko: 'new' is neither a PEP 440 nor an npm range",
    ]


def test_faults_are_dependency_errors() -> None:
    assert isinstance(plan([node("a", "b")]).faults["a"], DependencyError)


async def test_the_service() -> None:
    async with Kernel() as kernel:
        await kernel.load(Dependencies())
        service: Dependencies = kernel.use("dependencies")
        assert service.plan([node("b", "a"), node("a")]).order == ("a", "b")
        assert service.parse("db>=2") == Requirement("db", ">=2")
        assert service.engine_faults({"python": ">=3.11", "veko": "^2.0.0"}) == []
