"""A result's commit is that of this code: never of a repository that it merely lies in."""

import shutil
import subprocess
import sys
from pathlib import Path

import crash
import pytest

from workflows.engine import provenance


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit, and git as a function."""

    def git(*command: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *who, *command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    git("init", "--quiet")
    git("commit", "--allow-empty", "--quiet", "--message", "theirs")
    return tmp_path, git


def commit_said_in(package: Path) -> str:
    """What the code says that lies there."""
    (package / "engine").mkdir(parents=True, exist_ok=True)
    for folder in (package, package / "engine"):
        (folder / "__init__.py").touch()
    shutil.copy(provenance.__file__, package / "engine")
    code = "from workflows.engine import provenance; print(provenance.code_commit())"
    environment = crash.environment() | {"PYTHONPATH": str(package.parent)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=True).stdout.strip()


def test_in_a_checkout_it_is_the_checkout_s_and_changes_are_said(repository):
    folder, git = repository
    commit_said_in(folder / "workflows")
    git("add", ".")
    git("commit", "--quiet", "--message", "ours")
    assert commit_said_in(folder / "workflows") == git("rev-parse", "HEAD").strip()
    (folder / "workflows" / "__init__.py").write_text("changed = 1\n")
    assert commit_said_in(folder / "workflows") == git("rev-parse", "HEAD").strip() + "+changes"


@pytest.mark.parametrize("place", ["venv/lib/python3.11/site-packages/workflows", "workflows"])
def test_installed_inside_another_repository_it_is_unknown(repository, place):
    folder, _ = repository
    assert commit_said_in(folder / place) == "unknown"


def test_vendored_into_another_repository_it_is_unknown(repository):
    folder, git = repository
    commit_said_in(folder / "third_party" / "workflows")
    git("add", ".")
    git("commit", "--quiet", "--message", "vendored")
    assert commit_said_in(folder / "third_party" / "workflows") == "unknown"


def test_without_any_repository_or_git_it_is_unknown(tmp_path, monkeypatch):
    assert commit_said_in(tmp_path / "workflows") == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code_commit() == "unknown"


def test_commits_are_alike_where_nothing_differs_that_trains_or_evaluates(repository, monkeypatch):
    folder, git = repository

    def commit(name: str) -> str:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
        git("add", ".")
        git("commit", "--quiet", "--message", name)
        return git("rev-parse", "HEAD").strip()

    first, source, net = map(commit, ("model/layers.py", "pipelines/sources/a.py", "model/columns.py"))
    (folder / "workflows" / "engine").mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(folder / "workflows" / "engine" / "provenance.py"))
    old, no_code, new = (provenance.Code(commit) for commit in (first, source, net))
    assert provenance.is_alike(old, no_code)
    assert not provenance.is_alike(no_code, new)
    changed = provenance.Code(f"{net}+changes")
    assert provenance.is_alike(changed, changed)
    for other in (changed, provenance.Code("unknown"), provenance.Code("0" * 40)):
        assert not provenance.is_alike(new, other)


def test_the_code_s_digest_changes_with_what_trains_and_evaluates_and_with_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "workflows" / "engine" / "provenance.py"))

    def after(name: str, text: str) -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return provenance.code_digest.__wrapped__()

    first = after("model/layers.py", "one")
    assert after("README.md", "one") == after("workflows/report/page.py", "one") == first
    assert after("pipelines/sources/cifar.py", "one") == first
    second = after("workflows/training/loop.py", "one")
    assert len({first, second, after("model/layers.py", "two")}) == 3
    assert provenance.is_alike(provenance.Code("a", first), provenance.Code("b+changes", first))
    assert not provenance.is_alike(provenance.Code("a", first), provenance.Code("a", second))
