"""The page at /, which lists what you can try."""

from veko_plugins import Context, Request

name = "index"
version = "1.0.0"
description = "Lists what to try"

_PAGE = """\
A link shortener made of plugins, one file or folder each in examples/shortener/plugins.

Create a link, follow it, and see how often it was followed:
  curl {url}links -d url=https://example.com/
  curl -i {url}CODE
  curl {url}stats

The admin pages require the token in examples/shortener/.veko/links-token:
  curl -i {url}admin/links
  curl {url}admin/links -H "Authorization: Bearer $(cat examples/shortener/.veko/links-token)"

Send too many requests, and get 429:
  for i in $(seq 150); do curl -s -o /dev/null -w '%{{http_code}} ' {url}; done
"""


def load(context: Context) -> None:
    def index(request: Request) -> str:
        """List what to try."""
        return _PAGE.format(url=request.url.partition("?")[0])

    context.add_route("GET", "/", index)
