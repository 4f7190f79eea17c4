"""Transpilers: what turns the source of a plugin into code that Python runs."""
