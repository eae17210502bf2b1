"""Decides on the student and registers it."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    config: dict,
    seed: int,
    data_version: str,
    tracking_uri: str,
    experiment: str,
    checkpoint_uri: str,
    dataset: Input[Dataset],
    student: Input[Model],
    benchmark: Input[Artifact],
    decision: Output[Artifact],
) -> None:
    """Decides on the student and registers it."""
    from adabert_core.entry import run_component

    inputs = {"dataset": dataset.path, "student": student.path, "benchmark": benchmark.path}
    run_component(
        "register",
        config,
        inputs,
        decision.path,
        seed=seed,
        data_version=data_version,
        tracking_uri=tracking_uri,
        experiment=experiment,
        checkpoint_uri=checkpoint_uri,
    )
