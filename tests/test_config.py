import dataclasses
from pathlib import Path

import pytest

from adabert_core.config import RunConfig
from adabert_core.config_file import load_run_config, parse_run_config, parse_section
from adabert_core.errors import UserError


@pytest.fixture
def preset(tmp_path):
    def written(text):
        path = tmp_path / "preset.yaml"
        path.write_text(text)
        return path

    return written


def test_preset_sets_what_it_names_and_nothing_else(preset):
    config = load_run_config(preset("name: mine\nsearch: {beta: 0.1, k_max: 3}\n"))
    assert config.name == "mine"
    assert (config.search.beta, config.search.k_max) == (0.1, 3)
    assert dataclasses.replace(config, name="adabert", search=RunConfig().search) == RunConfig()


def test_empty_preset_is_the_default(preset):
    assert load_run_config(preset("")) == RunConfig()
    assert load_run_config(preset("teacher:\n")) == RunConfig()


def test_overrides_win_over_the_preset(preset):
    overrides = ["search.beta=0.5", "teacher.model=/models/x", "retrain.inherit=false", "data.max_train_rows=null", "seed=7"]
    config = load_run_config(preset("search: {beta: 0.1, k_max: 3}\ndata: {max_train_rows: 9}\n"), overrides)
    assert (config.search.beta, config.search.k_max) == (0.5, 3)
    assert config.teacher.model == "/models/x"
    assert config.retrain.inherit is False
    assert config.data.max_train_rows is None
    assert config.search.seed == 7


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("search.proxy_channels=32", "the supernet is narrower than the student; set search.proxy_channels to null"),
        ("search.genotype=1 x 0>2 conv_3, 1>2 conv_3, 0>3 identity, 1>4 identity", "has no weights to inherit"),
        ("retrain.architecture=textcnn", "a textcnn has nothing to inherit from a supernet"),
    ],
)
def test_student_cannot_inherit_what_a_search_will_not_leave(override, sentence, preset):
    with pytest.raises(UserError, match=sentence):
        load_run_config(preset(""), ["retrain.inherit=true", override])
    assert load_run_config(preset(""), ["retrain.inherit=true", "search.channels=32", "search.proxy_channels=32"]).retrain.inherit


def test_column_names_that_look_like_values_stay_text(preset):
    config = load_run_config(preset(""), ["data.label=1", "data.source=2020", "data.text=[q, a]"])
    assert (config.data.label, config.data.source, config.data.text) == ("1", "2020", ["q", "a"])
    assert load_run_config(preset(""), ["data.text=[1, 2]"]).data.text == ["1", "2"]
    assert load_run_config(preset("data: {label: 3, text: 1}\n"), []).data.label == "3"


def test_tracking_is_switched_off_as_a_shell_passes_an_empty_word(preset):
    assert load_run_config(preset(""), ["tracking_uri="]).tracking_uri == ""


def test_shared_keys_reach_every_stage_that_has_them_and_sets_none_itself():
    config = parse_run_config({"seed": 5, "device": "cpu", "precision": "fp32", "search": {"seed": 9, "device": "auto"}})
    assert (config.teacher.seed, config.targets.seed, config.search.seed, config.retrain.seed) == (5, 5, 9, 5)
    assert (config.teacher.device, config.search.device, config.search.precision) == ("cpu", "auto", "fp32")
    assert config.benchmark.seed == config.register.seed == 5
    assert not hasattr(config.data, "seed")


def test_parsing_leaves_its_argument_alone():
    raw = {"seed": 5, "search": {"beta": 1.0}}
    parse_run_config(raw)
    assert raw == {"seed": 5, "search": {"beta": 1.0}}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"search": {"kmax": 3}}, "unknown key search.kmax: did you mean search.k_max?"),
        ({"teacher": {"learning_rat": 1}}, "unknown key teacher.learning_rat: did you mean teacher.learning_rate?"),
        ({"search": {"trial_channels": 32}}, "unknown key search.trial_channels: did you mean search.proxy_channels?"),
        ({"serach": {}}, "unknown key serach: did you mean search?"),
        ({"retrain": {"beta": 1}}, "unknown key retrain.beta: did you mean retrain.weight_decay?"),
    ],
)
def test_unknown_key_names_the_nearest(raw, message):
    with pytest.raises(UserError) as caught:
        parse_run_config(raw)
    assert str(caught.value).startswith(message)


