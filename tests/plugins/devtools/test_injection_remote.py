"""`inject_code` refuses plugins in processes of their own, and leaves them as they are."""

from pathlib import Path

import pytest

from veko.errors import StateError
from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio


async def test_D6_a_plugin_in_a_process_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "alone.py").write_text(
        'name, version, isolation = "alone", "1.0.0", "process"\n\ndef load(context): ...\n'
    )
    async with PluginManager(
        root=tmp_path, storage="none", adapter=None, dev_mode=True, max_retries=0
    ) as manager:
        assert not manager.report.failed, manager.report.failed
        with pytest.raises(StateError, match=r"in a process of its own.*Change its source"):
            await manager.inject_code("alone", "pass")
        record = manager.get_plugin("alone")
        assert record is not None
        assert (record.active, record.generation) == (True, 1)
