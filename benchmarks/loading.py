"""Does loading many plugins cost little more than reading, unmarshalling and executing their code?

The limit is a loop that does just that with the same code objects. Compared with it are: finding
and importing with a filled bytecode cache; the same with checked manifests; all of
`load_all_plugins` (with validation, life cycle and the swap of the registry); the same of plugins
that wait for their first use, whose modules do not run;
`importlib.import_module` with its `.pyc` files; the same with pluggy registering the modules; and
Fastify registering as many plugins in Node, if npm can install it. Contenders take turns, and
ratios are computed within a round. Then five times as many plugins, to see that it is linear.

    python benchmarks/loading.py [--seconds N] [--quick] [--plugins N]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import marshal
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pluggy
from _harness import Timings, pinned, quiet
from _report import Report, progress, script

from veko_plugins import PluginManager
from veko_plugins.dependencies import plan
from veko_plugins.discovery import Discovery
from veko_plugins.loader import Loader, SourceCache

PLUGIN = '''"""A small plugin."""

import json
from dataclasses import dataclass

name = "p{0}"
version = "1.0"
description = "The plugin number {0}"
dependencies = []
default_config = {{"greeting": "hello"}}


class Thing:
    def __init__(self, value):
        self.value = value

    def shown(self):
        return json.dumps([self.value, {0}])


async def on_start(app):
    return app


def load(app, config, context):
    context.hook("app:start", on_start)


def unload():
    pass
'''

FASTIFY = """
const fastify = require('fastify')();
const count = Number(process.argv[2]);
const start = process.hrtime.bigint();
for (let i = 0; i < count; i++) {
  fastify.register(async function (app) { app.decorate('p' + i, { greeting: 'hello' });
    app.addHook('onRequest', async () => {}); });
}
fastify.ready().then(() => console.log(Number(process.hrtime.bigint() - start) / 1e9));
"""
"""Its plugins are closures in one file: no file is found or read, unlike above."""

Contender = Callable[[], float]
"""Does it once with all plugins and returns the seconds that it took."""


def floor(folder: Path, count: int) -> Contender:
    """Read, unmarshal and execute, and nothing else."""
    files = []
    for number in range(count):
        source = folder / f"p{number}.py"
        file = folder / f"_floor_{number}"
        file.write_bytes(marshal.dumps(compile(source.read_bytes(), str(source), "exec")))
        files.append(str(file))

    def run() -> float:
        start = time.perf_counter()
        kept = []
        for file in files:
            with open(file, "rb", buffering=0) as opened:  # noqa: PTH123
                code = marshal.loads(opened.readall())
            names = {"__name__": "plugin"}
            exec(code, names)
            kept.append(names)
        return time.perf_counter() - start

    return run


def ours(folder: Path, *, whole: bool) -> Contender:
    """Scan, plan and import; with `whole`, find the plugin and check its manifest, too."""

    async def load() -> float:
        start = time.perf_counter()
        cache = SourceCache(folder / ".veko" / "cache")
        loader = Loader(cache)
        found = Discovery(folder, cache=cache, group=None).scan()
        sources = {source.name: source for source in found.sources}
        made = plan([source.outline for source in found.sources if source.outline is not None])
        if whole:
            loaded = [await loader.import_source(sources[name]) for name in made.order]
            generations = [one.generation for one in loaded]
        else:
            generations = [
                loader.importer.load(name, sources[name].path or folder, is_package=False)
                for name in made.order
            ]
        took = time.perf_counter() - start
        for generation in generations:
            loader.dispose(generation)
        return took

    return lambda: asyncio.run(load())


def import_module(folder: Path, count: int) -> Contender:
    """Import as Python does, from `.pyc` files."""
    names = [f"p{number}" for number in range(count)]

    def run() -> float:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        start = time.perf_counter()
        for name in names:
            importlib.import_module(name)
        took = time.perf_counter() - start
        sys.path.remove(str(folder))
        for name in names:
            del sys.modules[name]
        return took

    return run


def load_all(folder: Path) -> Contender:
    """All of `load_all_plugins`, in a manager that runs."""

    async def load() -> float:
        manager = PluginManager(
            root=folder.parent,
            plugins_dir=folder,
            auto_load=False,
            adapter=None,
            storage="sqlite:///:memory:",
            watchdog=0,
        )
        async with manager:
            start = time.perf_counter()
            report = await manager.load_all_plugins()
            took = time.perf_counter() - start
            assert not report.failed, report.failed
            return took

    return lambda: asyncio.run(load())


def registered(folder: Path, count: int) -> Contender:
    """Import as Python does, and register each module with pluggy."""
    spec, impl = pluggy.HookspecMarker("bench"), pluggy.HookimplMarker("bench")

    class Specs:
        @spec
        def on_start(self, app: object) -> None: ...

    names = [f"p{number}" for number in range(count)]

    def run() -> float:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        start = time.perf_counter()
        manager = pluggy.PluginManager("bench")
        manager.add_hookspecs(Specs)
        for name in names:
            module = importlib.import_module(name)
            impl(module.on_start)
            manager.register(module)
        took = time.perf_counter() - start
        sys.path.remove(str(folder))
        for name in names:
            del sys.modules[name]
        return took

    return run


def fastify(count: int) -> Contender | None:
    """Register as many plugins with Fastify, in a process of its own that tells its time."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    folder = Path(tempfile.mkdtemp())
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "fastify@5"]
    if subprocess.run(install, cwd=folder, capture_output=True, check=False).returncode:
        return None
    (folder / "bench.cjs").write_text(FASTIFY)

    def run() -> float:
        command = ["node", "bench.cjs", str(count)]
        finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return float(finished.stdout)

    return run


