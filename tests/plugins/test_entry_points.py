"""Entry points are read once, and again as soon as a distribution comes or goes."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from veko_plugins._lib import entry_points
from veko_plugins._lib.entry_points import find_entry_points

GROUP = "veko.tests"


def install(folder: Path, name: str) -> Path:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = module:plugin\n")
    return info


def names() -> list[str]:
    return sorted(point.name for point in find_entry_points(GROUP))


def settle() -> None:
    """Let all that changed have changed a while ago."""
    before = time.time() - 60
    for path in sys.path:
        if os.path.exists(path) and os.stat(path).st_mtime > before:  # noqa: PTH110, PTH116
            os.utime(path, (before, before))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often they were read."""
    found: list[int] = []

    def read(**given: Any) -> Any:
        found.append(1)
        return metadata.entry_points(**given)

    monkeypatch.setattr(entry_points, "entry_points", read)
    monkeypatch.setattr(entry_points, "_known", {})
    return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    install(folder, "one")
    monkeypatch.setattr(sys, "path", [str(folder), str(tmp_path / "missing")])
    settle()
    return folder


def test_they_are_read_once(site: Path, reads: list[int]) -> None:
    assert [names() for _ in range(5)] == [["one"]] * 5
    assert find_entry_points("veko.others") == ()
    assert len(reads) == 1


@pytest.mark.parametrize("settled", [True, False], ids=["later", "at-once"])
def test_what_comes_and_goes_is_seen(site: Path, reads: list[int], settled: bool) -> None:
    def after(change: Callable[[], object]) -> list[str]:
        change()
        if settled:
            settle()
            os.utime(site, ns=(0, site.stat().st_mtime_ns + 1_000_000 * len(reads)))
        return names()

    assert names() == ["one"]
    assert after(lambda: install(site, "two")) == ["one", "two"]
    assert after(lambda: shutil.rmtree(site / "one-1.0.dist-info")) == ["two"]
    assert after(lambda: install(site, "three")) == ["three", "two"]


def test_another_folder_on_the_path_is_seen(site: Path, reads: list[int], tmp_path: Path) -> None:
    assert names() == ["one"]
    install(tmp_path / "missing", "late")  # it was on the path already
    settle()
    assert names() == ["late", "one"]
    install(tmp_path / "other", "other")
    sys.path.append(str(tmp_path / "other"))
    settle()
    assert names() == ["late", "one", "other"]
    sys.path.remove(str(site))
    assert names() == ["late", "other"]
    assert len(reads) == 4


def test_a_recent_change_is_not_trusted(site: Path, reads: list[int]) -> None:
    os.utime(site)
    assert names() == names() == ["one"]
    assert len(reads) == 2


def test_a_finder_that_comes_is_asked(
    site: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder(metadata.DistributionFinder):
        def find_distributions(self, context: Any = None) -> Any:
            return [metadata.Distribution.at(site / "one-1.0.dist-info")]

        def find_spec(self, *_: Any) -> None:
            return None

    shutil.move(site / "one-1.0.dist-info", site / "gone")
    settle()
    assert names() == []
    shutil.move(site / "gone", site / "one-1.0.dist-info")
    shutil.rmtree(site / "one-1.0.dist-info" / "nothing", ignore_errors=True)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert names() == ["one"]
