"""Finding scripts: which files and folders are plugins, and what they say of themselves unrun."""

import json
from pathlib import Path
from typing import Any

import pytest

from veko import ConflictError, ManifestError, NotFoundError
from veko_plugins._source.packages import main_file
from veko_plugins.discovery import Discovery, Found, Source

SEED = """
// plugins/mon-plugin.js
module.exports = {
  // Métadonnées obligatoires
  name: 'mon-plugin',
  version: "1.0.0",
  description: `d'un plugin`,
  author: 'Votre nom', /* et { } */
  dependencies: ['autre-plugin'],           // Plugins requis
  peerDependencies: ['express', 'lodash'],
  defaultConfig: { enabled: true, option2: -4.5, 'deep': { list: [1, null,] } },
  permissions: ['read:files', 'write:database'],
  priority: 20,
  onCrash: 'open',
  /** @param {Object} app */
  async load(app, config, context) {
    const url = `${app.name}/}`.replace(/[}\\/]/g, "\\"");
    context.addRoute('GET', '/x', (req, res) => { res.json({ name: 'no' }); });
  },
  unload: async () => { return 1 / 2; },
};
"""


def folder_of(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return tmp_path


def scan(folder: Path, **options: Any) -> Found:
    return Discovery(folder, group=None, **options).scan()


def one(folder: Path) -> Source:
    found = scan(folder)
    assert [str(problem.error) for problem in found.problems] == []
    (source,) = found.sources
    return source


def package(**table: Any) -> str:
    return json.dumps(table)


def test_T1_files_and_folders_beside_python(tmp_path: Path) -> None:
    folder_of(
        tmp_path,
        **{
            "a.py": "name, version = 'a', '1'\ndef load(): ...",
            "plugin1.js": "", "plugin2.ts": "", "b.mjs": "", "c.cjs": "", "d.mts": "", "e.cts": "",
            "types.d.ts": "", "_shared.js": "", ".hidden.ts": "", "notes.json": "{}",
            "plugin3/index.ts": "", "plugin3/package.json": package(name="p3", version="3.0.0"),
            "plugin4/index.js": "", "plugin5/src/go.ts": "",
            "plugin5/package.json": package(main="./src/go"),
            "node_modules/lodash/package.json": package(main="index.js"),
            "node_modules/lodash/index.js": "", "node_modules/index.js": "",
            "other/package.json": package(name="something-else"), "broken/package.json": "{",
            "python/__init__.py": "name, version = 'python', '1'\ndef load(): ...",
            "python/index.js": "",
        },
    )  # fmt: skip
    found = scan(tmp_path)
    assert found.problems == ()
    kinds = {
        source.path.name: (source.kind, source.file.name)
        for source in found.sources
        if source.path is not None and source.file is not None
    }
    assert kinds == {
        "a.py": ("file", "a.py"), "b.mjs": ("script", "b.mjs"), "c.cjs": ("script", "c.cjs"),
        "d.mts": ("script", "d.mts"), "e.cts": ("script", "e.cts"),
        "plugin1.js": ("script", "plugin1.js"), "plugin2.ts": ("script", "plugin2.ts"),
        "plugin3": ("script", "index.ts"), "plugin4": ("script", "index.js"),
        "plugin5": ("script", "go.ts"), "python": ("package", "__init__.py"),
    }  # fmt: skip
    names = {source.path.name: source.name for source in found.sources if source.path is not None}
    assert names["plugin3"] == "p3"
    assert names["plugin2.ts"] == "plugin2"
    assert all(main_file(s.path) == s.file for s in found.sources if s.path is not None)


def test_a_manifest_is_read_without_running_the_script(tmp_path: Path) -> None:
    source = one(folder_of(tmp_path, **{"mon-plugin.js": SEED}))
    assert source.outline is not None
    assert source.outline.fields == {
        "name": "mon-plugin", "version": "1.0.0", "description": "d'un plugin",
        "author": "Votre nom", "dependencies": ["autre-plugin"],
        "peer_dependencies": ["express", "lodash"],
        "default_config": {"enabled": True, "option2": -4.5, "deep": {"list": [1, None]}},
        "permissions": ["read:files", "write:database"], "priority": 20, "on_crash": "open",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("export = {\n  name: 'a', version: '1', async load(app: any): Promise<void> {} };", "a"),
        ("export default {\n name: 'a', version: '1' as const, load() {} } satisfies Plugin;", "a"),
        ("const p: Plugin = { name: 'a', version: '1', load };\nexport default p;\n", "a"),
        ("const p = { name: 'a', version: '1' };\nmodule.exports = p\n", "a"),
        (r"module.exports = { name: 'a\u0062\x63', version: '1' }", "abc"),
        # In doubt there is nothing:
        ("module.exports = { name: NAME, version: '1' }", None),
        ("module.exports = { ...base, name: 'a', version: '1' }", None),
        ("module.exports = { name: 'a', version: '1', [key]: 2 }", None),
        ("const name = 'a';\nmodule.exports = { name, version: '1' }", None),
        ("module.exports = { name: 'a', version: '1' };\nmodule.exports.name = 'b'", None),
        ("if (x) module.exports = { name: 'a', version: '1' }", None),
        ("module.exports = make({ name: 'a', version: '1' })", None),
        ("module.exports = { name: 'a', version: '1'", None),
        ("exports.name = 'a';\nexports.version = '1'", None),
        ("export const name = 'a';\nexport const version = '1'", None),
        ("module.exports = { name: 'a' + b, version: '1' }", None),
        ("module.exports = { name: 'a', version: '1' }\nmodule.exports = {}", None),
        ("module.exports = { name: 'a', version: `${x}` }", None),
        ("module.exports = { name: 'a', version: '1', a: `${`}`}` }", None),
        ("module.exports = " + "{ a: " * 2_000, None),
    ],
)
def test_what_a_script_spells_out(tmp_path: Path, text: str, name: str | None) -> None:
    source = one(folder_of(tmp_path, **{"file.ts": text}))
    assert (source.outline.name if source.outline else None) == name
    assert source.name == (name or "file")


