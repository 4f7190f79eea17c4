"""The routing table: precedence, conflicts, methods, and that a change shares what it keeps."""

import re
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from veko import RouteError
from veko_plugins.http import Table, Taken, parse_path

ID = "0b9f3c5e-8a0e-4a57-9a3e-6b6f3f1f6c11"


def table(*paths: str, method: str = "GET") -> Table[str]:
    return Table((method, path, path) for path in paths)


@pytest.mark.parametrize(
    ("path", "value", "params"),
    [
        ("/", "/", {}),
        ("/users", "/users", {}),
        ("/users/", "/users", {}),
        ("/users/me", "/users/me", {}),
        ("/users/7", "/users/{id:int}", {"id": 7}),
        ("/users/-7", "/users/{id:int}", {"id": -7}),
        ("/users/7.5", "/users/{x:float}", {"x": 7.5}),
        (f"/users/{ID}", "/users/{key:uuid}", {"key": UUID(ID)}),
        ("/users/ann", "/users/{name}", {"name": "ann"}),
        ("/users/1_0", "/users/{name}", {"name": "1_0"}),
        ("/users/٣", "/users/{name}", {"name": "٣"}),
        ("/users/nan", "/users/{name}", {"name": "nan"}),
        (f"/users/{'9' * 20}", "/users/{name}", {"name": "9" * 20}),
        ("/users/ann/posts", "/users/{rest:path}", {"rest": "ann/posts"}),
        ("/users/ann/", "/users/{name}", {"name": "ann"}),
        ("/users/ann//", "/users/{rest:path}", {"rest": "ann//"}),
    ],
)
def test_the_more_precise_shape_comes_first(path: str, value: str, params: dict) -> None:
    found = table(
        "/",
        "/users",
        "/users/{rest:path}",
        "/users/{name}",
        "/users/{x:float}",
        "/users/{key:uuid}",
        "/users/{id:int}",
        "/users/me",
    ).match("GET", path)
    assert (found.value, found.params) == (value, params)


def test_a_dead_end_is_left_for_the_next_best() -> None:
    routes = table("/a/{x:int}/end", "/a/{y}/other", "/{all:path}")
    assert routes.match("GET", "/a/1/end").params == {"x": 1}
    assert routes.match("GET", "/a/1/other").params == {"y": "1"}
    assert routes.match("GET", "/a/1/nothing").params == {"all": "a/1/nothing"}


def test_a_shape_without_the_method_leaves_it_to_the_next() -> None:
    routes = Table([("GET", "/users/me", "me"), ("PUT", "/users/{id}", "put")])
    assert routes.match("PUT", "/users/me").value == "put"
    refused = routes.match("DELETE", "/users/me")
    assert refused.value is None
    assert refused.allowed == {"GET", "HEAD", "PUT", "OPTIONS"}


def test_what_is_not_there_allows_nothing() -> None:
    routes = table("/users/{id:int}")
    for path in ("/", "/users", "/users/ann", "/users/1/2", "//users/1", "/users//1", "*", ""):
        assert routes.match("GET", path) == (None, {}, frozenset())


def test_head_is_answered_by_get_unless_it_has_its_own() -> None:
    routes = Table([("GET", "/a", "get"), ("GET", "/b", "get"), ("HEAD", "/b", "head")])
    assert routes.match("HEAD", "/a").value == "get"
    assert routes.match("HEAD", "/b").value == "head"


def test_one_shape_and_method_conflict_whatever_the_parameters_are_called() -> None:
    routes = table("/users/{id}")
    with pytest.raises(Taken) as caught:
        routes.changed(add=[("GET", "/users/{name}", "mine")])
    assert (caught.value.value, caught.value.wanted) == ("/users/{id}", "mine")
    assert routes.match("GET", "/users/1").params == {"id": "1"}
    both = routes.changed(add=[("POST", "/users/{name}", "post"), ("GET", "/users/{n:int}", "int")])
    assert both.match("POST", "/users/1").params == {"name": "1"}
    assert len(both) == 3


def test_removing_leaves_no_branch_behind() -> None:
    empty = table("/a/b/c", "/a/{x:int}/{rest:path}").changed(
        remove=[("GET", "/a/b/c"), ("GET", "/a/{y:int}/{r:path}"), ("GET", "/nothing")]
    )
    assert len(empty) == 0
    assert list(empty) == []
    assert empty._root.empty


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "/a//b",
        "/a/../b",
        "/.",
        "/{a}{b}",
        "/x{a}",
        "/{a:what}",
        "/{a}/{a}",
        "/{r:path}/x",
        "/{1a}",
        "/{}",
        "",
    ],
)
def test_an_unsound_path_is_refused_with_its_text(path: str) -> None:
    with pytest.raises(RouteError, match=re.escape(repr(path))):
        parse_path(path)


def test_a_change_shares_every_branch_that_it_does_not_touch() -> None:
    before = table(*(f"/p{n}/{{id}}/x" for n in range(100)))
    after = before.changed(add=[("GET", "/p7/{id}/y", "new")])
    kept = [n for n in before._root.static if before._root.static[n] is after._root.static[n]]
    assert len(kept) == 99
    assert before.match("GET", "/p7/1/y").value is None


# -- against a naive reference: every route tried in order of precision

_RANK = {"": 0, "int": 1, "uuid": 2, "float": 3, "str": 4, "path": 5}
_PATTERN = {
    "int": r"-?[0-9]{1,19}",
    "float": r"-?[0-9]{1,19}(\.[0-9]{1,19})?",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "str": r"[^/]+",
    "path": r".+",
}
_CONVERT = {"int": int, "float": float, "uuid": UUID, "str": str, "path": str}


