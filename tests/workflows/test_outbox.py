"""What could not be sent waits in order, in a file that the next start finds, and nobody sends for a living process."""

import json
import os
import subprocess
import sys

import pytest

from workflows.tracking.outbox import END, UNSENT, Away, Outbox, left_behind


def away(operation):
    raise Away("no answer")


def outbox(root, *verbs) -> Outbox:
    made = Outbox(root, "run", "server")
    for verb in verbs:
        made.put({"do": verb})
    return made


def kept(root) -> list[str]:
    return [line.get("do") for path in (root / UNSENT).glob("*") for line in map(json.loads, path.open())][1:]


def test_what_is_sent_leaves_no_file(tmp_path):
    sent = []
    outbox(tmp_path, "a", "b").send(sent.append)
    assert sent == [{"do": "a"}, {"do": "b"}]
    assert not list(tmp_path.iterdir())


def test_what_waits_is_in_the_file_once_and_goes_in_order_later(tmp_path):
    made, sent = outbox(tmp_path, "a", "b"), []
    for verb in ("c", "d"):
        with pytest.raises(Away):
            made.send(away)
        made.put({"do": verb})
    assert kept(tmp_path) == ["a", "b", "c"]
    made.keep()
    assert kept(tmp_path) == ["a", "b", "c", "d"]
    made.send(lambda operation: sent.append(operation["do"]))
    assert sent == ["a", "b", "c", "d"]
    assert not list(tmp_path.iterdir())


def test_after_a_part_was_sent_the_rest_is_kept(tmp_path):
    made, sent = outbox(tmp_path, "a", "b", "c"), []

    def once(operation):
        if sent:
            raise Away
        sent.append(operation["do"])

    with pytest.raises(Away):
        made.send(once)
    made.put({"do": "d"})
    made.keep()
    assert kept(tmp_path) == ["b", "c", "d"]


def test_of_a_living_process_only_closed_runs_are_left_behind(tmp_path):
    made = outbox(tmp_path, "a")
    made.keep()
    assert not list(left_behind(tmp_path, "server"))
    made.put({"do": END})
    made.keep()
    (letters,) = left_behind(tmp_path, "server")
    assert [operation["do"] for operation in letters.operations] == ["a", END]
    assert not list(left_behind(tmp_path, "another server"))
    letters.forget()
    assert not list(tmp_path.iterdir())


def test_of_a_dead_process_everything_is_left_behind_but_half_a_line(tmp_path):
    code = "import pathlib, sys; from test_outbox import outbox; outbox(pathlib.Path(sys.argv[1]), 'a', 'b').keep()"
    path = os.pathsep.join(sys.path)
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{path}"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    (file,) = (tmp_path / UNSENT).iterdir()
    file.write_text(file.read_text() + '{"do": "c", "poi')
    (letters,) = left_behind(tmp_path, "server")
    assert [operation["do"] for operation in letters.operations] == ["a", "b"]


def test_an_empty_file_is_no_obstacle(tmp_path):
    (tmp_path / UNSENT).mkdir()
    (tmp_path / UNSENT / "run.jsonl").touch()
    assert not list(left_behind(tmp_path, "server"))
