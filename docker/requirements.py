"""Writes what each layer of the images installs, read from pyproject.toml, and the lock, into a folder.

Usage: requirements.py SOURCE TARGET. Goes out: torch.txt (the largest and least often changed), tasks.txt, mlflow.txt and
constraints.txt. Standard library only: it runs in the bare base image.
"""

import sys
import tomllib
from pathlib import Path


def main(source: Path, target: Path) -> None:
    """Writes the four files."""
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    tasks = [*project["dependencies"], *(line for name in ("train", "kfp", "s3") for line in extras[name])]
    parts = {
        "torch": [line for line in tasks if line.startswith("torch")],
        "tasks": tasks,
        "mlflow": extras["server"],
    }
    target.mkdir(parents=True, exist_ok=True)
    for name, lines in parts.items():
        (target / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    locks = [source / "constraints.txt", source / "docker" / "constraints-cuda.txt"]
    (target / "constraints.txt").write_text("".join(lock.read_text(encoding="utf-8") for lock in locks), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
