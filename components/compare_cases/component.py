"""Puts the reports of a sweep side by side."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare_cases(
    cases: list,
    tracking_uri: str,
    experiment: str,
    reports: Input[list[Artifact]],
    comparison: Output[Artifact],
    page: Output[HTML],
) -> None:
    """Writes the table, the Pareto set and the picture of all cases."""
    import shutil

    from adabert_core.entry import compare_component

    names = [str(case["name"]) for case in cases]
    paths = [report.path for report in reports]
    compare_component(names, paths, comparison.path, tracking_uri=tracking_uri, experiment=experiment)
    shutil.copy(f"{comparison.path}/comparison.html", page.path)
