"""The events of the cache: declared whether it is on or not, so that hooks are no mistake."""

from __future__ import annotations

from typing import Final

from veko import Event

__all__ = ["CACHE_CLEAR", "CACHE_DELETE", "CACHE_GET", "CACHE_SET", "EVENTS"]

CACHE_GET: Final = Event(
    "cache:get",
    payload=str,
    doc="A value is looked up. Argument: the key, `<plugin>:<key>`. The first handler that returns "
    "something answers in place of the cache.",
)
CACHE_SET: Final = Event(
    "cache:set",
    payload=str,
    fails_closed=True,
    doc="A value is about to be stored. Arguments: the key, the value, the seconds that it lives, "
    "the `Draft`, whose `value`, `ttl` and `tags` may be changed. `raise veko.Stop(None)` refuses: "
    "nothing is stored.",
)
CACHE_DELETE: Final = Event(
    "cache:delete", payload=str, doc="A value is about to be deleted. Argument: the key."
)
CACHE_CLEAR: Final = Event(
    "cache:clear",
    payload=str,
    doc="Values are about to be deleted together. Arguments: the plugin's name (empty for all "
    "plugins), the tags and the path prefix (`None` for any) that they have.",
)
EVENTS: Final = (CACHE_GET, CACHE_SET, CACHE_DELETE, CACHE_CLEAR)
