"""One measurement in a process of its own, so that its peak of memory is its own: `python -m tests.bench.worker`.

Standard input holds the job as JSON, the last line of standard output what was measured. The worker runs the code
that the commands run; only the clock around it is ours.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

Job = Mapping[str, Any]
SECONDS_WITHOUT_END = 86_400


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def measured(told: dict[str, Any]) -> Iterator[None]:
    """Adds `seconds` and `cpu` (of this process, while it lasted) to what is told; what was there to be written is first."""
    os.sync()
    cpu, began = cpu_seconds(), time.perf_counter()
    yield
    told["seconds"] = time.perf_counter() - began
    told["cpu"] = cpu_seconds() - cpu


@contextmanager
def opened(job: Job, told: dict[str, Any]) -> Iterator[Any]:
    """A run as a command begins it; tells the calls it made and the memory before any work."""
    from mautic_sync.cli.common import configure_logs
    from mautic_sync.cli.passes import started
    from mautic_sync.settings import Settings

    settings = Settings(
        mautic={
            "base_url": job["url"],
            "client_id": "sandbox",
            "client_secret": "sandbox-secret",
            "concurrency": job["concurrency"],
        },
        store={"url": f"sqlite:///{job['store']}"},
        push={"max_seconds": SECONDS_WITHOUT_END, "max_change_ratio": 1, "first_run_max": 10**9},
        log={"level": "error"},
        **(
            {"zerobounce": {"api_key": "never-asked", "base_url": f"{job['url']}/zerobounce"}}
            if job.get("gate")
            else {}
        ),
    )
    configure_logs(settings)
    with started(settings, "bench") as run:
        told["idle_mb"] = peak_mb()
        before = run.mautic.calls
        yield run
        told["calls"] = run.mautic.calls - before
        told["writes"] = run.mautic.writes


def init(job: Job) -> dict[str, Any]:
    """The stages and fields that the mappings name."""
    from mautic_sync.pipeline.provision import provision

    told: dict[str, Any] = {}
    with opened(job, told) as run, measured(told):
        provision(run)
    return told


def pull(job: Job) -> dict[str, Any]:
    """Everybody and everything into an empty store; tells which pages were read."""
    from mautic_sync.mautic.transport import Transport
    from mautic_sync.pipeline.pull import meet_instance, prepare_store, pull as pull_all, read_instance

    urls: list[str] = []
    send = Transport._send

    def noting(self: Transport, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        response = send(self, method, url, *args, **kwargs)
        if method == "GET":
            urls.append(str(response.request.url))
        return response

    Transport._send = noting  # type: ignore[method-assign]
    told: dict[str, Any] = {}
    with opened(job, told) as run:
        with measured(told):
            meet_instance(run, adopt=False)
            read_instance(run, fresh=False)
            prepare_store(run)
            pull_all(run, full=False)
        told |= {"contacts": run.counts.contacts, "activities": run.counts.activities, "urls": urls}
    return told


def bare(job: Job) -> dict[str, Any]:
    """The pages that `pull` read, with plain requests: each body is read and thrown away."""
    session = requests.Session()
    session.trust_env = False
    form = {"grant_type": "client_credentials", "client_id": "sandbox", "client_secret": "sandbox-secret"}
    token = session.post(f"{job['url']}/oauth/v2/token", data=form, timeout=60).json()["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"

    def fetch(url: str) -> int:
        return len(session.get(url, timeout=60).content)

    told: dict[str, Any] = {"calls": len(job["urls"])}
    with measured(told), ThreadPoolExecutor(max_workers=job["concurrency"]) as pool:
        told["bytes"] = sum(pool.map(fetch, job["urls"]))
    return told


def decide(job: Job) -> dict[str, Any]:
    """Everybody who is new, from store to stored decision and planned changes.

    `again`: everybody, as after a change of the rules that gives each decision another trace and changes nothing else.
    """
    from mautic_sync.pipeline.decide import decide_changed
    from mautic_sync.pipeline.pull import read_instance
    from mautic_sync.store import people
    from mautic_sync.store.schema import decision

    told: dict[str, Any] = {}
    with opened(job, told) as run:
        read_instance(run, fresh=False)
        if job.get("again"):
            with run.engine.begin() as connection:
                connection.execute(decision.update().values(trace="[]"))
                people.mark_everyone_dirty(connection)
        with measured(told):
            told["persons"] = decide_changed(run, baseline=True)
    return told


def sync(job: Job) -> dict[str, Any]:
    """One pass as `mautic-sync sync` makes it, opening and closing included."""
    from mautic_sync.pipeline.run import Options, summary, sync as one_pass

    told: dict[str, Any] = {}
    with measured(told), opened(job, told) as run:
        one_pass(run, Options(push=job["push"]))
        document = summary(run)
    told |= {"pulled": document["pulled"], "pushed": document["pushed"], "pending": document["pending"]}
    return told


def push(job: Job) -> dict[str, Any]:
    """The first pass over a store in which everybody is decided; what is measured is its push."""
    from mautic_sync.pipeline import push as pushing
    from mautic_sync.pipeline.run import Options, sync as one_pass
    from mautic_sync.store import changes

    told: dict[str, Any] = {}
    write = pushing.push

    def timed(run: Any) -> None:
        with run.engine.begin() as connection:
            planned = changes.count_planned(connection)
        with measured(told):
            write(run)
        with run.engine.begin() as connection:
            told["persons"] = planned - changes.count_planned(connection)

    pushing.push = timed
    with opened(job, told) as run:
        one_pass(run, Options())
        told["failed"] = run.counts.failed + run.counts.doubtful
    return told


TASKS: dict[str, Callable[[Job], dict[str, Any]]] = {
    task.__name__: task for task in (init, pull, bare, decide, sync, push)
}


def main() -> None:
    job = json.load(sys.stdin)
    told = TASKS[job["task"]](job)
    told["peak_mb"] = peak_mb()
    if job.get("store"):
        told["store_mb"] = Path(job["store"]).stat().st_size / 2**20
    print(json.dumps(told))


if __name__ == "__main__":
    main()
