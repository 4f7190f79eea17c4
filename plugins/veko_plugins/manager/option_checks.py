"""Checks of the options at the start: settings without effect are reported, unsafe ones refused.

A guard that is not required is reported too: the application would start without it.

A misspelt section would otherwise look like a setting that does not work. An option that promises
protection is refused without what protects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from veko import Kernel, OptionError

from .._lib.guards import all_guards, unrequired
from .._lib.variables import PREFIX, plugin_part
from .._lib.versions import did_you_mean
from ..config import BUDGET
from ..options import Options

__all__ = ["ineffective", "refuse_unsafe", "unrequired_guards"]


def refuse_unsafe(options: Options) -> None:
    """Refuse to run plugins that are to be confined, or limited, without what does that.

    Raises:
        OptionError: `enable_sandbox` is set, and `core` leaves out a core plugin that it needs; or
            a plugin has a budget, and the ledger is off.
    """
    for name in ("remote", "permissions") if options.enable_sandbox else ():
        if options.core.get(name, ...) is None:
            raise OptionError(
                f"enable_sandbox needs the core plugin {name!r}, which `core` leaves out",
                remedy=f"Take {name} out of `core`, or leave out enable_sandbox.",
            )
    without = "ledger" in options.origins and not options.ledger
    budgets = options.sections.with_table(BUDGET)
    if budgets and (without or options.core.get("ledger", ...) is None):
        raise OptionError(
            f"[plugins.{budgets[0]}.budget] needs the ledger, which is off",
            remedy="Set the option `ledger`, or leave it out of `core`; or take the budget out.",
        )


def ineffective(options: Options, known: Iterable[str]) -> Iterator[str]:
    """Return a message for each setting that has no effect.

    Args:
        options: The options.
        known: The names of all plugins that were found, loaded or not. Without `auto_load` the
            application may load others later, so only names that look misspelt are reported.
    """
    names = set(known)
    for section in options.plugins:
        near = "" if section in names else did_you_mean(section, names)
        if near or (section not in names and options.auto_load):
            yield f"[plugins.{section}]: there is no plugin of that name. {near}".rstrip()
    begins = tuple(f"{PREFIX}{plugin_part(name)}__" for name in names)
    for variable in sorted(options.sections.variables):
        if not variable.upper().startswith(begins):
            wanted = variable.removeprefix(PREFIX).partition("__")[0].lower()
            near = did_you_mean(wanted, names)
            if near or options.auto_load:
                yield f"{variable}: there is no plugin of that name. {near}".rstrip()


def unrequired_guards(kernel: Kernel, required: Collection[str]) -> Iterator[str]:
    """Return a message for each plugin that guards and is not required.

    Args:
        kernel: The kernel.
        required: The names in the option `required`.
    """
    guards = all_guards(kernel)
    for record in kernel.records():
        if record.core or record.manifest.required or record.name in required:
            continue
        if record.name in guards:
            yield unrequired(record.name, guards[record.name])
