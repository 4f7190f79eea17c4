"""`python -m veko_plugins.cli` is `veko`."""

from . import main

main()
