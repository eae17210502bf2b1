"""What each task asks of a cluster: one table, and the one function that applies it. No effect on a local run."""

from kfp import kubernetes
from kfp.dsl import PipelineTask

CPU = {"cpu_request": "2", "cpu_limit": "4", "memory_request": "8Gi", "memory_limit": "16Gi"}
GPU = {"cpu_request": "4", "cpu_limit": "8", "memory_request": "16Gi", "memory_limit": "32Gi"}
SMALL = {"cpu_request": "500m", "cpu_limit": "1", "memory_request": "1Gi", "memory_limit": "2Gi"}

RESOURCES = {
    "fingerprint_data": SMALL,
    "prepare_data": CPU,
    "finetune_teacher": GPU,
    "distill_targets": GPU,
    "search": GPU,
    "retrain": GPU,
    "benchmark": CPU,
    "register": SMALL,
    "finish_run": SMALL,
}

RETRY_WINDOW = "172800s"  # from the first attempt's start; KFP's default of one hour would end all retries of a long stage


def place(task: PipelineTask, image: str, gpus: int, retries: int) -> PipelineTask:
    """Gives a task its image, resources, retries, shared memory and the run id by which it finds its tracking parent."""
    name = task.name.replace("-", "_")
    wanted = RESOURCES[name]
    task.set_container_image(image)
    task.set_cpu_request(wanted["cpu_request"]).set_cpu_limit(wanted["cpu_limit"])
    task.set_memory_request(wanted["memory_request"]).set_memory_limit(wanted["memory_limit"])
    if retries:
        task.set_retry(num_retries=retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration=RETRY_WINDOW)
    kubernetes.use_field_path_as_env(task, env_name="KFP_RUN_ID", field_path="metadata.labels['pipeline/runid']")
    if wanted is GPU:
        kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory")  # noqa: S108
        if gpus:
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
            kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    if name == "benchmark":
        kubernetes.add_node_selector(task, label_key="adabert.io/benchmark", label_value="true")
    return task
