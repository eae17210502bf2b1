"""What the end of each command's --help shows: commands that can be copied."""

import click

from adabert_core.stages import STAGES

EXAMPLES = {
    "adabert": (
        "adabert doctor",
        "adabert run --config quickstart --output runs/first",
        "adabert report runs/first",
        "adabert predict --model runs/first/retrain 'a gripping film'",
    ),
    "run": (
        "adabert run --config quickstart --output runs/mine --set data.source=reviews.csv --set data.text=body \\",
        "    --set data.label=stars",
        "adabert run --config quickstart --set search.beta=0.1 --stage-cache runs/cache --output runs/cheaper",
    ),
    "plan": ("adabert plan --config quickstart --set data.source=reviews.csv --minutes 60",),
    "search-space": ("adabert search-space --channels 64 --length 32",),
    "report": ("adabert report runs/mine",),
    "predict": (
        "adabert predict --model runs/mine/retrain 'a gripping film' 'a dull one'",
        "adabert predict --model runs/mine/retrain --input texts.jsonl --threads 0",
    ),
    "evaluate": (
        "adabert evaluate runs/mine --data december.csv",
        "adabert evaluate runs/mine --data labelled.jsonl --text body --label stars --precision fp32",
    ),
    "profile": ("adabert profile --model runs/mine/retrain --seconds 10 'a gripping film'",),
    "doctor": ("adabert doctor --s3 s3://bucket/prefix --tracking-uri http://127.0.0.1:5000",),
    "control": ("adabert control runs/mine --cells 5",),
    "rollback": ("adabert rollback --model-name adabert-quickstart --to 3",),
    "export": ("adabert export runs/mine --to build/student",),
}


def add_examples(cli: click.Group) -> None:
    """Gives the group and each of its commands their examples; those of the stages follow from their inputs."""
    for name, stage in STAGES.items():
        given = [f"--{key} runs/x/{written}" for key, written in stage.inputs.items()]
        _show(cli.commands[name], (" ".join(["adabert", name, "--config quickstart", *given, f"--output runs/x/{name}"]),))
    for name, commands in EXAMPLES.items():
        _show(cli if name == "adabert" else cli.commands[name], commands)


def _show(command: click.Command, commands: tuple[str, ...]) -> None:
    command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in commands)  # \b: click leaves the lines as they are
