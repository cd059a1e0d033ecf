"""From the words of a command line and the TOML files it names to a checked configuration, one line per error."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from cxrdist.core import named_inits
from cxrdist.core.configs import hints, is_section, nearest, settings, why_refused, wrong_shape
from shards.ranges import out_of_range, ranges

EPILOG = "Research use only: nothing here is made or tested for clinical decisions."
OWN_KEYS = ("config", "print_config")
"""Options of every command that are not settings."""


class UsageError(ValueError):
    """The command line or a spec file cannot be used; the message says what, where and how to fix it."""

    exit_code = 2


def parse_options(prog: str, config: type, positionals: Sequence[str], about: str, words: Sequence[str]) -> Any:
    """Return the configuration that the words stand for.

    Args:
        prog: how the command is called, for --help and errors.
        config: a frozen dataclass; sections are dataclasses inside it.
        positionals: its fields that are given without their name.
        about: what --help says.
        words: the rest of the command line.

    Raises:
        UsageError: an unknown option or key, a wrong type, a value out of its range, an unusable --config.
    """
    from jsonargparse import ArgumentError

    words = _nothing(_flags(_shipped(list(words)), _switches(config)), config)
    for path in _config_files(words):
        _check_file(prog, path, config)
    parser = _parser(prog, config, tuple(positionals), about)
    try:
        if "--print_config" in words:
            _print_config(parser, words, config)
        values = parser.parse_args(words)
        built = parser.instantiate(values).as_dict()
    except (ArgumentError, OverflowError) as error:  # the second: an integer that no float can hold
        raise UsageError(_explain(prog, str(error), parser, config, words)) from error
    ready = config(**{key: value for key, value in built.items() if key not in OWN_KEYS})
    if holder := _null_byte(dataclasses.asdict(ready)):
        raise UsageError(f"{prog}: {holder} holds a null byte, which no name and no path can hold; leave it out")
    if wrong := out_of_range(ready):
        raise UsageError(f"{prog}: {wrong}")
    if wrong := named_inits.unseen(ready, lambda: parser.parse_args(words, defaults=False)):
        raise UsageError(f"{prog}: {wrong}")
    if empty := _empty(ready):
        raise UsageError(f"{prog}: {empty} is empty (a variable that is not set?); name it, or . for this folder")
    return ready


def _print_config(parser: Any, words: Sequence[str], config: type) -> None:
    """Print every setting as TOML that --config takes again, those that are None as comments, and end.

    Raises:
        SystemExit: 0, when it is printed.
    """
    held = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(held):
        parser.parse_args(words)
    print(_as_toml(config, tomllib.loads(held.getvalue())), end="")
    raise SystemExit(0)


def _as_toml(config: type, values: dict[str, Any], prefix: str = "") -> str:
    """The settings of a configuration in the order of its fields, sections last; TOML knows no null."""
    import tomli_w

    lines, sections = [], []
    for name, kind in hints(config).items():
        if is_section(kind):
            inner = _as_toml(kind, values.get(name) or {}, f"{prefix}{name}.")
            sections.append(f"\n[{prefix}{name}]\n{inner}")
        elif isinstance(values.get(name), dict):  # a table without settings of its own, such as one key a label
            sections.append(f"\n[{prefix}{name}]\n{tomli_w.dumps(values[name])}")
        elif values.get(name) is None:
            lines.append(f"# {name} is None\n")
        else:
            lines.append(tomli_w.dumps({name: values[name]}))
    return "".join([*lines, *sections])


def _null_byte(value: Any, name: str = "") -> str | None:
    """The dotted name of a setting whose text holds a null byte, which TOML can write and words cannot; or None."""
    if isinstance(value, dict):
        pairs = [(item, f"{name}.{key}".lstrip(".")) for key, item in value.items()]
        return next((f"a key of {name}" for key in value if "\0" in str(key)), None) or _first_null_byte(pairs)
    if isinstance(value, (list, tuple)):
        return _first_null_byte([(item, name) for item in value])
    return name if isinstance(value, str) and "\0" in value else None


def _first_null_byte(pairs: Sequence[tuple[Any, str]]) -> str | None:
    return next((found for value, name in pairs if (found := _null_byte(value, name))), None)


def _empty(config: Any) -> str | None:
    """The first setting that names a file or folder and is '', which would mean the current folder."""
    for field in dataclasses.fields(config):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        value = getattr(config, field.name)
        each = value if isinstance(value, (list, tuple)) else [value]
        if (needed or field.name in ("out", "shards", "src")) and any(
            isinstance(v, str) and not v.strip() for v in each
        ):
            return field.name
    return None


@functools.cache
def _parser(prog: str, config: type, positionals: tuple[str, ...], about: str) -> Any:
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=prog, description=about, epilog=EPILOG, parser_mode="toml", exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", help="TOML file of options; options given after it win")
    for name in positionals:
        kind = hints(config)[name]
        if kind == list[str]:
            parser.add_argument(name, type=str, nargs="+")
        else:
            parser.add_argument(name, type=kind)
    parser.add_class_arguments(config, None, skip=set(positionals))
    allowed = ranges(config)
    for action in parser._actions:
        if action.dest in allowed:  # the range as the field's type has it, where --help tells the type
            action.help = f"{action.help} Allowed: {allowed[action.dest]}."
    return parser


def _switches(config: type) -> set[str]:
    """Return the options of a configuration that are true or false, `--dry_run` or `--watch.knn`."""
    return {f"--{name}" for name, kind in settings(config) if kind is bool}


def _flags(words: list[str], switches: set[str]) -> list[str]:
    """Let `--dry_run` alone mean `--dry_run true`."""
    following = [*words[1:], ""][: len(words)]
    return [
        f"{word}=true" if word in switches and after.lower() not in ("true", "false", "yes", "no") else word
        for word, after in zip(words, following, strict=True)
    ]


def _nothing(words: list[str], config: type) -> list[str]:
    """Let `--patience None` mean what `--patience null` does, for settings that may be None."""
    optional = {f"--{name}" for name, kind in settings(config) if type(None) in get_args(kind)}
    before = ["", *words]
    out = []
    for previous, word in zip(before, words, strict=False):
        name, _, value = word.partition("=")
        if previous in optional and word == "None":
            out.append("null")
        else:
            out.append(f"{name}=null" if name in optional and value == "None" else word)
    return out


def _config_files(words: Sequence[str]) -> Iterator[str]:
    for position, word in enumerate(words):
        if word.startswith("--config="):
            yield word.partition("=")[2]
        elif word == "--config":
            yield words[position + 1] if position + 1 < len(words) else ""


SPECS = Path(__file__).parent / "specs"
"""The named experiments that come with cxrdist."""


def specs() -> dict[str, Path]:
    """Shipped spec files by the name that --config takes anywhere."""
    return {path.stem: path for path in sorted(SPECS.glob("*.toml"))}


def _shipped(words: list[str]) -> list[str]:
    """Let `--config NAME` mean the shipped spec of that name where no file has it."""
    known, out = specs(), []
    for position, word in enumerate(words):
        start, value = ("", word) if position and words[position - 1] == "--config" else ("--config=", word[9:])
        named = start == "" or word.startswith("--config=")
        name = Path(value).name.removesuffix(".toml")
        # jobs/specs/NAME.toml is how a spec is named in a checkout, and its own header names it so
        spelled = value in (name, f"{name}.toml", f"jobs/specs/{name}.toml")
        out.append(
            f"{start}{known[name]}" if named and spelled and name in known and not Path(value).is_file() else word
        )
    return out


def _check_file(prog: str, path: str, config: type) -> None:
    """Refuse what the parser would blame on something else: a file it takes for inline TOML, keys that are its own.

    Raises:
        UsageError: no such file, not text, not TOML, a key that is not a setting, a section that is not a table.
    """
    where = f"{prog}: --config {path or '(nothing)'}"
    if not Path(path).is_file():
        near = nearest(Path(path).name.removesuffix(".toml"), list(specs()))
        hint = f"; did you mean the shipped spec {near}?" if near else ""
        raise UsageError(f"{where}: no such file{hint} (cxrdist specs lists those that come with cxrdist)")
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{where}: not TOML ({error})") from error
    if reserved := [key for key in OWN_KEYS if key in values]:
        raise UsageError(f"{where}: {reserved[0]} is an option of the command line, not a key of a file")
    if wrong := wrong_shape(values, config):
        raise UsageError(f"{where}: {wrong}")


def _explain(prog: str, message: str, parser: Any, config: type, words: Sequence[str]) -> str:
    """The parser's error as one line that names the option, its value, what is allowed, and the file it came from."""
    text = " ".join(message.split())
    unknown = text.partition("does not accept option ")[2] or text.partition("unrecognized arguments: ")[2]
    if unknown:
        wanted = unknown.strip("' ").lstrip("-").partition("=")[0].partition(" ")[0]
        near = nearest(wanted, [action.dest for action in parser._actions])
        text += f"; did you mean --{near}?" if near else f"; {prog} --help lists the options"
        return f"{prog}: {text}"
    why = why_refused(message, config)
    file = _file_of(why.partition(" = ")[0], words)
    return f"{prog}: --config {file}: {why}" if file else f"{prog}: {why}"


def _file_of(key: str, words: Sequence[str]) -> str | None:
    """The last --config file that sets a key, unless the command line sets it."""
    if any(word == f"--{key}" or word.startswith(f"--{key}=") for word in words):
        return None
    found = None
    for path in _config_files(words):
        values: Any = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        if key in values:
            found = path
            continue
        for part in key.split("."):
            values = values.get(part) if isinstance(values, dict) else None
        found = path if values is not None else found
    return found
