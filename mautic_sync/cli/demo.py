"""`demo`: the whole thing against the sandbox, on this machine, without accounts."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import requests
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mautic_sync.cli.common import configure_logs, console, counted
from mautic_sync.cli.passes import make_plan, started
from mautic_sync.mautic.contacts import contacts_after
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.provision import provision
from mautic_sync.pipeline.run import Options, summary, sync
from mautic_sync.settings import Settings

CONTACTS = 300
HOT_SHOWN = 5
SHOWN_PER_KIND = 3


def register(app: typer.Typer) -> None:
    app.command("demo")(demo_command)


def demo_command(
    contacts: Annotated[int, typer.Option("--contacts", min=10, help="How many contacts the world has.")] = CONTACTS,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same world.")] = 1,
) -> None:
    """Show on this machine what mautic-sync does: needs no account and changes nothing outside."""
    from mautic_sync.sandbox import Sandbox

    out = console()
    with (
        tempfile.TemporaryDirectory(prefix="mautic-sync-demo-") as directory,
        Sandbox(contacts=contacts, seed=seed) as box,
    ):
        settings = Settings(
            mautic={"base_url": box.url, "client_id": "sandbox", "client_secret": "sandbox-secret"},
            zerobounce={"api_key": "sandbox-key", "base_url": box.zerobounce_url, "max_per_second": 50},
            store={"url": f"sqlite:///{Path(directory) / 'demo.db'}"},
            mappings={"dir": Path("mappings")},
            log={"level": "error"},
        )
        configure_logs(settings)
        _step(out, "A Mautic as it grows by itself", f"simulated at {box.url}, ZeroBounce beside it")
        with started(settings, "init") as run:
            _before(out, run)
            _step(out, "mautic-sync init", "creates what the rules name, and nothing else")
            made = Counter(one.what for one in provision(run) if one.created)
            out.print("   " + ", ".join(f"{number} {what}s" for what, number in made.items()) + " created")
        _step(out, "mautic-sync plan", "reads everything, writes nothing, spends nothing")
        with started(settings, "plan") as run:
            plan = make_plan(run, contacts * 2)
        _show_plan(out, plan)
        _step(out, "mautic-sync sync", "validates addresses, decides, and writes stages into Mautic")
        with started(settings, "sync") as run:
            sync(run, Options(accept=plan["plan_id"]))
            first = summary(run)
        _show_sync(out, first)
        with started(settings, "look") as run:
            buyer = _after(out, run)
            _step(out, "mautic-sync hot", "who is worth a call, by the rules of mappings/scoring.yaml")
            _show_hot(out, run)
        _step(out, "Something happens", f"contact {buyer}, a lead, buys: the shop's thank-you page is tracked")
        _let_buy(box.url, buyer)
        with started(settings, "sync") as run:
            sync(run, Options())
            second = summary(run)
        moved = ", ".join(f"{move['from']} → {move['to']}" for move in second["transitions"]) or "nothing"
        out.print(
            f"   the next sync read {counted(second['pulled']['contacts'], 'contact')} "
            f"and {counted(second['pulled']['activities'], 'activity', 'activities')} and wrote: {moved}"
        )
        _step(out, "Nothing happens", "so nothing is written")
        with started(settings, "sync") as run:
            sync(run, Options())
            third = summary(run)
        out.print(
            f"   {third['pulled']['calls']} calls, {third['pushed']['calls']} writes, "
            f"{third['validated']['credits']} credits, {third['seconds']:.2f} s"
        )
    out.print()
    out.print('Next: edit mappings/stages.yaml and run this again, or read README.md, "Install against a real Mautic".')


def _step(out: Console, title: str, text: str) -> None:
    out.print()
    out.print(f"[bold]{escape(title)}[/bold]: {escape(text)}")


def _before(out: Console, run: Run) -> None:
    page = contacts_after(run.mautic, 0, 100_000)
    with_address = sum(1 for one in page.contacts if one.fields.get("email"))
    out.print(
        f"   Mautic says: {len(page.contacts)} contacts. {with_address} have an e-mail address; nobody knows which of "
        "those work."
    )


def _show_plan(out: Console, plan: dict[str, Any]) -> None:
    kinds = plan["kinds"]
    out.print(
        f"   so far {kinds['ghost']} ghosts, {kinds['lead']} leads, {kinds['customer']} customers; "
        f"{plan['verdicts_needed']} addresses need a verdict first"
    )
    out.print(f"   {plan['contacts']} contacts would change, plan {plan['plan_id']}")


def _show_sync(out: Console, document: dict[str, Any]) -> None:
    checked, kinds = document["validated"], document["kinds"]
    out.print(
        f"   {checked['credits']} credits: {checked['accept']} addresses accepted, {checked['hold']} held, "
        f"{checked['reject']} rejected"
    )
    out.print(
        f"   {document['pushed']['stages']} stages and the points of {document['pushed']['points']} contacts written "
        f"with {document['pushed']['calls']} calls in {document['seconds']:.1f} s"
    )
    total = sum(kinds.values()) or 1
    for kind, meaning in (
        ("ghost", "an IP address, or an address that does not work"),
        ("lead", "reachable: a checked address, or a phone"),
        ("customer", "has bought"),
    ):
        bar = "█" * round(40 * kinds[kind] / total)
        out.print(f"   {kind:>9} {kinds[kind]:>5}  {bar}  {meaning}")


def _after(out: Console, run: Run) -> int:
    """What marketers see now in Mautic's own contact list, read back from Mautic; returns a lead."""
    from mautic_sync.pipeline.pull import meet_instance, read_instance

    meet_instance(run, adopt=False)
    read_instance(run, fresh=False)
    table = Table("id", "contact", "stage", "why (field sync_reason)", "e-mail", box=None, padding=(0, 2, 0, 0))
    shown: Counter[str] = Counter()
    lead = 0
    for one in contacts_after(run.mautic, 0, 100_000).contacts:
        stage = run.stage_names.get(one.stage_id or 0, "-")
        lead = one.id if stage == "Lead" else lead
        if shown[stage] >= SHOWN_PER_KIND:
            continue
        shown[stage] += 1
        name = " ".join(str(one.fields[part]) for part in ("firstname", "lastname") if part in one.fields)
        table.add_row(
            str(one.id),
            escape(name or str(one.fields.get("email") or one.fields.get("phone") or "anonymous visitor")),
            escape(stage),
            escape(str(one.fields.get("sync_reason", ""))),
            escape(str(one.fields.get("zb_status", ""))),
        )
    out.print()
    out.print("   In Mautic's contact list (a few of each):")
    out.print(table)
    return lead


def _show_hot(out: Console, run: Run) -> None:
    from mautic_sync.pipeline.hot import hot_contacts

    with run.engine.begin() as connection:
        document = hot_contacts(connection, run.settings, run.mappings, run.now, HOT_SHOWN)
    out.print(f"   {document['total']} of the leads are hot" + (", the first of them:" if document["hot"] else ""))
    table = Table("id", "contact", "score", "reasons", box=None, padding=(0, 2, 0, 0))
    for one in document["hot"]:
        table.add_row(str(one["id"]), escape(one["name"]), str(one["score"]), escape(one["reasons"]))
    if document["hot"]:
        out.print(table)


def _let_buy(url: str, contact: int) -> None:
    """A contact reaches the thank-you page of the shop."""
    page = {"do": "visit", "contact": contact, "url": "https://shop.example/order/thank-you"}
    with requests.Session() as session:
        session.trust_env = False
        session.post(f"{url}/_sandbox/act", json=page, timeout=10).raise_for_status()
