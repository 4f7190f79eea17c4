"""What a plugin is: a manifest and up to six functions, in whichever form it is written.

Every form (a subclass of `Plugin` or an instance, a mapping, a module) becomes a `Plugin` with a
checked `Manifest`, once, before anything of it runs. All faults are reported at once. Reading a
function's signature costs a few microseconds, a manifest some thirty.
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

import msgspec

from .._bus.events import matches
from .._bus.signature import is_async, parameters
from ..errors import Fault, ManifestError, StateError
from .declarations import Declarations, Decorator

__all__ = ["DecoratedPlugin", "Manifest", "Plugin", "as_plugin", "made_of", "requirement_name"]

_F = TypeVar("_F", bound=Callable[..., Any])

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
NAME_LENGTH: Final = 128
STEPS: Final = ("load", "unload", "activate", "deactivate", "export_state", "import_state")
_ARGUMENTS: Final = ("app", "config", "context")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin's description of itself.

    Attributes:
        name: `[a-z0-9][a-z0-9._-]*`, 128 characters at most.
        version: A version of PEP 440 or SemVer.
        dependencies: Plugins it needs: `"auth"`, `"db>=2,<3"`.
        peer_dependencies: Distributions it needs, as PEP 508 requirements.
        engines: Ranges for `python`, `veko` and `node`.
        default_config: The defaults of its configuration; merged deep under what is given.
        config_schema: A JSON Schema, or a type that the configuration is converted to.
        hooks: Names of the events that it uses; `None` if it does not say.
        permissions: What it may do when it runs in a process of its own.
        type: What kind of plugin it is; derived from what it registers if left out.
        priority: Of the plugins that are ready to load, the highest loads first.
        reload: `"swap"`, or `"restart"` if two generations cannot run side by side.
        required: Whether the application neither starts nor serves without it: a guard.
        isolation: `"process"` to run it in a process of its own, confined to its `permissions`;
            `"none"` leaves that to the application.
        on_crash: What happens at its hooks and middleware while its own process is down:
            `"open"` passes them by, `"closed"` refuses. By default guards and middleware refuse.
        activation: `"start"`, or `"first use"` if its module is not to run before it is used.
    """

    name: str
    version: str
    description: str = ""
    author: str = ""
    license: str = ""
    homepage: str = ""
    repository: str = ""
    dependencies: tuple[str, ...] = ()
    peer_dependencies: tuple[str, ...] = ()
    engines: dict[str, str] = {}
    default_config: dict[str, Any] = {}
    config_schema: Any = None
    hooks: tuple[str, ...] | None = None
    permissions: tuple[str, ...] = ()
    type: str | None = None
    priority: float = 10
    reload: str = "swap"
    required: bool = False
    isolation: str = "none"
    on_crash: str | None = None
    activation: str = "start"

    def declares(self, event: str) -> bool:
        """Return whether `hooks` has an event, by its name or in a pattern, or is left out."""
        if self.hooks is None or event in self.hooks:
            return True
        return any("*" in one and matches(one, event) for one in self.hooks)


_FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Manifest)}
_CHOICES: Final = {
    "reload": ("swap", "restart"),
    "isolation": ("none", "process"),
    "on_crash": ("open", "closed"),
    "activation": ("start", "first use"),
}
_COMPUTED: Final = (property, functools.cached_property)


class Plugin:
    """The base of plugins written as classes, and the normal form of all others.

    Subclass it, give it a `name`, a `version` and a `load`; the other attributes are those of
    `Manifest`. Life-cycle functions may be `def` or `async def` and get the arguments that they
    name among `app`, `config` and `context`.

    `Plugin("shop", "1.0.0")` itself is a plugin that is written with decorators; see
    `DecoratedPlugin`.
    """

    name: str
    version: str
    core: ClassVar[bool] = False
    manifest: Manifest
    source: Path | None = None
    module: Any = None

    if not TYPE_CHECKING:  # else checkers would accept any arguments for any subclass

        def __new__(cls, *args, **kwargs):
            if cls is Plugin:
                return super().__new__(DecoratedPlugin)
            if (args or kwargs) and cls.__init__ is object.__init__:
                raise TypeError(f"{cls.__name__}() takes no arguments")
            make = super().__new__  # a subclass may have other bases
            return make(cls) if make is object.__new__ else make(cls, *args, **kwargs)

    @property
    def exports(self) -> Any:
        """What other plugins may use of it: its public names, with their present values."""
        return {
            name: getattr(self, name)
            for name in dir(self)
            if not name.startswith("_")
            and not hasattr(Plugin, name)
            and name not in (*_FIELDS, *STEPS)
            and not isinstance(getattr(type(self), name, None), _COMPUTED)
        }

    def life_cycle(self, name: str) -> Callable[..., Any] | None:
        """Return the life-cycle function of that name, or `None` if there is none."""
        function: Callable[..., Any] | None = getattr(self, name, None)
        return function

    def call_life_cycle(self, name: str, app: object, config: object, context: object) -> Any:
        """Call the life-cycle function of that name with the arguments that it names.

        `*args` gets all three in that order, `**kwargs` all three by name. If the function is
        async the coroutine is returned; if there is none, `None`.
        """
        function = self.life_cycle(name)
        if function is None:
            return None
        given = {"app": app, "config": config, "context": context}
        args, kwargs = parameters(function).choose(given)
        return function(*args, **kwargs)

    def __repr__(self) -> str:
        known: Manifest | None = getattr(self, "manifest", None)
        return f"<Plugin {known.name} {known.version}>" if known else super().__repr__()


