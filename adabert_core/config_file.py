"""From YAML and `--set key=value` to a checked config. Comes in: a preset file and overrides. Goes out: a `RunConfig`.

What is not known is refused in one sentence, which names the nearest known key.
"""

import dataclasses
import difflib
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from adabert_core.config import RunConfig
from adabert_core.errors import UserError
from adabert_core.presets import find_preset

SECTIONS = ("data", "teacher", "targets", "search", "retrain", "benchmark", "register")
_SHARED = ("seed", "device", "precision", "processes")


def load_run_config(path: Path, overrides: typing.Sequence[str] = ()) -> RunConfig:
    """Returns the checked config of a YAML file, or a preset's name, with `--set` overrides such as `data.label=stars` applied.

    `seed`, `device`, `precision` and `processes` at the top level reach every stage that does not set its own, and `target` the
    search.

    Raises:
        UserError: the file is missing or not YAML, or a key or value is not known; the nearest known key is named.
    """
    return parse_run_config(read_yaml(find_preset(path), overrides))


def read_yaml(path: Path, overrides: typing.Sequence[str]) -> dict[str, Any]:
    """Returns the mapping in a YAML file with `key.key=value` overrides applied.

    Raises:
        UserError: the file is missing or holds no mapping, or an override is not understood.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; presets are in pipelines/configs/, experiments in pipelines/experiments/.")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable as YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: the top level must be a mapping of sections such as data: and teacher:.")
    for override in overrides:
        _apply_override(raw, override)
    return raw


def parse_run_config(raw: dict[str, Any]) -> RunConfig:
    """Returns the checked config of a nested dict, the shared keys handed down to each section."""
    raw = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for section in SECTIONS:
        fields = {field.name for field in dataclasses.fields(_section_class(section))}
        values = raw.setdefault(section, {})
        if values is None:
            values = raw[section] = {}
        if not isinstance(values, dict):
            raise UserError(f"{section}: must be a mapping of settings, got {values!r}.")
        for key in _SHARED:
            if key in raw and key in fields:
                values.setdefault(key, raw[key])
    if (target := raw.pop("target", None)) is not None:
        raw["search"].setdefault("target", target)
    return typing.cast("RunConfig", checked(RunConfig, raw, ""))


def parse_section(section: str, raw: dict[str, Any]) -> Any:
    """Returns the checked config of one stage."""
    return checked(_section_class(section), raw, f"{section}.")


def _section_class(section: str) -> type:
    return typing.get_type_hints(RunConfig)[section]


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set {override}: write it as key=value, for example --set data.label=stars.")
    *parents, leaf = key.split(".")
    node = raw
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {override}: {parent} is not a section.")
        node = child
    text_key = key in {"data.source", "data.unlabeled", "data.label", "data.text"} and not value.startswith("[")
    try:
        node[leaf] = value if text_key or not value else yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML.") from error


def checked(cls: type, raw: Any, prefix: str) -> Any:
    """Returns `raw` as a config dataclass; the sentence of an error puts `prefix` before the key, and names the nearest one."""
    try:
        return TypeAdapter(cls).validate_python(raw)
    except ValidationError as error:
        raise UserError(_first_sentence(error, cls, prefix)) from error


_RENAMED = {"trial_channels": "proxy_channels"}  # since 0.2.0


def _first_sentence(error: ValidationError, cls: type, prefix: str) -> str:
    first = error.errors()[0]
    loc = [str(part) for part in first["loc"] if not isinstance(part, int)]
    if first["type"] == "unexpected_keyword_argument":
        owner = cls
        for part in loc[:-1]:
            owner = typing.get_type_hints(owner).get(part, owner)
        known = [field.name for field in dataclasses.fields(owner)]
        (near,) = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.0)
        near = _RENAMED.get(loc[-1], near)
        return f"unknown key {prefix}{'.'.join(loc)}: did you mean {prefix}{'.'.join([*loc[:-1], near])}?"
    depth = 2 if cls is RunConfig and loc and loc[0] in SECTIONS else 1
    return f"{prefix}{'.'.join(loc[:depth])}: {first['msg'].lower()}, got {first['input']!r}."
