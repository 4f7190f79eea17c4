"""What `import veko` imports: modules are counted, not seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

import veko
from veko import errors


def imported(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has imported after some code."""
    code += "; import sys; print(*sys.modules)"
    # -S would hide veko itself where it is installed; what `site` imports is in both lists.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_veko_imports_itself_alone() -> None:
    added = imported("import veko") - imported("from importlib import import_module; import typing")
    assert added == {"veko"}


def test_an_error_needs_no_event_loop() -> None:
    added = imported("from veko import VekoError")
    assert "veko.errors" in added
    assert not {"asyncio", "anyio", "logging", "veko._bus.bus"} & added


def test_every_public_name_can_be_imported_alone() -> None:
    for name in veko.__all__:
        assert getattr(veko, name) is not None, name
    assert set(errors.__all__) < set(veko.__all__) <= set(dir(veko))


def test_a_misspelled_name_is_named() -> None:
    with pytest.raises(AttributeError, match=r"^module 'veko' has no attribute 'Kernl'$") as caught:
        veko.Kernl  # type: ignore[attr-defined]  # noqa: B018
    assert caught.value.name == "Kernl"
