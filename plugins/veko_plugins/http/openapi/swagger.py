"""The page that shows an OpenAPI document: Swagger UI, with nothing inline and nothing of ours.

If the distribution `swagger-ui-py` is installed (`pip install 'veko[openapi]'`) its files are
served from here, and the page works without the internet. Else the browser fetches them from
jsDelivr, and takes none but those whose hashes stand below.
"""

from __future__ import annotations

import importlib.util
from html import escape
from pathlib import Path
from typing import Final

__all__ = ["MEDIA_TYPES", "SCRIPT", "find_files", "make_page"]

_CDN: Final = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0"
_HASHES: Final = {
    "swagger-ui.css": "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I",
    "swagger-ui-bundle.js": (
        "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"
    ),
}
MEDIA_TYPES: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
"""The files of Swagger UI that the page needs."""

SCRIPT: Final = """\
SwaggerUIBundle({
  url: new URL("openapi.json", document.currentScript.src).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
# Swagger UI sets styles in its markup. Its requests ("Try it out") go where the page came from.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'{cdn}; style-src 'self' 'unsafe-inline'{cdn}; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{css}">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; the document is <a href="{here}/openapi.json">here</a>.\
</noscript>
<script src="{js}"></script>
<script src="{here}/ui.js"></script>
</body>
</html>
"""


def find_files() -> Path | None:
    """Return the folder that has Swagger UI's files, or `None`. Imports nothing."""
    spec = importlib.util.find_spec("swagger_ui")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "static"
        if all((folder / name).is_file() for name in MEDIA_TYPES):
            return folder
    return None


def make_page(title: str, here: str, *, offline: bool) -> tuple[str, dict[str, str]]:
    """Make the page and its headers.

    Args:
        title: The title.
        here: The path of the page as the browser sees it, without a slash at its end.
        offline: Whether Swagger UI's files are served below it.
    """
    here = escape(here)
    where: dict[str, str] = {}
    for name, found in _HASHES.items():
        if offline:
            where[name] = f"{here}/{name}"
        else:
            where[name] = f'{_CDN}/{name}" integrity="{found}" crossorigin="anonymous'
    page = _PAGE.format(
        title=escape(title),
        here=here,
        css=where["swagger-ui.css"],
        js=where["swagger-ui-bundle.js"],
    )
    headers = {
        "content-security-policy": _POLICY.format(
            cdn="" if offline else " https://cdn.jsdelivr.net"
        ),
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return page, headers
