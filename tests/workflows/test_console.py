"""Lines and bars share a terminal, times are estimated from results, tables lose nothing, and names steer nothing."""

import io
import os
import re
import subprocess
import sys
import time

import pytest
from builders import class_folders, write_files
from conftest import REPOSITORY, run_alexnet

from workflows import console, processes
from workflows.console import Console, Pace, duration, size, table, tell, visible

EVIL = "red\x1b[31m\r\n\x07\x9b2J\x7f\u202egnp.\u2066"
SHOWN = r"red\u001b[31m\r\n\u0007\u009b2J\u007f\u202egnp.\u2066"
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Screen(io.StringIO):
    """A terminal, as far as progress bars use one."""

    def isatty(self):
        return True

    @property
    def rows(self) -> list[str]:
        rows, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|.|\n", self.getvalue()):
            if part == "\n":
                row, column = row + 1, 0
                rows += [""] * (row == len(rows))
            elif part == "\r":
                column = 0
            elif part == "\x1b[2K":
                rows[row] = ""
            elif part == "\x1b[1A":
                row -= 1
            elif not part.startswith("\x1b"):
                rows[row] = rows[row][:column].ljust(column) + part + rows[row][column + 1 :]
                column += 1
        return [row.rstrip() for row in rows if row.strip()]


@pytest.fixture
def screen(monkeypatch) -> Screen:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    return Screen()


def test_lines_printed_during_a_bar_stand_alone_and_the_bar_leaves_nothing(screen):
    out = Console(screen)
    out.say("before")
    with out.progress("train", 100, "images") as progress:
        for epoch in (1, 2):
            progress.update(50 * epoch, "loss 2")
            time.sleep(0.3)  # the bar moves
            assert screen.rows[-1].startswith("train ━")
            out.say(f"epoch {epoch} [bold] {EVIL}")
    out.say("after")
    assert screen.rows == ["before", *(f"epoch {n} [bold] {SHOWN}" for n in (1, 2)), "after"]


def test_a_bar_of_large_numbers_fits_a_terminal_of_80_columns(screen):
    with Console(screen).progress("train", 115_305_030, "images") as progress:
        progress.update(12_345_678)
        time.sleep(1.1)
        progress.update(12_345_729, "loss 6.912")
        time.sleep(0.3)
        (row,) = screen.rows
    assert len(row) <= 80
    assert re.match(r"train ━+╺?━+ +12345729/115305030 [\d.]+ images/s \d+ d \d+ h left loss 6\.912$", row), row


def test_a_rate_begins_with_the_first_result_and_forgets_what_is_long_ago():
    """Ray's start, and 36 min of estimate for 100 s of work."""
    pace = Pace()
    assert pace.per_s is None
    pace.add(10, 1000.0)
    assert pace.per_s is None
    pace.add(20, 1000.1)  # the other worker, which began at the same moment
    assert pace.per_s is None
    pace.add(30, 1010)
    assert pace.per_s == pytest.approx(2)
    for second in range(200):
        pace.add(30 + 5 * second, 2000 + second)
    assert pace.per_s == pytest.approx(5)


def test_a_rate_of_rare_results_is_still_known():
    pace = Pace()
    for hour in range(100):
        pace.add(7200 * hour, 3600 * hour)
    assert pace.per_s == pytest.approx(2)


def test_plain_lines_say_how_long_it_will_take(monkeypatch):
    monkeypatch.setattr(console, "PLAIN_LINE_EVERY_S", 0)
    stream = io.StringIO()
    with Console(stream).progress("ingest", 1000, "images", done=100) as progress:
        time.sleep(0.5)  # Ray starts
        progress.update(200)
        time.sleep(1.1)
        progress.update(310, "fine")
    first, second = stream.getvalue().splitlines()
    assert first == "  ingest: 200/1000 images, time left unknown"
    rate, left = re.fullmatch(r"  ingest: 310/1000 images, ([\d.]+) images/s, (\d+) s left, fine", second).groups()
    assert 50 < float(rate) <= 100
    assert float(left) == pytest.approx(690 / float(rate), abs=1)


def test_a_warning_is_said_once():
    stream = io.StringIO()
    out = Console(stream)
    for text in ("a", "b", "a"):
        out.say_once(text)
    assert stream.getvalue() == "a\nb\n"


def test_durations_and_sizes():
    assert [duration(s) for s in (0.4, 59.6, 3599.4, 7500, 200_000)] == [
        "0 s", "1 min 00 s", "59 min 59 s", "2 h 05 min", "2 d 7 h",
    ]  # fmt: skip
    assert [size(n) for n in (0, 999, 3_400_000, 138e9)] == ["0 bytes", "999 bytes", "3.4 MB", "138.0 GB"]


