"""A TrainJob for one stage: made once, waited for, its result fetched. Needs the runtime of manifests/options/trainjob.

Comes in: a stage's call and a DatasetDir. Goes out: the TeacherDir. Called again with the same arguments, as a retry is, it
finds the job that runs already.
"""

import dataclasses
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from adabert_core.artifact_store import whole_copy
from adabert_core.artifacts import MANIFEST, digest_of, read_manifest, whole_directory
from adabert_core.entry import show_log
from adabert_core.errors import UserError
from adabert_core.s3 import open_place, push

log = logging.getLogger(__name__)
RUNTIME = "adabert-teacher"
_GROUP, _VERSION, _PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_POLL_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Nodes:
    """How many nodes, GPUs of each and of which kind, and the image."""

    count: int
    gpus: int
    accelerator: str
    image: str


def finetune(call: dict[str, Any], dataset: str, teacher: str, nodes: Nodes, poll_seconds: float = _POLL_SECONDS) -> None:
    """Runs the stage as a TrainJob and leaves its directory in `teacher`; a mistake is one sentence and exit code 2.

    `call` is what `entry.run_component` takes besides stage, inputs and output.
    """
    show_log(sys.stdout)
    try:
        _finetune(call, Path(dataset), Path(teacher), nodes, poll_seconds)
    except UserError as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence, no traceback
        sys.exit(2)


def job_object(name: str, call: dict[str, Any], place: str, nodes: Nodes) -> dict[str, Any]:
    """Returns the TrainJob: torchrun on every node, one process per GPU."""
    gpus = {nodes.accelerator: nodes.gpus} if nodes.gpus else {}
    run = [{"name": "KFP_RUN_ID", "value": os.environ["KFP_RUN_ID"]}] if "KFP_RUN_ID" in os.environ else []
    job = {"call": call, "dataset": f"{place}/dataset", "teacher": f"{place}/teacher"}
    return {
        "apiVersion": f"{_GROUP}/{_VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "adabert"}},
        "spec": {
            "runtimeRef": {"apiGroup": _GROUP, "kind": "TrainingRuntime", "name": RUNTIME},
            "trainer": {
                "image": nodes.image,
                "numNodes": nodes.count,
                "numProcPerNode": max(nodes.gpus, 1),
                "resourcesPerNode": {
                    "requests": {"cpu": "4", "memory": "16Gi", **gpus},
                    "limits": {"cpu": "8", "memory": "32Gi", **gpus},
                },
                "command": ["torchrun"],
                "args": ["-m", "components.finetune_teacher_on_nodes.node"],
                "env": [{"name": "ADABERT_JOB", "value": json.dumps(job, sort_keys=True)}, *run],
            },
        },
    }


def _finetune(call: dict[str, Any], dataset: Path, teacher: Path, nodes: Nodes, poll_seconds: float) -> None:
    if not call["checkpoint_uri"].startswith("s3://"):
        raise UserError("a teacher on several nodes needs checkpoint_uri=s3://bucket/prefix: rows and result travel through it.")
    identity = digest_of([call, read_manifest(dataset, "prepare_data").digest, dataclasses.asdict(nodes)])[:16]
    name = f"adabert-teacher-{identity}"
    place = f"{call['checkpoint_uri'].rstrip('/')}/trainjobs/{name}"
    if open_place(f"{place}/dataset").read(MANIFEST) is None:
        push(dataset, f"{place}/dataset", last=MANIFEST)
    if open_place(f"{place}/teacher").read(MANIFEST) is None:
        _run(job_object(name, call, place, nodes), poll_seconds)
    with whole_directory(teacher) as scratch:
        whole_copy(f"{place}/teacher", scratch)
    found = open_place(place)
    found.delete(list(found.keys()))


def _run(job: dict[str, Any], poll_seconds: float) -> None:
    """Makes the TrainJob, or takes the one that is there, waits for its end and removes it.

    Raises:
        UserError: Trainer is not installed, this pod may not use it, or the job failed.
    """
    from kubernetes import client, config

    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config(os.environ.get("KUBECONFIG"))  # the client itself reads the variable only once, when imported
    api, name = client.CustomObjectsApi(), job["metadata"]["name"]
    namespace = _NAMESPACE_FILE.read_text() if _NAMESPACE_FILE.is_file() else os.environ.get("ADABERT_NAMESPACE", "adabert")
    at = (_GROUP, _VERSION, namespace, _PLURAL)
    try:
        api.create_namespaced_custom_object(*at, job)
        log.info("TrainJob %s: made", name)
    except client.ApiException as error:
        if error.status in (403, 404):
            cure = "apply manifests/options/trainjob, which has the runtime and the right to use it"
            raise UserError(f"no TrainJob can be made in {namespace} ({error.reason}): {cure}.") from error
        if error.status != 409:
            raise
        log.info("TrainJob %s: is there, waiting for it", name)
    said = ""
    while True:
        status = api.get_namespaced_custom_object(*at, name).get("status", {})
        conditions = {part["type"]: part for part in status.get("conditions", []) if part["status"] == "True"}
        if now := ", ".join(sorted(conditions)):
            if now != said:
                log.info("TrainJob %s: %s", name, now)
            said = now
        if "Complete" in conditions or "Failed" in conditions:
            break
        time.sleep(poll_seconds)
    api.delete_namespaced_custom_object(*at, name)
    if "Failed" in conditions:
        raise UserError(f"TrainJob {name} failed: {conditions['Failed'].get('message', 'see the logs of its pods')}.")
