"""The sentences that users can meet, read from the source: literals as they are, a pattern where a value is put in."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
_ERRORS = {"UserError", "RemoteError"}


@cache
def error_patterns(*packages: str) -> dict[str, str]:
    """FILE:LINE of every place that raises such an error -> a pattern of its sentence; sentences made elsewhere are left out."""
    found = {}
    for path in sorted(path for package in packages for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in _ERRORS and node.args:
                pattern = _pattern(node.args[0])
                if len(re.sub(r"\W|_", "", pattern.replace(".+?", ""))) > 10:
                    found[f"{path.relative_to(ROOT)}:{node.lineno}"] = pattern
    return found


def _pattern(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(".+?" if isinstance(value, ast.FormattedValue) else _pattern(value) for value in node.values)
    return ".+?"
