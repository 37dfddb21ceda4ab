"""Configurations as YAML: files, presets (plain YAML too), overrides from the command line, and back."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from adapterprobe.config import RENAMED, RunConfig
from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.progress import say
from adapterprobe.safe_yaml import YamlError, parse_yaml
from adapterprobe.small_files import read_text
from adapterprobe.terminal import shortened

DEFAULT_PRESET = "demo"
LARGEST = 2**31 - 1
"""Of whole numbers in a configuration."""
MOST_SHOWN = 8
"""Faults of one configuration that are written out; all are counted."""


def _field_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _field_names(field.annotation, f"{prefix}{name}.")
    return names


def _explain(error: ValidationError, source: str) -> ConfigError:
    """All that is wrong with a configuration, in one line."""
    found = [_one_fault(fault) for fault in error.errors()]
    said = list(dict.fromkeys(found))
    more = f"; and {len(said) - MOST_SHOWN} more" if len(said) > MOST_SHOWN else ""
    return ConfigError(f"{source}: {'; '.join(said[:MOST_SHOWN])}{more}")


def _one_fault(fault: Any) -> str:
    where = ".".join(
        shortened(part) if isinstance(part, str) and len(part) > 60 else str(part) for part in fault["loc"]
    )
    if fault["type"] == "extra_forbidden":
        known = _field_names(RunConfig)
        hint = nearest(where, known) or _same_leaf(where, known)
        return f"unknown key '{where}'{hint}; `adapterprobe run --keys` lists all"
    message = fault["msg"].removeprefix("Value error, ")
    message = message if len(message) <= 600 else f"{message[:600]} ..."
    got = "" if fault["type"] == "value_error" else f", got {shortened(fault['input'])}"
    hint = ""
    expected = (fault.get("ctx") or {}).get("expected")
    if isinstance(fault["input"], str) and expected:
        hint = nearest(fault["input"], [word.strip("' ") for word in str(expected).replace(" or ", ",").split(",")])
    return f"{where or 'configuration'}: {message}{got}{hint}"


def _same_leaf(where: str, known: list[str]) -> str:
    leaf = where.rsplit(".", 1)[-1]
    ends = {name.rsplit(".", 1)[-1]: name for name in known}
    close = difflib.get_close_matches(leaf, list(ends), n=1)
    return f" (did you mean '{ends[close[0]]}'?)" if close else ""


def preset_names() -> list[str]:
    return sorted(f.name[:-5] for f in resources.files("adapterprobe.presets").iterdir() if f.name.endswith(".yaml"))


def read_config(
    source: str | Path | None = None, overrides: list[str] | None = None, trust_remote_code: bool = False
) -> RunConfig:
    """A configuration from a YAML file or the name of a preset, then `key.subkey=value` overrides in order.

    Args:
        source: None for the preset `demo`.
        trust_remote_code: whether code that comes with the model may be run: a file cannot say so.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (with the nearest right one), an impossible value, or a file that
            asks for code to be run.
    """
    source = DEFAULT_PRESET if source is None else source
    values = _values_of(source)
    if _asks_for_code(values) and not trust_remote_code:
        raise ConfigError(
            f"{source} has model.trust_remote_code: true, which is never taken from a file, because it runs Python code of the "
            "model's makers; if you trust them, give --trust-remote-code (in Python: trust_remote_code=True), else take it out"
        )
    return _validated(values, source, overrides or [], trust_remote_code)


def read_run_config(folder: str | Path) -> tuple[RunConfig, dict[str, Any]]:
    """(configuration, provenance) of a run, out of its folder: only ever read, so nothing in it may run code.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = Path(folder) / "config.yaml"
    values = _parsed(path)
    provenance = values.pop("provenance", None)
    _asks_for_code(values)
    return _validated(values, path, [], False), provenance if isinstance(provenance, dict) else {}


def recorded_provenance(folder: str | Path) -> dict[str, Any]:
    """Versions and hashes of a run, out of its folder; nothing where there is no configuration yet."""
    return read_run_config(folder)[1] if (Path(folder) / "config.yaml").is_file() else {}


