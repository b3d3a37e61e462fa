"""Many addresses at once by ZeroBounce's files: sent by one run, looked for and fetched by later ones.

The intent is stored before a file is sent, and its credits count from then on. A file whose answer was lost is never
sent again by itself: a person looks whether it is there, and says so (`adopt`, `give_up`). docs/delivery.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection

from mautic_sync.domain.validation import normalise_address
from mautic_sync.errors import ConfigError, DoubtfulError, MauticSyncError, RefusedError
from mautic_sync.pipeline.answers import settle
from mautic_sync.pipeline.context import Run
from mautic_sync.store import runs, uploads
from mautic_sync.store.engine import in_chunks
from mautic_sync.zerobounce import Answer, NoCreditsError, ZeroBounce

MOST_IN_A_FILE = 100_000
ROWS_PER_TRANSACTION = 500
PATIENCE = 3 * 86400  # seconds after which a file that is still not complete is a person's business
LOOKS = 2  # so often a result is fetched before what it lacks counts as unanswered
LEAST_KNOWN = 0.5  # share of our addresses in a result that is ours
SOURCE = "upload"
"""What rows of a result that cannot be used are called in quarantine."""


def upload(run: Run, zerobounce: ZeroBounce, addresses: Sequence[str]) -> bool:
    """Send these addresses as one file; False where ZeroBounce looked at it and refused: then ask one by one.

    Raises what `ZeroBounce.credits` and `send_file` raise, but nothing when the answer was lost: then it is in doubt.
    """
    left = zerobounce.credits()
    if left == 0:
        raise NoCreditsError(
            "The ZeroBounce account has no credits left: add some; addresses that wait are asked in a later run."
        )
    addresses = addresses[:left]
    name = f"mautic-sync-{run.id}.csv"
    with run.engine.begin() as connection:
        number = uploads.begin(connection, name, addresses, run_id=run.id, now=run.now)
    run.counts.credits += len(addresses)
    try:
        file_id = zerobounce.send_file(name, addresses)
    except DoubtfulError as error:
        _doubt(run, number, str(error))
        return True
    except MauticSyncError as error:
        with run.engine.begin() as connection:
            uploads.release(connection, number, str(error), run_id=run.id, now=run.now)
        run.counts.credits -= len(addresses)
        if not isinstance(error, RefusedError):
            raise
        run.counts.failed += 1
        run.tell("upload_refused", reason=str(error))
        return False
    except BaseException as error:
        _doubt(run, number, f"the worker was stopped while it sent the file ({type(error).__name__})")
        raise
    with run.engine.begin() as connection:
        uploads.accept(connection, number, file_id)
    run.tell("uploaded", file=name, addresses=len(addresses))
    return True


def collect(run: Run, zerobounce: ZeroBounce) -> None:
    """Look for every file that is on its way, and take in what is complete. Whatever fails is looked for next time."""
    _doubt_what_was_cut_short(run)
    with run.engine.begin() as connection:
        files = uploads.open_files(connection)
    for one in files:
        try:
            if one.state == uploads.SENT:
                _look(run, zerobounce, one)
            elif one.state == uploads.ANSWERED:
                _clear(run, zerobounce, one)
        except MauticSyncError as error:
            run.counts.failed += 1
            run.tell("upload_failed", file=one.file_name, reason=str(error))
            with run.engine.begin() as connection:
                uploads.note_error(connection, one.id, str(error))


def _doubt_what_was_cut_short(run: Run) -> None:
    """A file that was being sent when its worker died: whoever holds the run lock knows that nobody sends it."""
    with run.engine.begin() as connection:
        lost = uploads.doubt_what_was_sending(connection)
    if lost:
        run.counts.uploads_doubtful += lost
        run.tell("upload_doubtful", reason="the worker was stopped while it sent a file")


# -- what a person says of a file in doubt ---------------------------------------------------------------------------


def give_up(run: Run) -> int:
    """Files in doubt are not at ZeroBounce: their addresses may be asked again. How many addresses."""
    with run.engine.begin() as connection:
        return sum(
            uploads.release(connection, one.id, "not at ZeroBounce, somebody said", run_id=run.id, now=run.now)
            for one in _in_doubt(connection)
        )


def adopt(run: Run, file_id: str, number: int | None) -> None:
    """The file in doubt (its `number`, where there are several) is at ZeroBounce under this id."""
    with run.engine.begin() as connection:
        found = [one for one in _in_doubt(connection) if number in {None, one.id}]
        if len(found) != 1:
            numbers = ", ".join(str(one.id) for one in _in_doubt(connection))
            msg = f"which file is that? In doubt are: {numbers}. Name one with --upload."
            raise ConfigError(msg)
        uploads.accept(connection, found[0].id, file_id)


def _in_doubt(connection: Connection) -> list[Any]:
    uploads.doubt_what_was_sending(connection)
    found = [one for one in uploads.open_files(connection) if one.state == uploads.DOUBTFUL]
    if not found:
        msg = "no file is in doubt: there is nothing to say about one (`mautic-sync status` shows files)"
        raise ConfigError(msg)
    return found


# -- taking in a result ---------------------------------------------------------------------------------------------


def _look(run: Run, zerobounce: ZeroBounce, one: Any) -> None:
    try:
        if not zerobounce.is_complete(one.file_id):
            if run.now - one.at > PATIENCE:
                _doubt(run, one.id, "ZeroBounce has not completed it for days")
            else:
                run.tell("upload_waiting", file=one.file_name)
            return
        rows = zerobounce.fetch_file(one.file_id)
    except RefusedError as error:
        _doubt(run, one.id, str(error))
        return
    found = [(normalise_address(row.address), row) for row in rows if row is not None]
    if not _is_ours(run, one, [address for address, _ in found if address is not None]):
        _doubt(run, one.id, "the result has few of the addresses that were sent: it is that of another file")
        return
    for part in in_chunks(found, ROWS_PER_TRANSACTION):
        _take(run, one, part)
    _conclude(run, one, unreadable=len(rows) - len(found))
    with run.engine.begin() as connection:
        again = next((row for row in uploads.open_files(connection) if row.id == one.id), None)
    if again is not None and again.state == uploads.ANSWERED:
        run.tell("upload_answered", file=one.file_name, addresses=one.addresses)
        _clear(run, zerobounce, again)


def _is_ours(run: Run, one: Any, addresses: Sequence[str]) -> bool:
    with run.engine.begin() as connection:
        known = uploads.held_in(connection, one.id, set(addresses))
    return len(known) >= LEAST_KNOWN * int(one.addresses)


def _take(run: Run, one: Any, part: Sequence[tuple[str | None, Answer]]) -> None:
    """Verdicts of some rows, with what they turned out to cost, in one transaction."""
    with run.engine.begin() as connection:
        held = uploads.held_in(connection, one.id, {address for address, _ in part if address is not None})
        done: set[str] = set()
        for address, answer in part:
            if address is None or address not in held:
                reason = "a row of ZeroBounce's result is about an address that was not asked"
                run.quarantine(connection, SOURCE, _key(one, answer.address), reason, answer.address)
            elif not held[address] and address not in done:
                # Its credit is in the ledger since the file was sent; `unknown` is free.
                cost = -1 if answer.status == "unknown" else 0
                settle(run, connection, address, answer, cost=cost, paid_at=one.at)
                done.add(address)
        uploads.answer(connection, sorted(done))


def _conclude(run: Run, one: Any, *, unreadable: int) -> None:
    """When nothing is missing any more, or was missing each time: what has no answer is held and asked again later."""
    with run.engine.begin() as connection:
        missing = uploads.unanswered(connection, one.id)
        if missing and one.fetches + 1 < LOOKS:
            reason = f"the result lacks {len(missing)} of {one.addresses} addresses; the next run fetches it again"
            uploads.note_fetch(connection, one.id, reason)
            run.counts.failed += 1
            run.tell("upload_failed", file=one.file_name, reason=reason)
            return
        if unreadable:
            reason = f"{unreadable} rows of ZeroBounce's result cannot be read"
            run.quarantine(connection, SOURCE, str(one.id), reason, one.file_name)
    for part in in_chunks(missing, ROWS_PER_TRANSACTION):
        with run.engine.begin() as connection:
            for address in part:
                settle(run, connection, address, None, cost=0, paid_at=one.at)
            uploads.answer(connection, part)
    if missing:
        run.tell("no_answer", reason=f"ZeroBounce's result lacks {len(missing)} addresses: they are asked again later")
    with run.engine.begin() as connection:
        uploads.note_answered(connection, one.id)


def _clear(run: Run, zerobounce: ZeroBounce, one: Any) -> None:
    """Addresses do not stay where they are not needed. What is already gone is as good."""
    try:
        zerobounce.delete_file(one.file_id)
    except RefusedError as error:
        run.tell("upload_gone", file=one.file_name, reason=str(error))
    with run.engine.begin() as connection:
        uploads.finish(connection, one.id, run.now)


def _doubt(run: Run, number: int, reason: str) -> None:
    with run.engine.begin() as connection:
        uploads.doubt(connection, number, reason)
    run.counts.uploads_doubtful += 1
    run.tell("upload_doubtful", reason=reason)


def _key(one: Any, address: str) -> str:
    return f"{one.id}.{hashlib.sha256(address.encode()).hexdigest()[:32]}"


def release_rows(run: Run, wanted: Collection[int]) -> int:
    """Rows of the quarantine (its numbers) that `retry` lets go: their addresses are asked anew by themselves. How many."""
    with run.engine.begin() as connection:
        keys = [row["key"] for row in runs.in_quarantine(connection, SOURCE) if row["id"] in wanted]
        runs.release_from_quarantine(connection, SOURCE, keys, run.now)
    return len(keys)
