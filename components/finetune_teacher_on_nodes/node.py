"""What every process of the TrainJob runs, under torchrun: the stage, on rows from S3, with the result sent back by the first.

Comes in: the environment variable ADABERT_JOB, written by `trainjob.job_object`. Goes out: a TeacherDir in S3.
"""

import json
import os

from adabert_core.artifact_store import stage_places
from adabert_core.entry import run_component


def main() -> None:
    """Runs this process's part."""
    job = json.loads(os.environ["ADABERT_JOB"])
    with stage_places({"dataset": job["dataset"]}, job["teacher"]) as (inputs, output):
        paths = {name: str(path) for name, path in inputs.items()}
        run_component("finetune_teacher", inputs=paths, output=str(output), **job["call"])


if __name__ == "__main__":
    main()
