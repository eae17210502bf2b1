"""What each task asks of a cluster: one table, and the one function that applies it. No effect on a local run."""

import dataclasses

from kfp import kubernetes
from kfp.dsl import PipelineTask

CPU = {"cpu_request": "2", "cpu_limit": "4", "memory_request": "8Gi", "memory_limit": "16Gi"}
GPU = {"cpu_request": "4", "cpu_limit": "8", "memory_request": "16Gi", "memory_limit": "32Gi"}
SMALL = {"cpu_request": "500m", "cpu_limit": "1", "memory_request": "1Gi", "memory_limit": "2Gi"}

RESOURCES = {
    "fingerprint_data": CPU,  # it reads all rows, as prepare_data does
    "prepare_data": CPU,
    "finetune_teacher": GPU,
    "distill_targets": GPU,
    "search": GPU,
    "retrain": GPU,
    "benchmark": CPU,
    "register": SMALL,
    "finish_run": SMALL,
    "compare_cases": SMALL,
    "finetune_teacher_on_nodes": SMALL,
}

RETRY_WINDOW = "172800s"  # from the first attempt's start; KFP's default of one hour would end all retries of a long stage


# Where a task finds S3 and MLflow: objects that manifests/ makes. Each key may be missing, as the keys do where a pod has a role.
_CONFIG_MAP = "adabert-run"
_SETTINGS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "MLFLOW_TRACKING_URI",
)
_SECRETS = {
    "adabert-s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "adabert-mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
}


@dataclasses.dataclass(frozen=True)
class Placement:
    """What tasks share: the image, GPUs of each training stage and of which kind, retries; and the nodes of the teacher."""

    image: str
    gpus: int = 1
    accelerator: str = "nvidia.com/gpu"
    retries: int = 3
    teacher_nodes: int = 1


def place(task: PipelineTask, how: Placement) -> PipelineTask:
    """Gives a task its image, resources, retries, shared memory, and the variables by which it finds S3, MLflow and its run."""
    name = task.name.replace("-", "_")
    wanted = RESOURCES[name]
    task.set_container_image(how.image)
    task.set_cpu_request(wanted["cpu_request"]).set_cpu_limit(wanted["cpu_limit"])
    task.set_memory_request(wanted["memory_request"]).set_memory_limit(wanted["memory_limit"])
    if how.retries:
        task.set_retry(how.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration=RETRY_WINDOW)
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.use_field_path_as_env(task, env_name="KFP_RUN_ID", field_path="metadata.labels['pipeline/runid']")
    kubernetes.use_config_map_as_env(task, _CONFIG_MAP, {key: key for key in _SETTINGS}, optional=True)
    for secret, keys in _SECRETS.items():
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
    if wanted is GPU:
        kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory")  # noqa: S108
        if how.gpus:
            task.set_accelerator_type(how.accelerator).set_accelerator_limit(how.gpus)
            kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    if name == "benchmark":
        kubernetes.add_node_selector(task, label_key="adabert.io/benchmark", label_value="true")
    return task