def _parsed(source: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file or preset."""
    if str(source) in preset_names():
        text = (resources.files("adapterprobe.presets") / f"{source}.yaml").read_text("utf-8")
    else:
        if not str(source).strip():
            raise ConfigError(
                f"the configuration has no name; give a YAML file or a preset: {', '.join(preset_names())}"
            )
        text = read_text(
            source, "the configuration", remedy=f"give a YAML file or a preset: {', '.join(preset_names())}"
        )
    try:
        values = parse_yaml(text)
    except YamlError as error:
        raise ConfigError(f"{source} is not a configuration in YAML: {error}") from error
    if not isinstance(values, dict) or not values:
        got = "nothing" if values is None else shortened(values)
        raise ConfigError(
            f"{source}: expected keys and values, got {got}; an empty configuration would be the demo's: say `adapterprobe run "
            "demo` for that"
        )
    strange = [key for key in values if not isinstance(key, str)]
    if strange:
        raise ConfigError(f"{source}: expected names as keys, got {shortened(strange[0])}")
    return values


def _values_of(source: str | Path) -> dict[str, Any]:
    values = _parsed(source)
    # What a run writes beside its configuration (versions, hashes) is not part of it.
    values.pop("provenance", None)
    return values


def _asks_for_code(values: dict[str, Any]) -> bool:
    """Whether the values ask for the model's own code to be run; what they say of it is taken out."""
    model = values.get("model")
    return bool(model.pop("trust_remote_code", False)) if isinstance(model, dict) else False


def _validated(values: dict[str, Any], source: str | Path, overrides: list[str], trust_remote_code: bool) -> RunConfig:
    for override in overrides:
        _override(values, override)
    if trust_remote_code:
        place = values.setdefault("model", {})
        if isinstance(place, dict):
            place["trust_remote_code"] = True
    adapter = values.get("adapter")
    for old, new in RENAMED.items():
        if isinstance(adapter, dict) and old in adapter:
            say(f"adapter.{old} is now called adapter.{new}; the former name is read until the next release")
    if (found := _huge(values)) is not None:
        raise ConfigError(
            f"{source}: {found[0]}: a number of at most {LARGEST} was expected, got {shortened(found[1])}"
        )
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise _explain(error, str(source) if not overrides else f"{source} with --set") from error


def _huge(values: object, where: str = "") -> tuple[str, int] | None:
    """The first whole number that no setting can mean, and its key."""
    if where == "model.max_memory":
        # In bytes.
        return None
    if isinstance(values, int) and abs(values) > LARGEST:
        return where, values
    parts = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return next((found for key, value in parts if (found := _huge(value, f"{where}.{key}".lstrip(".")))), None)


def with_changes(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A configuration with some keys changed, at any depth: `{"adapter": {"kind": "ia3"}}` leaves the adapter's other keys alone.

    Raises:
        ConfigError: an unknown key or an impossible value.
    """

    def merged(values: Any, new: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(new, Mapping):
            return new
        return values | {key: merged(values.get(key), value) for key, value in new.items()}

    given = {key: value.model_dump() if isinstance(value, BaseModel) else value for key, value in changes.items()}
    values = merged(config.model_dump(exclude_unset=True), given)
    return _validated(values, "the configuration", [], config.model.trust_remote_code)


def override_value(key: str, text: str) -> Any:
    """The value that `key=text` gives.

    Raises:
        ConfigError: it is no YAML value.
    """
    try:
        return parse_yaml(text)
    except YamlError as error:
        raise ConfigError(f"--set {key}: {shortened(text)} is not a YAML value ({error})") from error


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set expects key=value, got {shortened(override)}; for example --set adapter.rank=8")
    value = override_value(key, text)
    *parents, leaf = key.split(".")
    if len(parents) > 8:
        raise ConfigError(f"--set {shortened(key)}: no key lies so deep; `adapterprobe run --keys` lists all")
    place = values
    for parent in parents:
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            raise ConfigError(f"--set {key}: '{parent}' has no keys below it")
    place[leaf] = value


def to_yaml(config: RunConfig, provenance: dict | None = None) -> str:
    """The resolved configuration as YAML, with where it ran (versions, hashes) below it."""
    content = config.model_dump(mode="json")
    if provenance:
        content["provenance"] = provenance
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def keys_help() -> str:
    """Every key with its default and meaning, for `adapterprobe run --keys`."""
    return "\n".join(_help_of(RunConfig, ""))


def _help_of(model: type[BaseModel], prefix: str) -> list[str]:
    lines = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            lines.append(f"{prefix}{name}: {(field.annotation.__doc__ or '').strip()}")
            lines += [f"  {line}" for line in _help_of(field.annotation, f"{prefix}{name}.")]
        else:
            lines += [f"{prefix}{name} = {field.default!r}", f"    {field.description}"]
    return lines
