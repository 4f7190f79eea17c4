"""The core plugin `auth`: it provides the service, and the commands for an operator."""

from __future__ import annotations

import getpass
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import msgspec

from veko import Context, Plugin, VekoError
from veko.errors import OptionError, ServiceError

from .events import auth_events
from .open_sockets import SECONDS
from .settings import Settings

if TYPE_CHECKING:
    from .service import Auth
    from .types import Refuse

__all__ = ["Authentication"]

_NEEDS: Final = ("argon2", "joserfc", "pwdlib")
_NAMESPACE: Final = "storage"


class Refused(VekoError):
    """A refusal where there is no HTTP.

    Attributes:
        status: What the status of an HTTP response would be.
    """

    def __init__(self, status: int, detail: str = "") -> None:
        super().__init__(detail or f"refused ({status})")
        self.status = status


class Authentication(Plugin):
    """The core plugin `auth`.

    Args:
        keys: The file of the keys that sign tokens, unless they are in the settings.

    Raises:
        OptionError: A distribution that it needs is not installed.
    """

    name = "auth"
    version = "2.0.0"
    description = "Users, passwords, tokens and guards"
    type = "auth"
    config_schema = Settings
    core = True

    _auth: Auth

    def __init__(self, keys: Path) -> None:
        missing = [one for one in _NEEDS if importlib.util.find_spec(one) is None]
        if missing:
            raise OptionError(f"auth needs {', '.join(missing)}", remedy="pip install 'veko[auth]'")
        self._keys = keys

    async def load(self, context: Context) -> None:
        """Read the keys, or generate one at the first start; provide the service `auth`."""
        # In a thread: cryptography and what uses it take 0.1 s to import.
        await anyio.to_thread.run_sync(importlib.import_module, f"{__package__}.service")
        from .keys import Keys
        from .service import Auth

        settings = msgspec.convert(context.config, Settings)
        try:
            storage, engine = context.attached(_NAMESPACE), context.use("storage")
        except (AttributeError, ServiceError) as error:
            raise OptionError(
                "auth keeps users in the storage, and there is none",
                remedy="Set the option `storage`, or leave it out for SQLite in .veko/",
            ) from error
        known = {event.name for event in context.kernel.bus.events}
        for event in auth_events():
            if event.name not in known:
                context.declare(event)
        given = () if settings.secret is None else (settings.secret, *settings.former_secrets)
        lifetime = settings.session_lifetime + settings.clock_skew
        keys = Keys(None if given else self._keys, given, lifetime=lifetime)
        await anyio.to_thread.run_sync(keys.open)
        refuse, redirect = _answers(context)
        auth = self._auth = Auth(
            settings,
            keys,
            storage=storage,
            engine=engine,
            emit=context.kernel.bus.emit,
            refuse=refuse,
            redirect=redirect,
        )
        context.provide("auth", auth)
        context.every(SECONDS, auth.open_sockets.close_ended)
        if context.kernel.registry.get("attach", "add_command") is not None:
            add_command = context.attached("add_command")
            add_command("create-user", self._create_user, "Create a user; asks for the password")
            add_command("set-password", self._set_password, "Give a user a new password")
            add_command("set-roles", self._set_roles, "Give a user roles in place of the present")
            add_command("rotate-auth-keys", self._rotate, "Sign tokens with a new key from now on")
        if settings.hash_memory * settings.hash_time < 7 * 1024 * 5:
            context.log(
                "warning",
                "passwords are hashed with less than OWASP's minimum (7 MiB, 5 passes): raise "
                "hash_memory or hash_time in [plugins.auth]",
            )

    def activate(self) -> None:
        """Let guards pass whom they know."""
        self._auth.closed = False

    def deactivate(self) -> None:
        """Let every guard refuse."""
        self._auth.closed = True

    async def _create_user(self, name: str, role: list[str] | None = None) -> str:
        user = await self._auth.register(name, await _ask_password(), roles=tuple(role or ()))
        return f"{user.name} is registered" + (f" as {', '.join(user.roles)}" if role else "")

    async def _set_password(self, name: str) -> str:
        user = await self._auth.set_password(name, await _ask_password())
        return f"{user.name} has a new password, and no session"

    async def _set_roles(self, name: str, role: list[str] | None = None) -> str:
        user = await self._auth.set_roles(name, *(role or ()))
        return f"{user.name} has the roles {', '.join(user.roles) or 'none'}"

    async def _rotate(self, *, at_once: bool = False) -> str:
        kid = self._auth.keys.rotate(at_once=at_once)
        return f"tokens are signed with the key {kid}"


async def _ask_password() -> str:
    """Return a password from the terminal, or from standard input; never from the command line."""
    if sys.stdin.isatty():
        return await anyio.to_thread.run_sync(getpass.getpass, "Password: ")
    line: str = await anyio.to_thread.run_sync(sys.stdin.readline)
    return line.rstrip("\r\n")


def _refused(
    status: int, detail: str = "", headers: Mapping[str, str] | None = None, *, counts: bool = True
) -> Exception:
    """Return what refuses where there is no HTTP, and so no route that it could count against."""
    return Refused(status, detail)


def _answers(context: Context) -> tuple[Refuse, Any]:
    """Return what makes refusals, and redirections."""
    try:
        http = context.use("http")
    except ServiceError:
        return _refused, None

    def redirect(path: str) -> Any:
        return http.response(status=303, headers={"location": path, "cache-control": "no-store"})

    return http.refusal, redirect
