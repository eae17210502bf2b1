"""The commands that say something before a run: `adabert plan` and `adabert search-space`. They print, as cli.py does.

Comes in: arguments. Goes out: tables. Heavy imports wait until a command needs them.
"""

from pathlib import Path

import click

from adabert_core.config import RunConfig
from adabert_core.config_file import load_run_config

config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), required=True, help="Preset, e.g. quickstart, or YAML file."
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. data.label=stars."
)


plan_option = click.option(
    "--plan/--no-plan", "planned", default=True, help="Say first what it will take (half a minute), if it starts from nothing."
)


@click.command()
@config_option
@set_option
@click.option("--seconds", type=click.FloatRange(min=0.0), default=20.0, show_default=True, help="Time to spend on measuring.")
@click.option("--minutes", type=click.FloatRange(min=0.0), help="Exit with 2 if the run would take longer.")
def plan(config_path: Path, overrides: tuple[str, ...], seconds: float, minutes: float | None) -> None:
    """Say what a run would take here: rows, tokens, steps, minutes and memory of every stage; exit 2 if it does not fit."""
    from adabert_core.plan import check_minutes, make_plan, table_text

    found = make_plan(load_run_config(config_path, overrides), seconds)
    click.echo(f"{table_text(found)}\n\n{found}")
    if minutes is not None:
        check_minutes(found, minutes)


@click.command("search-space")
@click.option("--channels", type=click.IntRange(min=1), default=128, show_default=True, help="As search.channels.")
@click.option("--k-max", type=click.IntRange(1, 8), default=8, show_default=True, help="As search.k_max.")
@click.option("--length", type=click.IntRange(min=1), default=128, show_default=True, help="Tokens of the text that is timed.")
@click.option("--rounds", type=click.IntRange(min=1), default=30, show_default=True, help="How often each operation is timed.")
def search_space(channels: int, k_max: int, length: int, rounds: int) -> None:
    """Say what can be searched, and what each operation costs here, on one thread."""
    from adabert_core.costs import search_space_text

    click.echo(search_space_text(channels, k_max, length, rounds))


def say_plan(config: RunConfig, dataset: Path | None = None) -> None:
    """Prints the line of a plan, for rows that are prepared where a DatasetDir is given.

    Raises:
        UserError: the run does not fit into memory.
    """
    from adabert_core.plan import make_plan

    click.echo(f"plan: {make_plan(config, dataset=dataset)}", err=True)
