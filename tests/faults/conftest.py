"""What the tests of faults share."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def unlogged() -> Iterator[None]:
    """Keep errors out of pytest's log records, which would keep their frames alive."""
    logger = logging.getLogger("veko")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)
