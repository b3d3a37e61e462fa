"""Writes `docs/configuration.md` and `docs/commands.md` from the program itself: `make docs`.

A test compares both with the files, so that neither can be forgotten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from mautic_sync.cli import app
from mautic_sync.settings import Settings, env_name, setting_names

HERE = Path(__file__).parent

SETTINGS_HEAD = """# Settings

Precedence: command line > environment > `*_FILE` secrets > TOML file > defaults. The file is `--config`, else
`MAUTIC_SYNC_CONFIG`, else `config/mautic_sync.toml`; `config/mautic_sync.example.toml` explains it line by line. In the
environment each setting is `MAUTIC_SYNC_` + section + `__` + key; lists are JSON there. Any name with `_FILE` at its
end holds the path of a file with the value, for secrets: `MAUTIC_SYNC_MAUTIC__CLIENT_SECRET_FILE=/run/secrets/mautic`.
An unknown name is an error that says which one is nearest. Durations are `90s`, `10m`, `6h`, `400d` or seconds.
`schedule` holds cron expressions ([operations.md](operations.md)). `phone`, `schedule.report` and `web` are checked, but
nothing in this version uses them.

| setting | environment | default | meaning |
|---|---|---|---|
"""

COMMANDS_HEAD = """# Commands

Exit codes:

| code | meaning |
|---|---|
| 0 | done |
| 1 | an error: the sentence on standard error says what to do |
| 2 | usage or configuration: nothing was read or written |
| 3 | safety stop: the plan is stored, look at it and accept it |
| 4 | done in part: something *new* was quarantined, failed or is in doubt, and is kept |
| 5 | another run holds this store, or another worker serves it |
| 130, 143 | stopped by Ctrl-C or SIGTERM: what was done is kept |

With `--json`, standard output holds one JSON document and nothing else; logs go to standard error. A command that ends
in an error prints `{error, exit_code}` in place of its own document, the sentence and the code as above; a safety stop
also `safety_stop` (why), `plan` (what `--accept` takes; null where Mautic was set back) and `planned` (what that plan
holds: `changes, contacts, moves [{from, to, count}], kinds, actions, …` as in `plan`). Where it ended a run, `run_id` and
`summary` tell what that had done by then, as `sync` does; not where the store itself failed or a signal ended it.
Credits are spent by `sync`, `run`, `retry` and `validate` alone.

Changes, wherever they are listed, have in `new` what shall be there, and in `old` what was; `target` says of what:

| target | keys of `new` |
|---|---|
| `contact` | `stage`; `fields` (null: emptied); `tags`, with `-` before those that go |
| `dnc:CHANNEL` | `reason` of the do-not-contact: 1 unsubscribed, 2 bounced, 3 manual, null for none |
| `points` | `points`: our score, as far as it is granted then; `delta`: what Mautic receives |
| `groups` | `groups`: sub-scores by point group |

