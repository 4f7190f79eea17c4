"""Fragments of OpenAPI documents, merged."""

from typing import Any

from veko_plugins.http import Fragment, Merger


def refer(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def fragment(path: str, schema: str, **schemas: Any) -> Fragment:
    content = {"application/json": {"schema": refer(schema)}}
    operation = {"operationId": "op", "responses": {"200": {"content": content}}}
    return Fragment({path: {"get": operation}}, {"schemas": schemas})


def schema_of(merger: Merger, path: str) -> str:
    responses = merger.whole.paths[path]["get"]["responses"]
    ref: str = responses["200"]["content"]["application/json"]["schema"]["$ref"]
    return ref.rpartition("/")[2]


def test_what_refers_to_something_else_is_something_else() -> None:
    merger = Merger()
    order = {"type": "array", "items": refer("Item")}
    merger.add(fragment("/a", "Order", Order=order, Item={"type": "string"}), "a")
    merger.add(fragment("/b", "Order", Order=order, Item={"type": "integer"}), "b")
    merger.add(fragment("/c", "Order", Order=order, Item={"type": "string"}), "c")
    assert [schema_of(merger, path) for path in ("/a", "/b", "/c")] == ["Order", "b_Order", "Order"]
    schemas = merger.whole.components["schemas"]
    assert schemas["b_Order"]["items"] == refer("b_Item")
    assert set(schemas) == {"Order", "Item", "b_Order", "b_Item"}


def test_circles_and_discriminators_follow() -> None:
    def node(kind: str) -> dict[str, Any]:
        mapping = {"node": "#/components/schemas/Node", "far": "https://example.com/far.json"}
        return {
            "properties": {"next": refer("Node"), "value": {"type": kind}},
            "discriminator": {"propertyName": "kind", "mapping": mapping},
        }

    merger = Merger()
    merger.add(fragment("/a", "Node", Node=node("string")), "a")
    merger.add(fragment("/b", "Node", Node=node("integer")), "b")
    made = merger.whole.components["schemas"]["b_Node"]
    assert made["properties"]["next"] == refer("b_Node")
    assert made["discriminator"]["mapping"] == {
        "node": "#/components/schemas/b_Node",
        "far": "https://example.com/far.json",
    }


def test_a_name_that_is_taken_too_gets_a_number() -> None:
    merger = Merger()
    merger.add(Fragment({}, {"schemas": {"X": {"type": "string"}, "b_X": {}}}), "a")
    merger.add(fragment("/b", "X", X={"type": "integer"}), "b")
    assert schema_of(merger, "/b") == "b_X_2"


def test_what_comes_in_stays_as_it_is() -> None:
    merger = Merger()
    merger.add(fragment("/a", "X", X={"type": "string"}), "a", "a")
    other = fragment("/b", "X", X={"type": "integer"})
    merger.add(other, "b", "b")
    assert other == fragment("/b", "X", X={"type": "integer"})


def test_paths_of_one_shape_are_one_path() -> None:
    def item(name: str, *methods: str) -> dict[str, Any]:
        parameter = {"name": name, "in": "path", "required": True}
        return {
            method: {"operationId": f"{method}_{name}", "parameters": [dict(parameter)]}
            for method in methods
        }

    merger = Merger()
    assert merger.add(Fragment({"/x/{id}": item("id", "get", "put")}), "a") == 2
    assert merger.add(Fragment({"/x/{name}": item("name", "get", "delete")}), "b") == 1
    assert list(merger.whole.paths) == ["/x/{id}"]
    found = merger.whole.paths["/x/{id}"]
    assert {method: operation["operationId"] for method, operation in found.items()} == {
        "get": "get_id",
        "put": "put_id",
        "delete": "delete_name",
    }
    assert found["delete"]["parameters"][0]["name"] == "id"


def test_each_operation_has_a_name_and_a_tag_of_its_own() -> None:
    merger = Merger()
    for path in ("/a", "/b", "/c"):
        operation = {"operationId": "op", "tags": ["own", "p"], "responses": {}}
        merger.add(Fragment({path: {"get": operation}}), "p", "p")
    found = [item["get"] for item in merger.whole.paths.values()]
    assert [operation["operationId"] for operation in found] == ["op", "p_op", "p_op_2"]
    assert all(operation["tags"] == ["p", "own"] for operation in found)


def test_security_follows_its_scheme_and_is_dropped_without_one() -> None:
    def secured(path: str, scheme: Any, *needs: str) -> Fragment:
        security = [{name: []} for name in needs]
        schemes = {"token": scheme} if scheme else {}
        return Fragment({path: {"get": {"security": security}}}, {"securitySchemes": schemes})

    merger = Merger()
    bearer = {"type": "http", "scheme": "bearer"}
    merger.add(secured("/a", bearer, "token"), "a")
    merger.add(secured("/b", {**bearer, "scheme": "basic"}, "token", "nobody"), "b")
    merger.add(secured("/c", None, "nobody"), "c")
    assert merger.undeclared() == {"nobody"}
    paths = merger.whole.paths
    assert paths["/a"]["get"]["security"] == [{"token": []}]
    assert paths["/b"]["get"]["security"] == [{"b_token": []}]
    assert "security" not in paths["/c"]["get"]
