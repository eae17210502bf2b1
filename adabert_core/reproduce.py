"""What it takes to make a run again: its settings where they are not the defaults, the code's version, and the machine.

Comes in: the manifests of the stages. Goes out: a part of the report.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from adabert_core import __version__
from adabert_core.artifacts import Manifest, git_sha
from adabert_core.config_file import SECTIONS, parse_section
from adabert_core.stages import STAGES

_PACKAGES = ("torch", "transformers", "onnxruntime", "numpy")


def reproduction(parents: Iterable[Manifest], benchmark: Any) -> dict[str, Any]:
    """Returns settings (as a preset holds them), version, git_sha, packages and machine."""
    configs = {STAGES[manifest.stage].section: manifest.config for manifest in parents}
    return {
        "settings": changed_settings(configs | {"benchmark": dataclasses.asdict(benchmark)}),
        "version": __version__,
        "git_sha": git_sha(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "machine": machine(),
    }


def changed_settings(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Section -> the settings that are not the defaults; a seed that all stages share stands above them."""
    seeds = {config["seed"] for config in configs.values() if "seed" in config}
    shared = {"seed": seeds.pop()} if len(seeds) == 1 else {}
    found: dict[str, Any] = dict(shared)
    for section, config in configs.items():
        usual = dataclasses.asdict(parse_section(section, {})) | shared
        if changed := {name: value for name, value in config.items() if value != usual.get(name)}:
            found[section] = changed
    return found


def settings_text(settings: Mapping[str, Any]) -> str:
    """The settings as YAML, sections in the order of the data."""
    ordered = {name: settings[name] for name in ("seed", *SECTIONS) if name in settings}
    return yaml.safe_dump(ordered, sort_keys=False, default_flow_style=None, width=96)


def machine() -> str:
    """The processor and how many of its cores are there for this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor")
    return f"{name}, {cores} core{'s' if cores != 1 else ''}"
