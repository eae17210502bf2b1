"""Reads, checks and splits the rows."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare_data(config: dict, data_version: str, tracking_uri: str, experiment: str, dataset: Output[Dataset]) -> None:
    """Reads, checks and splits the rows; cached as long as `data_version` stays the same."""
    from adabert_core.entry import run_component

    run_component(
        "prepare_data", config, {}, dataset.path, data_version=data_version, tracking_uri=tracking_uri, experiment=experiment
    )