def test_unknown_key_of_one_stage_names_the_nearest():
    with pytest.raises(UserError, match=r"^unknown key data\.sorce: did you mean data\.source\?$"):
        parse_section("data", {"sorce": "x"})


@pytest.mark.parametrize(
    ("raw", "start", "got"),
    [
        ({"search": {"beta": -1}}, "search.beta: ", "got -1."),
        ({"search": {"k_max": 9}}, "search.k_max: ", "got 9."),
        ({"search": {"optimizer": "lion"}}, "search.optimizer: ", "got 'lion'."),
        ({"teacher": {"epochs": "many"}}, "teacher.epochs: ", "got 'many'."),
        ({"data": {"text": True}}, "data.text: ", "got True."),
        ({"benchmark": {"batches": [0]}}, "benchmark.batches: ", "got 0."),
        ({"benchmark": {"batches": []}}, "benchmark.batches: ", "got []."),
        ({"benchmark": {"lengths": []}}, "benchmark.lengths: ", "got []."),
        ({"targets": {"mix": {}}}, "targets.mix: ", "got {}."),
        ({"targets": {"mix": {"replace": 0}}}, "targets.mix: ", "got 0."),
        ({"seed": -1}, "seed: ", "got -1."),
        ({"search": {"seed": 2**63}}, "search.seed: ", f"got {2**63}."),
        ({"device": "tpu"}, "device: ", "got 'tpu'."),
        ({"search": 3}, "search: must be a mapping", "got 3."),
    ],
)
def test_bad_value_is_one_sentence_that_names_the_key(raw, start, got):
    with pytest.raises(UserError) as caught:
        parse_run_config(raw)
    said = str(caught.value)
    assert said.startswith(start)
    assert said.endswith(got)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not readable as YAML"),
        ("- a\n- b\n", "the top level must be a mapping"),
        ("just words", "the top level must be a mapping"),
    ],
)
def test_file_that_is_no_mapping_is_refused(preset, text, message):
    with pytest.raises(UserError, match=message) as caught:
        load_run_config(preset(text))
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="none.yaml: no such file, and no preset of that name; there are .*quickstart"):
        load_run_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.beta", "write it as key=value"),
        ("=1", "write it as key=value"),
        ("name.x=1", "name is not a section"),
        ("search.beta=[1", "the value is not valid YAML"),
        ("search.betta=1", "unknown key search.betta: did you mean search.beta?"),
    ],
)
def test_bad_override_is_refused(preset, override, message):
    with pytest.raises(UserError) as caught:
        load_run_config(preset("name: x\n"), [override])
    assert message in str(caught.value)


def test_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().search.beta = 1.0


def test_preset_is_found_by_name_and_a_file_of_that_name_wins(tmp_path, monkeypatch):
    assert load_run_config(Path("smoke")).name == "smoke"
    monkeypatch.chdir(tmp_path)
    Path("smoke").write_text("name: mine\n")
    assert load_run_config(Path("smoke")).name == "mine"


def test_generators_are_known_before_anything_is_trained(monkeypatch):
    from adabert_core.augment import GENERATORS

    with pytest.raises(UserError, match="no generator named swap"):
        parse_run_config({"targets": {"mix": {"replace": 1.0, "swap": 1.0}}})
    monkeypatch.setitem(GENERATORS, "swap", GENERATORS["drop"])
    assert parse_section("targets", {"mix": {"drop": 2.0, "swap": 1.0}}).mix == {"drop": 2.0, "swap": 1.0}


@pytest.mark.parametrize("name", ["team/student", "student:1", "it's", 'the "best"', " ", ".."])
def test_names_that_mlflow_does_not_take_are_refused(name):
    with pytest.raises(UserError, match="is no name for MLflow's registry"):
        parse_run_config({"register": {"model_name": name}})
    assert parse_section("register", {"model_name": "My student 1.0"}).model_name == "My student 1.0"
