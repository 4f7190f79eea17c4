"""Observers have no say, so nobody is asked again because of them."""

from pathlib import Path
from typing import Any

from veko_plugins import PluginManager


async def test_an_observer_of_route_hooks_sees_new_routes_only(tmp_path: Path) -> None:
    seen: list[str] = []
    async with PluginManager(root=tmp_path) as manager:

        def old(context: Any) -> None:
            context.add_route("GET", "/old", lambda: "old")

        def new(context: Any) -> None:
            context.add_route("GET", "/new", lambda: "new")

        await manager.load_plugin({"name": "old", "version": "1.0.0", "load": old})
        manager.on("route:create", lambda route: seen.append(route.path))
        manager.on("route:load", lambda routes: seen.append(f"{len(routes)}"))
        await manager.load_plugin({"name": "new", "version": "1.0.0", "load": new})
        assert seen == ["1", "/new"]
