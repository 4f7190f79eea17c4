"""Plan, apply, undo: what a plan says is what then happens, and undo takes it back."""

from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from tests.plugins.admin.conftest import Home, http_client

from veko.errors import ConflictError, DependencyError, NotFoundError, StateError, VekoError
from veko_plugins import PluginManager
from veko_plugins.admin import (
    AdminError,
    Configure,
    Intent,
    Load,
    Operations,
    Plan,
    Reload,
    Toggle,
    Undo,
    Unload,
)

pytestmark = pytest.mark.anyio

DECORATED = """
from veko_plugins import Plugin

plugin = Plugin("deco", "{version}", permissions={permissions})

@plugin.route("GET", "/deco{version}")
def deco(): return "deco"

@plugin.hook("order:paid")
def paid(order): pass

@plugin.command("deco{version}")
def run(): return 1
"""


def lines(operations: Operations) -> dict[str, set[str]]:
    """What is live: routes, hooks, commands, states, and configurations."""
    kernel = operations._kernel
    found: dict[str, set[str]] = {"routes": set(), "hooks": set(), "commands": set()}
    for record in kernel.records():
        if record.core or not record.active:
            continue
        details = operations.plugin(record.name)
        found["routes"] |= {f"{row.method} {row.path}" for row in details.routes}
        found["hooks"] |= {f"{row.event} {row.handler}" for row in details.hooks}
        found["commands"] |= {row.name for row in details.commands}
    return found


def states(operations: Operations) -> dict[str, str]:
    """The state of each plugin."""
    return {row.name: row.state for row in operations.plugins()}


async def held(operations: Operations, intent: Intent) -> Plan:
    """Plan, apply, and check that the plan was true."""
    before = lines(operations)
    plan = await operations.plan(intent)
    assert lines(operations) == before, "a plan changes nothing"
    change = await operations.apply(intent)
    assert change.plan == plan
    after = lines(operations)
    for kind in ("routes", "hooks", "commands"):
        said = getattr(plan, kind)
        if kind not in plan.unknown:
            assert set(said.come) == after[kind] - before[kind], kind
            assert set(said.go) == before[kind] - after[kind], kind
    return plan


def steps(plan: Plan) -> list[tuple[str, str]]:
    """The plugins that a plan touches."""
    return [(one.name, one.step) for one in plan.plugins]


async def test_switching_off_and_on_is_planned_done_and_undone(operations: Operations) -> None:
    at_first = lines(operations), states(operations)
    with pytest.raises(DependencyError, match="cart need it"):
        await operations.plan(Toggle("shop", False))
    with pytest.raises(DependencyError, match="cart need it"):
        await operations.toggle("shop", False)
    assert lines(operations) == at_first[0]
    plan = await held(operations, Toggle("shop", False, cascade=True))
    assert steps(plan) == [("cart", "deactivate"), ("shop", "deactivate")]
    assert plan.routes.go == ("GET /cart", "GET /shop", "GET /shop/{item:int}")
    assert states(operations) == {"shop": "inactive", "cart": "inactive"}
    with pytest.raises(DependencyError):
        await operations.plan(Toggle("cart", True))
    change = operations.changes()[0]
    undo = await held(operations, Undo(change.id))
    assert steps(undo) == [("shop", "activate"), ("cart", "activate")]
    assert (lines(operations), states(operations)) == at_first


async def test_unloading_is_undone_with_the_configuration(operations: Operations) -> None:
    await operations.apply(Configure("shop", value={"size": 77, "api_key": "new-secret"}))
    at_first = lines(operations)
    plan = await held(operations, Unload("shop", cascade=True))
    assert steps(plan) == [("cart", "unload"), ("shop", "unload")]
    assert states(operations) == {}
    change = await operations.undo(operations.changes()[0].id)
    assert steps(change.plan) == [("shop", "load"), ("cart", "load")]
    assert lines(operations) == at_first
    record = operations._kernel.get("shop")
    assert record is not None
    assert (record.config.size, record.config.api_key) == (77, "new-secret")


