"""Every number of every configuration has a range, and nothing outside it is accepted, from a file or from words."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import re
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import tomli_w

from cxrdist.core.configs import from_dict, hints, is_section, settings
from cxrdist.errors import InputError
from jobs import _options, cli
from jobs._options import UsageError, parse_options
from shards.ranges import interval, out_of_range, ranges


def _configs() -> dict[str, tuple[type, tuple[str, ...]]]:
    found = {}
    for command in cli.COMMANDS:
        module = importlib.import_module(cli.module_name(command))
        if hasattr(module, "main"):  # its words are not parsed into a configuration
            continue
        positionals = getattr(module, "POSITIONALS", ())
        for word, config in (module.CONFIGS if hasattr(module, "CONFIGS") else {"": module.Config}).items():
            found[f"{command} {word}".strip()] = (config, positionals)
    return found


CONFIGS = _configs()


def _holds_number(kind: object) -> bool:
    return kind in (int, float) or any(map(_holds_number, get_args(kind)))


def _numeric() -> list[tuple[str, str]]:
    return [
        (command, key)
        for command, (config, _) in CONFIGS.items()
        for key, kind in settings(config)
        if not is_section(kind) and _holds_number(kind)
    ]


NUMERIC = _numeric()


def _kind(config: type, key: str) -> object:
    return dict(settings(config))[key]


def _outside(config: type, key: str) -> list[float]:
    """Numbers that are not in the range of a setting: beside its ends, and those that are in no range."""
    allowed, kind = ranges(config)[key], _kind(config, key)
    whole = kind is int or int in get_args(kind)
    found: list[float] = [] if whole else [math.nan, math.inf, -math.inf]
    if allowed.low > -math.inf:
        found += [allowed.low - 1] + ([allowed.low] if not allowed.holds_low else [])
    if allowed.high < math.inf:
        found += [allowed.high + 1] + ([allowed.high] if not allowed.holds_high else [])
    return [int(value) if whole else float(value) for value in found if whole or value not in allowed]


def _shaped(kind: object, value: object) -> object:
    """The value as the setting's type takes it: alone, in a list, in a table."""
    if get_origin(kind) is Annotated or (get_origin(kind) not in (list, tuple, dict) and get_args(kind)):
        inner = [part for part in get_args(kind) if _holds_number(part)]
        plain = [part for part in inner if part in (int, float)]
        return _shaped((plain or inner)[0], value)
    if get_origin(kind) is list:
        return [value]
    if get_origin(kind) is tuple:
        return [value] * len(get_args(kind))
    return {"edema": value} if get_origin(kind) is dict else value


def _required(config: type, key: str, positionals: tuple[str, ...]) -> dict[str, object]:
    """Values for the settings without a default."""
    found = {}
    for field in dataclasses.fields(config):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name != key and field.name not in positionals:
            found[field.name] = "x"
    return found


def _words_of_positionals(config: type, positionals: tuple[str, ...]) -> list[str]:
    words = []
    for name in positionals:
        kind = hints(config)[name]
        choices = get_args(kind)
        words.append(str(choices[0]) if choices and isinstance(choices[0], str) else "x")
    return words


def _nested(key: str, value: object) -> dict:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value  # pyright: ignore[reportReturnType]


def test_every_number_of_every_configuration_has_a_range():
    missing = [(command, key) for command, key in NUMERIC if key not in ranges(CONFIGS[command][0])]
    assert missing == []


def test_every_default_is_in_its_range():
    for command, (config, positionals) in CONFIGS.items():
        values = {name: "x" for name in (*_required(config, "", positionals), *positionals)}
        assert out_of_range(config(**values)) is None, command