class DecoratedPlugin(Plugin):
    """A plugin that is written with decorators: `plugin = Plugin("shop", "1.0.0")`.

    `@plugin.NAME(...)` above a function calls `context.add_NAME(...)`, or `context.NAME(...)`, with
    the function when the plugin loads. `@plugin.on_load`, `on_unload`, `on_activate`,
    `on_deactivate`, `on_export_state` and `on_import_state` set the life-cycle functions; what
    `on_load` decorates runs after the other decorators.

    Args:
        name: The plugin's name.
        version: Its version.
        manifest: The other fields of `Manifest`.

    Raises:
        ManifestError: A field does not exist.
    """

    def __init__(
        self, name: str | None = None, version: str | None = None, **manifest: object
    ) -> None:
        unknown = [Fault(key, "is not a field") for key in manifest if key not in _FIELDS]
        if unknown:
            raise ManifestError(
                f"{name or 'a plugin'} is not valid",
                faults=unknown,
                plugin=name,
                remedy=f"There are: {', '.join(_FIELDS)}.",
            )
        given = {"name": name, "version": version, **manifest}
        vars(self).update({key: value for key, value in given.items() if value is not None})
        self._declared = Declarations()
        self._steps: dict[str, Callable[..., Any]] = {}
        self._contexts: list[weakref.ref[Any]] = []

    @property
    def context(self) -> Any:
        """The context of the plugin that is live, or else of the one that loads.

        Raises:
            StateError: The plugin is not loaded.
        """
        # A `load()` that failed leaves the one before, and no context is held: it is its kernel's.
        known = (made() for made in self._contexts)
        alive = [one for one in known if one is not None and not one._generation.closed]
        self._contexts = [weakref.ref(one) for one in alive]
        if not alive:
            raise StateError(
                "it is not loaded, so it has no context and no configuration",
                plugin=vars(self).get("name"),
                remedy="Use plugin.context and plugin.config in functions that run once it is.",
            )
        live = [one for one in alive if one._generation.live]
        return (live or alive)[-1]

    @property
    def config(self) -> Any:
        """The plugin's present configuration; see `context`."""
        return self.context.config

    @property
    def exports(self) -> Any:
        """The public names of its module, except the plugin itself."""
        if not isinstance(self.module, ModuleType):
            return {}
        return {
            name: value
            for name, value in vars(self.module).items()
            if not name.startswith("_") and value is not self
        }

    def life_cycle(self, name: str) -> Callable[..., Any] | None:
        return self._load if name == "load" else self._steps.get(name)

    def declarations(self) -> tuple[tuple[str, tuple[Any, ...], Callable[..., Any] | None], ...]:
        """Return what it registers when it loads: each verb, its arguments and the function."""
        return self._declared.calls()

    @property
    def loads_more(self) -> bool:
        """Whether a function that `on_load` decorates may register more than that."""
        return "load" in self._steps

    def faults(self) -> Iterator[Fault]:
        """Yield what is wrong with the decorators."""
        yield from self._declared.faults()
        yield from _step_faults("load", self._steps.get("load"))

    def _load(self, app: object, config: object, context: Any) -> Any:
        self._contexts.append(weakref.ref(context))
        self._declared.apply(context)
        function = self._steps.get("load")
        if function is None:
            return None
        args, kwargs = parameters(function).choose(
            {"app": app, "config": config, "context": context}
        )
        return function(*args, **kwargs)

    def _set_step(self, step: str, fn: _F) -> _F:
        if step in self._steps:
            raise ManifestError(
                f"@plugin.on_{step} decorates {self._steps[step].__qualname__} already",
                plugin=vars(self).get("name"),
                remedy=f"Keep one; a plugin has one {step}().",
            )
        self._steps[step] = fn
        return fn

    if not TYPE_CHECKING:  # `veko_plugins.Plugin` shows checkers which decorators there are

        def __getattr__(self, name):
            if name[0] == "_" or name == "manifest" or name in _FIELDS:
                raise AttributeError(f"a plugin has no attribute {name!r}", name=name, obj=self)
            if "manifest" in vars(self):  # it was made: what is declared now would be lost
                raise AttributeError(
                    f"plugin.{name}: the plugin is loaded or about to be; decorate functions "
                    "before that",
                    name=name,
                    obj=self,
                )
            step = name.removeprefix("on_")
            if step in STEPS:
                return functools.partial(self._set_step, step)
            return Decorator(self._declared, name)


