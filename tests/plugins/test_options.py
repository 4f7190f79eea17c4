"""Options: defaults, what outweighs what, and every fault at once."""

import importlib.util
import os
from pathlib import Path

import pytest

from veko import OptionError
from veko_plugins.options import Options

EMPTY: dict[str, str] = {}


def test_o_defaults(tmp_path: Path) -> None:
    options = Options.read(tmp_path, environ=EMPTY)
    assert options.plugins_dir == (tmp_path / "plugins",)
    expected = {
        "auto_load": True,
        "support_typescript": importlib.util.find_spec("deno") is not None,
        "dev_mode": False,
        "watch_mode": False,
        "enable_metrics": True,
        "enable_validation": True,
        "allow_hot_reload": True,
        "max_retries": 3,
        "timeout": 30.0,
        "enable_sandbox": False,
        "enable_hooks": True,
        "enable_api": False,
        "ledger": False,
        "adapter": "litestar",
        "error_threshold": 10,
        "warn_threshold": 5,
        "strict_peers": False,
        "drain_timeout": 30.0,
        "probation": 0,
        "required": (),
        "core": {},
    }
    assert {name: getattr(options, name) for name in expected} == expected
    assert options.origins == {}
    assert options.state_dir == tmp_path / ".veko"


def test_o_the_current_directory_and_environment_count_if_nothing_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VEKO_TIMEOUT", "2.5")
    options = Options.read()
    assert (options.directory, options.timeout) == (tmp_path, 2.5)


def test_o_arguments_over_environment_over_files(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.veko]\nmax_retries = 1\ntimeout = 1\nadapter = 'asgi'\nprobation = 1.5\n"
        "[tool.veko.plugins.auth]\nsecret = 'a'\nlimits = { day = 1, hour = 2 }\n"
    )
    (tmp_path / "veko.toml").write_text(
        "max_retries = 2\ntimeout = 2\nadapter = 'starlette'\nplugins_dir = ['one', 'two']\n"
        "[plugins.auth]\nlimits.day = 5\n[plugins.db]\nurl = 'sqlite:'\n"
    )
    environ = {"VEKO_MAX_RETRIES": "3", "VEKO_TIMEOUT": "3", "HOME": "/"}
    options = Options.read(tmp_path, {"max_retries": 4}, environ=environ)
    assert (options.max_retries, options.timeout, options.adapter) == (4, 3.0, "starlette")
    assert options.probation == 1.5
    assert options.plugins_dir == (tmp_path / "one", tmp_path / "two")
    assert options.plugins == {
        "auth": {"secret": "a", "limits": {"day": 5, "hour": 2}},
        "db": {"url": "sqlite:"},
    }
    assert options.origins == {
        "max_retries": "argument",
        "timeout": "VEKO_TIMEOUT",
        "adapter": "veko.toml",
        "probation": "pyproject.toml",
        "plugins_dir": "veko.toml",
    }


def test_o_the_environment_is_text(tmp_path: Path) -> None:
    environ = {
        "VEKO_PLUGINS_DIR": os.pathsep.join(["here", "/there"]),
        "VEKO_DEV_MODE": "1",
        "VEKO_WATCH_MODE": "Yes",
        "VEKO_AUTO_LOAD": "off",
        "VEKO_REQUIRED": "auth, db",
        "VEKO_PROBATION": "7",
        "VEKO_STORAGE": "redis://localhost",
    }
    options = Options.read(tmp_path, environ=environ)
    assert options.plugins_dir == (tmp_path / "here", Path("/there"))
    assert (options.dev_mode, options.watch_mode, options.auto_load) == (True, True, False)
    assert options.required == ("auth", "db")
    assert options.probation == 7.0
    assert options.storage == "redis://localhost"


@pytest.mark.parametrize("given", ["here", Path("here"), ["here"], (Path("here"),)])
def test_o1_one_folder_or_several(tmp_path: Path, given: object) -> None:
    options = Options.read(tmp_path, {"plugins_dir": given}, environ=EMPTY)
    assert options.plugins_dir == (tmp_path / "here",)


def test_o14_objects_come_as_arguments(tmp_path: Path) -> None:
    adapter, storage = object(), object()
    given = {"adapter": adapter, "core": {"storage": storage, "metrics": None}}
    options = Options.read(tmp_path, given, environ=EMPTY)
    assert options.adapter is adapter
    assert options.core["storage"] is storage
    assert Options.read(tmp_path, {"adapter": None}, environ=EMPTY).adapter is None


