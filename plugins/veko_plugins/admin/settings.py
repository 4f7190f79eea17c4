"""The configuration of the core plugin `admin`."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

__all__ = ["SHORTEST", "AdminConfig"]

SHORTEST: Final = 16
"""Characters that a token has at least."""

Token = Annotated[
    str,
    msgspec.Meta(min_length=SHORTEST, max_length=4096, extra={"secret": True}),
]


class AdminConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[plugins.admin]` in `veko.toml`.

    Attributes:
        token: The token for the role `operate`. Without it one is made and kept in
            `.veko/admin-token`, and only clients on this machine are answered.
        viewer_token: A token for the role `look`; without it there is none.
        allow_hosts: Names by which clients may ask for this application, beside those of the
            loopback interface: what they send as `Host`, without the port.
        origins: Origins of pages that may use the API, beside its own: `https://ops.example.com`.
        session: Seconds that a login of the dashboard holds.
        audit: Whether changes and refused requests are written to `.veko/admin-audit.jsonl`.
    """

    token: Token | None = None
    viewer_token: Token | None = None
    allow_hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    session: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] = 43_200.0
    audit: bool = True
