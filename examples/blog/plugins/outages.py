"""Answers 503 while the database is not reached.

That is no fault of the plugins whose requests fail then. If their errors counted, Veko would switch
their routes off, and it would take longer until the blog is back than until the database is.
"""

from sqlalchemy import exc

from veko_plugins import Context, Request, Response
from veko_plugins.http import CallNext

name = "outages"
version = "1.0.0"
description = "Answers 503 while the database is not reached"

GONE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)


def load(context: Context) -> None:
    async def answer(request: Request, call_next: CallNext) -> Response:
        try:
            return await call_next(request)
        except (exc.DBAPIError, exc.TimeoutError) as error:
            lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
            if not lost and not isinstance(error, GONE):
                raise
            context.log("error", f"{request.method} {request.path}: {error}")
            problem = {"type": "about:blank", "title": "Service Unavailable", "status": 503}
            headers = {"retry-after": "2", "cache-control": "no-store"}
            return Response(problem, 503, headers, media_type="application/problem+json")

    context.add_middleware(answer)