class _Wrapped(Plugin):
    """A plugin that was written as a mapping or a module."""

    def __init__(self, written: object, names: Mapping[str, Any]) -> None:
        self._written = written
        self._names = names
        self._functions = {n: names[n] for n in STEPS if names.get(n) is not None}

    def __getattr__(self, name: str) -> Any:
        if name in _FIELDS:  # `.version` and the like, as a class has them
            return getattr(self.manifest, name)
        raise AttributeError(f"a plugin has no attribute {name!r}", name=name, obj=self)

    @property
    def exports(self) -> Any:
        own = self._names.get("exports")
        if own is not None or isinstance(self._written, Mapping):
            return self._written if own is None else own
        return {n: value for n, value in self._names.items() if not n.startswith("_")}

    def life_cycle(self, name: str) -> Callable[..., object] | None:
        return self._functions.get(name)


def as_plugin(obj: object, *, source: Path | None = None, module: object = None) -> Plugin:
    """Turn any form of a plugin into a `Plugin` with a checked manifest.

    Args:
        obj: A `Plugin` subclass or instance, a mapping, or a module.
        source: The file or folder it came from, for messages.
        module: What `get_plugin(...).module` is to be, if not `obj`.

    Returns:
        The plugin; a `Plugin` instance comes back itself.

    Raises:
        ManifestError: Required fields are missing or fields are of the wrong type; all are listed.
    """
    if isinstance(obj, type) and issubclass(obj, Plugin):
        obj = obj()
    if isinstance(obj, Plugin):
        plugin: Plugin = obj
        read: Callable[[str], Any] = functools.partial(_attribute, obj)
    elif isinstance(obj, Mapping):
        names = cast(Mapping[str, Any], obj)
        read, plugin = names.get, _Wrapped(obj, names)
    elif isinstance(obj, ModuleType):
        read, plugin = vars(obj).get, _Wrapped(obj, vars(obj))
    else:
        raise ManifestError(
            f"{obj!r} is not a plugin",
            path=source,
            remedy="Give a subclass of veko.Plugin, a mapping or a module.",
        )
    plugin.manifest = _manifest(read, plugin, source)
    plugin.source = source
    plugin.module = obj if module is None else module
    return plugin


def made_of(plugin: Plugin | type[Plugin] | Mapping[str, Any] | ModuleType) -> Plugin:
    """Return a plugin that has its manifest as it is, any other form as `as_plugin` makes it.

    Raises:
        ManifestError: It is not a valid plugin.
    """
    if isinstance(plugin, Plugin) and getattr(plugin, "manifest", None) is not None:
        return plugin
    return as_plugin(plugin)


def _attribute(plugin: Plugin, name: str) -> Any:
    return getattr(plugin, name, None)


def _manifest(read: Callable[[str], Any], plugin: Plugin, source: Path | None) -> Manifest:
    faults: list[Fault] = []
    found: dict[str, Any] = {}
    for key, field in _FIELDS.items():
        value = read(key)
        if value is None:
            if key in ("name", "version"):
                faults.append(Fault(key, "is missing"))
            continue
        try:
            found[key] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            text = str(error)
            faults.append(Fault(key, f"{text[:1].lower()}{text[1:]}; it is {value!r}"))
    name: str | None = found.get("name")
    if name is not None and (not NAME.fullmatch(name) or len(name) > NAME_LENGTH):
        shown = name if len(name) <= NAME_LENGTH else name[:40] + "…"
        limit = f"{NAME.pattern} ({NAME_LENGTH} characters at most)"
        faults.append(Fault("name", f"{shown!r} does not match {limit}"))
        name = None
    if found.get("version") == "":
        faults.append(Fault("version", "is empty"))
    for key, (one, other) in _CHOICES.items():
        if found.get(key, one) not in (one, other):
            faults.append(Fault(key, f"{found[key]!r} is neither {one!r} nor {other!r}"))
    faults += _function_faults(plugin)
    if faults:
        raise ManifestError(
            f"{name or 'a plugin'} is not valid",
            faults=faults,
            plugin=name,
            path=source,
            remedy="Fix what is listed; every plugin needs a name, a version and a load().",
        )
    return Manifest(**found)


def _function_faults(plugin: Plugin) -> Iterator[Fault]:
    if plugin.life_cycle("load") is None:
        yield Fault("load()", "is missing")
    for name in STEPS:
        yield from _step_faults(name, plugin.life_cycle(name))
    if isinstance(plugin, DecoratedPlugin):
        yield from plugin.faults()


def _step_faults(name: str, function: Callable[..., Any] | None) -> Iterator[Fault]:
    if function is None:
        return
    if not callable(cast(object, function)):
        yield Fault(name, f"is {function!r}, not a function")
    elif name in ("export_state", "import_state"):
        if is_async(function):
            yield Fault(
                f"{name}()", "is async; it runs in the swap, which cannot wait: make it a def"
            )
    else:
        for parameter in parameters(function).required:
            if parameter not in _ARGUMENTS:
                yield Fault(
                    f"{name}()",
                    f"unknown parameter {parameter!r}; it may take app, config, context",
                )


def requirement_name(requirement: str) -> str:
    """Return the plugin name that a requirement such as `"db>=2,<3"` begins with."""
    match = NAME.match(requirement.strip().lower())
    return match.group().rstrip("._-") if match else requirement
