"""The command line: the only code that prints. Standard output is for results, standard error for everything else."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any, NoReturn, cast

import typer
from sqlalchemy.exc import DBAPIError

from mautic_sync import __version__, stopping
from mautic_sync.cli import (
    configuration,
    demo,
    doctor,
    hot,
    inspection,
    keeping,
    passes,
    provisioning,
    repairing,
    simulation,
    worker,
)
from mautic_sync.cli.common import print_error_document
from mautic_sync.cli.logs import log_crash, masked
from mautic_sync.cli.signs import HANDLER
from mautic_sync.errors import MauticSyncError, Terminated
from mautic_sync.store import failures

STOP_SECONDS = 20
"""After a signal, so long the requests in flight may take to be answered for."""

app = typer.Typer(
    name="mautic-sync",
    help="Sorts Mautic contacts into ghosts, leads and customers, and keeps Mautic's stages true.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    demo,
    provisioning,
    doctor,
    passes,
    worker,
    configuration,
    inspection,
    repairing,
    keeping,
    hot,
    simulation,
):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mautic-sync {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    del version


def _stop(number: int, _frame: FrameType | None) -> None:
    """SIGTERM, or Ctrl-C: what is in flight is answered for, unless Mautic takes too long over it."""
    code = 130 if number == signal.SIGINT else Terminated.exit_code
    last = threading.Timer(STOP_SECONDS, _leave, [code])
    last.daemon = True
    last.start()
    stopping.ask(KeyboardInterrupt() if number == signal.SIGINT else Terminated())


def _leave(code: int) -> None:
    # As after kill -9: what was sent and is not answered for is looked up by the next run.
    print("mautic-sync: stopped while requests were on their way; the next run looks them up", file=sys.stderr)
    sys.stderr.flush()
    os._exit(code)


STOPPED = "stopped; what was done is kept, the next run goes on from there"
# typer's own class, which older versions of it take from click: it has no public name.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)


def main() -> NoReturn:
    """Run a command; every error that we raise on purpose becomes one sentence and its documented exit code."""
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=HANDLER)  # a terminal that lacks our signs shows what they say
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
        if code == 130:  # typer has seen Ctrl-C before us
            _end(STOPPED, code)
    except UsageError as error:
        error.show()
        code = error.exit_code
        print_error_document(error.format_message(), code, {})
    except typer.Abort:
        code = _end("aborted", 1)
    except MauticSyncError as error:
        code = _end(str(error), error.exit_code, error.facts)
    except DBAPIError as error:
        code = _end(masked(failures.told(error)), 1)
    except KeyboardInterrupt:
        code = _end(STOPPED, 130)
    except Terminated as stop:
        code = _end(STOPPED, stop.exit_code)
    except BrokenPipeError:
        code = 1
    except Exception as error:  # noqa: BLE001 -- the last place: Python's own traceback would show secrets
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _drop_output()
            code = _end("the output could not be written: no space is left where it goes to", 1)
        else:
            log_crash(error)
            code = _end(f"a fault of mautic-sync itself: {masked(str(error))}. Please report the log.", 1)
    sys.exit(code)


def _end(told: str, code: int, facts: Mapping[str, Any] = MauticSyncError.facts) -> int:
    print(f"mautic-sync: {told}", file=sys.stderr)
    if code == 1 and _acted(facts):
        print(f"What was done until then is kept: `mautic-sync status {facts['run_id']}` shows it.", file=sys.stderr)
    try:
        print_error_document(told, code, facts)
        sys.stdout.flush()
    except OSError:
        _drop_output()
    return code


def _acted(facts: Mapping[str, Any]) -> bool:
    """Whether a run that ended in an error had done anything that `status` shows of it."""
    done = facts.get("summary")
    if done is None:
        return False
    written = [count for what, count in done["pushed"].items() if what != "calls"]
    return any((*written, done["actions"]["done"], done["doubtful"]))


def _drop_output() -> None:
    """What is still to be written would fail once more when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
