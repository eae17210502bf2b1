"""Searches the structure of the student."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def search(
    config: dict,
    seed: int,
    data_version: str,
    tracking_uri: str,
    experiment: str,
    checkpoint_uri: str,
    teacher: Input[Model],
    targets: Input[Dataset],
    searched: Output[Model],
) -> None:
    """Searches the structure of the student."""
    from adabert_core.entry import run_component

    inputs = {"teacher": teacher.path, "targets": targets.path}
    run_component(
        "search",
        config,
        inputs,
        searched.path,
        seed=seed,
        data_version=data_version,
        tracking_uri=tracking_uri,
        experiment=experiment,
        checkpoint_uri=checkpoint_uri,
    )