async def test_a_plugin_with_decorators_is_loaded_as_planned(
    home: Home, operations: Operations
) -> None:
    home.plugin("deco", DECORATED.format(version="1.0", permissions=["env:read:HOME"]))
    plan = await held(operations, Load("deco"))
    assert plan.unknown == ()
    assert plan.routes.come == ("GET /deco1.0",)
    assert plan.hooks.come == ("order:paid deco.paid",)
    assert plan.commands.come == ("deco1.0",)
    assert plan.permissions == {"deco": ("env:read:HOME",)}
    with pytest.raises(ConflictError):
        await operations.plan(Load("deco"))
    home.plugin(
        "deco", DECORATED.format(version="2.0", permissions=["env:read:HOME", "net:connect"])
    )
    plan = await held(operations, Reload("deco"))
    assert plan.routes == type(plan.routes)(come=("GET /deco2.0",), go=("GET /deco1.0",))
    assert plan.permissions == {"deco": ("net:connect",)}
    undo = await held(operations, Undo(operations.changes()[0].id))
    assert steps(undo) == [("deco", "reload")]
    assert operations.plugin("deco").plugin.version == "1.0"  # the file says 2.0
    assert "GET /deco1.0" in lines(operations)["routes"]


async def test_what_only_load_knows_is_said_to_be_unknown(
    home: Home, operations: Operations
) -> None:
    home.plugin(
        "more",
        """
        name = "more"
        version = "1.0.0"
        def load(context): context.add_route("GET", "/more", lambda: 1, sync_to_thread=False)
        """,
    )
    plan = await held(operations, Load("more"))
    assert plan.unknown == ("routes", "hooks", "services", "commands")
    assert plan.routes.come == ()


async def test_a_broken_version_is_refused_and_the_old_one_never_stops(
    home: Home, operations: Operations
) -> None:
    at_first = lines(operations)
    home.plugin("cart", "name = = 1")
    for act in (operations.plan, operations.apply):
        with pytest.raises(VekoError):
            await act(Reload("cart"))
    home.plugin("cart", 'name = "cart"\nversion = "2"\ndef load(): raise ValueError("no")')
    await operations.plan(Reload("cart"))  # only running it tells
    with pytest.raises(VekoError, match="no"):
        await operations.reload("cart")
    assert lines(operations) == at_first
    assert operations.changes() == ()


async def test_a_plugin_that_needs_what_is_off_is_refused_in_the_plan(
    home: Home, operations: Operations
) -> None:
    await operations.toggle("shop", False, cascade=True)
    home.plugin("late", 'name = "late"\nversion = "1"\ndependencies = ["shop"]\ndef load(): pass')
    with pytest.raises(DependencyError, match="is switched off"):
        await operations.plan(Load("late"))
    with pytest.raises(DependencyError):
        await operations.load("late")
    with pytest.raises(NotFoundError):
        await operations.plan(Load("nobody"))


async def test_only_plugins_in_the_folders_are_loaded_by_path(
    home: Home, operations: Operations
) -> None:
    outside = home.root / "outside.py"
    outside.write_text('name = "outside"\nversion = "1"\ndef load(): pass')
    for path in (str(outside), "./outside.py", "plugins/../outside.py"):
        with pytest.raises(AdminError) as caught:
            await operations.load(path)
        assert caught.value.status == 403
    home.plugin("inside", 'name = "inside"\nversion = "1"\ndef load(): pass')
    assert (await operations.load("plugins/inside.py")).target == "inside"


async def test_an_undo_is_not_done_twice_and_can_be_undone(operations: Operations) -> None:
    change = await operations.toggle("cart", False)
    undo = await operations.undo(change.id)
    with pytest.raises(StateError, match="it was undone by"):
        await operations.undo(change.id)
    with pytest.raises(NotFoundError):
        await operations.undo("0123456789ab")
    redo = await operations.undo(undo.id)
    assert states(operations)["cart"] == "inactive"
    assert redo.target == undo.id
    await operations.undo(change.id)  # it holds again, so it can be undone again
    assert states(operations)["cart"] == "active"


async def test_a_later_change_has_to_be_undone_first(operations: Operations) -> None:
    first = await operations.apply(Configure("shop", value={"size": 20}))
    second = await operations.apply(Configure("shop", value={"title": "other"}))
    with pytest.raises(StateError, match=f"{second.id} came after it"):
        await operations.undo(first.id)
    unrelated = await operations.toggle("cart", False)
    await operations.undo(second.id)
    await operations.undo(first.id)
    await operations.undo(unrelated.id)
    record = operations._kernel.get("shop")
    assert record is not None
    assert (record.config.size, record.config.title) == (10, "shop")
    assert [change.undoable for change in operations.changes()[-3:]] == [False, False, False]


