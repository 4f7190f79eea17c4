"""WebSockets: the type that handlers work with, and how sockets are dispatched and ended."""
