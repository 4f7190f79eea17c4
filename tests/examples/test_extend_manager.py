"""The example of an extended manager runs as its first line says, and shows what it promises."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "extend_manager.py"


def test_extending_the_manager(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.returncode == 0
    lines = ran.stdout.splitlines()
    assert lines[0] == "storage: Memory"
    assert [line.split()[0] for line in lines[2:5]] == [
        "garden.grow", "garden.rake", "garden.water",
    ]  # fmt: skip
    assert lines[4].split()[1:6] == ["0", "6", "*", "*", "MON-FRI"]
    assert lines[4].endswith("06:00:00")
    for line in (
        "schedule:run garden.grow",
        "garden:grown 1",
        "schedule:run garden.rake",
        "schedule:error garden.rake the rake is broken",
    ):
        assert line in lines[5:]
    # A second may begin at any moment: the jobs of the next one may show among these.
    told = [line for line in lines[5:] if not line.startswith(("schedule:", "garden:"))]
    assert told[0] in {"height: 1", "height: 2"}
    assert told[1] in {"errors of garden: 1", "errors of garden: 2"}
    assert told[2:5] == ["off: 0 jobs", "on: 3 jobs", "unloaded: 0 jobs"]
    assert told[5].startswith("refused: '61 * * * *' is no time: Bad minute (plugin bad")
    assert len(told) == 6
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"
