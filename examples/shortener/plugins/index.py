"""The page at /: what there is to try."""

from veko_plugins import Context, Request

name = "index"
version = "1.0.0"
description = "Says what to try"

_PAGE = """\
A link shortener made of plugins: one file or folder each in examples/shortener/plugins.

Make a link, follow it, and see that it was counted:
  curl {url}links -d url=https://example.com/
  curl -i {url}CODE
  curl {url}stats

The admin's part asks for a token; it lies in examples/shortener/.veko/admin-token:
  curl -i {url}admin/links
  curl {url}admin/links -H "Authorization: Bearer $(cat examples/shortener/.veko/admin-token)"

Ask too often, and be told to wait:
  for i in $(seq 150); do curl -s -o /dev/null -w '%{{http_code}} ' {url}; done
"""


def load(context: Context) -> None:
    def index(request: Request) -> str:
        """Say what to try."""
        return _PAGE.format(url=request.url.partition("?")[0])

    context.add_route("GET", "/", index)
