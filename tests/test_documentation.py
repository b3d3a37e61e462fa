"""The documentation cannot rot: what the program has is documented, and what is documented exists."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import typer

from mautic_sync.cli import app
from mautic_sync.cli.logs import ERRORS, WARNINGS
from mautic_sync.doctor import CHECKS
from mautic_sync.domain.undoing import UNDOES
from mautic_sync.settings import load_settings, setting_names

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md", ROOT / "mappings" / "README.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_settings_and_commands_is_what_the_program_says():
    reference = _reference()
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == reference.settings_page(), "make docs"
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == reference.commands_page(), "make docs"


def _keys(of: ast.expr) -> set[str]:
    return {one.value for one in of.keys if isinstance(one, ast.Constant)} if isinstance(of, ast.Dict) else set()


def _keys_of_changes(path: Path) -> set[str]:
    """What a module puts into `new` of a change: third of `Change(…)`, and what is called `new` or `after`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Change":
            found |= _keys(node.args[2])
        elif isinstance(node, ast.Assign):
            for to in node.targets:
                if isinstance(to, ast.Name) and to.id in {"new", "after"}:
                    found |= _keys(node.value)
                elements = (
                    zip(to.elts, node.value.elts, strict=True)
                    if isinstance(to, ast.Tuple) and isinstance(node.value, ast.Tuple)
                    else [(to, node.value)]
                )
                for one, _ in elements:
                    if (
                        isinstance(one, ast.Subscript)
                        and isinstance(one.value, ast.Name)
                        and one.value.id in {"new", "after"}
                        and isinstance(one.slice, ast.Constant)
                    ):
                        found.add(one.slice.value)
    return found


def test_every_key_of_a_change_is_documented():
    package = ROOT / "mautic_sync"
    files = (package / "domain" / "plan.py", package / "domain" / "undoing.py", package / "pipeline" / "decide.py")
    keys = {UNDOES}.union(*map(_keys_of_changes, files))
    assert keys >= {"stage", "fields", "tags", "reason", "points", "delta", "groups", "flags"}
    told = _reference().COMMANDS_HEAD
    assert {key for key in keys if f"`{key}`" not in told} == set()


def test_every_setting_stands_in_the_example_with_its_default(tmp_path: Path):
    """Each commented line of the example is a setting and, uncommented, a valid file; nothing is missing."""
    example = (ROOT / "config" / "mautic_sync.example.toml").read_text(encoding="utf-8")
    uncommented = re.sub(r"""^# (\w+ = ["\[\dtf])""", r"\1", example, flags=re.MULTILINE)
    parsed = tomllib.loads(uncommented)
    named = {
        f"{section}.{key}" if isinstance(values, dict) else section
        for section, values in parsed.items()
        for key in (values if isinstance(values, dict) else [""])
    }
    assert named == set(setting_names())
    (tmp_path / "all.toml").write_text(uncommented, encoding="utf-8")
    load_settings(tmp_path / "all.toml")


def test_every_command_option_tells_what_it_does():
    for name, command in typer.main.get_command(app).commands.items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_documented_exists(page: Path):
    named = set(re.findall(r"`?mautic-sync ([a-z]+)[ `]", page.read_text(encoding="utf-8")))
    assert named - {"is", "itself", "does", "reads", "keeps"} <= set(typer.main.get_command(app).commands)


def test_the_readme_explains_in_the_order_that_a_newcomer_needs():
    headings = re.findall(r"^#+ (.+)$", README, flags=re.MULTILINE)
    assert headings[:5] == [
        "mautic-sync",
        "Two commands",
        "What marketers see",
        "Change a rule",
        "Install against a real Mautic",
    ]


def test_every_check_of_the_doctor_is_explained_and_every_one_explained_exists():
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", page, flags=re.MULTILINE)) == {check.id for check in CHECKS}
    assert len({check.id for check in CHECKS}) == len({check.title for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} → {target}"


# -- the log and the exit codes

NOT_TOLD = {"run", "exc_info"}  # every line names its run; an exception is shown as `exception`


def _told() -> dict[str, set[str]]:
    """Event → the facts that any place in the program tells with it."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "mautic_sync").rglob("*.py"):
        if {"domain", "sandbox"} & set(path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in {"tell", "_tell", "tell_once"} and isinstance(node.args[0].value, str):
                facts = {one.arg for one in node.keywords if one.arg is not None} - NOT_TOLD
                found.setdefault(node.args[0].value, set()).update(facts)
    return found


def test_every_event_of_the_log_is_documented_with_its_level_and_facts():
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| .+ \|$", page, flags=re.MULTILINE)
    documented = {event: set(re.findall(r"`(\w+)`", facts)) for event, _, facts in rows}
    told = _told()
    assert len(told) > 30
    assert set(documented) == set(told)
    for event, facts in told.items():
        assert facts <= documented[event], event
    for event, level, _ in rows:
        assert level == ("error" if event in ERRORS else "warning" if event in WARNINGS else "info"), event
    assert set(told) >= WARNINGS | ERRORS


def _exit_codes() -> set[int]:
    """Of every error class, and of every place that names one."""
    found = {0, 1}
    for path in (ROOT / "mautic_sync").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found |= {int(code) for code in re.findall(r"exit_code = (\d+)$", text, flags=re.MULTILINE)}
        found |= {int(code) for code in re.findall(r"code = (\d+)\b", text)}
        found |= {int(code) for code in re.findall(r"Exit\((\d+)\)", text)}
        found |= {int(code) for code in re.findall(r"return (\d+) if counts\.", text)}
    return found


def test_every_exit_code_is_documented():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    table = page[: page.index("With `--json`")]
    documented = {
        int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, flags=re.MULTILINE) for code in cell.split(",")
    }
    assert _exit_codes() == documented


# -- the shape of the house


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def _modules(package: str) -> list[Path]:
    return sorted((ROOT / "mautic_sync" / package).rglob("*.py"))


def test_the_domain_is_pure():
    """No I/O, no clock, no settings, nothing of the edges."""
    allowed = {"mautic_sync.domain"}
    forbidden = {"time", "os", "requests", "sqlalchemy", "pathlib", "io", "socket", "random", "structlog"}
    for path in _modules("domain"):
        for name in _imports(path):
            if name.startswith("mautic_sync"):
                assert name.startswith(tuple(allowed)) or name == "mautic_sync.errors", f"{path.name} imports {name}"
            assert name.split(".")[0] not in forbidden, f"{path.name} imports {name}"
        assert "datetime.now" not in path.read_text(encoding="utf-8"), path.name


def test_only_mautic_and_zerobounce_speak_http():
    for path in (ROOT / "mautic_sync").rglob("*.py"):
        area = path.relative_to(ROOT / "mautic_sync").parts[0]
        if "requests" in _imports(path):
            assert area in {"mautic", "zerobounce"} or path.name == "demo.py", path


def test_the_sandbox_knows_nothing_of_the_worker():
    for path in _modules("sandbox"):
        for name in _imports(path):
            assert not name.startswith(
                ("mautic_sync.mautic", "mautic_sync.zerobounce", "mautic_sync.domain", "mautic_sync.store")
            ), f"{path.name} imports {name}"


def test_only_the_command_line_prints():
    for path in (ROOT / "mautic_sync").rglob("*.py"):
        if "cli" in path.parts or "migrations" in path.parts:
            continue
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
        assert not calls, path
