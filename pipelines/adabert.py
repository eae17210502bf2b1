"""The DAG. Read it top to bottom: every stage is one line, every arrow one directory."""

from typing import Any

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.benchmark.component import benchmark as measure
from components.compare_cases.component import compare_cases
from components.distill_targets.component import distill_targets
from components.finetune_teacher.component import finetune_teacher
from components.finetune_teacher_on_nodes.component import finetune_teacher_on_nodes
from components.fingerprint_data.component import fingerprint_data
from components.finish_run.component import finish_run
from components.prepare_data.component import prepare_data
from components.register.component import register as admit
from components.retrain.component import retrain as train_student
from components.search.component import search as search_structure
from pipelines.resources import Placement, place


def build(how: Placement) -> GraphComponent:
    """Returns the pipeline with every task placed as said."""

    @dsl.pipeline(name="adabert", description="Compress a fine-tuned BERT into a tiny network for one task.")
    def adabert(
        data: dict,
        teacher: dict,
        targets: dict,
        search: dict,
        retrain: dict,
        benchmark: dict,
        register: dict,
        seed: int,
        tracking_uri: str,
        experiment: str,
        checkpoint_uri: str,
    ) -> None:
        """Seven stages, one section of settings each.

        0. fingerprint_data names the content of the rows and of a teacher's folder: unchanged, all from here on is a cache hit.
        1. prepare_data     reads, checks and splits the rows.
        2. finetune_teacher fine-tunes the teacher on them.
        3. distill_targets  probes its layers and scores real and augmented text.
        4. search           finds a structure for this task.
        5. retrain          trains and exports the student of that structure.
        6. benchmark        looks at the test split once, times the models, writes the report.
        7. register         lets the student through the gate, or says why not.
        """
        finish = place(finish_run(tracking_uri=tracking_uri, experiment=experiment), how)
        with dsl.ExitHandler(finish, name="compress"):
            settings = (data, teacher, targets, search, retrain, benchmark, register, seed)
            compress(how, *settings, tracking_uri, experiment, checkpoint_uri)

    return adabert


def build_sweep(how: Placement, parallelism: int) -> GraphComponent:
    """Returns the pipeline that does the same for every case of a list, at most `parallelism` at a time, and compares them."""

    @dsl.pipeline(name="adabert-sweep", description="Compress with several settings, data sets or seeds, and compare.")
    def adabert_sweep(cases: list, tracking_uri: str, experiment: str, checkpoint_uri: str) -> None:
        """Each case is {"name": what is particular to it, "seed": ..., and all seven sections}."""
        finish = place(finish_run(tracking_uri=tracking_uri, experiment=experiment), how)
        with dsl.ExitHandler(finish, name="sweep"):
            with dsl.ParallelFor(items=cases, parallelism=parallelism, name="case") as case:
                settings = (case.data, case.teacher, case.targets, case.search, case.retrain, case.benchmark, case.register)
                timed = compress(how, *settings, case.seed, tracking_uri, experiment, checkpoint_uri)
            tracking = {"tracking_uri": tracking_uri, "experiment": experiment}
            place(compare_cases(cases=cases, reports=dsl.Collected(timed), **tracking), how)

    return adabert_sweep


def compress(
    how: Placement,
    data: Any,
    teacher: Any,
    targets: Any,
    search: Any,
    retrain: Any,
    benchmark: Any,
    register: Any,
    seed: Any,
    tracking_uri: Any,
    experiment: Any,
    checkpoint_uri: Any,
) -> Any:
    """Adds the stages to the pipeline being built, and returns the benchmark's directory."""
    version = place(fingerprint_data(config=data, teacher=teacher), how).set_caching_options(False).output
    tracking = {"data_version": version, "tracking_uri": tracking_uri, "experiment": experiment}
    shared = {**tracking, "seed": seed, "checkpoint_uri": checkpoint_uri}

    rows = place(prepare_data(config=data, **tracking), how).outputs["dataset"]
    if how.teacher_nodes > 1:
        nodes = {"nodes": how.teacher_nodes, "gpus": how.gpus, "accelerator": how.accelerator, "image": how.image}
        tuned = place(finetune_teacher_on_nodes(config=teacher, dataset=rows, **nodes, **shared), how).outputs["teacher"]
    else:
        tuned = place(finetune_teacher(config=teacher, dataset=rows, **shared), how).outputs["teacher"]
    scored = place(distill_targets(config=targets, dataset=rows, teacher=tuned, **shared), how).outputs["targets"]
    found = place(search_structure(config=search, teacher=tuned, targets=scored, **shared), how).outputs["searched"]
    small = place(train_student(config=retrain, teacher=tuned, targets=scored, search=found, **shared), how)
    model = small.outputs["student"]
    parts = {"dataset": rows, "teacher": tuned, "targets": scored, "search": found, "student": model}
    timed = place(measure(config=benchmark, **parts, **shared), how).outputs["benchmark_result"]
    place(admit(config=register, dataset=rows, student=model, benchmark=timed, **shared), how)
    return timed
