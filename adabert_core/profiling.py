"""Where the microseconds from text to label go, and how near that is to what the machine can do at all.

Comes in: a student's folder. Goes out: for each precision the parts of one answer, texts a second, and the floor: operations and
bytes of the network over the ceilings that a large product and a large copy reach in the same minute, all on one thread.
"""

import functools
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
from onnx import helper, numpy_helper

from adabert_core.arithmetic import Arithmetic, Fp32, Int8
from adabert_core.export import open_session
from adabert_core.latency import time_in_turns
from adabert_core.onnx_graph import OPSETS, Graph
from adabert_core.serving import Predictor, padded

TEXT = "the film is a gripping , well acted story that never quite manages to escape the limits of its own rather thin premise"
_PARTS = ("tokenizer", "arrays", "session", "answer")  # of one answer, in turn
_WEIGHTED = ("Gemm", "MatMulIntegerToFloat")
_PRODUCTS = (*_WEIGHTED, "MatMul", "FusedMatMul")
_MANY = 512  # texts of a throughput measurement
_RUNS = 300  # of a profiled session
_COPIED = 1 << 26  # bytes: more than any cache


def profile(folder: Path, text: str | tuple[str, str] = TEXT, seconds: float = 2.0) -> list[dict[str, Any]]:
    """Returns for fp32 and int8: tokens, parts (name -> us), p50_us, p90_us, texts_per_second and the floor."""
    predictors = {name: Predictor(folder, 1, name) for name in ("fp32", "int8")}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in predictors}
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, predictor in predictors.items():
        calls[(name, "parts")] = functools.partial(_answer_in_parts, predictor, text, parts[name])
        calls[(name, "all")] = functools.partial(predictor, [text])
    times = time_in_turns(calls, seconds / len(calls))
    copied = bytes_per_second(seconds / 4)
    found = []
    for name, predictor in predictors.items():
        us = dict(zip(_PARTS, 1e6 * np.median(parts[name], axis=0), strict=True))
        ids, mask = padded(predictor.tokenize([text]))
        operators = operator_times(predictor.model, ids, mask, us["session"], seconds / 4)
        operations, moved = work(predictor.model, ids, mask)
        speed = operations_per_second(name, seconds / 4)
        started = time.perf_counter()
        predictor([text] * _MANY)
        found.append(
            {
                "precision": name,
                "tokens": ids.shape[1],
                "parts_us": {part: round(value, 1) for part, value in us.items()},
                "operators_us": {operator: round(value, 1) for operator, value in operators.items()},
                "p50_us": round(1e3 * statistics.median(times[(name, "all")]), 1),
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


def _answer_in_parts(predictor: Predictor, text: str | tuple[str, str], found: list[np.ndarray]) -> None:
    """Answers once and appends the seconds of each of `_PARTS`, in turn: each finds the caches as the one before left them."""
    marks = [time.perf_counter()]
    rows = predictor.tokenize([text])
    marks.append(time.perf_counter())
    ids, mask = padded(rows)
    marks.append(time.perf_counter())
    logits = predictor.logits(ids, mask)
    marks.append(time.perf_counter())
    predictor.answers(logits)
    marks.append(time.perf_counter())
    found.append(np.diff(marks))


def operator_times(model: Path, ids: np.ndarray, mask: np.ndarray, session_us: float, seconds: float) -> dict[str, float]:
    """Returns microseconds by kind of operator, together those of the session.

    The profiler adds several microseconds to each operator, more than most take. So the products by weights are timed without it,
    alone in a session, for some seconds; what is left is shared out over the other kinds by the profiler's times.
    """
    events = [event for event in _events(model, ids, mask, _RUNS) if _is_operator(event)]
    spent: Counter[str] = Counter()
    for event in events:
        spent[event["args"]["op_name"]] += event["dur"]
    graph = onnx.load(model).graph
    found: dict[str, float] = {}
    for kind in _WEIGHTED:
        if spent.pop(kind, 0):
            alone = _products_alone(graph, kind, events)
            found[kind] = min(1e3 * statistics.median(time_in_turns({("", ""): alone}, seconds)[("", "")]), session_us)
    left = max(0.0, session_us - sum(found.values()))
    found |= {kind: us / max(1, sum(spent.values())) * left for kind, us in spent.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _products_alone(graph: onnx.GraphProto, kind: str, events: list[dict[str, Any]]) -> Callable[[], Any]:
    """A call that makes all products by weights of one kind, on as many rows as the events say."""
    shapes = {event["name"].removesuffix("_kernel_time"): _first(event["args"]["input_type_shape"]) for event in events}
    constants = {constant.name: constant for constant in graph.initializer}
    nodes, feed = [], {}
    for node in graph.node:
        if node.op_type == kind:
            type_, shape = shapes[node.name]
            rows = f"rows_{'_'.join(map(str, shape))}"
            feed[rows] = np.ones(shape, {"float": np.float32}.get(type_, np.uint8))
            nodes.append(helper.make_node(kind, [rows, *node.input[1:]], [node.name], domain=node.domain))
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(rows.dtype), rows.shape)
        for name, rows in feed.items()
    ]
    made = [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None) for node in nodes]
    used = [constants[name] for name in dict.fromkeys(name for node in nodes for name in node.input) if name in constants]
    model = helper.make_model(helper.make_graph(nodes, kind, given, made, used), opset_imports=OPSETS, ir_version=10)
    session = open_session(model.SerializeToString(), threads=1)
    return lambda: session.run([made[-1].name], feed)  # all are computed, one is copied out


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
        if _is_operator(event):
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


def _is_operator(event: dict[str, Any]) -> bool:
    return event["cat"] == "Node" and event["name"].endswith("kernel_time")


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
