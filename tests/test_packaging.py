"""What is installed is whole: the wheel carries the rules and the example settings."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next(target.glob("*.whl")))


def test_the_wheel_carries_every_rule_and_the_example_as_they_are_in_the_repository(wheel):
    for folder in ("mappings", "config"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.name != "mautic_sync.toml":
                inside = f"mautic_sync/packaged/{path.relative_to(ROOT).as_posix()}"
                assert wheel.read(inside) == path.read_bytes()


def test_the_wheel_carries_every_module_and_no_test(wheel):
    names = set(wheel.namelist())
    for path in (ROOT / "mautic_sync").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names
    assert not any(name.startswith(("tests/", "docs/")) for name in names)


def test_an_installed_worker_finds_its_rules_without_the_repository(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import mautic_sync.cli as c; sys.argv = ['mautic-sync', 'check']; c.main()",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Customer (customer), Lead (lead), Ghost (ghost)" in done.stdout
