"""`sandbox`: a simulated Mautic and ZeroBounce on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mautic_sync.errors import ConfigError


def register(app: typer.Typer) -> None:
    app.command("sandbox")(sandbox_command)


def sandbox_command(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0 = any free one.")] = 8055,
    contacts: Annotated[int, typer.Option("--contacts", min=0, help="How many contacts the world has.")] = 200,
    activities: Annotated[
        float, typer.Option("--activities", min=0, help="How many activities a contact has, about.")
    ] = 5.0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same world.")] = 1,
    empty: Annotated[bool, typer.Option("--empty", help="A fresh Mautic without contacts.")] = False,
    version: Annotated[str, typer.Option("--mautic-version", help="5.1 or 7.0.")] = "5.1",
    faults: Annotated[str | None, typer.Option("--faults", help="A seed, or seed=7,before=0.05,after=0.05,…")] = None,
    cost: Annotated[str, typer.Option("--cost", help="none, or measured: calls take as long as Mautic's.")] = "none",
    credentials: Annotated[Path | None, typer.Option("--credentials", help="JSON file with other credentials.")] = None,
) -> None:
    """Serve a simulated Mautic, and ZeroBounce under /zerobounce, until Ctrl-C."""
    from mautic_sync.sandbox import Sandbox, parse_faults, read_credentials

    try:
        box = Sandbox(
            port=port,
            contacts=contacts,
            seed=seed,
            empty=empty,
            version=version,
            faults=parse_faults(faults) if faults is not None else None,
            cost=cost,
            activities_per_contact=activities,
            credentials=read_credentials(credentials) if credentials is not None else None,
        )
    except OSError as error:
        what = str(credentials) if error.filename else f"port {port} of 127.0.0.1"
        msg = f"{what} cannot be used: {error.strerror}"
        raise ConfigError(msg) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with box:
        print(f"Mautic {version} at {box.url}, ZeroBounce at {box.zerobounce_url}; Ctrl-C ends it.", flush=True)
        box.serve_forever()
