"""Trains and exports the student of the structure that was found."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def retrain(
    config: dict,
    seed: int,
    data_version: str,
    tracking_uri: str,
    experiment: str,
    checkpoint_uri: str,
    teacher: Input[Model],
    targets: Input[Dataset],
    search: Input[Model],
    student: Output[Model],
) -> None:
    """Trains and exports the student of the structure that was found."""
    from adabert_core.entry import run_component

    inputs = {"teacher": teacher.path, "targets": targets.path, "search": search.path}
    run_component(
        "retrain",
        config,
        inputs,
        student.path,
        seed=seed,
        data_version=data_version,
        tracking_uri=tracking_uri,
        experiment=experiment,
        checkpoint_uri=checkpoint_uri,
    )