async def test_undo_does_not_overwrite_what_was_changed_past_the_api(
    operations: Operations,
) -> None:
    change = await operations.apply(Configure("shop", value={"size": 20}))
    await operations._kernel.update_config("shop", {"size": 30})
    with pytest.raises(StateError, match="was changed meanwhile"):
        await operations.undo(change.id)


async def test_plans_and_changes_over_http(http: httpx.AsyncClient, operations: Operations) -> None:
    plan = (await http.post("plugins/cart/toggle?plan=1", json={"active": False})).json()
    assert plan["routes"] == {"come": [], "go": ["GET /cart"]}
    assert states(operations)["cart"] == "active"
    answer = await http.post("plugins/cart/toggle", json={"active": False})
    assert answer.status_code == 200, answer.text
    change = answer.json()
    assert change["who"] == "operate by token from 127.0.0.1"
    assert answer.headers["veko-change"] == change["id"]
    assert (await http.get("http://localhost/cart")).status_code == 404
    assert (await http.get("changes")).json()[0]["id"] == change["id"]
    assert (await http.post(f"changes/{change['id']}/undo")).status_code == 200
    assert (await http.get("http://localhost/cart")).status_code == 200
    replayed = await http.post(f"changes/{change['id']}/undo")
    assert replayed.status_code == 409
    assert "it was undone by" in replayed.json()["detail"]
    assert (await http.post("changes/nothing/undo")).status_code == 404


async def test_every_fault_of_a_request_is_named(http: httpx.AsyncClient) -> None:
    bad: tuple[tuple[str, Any, set[str]], ...] = (
        ("plugins", {"plugin": 5, "confg": {}}, {"plugin", "confg"}),
        ("plugins/cart/toggle", {"active": "off", "cascade": 1}, {"active", "cascade"}),
        ("changes", {"verb": "configure", "plugin": "shop", "how": [None]}, {"how"}),
    )
    for path, body, faults in bad:
        answer = await http.post(path, json=body)
        assert answer.status_code == 422, answer.text
        assert {one["path"] for one in answer.json()["faults"]} == faults
    assert (await http.post("changes", json={"verb": "explode"})).status_code == 422
    for query in ("plan=maybe", "plan="):
        answer = await http.post(f"plugins/cart/reload?{query}")
        assert [one["path"] for one in answer.json()["faults"]] == ["query.plan"]


async def test_a_plugin_may_switch_itself_off_by_a_request_to_the_api(
    home: Home, operations: Operations, http: httpx.AsyncClient
) -> None:
    answer = await http.post("plugins/shop/unload", json={"cascade": True})
    assert answer.status_code == 200
    assert states(operations) == {}


async def test_commands_run_and_their_mistakes_are_told(http: httpx.AsyncClient) -> None:
    answer = await http.post("commands/restock", json={"args": [3]})
    assert answer.json() == {"command": "restock", "result": {"amount": 3}}
    assert (await http.post("commands/restock", json={})).status_code == 422
    assert (await http.post("commands/nothing", json={})).status_code == 404
    for path in ("commands/restock", "backups"):  # who asks for a plan does not get the thing
        refused = await http.post(path, params={"plan": 1}, json={"args": [3]})
        assert refused.status_code == 422
        assert "cannot be planned; nothing was done" in refused.json()["detail"]
    assert (await http.get("backups")).json() == []
    assert (await http.post("backups", params={"plan": 0})).status_code == 201


async def test_backups_are_made_restored_and_that_is_undone(
    operations: Operations, http: httpx.AsyncClient
) -> None:
    made = await http.post("backups")
    assert made.status_code == 201
    name = made.json()["name"]
    await operations.apply(Configure("shop", value={"size": 99}))
    plan = (await http.post(f"backups/{name}/restore?plan=1")).json()
    assert {one["name"] for one in plan["plugins"]} == {"shop", "cart"}
    change = (await http.post(f"backups/{name}/restore")).json()
    assert operations.config("shop", ("size",)).value == 10
    assert (await http.post(f"changes/{change['id']}/undo")).status_code == 200
    assert operations.config("shop", ("size",)).value == 99
    assert (await http.post("backups/..%2F..%2Fstate.jsonl/restore")).status_code == 404