Others are for ourselves, and never sent: `verdict` tells by which verdict tags and do-not-contact change, `epoch` which Mautic the groups
are of (it rises when Mautic or the store is set back to a backup), `undoes` the run that is taken back, and `flags` what was decided and goes back with the tags, so that the next run agrees with
them: `hot`, `low_value` and `when:NAME` (the condition of an action), with `-` before those that go.
"""

DOCUMENTS = {
    "sync": "`--json`: `run_id, started_at, seconds, pulled {contacts, activities, calls}, kinds {ghost, lead, customer}, "
    "transitions [{from, to, count}]` (stages; settled in this run)`, validated {credits, accept, hold, reject, cached}, "
    "pushed {stages, points, groups, fields, dnc, calls}, actions {done, refused, pending}, merged, reconciled` (lines that the ledger was given because Mautic's points log has them: after a restore, or found by a full run)`, vanished, quarantined, failed, doubtful, uploads {open, addresses, doubtful}` (files at ZeroBounce)`, pending, "
    "pending_eta_seconds` (of writing)`, pending_runs, pending_in_window, load {most, lowest, lowered}` (requests in flight: the cap, the fewest, how often halved). With `--dry-run`, and with `push.enabled = false`, the document of `plan`.",
    "undo": "`--json`: as `sync` for what was written, and `undoes, dry_run, changes, contacts, actions_taken_back, listed [{contact, target, "
    "old, new, reason, state, points}], left_alone {count, listed [{contact, what, why}]}, cannot_be_undone {count, listed [{contact, rule, "
    "done}]}, unwritten` (planned, for the next run)`, held`. Asks on a terminal, else wants `--yes`. Exit code 4: something failed or is in doubt.",
    "release": "`--json`: `released`; without anybody named: `held, listed [{contact, since, run_id, undone}]`.",
    "backup": "`--json`: `file, mautic, made_at, schema, rows, tables, bytes`. The file is readable for its owner alone, and takes the place of "
    "an older backup of that name when it is whole.",
    "restore": "`--json`: as `backup`. Exit code 1: the store is not empty, or the file is none of ours, newer, or damaged; nothing was changed. "
    "5: a run holds the store.",
    "retry": "`--json`: as `sync`, and `retried {writes, contacts, rows, actions, outdated, unneeded, addresses}, failed_again` (`outdated`: actions that were let go, because what set them off holds no more; `unneeded`: writes that were, because Mautic shows by now what is wanted); with `--discard`: `discarded`.",
    "plan": "`--json`: `plan_id, as_of, changes, pending_eta_seconds, pending_runs, pending_in_window, contacts, moves [{from, to, count}]` (kinds; "
    "`from` is the name of a stage that `stages.yaml` does not name, or null for none)`, kinds, "
    "actions [{rule, count}]` (what is due, or would be)`, verdicts_needed, verdicts_to_buy, start {points, triggers [{id, name, "
    "points, published}], unknown}` (until points have begun)`, listed [{contact, target, old, new, reason, state, points}]` (`points`: all that Mautic shows now; of the target `points`, `old` and `new` hold our score as far as it was granted, and `delta` what Mautic receives)`, held, refused` (contacts to whom something could not be written: `quarantine`)`, quarantined, "
    "gate_open` (there is no ZeroBounce key: addresses count as accepted)`, warnings` (what looks odd in the rules)`, lacking` (what the rules write and `init` has yet to create, or what is `(unpublished)` in Mautic: a sync refuses to begin without it)`, safety_stop` (why a sync would stop and wait for `--accept`; null where it would go on). "
    "Beside them stands what `sync` prints: how much was read; what was not done is 0 or empty.",
    "explain": "`--json`: `id, kind, stage, score, reason, rule, trace, waiting, due_at` (when time alone could change anything of it)`, rules, in_mautic, left_alone, held {since, run_id, undone}, "
    "verdict {outcome, status, sub_status, did_you_mean, at, fresh, needed, not_asked}` (`not_asked`: why nobody asks for one that would matter: `low_value`, `only_if`, `no_key`; else null)`, points {score, groups, groups_in_mautic, hot, low_value, conditions, account [{group, rule, points, before_decay, times, first_day, last_day, evidence, expires_at}], cut_off` (the exact sum of each group whose score is another number)`, granted, opening, mautic, ledger [{at, delta, reason, granted}]` (the last 20 lines; `granted` beside them is the sum of all grants)`}, identity, activity, folded {activities, not_counted}, "
    "actions [{rule, state, todo, at, key, error}], last_write, refused [{target, new, error, at}]` (what Mautic did not take)`.",
    "hot": "`--json`: `total, groups, outdated, not_counted, hot [{id, name, email, company, phone, score, points, fit, interest, groups, reasons, reasons_untold` (rules that give points beside the three of `reasons`)`, since, owner, "
    "link}]`. `--csv` has the same columns, one for each group of `scoring.yaml` in the place of `fit`, `interest` and `groups`, and none for `reasons_untold`, in UTF-8 without a byte order mark: in Excel, Data > From Text/CSV opens it with its umlauts; "
    "text that a spreadsheet would take for a formula, or for a number without its `+`, its first `0` or its last digits, begins with `'`, as phone numbers like `'+49 30 1` do. "
    "`score`, its groups and `reasons` are those of now by the rules of now; `outdated` tells of how many the score was another one when they were decided: `sync` decides anew; `not_counted` names what rules that were written since ask of activity, and no run has counted yet. `score` is ours, `points` are all that Mautic shows, its own included. `since` is when we first saw it, `owner` the id of the Mautic user whom the contact belongs to, as last read.",
    "status": "`--json`: `mautic, healthy, health, kinds, worker {alive, host, pid, run, started_at, seen_at, active_at, stopped_at}, "
    "schedule {sync, full_sync: {cron, time_zone, last_success, next, misfires, last_misfire}}, rules {fingerprint, kept_at, "
    "broken {since, reason}}, runs, cursors, pending, pending_eta_seconds, pending_runs, pending_in_window, quarantined, failed, held, "
    "actions {pending, refused}, credits, uploads [{upload, file, file_id, state, addresses, waiting, at, error, question}]`; `worker`, "
    "`broken` and `question` may be null: a question is asked where a file is in doubt and a person has to look. With a run: `run_id, command, started_at, ended_at, exit_code, summary, changes [{contact, target, old, "
    "new, reason, state, points}]`; `exit_code` is null while it runs, and when it was killed. With `--healthy`: `healthy, reason`. "
    "[operations.md](operations.md)",
    "run": "Needs a service manager or a container around it: [operations.md](operations.md).",
    "quarantine": "`--json`: `quarantined [{id, source, key, reason, first_at, last_at, times, excerpt}], failed [{id, contact, target, "
    "new, error, at, times}], actions [{id, contact, rule, todo, done, error, at, times}]`.",
    "validate": "`--json`: `verdicts [{address, outcome, status, sub_status, did_you_mean, source, at}], credits`.",
    "init": "`--json`: `mautic, version, user, config, created [{what, name}], present [{what, name, amiss}]` (`amiss`: a "
    "segment that filters another stage or tag than `fields.yaml` says, and what to do; else null); asks nothing.",
    "doctor": "`--json`: `ok, counts {ok, warning, failed, skipped}, checks [{id, title, state, told, fix, facts}]`; each "
    "check is explained in [doctor.md](doctor.md). Exit code 0: nothing failed, whatever the warnings; 1: something did; "
    "2: it is settings or mappings.",
    "check": "`--json`: `ok, stages [{stage, kind, weight}], warnings`; where something is wrong `ok` (false) and `problems "
    "[{file, line, key, text}]`, of which `file`, `line` and `key` are null for what stands in no file of rules.",
    "test-rules": "`--json`: `ok, tests, failed, files [{file, tests, failures [{name, line, expectations [{key, expected, "
    "got, why}]}]}]`. Exit code 0: all hold; 1: some do not; 2: they cannot be read, and `--json` tells it as that of `check`.",
}


def settings_page() -> str:
    """The table of all settings."""
    rows = []
    for name, field in setting_names().items():
        section, _, key = name.rpartition(".")
        default = field.get_default(call_default_factory=True) if not section else None
        if section:
            model: Any = Settings.model_fields[section].annotation
            default = model.model_fields[key].get_default(call_default_factory=True)
        rows.append(f"| `{name}` | `{env_name(name)}` | {_shown(default)} | {field.description} |")
    return SETTINGS_HEAD + "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if hasattr(value, "total_seconds"):
        seconds = int(value.total_seconds())
        for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
            if seconds % size == 0:
                return f"`{seconds // size}{unit}`"
        return f"`{seconds}s`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def commands_page() -> str:
    """Every command with its arguments and options."""
    parts = [COMMANDS_HEAD]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        parts.append(f"\n## mautic-sync {name}\n\n{_paragraph(command.help or '')}\n")
        rows = []
        for parameter in command.params:
            if "--help" in parameter.opts:
                continue
            label = (
                parameter.metavar or parameter.name.upper()
                if parameter.param_type_name == "argument"
                else ", ".join(parameter.opts)
            )
            rows.append(f"| `{label}` | {_paragraph(parameter.help or '')} |")
        if rows:
            parts.append("\n| | |\n|---|---|\n" + "\n".join(rows) + "\n")
        if name in DOCUMENTS:
            parts.append(f"\n{DOCUMENTS[name]}\n")
    return "".join(parts)


def _paragraph(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    (HERE / "configuration.md").write_text(settings_page(), encoding="utf-8")
    (HERE / "commands.md").write_text(commands_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
