"""docs/guide/troubleshooting.md has every sentence that a user's mistake leads to, and none that the code does not say."""

import re
from pathlib import Path

import pytest

from tests.error_texts import error_patterns

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "troubleshooting.md"
ELSEWHERE = (
    "this needs torch",
    "this CPU has no bf16",
    "the teacher is no better",
    "the run goes on without it",
    "the label 'NA' is taken for a class",
    "MLflow did not take the student",
    "nothing is tracked or registered",
)


@pytest.fixture(scope="module")
def told() -> list[str]:
    """The sentences that the page quotes."""
    return [found[2].strip() for found in re.finditer(r"^\| (`+)(.+?)\1 \| .+ \|$", PAGE.read_text(), re.MULTILINE)]


def test_every_error_is_on_the_page(told: list[str]) -> None:
    missing = {
        place: re.sub(r"\\(.)", r"\1", pattern).replace(".+?", "VALUE")
        for place, pattern in error_patterns("adabert_core", "components", "pipelines").items()
        if not any(re.fullmatch(pattern, sentence) for sentence in told)
    }
    assert not missing, "give each a row | `sentence` | cause and cure | in docs/guide/troubleshooting.md"


def test_every_sentence_on_the_page_is_said_by_the_code(told: list[str]) -> None:
    assert len(told) > 100
    patterns = error_patterns("adabert_core", "components", "pipelines").values()
    unsaid = [s for s in told if not s.startswith(ELSEWHERE) and not any(re.fullmatch(p, s) for p in patterns)]
    assert unsaid == []


def test_warnings_on_the_page_are_in_the_source() -> None:
    source = "".join(path.read_text() for path in (PAGE.parents[2] / "adabert_core").rglob("*.py"))
    for words in (
        "training runs in fp32 and takes several times longer",
        "MLflow did not take the student as a version of",
        "nothing is tracked or registered: ",
        "the teacher is no better than",
        "is taken for a class; remove its rows if it means that they have none",
    ):
        assert words in PAGE.read_text()
        assert words in source
