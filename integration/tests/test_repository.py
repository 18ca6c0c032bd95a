"""What holds for every file of the project, and what ``make clean`` leaves of a checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import processes, tables

ROOT = tables.ROOT
# Registries are found by the machine's own settings: the project names packages, never where they come from.
HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "proxy.golang" + ".org", "deb.debian" + ".org", "index-" + "url")
# Folders of the machines that the project is made on; the same word within a URL or an identity is no place.
PLACES = re.compile(r"(?<![\w.:/-])/(?:work|root)\b")
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|NotImplemented" + r"Error)\b|@[A-Z]+@")
GENERATED = {".venv", ".git", "dist"}


def texts() -> Iterator[tuple[Path, str]]:
    """Every file of the project, by its path below the root."""
    waiting = [ROOT]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path.is_dir():
                is_cache = path.name.endswith("_cache") or path.name in {"__pycache__", ".hypothesis"}
                if path.name not in GENERATED and not is_cache:
                    waiting.append(path)
            # In a work tree beside a checkout, .git is a file that names that checkout.
            elif path.suffix not in {".lock", ".pyc"} and path.name not in GENERATED:
                yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def test_no_file_names_a_registrys_host() -> None:
    assert [str(path) for path, text in texts() for host in HOSTS if host in text] == []


def test_no_file_names_a_place_of_one_machine() -> None:
    assert [f"{path}: {found[0]}" for path, text in texts() for found in PLACES.finditer(text)] == []


def test_no_file_is_unfinished() -> None:
    assert [f"{path}: {found[0]}" for path, text in texts() for found in UNFINISHED.finditer(text)] == []


def test_every_python_file_has_a_docstring_and_a_healthy_size() -> None:
    sources = [(path, text) for path, text in texts() if path.suffix == ".py" and "src" in path.parts]
    assert len(sources) > 50
    assert [str(path) for path, text in sources if not text.startswith('"""')] == []
    assert [str(path) for path, text in sources if text.count("\n") > 350] == []


@pytest.mark.loopback
def test_ci_calls_make_test_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "exec make test"]


@pytest.mark.loopback
def test_make_clean_removes_everything_that_git_ignores(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "packages" / "hbone").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for pattern in (ROOT / ".gitignore").read_text(encoding="utf-8").split():
        name = pattern.replace("*", "hbone")
        for folder in (tmp_path, tmp_path / "packages" / "hbone"):
            # Caches of tools are where the tools are started: at the top.
            if folder == tmp_path or name in {"__pycache__/", "hbone.egg-info/", "dist/"}:
                path = folder / name
                path.mkdir() if name.endswith("/") else path.touch()
    assert len(sorted(tmp_path.rglob("*"))) > len(before) + 8
    done = processes.run(["make", "-C", str(tmp_path), "clean"], stdin=None)
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.loopback
def test_every_target_of_make_is_one_word_and_stands_in_its_help() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"^make (\w+) ", shown, re.M))
    assert {"demo", "test", "lint", "bench", "soak", "clean"} <= named
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert targets is not None
    assert named <= set(targets[1].split())
