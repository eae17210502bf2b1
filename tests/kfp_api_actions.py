"""What a Kubeflow Pipelines API server knows and does, as far as experiments, pipelines and runs go; state in memory.

Bodies are read with the models of kfp-server-api; a field that those do not know, a parameter of the wrong type or a schedule
that the real server refuses is a 400 here, too. `log` keeps every request, `fail` ends chosen ones with a status.
"""

import dataclasses
import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import kfp_server_api
import yaml

API = "/apis/v2beta1"
CRON = re.compile(r"[\d*?]\S*( [\w*?]\S*){4,5}")  # five or six fields: a server takes both


class Refused(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


@dataclasses.dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any


@dataclasses.dataclass
class State:
    """What the server knows, and how it behaves."""

    url: str = ""
    namespaces: tuple[str, ...] = ()  # not empty: multi-user
    token: str = ""
    page_size: int = 100
    progress: list[dict[str, str]] = dataclasses.field(default_factory=list)  # task states, one dict for each look at a run
    ends: str = "SUCCEEDED"
    fail: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # "GET /runs/": what the next such requests end with
    login_page: bool = False
    log: list[Request] = dataclasses.field(default_factory=list)
    authorizations: list[str | None] = dataclasses.field(default_factory=list)
    experiments: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    pipelines: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    versions: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    runs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    recurringruns: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    looks: dict[str, int] = dataclasses.field(default_factory=dict)

    def calls(self, method: str, path: str) -> list[Request]:
        return [request for request in self.log if request.method == method and re.fullmatch(API + path, request.path)]

    @property
    def writes(self) -> list[str]:
        """Method and path of everything but reads, in order."""
        return [f"{request.method} {request.path.removeprefix(API)}" for request in self.log if request.method != "GET"]


def route(state: State, request: Request) -> Any:
    """The answer to a request."""
    path = request.path.removeprefix(API)
    collection, _, rest = path.lstrip("/").partition("/")
    if path == "/healthz":
        return {"multi_user": bool(state.namespaces)}
    if path == "/pipelines/upload_version":
        return _upload_version(state, request)
    if found := re.fullmatch(r"/pipelines/([^/]+)/versions", path):
        return _page(state, request, [v for v in state.versions if v["pipeline_id"] == found[1]], "pipeline_versions")
    if collection == "recurringruns" and rest:
        return _recurring_run(state, request, *rest.partition(":")[::2])
    if collection == "runs" and rest and request.method == "GET":
        return _look(state, _one(state.runs, "run_id", rest))
    if not rest and (request.method, collection) in ACTIONS:
        return ACTIONS[request.method, collection](state, request)
    raise Refused(404, f"Not Found: {request.method} {request.path}")


def _upload_version(state: State, request: Request) -> dict[str, Any]:
    _one(state.pipelines, "pipeline_id", request.query["pipelineid"])
    spec, platform = yaml.safe_load_all(request.body)
    if spec.get("schemaVersion") != "2.1.0" or "kubernetes" not in platform["platforms"]:
        raise Refused(400, "invalid v2 pipeline spec")
    if any(version["name"] == request.query["name"] for version in state.versions):
        raise Refused(409, "Failed to create a pipeline version")
    version = {"pipeline_id": request.query["pipelineid"], "name": request.query["name"], "display_name": request.query["name"]}
    state.versions.append(
        _new(version | {"pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform}}, "pipeline_version_id")
    )
    return state.versions[-1]


def _create_pipeline(state: State, request: Request) -> dict[str, Any]:
    body = _parsed(request.body, "V2beta1Pipeline")
    _allowed(state, body.get("namespace", ""))
    if any(pipeline["display_name"] == body["display_name"] for pipeline in state.pipelines):
        raise Refused(409, "Failed to create a pipeline: it already exists")
    state.pipelines.append(_new(body | {"name": body["display_name"]}, "pipeline_id"))
    return state.pipelines[-1]


def _create_experiment(state: State, request: Request) -> dict[str, Any]:
    body = _parsed(request.body, "V2beta1Experiment")
    _allowed(state, body.get("namespace", ""))
    if any(known["display_name"] == body["display_name"] for known in state.experiments):
        raise Refused(409, "Failed to create an experiment: it already exists")
    namespace = body.get("namespace", "") if state.namespaces else ""
    state.experiments.append(_new(body | {"namespace": namespace, "storage_state": "AVAILABLE"}, "experiment_id"))
    return state.experiments[-1]


def _create_run(state: State, request: Request) -> dict[str, Any]:
    body = _parsed(request.body, "V2beta1Run")
    _check_job(state, body)
    state.runs.append(_new(body | {"state": "PENDING", "storage_state": "AVAILABLE"}, "run_id"))
    return state.runs[-1]


def _create_recurring_run(state: State, request: Request) -> dict[str, Any]:
    body = _parsed(request.body, "V2beta1RecurringRun")
    _check_job(state, body)
    if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
        raise Refused(400, "The max concurrency of the recurring run is out of range. Support 1-10.")
    if not CRON.fullmatch(body["trigger"]["cron_schedule"]["cron"]):
        raise Refused(400, "Schedule cron is not a supported format")
    status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[body["mode"]]
    state.recurringruns.append(_new(body | {"status": status}, "recurring_run_id"))
    return state.recurringruns[-1]


def _check_job(state: State, body: dict[str, Any]) -> None:
    """What the real server checks of a run or a recurring run before it makes one."""
    if not body.get("display_name"):
        raise Refused(400, "The run name is empty.")
    _one(state.experiments, "experiment_id", body.get("experiment_id", ""))
    reference, spec = body.get("pipeline_version_reference"), body.get("pipeline_spec")
    if bool(reference) == bool(spec):
        raise Refused(400, "either a pipeline version or a pipeline spec")
    if reference:
        version = _one(state.versions, "pipeline_version_id", reference["pipeline_version_id"])
        if version["pipeline_id"] != reference["pipeline_id"]:
            raise Refused(400, "the version is another pipeline's")
        spec = version["pipeline_spec"]
    check_parameters(spec["pipeline_spec"], body["runtime_config"].get("parameters", {}))


def check_parameters(spec: dict[str, Any], parameters: dict[str, Any]) -> None:
    """The rules of the real server's validatePipelineJobInputs."""
    kinds = {
        "NUMBER_INTEGER": (int, float),
        "NUMBER_DOUBLE": (int, float),
        "STRING": str,
        "STRUCT": dict,
        "LIST": list,
        "BOOLEAN": bool,
    }
    known = spec["root"]["inputDefinitions"]["parameters"]
    for name, about in known.items():
        if name not in parameters:
            if "defaultValue" not in about and not about.get("isOptional"):
                raise Refused(400, f"parameter {name} is not optional, yet has neither default value nor user provided value")
            continue
        kind, value = about["parameterType"], parameters[name]
        if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
            raise Refused(400, f"input parameter {name} requires type {kind.lower()}, but got {value!r}")
    if extra := sorted(set(parameters) - set(known)):
        raise Refused(400, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")


def _recurring_run(state: State, request: Request, key: str, verb: str) -> dict[str, Any]:
    run = _one(state.recurringruns, "recurring_run_id", key)
    if request.method == "DELETE":
        state.recurringruns.remove(run)
    elif verb in ("enable", "disable"):
        run.update(mode=verb.upper(), status=f"{verb.upper()}D")
    return {}


def _look(state: State, run: dict[str, Any]) -> dict[str, Any]:
    """Every look at a run takes it one step on."""
    look = state.looks[run["run_id"]] = state.looks.get(run["run_id"], -1) + 1
    if look >= len(state.progress):
        run.update(state=state.ends, finished_at=_now())
        if state.ends == "FAILED":
            run["error"] = {"code": 2, "message": "task search failed"}
        return run
    tasks = [{"run_id": run["run_id"], "display_name": name, "state": at} for name, at in state.progress[look].items()]
    run.update(state="RUNNING", run_details={"task_details": tasks})
    return run


def _page(state: State, request: Request, items: list[dict[str, Any]], field: str) -> dict[str, Any]:
    """One page, filtered and sorted as asked; names are compared without case, as newer servers do."""
    for predicate in json.loads(request.query.get("filter") or "{}").get("predicates", []):
        if (predicate["operation"], predicate["key"]) not in (("EQUALS", "display_name"), (1, "display_name")):
            raise Refused(400, f"unknown predicate {predicate}")
        items = [item for item in items if item["display_name"].lower() == predicate["stringValue"].lower()]
    if request.query.get("sort_by") == "created_at desc":
        items = sorted(items, key=lambda item: item["created_at"], reverse=True)
    first = int(request.query.get("page_token") or 0)
    last = first + min(int(request.query.get("page_size") or 20), state.page_size)
    more = {"next_page_token": str(last)} if last < len(items) else {}
    return {field: items[first:last], "total_size": len(items), **more}


def _listing(attribute: str, field: str) -> Any:
    def list_them(state: State, request: Request) -> dict[str, Any]:
        experiment = request.query.get("experiment_id")
        if experiment is None:
            _allowed(state, request.query.get("namespace", ""))
        items = [item for item in getattr(state, attribute) if experiment in (None, item.get("experiment_id"))]
        return _page(state, request, items, field)

    return list_them


ACTIONS = {
    ("GET", "experiments"): _listing("experiments", "experiments"),
    ("GET", "pipelines"): _listing("pipelines", "pipelines"),
    ("GET", "runs"): _listing("runs", "runs"),
    ("GET", "recurringruns"): _listing("recurringruns", "recurringRuns"),  # the one field of the API in camel case
    ("POST", "experiments"): _create_experiment,
    ("POST", "pipelines"): _create_pipeline,
    ("POST", "runs"): _create_run,
    ("POST", "recurringruns"): _create_recurring_run,
}


def _allowed(state: State, namespace: str) -> None:
    if state.namespaces and not namespace:
        raise Refused(400, "An experiment cannot have an empty namespace in multi-user mode")
    if state.namespaces and namespace not in state.namespaces:
        raise Refused(403, f"User 'someone' is not authorized with reason: no access to namespace {namespace}")


def _parsed(body: Any, model: str) -> dict[str, Any]:
    """The body after a way through the model; a field that the model has not is refused."""
    if "max_concurrency" in body:
        body["max_concurrency"] = str(body["max_concurrency"])  # an int64 is a string in answers and may be either in requests
    client = kfp_server_api.ApiClient()
    parsed = client.sanitize_for_serialization(client.deserialize(SimpleNamespace(data=json.dumps(body)), model))
    if parsed != body:
        raise Refused(400, f"not a {model}: {sorted(set(map(str, body)) ^ set(map(str, parsed))) or body}")
    return body


def _one(items: list[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    for item in items:
        if item[key] == value:
            return item
    raise Refused(404, f"{key} {value} not found")


def _new(item: dict[str, Any], key: str) -> dict[str, Any]:
    return item | {key: str(uuid.uuid4()), "created_at": _now()}


_clock = iter(range(1_000_000))


def _now() -> str:
    """Strictly growing times, so that "newest" is never a tie."""
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(_clock))).isoformat().replace("+00:00", "Z")
