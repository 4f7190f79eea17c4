"""`python -m veko` is `veko`, the command line, which is not part of the kernel."""

import runpy

if __name__ == "__main__":
    runpy.run_module("veko_command", run_name="__main__")
