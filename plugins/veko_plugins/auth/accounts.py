"""Accounts: registering users and changing them; the half of `Auth` that needs no tokens."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio

from veko import HookTimeout
from veko.errors import StorageError

from . import sessions
from .cookies import Cookies
from .events import REGISTER, User
from .limits import Limits, TooMany, address_of, retry_after
from .names import key_of, normalise
from .passwords import Passwords
from .types import Busy, Connection, Engine, Namespace, Refuse
from .users import Contended, Record, Users

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["WRONG", "Accounts"]

WRONG: Final = "the name or the password is wrong"
"""The answer for an unknown user and for a wrong password."""
_log: Final = logging.getLogger("veko.auth")
# Seconds between two records of a storage that fails.
_QUIET: Final = 10.0
_KNOWN: Final = 1024
"""Combinations of roles whose permissions are kept."""


class Accounts:
    """The users.

    Args:
        settings: The settings.
        storage: Where users are kept.
        engine: The storage's engine.
        emit: Emits an event.
        refuse: Makes the error of a refusal.
        redirect: Makes a response that leads to another path.

    Attributes:
        closed: Whether the plugin is off: everything is refused then.
        refuse: Makes the error of a refusal.
        redirect: Makes a response that leads to another path.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        storage: Namespace,
        engine: Engine,
        emit: Callable[..., Awaitable[Any]],
        refuse: Refuse,
        redirect: Callable[[str], Any],
    ) -> None:
        self.closed = False
        self.refuse = refuse
        self.redirect = redirect
        self._engine = engine
        self._settings = settings
        self._emit = emit
        self._cookies = Cookies(settings)
        self._users = Users(storage, self._granted)
        self._limits = Limits(storage, settings)
        self._passwords = Passwords(settings)
        self._log_again = 0.0
        self._permissions: dict[tuple[str, ...], frozenset[str]] = {}

    async def register(
        self,
        name: str,
        password: str,
        *,
        roles: tuple[str, ...] = (),
        request: Connection | None = None,
    ) -> User:
        """Register a user, who is not logged in by that.

        Args:
            name: The name.
            password: The password.
            roles: The user's roles. Never take them from a request.
            request: The request that asks for it.

        Raises:
            HTTPError: 400 if the name or the password cannot be, 409 if the name is taken, 403 if
                a hook on `auth:register` refuses it, 429, 503.
        """
        async with self._guarded(request):
            try:
                name = normalise(name)
                password = self._passwords.accept(password, name)
            except ValueError as error:
                raise self.refuse(400, str(error)) from None
            await self._limits.take(self._limits.register(address_of(request)))
            key, record = key_of(name), self._users.new(name, tuple(roles))
            if self._users.is_taken(key):
                raise self.refuse(409, "the name is taken")
            hashed = await self._passwords.hash(password)
            if not await self._users.reserve(key, record):
                raise self.refuse(409, "the name is taken")
            user = self._users.shown(record)
            try:
                await self._ask(REGISTER, user, request)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._users.remove(key, record)
                raise
            if not await self._users.confirm(key, record, hashed):
                raise self.refuse(503, "the registration took too long; try again")
            return user

    async def confirm(self, name: str, password: str, *, request: Connection | None = None) -> User:
        """Check a password as a login does, without beginning a session: before it is changed, say.

        Args:
            name: The name.
            password: The password.
            request: The request that asks for it: its client's tries are limited.

        Raises:
            HTTPError: 401 if there is no such user or the password is wrong, 429, 503.
        """
        async with self._guarded(request):
            _, record, _ = await self._checked(name, password, request)
            return self._users.shown(record)

    def get(self, name: str) -> User | None:
        """Return a user by name; `None` if there is none."""
        found = self._entry(name)
        return None if found is None else self._users.shown(found[1])

    def users(self) -> list[User]:
        """Return all users, by name."""
        return sorted(map(self._users.shown, self._users), key=lambda user: user.name)

    async def set_password(self, name: str, password: str) -> User:
        """Give a user a new password; all sessions end.

        Raises:
            HTTPError: 400 if the password cannot be, 404 if there is no such user, 503.
        """
        async with self._guarded(None):
            try:
                accepted = self._passwords.accept(password, normalise(name))
            except ValueError as error:
                raise self.refuse(400, str(error)) from None
            hashed = await self._passwords.hash(accepted)
            return await self._changed(name, hash=hashed, sessions={})

    async def set_roles(self, name: str, *roles: str) -> User:
        """Give a user these roles in place of the present ones; it counts at once.

        Raises:
            HTTPError: 404 if there is no such user, 503.
        """
        async with self._guarded(None):
            return await self._changed(name, roles=list(roles))

    async def disable(self, name: str, disabled: bool = True) -> User:
        """Keep a user from logging in, and end all sessions; or allow it again.

        Raises:
            HTTPError: 404 if there is no such user, 503.
        """
        async with self._guarded(None):
            return await self._changed(name, disabled=disabled, sessions={})

    async def end_sessions(self, name: str) -> User:
        """End all sessions of a user.

        Raises:
            HTTPError: 404 if there is no such user, 503.
        """
        async with self._guarded(None):
            return await self._changed(name, sessions={})

    async def delete(self, name: str) -> bool:
        """Delete a user, and all sessions; return whether there was one.

        Raises:
            HTTPError: 503 if the storage is gone.
        """
        async with self._guarded(None):
            while (found := self._entry(name)) is not None:
                if await self._users.remove(*found):
                    return True
                await anyio.sleep(0.01)
            return False

    async def _checked(
        self, name: str, password: str, request: Connection | None
    ) -> tuple[str, Record, str | None]:
        """Return the key of a name, its entry, and a new hash if the settings have changed.

        Raises:
            HTTPError: 401 if there is no such user, or the password is wrong.
        """
        address = address_of(request)
        try:
            name = normalise(name)
            key: str | None = key_of(name)
        except ValueError:
            key = None  # nobody has that name: the same answer as for any other
        record = None if key is None else self._users.get(key, name)
        tries = self._limits.login(key, address, sessions.is_known(record, address))
        await self._limits.take(tries)
        # Again: memory shows now what other workers did before the tries were taken.
        record = None if key is None else self._users.get(key, name)
        right, rehashed = await self._passwords.check(
            password, None if record is None else record["hash"]
        )
        if not right or record is None or key is None or record["disabled"]:
            raise self.refuse(401, WRONG)
        await self._limits.give_back(tries)
        return key, record, rehashed

    def _entry(self, name: str) -> tuple[str, Record] | None:
        try:
            made = normalise(name)
        except ValueError:
            return None
        key = key_of(made)
        record = self._users.get(key, made)
        return None if record is None else (key, record)

    async def _changed(self, name: str, **fields: Any) -> User:
        found = self._entry(name)
        after = None
        if found is not None:
            after = await self._users.change(
                found[0], lambda r: {**r, **fields} if r["id"] == found[1]["id"] else None
            )
        if after is None:
            raise self.refuse(404, "there is no user of that name")
        return self._users.shown(after)

    def _granted(self, roles: tuple[str, ...]) -> frozenset[str]:
        found = self._permissions.get(roles)
        if found is None:
            permits = self._settings.roles
            found = frozenset(roles).union(*(permits.get(role, ()) for role in roles))
            if len(self._permissions) > _KNOWN:
                self._permissions.clear()
            self._permissions[roles] = found
        return found

    async def _ask(self, event: str, user: User, request: Connection | None) -> None:
        """Emit an event at which a handler may refuse.

        Raises:
            HTTPError: A handler raised it; 403 if one failed, 503 if one took too long.
        """
        try:
            answer = await self._emit(event, user, request)
        except HookTimeout as error:
            raise self._busy() from error
        except Exception as error:
            if getattr(error, "status", None) is not None:
                raise
            # The bus has reported it, and counted it against the handler's plugin.
            raise self.refuse(403, "it was refused") from error
        if isinstance(answer, BaseException):
            raise answer

    @asynccontextmanager
    async def _guarded(self, request: Connection | None) -> AsyncIterator[None]:
        """Refuse while this plugin is off, and what fails or comes from another site's page."""
        if not self.is_open:
            raise self._busy()
        if (
            request is not None
            and self._settings.cookies
            and self._cookies.comes_from_elsewhere(request)
        ):
            raise self.refuse(403, "the request comes from another site")
        try:
            yield
        except TooMany as error:
            headers = {"retry-after": retry_after(error.wait)}
            raise self.refuse(429, "too many tries; wait a little", headers) from None
        except (Busy, Contended):
            raise self._busy() from None
        except StorageError as error:
            raise self._without_storage(error) from error

    @property
    def is_open(self) -> bool:
        """Whether the plugin is on, and the storage's server is not known to be gone."""
        return not self.closed and self._engine.current

    def _busy(self, detail: str = "") -> Exception:
        # If it counted against the route, clients could switch off the login for everybody.
        return self.refuse(503, detail, {"retry-after": "1"}, counts=False)

    def _without_storage(self, error: StorageError) -> Exception:
        """Return the refusal for a storage that fails, and log that now and then."""
        now = time.monotonic()
        if now >= self._log_again:
            self._log_again = now + _QUIET
            _log.error("auth refuses what it is asked: %s", error)
        return self._busy("the storage is not there")
