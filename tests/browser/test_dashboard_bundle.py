"""The dashboard's built files: what the sources build to, and small."""

import gzip
from pathlib import Path

import pytest

from veko_plugins.admin.dashboard import ASSETS

from .dashboard_sources import installed, run


def test_the_committed_files_are_what_the_sources_build_to(tmp_path: Path) -> None:
    folder, built = installed(tmp_path / "dashboard"), tmp_path / "assets"
    done = run("node", "build.mjs", str(built), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in built.iterdir()) == sorted(
        path.name for path in ASSETS.iterdir()
    )
    for path in sorted(built.iterdir()):
        same = path.read_bytes() == ASSETS.joinpath(path.name).read_bytes()
        assert same, f"{path.name} is old: run `npm ci && npm run build` in dashboard/"


@pytest.mark.parametrize(("name", "most"), [("app.js", 40_000), ("app.css", 8_000)])
def test_the_built_files_stay_small(name: str, most: int) -> None:
    assert len(gzip.compress(ASSETS.joinpath(name).read_bytes(), 9)) < most


def test_libraries_of_some_views_are_files_of_their_own() -> None:
    script = ASSETS.joinpath("app.js").read_text("utf-8")
    names = sorted(path.name for path in ASSETS.glob("*.*.js"))
    assert [name.partition(".")[0] for name in names] == ["layout", "plot"]
    for name in names:
        assert f'import("./{name}")' in script
        assert len(gzip.compress(ASSETS.joinpath(name).read_bytes(), 9)) < 25_000


def test_the_page_asks_nobody_else_for_anything() -> None:
    page = ASSETS.joinpath("index.html").read_text("utf-8")
    assert "http://" not in page
    assert "https://" not in page
    style = ASSETS.joinpath("app.css").read_text("utf-8")
    assert "url(" not in style
    assert "@import" not in style


def test_the_licences_of_the_libraries_go_with_them() -> None:
    text = ASSETS.joinpath("LICENSES.txt").read_text("utf-8")
    for library in ("preact", "htm", "uplot", "@dagrejs/dagre"):
        assert f"\n{library} " in f"\n{text}"
