"""The Kubernetes manifests, rendered by kubectl as a user's `kubectl apply -k` would, object by object."""

import copy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from adabert_core import __version__
from adabert_core.config_file import load_run_config
from manifests import render

ROOT = Path(__file__).parents[2]
TREE = ROOT / "manifests"
NAMES = render.targets()
# Options that are applied next to an overlay refer to objects of that overlay.
BESIDE = {"options/trainjob": "overlays/local", "options/kserve": "overlays/local"}
# What KFP itself brings to its namespace.
KFP = {
    ("Namespace", "", "kubeflow"),
    ("ConfigMap", "kubeflow", "kfp-launcher"),
    ("Secret", "kubeflow", "mlpipeline-minio-artifact"),
}
Item = dict[str, Any]


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Item]]:
    return render.render(NAMES)


@pytest.fixture(params=NAMES)
def items(request: pytest.FixtureRequest, rendered: dict[str, list[Item]]) -> list[Item]:
    return rendered[request.param]


def pods(items: list[Item]) -> Iterator[tuple[Item, Item]]:
    """Every pod spec with the object that holds it."""
    for item in items:
        spec = item.get("spec", {})
        if item["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield item, spec["template"]["spec"]
        elif item["kind"] == "TrainingRuntime":
            for job in spec["template"]["spec"]["replicatedJobs"]:
                yield item, job["template"]["spec"]["template"]["spec"]
        elif item["kind"] == "ServingRuntime":
            service = next(other for other in items if other["kind"] == "InferenceService")
            assert service["spec"]["predictor"]["model"]["runtime"] == item["metadata"]["name"]
            rest = {key: value for key, value in service["spec"]["predictor"].items() if key != "model"}
            yield item, {"automountServiceAccountToken": False, **rest, **spec}


def containers(pod: Item) -> list[Item]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def find(items: list[Item], kind: str, name: str) -> Item:
    return next(item for item in items if item["kind"] == kind and item["metadata"]["name"] == name)


def test_all_overlays_and_options_are_rendered() -> None:
    assert {"overlays/local", "overlays/aws", "overlays/gpu", "overlays/gpu-mig"} <= set(NAMES)
    assert {"options/standalone", "options/trainjob", "options/kserve"} <= set(NAMES)


def test_every_object_is_what_its_api_takes(items: list[Item]) -> None:
    assert [f"{item['kind']} {item['metadata']['name']}: {said}" for item in items if (said := render.problem(item))] == []


def test_a_key_the_api_does_not_know_is_refused(rendered: dict[str, list[Item]]) -> None:
    deployment = copy.deepcopy(find(rendered["overlays/aws"], "Deployment", "mlflow"))
    deployment["spec"]["replica"] = 1
    assert "replica" in render.problem(deployment)
    job = copy.deepcopy(find(rendered["options/trainjob"], "TrainJob", "adabert-teacher"))
    job["spec"]["trainer"]["numNode"] = 2
    assert render.problem(job) == ".spec.trainer.numNode: not in Trainer's API"
    runtime = copy.deepcopy(find(rendered["options/kserve"], "ServingRuntime", "adabert-student"))
    runtime["spec"]["containers"][0]["livenesProbe"] = {}
    assert "livenesProbe" in render.problem(runtime)


def test_images_carry_this_version_and_never_latest(items: list[Item]) -> None:
    for _, pod in pods(items):
        for container in containers(pod):
            name, _, tag = container["image"].rpartition(":")
            assert name, f"{container['image']} has no tag"
            assert tag != "latest"
            if name.rpartition("/")[2].startswith("adabert-"):
                assert tag in (__version__, f"{__version__}-cuda")


def test_containers_state_what_they_need_and_may_take(items: list[Item]) -> None:
    stated = [container["resources"] for _, pod in pods(items) for container in containers(pod)]
    stated += [item["spec"]["trainer"]["resourcesPerNode"] for item in items if item["kind"] == "TrainJob"]
    for resources in stated:
        assert {"cpu", "memory"} <= resources["requests"].keys() <= resources["limits"].keys()


def test_containers_are_locked_down(items: list[Item]) -> None:
    for _, pod in pods(items):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False  # none of them talks to the Kubernetes API
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context.get("runAsNonRoot", True) is True


def test_servers_are_probed(items: list[Item]) -> None:
    for item, pod in pods(items):
        if item["kind"] in ("Deployment", "StatefulSet", "ServingRuntime"):
            for container in pod["containers"]:
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


# The field that names an object, by the field it stands in.
BY_FIELD = {
    "configMap": ("ConfigMap", "name"),
    "configMapRef": ("ConfigMap", "name"),
    "configMapKeyRef": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
    "secretRef": ("Secret", "name"),
    "secretKeyRef": ("Secret", "name"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
}


def references(items: list[Item]) -> Iterator[tuple[str, str, str, str]]:
    """Kind, namespace, name and key ("" for the whole object) of everything that must be there for a pod to start."""
    for item, pod in pods(items):
        space = item["metadata"]["namespace"]
        if "serviceAccountName" in pod:
            yield "ServiceAccount", space, pod["serviceAccountName"], ""
        sources = list(pod.get("volumes", []))
        for container in containers(pod):
            sources += container.get("envFrom", []) + [variable.get("valueFrom", {}) for variable in container.get("env", [])]
        for field, wanted in ((field, wanted) for source in sources for field, wanted in source.items() if field in BY_FIELD):
            if not wanted.get("optional"):
                kind, name = BY_FIELD[field]
                yield kind, space, wanted[name], wanted.get("key", "")
    yield from _references_of_accounts(items)


def _references_of_accounts(items: list[Item]) -> Iterator[tuple[str, str, str, str]]:
    kinds = {"configmaps": "ConfigMap", "secrets": "Secret"}
    for item in items:
        space = item["metadata"].get("namespace", "")
        if space:
            yield "Namespace", "", space, ""
        if item["kind"] == "ServiceAccount":
            yield from (("Secret", space, secret["name"], "") for secret in item.get("secrets", []))
        if item["kind"] == "RoleBinding":
            yield "Role", space, item["roleRef"]["name"], ""
            yield from ((who["kind"], space, who["name"], "") for who in item["subjects"])
        for rule in item["rules"] if item["kind"] == "Role" else []:
            for kind in [kinds[resource] for resource in rule["resources"] if resource in kinds]:
                yield from ((kind, space, name, "") for name in rule["resourceNames"])
        if item["kind"] == "ConfigMap" and "providers" in item["data"]:
            access = yaml.safe_load(item["data"]["providers"])["s3"]["default"]["credentials"]
            if not access["fromEnv"]:
                secret = access["secretRef"]
                yield from (("Secret", space, secret["secretName"], secret[key]) for key in ("accessKeyKey", "secretKeyKey"))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_referred_to_exists(name: str, rendered: dict[str, list[Item]]) -> None:
    present = rendered[name] + (rendered[BESIDE[name]] if name in BESIDE else [])
    if name == "options/standalone":
        present = rendered["overlays/local"]
    keys = {(i["kind"], i["metadata"].get("namespace", ""), i["metadata"]["name"]): {"", *i.get("data", {})} for i in present}
    keys |= {known: {""} for known in KFP}
    wanted = set(references(rendered[name]))
    assert wanted
    assert [want for want in sorted(wanted) if want[3] not in keys.get(want[:3], set())] == []


@pytest.mark.parametrize("name", NAMES)
def test_selectors_name_pods_that_exist(name: str, rendered: dict[str, list[Item]]) -> None:
    present = rendered[name] + rendered["overlays/local"]
    labels = {"adabert-student"}  # on the predictor's pod
    for item in present:
        spec = item.get("spec", {})
        if item["kind"] in ("Deployment", "StatefulSet", "Job"):
            labels.add(spec["template"]["metadata"]["labels"]["app.kubernetes.io/name"])
        if item["kind"] == "TrainingRuntime":
            template = spec["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
            labels.add(template["metadata"]["labels"]["app.kubernetes.io/name"])
    policies = [item["spec"] for item in rendered[name] if item["kind"] in ("NetworkPolicy", "Service")]
    assert set(_selected(policies)) <= labels


def _selected(value: Any) -> Iterator[str]:
    """The app.kubernetes.io/name values in any selector below."""
    if isinstance(value, list):
        for part in value:
            yield from _selected(part)
    elif isinstance(value, dict):
        if "app.kubernetes.io/name" in value:
            yield value["app.kubernetes.io/name"]
        if value.get("key") == "app.kubernetes.io/name":
            yield from value["values"]
        for part in value.values():
            yield from _selected(part)


def test_roles_give_no_wildcard_and_secrets_only_by_name(items: list[Item]) -> None:
    for rule in (rule for item in items if item["kind"] == "Role" for rule in item["rules"]):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        if {"secrets", "configmaps"} & set(rule["resources"]):
            assert rule["verbs"] == ["get"]
            assert rule["resourceNames"]


@pytest.mark.parametrize("name", ["overlays/local", "overlays/aws", "overlays/gpu", "overlays/gpu-mig"])
def test_the_namespace_is_restricted_and_closed(name: str, rendered: dict[str, list[Item]]) -> None:
    space = find(rendered[name], "Namespace", "adabert")
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    deny = find(rendered[name], "NetworkPolicy", "default-deny")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_mlflow_answers_to_the_name_that_tasks_call(items: list[Item]) -> None:
    for item in items:
        if item["kind"] == "Deployment":
            (hosts,) = (arg for arg in item["spec"]["template"]["spec"]["containers"][0]["args"] if "allowed-hosts" in arg)
            uri = find(items, "ConfigMap", "adabert-run")["data"]["MLFLOW_TRACKING_URI"]
            assert uri.removeprefix("http://") in hosts.partition("=")[2].split(",")


def test_no_key_is_kept_on_aws(rendered: dict[str, list[Item]]) -> None:
    items = rendered["overlays/aws"]
    assert sorted(item["metadata"]["name"] for item in items if item["kind"] == "Secret") == [
        "adabert-mlflow",
        "adabert-mlflow-server",
    ]
    assert not any("secrets" in rule["resources"] for item in items if item["kind"] == "Role" for rule in item["rules"])
    for name in ("adabert-runner", "mlflow"):
        assert "eks.amazonaws.com/role-arn" in find(items, "ServiceAccount", name)["metadata"]["annotations"]
    assert "AWS_ENDPOINT_URL_S3" not in find(items, "ConfigMap", "adabert-run")["data"]


def test_the_gpu_check_is_let_onto_the_nodes_of_the_tasks(rendered: dict[str, list[Item]]) -> None:
    *_, platform = yaml.safe_load_all((ROOT / "pipelines" / "adabert_pipeline.golden.yaml").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    (of_search,) = (part["tolerations"] for name, part in executors.items() if name == "exec-search")
    for name, resource in (("overlays/gpu", "nvidia.com/gpu"), ("overlays/gpu-mig", "nvidia.com/mig-1g.18gb")):
        pod = find(rendered[name], "Job", "gpu-check")["spec"]["template"]["spec"]
        assert pod["tolerations"] == of_search
        assert pod["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "4Gi", resource: 1}
        assert f"requests.{resource}" in find(rendered[name], "ResourceQuota", "adabert-gpus")["spec"]["hard"]


def test_the_tree_holds_no_secret() -> None:
    for file in TREE.rglob("*.yaml"):
        assert "kind: Secret\n" not in file.read_text()
    examples = sorted(TREE.glob("overlays/*/secrets/*.example"))
    assert len(examples) == 5
    for example in examples:
        assert {line.partition("=")[2] for line in example.read_text().splitlines()} == {"change-me"}
        own = str(example.with_suffix("").relative_to(ROOT))
        assert subprocess.run(["git", "check-ignore", "--quiet", "--no-index", own], cwd=ROOT).returncode == 0, (
            f"{own} is not ignored"
        )


def test_rendering_leaves_the_users_secrets_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "manifests"
    shutil.copytree(TREE, tree)
    (tree / "overlays" / "aws" / "secrets" / "mlflow.env").write_text("MLFLOW_TRACKING_PASSWORD=mine\n")
    monkeypatch.setattr(render, "HERE", tree)
    (items,) = render.render(["overlays/aws"]).values()
    assert find(items, "Secret", "adabert-mlflow")["data"]["MLFLOW_TRACKING_PASSWORD"] == "Y2hhbmdlLW1l"  # change-me


def test_the_server_waits_for_the_schema(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    wait = [sys.executable, str(TREE / "base" / "mlflow" / "wait_for_schema.py"), uri, "0"]
    before = subprocess.run(wait, capture_output=True, text=True)
    assert (before.returncode, before.stderr.partition(":")[0]) == (1, "no schema after 0 s")
    subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", uri], check=True, capture_output=True)
    assert subprocess.run(wait, capture_output=True).returncode == 0


def test_the_trainjobs_config_is_one_the_stage_takes() -> None:
    assert load_run_config(TREE / "options" / "trainjob" / "teacher.yaml", ()).teacher.model == "bert-base-uncased"