@pytest.mark.parametrize("command", CONFIGS)
def test_a_number_outside_its_range_is_refused_in_a_file_and_on_the_command_line(command, tmp_path, monkeypatch):
    monkeypatch.setattr(_options, "_parser", functools.cache(_options._parser))  # a new one for each value takes long
    config, positionals = CONFIGS[command]
    spec = tmp_path / "spec.toml"
    start = _words_of_positionals(config, positionals)
    for key in [key for owner, key in NUMERIC if owner == command and not _seen_elsewhere(command, key)]:
        given = [f"--{name}={value}" for name, value in _required(config, key, positionals).items()]
        kind = _kind(config, key)
        outside = [_shaped(kind, value) for value in _outside(config, key)]
        tried = [("--config", str(spec), value) for value in outside]
        if str not in get_args(kind):  # text may be a list of numbers, which is read later
            tried += [(f"--{key}={_text(value)}", None, None) for value in (outside[0], outside[-1])]
        for word, path, value in tried:
            if path:
                spec.write_text(tomli_w.dumps(_nested(key, value)))
            with pytest.raises(UsageError) as caught:
                parse_options(
                    "cxrdist x", config, positionals, "about", [*start, *given, word, *([path] if path else [])]
                )
            assert key in str(caught.value) and "must be" in str(caught.value), (word, value, str(caught.value))


def _seen_elsewhere(command: str, key: str) -> bool:
    """Whether a setting is that of a class that an earlier command has too."""
    owner = _owner(CONFIGS[command][0], key)
    earlier = list(CONFIGS)[: list(CONFIGS).index(command)]
    return any(_owner(CONFIGS[other][0], key) is owner for other in earlier if key in dict(settings(CONFIGS[other][0])))


def _owner(config: type, key: str) -> type:
    section, _, name = key.rpartition(".")
    holder = dict(settings(config))[section] if section else config
    return next(kind for kind in reversed(holder.__mro__) if name in getattr(kind, "__annotations__", {}))


def _text(shaped: object) -> str:
    if isinstance(shaped, list):
        return f"[{', '.join(map(_text, shaped))}]"
    if isinstance(shaped, dict):
        return f"{{{', '.join(f'{key} = {_text(value)}' for key, value in shaped.items())}}}"
    return str(shaped)


@pytest.mark.parametrize("command", CONFIGS)
def test_a_word_that_is_no_choice_and_a_text_for_a_number_are_refused_naming_what_is_allowed(command):
    config, positionals = CONFIGS[command]
    start = _words_of_positionals(config, positionals)
    for key, kind in settings(config):
        choices = get_origin(kind) is Literal
        if key in positionals or not (choices or kind in (int, float, bool)) or _seen_elsewhere(command, key):
            continue
        given = [f"--{name}={value}" for name, value in _required(config, key, positionals).items()]
        with pytest.raises(UsageError, match=re.escape(f"{key} = nonsense: must be ")) as caught:
            parse_options("cxrdist x", config, positionals, "about", [*start, *given, f"--{key}=nonsense"])
        assert not choices or all(str(choice) in str(caught.value) for choice in get_args(kind))


def test_the_device_is_a_choice_wherever_there_is_one():
    for command, (config, _) in CONFIGS.items():
        kind = dict(settings(config)).get("device")
        assert kind is None or get_args(kind) == ("auto", "cpu", "cuda"), command


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("(0, 1]", [1, 0.5, 5e-324], [0, 1.0000001, -1, math.nan, math.inf]),
        ("[1, inf)", [1, 10**400], [0, -(10**400), math.inf, math.nan]),
        ("[0, 2^63)", [0, 2**63 - 1], [-1, 2**63]),
        ("(-inf, inf)", [-1e308, 0], [math.nan, -math.inf]),
    ],
)
def test_an_interval_holds_what_mathematics_says(text, inside, outside):
    assert all(value in interval(text) for value in inside)
    assert not any(value in interval(text) for value in outside)


