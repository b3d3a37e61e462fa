"""Actions are carried out after stages and points, by value, each part once.

What is done to a contact may be repeated without harm: tags, fields, owner, do-not-contact, segments and campaigns are
set to what they should be, and a note carries a key by which it is found. A message is sent at least once.
docs/delivery.md: "Actions".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection

from mautic_sync.destinations import notifications
from mautic_sync.domain.actions import ActionRules
from mautic_sync.domain.contact import Contact
from mautic_sync.domain.undoing import UNDOES
from mautic_sync.errors import (
    ConfigError,
    ForbiddenError,
    MalformedError,
    MauticSyncError,
    RefusedError,
    UnreadableError,
)
from mautic_sync.mappings import member_named
from mautic_sync.mautic.contacts import NOT_FOUND, get_contact
from mautic_sync.mautic.handling import Done, Place, add_note, has_note, join, leave
from mautic_sync.mautic.provisioning import Named, SegmentInfo, User, list_campaigns, list_segments, list_users
from mautic_sync.mautic.writes import (
    ContactEdit,
    Doubtful,
    Gone,
    Moved,
    Refused,
    Result,
    Settled,
    add_dnc,
    edit_one,
    has_tag,
    remove_dnc,
)
from mautic_sync.pipeline.context import MOST_ATTEMPTS, Run
from mautic_sync.pipeline.decide import MANUAL_DNC, consider, deciding_by
from mautic_sync.pipeline.flights import ask_for_anybody, keep_in_flight, note_end
from mautic_sync.pipeline.occasions import asked_for, key_of, named_now, queue, set_off
from mautic_sync.pipeline.refusals import is_about_owner, way_out
from mautic_sync.store import actions, changes, decisions, people
from mautic_sync.store.changes import Transition

ACTIONS_AT_ONCE = 500
LINES_OF_DIGEST = 50
NO_OWNER = (
    "Mautic shows us none of the action's owners as a published user (`mautic-sync doctor` names them); correct `owner` in "
    "actions.yaml or the users in Mautic, then `mautic-sync retry`"
)
NOBODY_LEFT = (
    "actions.yaml names nobody any more for whom the message was meant; name them there and `mautic-sync retry`, or let it "
    "go: `mautic-sync retry ID --discard`"
)
NOTIFY = "notify:"
"""Beginning of the part of a message to one address."""
FIELD = "fields:"
"""Beginning of the part of one field, where Mautic refused another one with it."""


def queue_entries(
    run: Run, connection: Connection, settled: Mapping[int, Any], transitions: Sequence[Transition]
) -> None:
    """Store what these transitions set off; `settled` are their changes by number.

    Numbers of changes begin again in a restored or a new store, ids of runs do not. A change that came with a backup
    may have set off the same before: that has the same key, and its note is looked for. Actions belong to the run that
    sent the change, whichever found it.
    """
    due: dict[str, list[Any]] = {}
    restored_up_to = changes.restored_up_to(connection) if transitions else 0
    perhaps_done: set[str] = set()
    for transition in transitions:
        row = settled[transition.change_id]
        if (row.baseline and not run.with_actions) or UNDOES in orjson.loads(row.new):
            continue
        found = set_off(run, transition)
        person = decisions.one_person(connection, row.person_id) if found else None
        if person is not None:
            (one,) = consider(deciding_by(run), connection, [person], run.now)
            entered = [(rule, one, key_of(rule, f"{row.run_id} change {row.id}")) for rule in found]
            due.setdefault(row.settled_run or run.id, []).extend(entered)
            if row.id <= restored_up_to:
                perhaps_done.update(key for _, _, key in entered)
    for run_id, some in due.items():
        queue(run, connection, some, run_id=run_id)
    actions.doubt_keys(connection, perhaps_done)


def carry_out(run: Run, *, least_value: int, until: float, met: set[int]) -> None:
    """Do what is due, for as long as `until` (monotonic seconds) allows; the rest stays planned.

    `met` are the persons whose turn in this run has come already; it grows.
    """
    with run.engine.begin() as connection:
        actions.doubt_what_was_sent(connection, int(time.time()))
        actions.let_vanished_go(connection, run.now)
        if not actions.count_open(connection):
            return
    mautic = _Mautic(run)
    messages: list[_Message] = []
    persons = _persons(run, least_value, met)

    def intend() -> Sequence[Any] | None:
        person_id = next(persons, None)
        return None if person_id is None else _intend(run, person_id)

    keep_in_flight(
        run.settings.mautic.concurrency,
        until,
        intend=intend,
        send=lambda rows: _perform_all(mautic, rows),
        land=lambda rows, future: messages.extend(_land(run, rows, future)),
    )
    _send_messages(run, messages, until)


def _persons(run: Run, least_value: int, met: set[int]) -> Iterator[int]:
    """Survivors with something to do, most valuable first, each once a run."""
    after: tuple[int, int] | None = None
    while True:
        with run.engine.begin() as connection:
            rows = actions.next_persons(
                connection, limit=ACTIONS_AT_ONCE, after=after, least_value=least_value, only=run.only
            )
        if not rows:
            return
        after = (rows[-1].value, rows[-1].id)
        for row in rows:
            if row.survivor not in met:
                met.add(row.survivor)
                yield row.survivor


def _intend(run: Run, person_id: int) -> list[Any]:
    """Store this person's actions as sent, oldest first; what is in doubt and what comes after it waits."""
    now = int(time.time())
    ready: list[Any] = []
    occasions = asked_for(run)
    with run.engine.begin() as connection:
        if actions.has_change_on_the_way(connection, person_id):
            return []
        for row in actions.open_of(connection, person_id):
            if actions.is_taken_out(row, occasions):
                actions.supersede(connection, [row.id], "actions.yaml asks for it no more", run.now)
                continue
            if row.mautic_id is None or (row.state == actions.DOUBTFUL and not run.is_overdue(row)):
                break
            if row.attempts >= MOST_ATTEMPTS:
                _close(run, connection, row, orjson.loads(row.done), f"tried {row.attempts} times: {row.error}")
                continue
            ready.append(row)
        actions.mark_sent(connection, [row.id for row in ready], run_id=run.id, now=now)
    return ready


