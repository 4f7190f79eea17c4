"""Names of plugins to generate: what is refused, and what is proposed instead."""

import keyword
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import veko
from veko_plugins import PluginManager, ScaffoldError
from veko_plugins.scaffold import check_name
from veko_plugins.scaffold.names import CORE, LONGEST

WRONG = [
    ("", "is empty", "'my-plugin'"),
    ("My Shop", "lower-case", "Did you mean 'my-shop'"),
    ("../../etc/passwd", "lower-case", "'etc-passwd'"),
    ("/tmp/shop", "lower-case", "'tmp-shop'"),
    ("C:\\shop", "lower-case", "'c-shop'"),
    ("..", "lower-case", "'my-plugin'"),
    ("a/b", "lower-case", "'a-b'"),
    ("shop\0", "lower-case", "'shop'"),
    ("shop\n", "lower-case", "'shop'"),
    ("-rf", "lower-case", "'rf'"),
    ("shop-", "lower-case", "'shop'"),
    ("_shop", "lower-case", "'shop'"),
    ("Café Ünïcode", "lower-case", "'cafe-unicode'"),
    ("商店", "lower-case", "'my-plugin'"),
    ("\uff53\uff48\uff4f\uff50", "lower-case", "'shop'"),
    ("sh\u202eop", "lower-case", "'sh-op'"),
    ("\ud800", "lower-case", "'my-plugin'"),
    ("3d-viewer", "no Python identifier", "'plugin-3d-viewer'"),
    ("class", "keyword", "'class-plugin'"),
    ("storage", "core plugin", "'storage-plugin'"),
    ("json", "standard library", "'json-plugin'"),
    ("veko", "reserved", "'my-veko'"),
    ("tests", "reserved", "'tests-plugin'"),
    ("con", "Windows", "'con-plugin'"),
    ("nul.txt", "Windows", "'my-nul.txt'"),
    ("pytest", "installed module", "'pytest-plugin'"),
    ("a" * 41, "41 characters", f"'{'a' * 40}'"),
    ("a" * 100_000, "100000 characters", f"'{'a' * 40}'"),
]


@pytest.mark.parametrize(("name", "why", "near"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_name_is_refused_with_a_proposal(name: str, why: str, near: str) -> None:
    with pytest.raises(ScaffoldError) as caught:
        check_name(name)
    assert why in caught.value.message
    assert near in (caught.value.remedy or "")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", [None, 5, b"shop", ["shop"]], ids=str)
def test_what_is_no_text_is_refused(name: object) -> None:
    with pytest.raises(ScaffoldError, match="it is no text"):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "module"),
    [("shop", "shop"), ("my-shop", "my_shop"), ("my.shop_2", "my_shop_2"), ("x" * 40, "x" * 40)],
)
def test_names_that_are_valid(name: str, module: str) -> None:
    assert check_name(name).module == module


@given(st.text(max_size=60) | st.sampled_from([*CORE, *keyword.kwlist, "json", "3d", "a" * 50]))
def test_a_proposal_is_valid(text: str) -> None:
    try:
        name = check_name(text)
    except ScaffoldError as error:
        found = re.search(r"Did you mean '([^']*)'\?", error.remedy or "")
        if found is None:
            return
        name = check_name(found[1])
    assert name.module.isidentifier()
    assert len(name.name) <= LONGEST
    made = {"name": name.name, "version": "1.0.0", "load": lambda: None}
    assert veko.as_plugin(made).manifest.name == name.name


async def test_the_names_of_core_plugins_are_reserved(tmp_path: Path) -> None:
    async with PluginManager(
        root=tmp_path, watch_mode=True, watchdog=1, probation=1, otlp="http://localhost:1",
        auth=True, cache="memory:", database="sqlite:///x.db", openapi="/docs", enable_api=True,
        dev_mode=True, plugins={"recording": {}},
    ) as manager:  # fmt: skip
        core = {info.name for info in manager.list_plugins(core=True)}
    assert {"activation", "console", "ledger", "recording"} < core
    assert core - {"admin"} <= CORE
