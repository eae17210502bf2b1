"""What a person reads of a run, filled into its template (templates/): the report, a comparison, a model card."""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def rendered(template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[..., str]] | None = None) -> str:
    """Returns a template's text; values are escaped in HTML alone, Markdown's are ours or quoted as JSON.

    Raises:
        jinja2.UndefinedError: the template wants a value that is not given.
    """
    environment = Environment(
        loader=PackageLoader("adabert_core", "templates"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters or {}
    return environment.get_template(template).render(values)
