"""Recurring runs by name. Comes in: a connected server, a job, a cron line. Goes out: exactly one schedule of that name.

The server can make, pause, resume and delete a recurring run but not change one, and takes any number of the same name. What a
schedule was made of is therefore written into its description, and a change makes the new one before it deletes the old: a crash
in between leaves two, of which the next call removes one, and never none.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from adabert_core.errors import UserError
from pipelines.connection import Remote, named, pages
from pipelines.cron import parse_cron
from pipelines.remote import Job

_MARK = "settings "


def find(remote: Remote, name: str) -> list[Any]:
    """Returns the recurring runs of this name, the newest first."""
    runs = [run for run in _all(remote, filter=named(name)) if run.display_name == name]
    return sorted(runs, key=lambda run: run.created_at, reverse=True)


def _all(remote: Remote, **query: Any) -> Iterator[Any]:
    return pages(remote.client.list_recurring_runs, "recurring_runs", namespace=remote.namespace, **query)


def reconcile(remote: Remote, name: str, cron: str, job: Job) -> str:
    """Makes the schedule `name` be this one and returns in a few words what that took; a paused one stays paused."""
    mark = _MARK + _digest(cron, job)
    existing = find(remote, name)
    paused = bool(existing) and all(_is_paused(run) for run in existing)
    keep = next((run for run in existing if (run.description or "").endswith(mark)), None)
    if keep is None:
        made = remote.client.create_recurring_run(
            job.experiment_id,
            name,
            description=f"Made by pipelines.run schedule; {mark}",
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=True,  # nights that were missed are not made up for: one run sees the newest rows
            params=job.parameters,
            pipeline_id=job.version.pipeline_id,
            version_id=job.version.version_id,
            enabled=not paused,
            pipeline_root=job.pipeline_root,
            service_account=job.service_account,
        )
        keep = made
        done = "changed" if existing else "created"
    else:
        done = "unchanged"
    for old in existing:
        if old.recurring_run_id != keep.recurring_run_id:
            remote.client.delete_recurring_run(old.recurring_run_id)
    return done + (", paused: start it with --resume" if paused else "")


def _digest(cron: str, job: Job) -> str:
    made_of = {"cron": cron, **dataclasses.asdict(job), "version": job.version.name}
    text = json.dumps(made_of, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_paused(run: Any) -> bool:
    return run.status == "DISABLED" or run.mode == "DISABLE"


def switch(remote: Remote, name: str, *, on: bool) -> str:
    """Resumes or pauses the schedule and returns what it is now.

    Raises:
        UserError: there is none of this name.
    """
    existing = find(remote, name)
    if not existing:
        known = sorted({run.display_name for run in _all(remote)})
        raise UserError(f"nothing is scheduled as {name}; scheduled are: {', '.join(known) or 'none'}.")
    change = remote.client.enable_recurring_run if on else remote.client.disable_recurring_run
    for run in existing:
        if _is_paused(run) == on:
            change(run.recurring_run_id)
    return "resumed" if on else "paused"


def delete(remote: Remote, name: str) -> str:
    """Deletes the schedule; its finished and running runs stay. Returns what was done, which may be nothing."""
    existing = find(remote, name)
    for run in existing:
        remote.client.delete_recurring_run(run.recurring_run_id)
    return "deleted" if existing else "nothing is scheduled under this name"


def table(remote: Remote, now: datetime) -> list[tuple[str, str, str, str, str]]:
    """Returns rows of name, cron, state, next firing and last run; times in UTC, as a scheduler without a set zone has them."""
    runs = sorted(_all(remote), key=lambda run: (run.display_name, run.created_at))
    last = _last_runs(remote, {run.experiment_id for run in runs})
    return [
        (
            run.display_name,
            _trigger(run),
            "paused" if _is_paused(run) else "on",
            "-" if _is_paused(run) else _next(run, now),
            last.get(run.recurring_run_id, "-"),
        )
        for run in runs
    ]


def _last_runs(remote: Remote, experiments: set[str]) -> dict[str, str]:
    """When the newest run of each recurring run was made and how it is; of the newest hundred runs of each experiment."""
    found: dict[str, str] = {}
    for experiment in experiments:
        answer = remote.client.list_runs(experiment_id=experiment, sort_by="created_at desc", page_size=100)
        for run in answer.runs or []:
            if run.recurring_run_id and run.recurring_run_id not in found:
                found[run.recurring_run_id] = f"{_time(run.created_at)} {(run.state or '').lower()}"
    return found


def _trigger(run: Any) -> str:
    if run.trigger and run.trigger.cron_schedule:
        return run.trigger.cron_schedule.cron
    periodic = run.trigger and run.trigger.periodic_schedule
    return f"every {periodic.interval_second} s" if periodic else "-"


def _next(run: Any, now: datetime) -> str:
    try:
        fires = parse_cron(_trigger(run)).after(now)
    except UserError:  # made elsewhere, in a form that we do not read
        return "-"
    return _time(fires) if fires else "-"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
