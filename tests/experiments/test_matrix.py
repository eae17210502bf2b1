"""An experiment's file becomes the runs that it says, or one sentence about what is wrong with it."""

from pathlib import Path

import pytest
import yaml

from adabert_core.errors import UserError
from adabert_core.experiments.matrix import expand, read_experiment

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "pipelines" / "experiments").glob("*.yaml"))
CONV3 = "2 x 0>2 conv_3, 1>2 conv_3"
WHOLE = {
    "name": "small",
    "preset": str(ROOT / "pipelines" / "configs" / "smoke.yaml"),
    "seeds": [0, 7],
    "places": {"rows": None},
    "set": {"retrain.epochs": 2, "search": {"beta": 0.5}},
    "tasks": {
        "one": {"set": {"data.source": "builtin:movie-reviews"}},
        "two": {"set": {"data.source": "{rows}/two.csv", "data.text": ["a b", "c"]}},
    },
    "variants": {
        "searched": None,
        "by hand": {"set": {"search.genotype": CONV3, "retrain.epochs": 3}},
        "random": {"dearer_than": "searched", "draws": 2},
        "of two": {"cell_of": "searched", "task": "two"},
    },
}


@pytest.fixture
def read(tmp_path):
    def written(*overrides, **changes):
        file = tmp_path / "experiment.yaml"
        file.write_text(yaml.safe_dump({**WHOLE, **changes}, sort_keys=False))
        return read_experiment(file, overrides)

    return written


def test_matrix_expands_as_written(read, tmp_path):
    (tmp_path / "two.csv").touch()
    runs, skipped = expand(read(f"places.rows={tmp_path}"))
    assert skipped == {}
    assert [run.key for run in runs if run.seed == 7] == [
        "one/searched/seed-7",
        "two/searched/seed-7",
        "one/by-hand/seed-7",
        "two/by-hand/seed-7",
        "one/random-1/seed-7",
        "one/random-2/seed-7",
        "two/random-1/seed-7",
        "two/random-2/seed-7",
        "one/of-two/seed-7",
    ]
    assert len(runs) == 18
    assert [run.variant for run in runs[:4]] == ["searched"] * 4  # what is shared comes first
    by_key = {run.key: run for run in runs}
    assert by_key["two/random-2/seed-7"].needs == "two/searched/seed-7"
    assert by_key["one/of-two/seed-0"].needs == "two/searched/seed-0"
    config = by_key["two/by-hand/seed-7"].config()
    assert (config.search.beta, config.retrain.epochs, config.search.seed, config.tracking_uri) == (0.5, 3, 7, "")
    assert (config.search.genotype, config.data.text, config.data.source) == (CONV3, ["a b", "c"], f"{tmp_path}/two.csv")


def test_command_of_a_run_says_everything_but_where_the_rows_lie(read, tmp_path):
    (tmp_path / "two.csv").touch()
    runs, _ = expand(read(f"places.rows={tmp_path}"))
    command = next(run for run in runs if run.key == "two/random-1/seed-7").command(1, CONV3)
    assert command.startswith("OMP_NUM_THREADS=1 adabert run --config ")
    assert '--set "data.source=$ROWS/two.csv"' in command
    assert f"--set 'search.genotype={CONV3}'" in command
    assert str(tmp_path) not in command


def test_task_without_rows_is_left_out_with_what_needs_it(read, tmp_path):
    runs, skipped = expand(read())
    assert skipped == {"two": "two is left out: its rows are not part of the project; give them with --set places.rows=FOLDER."}
    assert {run.task for run in runs} == {"one"}
    assert "of two" not in {run.variant for run in runs}
    _, skipped = expand(read(f"places.rows={tmp_path}"))
    assert skipped == {"two": f"two is left out: {tmp_path}/two.csv does not exist."}


def test_overrides_reach_into_the_file(read):
    runs, _ = expand(read("seeds=[3]", "set.retrain.epochs=9", "tasks.one.set.data.max_train_rows=50"))
    assert {run.seed for run in runs} == {3}
    config = runs[0].config()
    assert (config.retrain.epochs, config.data.max_train_rows) == (9, 50)


def test_only_some_tasks_and_variants(read):
    runs, _ = expand(read().only(["one"], ["by hand"]))
    assert {run.key for run in runs} == {"one/by-hand/seed-0", "one/by-hand/seed-7"}
    with pytest.raises(UserError, match=r"variants.random: 'searched' is not there"):
        read().only([], ["random"])
    with pytest.raises(UserError, match="did you mean 'by hand'"):
        read().only([], ["by hnd"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seads": [0]}, "unknown key seads: did you mean seeds"),
        ({"variants": {"a": {"cel_of": "b"}}}, r"unknown key variants.a.cel_of: did you mean variants.a.cell_of"),
        ({"variants": {"a": {"set": {"search.betta": 1}}}}, "did you mean search.beta"),
        ({"variants": {"searched": None, "a": {"cell_of": "serched"}}}, "did you mean 'searched'"),
        ({"variants": {"searched": None, "a": {"cell_of": "searched", "task": "tow"}}}, "did you mean 'two'"),
        ({"variants": {"a": [1]}}, r"variants.a: must be a mapping"),
        ({"tasks": {}}, "needs tasks: and variants:"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_mistakes_are_one_sentence(read, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        expand(read(**changes))


def test_all_experiments_of_the_project_are_there():
    assert {file.stem for file in FILES} >= {"ablation", "control", "peers", "transfer", "smoke"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_projects_experiments_expand_with_made_up_rows(file, tmp_path):
    for name in ("SST-2", "MRPC", "RTE"):
        (tmp_path / name).mkdir()
    experiment = read_experiment(file, [f"places.glue={tmp_path}"] if file.stem != "smoke" else [])
    assert experiment.name == file.stem
    runs, skipped = expand(experiment)
    assert not skipped
    assert {(run.task, run.variant) for run in runs} >= {(task, next(iter(experiment.variants))) for task in experiment.tasks}
    assert len({run.key for run in runs}) == len(runs)