class Naive:
    """All routes in a list, sorted by precision, each as one regular expression."""

    def __init__(self) -> None:
        self.rows: dict[tuple, tuple[str, str]] = {}

    def key(self, method: str, path: str) -> tuple:
        return method, tuple((s.text if not s.converter else s.converter) for s in parse_path(path))

    def match(self, method: str, path: str) -> tuple[Any, dict, set]:
        allowed: set[str] = set()
        if {".", ".."} & set(path.split("/")):
            return None, {}, allowed
        for has, route in sorted(
            self.rows.values(), key=lambda r: [(_RANK[s.converter]) for s in parse_path(r[1])]
        ):
            segments = parse_path(route)
            whole = bool(segments) and segments[-1].converter == "path"
            pattern = "".join(
                "/" + (f"({_PATTERN[s.converter]})" if s.converter else re.escape(s.text))
                for s in segments
            )
            fit = re.fullmatch(pattern + ("" if whole else "/?"), path, re.DOTALL)
            if fit is None:
                continue
            if has == method or (method == "HEAD" and has == "GET"):
                values, at = {}, 1
                for s in segments:
                    if s.converter:
                        values[s.text] = _CONVERT[s.converter](fit[at])
                        at += 1 + {"float": 1, "uuid": 1}.get(s.converter, 0)
                return route, values, set()
            allowed.add(has)
        if allowed:
            allowed |= {"OPTIONS"} | ({"HEAD"} if "GET" in allowed else set())
        return None, {}, allowed


texts = st.sampled_from(["a", "b", "1", "2.5", ID])
segments = st.one_of(texts, st.sampled_from(["{x}", "{x:int}", "{x:float}", "{x:uuid}", "{x:str}"]))


@st.composite
def routes(draw: st.DrawFn) -> tuple[str, str]:
    parts = draw(st.lists(segments, max_size=3))
    parts = [part.replace("x", f"p{index}") for index, part in enumerate(parts)]
    if draw(st.booleans()) and draw(st.booleans()):
        parts.append("{rest:path}")
    return draw(st.sampled_from(["GET", "POST"])), "/" + "/".join(parts)


requests = st.tuples(
    st.sampled_from(["GET", "POST", "PUT"]),
    st.lists(st.one_of(texts, st.sampled_from(["", "-1", "c", "..", ".d"])), max_size=4).map(
        lambda parts: "/" + "/".join(parts)
    ),
)


class TableMachine(RuleBasedStateMachine):
    """Routes come and go one at a time; old tables must answer as they did."""

    added = Bundle("added")

    def __init__(self) -> None:
        super().__init__()
        self.naive = Naive()
        self.table: Table[str] = Table()
        self.history: list[tuple[Table[str], Naive]] = []

    @rule(target=added, row=routes())
    def add(self, row: tuple[str, str]) -> tuple[str, str]:
        key = self.naive.key(*row)
        if key in self.naive.rows:
            with pytest.raises(Taken):
                self.table.changed(add=[(*row, row[1])])
            return row
        self.keep()
        self.table = self.table.changed(add=[(*row, row[1])])
        self.naive.rows[key] = row
        return row

    @rule(row=added)
    def remove(self, row: tuple[str, str]) -> None:
        self.keep()
        self.table = self.table.changed(remove=[row])
        self.naive.rows.pop(self.naive.key(*row), None)

    def keep(self) -> None:
        old = Naive()
        old.rows = dict(self.naive.rows)
        self.history = [*self.history[-2:], (self.table, old)]

    @rule(request=requests)
    def match(self, request: tuple[str, str]) -> None:
        for tree, naive in (*self.history, (self.table, self.naive)):
            found = tree.match(*request)
            assert (found.value, found.params, set(found.allowed)) == naive.match(*request)

    @invariant()
    def counted(self) -> None:
        assert len(self.table) == len(list(self.table)) == len(self.naive.rows)


TestTable = TableMachine.TestCase


@settings(max_examples=200)
@given(rows=st.lists(routes(), max_size=12), asked=st.lists(requests, min_size=1, max_size=6))
def test_matching_agrees_with_trying_every_route(rows: list, asked: list) -> None:
    naive, rows_by_key = Naive(), {}
    for row in rows:
        rows_by_key.setdefault(naive.key(*row), row)
    naive.rows = rows_by_key
    tree = Table((*row, row[1]) for row in rows_by_key.values())
    for request in asked:
        found = tree.match(*request)
        assert (found.value, found.params, set(found.allowed)) == naive.match(*request)


@given(st.text(max_size=30))
def test_no_path_breaks_matching(path: str) -> None:
    found = table("/{a:int}/{b}", "/{rest:path}", "/x/{f:float}/{u:uuid}").match("GET", "/" + path)
    assert found.value is None or found.params


@pytest.mark.parametrize("path", ["/..", "/./a", "/a/..", "/a/../b", "/a/.", "/a/../"])
def test_a_dot_segment_matches_nothing(path: str) -> None:
    routes = table("/{rest:path}", "/{a}", "/{a}/{b}")
    assert routes.match("GET", path) == (None, {}, frozenset())


def test_dots_within_a_segment_are_letters() -> None:
    routes = table("/{rest:path}")
    for rest in (".well-known/x", "a/.b", "...", "a/b..", "..a"):
        assert routes.match("GET", f"/{rest}").params == {"rest": rest}