# -- one contact ----------------------------------------------------------------------------------------------------


@dataclass
class _Performed:
    """What became of one action. `shown` are contacts as Mautic showed them, with what we had asked for."""

    row: Any
    done: dict[str, Any]
    refused: str | None = None
    doubtful: str | None = None
    failed: str | None = None
    """Mautic could not show what this needs, and may the next time."""
    stopped: MauticSyncError | None = None
    """Nothing was changed by the last call, and the run cannot go on."""
    gone: bool = False
    moved_to: int | None = None
    shown: list[tuple[Contact, Mapping[str, Any]]] = field(default_factory=list)
    dnc: list[tuple[str, int | None, Contact]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing more is done for this person now."""
        return self.gone or self.stopped is not None or self.doubtful is not None or self.failed is not None


def _perform_all(mautic: _Mautic, rows: Sequence[Any]) -> list[_Performed]:
    """One person's actions in their order, until one is in doubt or fails; those after it are not in the answer."""
    found: list[_Performed] = []
    number: int = rows[0].mautic_id
    for row in rows:
        performed = _OneAction(mautic, row, number).perform()
        found.append(performed)
        if performed.ended:
            break
        number = performed.moved_to or number
    return found


class _Ended(Exception):
    """The contact is gone, or a write is in doubt."""


class _OneAction:
    """The parts of one action, each noted as done as soon as Mautic says so."""

    def __init__(self, mautic: _Mautic, row: Any, number: int) -> None:
        self.mautic = mautic
        self.transport = mautic.run.mautic
        self.row = row
        self.number = number
        self.todo: dict[str, Any] = orjson.loads(row.todo)
        rule = mautic.run.mappings.action_rules.meant(row.rule, row.occasion, numbered="numbered" in self.todo)
        if rule is not None:
            self.todo = named_now(self.todo, rule.do, row.id)
        self.performed = _Performed(row, orjson.loads(row.done))
        self.done = self.performed.done
        self.begun_before = bool(row.attempts)

    def perform(self) -> _Performed:
        try:
            parts = self._parts()
            if parts:
                self.contact = self._look()
                for name, part in parts:
                    self._try(name, part)
        except _Ended:
            pass
        except (ForbiddenError, MalformedError) as error:
            self._refuse("the contact", str(error))
        except (UnreadableError, RefusedError) as error:
            self._fail(error)
        except MauticSyncError as error:
            self.performed.stopped = error
        return self.performed

    def _fail(self, error: MauticSyncError) -> None:
        """Something could not be read: it is this contact, or Mautic as a whole, and then it is no attempt."""
        try:
            ask_for_anybody(self.transport)
        except MauticSyncError as also:
            self.performed.stopped = also
        else:
            self.performed.failed = str(error)

    def _parts(self) -> list[tuple[str, Callable[[], Any]]]:
        """What is left to do, but for messages: the name of each part, and how to do it."""
        todo = self.todo
        parts: list[tuple[str, Callable[[], Any]]] = []
        if any(name in todo and name not in self.done for name in ("tags", "fields", "owner")):
            parts.append(("edit", self._edit))
        for action in ("add", "remove"):
            channels = todo.get("dnc", {}).get(action, ())
            parts += [(f"dnc:{action}:{channel}", _of(self._dnc, action, channel)) for channel in channels]
        places: tuple[Place, ...] = ("segments", "campaigns")
        for place in places:
            for action in ("add", "remove"):
                names = todo.get(place, {}).get(action, ())
                parts += [(f"{place}:{action}:{name}", _of(self._member, place, action, name)) for name in names]
        if "note" in todo:
            parts.append(("note", self._note))
        return [(name, part) for name, part in parts if name not in self.done]

    def _try(self, name: str, part: Callable[[], Any]) -> None:
        result = _result_of(part)
        if isinstance(result, Refused) and result.status == NOT_FOUND:
            # Mautic says so, too, of what is there, when its connection to the database breaks.
            self.contact, self.begun_before = self._look(), True
            result = _result_of(part)
        if isinstance(result, Refused):
            self._refuse(name, f"{result.status} {way_out(result)}".strip())
        elif isinstance(result, Doubtful):
            self.performed.doubtful = f"{name}: {result.reason}"
            raise _Ended
        elif isinstance(result, Gone):
            self.performed.gone = True
            raise _Ended
        elif name != "edit":
            # Whether anything had to be done: only that can be undone.
            self.done[name] = isinstance(result, Settled) if name.startswith("dnc:") else True

    def _refuse(self, name: str, reason: str) -> None:
        told = f"{name}: {reason}"
        before = self.performed.refused
        self.performed.refused = told if before is None else f"{before}; {told}"

    def _look(self) -> Contact:
        """The contact as it is now, under the number it has now."""
        found = get_contact(self.transport, self.number)
        if found is None:
            self.performed.gone = True
            raise _Ended
        self._follow(found)
        return found

    def _follow(self, found: Contact) -> None:
        if found.id != self.number:
            self.number = self.performed.moved_to = found.id

    # -- parts

    def _edit(self) -> Result | Done:
        """Tags, fields and owner in one edit of this contact alone: a batch would swallow points."""
        values = {name: value for name, value in self._values().items() if name not in self.done}
        result = self._send(values)
        if not isinstance(result, Refused) or (len(values) < 2 and len(values.get("fields", {})) < 2):
            return result
        # One of them is at fault, and must not cost the others.
        last: Result | Done = result
        for name, value in values.items():
            one = self._field_by_field(value) if name == "fields" and len(value) > 1 else self._send({name: value})
            if isinstance(one, Refused):
                last = one
            elif not isinstance(one, Settled | Moved | Done):
                return one
        return last

    def _field_by_field(self, fields: Mapping[str, str]) -> Result | Done:
        """Each that Mautic takes is noted, and not written again by `retry`."""
        said = []
        for alias, value in fields.items():
            one = self._taken(edit_one(self.transport, ContactEdit(self.number, {alias: value})), {alias: value})
            if isinstance(one, Refused):
                said.append(one)
            elif isinstance(one, Settled | Moved):
                self.done[f"{FIELD}{alias}"] = True
            else:
                return one
        if not said:
            self.done["fields"] = True
            return Done()
        return Refused(said[0].status, "; ".join(one.reason for one in said))

    def _values(self) -> dict[str, Any]:
        """Part → what an edit asks for; empty where it is so already."""
        values: dict[str, Any] = {}
        if "tags" in self.todo:
            values["tags"] = [
                tag for tag in self.todo["tags"] if has_tag(self.contact, tag.removeprefix("-")) == tag.startswith("-")
            ]
        if "fields" in self.todo:
            shown = self.contact.fields
            values["fields"] = {
                alias: value
                for alias, value in self.todo["fields"].items()
                if value != str(shown.get(alias) or "") and f"{FIELD}{alias}" not in self.done
            }
        if "owner" in self.todo and "owner" not in self.done:
            owner = self.todo["owner"]
            keeps = self.contact.owner_id is not None and not owner["replace"]
            values["owner"] = self.contact.owner_id if keeps else self.mautic.owner(owner.get("users", [owner["user"]]))
        return values

    def _send(self, parts: Mapping[str, Any]) -> Result | Done:
        values: dict[str, Any] = dict(parts.get("fields", {}))
        if parts.get("tags"):
            values["tags"] = parts["tags"]
        if "owner" in parts and parts["owner"] is None:
            return Refused(404, NO_OWNER)
        if parts.get("owner", self.contact.owner_id) != self.contact.owner_id:
            values["owner"] = parts["owner"]
        result = self._taken(edit_one(self.transport, ContactEdit(self.number, values)), values) if values else Done()
        if "owner" in values and isinstance(result, Refused) and is_about_owner(result):
            return Refused(result.status, NO_OWNER)  # one by number, where users cannot be listed
        if isinstance(result, Settled | Done):
            self.done.update({name: True if name == "fields" else parts[name] for name in parts})
        return result

    def _taken(self, result: Result, values: Mapping[str, Any]) -> Result:
        if isinstance(result, Moved) and result.contact is not None:
            result = Settled(result.contact)
        if isinstance(result, Settled):
            self._follow(result.contact)
            self.contact = result.contact
            self.performed.shown.append((result.contact, values))
            if "tags" in result.differing:
                return Refused(200, f"Mautic shows other tags than {', '.join(values['tags'])}; mend them there")
        return result

    def _dnc(self, action: str, channel: str) -> Result | Done:
        """Set by hand, as Mautic calls it; what somebody asked for or a mail bounced on is never taken away."""
        present = self.contact.dnc.get(channel)
        if action == "add":
            if present is not None:
                return Done()
            comment = f"mautic-sync: {self.row.rule}"
            result = add_dnc(self.transport, self.number, channel, MANUAL_DNC, comment)
        else:
            if present != MANUAL_DNC:
                return Done()
            result = remove_dnc(self.transport, self.number, channel)
        if isinstance(result, Moved) and result.contact is not None:
            result = Settled(result.contact)
        if isinstance(result, Settled):
            self._follow(result.contact)
            self.performed.dnc.append((channel, MANUAL_DNC if action == "add" else None, result.contact))
        return result

    def _member(self, place: Place, action: str, name: str) -> Done | Refused | Doubtful:
        found = self.mautic.place(place, name)
        if isinstance(found, SegmentInfo) and not found.published:
            told = f"the segment {name} is unpublished, and Mautic changes no members of it; publish it, then `mautic-sync retry`"
            return Refused(403, told)
        if found is not None:
            return (join if action == "add" else leave)(self.transport, place, found.id, self.number)
        if action == "remove":
            self.mautic.tell_once("nothing_to_leave", what=f"{place.removesuffix('s')} {name}")
            return Done()
        return Refused(404, f"this Mautic has no {place.removesuffix('s')} {name}; create it, then `mautic-sync retry`")

    def _note(self) -> Done | Refused | Doubtful:
        if self.begun_before and has_note(self.transport, self.number, self.row.key):
            return Done()
        return add_note(self.transport, self.number, self.todo["note"], self.row.key)


def _of(part: Callable[..., Any], *words: str) -> Callable[[], Any]:
    return lambda: part(*words)


def _result_of(part: Callable[[], Any]) -> Any:
    """What came of a part. Raises what keeps the whole action from going on, such as a failing read."""
    try:
        return part()
    except ForbiddenError as error:
        return Refused(403, str(error))
    except RefusedError as error:
        if error.status >= 500:
            raise
        return Refused(error.status, str(error))


class _Mautic:
    """What this Mautic calls things; asked for once, by whichever thread needs it first."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._users: list[User] | None = None
        self._segments: list[SegmentInfo] | None = None
        self._campaigns: list[Named] | None = None

    def owner(self, names: Sequence[int | str]) -> int | None:
        """The first of these who is a published user; where users cannot be listed, the first that is named by number."""
        with self._lock:
            if self._users is None:
                try:
                    self._users = [user for user in list_users(self.run.mautic) if user.published]
                except (ForbiddenError, RefusedError):
                    self._users = []
            shown = self._users or [User(int(name), "") for name in names if str(name).isdigit()]
            return next((user.id for name in names for user in shown if user.is_called(name)), None)

    def place(self, place: Place, name: str) -> SegmentInfo | Named | None:
        """The segment or campaign of this name, as it is now: the catalogue may be older."""
        with self._lock:
            if place == "segments":
                if self._segments is None:
                    self._segments = list_segments(self.run.mautic)
                aliases = {one.id: one.alias for one in self._segments}
                meant = member_named(name, aliases, {one.id: one.name for one in self._segments})
                return next((one for one in self._segments if one.id == meant), None)
            if self._campaigns is None:
                self._campaigns = list_campaigns(self.run.mautic)
            meant = member_named(name, {one.id: one.name for one in self._campaigns})
            return next((one for one in self._campaigns if one.id == meant), None)

    def tell_once(self, event: str, *, what: str) -> None:
        with self._lock:
            if f"{event} {what}" in self.run.told_once:
                return
            self.run.told_once.add(f"{event} {what}")
        self.run.tell(event, what=what)


# -- what became of it ----------------------------------------------------------------------------------------------


def _land(run: Run, rows: Sequence[Any], future: Future[list[_Performed]]) -> list[_Message]:
    """Store what became of one person's actions. Returns the messages that are left to send."""
    try:
        found = future.result()
    except BaseException as error:
        with run.engine.begin() as connection:
            for row in rows:
                done = orjson.loads(row.done)
                actions.doubt(connection, row.id, done, str(error), run_id=run.id, now=int(time.time()))
        raise
    messages: list[_Message] = []
    with run.engine.begin() as connection:
        for performed in found:
            messages += _keep(run, connection, performed)
        for row in rows[len(found) :]:
            actions.back_to_planned(connection, row.id, orjson.loads(row.done), row.error, attempts=row.attempts)
    stopped = next((one.stopped for one in found if one.stopped is not None), None)
    if stopped is not None:
        raise stopped
    note_end(run, in_doubt=any(one.doubtful is not None for one in found))
    return messages


def _keep(run: Run, connection: Connection, one: _Performed) -> list[_Message]:
    row = one.row
    if one.moved_to is not None:
        if people.follow_merge(connection, row.mautic_id, one.moved_to, now=run.now, run_id=run.id) is not None:
            run.counts.merged += 1
        people.mark_dirty(connection, set(people.persons_of(connection, [one.moved_to]).values()))
    for contact, values in one.shown:
        people.save_contacts(connection, [contact], run.reading, now=run.now, ours={contact.id: values})
        run.counts.fields += len(values.keys() - {"tags", "owner"})
    for channel, reason, contact in one.dnc:
        for person_id in people.persons_of(connection, [contact.id]).values():
            people.note_own_dnc(connection, person_id, channel, reason, ours=False, shown=contact.dnc)
        run.counts.dnc += 1
    if one.gone:
        actions.supersede(connection, [row.id], "the contact was deleted in Mautic", run.now)
        people.vanish(connection, [row.mautic_id], run.now)
    elif one.stopped is not None:
        # The last call changed nothing, so that this was no attempt.
        actions.back_to_planned(connection, row.id, one.done, str(one.stopped), attempts=row.attempts)
    elif one.failed is not None:
        actions.back_to_planned(connection, row.id, one.done, one.failed, attempts=row.attempts + 1)
        run.tell("action_failed", contact=row.mautic_id, reason=one.failed)
    elif one.doubtful is not None:
        actions.doubt(connection, row.id, one.done, one.doubtful, run_id=run.id, now=int(time.time()))
        run.counts.doubtful += 1
        run.tell("doubtful", contact=row.mautic_id, reason=one.doubtful)
    else:
        message = _message(run, one)
        if message is not None and message.to:
            actions.back_to_planned(connection, row.id, one.done, one.refused, attempts=row.attempts)
            return [message]
        if message is not None and not any(part.startswith(NOTIFY) for part in one.done):
            one.refused = "; ".join(filter(None, (one.refused, f"notify: {NOBODY_LEFT}")))
        _close(run, connection, row, one.done, one.refused)
    return []


def _close(run: Run, connection: Connection, row: Any, done: Mapping[str, Any], refused: str | None) -> None:
    state = actions.DONE if refused is None else actions.REFUSED
    actions.close(connection, row.id, state, done, refused, run_id=run.id, now=run.now)
    if refused is None:
        run.counts.actions_done += 1
        run.tell("acted", contact=row.mautic_id, rule=row.rule)
    else:
        run.counts.actions_refused += 1
        run.counts.failed += 1
        run.tell("refused", contact=row.mautic_id, status=None, reason=f"{row.rule}: {refused}")


# -- messages -------------------------------------------------------------------------------------------------------


@dataclass
class _Message:
    """A text for some addresses, the rest of an action."""

    row: Any
    text: str
    to: tuple[str, ...]
    done: dict[str, Any]
    refused: str | None
    failed: str | None = None


def _message(run: Run, one: _Performed) -> _Message | None:
    """What is left to send, perhaps to nobody."""
    todo = orjson.loads(one.row.todo)
    if "notify" not in todo:
        return None
    to = tuple(to for to in _addresses(run.mappings.action_rules, one, todo) if _part(to) not in one.done)
    return _Message(one.row, todo["notify"], to, one.done, one.refused)


def _addresses(rules: ActionRules, one: _Performed, todo: Mapping[str, Any]) -> list[str]:
    """Whom the message was meant for, as far as any rule still names them; who is gone is replaced by whom its own names."""
    if "notify_to" not in todo:  # stored by a version that kept no digests
        return [to for rule in rules.rules if rule.name == one.row.rule for to in rule.do.notify_to]
    left = [name for name in todo["notify_to"] if f"{NOTIFY}{name}" not in one.done]
    present = {notifications.name_of(to): to for rule in rules.rules for to in rule.do.notify_to}
    found = [present[name] for name in left if name in present]
    its_own = rules.meant(one.row.rule, one.row.occasion, numbered="numbered" in todo)
    if its_own is not None and len(found) < len(left):
        found += [to for to in its_own.do.notify_to if to not in found]
    return found


def _part(address: str) -> str:
    return f"{NOTIFY}{notifications.name_of(address)}"


def _send_messages(run: Run, messages: Sequence[_Message], until: float) -> None:
    """One by one, or in digests for each address when there are more in this run than the mappings want."""
    run.messages += len(messages)
    together = run.messages > run.mappings.action_rules.notify_max
    by_address: dict[str, list[_Message]] = {}
    for message in sorted(messages, key=lambda one: one.row.id):
        for address in message.to:
            by_address.setdefault(address, []).append(message)
    most = LINES_OF_DIGEST if together else 1
    for address, waiting in by_address.items():
        for first in range(0, len(waiting), most):
            if time.monotonic() >= until:
                return
            _send_one(run, address, waiting[first : first + most], digest=together)


def _send_one(run: Run, address: str, batch: Sequence[_Message], *, digest: bool) -> None:
    title, text = _digest(batch) if digest else _single(batch[0])
    error = refused = None
    try:
        notifications.send(address, title, text)
    except ConfigError as wrong:
        refused = str(wrong)
    except notifications.DeliveryError as failed:
        error = str(failed)
    with run.engine.begin() as connection:
        for message in batch:
            if refused is not None:
                message.refused = "; ".join(filter(None, (message.refused, f"notify: {refused}")))
                message.done[_part(address)] = False
            elif error is not None:
                message.failed = error
            else:
                message.done[_part(address)] = True
            _settle_message(run, connection, message)
    if error is not None:
        run.tell("message_failed", count=len(batch), reason=error)


def _settle_message(run: Run, connection: Connection, message: _Message) -> None:
    """Close the action when every address has been dealt with; what failed is tried again by later runs."""
    row = message.row
    if any(_part(address) not in message.done for address in message.to):
        error, attempts = message.refused, row.attempts
        if message.failed is not None:
            error, attempts = f"notify: {message.failed}", row.attempts + 1
        actions.back_to_planned(connection, row.id, _kept(message.done), error, attempts=attempts)
    else:
        _close(run, connection, row, _kept(message.done), message.refused)


def _kept(done: Mapping[str, Any]) -> dict[str, Any]:
    """Without the addresses that could not be sent to: `retry` tries them again."""
    return {part: what for part, what in done.items() if what is not False}


def _single(message: _Message) -> tuple[str, str]:
    return f"mautic-sync: {message.row.rule}", f"{message.text}\n\n[mautic-sync:{message.row.key}]".lstrip()


def _digest(batch: Sequence[_Message]) -> tuple[str, str]:
    lines = [f"- {one.row.rule}: {one.text} [{one.row.key}]" for one in batch]
    how_many = "1 message" if len(batch) == 1 else f"{len(batch)} messages in one"
    return f"mautic-sync: {how_many}", "\n".join(lines)