async def test_changes_of_parts_of_veko_are_refused(operations: Operations) -> None:
    refused: Iterable[Any] = (
        Toggle("storage", False), Unload("config"), Reload("health"), Toggle("admin", False),
    )  # fmt: skip
    for intent in refused:
        with pytest.raises(StateError, match="is a part of Veko"):
            await operations.apply(intent)


# -- over a restart


async def restarted(home: Home) -> PluginManager:
    manager = home.manager()
    await manager.start()
    return manager


async def test_what_was_switched_off_stays_off_over_a_restart(home: Home) -> None:
    async with home.manager() as manager:
        operations = await manager.administration()
        await operations.toggle("cart", False)
    async with home.manager() as manager:
        operations = await manager.administration()
        assert states(operations) == {"shop": "active", "cart": "off"}
        assert manager.report.off == {"cart": "switched off by an operator"}
        change = await operations.toggle("cart", True)
        assert steps(change.plan) == [("cart", "load")]
    async with home.manager() as manager:
        assert states(await manager.administration()) == {"shop": "active", "cart": "active"}


async def test_unloading_and_configurations_last_over_a_restart(home: Home) -> None:
    async with home.manager() as manager:
        operations = await manager.administration()
        await operations.unload("cart")
        await operations.apply(
            Configure("shop", value={"size": 42, "api_key": "kept-secret", "limits": {"a": 1}})
        )
    async with home.manager() as manager, http_client(manager) as http:
        operations = await manager.administration()
        assert states(operations) == {"shop": "active", "cart": "off"}
        record = manager.kernel.get("shop")
        assert record is not None
        assert (record.config.size, record.config.api_key) == (42, "kept-secret")
        await operations.load("cart")
        assert (await http.delete("plugins/shop/config/size")).status_code == 200
    async with home.manager() as manager:
        record = manager.kernel.get("shop")
        assert record is not None
        assert (record.config.size, record.config.limits) == (10, {"a": 1})
        assert states(await manager.administration())["cart"] == "active"


async def test_what_is_undone_does_not_last(home: Home) -> None:
    async with home.manager() as manager:
        operations = await manager.administration()
        for intent in (Toggle("cart", False), Configure("shop", value={"size": 5})):
            await operations.undo((await operations.apply(intent)).id)
    assert not (home.root / ".veko" / "overrides.jsonl").exists()


async def test_the_settings_file_stays_the_word_of_its_author(home: Home) -> None:
    off = {"plugins": {"cart": {"enabled": False}, "shop": {"size": 33}}}
    async with home.manager(**off) as manager:
        operations = await manager.administration()
        plan = await operations.plan(Toggle("cart", True))
        assert plan.warnings == (
            "enabled = false in [plugins.cart]: it is off again after the next start",
        )
        await operations.toggle("cart", True)
        await operations.apply(Configure("shop", value={"title": "mine"}))
    off["plugins"]["shop"]["size"] = 34  # what is not overridden follows the file
    async with home.manager(**off) as manager:
        assert states(await manager.administration())["cart"] == "off"
        record = manager.kernel.get("shop")
        assert record is not None
        assert (record.config.size, record.config.title) == (34, "mine")


async def test_the_file_of_overrides_is_its_owners_alone(home: Home) -> None:
    async with home.manager() as manager:
        await (await manager.administration()).toggle("cart", False)
    path = home.root / ".veko" / "overrides.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{}\n")
    with pytest.raises(VekoError, match="overrides"):
        await restarted(home)


async def test_a_change_that_cannot_be_kept_is_not_made(
    home: Home, operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.root / ".veko" / "overrides.jsonl").mkdir()
    with pytest.raises(VekoError):
        await operations.toggle("cart", False)
    assert states(operations)["cart"] == "active"
    with pytest.raises(VekoError):
        await operations.apply(Configure("shop", value={"size": 5}))
    assert operations.config("shop", ("size",)).value == 10
    assert operations.changes() == ()
