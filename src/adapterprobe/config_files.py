"""Configurations as YAML: files, presets (plain YAML too), overrides from the command line, and back."""

from __future__ import annotations

import contextlib
import difflib
from importlib import resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from adapterprobe.config import RunConfig
from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest

DEFAULT_PRESET = "demo"


def _field_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _field_names(field.annotation, f"{prefix}{name}.")
    return names


def _explain(error: ValidationError, source: str) -> ConfigError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _field_names(RunConfig)
        hint = nearest(where, known) or _same_leaf(where, known)
        return ConfigError(f"{source}: unknown key '{where}'{hint}; `adapterprobe run --keys` lists all{more}")
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    hint = ""
    expected = (first.get("ctx") or {}).get("expected")
    if isinstance(first["input"], str) and expected:
        hint = nearest(first["input"], [word.strip("' ") for word in expected.replace(" or ", ",").split(",")])
    return ConfigError(f"{source}: {where or 'configuration'}: {message}{got}{hint}{more}")


def _same_leaf(where: str, known: list[str]) -> str:
    leaf = where.rsplit(".", 1)[-1]
    ends = {name.rsplit(".", 1)[-1]: name for name in known}
    close = difflib.get_close_matches(leaf, list(ends), n=1)
    return f" (did you mean '{ends[close[0]]}'?)" if close else ""


def preset_names() -> list[str]:
    return sorted(f.name[:-5] for f in resources.files("adapterprobe.presets").iterdir() if f.name.endswith(".yaml"))


def read_config(source: str | Path | None = None, overrides: list[str] | None = None) -> RunConfig:
    """A configuration from a YAML file or the name of a preset, then `key.subkey=value` overrides in order.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (with the nearest right one) or an impossible value.
    """
    source = source or DEFAULT_PRESET
    if str(source) in preset_names():
        text = (resources.files("adapterprobe.presets") / f"{source}.yaml").read_text("utf-8")
    else:
        try:
            text = Path(source).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the configuration {source} ({error}); give a YAML file or a preset: {', '.join(preset_names())}"
            ) from error
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected keys and values, got {type(values).__name__}")
    # What a run writes beside its configuration (versions, hashes) is not part of it.
    values.pop("provenance", None)
    for override in overrides or []:
        _override(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise _explain(error, str(source) if not overrides else f"{source} with --set") from error


def _override(values: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set expects key=value, got '{override}'; for example --set adapter.rank=8")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: '{text}' is not a YAML value") from error
    if isinstance(value, str) and text.strip()[:1] not in ("'", '"'):
        # YAML 1.1 reads 1e-3 as text; people mean a number.
        with contextlib.suppress(ValueError):
            value = float(value)
    *parents, leaf = key.split(".")
    place = values
    for parent in parents:
        place = place.setdefault(parent, {})
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
