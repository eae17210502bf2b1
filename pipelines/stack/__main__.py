"""python -m pipelines.stack up|down|status: the stack from the command line."""

import sys
from pathlib import Path

import click

from adabert_core.cli import run_command
from pipelines.stack.stack import Stack

_folder = click.option(
    "--folder", type=click.Path(path_type=Path), default=Path(".stack"), show_default=True, help="Where all of it lives."
)


@click.group()
def cli() -> None:
    """SeaweedFS (S3), PostgreSQL and an MLflow server on this machine's loopback."""


@cli.command()
@_folder
def up(folder: Path) -> None:
    """Start what does not run, and print a line for each server."""
    stack = Stack(folder)
    stack.up(click.echo)
    click.echo(f"{'env':<11} source {stack.env_file}")


@cli.command()
@_folder
def down(folder: Path) -> None:
    """End what `up` has started; data, ports and credentials stay in the folder."""
    if folder.is_dir():
        Stack(folder).down(click.echo)
    else:
        click.echo(f"no stack in {folder}")


@cli.command()
@_folder
def status(folder: Path) -> None:
    """Say what runs; exit code 1 if anything is down."""
    said = Stack(folder).status() if folder.is_dir() else {"stack": "down"}
    for name, line in said.items():
        click.echo(f"{name:<11} {line}")
    sys.exit(1 if "down" in said.values() else 0)


if __name__ == "__main__":
    run_command(cli)
