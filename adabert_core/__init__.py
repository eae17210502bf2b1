"""AdaBERT: task-adaptive compression of BERT by differentiable architecture search (Chen et al., IJCAI 2020)."""

from typing import Any

import wrapt

__version__ = "0.1.0"


def _register_student(module: Any) -> None:
    """Teaches transformers' Auto classes the student."""
    import adabert_core.student  # noqa: F401 - registers on import


# On first use only: transformers and torch take seconds to import, which `adabert predict` should not wait for.
wrapt.register_post_import_hook(_register_student, "transformers.models.auto")
