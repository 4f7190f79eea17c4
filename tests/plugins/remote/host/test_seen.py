"""Plugins in workers in traces, metrics, health and validation, as any other plugin."""

from typing import Any

import pytest

from .conftest import App

pytestmark = pytest.mark.anyio

ASKS = """
module.exports = {
  name: 'asks', version: '1.0.0',
  load(app, config, context) {
    context.hook('question', async (value) => await context.emit('inner', value));
    context.addRoute('GET', '/asks', async (req, res) => res.json(await context.emit('asked', 1)));
    context.addMiddleware((req, res, next) => next());
  },
};
"""
HEARS = """
name = "hears"
version = "1.0.0"

def load(context):
    context.hook("plugin:asks:asked", lambda value: value + 1)
    context.hook("plugin:asks:inner", lambda value: value * 2)
"""


async def test_spans_nest_over_the_border(app: App) -> None:
    app.put("asks.js", ASKS)
    app.put("hears.py", HEARS)
    manager = await app.start(plugins={"tracing": {"keep": 100}})
    assert await app.json("/asks") == 2
    tracing: Any = manager.use("tracing")
    (trace,) = [one for one in await tracing.traces() if "/asks" in str(one)]
    spans = {span["spanID"]: span for span in trace["spans"]}

    def above(span: dict[str, Any]) -> list[str]:
        found = []
        while span["references"]:
            span = spans[span["references"][0]["spanID"]]
            found.append(span["operationName"])
        return found

    (inner,) = [s for s in spans.values() if "plugin:asks:asked" in s["operationName"]][:1]
    assert any("/asks" in name for name in above(inner))


async def test_metrics_and_stats_count_it_as_any_other(app: App) -> None:
    app.put("asks.js", ASKS)
    app.put("hears.py", HEARS)
    manager = await app.start()
    for _ in range(5):
        assert await manager.bus.emit("question", 4) == 8
        assert await app.json("/asks") == 2
    assert manager.metrics is not None
    found = manager.metrics.get("asks")
    assert found.events["question"].calls == 5
    assert found.events["GET /asks"].calls == 5
    assert found.p50 is not None
    stats = manager.get_stats()
    assert (stats.routes, stats.middleware, stats.hooks) == (1, 1, 3)
    (info,) = [one for one in manager.list_plugins() if one.name == "asks"]
    assert info.type == "router"
    report = await manager.validate_plugin("asks")
    assert report.ok, report
