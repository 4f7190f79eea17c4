"""The events of `auth`, and the user that they carry."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from veko import Event

__all__ = ["LOGIN", "LOGOUT", "REGISTER", "User", "auth_events"]

LOGIN = "auth:login"
LOGOUT = "auth:logout"
REGISTER = "auth:register"


class User(msgspec.Struct, frozen=True):
    """A user, as plugins see one: without the password's hash.

    Attributes:
        id: The user's id, which no other user ever gets.
        name: The name, normalised: lower case, NFKC.
        roles: The roles that were given to the user.
        permissions: The roles, and what the settings say that they permit.
        created: When the user registered, in UTC.
        disabled: Whether the user cannot log in.
    """

    id: str
    name: str
    roles: tuple[str, ...]
    permissions: frozenset[str]
    created: datetime
    disabled: bool = False

    def may(self, *permissions: str) -> bool:
        """Return whether the user has all of these permissions.

        Args:
            permissions: Permissions or roles. A user who has `*` may do all, one who has `posts:*`
                all that begins with `posts:`.
        """
        return all(self._has(one) for one in permissions)

    def _has(self, wanted: str) -> bool:
        owned = self.permissions
        if wanted in owned or "*" in owned:
            return True
        head, colon, _ = wanted.rpartition(":")
        while colon:
            if f"{head}:*" in owned:
                return True
            head, colon, _ = head.rpartition(":")
        return False


def auth_events(refusal: type[BaseException] | None = None) -> tuple[Event[Any], ...]:
    """Return the events.

    Args:
        refusal: The error with which a handler refuses and has not failed: `HTTPError`.
    """
    return (
        Event(
            LOGIN,
            payload=User,
            stops=refusal,
            fails_closed=True,
            doc="A user has given the right password, and has no tokens yet. Arguments: the user, "
            "the request (`None` outside one). Raising an `HTTPError` refuses the login, and so "
            "does a failure.",
        ),
        Event(
            LOGOUT,
            payload=User,
            doc="A session of a user has ended. Arguments: the user, the request (`None` outside "
            "one).",
        ),
        Event(
            REGISTER,
            payload=User,
            stops=refusal,
            fails_closed=True,
            doc="A user is about to be registered: the name is taken, and nobody can log in yet. "
            "Arguments: the user, the request (`None` outside one). Raising an `HTTPError` refuses "
            "it, and so does a failure.",
        ),
    )
