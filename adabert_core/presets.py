"""Where a preset is: a file of the user's, or by name one of those that are installed with the package."""

from pathlib import Path

from adabert_core.errors import UserError

FOLDER = Path(__file__).parents[1] / "pipelines" / "configs"


def preset_names() -> list[str]:
    """Returns the names of the installed presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_preset(name: Path) -> Path:
    """Returns the file that is meant: `name` itself if it is one, else the preset of that name.

    Raises:
        UserError: neither is there.
    """
    named = FOLDER / f"{name}.yaml"
    if name.is_file():
        return name
    if name.parent == Path() and named.is_file():
        return named
    raise UserError(f"{name}: no such file, and no preset of that name; there are {', '.join(preset_names())}.")
