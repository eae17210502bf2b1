"""Where the microseconds from text to label go, and how near that is to what the machine can do at all.

Comes in: a student's folder. Goes out: for each precision the parts of one answer, texts a second, and the floor: operations and
bytes of the network over the ceilings that a large product and a large copy reach in the same minute, all on one thread.
"""

import json
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from adabert_core.arithmetic import Arithmetic, Fp32, Int8
from adabert_core.export import open_session
from adabert_core.latency import time_in_turns
from adabert_core.onnx_graph import Graph
from adabert_core.serving import Predictor, padded

TEXT = "the film is a gripping , well acted story that never quite manages to escape the limits of its own rather thin premise"
_WEIGHTED = ("Gemm", "MatMulIntegerToFloat")
_PRODUCTS = (*_WEIGHTED, "MatMul", "FusedMatMul")
_MANY = 512  # texts of a throughput measurement
_RUNS = 300  # of a profiled session
_COPIED = 1 << 26  # bytes: more than any cache


def profile(folder: Path, text: str | tuple[str, str] = TEXT, seconds: float = 2.0) -> list[dict[str, Any]]:
    """Returns for fp32 and int8: tokens, parts (name -> us), p50_us, p90_us, texts_per_second and the floor."""
    predictors = {name: Predictor(folder, 1, name) for name in ("fp32", "int8")}
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, predictor in predictors.items():
        calls |= {(name, part): call for part, call in _parts(predictor, text).items()}
    times = time_in_turns(calls, seconds / len(calls))
    copied = bytes_per_second(seconds / 4)
    found = []
    for name, predictor in predictors.items():
        us = {part: 1e3 * statistics.median(times[(name, part)]) for part in ("tokenizer", "arrays", "session", "answer", "all")}
        ids, mask = padded(predictor.tokenize([text]))
        operators = operator_times(predictor.model, ids, mask, us["session"])
        operations, moved = work(predictor.model, ids, mask)
        speed = operations_per_second(name, seconds / 4)
        started = time.perf_counter()
        predictor([text] * _MANY)
        found.append(
            {
                "precision": name,
                "tokens": ids.shape[1],
                "parts_us": {part: round(us[part], 1) for part in ("tokenizer", "arrays", "session", "answer")},
                "operators_us": {operator: round(value, 1) for operator, value in operators.items()},
                "p50_us": round(us["all"], 1),
                "p90_us": round(1e3 * float(np.percentile(times[(name, "all")], 90)), 1),
                "texts_per_second": round(_MANY / (time.perf_counter() - started)),
                "operations": operations,
                "bytes": moved,
                "ceiling_gops": round(speed / 1e9, 1),
                "ceiling_gbs": round(copied / 1e9, 1),
                "floor_us": round(1e6 * max(operations / speed, moved / copied), 1),
            }
        )
    return found


def table_text(found: list[dict[str, Any]]) -> str:
    """The profiles side by side, one part a line, the session's operators below it."""
    operators = Counter({operator: us for profile in reversed(found) for operator, us in profile["operators_us"].items()})
    parts = {part: [profile["parts_us"][part] for profile in found] for part in found[0]["parts_us"]}
    within = {f"  {name}": [profile["operators_us"].get(name, 0.0) for profile in found] for name, _ in operators.most_common()}
    names = {
        "text to label, median": ("p50_us", 1),
        "text to label, 90 % below": ("p90_us", 1),
        "floor of the network": ("floor_us", 1),
        "million operations": ("operations", 1e-6),
        "MB moved": ("bytes", 1e-6),
        "ceiling, 10^9 operations/s": ("ceiling_gops", 1),
        "ceiling, GB/s": ("ceiling_gbs", 1),
        f"texts/s, {_MANY} at once": ("texts_per_second", 1),
    }
    whole = {name: [profile[key] * factor for profile in found] for name, (key, factor) in names.items()}
    before, after = {k: parts[k] for k in ("tokenizer", "arrays", "session")}, {"answer": parts["answer"]}
    lines = [f"{'us':<30}" + "".join(f"{profile['precision']:>10}" for profile in found)]
    for name, values in {**before, **within, **after, **whole}.items():
        lines.append(f"{name:<30}" + "".join(f"{value:>10,.1f}" for value in values))
    return "\n".join(lines)


