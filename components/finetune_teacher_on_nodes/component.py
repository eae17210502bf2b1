"""Fine-tunes the teacher on several nodes: starts a TrainJob of Kubeflow Trainer and waits for it."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finetune_teacher_on_nodes(
    config: dict,
    seed: int,
    data_version: str,
    tracking_uri: str,
    experiment: str,
    checkpoint_uri: str,
    nodes: int,
    gpus: int,
    accelerator: str,
    image: str,
    dataset: Input[Dataset],
    teacher: Output[Model],
) -> None:
    """Fine-tunes the teacher on the train split, on `nodes` nodes with `gpus` GPUs each; rows and result travel through S3."""
    from components.finetune_teacher_on_nodes.trainjob import Nodes, finetune

    call = {
        "config": config,
        "seed": seed,
        "data_version": data_version,
        "tracking_uri": tracking_uri,
        "experiment": experiment,
        "checkpoint_uri": checkpoint_uri,
    }
    finetune(call, dataset.path, teacher.path, Nodes(nodes, gpus, accelerator, image))
