"""The bus: which handlers are called, and in what order. Usable alone.

It knows its owners by name only: anything with a `name` may own what is registered here.
"""
