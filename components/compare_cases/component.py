"""Puts the reports of a sweep side by side."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare_cases(
    cases: list,
    reports: Input[list[Artifact]],
    comparison: Output[Artifact],
    page: Output[HTML],
) -> None:
    """Writes the table, the Pareto set and the picture of all cases."""
    import shutil

    from adabert_core.entry import compare_component

    names = [str(case["name"]) for case in cases]
    compare_component(names, [report.path for report in reports], comparison.path)
    shutil.copy(f"{comparison.path}/comparison.html", page.path)