ROWS = [
    ["stage", "key", "why"],
    ["ingest", "0123456789abcdef" * 2, "train 2,993, val 498; 10 classes, 14 shards, 12.3 MB, 9 set aside " * 3],
    ["日本", EVIL, "short"],
]


def test_a_piped_table_is_plain_whole_and_aligned():
    lines = table(ROWS)
    assert len(lines) == 4
    assert lines[2] == f"ingest  {ROWS[1][1].ljust(len(SHOWN))}  {ROWS[1][2].strip()}"
    assert lines[3] == f"日本    {SHOWN}  short"
    assert all(line.isascii() for line in lines[:3])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_on_a_terminal_wraps_its_last_column_and_cuts_nothing(screen, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", screen)
    lines = table([ROWS[0], *(row[:2] + [row[2].strip()] for row in ROWS[1:])])
    assert all(len(line) <= max(width, len(SHOWN) + 9) for line in lines)
    text = " ".join(" ".join(lines).split())
    assert ROWS[1][1] in text
    assert SHOWN in text
    words = re.findall(r"\S+", ROWS[1][2])
    assert [word for word in text.split() if word in words] == words


def test_what_steers_a_terminal_is_shown_and_what_is_text_stays(capsys):
    assert visible(EVIL) == SHOWN
    for text in ("naïve café", "日本語 한국어", "שלום عليكم", "👩‍👩‍👧 🐱", "a\\b $_^", "क्षि"):
        assert visible(text) == text
    assert visible(os.fsdecode(b"caf\xe9") + "\u2028\ud800") == r"caf\xe9\u2028\ud800"
    tell(EVIL, "second")
    assert capsys.readouterr().out == f"{SHOWN}\nsecond\n"


@pytest.mark.parametrize(
    "argv",
    [
        ["plan", f"--set=ingest.source=/no/{EVIL}"],
        ["plan", f"--set={EVIL}=1"],
        ["plan", f"--set=train.epochs={EVIL}"],
        ["plan", f"--config={EVIL}"],
        ["plan", f"--recipe={EVIL}"],
        ["plan", "--set=ingest.source=source", "--set=ingest.val_fraction=0"],
        ["status", f"--set=recipe={EVIL}"],
        ["train", "--set=ingest.source=good", f"--root={EVIL}"],
        ["verify", "--set=ingest.source=good", f"--root={EVIL}"],
        ["config", f"--set=ingest.source={EVIL}"],
        ["clean", "--set=ingest.source=good", "--root=runs"],
        ["predict", f"--model={EVIL}", "image.jpg"],
        ["predict", f"--root={EVIL}", "image.jpg"],
    ],
    ids=lambda argv: visible(" ".join(argv)[:30]),
)
def test_no_command_sends_a_name_to_the_terminal_as_it_is(tmp_path, argv):
    evil = EVIL.replace("\n", "")
    write_files(tmp_path / "good", class_folders())
    write_files(tmp_path / "source" / "train", class_folders())
    write_files(tmp_path / "source" / "val", class_folders(classes=(evil,)))
    (tmp_path / "runs" / "ingest" / evil).mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "workflows.cli", *argv]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, check=False)
    said = (done.stdout + done.stderr).decode()
    assert "Traceback" not in said
    assert not CONTROLS.search(said), said
    assert "31m" in said or argv[0] in ("status", "clean")


def test_nobody_else_prints():
    """Only the place that escapes."""
    for path in (REPOSITORY / "workflows").rglob("*.py"):
        if path.name != "console.py" and "bench" not in path.parts:
            assert not re.search(r"(?<!\w)print\(|print_exc|std(out|err)\.write", path.read_text()), path


def test_a_printed_configuration_with_controls_is_taken_back(tmp_path):
    printed = run_alexnet("config", f"--set=ingest.source={EVIL}", "--recipe=demo", cwd=tmp_path).stdout
    (tmp_path / "mine.toml").write_text(printed)
    assert run_alexnet("config", "--config=mine.toml", cwd=tmp_path).stdout == printed


def test_a_process_is_known_by_its_start_and_a_zombie_is_none():
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = processes.process_start(sleeper.pid)
    code = f"from workflows.processes import process_start; print(process_start({sleeper.pid}))"
    for _ in range(3):  # seen by other processes too
        seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
        assert float(seen.stdout) == started > 0
    sleeper.communicate(b"\n")
    assert processes.process_start(sleeper.pid) == 0
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet buried
    assert processes.process_start(zombie.pid) == 0
    zombie.wait()
