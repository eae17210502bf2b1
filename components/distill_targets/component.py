"""Fits a probe on every teacher layer and scores real and augmented text."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def distill_targets(
    config: dict,
    seed: int,
    data_version: str,
    tracking_uri: str,
    experiment: str,
    checkpoint_uri: str,
    dataset: Input[Dataset],
    teacher: Input[Model],
    targets: Output[Dataset],
) -> None:
    """Fits a probe on every teacher layer and scores real and augmented text."""
    from adabert_core.entry import run_component

    inputs = {"dataset": dataset.path, "teacher": teacher.path}
    run_component(
        "distill_targets",
        config,
        inputs,
        targets.path,
        seed=seed,
        data_version=data_version,
        tracking_uri=tracking_uri,
        experiment=experiment,
        checkpoint_uri=checkpoint_uri,
    )
