"""Scores the test split once, times the models and writes the report."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def benchmark(
    config: dict,
    seed: int,
    data_version: str,
    tracking_uri: str,
    experiment: str,
    checkpoint_uri: str,
    dataset: Input[Dataset],
    teacher: Input[Model],
    targets: Input[Dataset],
    search: Input[Model],
    student: Input[Model],
    benchmark_result: Output[Artifact],
    metrics: Output[Metrics],
    page: Output[HTML],
) -> None:
    """Scores the test split once, times the models and writes the report."""
    import shutil

    from adabert_core.entry import kept_figures, run_component

    inputs = {
        "dataset": dataset.path,
        "teacher": teacher.path,
        "targets": targets.path,
        "search": search.path,
        "student": student.path,
    }
    report = run_component(
        "benchmark",
        config,
        inputs,
        benchmark_result.path,
        seed=seed,
        data_version=data_version,
        tracking_uri=tracking_uri,
        experiment=experiment,
        checkpoint_uri=checkpoint_uri,
    )
    shutil.copy(f"{benchmark_result.path}/report.html", page.path)
    for name, value in kept_figures(report.metrics, metrics.path).items():
        metrics.log_metric(name, value)
