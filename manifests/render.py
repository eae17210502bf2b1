"""python manifests/render.py [FOLDER]: every overlay and option as one YAML file each, checked against the API schemas.

Comes in: this tree, and kubectl beside this Python (extra `cluster`). Goes out: FOLDER/NAME.yaml (default build/manifests) with
the examples in the place of secrets, one line per file, exit code 1 where an object is not what its API takes.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubeflow_trainer_api import models as trainer

HERE = Path(__file__).parent
KUBERNETES = "1.37"
TRAINER = {"TrainJob": trainer.TrainerV1alpha1TrainJob, "TrainingRuntime": trainer.TrainerV1alpha1TrainingRuntime}
# No package that can be installed beside pandas 3 carries KServe's schemas: of its objects only the containers are checked.
KSERVE = ("ServingRuntime", "InferenceService")


def targets() -> list[str]:
    """Returns the folders that are deployed by name, as overlays/NAME and options/NAME."""
    found = [file.parent for part in ("overlays", "options") for file in HERE.glob(f"{part}/*/kustomization.yaml")]
    return sorted(str(folder.relative_to(HERE)) for folder in found)


def render(names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Returns the objects of each target, made from a copy of the tree in which the examples are the secrets.

    Raises:
        RuntimeError: kustomize says what is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "manifests"
        shutil.copytree(HERE, tree, ignore=shutil.ignore_patterns("*.env"))  # never the user's own
        for example in tree.glob("overlays/*/secrets/*.example"):
            example.rename(example.with_suffix(""))
        return {name: _kustomize(tree / name) for name in names}


def _kustomize(folder: Path) -> list[dict[str, Any]]:
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)  # noqa: S603 - our own kubectl
    if done.returncode:
        raise RuntimeError(f"{folder.name}: {done.stderr.strip()}")
    return list(yaml.safe_load_all(done.stdout))


def problem(item: dict[str, Any]) -> str:
    """Returns why the API would not take this object, strictly (a key it does not know is wrong), or nothing."""
    try:
        if model := TRAINER.get(item["kind"]):
            return _lost(item, model.from_dict(item).to_dict())
        if item["kind"] in KSERVE:
            item = _as_pod(item)
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
    except jsonschema.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except (ValueError, kubernetes_validate.SchemaNotFoundError) as error:
        return str(getattr(error, "message", error))
    return ""


def _lost(given: Any, taken: Any, path: str = "") -> str:
    """Trainer's models drop what they do not know; returns the path of the first thing dropped or changed."""
    if isinstance(given, dict) and isinstance(taken, dict):
        return next((lost for key in given if (lost := _lost(given[key], taken.get(key), f"{path}.{key}"))), "")
    if isinstance(given, list) and isinstance(taken, list) and len(given) == len(taken):
        pairs = enumerate(zip(given, taken, strict=True))
        return next((lost for i, (a, b) in pairs if (lost := _lost(a, b, f"{path}[{i}]"))), "")
    return "" if given == taken else f"{path}: not in Trainer's API"


def _as_pod(item: dict[str, Any]) -> dict[str, Any]:
    """The pod that is in a KServe object, without what only KServe knows."""
    if item["kind"] == "ServingRuntime":
        spec = {key: value for key, value in item["spec"].items() if key != "supportedModelFormats"}
    else:
        spec = dict(item["spec"]["predictor"])
        own = {"runtime", "modelFormat", "storageUri"}
        model = {key: value for key, value in spec.pop("model").items() if key not in own}
        spec["containers"] = [{"name": "kserve-container", **model}]
        for key in ("labels", "minReplicas", "maxReplicas"):
            spec.pop(key, None)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "checked"}, "spec": spec}


def main(output: Path) -> int:
    """Writes and checks all targets; returns the number of objects that are wrong."""
    output.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for name, items in render(targets()).items():
        file = output / f"{name.replace('/', '-')}.yaml"
        file.write_text(yaml.safe_dump_all(items, sort_keys=False), encoding="utf-8")
        found = [f"  {item['kind']} {item['metadata']['name']}: {said}" for item in items if (said := problem(item))]
        wrong += len(found)
        print("\n".join([f"{file}: {len(items)} objects, {len(found)} wrong", *found]))  # noqa: T201 - the command's output
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main(Path(*sys.argv[1:2]) if sys.argv[1:] else Path("build/manifests")) else 0)
