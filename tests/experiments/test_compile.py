from pathlib import Path

import yaml

SMOKE = Path(__file__).parents[2] / "pipelines" / "experiments" / "smoke.yaml"


def test_matrix_becomes_a_parallel_for_without_what_would_have_to_wait(command, tmp_path):
    done = command("experiments", str(SMOKE), "--compile", str(tmp_path / "e.yaml"))
    assert done.code == 0, done.error
    left_out = [line for line in done.out.splitlines() if "is left out" in line]
    assert len(left_out) == 4
    assert left_out[0].startswith(
        "reviews/random-cells-1/seed-0 is left out: a pipeline's cases cannot wait for reviews/searched/seed-0"
    )
    spec, _ = yaml.safe_load_all((tmp_path / "e.yaml").read_text())
    cases = spec["root"]["inputDefinitions"]["parameters"]["cases"]["defaultValue"]
    assert [case["name"] for case in cases] == [
        "reviews searched seed=0",
        "reviews searched seed=1",
        "reviews conv3 everywhere seed=0",
        "reviews conv3 everywhere seed=1",
        "reviews static, MLP seed=0",
        "reviews static, MLP seed=1",
    ]
    assert {case["seed"] for case in cases} == {0, 1}
    assert cases[4]["retrain"]["architecture"] == "static_mlp"
