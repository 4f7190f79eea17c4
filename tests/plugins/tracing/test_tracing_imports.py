"""What is imported of OpenTelemetry: only what the options ask for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

STARTED = """
import asyncio, json, sys
from veko_plugins import PluginManager

async def main():
    options = json.loads(sys.argv[2])
    async with PluginManager(root=sys.argv[1], auto_load=False, storage="memory:", **options):
        print(json.dumps(sorted(sys.modules)))

asyncio.run(main())
"""
TRACING = {"plugins": {"tracing": {"sample": 0}}}
TO_COLLECTOR = {"plugins": {"tracing": {"sample": 0, "otlp": "http://127.0.0.1:9"}}}
OTLP = {"otlp": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("options", "tracing", "telemetry"),
    [
        pytest.param({}, False, False, id="default"),
        pytest.param(TRACING, True, False, id="tracing"),
        pytest.param(TO_COLLECTOR, True, False, id="tracing-to-a-collector"),
        pytest.param(OTLP | {"enable_metrics": False}, True, False, id="otlp-without-metrics"),
        pytest.param(OTLP, True, True, id="otlp"),
    ],
)
def test_only_what_the_options_ask_for(
    tmp_path: Path, options: dict[str, object], tracing: bool, telemetry: bool
) -> None:
    command = [sys.executable, "-c", STARTED, str(tmp_path), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = set(json.loads(done.stdout))
    assert ("veko_plugins.tracing" in found, "opentelemetry.sdk.trace" in found) == (tracing,) * 2
    assert ("opentelemetry" in found) == (tracing or telemetry)
    assert ("veko_plugins.telemetry" in found) == telemetry
    assert ("opentelemetry.sdk.metrics" in found) == telemetry
    exporters = [name for name in found if name.startswith("opentelemetry.exporter.")]
    assert bool(exporters) == telemetry