@pytest.mark.parametrize("text", ["0 to 1", "[0; 1]", "[a, 1]", ""])
def test_what_is_no_interval_is_refused(text):
    with pytest.raises(ValueError):
        interval(text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """Optimiser."""

    lr: Annotated[float | None, "(0, inf)"] = None
    """Rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    """A job."""

    out: str
    """Folder."""
    axes: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Anything."""
    optim: Inner = dataclasses.field(default_factory=Inner)
    """Section."""


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"out": "o", "optim": 5}, "optim = 5: must be a table [optim] with the keys lr"),
        ({"out": "o", "optim": {"lrr": 5}}, "unknown key optim.lrr; did you mean optim.lr?"),
        ({"out": "o", "optim": {"lr": "fast"}}, "optim.lr = fast: must be a number or null, above 0"),
        ({"out": "o", "optim": {"lr": math.nan}}, "optim.lr = nan: must be above 0"),
        ({"out": "o", "axes": {"optim.lr": [1e-3, math.inf]}}, "axes.optim.lr = inf: must be a finite number"),
        ({}, "out is missing"),
        ({"out": None}, "out = null: must be text"),
        ({"out": "o", "axes": None}, "axes = null: must be a table"),
    ],
)
def test_a_plain_dict_that_is_no_configuration_is_refused_by_name(values, says):
    with pytest.raises(InputError) as caught:
        from_dict(Outer, values, "spec.toml")
    assert str(caught.value) == f"spec.toml: {says}"


def test_a_plain_dict_becomes_the_configuration():
    assert from_dict(Outer, {"out": "o", "optim": {"lr": 1}}) == Outer(out="o", optim=Inner(lr=1.0))


def test_a_shipped_spec_is_found_by_its_name_in_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--shards", "s", "--out", "o"]
    named = cli.parse("sweep", ["--config", "linear_probe", *words])
    assert named == cli.parse("sweep", ["--config=linear_probe.toml", *words])
    assert named == cli.parse("sweep", ["--config", "jobs/specs/linear_probe.toml", *words])
    assert named.axes["label_fraction"]
    (tmp_path / "linear_probe").write_text("seed = 3\n")  # a file of that name comes first
    assert cli.main(["finetune", "--config", "linear_probe", *words, "--print_config"]) == 0
    assert "seed = 3" in capsys.readouterr().out
    assert cli.main(["sweep", "--config", "linear_prob", *words]) == 2
    error = capsys.readouterr().err
    assert "no such file; did you mean the shipped spec linear_probe?" in error and "cxrdist specs" in error


def test_shipped_specs_are_listed_and_printed(capsys):
    assert cli.main(["specs"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("linear_probe ", "hyper_search ", "pretrain_nih "))
    assert cli.main(["specs", "--show", "linear_probe"]) == 0
    assert capsys.readouterr().out.startswith("# Linear probes")
    assert cli.main(["specs", "--show", "linear"]) == 2
    assert "no shipped spec 'linear'; there are " in capsys.readouterr().err


@pytest.mark.parametrize("nothing", ["null", "None"])
def test_both_spellings_of_nothing_are_taken(nothing, tmp_path):
    words = ["--shards", "s", "--out", "o", "--patience", nothing, "--labels", nothing]
    config = cli.parse("finetune", words)
    assert config.patience is None and config.labels is None


def test_a_refused_value_names_the_file_it_came_from(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[optim]\nlr = "fast"\n')
    words = ["--config", str(file), "--shards", "s", "--out", "o"]
    with pytest.raises(UsageError, match=f"--config {file}: optim.lr = fast: must be a number") as refused:
        cli.parse("finetune", words)
    assert "<class" not in str(refused.value)
    with pytest.raises(UsageError, match="^cxrdist finetune: epochs = many: must be a whole number"):
        cli.parse("finetune", ["--epochs", "many", "--shards", "s", "--out", "o"])
    file.write_text("epocs = 3\n")
    with pytest.raises(UsageError, match=f"--config {file}: unknown key epocs; did you mean epochs"):
        cli.parse("finetune", words)


@pytest.mark.parametrize("command", sorted(CONFIGS))
def test_print_config_shows_every_option(command, capsys):
    config, positionals = CONFIGS[command]
    given = [_sample(config, name) for name in positionals]
    needed = [
        word
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.name not in positionals
        for word in (f"--{field.name}", _sample(config, field.name))
    ]
    assert cli.main([*command.split(), *given, *needed, "--print_config"]) == 0
    shown = capsys.readouterr().out
    keys = {key.rpartition(".")[2] for key, kind in settings(config) if not is_section(kind)}
    assert not {key for key in keys if not re.search(rf"(?m)^(# |\[[\w.]*)?{key}( =|\]| is None)", shown)}


def _sample(config, name):
    kind = hints(config)[name]
    return str(get_args(kind)[0]) if get_origin(kind) is Literal else "x"
