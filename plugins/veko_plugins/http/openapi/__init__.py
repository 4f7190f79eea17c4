"""The core plugin `openapi`, which is a plugin of its own beside `routes`.

It lives here because it describes what the routing table holds: it imports the table, the messages
and the port, and nothing in `http` imports it except the face.
"""
