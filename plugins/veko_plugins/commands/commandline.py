"""A command line, parsed by click into Python arguments.

The function needs to know nothing of click. Defaults stay the function's own objects (click gets
none of them, so none is converted to text and back), and values arrive as the types that the
annotations name.

Cost: click is imported when the first command line is parsed, not before; nothing is kept.
Promise: nothing is printed and nothing exits. An invalid line raises; `--help` returns the help.
"""

from __future__ import annotations

import enum
import inspect
import itertools
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args, get_origin

import msgspec

from veko import VekoError

from .arguments import COLLECTIONS, EMPTY, Argument, Usage, UsageError, label

if TYPE_CHECKING:
    import click


_HINT = re.compile(r"\.? \(?Did you mean (.*?)\)?$")
_NEGATIVE = re.compile(r"option:? '?-\d")
_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


class Arguments(msgspec.Struct, frozen=True):
    """The arguments of a call.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    args: tuple[object, ...]
    kwargs: dict[str, object]


def parse(name: str, usage: Usage, description: str, line: Sequence[str]) -> Arguments | str:
    """Parse a command line.

    Args:
        name: The name of the command, for messages.
        usage: The arguments of its function.
        description: The description that it was registered with.
        line: The words after the name.

    Returns:
        The arguments for the function, or the help if the line asks for it.

    Raises:
        UsageError: The line does not match the command's arguments.
        VekoError: click is not installed.
    """
    try:
        import click
    except ImportError as error:
        raise VekoError(
            "command lines need click, which is not installed",
            remedy="Run `pip install 'veko[cli]'`.",
        ) from error
    keys = {argument.name: f"p{index}" for index, argument in enumerate(usage.arguments)}
    shown = [argument for argument in usage.arguments if argument.form != "hidden"]
    parameters = [_parameter(keys[argument.name], argument) for argument in shown]
    if "help" not in {argument.name for argument in shown if argument.form == "option"}:
        parameters.append(_help_option())
    command = click.Command(
        name,
        params=parameters,
        help="\n\n".join(dict.fromkeys(filter(None, (description, usage.help)))),
        add_help_option=False,
    )
    try:
        unknown = _has_only_numbers(line, parameters)
        with command.make_context(name, list(line), ignore_unknown_options=unknown) as context:
            values = dict(context.params)
    except _HelpAsked as asked:
        return asked.text
    except click.UsageError as error:
        message = _HINT.sub(r" (did you mean \1)", error.format_message().strip().rstrip("."))
        form = " ".join(
            command.get_usage(error.ctx or click.Context(command, info_name=name)).split()
        )
        if _NEGATIVE.search(message):
            form += "; put -- before arguments that begin with a dash"
        raise UsageError(
            f"command {name!r}: {message[:1].lower()}{message[1:]}", remedy=f"{form}."
        ) from error
    return _bind(usage, {argument: values.get(key) for argument, key in keys.items()})


def _has_only_numbers(line: Sequence[str], parameters: Sequence[click.Parameter]) -> bool:
    """Return whether numbers below 0 are all that looks like options and is none.

    Then they are arguments; else click names what is wrong, and misspelled options with it.
    """
    options = {name for one in parameters for name in (*one.opts, *one.secondary_opts)}
    words = itertools.takewhile(lambda word: word != "--", line)
    return all(
        _NUMBER.fullmatch(word) or word.partition("=")[0] in options
        for word in words
        if word.startswith("-")
    )


class _HelpAsked(Exception):
    """Leaves click's parser with the help that the line asked for."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def _help_option() -> click.Option:
    import click

    def callback(context: click.Context, _: click.Parameter, asked: bool) -> None:
        if asked and not context.resilient_parsing:
            raise _HelpAsked(context.get_help())

    return click.Option(
        ["--help"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        help="Show this help.",
        callback=callback,
    )


def _bind(usage: Usage, values: dict[str, object]) -> Arguments:
    args: list[object] = []
    kwargs: dict[str, object] = {}
    for argument in usage.arguments:
        value = _converted(argument, values[argument.name])
        if argument.kind is inspect.Parameter.KEYWORD_ONLY:
            kwargs[argument.name] = value
        elif argument.kind is inspect.Parameter.VAR_POSITIONAL:
            args.extend(cast("Collection[object]", value))
        else:
            args.append(value)
    return Arguments(tuple(args), kwargs)


def _converted(argument: Argument, value: object) -> object:
    """Return the value for the function: its default if nothing was given."""
    if argument.many:
        values = cast("tuple[object, ...]", value or ())
        if not values and argument.default is not EMPTY:
            return argument.default
        return COLLECTIONS[argument.many](_member(argument.type, one) for one in values)
    if value is None:
        return None if argument.default is EMPTY else argument.default
    return _member(argument.type, value)


def _parameter(key: str, argument: Argument) -> click.Parameter:
    import click

    converter = _converter(argument.type)
    dashed = argument.name.replace("_", "-")
    if argument.form == "argument":
        return click.Argument(
            [key],
            type=converter,
            required=argument.required,
            nargs=-1 if argument.many else 1,
            metavar=_metavar(dashed.upper(), argument),
        )
    default = argument.default
    shown = default not in (EMPTY, None, False, "") and not (argument.many and not default)
    text = f"{argument.help}  [default: {_shown(default)}]".strip() if shown else argument.help
    # For click any default, even None, satisfies a required option.
    settings: dict[str, Any] = {"required": True} if argument.required else {"default": None}
    if argument.type is bool and not argument.many:
        return click.Option([key, f"--{dashed}/--no-{dashed}"], help=text, **settings)
    return click.Option(
        [key, f"--{dashed}"],
        type=converter,
        multiple=bool(argument.many),
        help=text,
        **settings,
    )


def _metavar(name: str, argument: Argument) -> str:
    if not argument.many:
        return name
    return f"{name}..." if argument.required else f"[{name}]..."


def _shown(default: object) -> str:
    if isinstance(default, enum.Enum):
        return _text(default)
    if isinstance(default, list | tuple | set | frozenset):
        return ", ".join(_shown(one) for one in default)
    return str(default)


def _converter(annotation: object) -> click.ParamType[Any]:
    import click

    base = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    choices = _choices(base)
    if choices:
        return click.Choice(list(choices))
    if base is Path:
        return click.Path(path_type=Path)
    if base is annotation and base in (str, int, float, bool):
        return click.types.convert_type(base)

    class Parsed(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
        name = label(base)

        def convert(
            self, value: object, param: click.Parameter | None, ctx: click.Context | None
        ) -> object:
            try:
                return msgspec.convert(value, cast("type[object]", annotation), strict=False)
            except msgspec.ValidationError as error:
                self.fail(f"{value!r}: {error}", param, ctx)

    return Parsed()


def _choices(annotation: object) -> dict[str, object]:
    if get_origin(annotation) is Literal:
        return {str(value): value for value in get_args(annotation)}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {_text(member): member for member in annotation}
    return {}


def _member(annotation: object, value: object) -> object:
    base = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return _choices(base).get(value, value) if isinstance(value, str) else value


def _text(member: enum.Enum) -> str:
    """Return how a command line names a member: by its value if that is text, else by its name."""
    return member.value if isinstance(member.value, str) else member.name
