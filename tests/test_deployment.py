"""What stands in docker/ fits the program: its settings, its commands, and what the image is built from."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer
import yaml

from mautic_sync.cli import app
from mautic_sync.settings import setting_names

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DOCKER / "compose.override.yml").read_text(encoding="utf-8"))
CRONJOBS = yaml.safe_load((DOCKER / "kubernetes" / "cronjob.yaml").read_text(encoding="utf-8"))["items"]
UNITS = sorted((DOCKER / "systemd").glob("*.service"))
WORKER = "/opt/mautic-sync/venv/bin/mautic-sync"


def pods():
    return [one["spec"]["jobTemplate"]["spec"]["template"]["spec"] for one in CRONJOBS if one["kind"] == "CronJob"]


def environments():
    yield "compose", list(COMPOSE["services"]["mautic-sync"]["environment"])
    for pod in pods():
        yield "kubernetes", [one["name"] for one in pod["containers"][0]["env"]]


def command_lines():
    """Everything after `mautic-sync`, with where it stands."""
    health, default = map(yaml.safe_load, re.findall(r"^(?:HEALTHCHECK .*)?CMD (\[.*\])$", DOCKERFILE, re.MULTILINE))
    assert health[0] == "mautic-sync"
    yield from (("Dockerfile HEALTHCHECK", health[1:]), ("Dockerfile CMD", default))
    for pod in pods():
        yield "kubernetes", pod["containers"][0]["args"]
    for unit in UNITS:
        (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
        program, *words = line.split()
        assert program == WORKER
        yield unit.name, words


@pytest.mark.parametrize(("where", "names"), list(environments()))
def test_every_name_in_an_environment_is_a_setting(where, names):
    known = {"MAUTIC_SYNC_" + name.upper().replace(".", "__") for name in setting_names()}
    assert {name.removesuffix("_FILE") for name in names} <= known, where


@pytest.mark.parametrize(("where", "words"), list(command_lines()))
def test_every_command_that_is_started_exists_with_its_options(where, words):
    command = typer.main.get_command(app).commands[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, where


def test_the_image_is_built_from_the_files_that_it_copies(tmp_path):
    """As the build stage does it: what is copied, and no other file, makes a wheel that works."""
    for sources, target in re.findall(r"^COPY (?!--from)(.+) (\S+)$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            place = tmp_path / target / (source.rpartition("/")[2] if target.endswith("/") else "")
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / source, place)
    (tmp_path / "config" / "mautic_sync.toml").write_text('[mautic]\nclient_secret = "never packed"\n')
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        names = wheel.namelist()
        assert "mautic_sync/packaged/mappings/stages.yaml" in names
        assert "mautic_sync/packaged/config/mautic_sync.example.toml" in names
        assert not any(b"never packed" in wheel.read(name) for name in names)


def test_everything_runs_as_the_one_user_that_the_image_makes():
    (user,) = set(re.findall(r"--uid (\d+)", DOCKERFILE))
    assert f"USER {user}:{user}" in DOCKERFILE
    for pod in pods():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert {str(context[name]) for name in ("runAsUser", "runAsGroup", "fsGroup")} == {user}


def test_the_override_joins_the_web_service_of_mautics_example_and_reads_secrets_from_files():
    service = COMPOSE["services"]["mautic-sync"]
    assert set(service["depends_on"]) == {"mautic_web"}
    assert service["environment"]["MAUTIC_SYNC_MAUTIC__BASE_URL"] == "http://mautic_web"
    assert set(service["secrets"]) == set(COMPOSE["secrets"])
    files = {name: value for name, value in service["environment"].items() if name.endswith("_FILE")}
    assert {Path(path).name for path in files.values()} == set(service["secrets"])
    assert not any(re.search("SECRET|KEY|PASSWORD", name) for name in service["environment"] if name not in files)


@pytest.mark.parametrize("unit", [*UNITS, DOCKER / "systemd" / "mautic-sync-once.timer"], ids=lambda unit: unit.name)
def test_systemd_understands_the_units(unit, tmp_path):
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed here")
    for one in (DOCKER / "systemd").iterdir():
        # The program is not installed on this machine.
        (tmp_path / one.name).write_text(one.read_text(encoding="utf-8").replace(WORKER, "/bin/true"), "utf-8")
    done = subprocess.run([verify, "verify", tmp_path / unit.name], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, told) == (0, [])