def waiting(folder: Path, count: int) -> Path:
    """Write the same plugins once more, to be activated at their first use; return their folder."""
    plugins = folder / "waiting" / "plugins"
    plugins.mkdir(parents=True)
    for number in range(count):
        file = plugins / f"p{number}.py"
        text = PLUGIN.format(number).replace("app:start", "order:placed")
        file.write_text(text.replace("dependencies = []", 'activation = "first use"'))
        os.utime(file, (1e9, 1e9))
    return plugins


def contenders_of(folder: Path, count: int) -> dict[str, Contender]:
    """Write so many plugins, and set up what loads them."""
    for number in range(count):
        file = folder / f"p{number}.py"
        file.write_text(PLUGIN.format(number))
        os.utime(file, (1e9, 1e9))
    return {
        "floor": floor(folder, count),
        "scan, plan, import": ours(folder, whole=False),
        "the same and manifests": ours(folder, whole=True),
        "load_all_plugins": load_all(folder),
        "the same at first use": load_all(waiting(folder, count)),
        "importlib.import_module": import_module(folder, count),
        "the same and pluggy": registered(folder, count),
    }


def take_turns(contenders: dict[str, Contender], count: int, seconds: float) -> Timings:
    """Let each load all plugins, by turns; the timings are of one plugin."""
    for run in contenders.values():
        run()
    time.sleep(2.6)  # until the sources are older than the resolution of their time stamps
    took: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + seconds
    with pinned():
        while len(took["floor"]) < 2 or time.perf_counter() < end:
            for name, run in contenders.items():
                with quiet():
                    took[name].append(run() / count * 1e9)
    return Timings(took)


def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure with few plugins, with all of the contenders; then with many, that it is linear."""
    few = given.plugins if given.seconds >= 10 else given.plugins // 10
    with tempfile.TemporaryDirectory() as made:
        contenders = contenders_of(Path(made), few)
        if (node := fastify(few)) is not None:
            contenders["Fastify 5 (Node)"] = node
        else:
            report.say("Fastify was not measured: it needs node and npm.")
        progress(f"{few} plugins")
        timings = take_turns(contenders, few, given.seconds / 2)
    rows = [
        [
            name,
            f"{timings.median(name) / 1000:.0f} µs",
            f"{timings.ratio(name, 'floor'):.2f}×",
            f"{timings.ratio_of_fastest(name, 'floor'):.2f}×",
        ]
        for name in contenders
    ]
    report.table([f"{few:,} plugins", "each", "by the floor", "fastest by fastest"], rows)
    many = few * 5
    with tempfile.TemporaryDirectory() as made:
        progress(f"{many} plugins")
        all_of_it = contenders_of(Path(made), many)
        names = (
            "floor", "load_all_plugins", "the same at first use", "importlib.import_module",
        )  # fmt: skip
        more = take_turns({name: all_of_it[name] for name in names}, many, given.seconds / 2)
    mine, theirs = "load_all_plugins", "importlib.import_module"
    grown = more.median(mine) / timings.median(mine)
    report.goals(
        "load_all_plugins",
        [
            report.goal(f"{few:,} plugins, by the floor", timings.ratio(mine, "floor"), most=6),
            report.goal(f"{many:,} plugins, by the floor", more.ratio(mine, "floor"), most=6),
            report.goal(f"{few:,} plugins, by {theirs}", timings.ratio(mine, theirs), most=1),
            report.goal(
                f"{few:,} plugins at first use, by the floor",
                timings.ratio("the same at first use", "floor"),
                most=2,
            ),
            report.goal(f"one of {many:,} plugins, by one of {few:,}", grown, most=1.3),
        ],
    )


if __name__ == "__main__":
    script(
        measure,
        seconds=14,
        options=lambda parser: parser.add_argument("--plugins", type=int, default=1000),
    )
