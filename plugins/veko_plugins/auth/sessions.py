"""Sessions: a family of refresh tokens, of which the newest is accepted, in its user's entry.

A refresh token that was used before has been copied by somebody: the session ends, so that neither
who copied it nor the user has a token that works, and the user logs in again.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from .settings import Settings
    from .users import Record

__all__ = ["Session", "add", "alive", "find", "is_known", "renew"]

Session: TypeAlias = dict[str, Any]
"""`jti` of the newest refresh token and of the one `before`, when it was `renewed`, its `csrf`
token, when it `began`, `until` when it lasts, and from which `address`."""

_BYTES: Final = 16


def alive(record: Record) -> dict[str, Session]:
    """Return the sessions of a user that have not expired, by id, the oldest first."""
    now = time.time()
    found: dict[str, Session] = record["sessions"]
    return {sid: one for sid, one in found.items() if one["until"] > now}


def find(record: Record, user: str, sid: str) -> Session | None:
    """Return a session that lasts; `None` if it has ended, or the user is another one or disabled.

    Args:
        record: The user's entry.
        user: The user's id.
        sid: The session's id.
    """
    session: Session | None = record["sessions"].get(sid)
    if (
        session is None
        or record["id"] != user
        or record["disabled"]
        or session["until"] <= time.time()
    ):
        return None
    return session


def is_known(record: Record | None, address: str | None) -> bool:
    """Return whether a user has a session from an address."""
    if record is None or address is None:
        return False
    return any(one["address"] == address for one in alive(record).values())


def add(record: Record, address: str | None, settings: Settings) -> tuple[str, Session]:
    """Add a session to a user's entry; the oldest ones end if there are too many.

    Returns:
        Its id, and the session.
    """
    now = time.time()
    kept = list(alive(record).items())
    sid = secrets.token_urlsafe(_BYTES)
    session = {
        "jti": secrets.token_urlsafe(_BYTES),
        "before": None,
        "renewed": now,
        "csrf": secrets.token_urlsafe(_BYTES),
        "began": now,
        "until": now + min(settings.refresh_lifetime, settings.session_lifetime),
        "address": address,
    }
    record["sessions"] = {**dict(kept[max(0, len(kept) + 1 - settings.sessions) :]), sid: session}
    return sid, session


def renew(session: Session, settings: Settings) -> Session:
    """Return a session whose refresh token was exchanged for a new one."""
    now = time.time()
    end = session["began"] + settings.session_lifetime
    return {
        **session,
        "jti": secrets.token_urlsafe(_BYTES),
        "before": session["jti"],
        "renewed": now,
        "until": min(now + settings.refresh_lifetime, end),
    }
