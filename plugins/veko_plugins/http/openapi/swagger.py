"""The page that shows an OpenAPI document: Swagger UI, without inline scripts.

If the distribution `swagger-ui-py` is installed (`pip install 'veko[openapi]'`), its files are
served from here and the page works offline. Otherwise the browser fetches them from jsDelivr, and
accepts only files with the hashes below.
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
# Swagger UI sets inline styles. Its requests ("Try it out") go to the origin of the page.
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
    """Return the folder of Swagger UI's files, or `None`. Imports nothing."""
    spec = importlib.util.find_spec("swagger_ui")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "static"
        if all((folder / name).is_file() for name in MEDIA_TYPES):
            return folder
    return None


def make_page(title: str, here: str, *, offline: bool) -> tuple[str, dict[str, str]]:
    """Return the page and its headers.

    Args:
        title: The title.
        here: The path of the page in the browser, without a slash at its end.
        offline: Whether Swagger UI's files are served below it.
    """
    here = escape(here)
    urls: dict[str, str] = {}
    for name, found in _HASHES.items():
        if offline:
            urls[name] = f"{here}/{name}"
        else:
            urls[name] = f'{_CDN}/{name}" integrity="{found}" crossorigin="anonymous'
    page = _PAGE.format(
        title=escape(title),
        here=here,
        css=urls["swagger-ui.css"],
        js=urls["swagger-ui-bundle.js"],
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
