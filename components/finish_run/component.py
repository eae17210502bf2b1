"""Closes the pipeline run's MLflow parent with the status of the DAG; runs whatever happened."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish_run(tracking_uri: str, experiment: str, status: PipelineTaskFinalStatus) -> None:
    """Ends the MLflow parent run as FINISHED or FAILED."""
    import sys

    from adabert_core.entry import component_tracker, show_log

    show_log(sys.stdout)
    succeeded = status.state in ("SUCCEEDED", "COMPLETE", "COMPLETED")
    component_tracker(tracking_uri, experiment).finish_pipeline("FINISHED" if succeeded else "FAILED")
