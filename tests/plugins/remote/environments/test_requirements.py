"""What a plugin needs: how it says so, and whether the host has it; where uv looks."""

from importlib.metadata import version
from pathlib import Path

import pytest

from veko import LoadError
from veko_plugins.discovery import Discovery
from veko_plugins.remote.environments import Requirements, requirements_of
from veko_plugins.remote.environments.index import index_variables

PLUGIN = "name, version = 'shop', '1'\ndef load(): ...\n"


def said(folder: Path) -> Requirements:
    (source,) = Discovery(folder, group=None).scan().sources
    return requirements_of(source) if source.requires else Requirements()


def script(*lines: str) -> str:
    return "\n".join(["# /// script", *(f"# {line}".rstrip() for line in lines), "# ///", PLUGIN])


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (['dependencies = ["idna>=3", "attrs"]'], Requirements(("attrs", "idna>=3"))),
        (['requires-python = ">=3.11"', "dependencies = []"], Requirements((), ">=3.11")),
        (["dependencies = [", '  "idna>=3",', "", "]"], Requirements(("idna>=3",))),
        (['dependencies = ["veko>=2"]'], Requirements()),
    ],
)
def test_a_file_says_it_in_a_block(tmp_path: Path, lines: list[str], found: Requirements) -> None:
    tmp_path.joinpath("shop.py").write_text(script(*lines))
    assert said(tmp_path) == found


def test_a_file_without_a_block_needs_nothing(tmp_path: Path) -> None:
    tmp_path.joinpath("shop.py").write_text(PLUGIN)
    assert said(tmp_path) == Requirements()


def test_a_folder_says_it_in_its_files(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    shop.joinpath("__init__.py").write_text(PLUGIN)
    assert said(tmp_path) == Requirements()
    shop.joinpath("requirements.txt").write_text(
        "# what it needs\nidna >= 3  # or later\n\nattrs; \\\n  python_version > '3'\n"
    )
    shop.joinpath("pyproject.toml").write_text(
        '[project]\nname = "shop"\nrequires-python = ">=3.10"\ndependencies = ["click[a]>8"]\n'
    )
    assert said(tmp_path) == Requirements(
        ('attrs; python_version > "3"', "click[a]>8", "idna>=3"), ">=3.10"
    )


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (script('dependencies = ["!"]'), "'!' is not a requirement"),
        (script('dependencies = "idna"'), "`dependencies` is not a list"),
        (script("dependencies = ["), "(?i)unclosed|invalid|expected"),
        (script('requires-python = "three"'), "requires-python"),
        (script("dependencies = []") * 2, "several `# /// script` blocks"),
    ],
)
def test_what_cannot_be_read_is_an_error(tmp_path: Path, text: str, wrong: str) -> None:
    tmp_path.joinpath("shop.py").write_text(text)
    with pytest.raises(LoadError, match=wrong):
        said(tmp_path)


def test_options_are_no_requirements(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    shop.joinpath("__init__.py").write_text(PLUGIN)
    shop.joinpath("requirements.txt").write_text("-r others.txt\n")
    with pytest.raises(LoadError, match=r"'-r others\.txt' is an option"):
        said(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "missing"),
    [
        (f"msgspec=={version('msgspec')}", ""),
        ("msgspec>=0.1; python_version < '3'", ""),
        ("no-such-thing; sys_platform == 'nowhere'", ""),
        ("msgspec<0.1", f"msgspec<0.1 is wanted, {version('msgspec')} is installed here"),
        ("no-such-thing>=1", "no-such-thing is not installed here"),
        ("msgspec @ https://example.com/a.whl?token=x", "from https://example.com/a.whl"),
        ("anyio[trio]", ""),
    ],
)
def test_what_the_host_has(wanted: str, missing: str) -> None:
    found = Requirements((wanted,)).unmet()
    assert (missing in found[0]) if missing else not found


def test_another_python_is_unmet() -> None:
    assert "Python >=9 is wanted" in Requirements((), ">=9").unmet()[0]


def test_uv_looks_where_pip_looks(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://a.example/simple\n"
        "extra-index-url = https://b.example/simple\n  https://c.example/simple\n"
        "[install]\nfind-links = /wheels\n"
    )
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "none")}
    found = index_variables({**environ, "PIP_CONFIG_FILE": str(config), "PIP_CERT": "/ca.pem"})
    assert (
        found
        | {
            "UV_DEFAULT_INDEX": "https://a.example/simple",
            "UV_INDEX": "https://b.example/simple https://c.example/simple",
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_FIND_LINKS": "/wheels",
            "SSL_CERT_FILE": "/ca.pem",
        }
        == found
    )
    own = index_variables({**environ, "PIP_CONFIG_FILE": str(config), "UV_INDEX_URL": "https://d"})
    assert "UV_DEFAULT_INDEX" not in own
