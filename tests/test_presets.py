"""Every preset goes through the real command line; the compiled DAG is the committed one; the house keeps its layers."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from kfp_api_server import Done

from adabert_core.config_file import load_run_config

ROOT = Path(__file__).parents[1]
PRESETS = sorted((ROOT / "pipelines" / "configs").glob("*.yaml"))
GOLDEN = ROOT / "pipelines" / "adabert_pipeline.golden.yaml"


def test_all_presets_are_there() -> None:
    assert {path.stem for path in PRESETS} >= {"quickstart", "smoke", "sst2", "mrpc", "rte"}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_compiles_through_the_command_line(preset: Path, tmp_path: Path, command: Callable[..., Done]) -> None:
    output = tmp_path / "pipeline.yaml"
    done = command("compile", "--config", str(preset), "--output", str(output))
    assert done.code == 0, done.error
    defaults = next(yaml.safe_load_all(output.read_text()))["root"]["inputDefinitions"]["parameters"]
    raw = yaml.safe_load(preset.read_text())
    for section in ("data", "teacher", "search", "retrain"):
        for key, value in raw.get(section, {}).items():
            assert defaults[section]["defaultValue"][key] == value


@pytest.mark.parametrize("preset", ["sst2", "mrpc", "rte"])
def test_paper_presets_hold_the_papers_hyper_parameters(preset: str) -> None:
    config = load_run_config(ROOT / "pipelines" / "configs" / f"{preset}.yaml")
    search = config.search
    assert config.teacher.model == "bert-base-uncased"
    assert (search.k_max, search.epochs, search.batch_size, search.gamma) == (8, 80, 128, 0.8)
    assert (search.optimizer, search.momentum, search.learning_rate, search.weight_decay) == ("sgd", 0.9, 2e-2, 3e-4)
    assert (search.alpha_learning_rate, search.alpha_weight_decay) == (3e-4, 1e-3)


def test_compiled_dag_is_the_committed_one(tmp_path: Path, command: Callable[..., Done]) -> None:
    output = tmp_path / "pipeline.yaml"
    done = command("compile", "--image", "adabert-python:golden", "--output", str(output))
    assert done.code == 0, done.error
    fresh, committed = (list(yaml.safe_load_all(path.read_text())) for path in (output, GOLDEN))  # comments come in any order
    assert fresh == committed, "the DAG changed: look at the difference, then run `make golden`"


def test_every_pipeline_parameter_has_a_default_and_every_task_its_place() -> None:
    spec, platform = yaml.safe_load_all(GOLDEN.read_text())
    for name, parameter in spec["root"]["inputDefinitions"]["parameters"].items():
        assert "defaultValue" in parameter, name
    executors = spec["deploymentSpec"]["executors"]
    assert len(executors) == 9
    for name, executor in executors.items():
        container = executor["container"]
        assert container["image"] == "adabert-python:golden", name
        assert {"resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit"} <= set(
            container["resources"]
        )
    for name in ("finetune-teacher", "distill-targets", "search", "retrain"):
        accelerator = executors[f"exec-{name}"]["container"]["resources"]["accelerator"]
        assert accelerator["resourceType"] == "nvidia.com/gpu"
        mounts = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{name}"]["emptyDirMounts"]
        assert mounts[0]["mountPath"] == "/dev/shm"
    tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"] if "comp-exit-handler-1" in spec["components"] else {}
    tasks = tasks or next(c["dag"]["tasks"] for c in spec["components"].values() if "dag" in c)
    for name, task in tasks.items():
        cached = task.get("cachingOptions", {}).get("enableCache", False)
        assert cached == (name != "fingerprint-data"), name
        assert task["retryPolicy"]["backoffMaxDuration"] == "172800s", name


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("adabert_core", {"kfp", "kubernetes", "components", "pipelines"}), ("components", {"pipelines"})],
)
def test_imports_go_one_way(package: str, forbidden: set[str]) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not imports_of(path) & forbidden, path


def test_one_place_opens_s3() -> None:
    opened = {path.name for path in (ROOT / "adabert_core").rglob("*.py") if imports_of(path) & {"boto3", "botocore"}}
    assert opened == {"s3.py", "doctor.py"}  # the doctor looks for credentials


def test_components_are_thin() -> None:
    for path in (ROOT / "components").glob("*/component.py"):
        tree = ast.parse(path.read_text())
        (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert "from __future__" not in path.read_text()
        body = function.body[-1].end_lineno - function.body[1].lineno + 1  # below the docstring
        assert body <= 25, path


def test_only_the_command_line_prints() -> None:
    for path in (ROOT / "adabert_core").rglob("*.py"):
        calls = {getattr(node.func, "id", "") for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        assert "print" not in calls, path


def test_readme_names_targets_commands_and_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 200
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"^make ([a-z-]+)", readme, re.MULTILINE):
        assert target in targets, f"make {target}"
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / link).exists(), link
    helped = subprocess.run([sys.executable, "-m", "adabert_core.cli", "--help"], capture_output=True, text=True, cwd=ROOT).stdout
    for command in re.findall(r"^adabert ([a-z_-]+)", readme, re.MULTILINE):
        assert re.search(rf"^  {command}\b", helped, re.MULTILINE), f"adabert {command}"
    for preset in re.findall(r"pipelines/configs/\w+\.yaml", readme):
        assert (ROOT / preset).is_file(), preset


def test_makefile_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT).stdout
    for target in ("quickstart", "test", "lint", "compile", "dashboard"):
        assert f"make {target}" in listed
