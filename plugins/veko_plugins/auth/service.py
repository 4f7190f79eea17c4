"""The service `auth`: registers users, logs them in and out, and says who makes a request.

Each refusal is an `HTTPError`, so a handler lets it pass: 400 for a name or password that cannot
be, 401 for what is wrong or has expired, 403 for what is not allowed, 409 for a name that is taken,
429 for too many tries, 503 if the storage is gone or too many passwords wait.

Cost: a login about 0.1 s of a thread, which is what makes guessing slow, and up to five writes; a
request with a token 12 us, without a write.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import anyio

from veko.errors import StorageError

from . import sessions
from .accounts import WRONG, Accounts
from .cookies import ACCESS, REFRESH, bearer_of
from .events import LOGIN, LOGOUT, User
from .guard import Guard, Identity
from .limits import address_of
from .open_sockets import OpenSockets
from .tokens import Claims, ExpiredToken, InvalidToken, Signer, Tokens, Use
from .types import Connection, Response
from .users import Record

if TYPE_CHECKING:
    from .keys import Keys
    from .settings import Settings

__all__ = ["Auth"]

_log: Final = logging.getLogger("veko.auth")
# Seconds after which a session that another worker made is known here at the latest.
_BEHIND: Final = 1.0
_STEP: Final = 0.01
# Tokens whose signatures are known to be right.
_READ: Final = 4096
_NOT_VALID: Final = "the token is not valid"
_USES: Final[tuple[Use, ...]] = ("access", "refresh")


class Auth(Accounts):
    """The service `auth`; see `Accounts` for the users.

    Args:
        settings: The settings.
        keys: The keys that sign tokens.
        more: As for `Accounts`.

    Attributes:
        keys: The keys that sign tokens.
        open_sockets: The WebSockets behind guards.
        schemes: The security schemes of guarded routes in the OpenAPI document; any one will do.
    """

    def __init__(self, settings: Settings, keys: Keys, **more: Any) -> None:
        super().__init__(settings, **more)
        self.keys = keys
        self.open_sockets = OpenSockets(self.is_alive)
        self.schemes: dict[str, dict[str, str]] = {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        }
        if settings.cookies:
            name = self._cookies.name(ACCESS)
            self.schemes["cookie"] = {"type": "apiKey", "in": "cookie", "name": name}
        self._signer = Signer(keys, settings.audience, settings.clock_skew)
        self._read: OrderedDict[str, Claims] = OrderedDict()
        self._version = keys.version

    # -- sessions

    async def login(self, name: str, password: str, *, request: Connection | None = None) -> Tokens:
        """Begin a session of a user.

        Args:
            name: The name.
            password: The password.
            request: The request that asks for it: its client's tries are limited.

        Raises:
            HTTPError: 401 if there is no such user or the password is wrong, with the same text in
                the same time; 403 if a hook on `auth:login` refuses it, or another site's page asks
                for it; 429 with `Retry-After` after too many tries; 503.
        """
        async with self._guarded(request):
            key, record, rehashed = await self._checked(name, password, request)
            await self._ask(LOGIN, self._users.shown(record), request)
            began: dict[str, tuple[str, sessions.Session]] = {}
            checked = record["hash"]

            def begin(present: Record) -> Record | None:
                began.clear()
                if present["hash"] != checked or present["disabled"]:
                    return None  # changed while the password was checked
                if rehashed is not None:
                    present["hash"] = rehashed
                began["session"] = sessions.add(present, address_of(request), self._settings)
                return present

            present = await self._users.change(key, begin)
            if present is None or not began:
                raise self.refuse(401, WRONG)
            return self._issue(present["id"], key, *began["session"])

    async def refresh(
        self, token: str | None = None, *, request: Connection | None = None
    ) -> Tokens:
        """Exchange a refresh token for new tokens; it is accepted once.

        A token that was exchanged before has been copied: its session ends.

        Args:
            token: The refresh token; by default that in the request's cookie.
            request: The request that asks for it.

        Raises:
            HTTPError: 401 if the token is not valid, has expired or was used before, or its session
                has ended; 403 if another site's page asks for it; 503.
        """
        async with self._guarded(request):
            if token is None and request is not None:
                token = self._cookies.get(request, REFRESH)
            claims = self._claims("refresh", token)
            await self._catch_up(claims)
            outcome: list[sessions.Session] = []
            reused: list[str] = []

            def exchange(record: Record) -> Record | None:
                outcome.clear()
                reused.clear()
                session = sessions.find(record, claims.sub, claims.sid)
                if session is None:
                    return None
                if session["jti"] != claims.jti:
                    late = time.time() - session["renewed"]
                    if session["before"] == claims.jti and late <= self._settings.reuse_leeway:
                        return None
                    del record["sessions"][claims.sid]
                    reused.append(record["name"])
                    return record
                outcome.append(sessions.renew(session, self._settings))
                record["sessions"][claims.sid] = outcome[0]
                return record

            record = await self._users.change(claims.key, exchange)
            if reused:
                _log.warning(
                    "a refresh token of %s was used again, so somebody has copied it: its session "
                    "has ended",
                    reused[0],
                )
            if record is None or not outcome:
                raise self._unauthorized(_NOT_VALID)
            return self._issue(claims.sub, claims.key, claims.sid, outcome[0])

    async def logout(
        self, request: Connection | None = None, *, token: str | None = None
    ) -> User | None:
        """End the session of a request, or of a token of either kind, expired or not.

        Args:
            request: The request; its access token or its cookies say which session.
            token: The token, in place of the request's.

        Returns:
            Whose session it was; `None` if there was none.

        Raises:
            HTTPError: 403 if another site's page asks for it, 503.
        """
        async with self._guarded(request):
            claims = self._any_claims(request, token)
            if claims is None:
                return None
            ended: list[User] = []

            def end(record: Record) -> Record | None:
                ended.clear()
                if record["id"] != claims.sub or claims.sid not in record["sessions"]:
                    return None
                del record["sessions"][claims.sid]
                ended.append(self._users.shown(record))
                return record

            await self._catch_up(claims)
            await self._users.change(claims.key, end)
            if not ended:
                return None
            await self._emit(LOGOUT, ended[0], request)
            return ended[0]

    # -- who makes a request

    async def verify(self, token: str) -> User:
        """Return the user of an access token.

        Raises:
            HTTPError: 401 if it is not valid, has expired, or its session has ended; 503.
        """
        async with self._guarded(None):
            return (await self._identity(self._claims("access", token))).user

    async def user(self, request: Connection) -> User | None:
        """Return who makes a request; `None` if nobody is logged in, or it may not be trusted.

        For routes that are open to all. Behind a guard the user is `request.state["user"]`.

        Raises:
            HTTPError: 503 if the storage is gone.
        """
        try:
            return (await self.identify(request)).user
        except Exception as error:
            if getattr(error, "status", 500) in {401, 403}:
                return None
            raise

    async def identify(self, request: Connection) -> Identity:
        """Return whose session a request belongs to; for guards.

        Raises:
            HTTPError: 401 without a valid token; 403 if the token is in a cookie, and the request
                comes from another site's page or does not repeat the CSRF token; 503.
        """
        if not self.is_open:
            raise self._busy()
        token, in_cookie = bearer_of(request), False
        if token is None:
            token = self._cookies.get(request, ACCESS)
            in_cookie = token is not None
        if token is None:
            raise self._unauthorized("a login is required", error=None)
        if in_cookie and self._cookies.comes_from_elsewhere(request):
            raise self.refuse(403, "the request comes from another site")
        try:
            found = await self._identity(self._claims("access", token))
        except StorageError as error:
            raise self._without_storage(error) from error
        if in_cookie and not await self._cookies.has_csrf_token(request, found.csrf):
            raise self.refuse(403, "the CSRF token is missing or wrong")
        return found

    def require(self, *permissions: str, login: str | None = None) -> Guard:
        """Return a middleware that lets users pass who have all of these permissions.

        It refuses whatever else: no token, a wrong one, a missing permission (403), a storage that
        is gone, `auth` switched off (503). Behind it the user is `request.state["user"]`. It guards
        WebSockets too, and closes them when the session ends.

            context.add_route("DELETE", "/posts/{id}", auth.require("posts:delete"), delete)

        Args:
            permissions: Permissions or roles; none for anybody who is logged in.
            login: The path of a page to send browsers to that ask for a page without a login.

        Raises:
            ValueError: A permission is not a text.
        """
        return Guard(self, permissions, login)

    # -- cookies

    def set_cookies(self, response: Response, tokens: Tokens) -> None:
        """Give a browser its tokens as cookies, which scripts cannot read (but the CSRF token's).

        Raises:
            HTTPError: 500: `cookies` is off in the settings, so nothing would read them.
        """
        if not self._settings.cookies:
            raise self.refuse(500, "set cookies = true in [plugins.auth]")
        self._cookies.set(response, tokens)

    def clear_cookies(self, response: Response) -> None:
        """Let a browser forget its tokens."""
        self._cookies.clear(response)

    async def csrf_token(self, request: Connection) -> str:
        """Return the CSRF token for forms on a page: the field `csrf_token`; empty without login.

        Raises:
            HTTPError: 503 if the storage is gone.
        """
        async with self._guarded(None):
            token = self._cookies.get(request, ACCESS)
            try:
                return (await self._identity(self._claims("access", token))).csrf
            except Exception as error:
                if getattr(error, "status", 500) == 401:
                    return ""
                raise

    # -- within

    def _issue(self, user: str, key: str, sid: str, session: sessions.Session) -> Tokens:
        left = session["until"] - time.time()
        access = min(self._settings.access_lifetime, left)
        return Tokens(
            self._signer.sign("access", user, key, sid, access),
            self._signer.sign("refresh", user, key, sid, left, session["jti"]),
            session["csrf"],
            int(access),
            int(left),
        )

    def _claims(self, use: Use, token: str | None) -> Claims:
        """Return what a token states.

        Raises:
            HTTPError: 401.
        """
        try:
            return self._read_token(use, token or "")
        except ExpiredToken:
            raise self._unauthorized("the token has expired") from None
        except InvalidToken:
            raise self._unauthorized(_NOT_VALID) from None

    def _read_token(self, use: Use, token: str) -> Claims:
        # Checking a signature costs 20 us, and an access token comes with every request.
        if use != "access":
            return self._signer.read(use, token)
        self.keys.refresh()
        if self.keys.version != self._version:
            self._version = self.keys.version
            self._read.clear()  # a key may have been dropped
        found = self._read.get(token)
        if found is None:
            found = self._signer.read(use, token)
            self._read[token] = found
            if len(self._read) > _READ:
                self._read.popitem(last=False)
        elif found.exp + self._settings.clock_skew <= time.time():
            del self._read[token]
            raise ExpiredToken
        return found

    def _any_claims(self, request: Connection | None, token: str | None) -> Claims | None:
        """Return what any token of a request states: ending a session needs no fresh one."""
        given = [token] if token is not None else []
        if request is not None and token is None:
            bearer = bearer_of(request)
            cookies = (self._cookies.get(request, one) for one in (ACCESS, REFRESH))
            given = [one for one in ((bearer,) if bearer else cookies) if one is not None]
        for one in given:
            for use in _USES:
                try:
                    return self._signer.read(use, one, expired=True)
                except InvalidToken:
                    continue
        return None

    async def _identity(self, claims: Claims) -> Identity:
        """Return whose session a token belongs to.

        Raises:
            HTTPError: 401 if it has ended.
        """
        record, session = await self._catch_up(claims)
        if record is None or session is None:
            raise self._unauthorized("the session has ended")
        return Identity(self._users.shown(record), claims, session["csrf"])

    def is_alive(self, claims: Claims) -> bool:
        """Return whether a session has not ended, as far as this process knows."""
        return self._session(claims)[1] is not None

    def _session(self, claims: Claims) -> tuple[Record | None, sessions.Session | None]:
        record = self._users.get(claims.key)
        if record is None:
            return None, None
        return record, sessions.find(record, claims.sub, claims.sid)

    async def _catch_up(self, claims: Claims) -> tuple[Record | None, sessions.Session | None]:
        """Return the entry and the session of a token, or `None` for what is not there.

        A worker knows a session that another one has just made some milliseconds later, so a new
        token is waited for. Nobody but this application makes one.
        """
        found = self._session(claims)
        end = claims.iat + _BEHIND
        while found[1] is None and time.time() < end:
            await anyio.sleep(_STEP)
            found = self._session(claims)
        return found

    def _unauthorized(self, detail: str, error: str | None = "invalid_token") -> Exception:
        challenge = "Bearer" if error is None else f'Bearer error="{error}"'
        return self.refuse(401, detail, {"www-authenticate": challenge})
