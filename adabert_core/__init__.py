"""AdaBERT: task-adaptive compression of BERT by differentiable architecture search (Chen et al., IJCAI 2020)."""

import contextlib
import os
from typing import Any

import wrapt

__version__ = "0.11.0"

# Before torch loads OpenMP: threads that wait by spinning for long hold the core that the others need. Milliseconds a student's
# step on two cores, idle and with one core busy: 63 and about 600 by default, 95 and 150 passive, 65 and 187 like this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# Before torch loads oneDNN, which keeps the last 1,024 kernels: 20 for each length of a batch, gigabytes in all. 512 hold nearly
# all of a teacher's, whose batches are padded to every fourth length (docs/LOG.md).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")

# Before MLflow is imported: nothing is sent but where the user has it sent.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def _register_student(module: Any) -> None:
    """Teaches transformers' Auto classes the student; too early in transformers' own import it leaves it to a later hook."""
    with contextlib.suppress(ImportError):
        import adabert_core.student  # noqa: F401 - registers on import


# On first use only: transformers and torch take seconds to import, which `adabert predict` should not wait for.
for _name in ("transformers.models.auto.modeling_auto", "transformers.modeling_utils", "transformers.pipelines"):
    wrapt.register_post_import_hook(_register_student, _name)
