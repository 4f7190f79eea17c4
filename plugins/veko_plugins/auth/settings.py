"""The settings of `auth`: `[plugins.auth]` in `veko.toml`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

__all__ = ["Settings"]

_DAY: Final = 24 * 60 * 60
_Secret = Annotated[str, Meta(min_length=32, max_length=1024, extra={"secret": True})]
_Seconds = Annotated[float, Meta(gt=0)]
_Count = Annotated[int, Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[plugins.auth]` in `veko.toml`; durations in seconds.

    Attributes:
        roles: What each role permits, by its name; a user has the permissions of all roles.
        cookies: Accept tokens in cookies too, and protect what is requested with them from other
            sites' pages.
        cookie_secure: Send cookies over HTTPS only (and, by most browsers, to localhost).
        cookie_samesite: Whether other sites' links carry the cookies: `lax` or `strict`.
        trusted_origins: Other origins whose pages may use the cookies, such as
            `https://app.example.com`.
        access_lifetime: How long an access token is accepted.
        refresh_lifetime: How long a session lasts that is not refreshed.
        session_lifetime: How long a session lasts, however often it is refreshed.
        sessions: How many sessions a user may have; a further login ends the oldest.
        reuse_leeway: How long after a refresh the token before it is refused without ending the
            session, for clients that refresh twice at once.
        clock_skew: How far the clocks of several hosts may differ.
        audience: The name of this application in its tokens; others' tokens are refused.
        secret: The key that signs tokens, for applications that run on several hosts; by default
            one is generated and kept in `.veko/auth-keys.json`.
        former_secrets: Keys that have signed tokens before; they are still accepted.
        attempts: How many wrong passwords an address may try at once.
        attempts_period: How long until an address that has used them all may try as many again.
        password_length: The length of the shortest password.
        hash_memory: Memory for one password's hash, in KiB.
        hash_time: Passes over that memory.
        hash_lanes: Threads for one password's hash.
        hash_concurrency: How many passwords are hashed at once.
    """

    roles: dict[str, tuple[str, ...]] = {}
    cookies: bool = False
    cookie_secure: bool = True
    cookie_samesite: Literal["lax", "strict"] = "lax"
    trusted_origins: tuple[str, ...] = ()
    access_lifetime: _Seconds = 15 * 60
    refresh_lifetime: _Seconds = 14 * _DAY
    session_lifetime: _Seconds = 90 * _DAY
    sessions: Annotated[int, Meta(gt=0, le=100)] = 20
    reuse_leeway: Annotated[float, Meta(ge=0, le=60)] = 0
    clock_skew: Annotated[float, Meta(ge=0, le=300)] = 10
    audience: Annotated[str, Meta(min_length=1, max_length=200)] = "veko"
    secret: _Secret | None = None
    former_secrets: Annotated[tuple[_Secret, ...], Meta(extra={"secret": True})] = ()
    attempts: _Count = 10
    attempts_period: _Seconds = 300
    password_length: Annotated[int, Meta(ge=1, le=128)] = 8
    hash_memory: Annotated[int, Meta(ge=8, le=4 * 2**20)] = 64 * 1024
    hash_time: Annotated[int, Meta(ge=1, le=100)] = 3
    hash_lanes: Annotated[int, Meta(ge=1, le=64)] = 4
    hash_concurrency: Annotated[int, Meta(ge=1, le=64)] = 2
