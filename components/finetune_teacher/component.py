"""Fine-tunes the teacher on the train split."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finetune_teacher(
    config: dict,
    seed: int,
    data_version: str,
    tracking_uri: str,
    experiment: str,
    checkpoint_uri: str,
    dataset: Input[Dataset],
    teacher: Output[Model],
) -> None:
    """Fine-tunes the teacher on the train split."""
    from adabert_core.entry import run_component

    inputs = {"dataset": dataset.path}
    run_component(
        "finetune_teacher",
        config,
        inputs,
        teacher.path,
        seed=seed,
        data_version=data_version,
        tracking_uri=tracking_uri,
        experiment=experiment,
        checkpoint_uri=checkpoint_uri,
    )
