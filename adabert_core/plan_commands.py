"""The commands that say something before a run: `adabert plan` and `adabert search-space`. They print, as cli.py does.

Comes in: arguments. Goes out: tables. Heavy imports wait until a command needs them.
"""

from pathlib import Path

import click

from adabert_core.config import RunConfig, load_run_config

config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), required=True, help="Preset or own YAML file."
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. data.label=stars."
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


def say_plan(config: RunConfig, dataset: Path) -> None:
    """Prints the line of a plan for rows that are prepared.

    Raises:
        UserError: the run does not fit into memory.
    """
    from adabert_core.plan import make_plan

    click.echo(f"plan: {make_plan(config, dataset=dataset)}", err=True)
