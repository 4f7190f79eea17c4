"""Requests and responses: what they carry and how it is read and written."""
