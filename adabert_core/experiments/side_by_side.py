"""The runs of an experiment side by side, each in a process of its own, as many at a time as fit the cores.

Comes in: runs, a folder. Goes out: the same folder with every run finished, and why those that are not have failed. Training
goes side by side; the benchmarks follow, unless asked one after the other, so that no run's latency is taken beside another run.
"""

import dataclasses
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from adabert_core.artifacts import read_json, write_json
from adabert_core.experiments.matrix import Run
from adabert_core.experiments.worker import Job
from adabert_core.runner import is_done_to
from adabert_core.search_space import PRIMITIVES, Genotype, random_cells

log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_TIME = re.compile(r"^\d\d:\d\d:\d\d ")


class Workshop:
    """A folder in which experiments are worked off; they share its stages, and one that is started again goes on.

    The number of threads is part of a result, so it is part of the folders' names.
    """

    def __init__(self, folder: Path, name: str, threads: int) -> None:
        root = folder.absolute() / f"threads-{threads}"
        self.stages, self.runs, self.threads = root / "stages", root / name, threads
        self._known: dict[tuple[str, str], bool] = {}

    def run_folder(self, run: Run) -> Path:
        """Where a run's stages, job and log lie."""
        return self.runs / run.key

    def work_off(self, runs: Sequence[Run], workers: int, benchmarks: int = 1) -> dict[str, str]:
        """Runs everything that is not done yet; returns why the runs of which keys have failed."""
        failed: dict[str, str] = {}
        for last, count in (("retrain", workers), ("benchmark", benchmarks)):
            self._phase([run for run in runs if run.key not in failed], last, count, failed)
        return failed

    def genotype(self, run: Run) -> str:
        """The structure that a run takes from the run it needs, whose search is done; nothing if it needs none."""
        if not run.needs:
            return ""
        searched = self.runs / run.needs / "search"
        found = Genotype.load(searched / "genotype.json")
        if not run.random:
            return str(found)
        table = read_json(searched / "costs.json")["costs"]
        return str(random_cells(found, [table[name] for name in PRIMITIVES], run.draw + 1, run.seed)[run.draw])

    def _phase(self, runs: list[Run], last: str, workers: int, failed: dict[str, str]) -> None:
        """Brings all runs up to a stage."""
        waiting, done = list(runs), set[str]()
        working: dict[subprocess.Popen[bytes], Run] = {}
        try:
            while waiting or working:
                for run in list(waiting):
                    if run.needs in failed:
                        failed[run.key] = f"it needs {run.needs}"
                    elif run.needs and run.needs not in done:
                        continue
                    elif self._is_done(run, last):
                        done.add(run.key)
                    elif len(working) < workers:
                        log.info("%s: %s (%d runs to go)", run.key, last, len(waiting))
                        working[self._start(run, last)] = run
                    else:
                        break
                    waiting.remove(run)
                self._see_who_ended(working, done, failed)
        finally:
            for process in working:
                process.terminate()
            for process in working:
                process.wait()

    def _see_who_ended(self, working: dict[subprocess.Popen[bytes], Run], done: set[str], failed: dict[str, str]) -> None:
        """Waits a moment and sorts the processes that have ended."""
        time.sleep(_POLL_SECONDS if working else 0)
        for process in [process for process in working if process.poll() is not None]:
            run = working.pop(process)
            if process.returncode == 0:
                done.add(run.key)
            else:
                failed[run.key] = _last_words(self.run_folder(run) / "log.txt")
                log.error("%s failed: %s", run.key, failed[run.key])

    def _start(self, run: Run, last: str) -> subprocess.Popen[bytes]:
        folder = self.run_folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(str(run.preset), run.overrides(self.genotype(run)), str(self.stages))
        write_json(folder / "job.json", dataclasses.asdict(job))
        command = [sys.executable, "-m", "adabert_core.experiments.worker", str(folder), last]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        with (folder / "log.txt").open("ab") as file:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)  # noqa: S603

    def _is_done(self, run: Run, last: str) -> bool:
        """True where an earlier call has left the very result that the run asks for now; looked up once, since rows are read."""
        if (run.key, last) not in self._known:
            self._known[(run.key, last)] = is_done_to(last, run.config(self.genotype(run)), self.run_folder(run))
        return self._known[(run.key, last)]


def _last_words(file: Path) -> str:
    """The last line of a log, without its time."""
    lines = [line for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{_TIME.sub('', lines[-1].strip())} ({file})" if lines else f"it left no word in {file}"