def test_package_json_fills_in_what_the_script_leaves_out(tmp_path: Path) -> None:
    text = package(
        name="@acme/shop",
        version="2.1.0",
        description="sells",
        author={"name": "A", "email": "a@b.c"},
        license={"type": "MIT"},
        homepage="https://acme.example",
        repository={"type": "git", "url": "https://acme.example/shop.git"},
        engines={"node": ">=18", "npm": ">=9"},
        dependencies={"lodash": "^4"},
        peerDependencies={"express": "^4", "redis": "*"},
        scripts={"build": "tsc"},
        veko={
            "dependencies": {"db": "^2"}, "defaultConfig": {"a": 1}, "permissions": ["net:connect"],
            "onCrash": "closed", "isolation": "process", "required": True, "priority": 3,
        },
    )  # fmt: skip
    source = one(folder_of(tmp_path, **{"shop/package.json": text, "shop/index.ts": "x"}))
    assert source.fields == {
        "name": "shop", "version": "2.1.0", "description": "sells", "author": "A <a@b.c>",
        "license": "MIT", "homepage": "https://acme.example",
        "repository": "https://acme.example/shop.git", "engines": {"node": ">=18"},
        "peer_dependencies": ["express@^4", "redis"], "dependencies": ["db@^2"],
        "default_config": {"a": 1}, "permissions": ["net:connect"], "on_crash": "closed",
        "isolation": "process", "required": True, "priority": 3,
    }  # fmt: skip
    (tmp_path / "shop/index.ts").write_text("export = { version: '3', load() {} }")
    outline = one(tmp_path).outline
    assert outline is not None
    assert (outline.name, outline.version, outline.dependencies) == ("shop", "3", ("db@^2",))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"p/package.json": "[]", "p/index.js": ""}, "it is not an object"),
        ({"p/package.json": "{", "p/index.js": ""}, "package.json cannot be read: Input data"),
        ({"p/package.json": package(veko=3), "p/index.js": ""}, "veko is not an object"),
        (
            {"p/package.json": package(veko={"permisions": []}), "p/index.js": ""},
            "veko.permisions is not a field. Did you mean 'permissions'",
        ),
        ({"p/package.json": package(veko={}, main="gone.js")}, "package.json leads to no script"),
        ({"p/package.json": package(veko={}, main="../out.js")}, "package.json leads to no script"),
    ],
)
def test_package_json_that_is_wrong(tmp_path: Path, files: dict[str, str], message: str) -> None:
    found = scan(folder_of(tmp_path, **files))
    assert found.sources == ()
    (problem,) = found.problems
    assert problem.name == "p"
    assert isinstance(problem.error, ManifestError)
    assert message in str(problem.error)


def test_names_clash_as_those_of_python_plugins_do(tmp_path: Path) -> None:
    files = {"a.py": "name = 'shop'\nversion = '1'\ndef load(): ...", "b.js": SEED, "c.ts": SEED}
    found = scan(folder_of(tmp_path, **files))
    assert [source.name for source in found.sources] == ["shop", "mon-plugin"]
    (problem,) = found.problems
    assert isinstance(problem.error, ConflictError)
    assert "two plugins are named 'mon-plugin'" in str(problem.error)


def test_a_script_is_found_by_its_name_and_by_its_path(tmp_path: Path) -> None:
    files = {
        "mon-plugin.js": SEED,
        "x/index.ts": "",
        "named.ts": "export = { name: 'n', version: '1' }",
    }
    discovery = Discovery(folder_of(tmp_path, **files), group=None)
    for wanted in ("mon-plugin", tmp_path / "mon-plugin.js", "n", "x", str(tmp_path / "x")):
        assert discovery.find(wanted).kind == "script"
    with pytest.raises(NotFoundError):
        discovery.find("types")


def test_a_script_that_a_link_brings_in_is_refused(tmp_path: Path) -> None:
    outside = folder_of(tmp_path / "outside", **{"a.js": SEED, "package.json": package(name="z")})
    plugins = folder_of(tmp_path / "plugins", **{"p/x.js": ""})
    (plugins / "a.js").symlink_to(outside / "a.js")
    (plugins / "p" / "index.js").symlink_to(outside / "a.js")
    found = scan(plugins)
    assert found.sources == ()
    assert sorted(problem.name for problem in found.problems) == ["a", "p"]
    assert len(scan(plugins, allow_symlinks=True).sources) == 1  # both have one name


def test_scripts_that_are_passed_over_are_named_once(tmp_path: Path) -> None:
    files = {"a.js": SEED, "b/index.ts": "", "c/package.json": "{}", "d.py": ""}
    discovery = Discovery(folder_of(tmp_path, **files), group=None, scripts="no runtime")
    assert [source.name for source in discovery.scan().sources] == ["d"]
    assert discovery.passed_over() == [
        f"{tmp_path / 'a.js'} is passed over: no runtime",
        f"{tmp_path / 'b'} is passed over: no runtime",
    ]
    assert discovery.passed_over() == []
    with pytest.raises(NotFoundError, match="It is a script: no runtime"):
        discovery.find(tmp_path / "a.js")
