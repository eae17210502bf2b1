"""Closes the pipeline run's MLflow parent with the status of the DAG; runs whatever happened."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish_run(tracking_uri: str, experiment: str, status: PipelineTaskFinalStatus) -> None:
    """Ends the MLflow parent run as FINISHED or FAILED.

    KFP calls a DAG RUNNING whose last tasks all came from the cache, though it has ended well; then its stages tell.
    """
    import sys

    from adabert_core.entry import component_tracker, show_log

    show_log(sys.stdout)
    ended = {"SUCCEEDED": "FINISHED", "COMPLETE": "FINISHED", "COMPLETED": "FINISHED", "RUNNING": ""}
    component_tracker(tracking_uri, experiment).finish_pipeline(ended.get(status.state, "FAILED"))
