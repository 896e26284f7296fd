"""`alexnet predict` on photographs-to-be: with the last trained network, a folder's, or a registered one."""

import json
import re

import pytest
from builders import class_folders, write_files
from conftest import run_alexnet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    folder = write_files(tmp_path_factory.mktemp("picture"), class_folders(classes="a", images=1))
    return next(folder.rglob("*.jpg"))


def predicted(root, *argv):
    done = run_alexnet("predict", "--root", root, *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_last_trained_a_folder_and_the_registry_say_the_same(demo_root, picture):
    train = {row["stage"]: row for row in json.loads(run_alexnet("status", "--json", "--root", demo_root).stdout)}
    folder = f"{train['train']['path']}/best"
    last = predicted(demo_root, picture)
    lines = last.splitlines()
    assert lines[0] == str(picture)
    shares = [float(re.match(r" +([\d.]+)%", line)[1]) for line in lines[1:]]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert predicted(demo_root, picture, "--model", folder.replace("/best", "/model")) == last
    best = predicted(demo_root, picture, "--model", folder)
    assert predicted(demo_root, picture, "--model", "models:/alexnet-demo@best") == best


def test_a_model_that_is_none_is_refused(demo_root, picture, tmp_path):
    elsewhere = tmp_path / "mistyped"
    for argv in (
        [picture, "--model", "models:/nobody@best"],
        [picture, "--model", "models:/alexnet-demo@best", "--root", elsewhere],
        [picture, "--model", tmp_path],
    ):
        refused = run_alexnet("predict", "--root", demo_root, *argv)
        assert refused.returncode == 2, refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert not elsewhere.exists()


def test_status_says_where_to_see_the_runs(demo_root):
    said = run_alexnet("status", "--root", demo_root).stdout
    rows = json.loads(run_alexnet("status", "--json", "--root", demo_root).stdout)
    assert all(row["mlflow_run_id"][:8] in said for row in rows)
    assert all(row["mlflow_ui"] in said.splitlines()[-1] for row in rows)
    assert rows[0]["mlflow_ui"].endswith(f"ui --root={demo_root}")


def test_from_a_stage_on_runs_the_rest_alone(demo_root):
    done = run_alexnet("run", "--recipe", "demo", "--root", demo_root, "--from", "evaluate")
    assert [line.split()[:2] for line in done.stdout.splitlines()[2:4]] == [
        ["evaluate", "cached"],
        ["report", "cached"],
    ]
