"""Commands that change the running application, and what lasts over a restart."""

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

SHOP = """
import sys
from typing import Annotated

import msgspec

name = "shop"
version = "1.0.0"


class Settings(msgspec.Struct):
    currency: str = "EUR"
    limit: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10


config_schema = Settings


def load(context):
    print("shop is loaded", flush=True)
    context.add_route("GET", "/price", lambda: {"currency": context.config.currency})
    context.add_command("quote", quote, "Quotes a price")
    context.add_command("leave", leave)


def leave(code: int) -> None:
    sys.exit(code)


def quote(item: str, *, times: int = 1) -> str:
    return " ".join([f"{item} costs nothing"] * times)
"""
CART = """
name = "cart"
version = "1.0.0"
dependencies = ["shop"]


def load(context):
    context.add_route("GET", "/cart", lambda: "empty")
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    (root / "plugins").mkdir(parents=True)
    (root / "plugins" / "shop.py").write_text(SHOP)
    (root / "plugins" / "cart.py").write_text(CART)
    return root


@pytest.fixture
def serve(start: Callable[..., Any], shop: Path) -> Callable[..., Any]:
    @contextmanager
    def served(*words: str) -> Iterator[str]:
        running = start("serve", "--port", "0", *words, cwd=shop)
        yield str(running.wait_for(r"Listening on (http://[\d.:]+)")[1])
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0, running.text

    return served


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def states(veko: Run, shop: Path) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(veko("list", "--json", shop).stdout)}


def test_a_plan_changes_nothing_and_undo_takes_back(veko: Run, serve: Any, shop: Path) -> None:
    with serve():
        refused = veko("toggle", "shop", "--off", cwd=shop)
        assert refused.returncode == 1
        assert "cart need it" in refused.stderr
        assert "--cascade" in refused.stderr
        words = ("toggle", "shop", "--off", "--cascade")
        planned = veko(*words, "--plan", cwd=shop)
        assert planned.returncode == 0
        assert planned.stdout.splitlines()[:5] == [
            "toggle shop: would happen",
            "  cart 1.0.0 is switched off",
            "  shop 1.0.0 is switched off",
            "  - route GET /cart",
            "  - route GET /price",
        ]
        assert states(veko, shop) == {"shop": "active", "cart": "active"}
        done = veko(*words, cwd=shop)
        assert done.returncode == 0, done.stderr
        assert "toggle shop: done" in done.stdout
        taken = re.search(r"Take it back with: veko undo (\w+)", done.stdout)
        assert taken is not None
        assert states(veko, shop) == {"shop": "inactive", "cart": "inactive"}
        listed = veko("changes", cwd=shop).stdout
        assert re.search(rf"{taken[1]} +\d\d:\d\d:\d\d +toggle +shop +.*possible", listed)
        assert "would happen" in veko("undo", "--plan", cwd=shop).stdout
        undone = veko("undo", taken[1], cwd=shop)
        assert undone.returncode == 0, undone.stderr
        assert states(veko, shop) == {"shop": "active", "cart": "active"}
        again = veko("undo", taken[1], cwd=shop)
        assert again.returncode == 1
        rows = json.loads(veko("changes", "--json", cwd=shop).stdout)
        assert [row["verb"] for row in rows] == ["undo", "toggle"]
        assert veko("undo", cwd=shop).stderr.splitlines()[-1] == (
            "veko: there is nothing to take back"
        )


def test_switching_off_lasts_over_restarts(veko: Run, serve: Any, shop: Path) -> None:
    with serve():
        assert veko("toggle", "cart", cwd=shop).returncode == 0
    with serve():
        assert states(veko, shop)["cart"] in ("off", "inactive")
        assert veko("toggle", "cart", "--on", cwd=shop).returncode == 0
        assert states(veko, shop)["cart"] == "active"
        assert veko("unload", "cart", cwd=shop).returncode == 0
        assert veko("config", "shop", "currency", "USD", cwd=shop).returncode == 0
    with serve() as url:
        assert states(veko, shop) == {"shop": "active", "cart": "off"}
        assert get(f"{url}/price") == {"currency": "USD"}
        done = veko("load", "cart", "--json", cwd=shop)
        assert json.loads(done.stdout)["verb"] == "load"
    with serve():
        assert states(veko, shop) == {"shop": "active", "cart": "active"}


def test_config_is_shown_and_set_and_its_faults_are_named(
    veko: Run, serve: Any, shop: Path
) -> None:
    with serve() as url:
        shown = veko("config", "shop", cwd=shop)
        assert json.loads(shown.stdout) == {"currency": "EUR", "limit": 10}
        assert json.loads(veko("config", "shop", "limit", cwd=shop).stdout) == 10
        planned = veko("config", "shop", "currency", "CHF", "--plan", cwd=shop)
        assert "  currency changes" in planned.stdout
        assert get(f"{url}/price") == {"currency": "EUR"}
        assert veko("config", "shop", "currency", "CHF", cwd=shop).returncode == 0
        assert get(f"{url}/price") == {"currency": "CHF"}
        wrong = veko("config", "shop", "limit", "1000", cwd=shop)
        assert wrong.returncode == 1
        assert "  limit: " in wrong.stderr
        assert veko("config", "shop", ".", '{"limit": 7}', cwd=shop).returncode == 0
        assert json.loads(veko("config", "shop", cwd=shop).stdout) == {
            "currency": "EUR",
            "limit": 7,
        }
        assert veko("config", "shop", "limit", "--delete", cwd=shop).returncode == 0
        assert json.loads(veko("config", "shop", "limit", cwd=shop).stdout) == 10
        assert veko("config", "shop", "--delete", cwd=shop).returncode == 2
        assert "no plugin named 'shap'" in veko("config", "shap", cwd=shop).stderr


def test_reload_runs_the_new_code_and_keeps_the_old_one_if_that_fails(
    veko: Run, serve: Any, shop: Path
) -> None:
    with serve() as url:
        file = shop / "plugins" / "shop.py"
        file.write_text(SHOP.replace("costs nothing", "costs more"))
        done = veko("reload", "shop", cwd=shop)
        assert (done.returncode, "reload shop: done" in done.stdout) == (0, True), done.stderr
        assert veko("run", "quote", "tea", cwd=shop).stdout == "tea costs more\n"
        file.write_text(SHOP.replace('print("shop is loaded", flush=True)', "raise ValueError(1)"))
        failed = veko("reload", "shop", cwd=shop)
        assert failed.returncode == 1
        assert "ValueError: 1" in failed.stderr
        assert get(f"{url}/price") == {"currency": "EUR"}


def test_run_runs_there(veko: Run, serve: Any, shop: Path) -> None:
    with serve():
        done = veko("run", "quote", "tea", "--times", "2", cwd=shop)
        assert (done.returncode, done.stdout) == (0, "tea costs nothing tea costs nothing\n")
        assert "by the running application" in done.stderr
        assert "shop is loaded" not in done.stdout + done.stderr
        assert veko("run", "leave", "3", cwd=shop).returncode == 3
        assert veko("run", "quote", cwd=shop).returncode == 2
        assert veko("run", "quite", cwd=shop).returncode == 2
        assert "--times INTEGER" in veko("run", "quote", "--help", cwd=shop).stdout
        assert "quote  Quotes a price" in veko("run", cwd=shop).stdout
        listed = json.loads(veko("run", "--json", cwd=shop).stdout)
        assert [one["name"] for one in listed] == ["leave", "quote"]


def test_backup_and_restore_of_the_one_that_runs(
    veko: Run, serve: Any, shop: Path, tmp_path: Path
) -> None:
    with serve():
        made = veko("backup", shop, tmp_path / "one.jsonl")
        assert (made.returncode, made.stdout) == (0, f"{tmp_path / 'one.jsonl'}\n"), made.stderr
        assert "exists" in veko("backup", shop, tmp_path / "one.jsonl").stderr
        assert veko("config", "shop", "limit", "50", cwd=shop).returncode == 0
        planned = veko("restore", tmp_path / "one.jsonl", shop, "--plan")
        assert "restore one.jsonl: would happen" in planned.stdout
        done = veko("restore", tmp_path / "one.jsonl", shop)
        assert done.returncode == 0, done.stderr
        assert json.loads(veko("config", "shop", "limit", cwd=shop).stdout) == 10
        assert veko("undo", cwd=shop).returncode == 0
        assert json.loads(veko("config", "shop", "limit", cwd=shop).stdout) == 50
        assert veko("restore", tmp_path / "none.jsonl", shop).returncode == 1
    assert veko("restore", tmp_path / "one.jsonl", shop, "--plan").returncode == 3


def test_a_change_is_made_in_all_workers(veko: Run, serve: Any, shop: Path) -> None:
    (shop / "veko.toml").write_text('storage = "none"\n')
    with serve("--workers", "2") as url:
        status = json.loads(veko("status", "--json", cwd=shop).stdout)
        assert len(status["workers"]) == 2
        assert veko("config", "shop", "currency", "CHF", cwd=shop).returncode == 0
        found = {get(f"{url}/price")["currency"] for _ in range(40)}
        assert found == {"CHF"}
        change = json.loads(veko("changes", "--json", cwd=shop).stdout)[0]
        assert sorted(change["workers"]) == sorted(status["workers"])


@pytest.mark.parametrize("name", ["../shop", "shop/../x", "a b", "é%2f", ".", "?plan=1"])
def test_odd_names_are_no_plugins(veko: Run, serve: Any, shop: Path, name: str) -> None:
    with serve():
        done = veko("reload", name, cwd=shop)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert states(veko, shop) == {"shop": "active", "cart": "active"}


SHELF = 'print("imported")\nname, version = "shelf", "1.0"\ndef load(context): pass\n'


@pytest.mark.parametrize("point", ["shelf", "other"])
def test_an_installed_plugin_is_left_out_by_name(
    veko: Run, shop: Path, tmp_path: Path, point: str
) -> None:
    site = tmp_path / "site"
    info = site / "shelf-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "shelf_module.py").write_text(SHELF)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[veko.plugins]\n{point} = shelf_module\n")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])

    def listed() -> tuple[dict[str, str], str]:
        done = veko("list", "--json", shop, PYTHONPATH=path)
        return {row["name"]: row["state"] for row in json.loads(done.stdout)}, done.stderr

    assert listed()[0]["shelf"] == "active"
    for name in sorted({"shelf", point}):
        (shop / "veko.toml").write_text(f"[plugins.{name}]\nenabled = false\n")
        found, printed = listed()
        assert found[name] == "off"
        assert "active" not in (found.get("shelf"), found.get("other"))
        # The name of the entry point is enough to leave it alone.
        assert ("imported" in printed) is (name != point)
