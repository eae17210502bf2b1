"""What `pip install` brings: a typed wheel with its presets and templates, extras, help that can be copied, completion."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from functools import partial
from pathlib import Path

import pytest

from adabert_core import __version__
from adabert_core.cli import cli, run_command
from adabert_core.examples import EXAMPLES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BASE = {"click", "numpy", "onnxruntime", "pydantic", "yaml", "tokenizers", "wrapt"}
LIGHT = ("cli", "api", "serving", "config", "entry", "stages", "storage", "tracking", "artifacts", "report", "runner")


def copy_code(tree: Path) -> Path:
    """Returns `tree` with what a package is built from, so that nothing is built inside this checkout."""
    for name in ("adabert_core", "components", "pipelines"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    return tree


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this tree, made without network."""
    tree, made = copy_code(tmp_path_factory.mktemp("tree")), tmp_path_factory.mktemp("wheel")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(made)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = made.glob("*.whl")
    assert path.name == f"adabert_pipeline-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_wheel_holds_all_code_and_what_it_reads(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    code = {str(p.relative_to(ROOT)) for top in ("adabert_core", "components", "pipelines") for p in (ROOT / top).rglob("*.py")}
    assert code - names == set()
    templates = {f"adabert_core/templates/{path.name}" for path in (ROOT / "adabert_core" / "templates").iterdir()}
    presets = {f"pipelines/configs/{path.name}" for path in (ROOT / "pipelines" / "configs").iterdir()}
    assert templates | presets | {"adabert_core/py.typed"} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "adabert_core",
        "adabert_pipeline",
        "components",
        "pipelines",
    }


def test_wheel_asks_for_no_torch_but_in_extras(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    found = Parser().parsestr(wheel.read(metadata).decode())
    always = {re.split(r"[^\w-]", line)[0] for line in found.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert always == {"pyyaml" if name == "yaml" else name for name in BASE}
    assert {"train", "kfp", "s3", "serve", "docs", "dev"} <= set(found.get_all("Provides-Extra", []))
    (entry,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "adabert = adabert_core.cli:main" in wheel.read(entry).decode()


@pytest.mark.parametrize("module", LIGHT)
def test_what_predicts_imports_at_once_only_what_is_always_there(module: str) -> None:
    """Imports inside functions are of what an extra brings; those at the top must be there without any."""
    tree = ast.parse((ROOT / "adabert_core" / f"{module}.py").read_text())
    tops = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in tops if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in tops if isinstance(node, ast.ImportFrom)}
    outside = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"adabert_core"}
    assert outside <= BASE


def test_command_lines_start_without_what_only_stages_need() -> None:
    """Importing torch and transformers takes longer than most commands."""
    code = "import adabert_core.cli, pipelines.run, sys; print({'torch', 'transformers', 'sklearn', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_package_that_an_extra_brings_is_named_with_the_extra(capsys: pytest.CaptureFixture[str]) -> None:
    def imports(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name, extra in {"torch": "train", "boto3.s3": "s3", "kfp": "kfp"}.items():
        with pytest.raises(SystemExit) as ended:
            run_command(partial(imports, name))
        assert ended.value.code == 2
        assert f"pip install 'adabert-pipeline[{extra}]'" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError):  # a defect of ours is no advice to the user
        run_command(partial(imports, "adabert_core.nothing"))


@pytest.mark.parametrize("name", [*cli.commands, "adabert"])
def test_help_ends_with_commands_that_parse(name: str) -> None:
    command = cli if name == "adabert" else cli.commands[name]
    assert command.epilog, f"adabert {name} has no example: give it one in examples.py"
    lines = command.epilog.partition("Examples:\n")[2].replace("\\\n", " ").splitlines()
    assert lines
    for line in lines:
        program, called, *arguments = shlex.split(line)
        assert program == "adabert"
        assert name in (called, "adabert")
        cli.commands[called].make_context(called, arguments)


def test_every_line_of_help_fits_a_terminal() -> None:
    for name, command in {**cli.commands, "adabert": cli}.items():
        if name in EXAMPLES:
            assert all(len(line) < 110 for line in command.epilog.splitlines()), name


def test_shell_completes_commands_and_options() -> None:
    from click.shell_completion import BashComplete

    complete = BashComplete(cli, {}, "adabert", "_ADABERT_COMPLETE")
    assert "_ADABERT_COMPLETE=bash_complete" in complete.source()
    assert {item.value for item in complete.get_completions([], "re")} == {"report", "retrain", "register"}
    assert "--precision" in {item.value for item in complete.get_completions(["predict"], "--p")}


def test_version_is_the_newest_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert versions[1] == __version__


def test_lock_names_every_requirement() -> None:
    locked = {re.split("==", line)[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    wanted = {re.split(r"[^\w-]", line)[0].lower() for lines in lists for line in lines}
    assert wanted - locked == {"adabert-pipeline"}