def test_o_all_faults_at_once(tmp_path: Path) -> None:
    (tmp_path / "veko.toml").write_text(
        "max_retry = 2\nadapter = 3\n[plugins]\nauth = 1\ncore = {}\n"
    )
    environ = {"VEKO_MAX_RETRIES": "many", "VEKO_DEV_MODE": "perhaps"}
    arguments = {"timeout": 0, "drain_timeout": -1, "plugins_dir": 3, "colour": "red"}
    with pytest.raises(OptionError) as caught:
        Options.read(tmp_path, arguments, environ=environ)
    text = str(caught.value)
    for fault in (
        "9 faults",
        "'max_retry' (veko.toml) is not an option. Did you mean 'max_retries'",
        "adapter (veko.toml): expected `str`, got `int`; it is 3",
        "plugins.auth (veko.toml): expected a table, got int",
        "max_retries (VEKO_MAX_RETRIES): expected `int`, got `str`; it is 'many'",
        "dev_mode (VEKO_DEV_MODE): expected `bool`, got `str`; it is 'perhaps'",
        "timeout (argument): expected `float` > 0.0; it is 0",
        "drain_timeout (argument): expected `float` >= 0.0; it is -1",
        "plugins_dir (argument): expected `array`, got `int`; it is 3",
        "'colour' (argument) is not an option",
    ):
        assert fault in text


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("veko.toml", "x = \n", r"veko\.toml cannot be read: .*line 1"),
        (
            "pyproject.toml",
            "[tool]\nveko = 3\n",
            r"\[tool\.veko\] \(pyproject\.toml\) is not a table",
        ),
        (
            "veko.toml",
            "core = { storage = 1 }",
            "core .veko.toml. can only be given as an argument",
        ),
        ("veko.toml", "plugins = 3", "plugins .veko.toml.: expected a table of tables"),
        ("veko.toml", "dev_mode = 1", "dev_mode .veko.toml.: expected `bool`, got `int`"),
    ],
)
def test_o_files_that_are_wrong(tmp_path: Path, name: str, text: str, fault: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(OptionError, match=fault):
        Options.read(tmp_path, environ=EMPTY)


def test_o_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "veko.toml").write_bytes(b"x = '\xff'")
    with pytest.raises(OptionError, match=r"veko\.toml cannot be read: 'utf-8' codec"):
        Options.read(tmp_path, environ=EMPTY)


def test_o_an_unknown_variable_is_a_warning(tmp_path: Path) -> None:
    environ = {
        "VEKO_TIMOUT": "3",
        "VEKO_HUE": "red",
        "VEKO_PORT": "8080",
        "VEKO_PLUGINS": "{}",
        "VEKO_PLUGINS__GUARD": "{}",
        "VEKO_PLUGINS____TOKEN": "x",
        "VEKOTIMEOUT": "3",
    }
    options = Options.read(tmp_path, environ=environ)
    assert options.timeout == 30.0
    assert options.warnings == (
        "VEKO_TIMOUT is not an option. Did you mean 'VEKO_TIMEOUT'?",
        "VEKO_HUE is not an option.",
        "VEKO_PORT is not an option.",
        "VEKO_PLUGINS names no field of a plugin: write VEKO_PLUGINS__<PLUGIN>__<FIELD>",
        "VEKO_PLUGINS__GUARD names no field of a plugin: write VEKO_PLUGINS__<PLUGIN>__<FIELD>",
        "VEKO_PLUGINS____TOKEN names no field of a plugin: write VEKO_PLUGINS__<PLUGIN>__<FIELD>",
    )


def test_o_what_kubernetes_sets_for_a_service_called_veko_is_ignored(tmp_path: Path) -> None:
    environ = {
        "VEKO_PORT": "tcp://10.0.0.7:8000",
        "VEKO_PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "VEKO_PORT_8000_TCP_PROTO": "tcp",
        "VEKO_PORT_8000_TCP_PORT": "8000",
        "VEKO_PORT_8000_TCP_ADDR": "10.0.0.7",
        "VEKO_SERVICE_HOST": "10.0.0.7",
        "VEKO_SERVICE_PORT": "8000",
        "VEKO_SERVICE_PORT_HTTP": "8000",
        "VEKO_STORAGE_PORT": "udp://10.0.0.8:53",
        "VEKO_STORAGE_SERVICE_HOST": "10.0.0.8",
    }
    options = Options.read(tmp_path, environ=environ)
    assert options.warnings == ()
    assert options.ignored == tuple(environ)
    assert options.storage is None


def test_o_variables_of_plugins_do_not_show(tmp_path: Path) -> None:
    options = Options.read(tmp_path, environ={"VEKO_PLUGINS__GUARD__CODE": "hunter2"})
    assert options.sections.variables == {"VEKO_PLUGINS__GUARD__CODE": "hunter2"}
    assert "hunter2" not in repr(options)