def _parts(predictor: Predictor, text: str | tuple[str, str]) -> dict[str, Callable[[], Any]]:
    rows = predictor.tokenize([text])
    ids, mask = padded(rows)
    logits = predictor.logits(ids, mask)
    return {
        "tokenizer": lambda: predictor.tokenize([text]),
        "arrays": lambda: padded(rows),
        "session": lambda: predictor.logits(ids, mask),
        "answer": lambda: predictor.answers(logits),
        "all": lambda: predictor([text]),
    }


def operator_times(model: Path, ids: np.ndarray, mask: np.ndarray, session_us: float) -> dict[str, float]:
    """Returns microseconds by kind of operator, and under `between` what the session spends outside of them.

    The profiler slows down and cuts off fractions, so its shares are applied to the time of the session without it.
    """
    events = _events(model, ids, mask, _RUNS)
    spent: Counter[str] = Counter()
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"] + 0.5  # the fraction that was cut off, on average
    whole = sum(event["dur"] for event in events if event["name"] == "model_run")
    spent["between"] = max(0.0, whole - sum(spent.values()))
    return {operator: us / sum(spent.values()) * session_us for operator, us in spent.most_common()}


def work(model: Path, ids: np.ndarray, mask: np.ndarray) -> tuple[int, int]:
    """Returns operations (two a multiply-add) and bytes for a batch: every weight of a product once, and the rows of its words.

    The shapes of the products are those of one run, since a pair of texts is cut to the longer one inside the graph.
    """
    graph = onnx.load(model).graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    weights = [name for node in graph.node if node.op_type in _WEIGHTED for name in node.input if name in constants]
    tables = {constants[node.input[0]].shape for node in graph.node if node.op_type == "Gather" and node.input[0] in constants}
    operations, moved = 0, sum(constants[name].nbytes for name in weights)
    for event in _events(model, ids, mask, runs=1):
        if event["cat"] == "Node" and event["name"].endswith("kernel_time"):
            _, given = _first(event["args"]["input_type_shape"])
            kind, made = _first(event["args"]["output_type_shape"])
            if event["args"]["op_name"] in _PRODUCTS:
                operations += 2 * math.prod(made) * given[-1]
            elif event["args"]["op_name"] == "Gather" and given in tables:
                moved += math.prod(made) * np.dtype({"float": "float32"}.get(kind, kind)).itemsize
    return operations, moved


def _first(shapes: list[dict[str, list[int]]]) -> tuple[str, tuple[int, ...]]:
    """Type and shape of an operator's first input or output, of those that the profiler writes down."""
    return next(((kind, tuple(shape)) for each in shapes for kind, shape in each.items()), ("", ()))


def _events(model: Path, ids: np.ndarray, mask: np.ndarray, runs: int) -> list[dict[str, Any]]:
    """What onnxruntime's profiler writes down of some runs on one thread."""
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling, options.profile_file_prefix = True, f"{scratch}/profile"
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, {"input_ids": ids, "attention_mask": mask})
        return json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))


def operations_per_second(precision: str, seconds: float) -> float:
    """Returns what one thread of onnxruntime reaches in a product of 512 x 1024 by 1024 x 512."""
    rng = np.random.default_rng(0)
    rows, inner, columns = 512, 1024, 512
    arithmetic: Arithmetic = Fp32(inner) if precision == "fp32" else Int8(inner, {"rows": 3.0})
    given = rng.integers(0, 255, (rows, inner)).astype(arithmetic.zeros.dtype)
    graph = Graph()
    arithmetic.multiply(graph, "rows", [("rows", rng.normal(size=(inner, columns)))], np.zeros(columns), "product")
    kind = onnx.helper.np_dtype_to_tensor_dtype(given.dtype)
    model = graph.model(
        [onnx.helper.make_tensor_value_info("rows", kind, given.shape)],
        [onnx.helper.make_tensor_value_info("product", onnx.TensorProto.FLOAT, (rows, columns))],
    )
    session = open_session(model.SerializeToString(), threads=1)
    return 2 * rows * inner * columns / _fastest(lambda: session.run(None, {"rows": given}), seconds)


def bytes_per_second(seconds: float) -> float:
    """Returns bytes read and written a second by a copy that fits no cache."""
    source = np.ones(_COPIED, np.uint8)
    target = np.empty_like(source)
    return 2 * _COPIED / _fastest(lambda: np.copyto(target, source), seconds)


def _fastest(call: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest of many calls: a ceiling is what can be reached."""
    times = time_in_turns({("", ""): call}, seconds)[("", "")]
    return min(times) / 1e3
