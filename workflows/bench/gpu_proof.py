"""All that only a machine with a GPU can show, in one sitting: `make gpu-proof`.

The machine, the tests marked `gpu`, the demo killed twice against the demo left alone, how fast loaders and trainers
are: one JSON and one Markdown file. Parts that are done stay done while the code is the same, others begin anew; a part
that lacks a package is passed over and says so. Needs no network, and of this project nothing but its files.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pipelines.storage import Folder
from workflows.bench.common import ROOT, stamped, write_json
from workflows.compute import devices
from workflows.engine.provenance import code_digest
from workflows.training import history

MINUTES = 20
DEMO = ("--recipe", "demo", "--set", "train.device=gpu", "--set", "tracking.uri=off")
KILLED_AFTER = (1, 3)  # epochs of the demo


class Failed(Exception):
    """A part showed that something is wrong."""


@dataclass(frozen=True)
class Part:
    """Something to be shown: what it needs, how long it may take, and what shows it, given a folder and seconds."""

    name: str
    needs: tuple[str, ...]
    limit_s: int
    show: Callable[[Path, float], dict[str, Any]]


def prove(out: Path, minutes: float = MINUTES) -> dict[str, Any]:
    """What was found, by part; `gpu-proof.json` and `gpu-proof.md` in `out` are written after each."""
    ends, code = time.monotonic() + 60 * minutes, code_digest()
    file = out / "gpu-proof.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    parts = before["parts"] if before.get("code") == code else {}
    for part in PARTS:
        if parts.get(part.name, {}).get("state") == "shown":
            continue
        parts[part.name] = _shown(part, out, ends - time.monotonic())
        write_json(file, stamped({"code": code, "parts": parts}))
        (out / "gpu-proof.md").write_text(told(parts))
        print(": ".join(filter(None, (part.name, parts[part.name]["state"], parts[part.name].get("why")))), flush=True)
        if part.name == "machine" and parts["machine"]["state"] != "shown":
            break  # no GPU, nothing to show
    return parts


def _shown(part: Part, out: Path, left_s: float) -> dict[str, Any]:
    if missing := [name for name in part.needs if not _is_here(name)]:
        return {"state": "passed over", "why": f"not installed: {', '.join(missing)}"}
    if left_s < 30:
        return {"state": "passed over", "why": "no time was left; the same command goes on here"}
    folder, began = out / "parts" / part.name, time.monotonic()
    if folder.exists():
        shutil.rmtree(folder)  # what other code made, or half of it, shows nothing of this
    folder.mkdir(parents=True)
    try:
        found = part.show(folder, min(part.limit_s, left_s))
    except Failed as error:
        return {"state": "wrong", "why": str(error)}
    except subprocess.TimeoutExpired:
        return {"state": "passed over", "why": f"not done in {min(part.limit_s, left_s):.0f} s"}
    return {"state": "shown", "seconds": round(time.monotonic() - began, 1), **found}


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def told(parts: dict[str, dict[str, Any]]) -> str:
    """Markdown: a table of the parts, then what each found."""
    lines = ["# What the GPU showed", "", "| part | state | |", "| --- | --- | --- |"]
    lines += [f"| {name} | {part['state']} | {part.get('why', '')} |" for name, part in parts.items()]
    for name, part in parts.items():
        facts = {key: value for key, value in part.items() if key not in ("state", "why")}
        lines += ["", f"## {name}", "", "```", json.dumps(facts, indent=1), "```"] if facts else []
    return "\n".join(lines) + "\n"


def _machine(folder: Path, limit_s: float) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        raise Failed(f"torch {torch.__version__} finds no GPU: `alexnet doctor` says why")
    card = torch.cuda.get_device_properties(0)
    return {
        "card": card.name,
        "count": torch.cuda.device_count(),
        "memory_gib": round(card.total_memory / 2**30, 1),
        "capability": list(torch.cuda.get_device_capability(0)),
        "driver": devices.driver(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "dali": _version_of_dali(),
    }


def _version_of_dali() -> str:
    if not _is_here("nvidia.dali"):
        return "absent"
    import nvidia.dali

    return nvidia.dali.__version__


def _tests(folder: Path, limit_s: float) -> dict[str, Any]:
    """Those marked `gpu`; files that cannot be imported for want of a package count as such, not as failures."""
    report = folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    _run([*command, "--continue-on-collection-errors", "tests"], folder, limit_s, may_fail=True)
    if not report.exists():
        raise Failed(f"pytest wrote no report; see {folder / 'log'}")
    return counted(report)


def counted(report: Path) -> dict[str, Any]:
    """Tests by what became of them. Failed: some failed, or none ran."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    passed, unread, failed = [], [], []
    for case in cases:
        error = case.find("error")
        if error is not None and error.get("message") == "collection failure":
            unread.append(case.get("name"))
        elif error is not None or case.find("failure") is not None:  # an error is of what a test needs
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif case.find("skipped") is None:
            passed.append(case)
    if failed:
        raise Failed(f"{len(failed)} of {len(cases)} tests failed: {', '.join(failed)}")
    if not passed:
        raise Failed(f"no test ran; {len(unread)} files could not be read")
    skipped = len(cases) - len(passed) - len(unread)
    return {"passed": len(passed), "skipped": skipped, "files that could not be read": unread}


def resumed(folder: Path, limit_s: float, settings: tuple[str, ...] = DEMO) -> dict[str, Any]:
    """The demo, killed twice in its training, ends with the weights of the demo that nobody killed."""
    ends = time.monotonic() + limit_s
    run = _alexnet("run", "--until", "train", *settings)
    whole, killed = ([*run, "--root", str(folder / name)] for name in ("whole", "killed"))
    _run(whole, folder, ends - time.monotonic())
    for epoch in KILLED_AFTER:
        _kill_after(epoch, killed, folder / "killed", folder, ends)
    _run(killed, folder, ends - time.monotonic())
    (one,), (other,) = (list((folder / name).glob("train/*/stage.json")) for name in ("whole", "killed"))
    weights, others = (_weights(record) for record in (one, other))
    if weights != others:
        raise Failed("the weights of the training that was killed are others than those of the one that was not")
    return {"killed_after_epochs": KILLED_AFTER, "weights": weights}


def _weights(record: Path) -> dict[str, str]:
    """Digests of the last and the best weights of a training."""
    files = json.loads(record.read_text())["files"]
    return {name: digest for name, digest in files.items() if name.endswith(".safetensors")}


def _kill_after(epoch: int, command: list[str], root: Path, folder: Path, ends: float) -> None:
    """Starts the command and kills it, with all that it started, once its training has reported that epoch."""
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)
    while process.poll() is None and not _has_reached(epoch, root):
        if time.monotonic() > ends:
            _kill(process)
            raise subprocess.TimeoutExpired(command, 0)
        time.sleep(0.05)
    if process.poll() is not None:
        raise Failed(f"the demo ended before epoch {epoch} could be interrupted; see {folder / 'log'}")
    _kill(process)


def _kill(process: subprocess.Popen) -> None:
    """With all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _has_reached(epoch: int, root: Path) -> bool:
    trainings = (Folder.at(place) for place in root.glob("train/*") if place.is_dir())
    return any(point["epoch"] >= epoch for folder in trainings for point in history.read(folder))


def _loader(folder: Path, limit_s: float) -> dict[str, Any]:
    parts = ("ours", "ours_raw", "dali_reader", "dataloader")
    return _bench("loader", folder, limit_s, device="cuda", parts=parts)


def _trainer(folder: Path, limit_s: float) -> dict[str, Any]:
    without_dali = ("ours", "ours_two_ranks", "plain", "ours_tf32", "ours_float32")
    return _bench("trainer", folder, limit_s, parts=() if _is_here("nvidia.dali") else without_dali)


def _bench(name: str, folder: Path, limit_s: float, **options: Any) -> dict[str, Any]:
    """What `alexnet bench NAME` measures, on all cores; in short turns, most of whose time goes into starting."""
    result = folder / "result.json"
    options |= {"threads": len(os.sched_getaffinity(0)), "repeats": 1, "seconds_per_part": 4}
    code = f"from workflows.bench import common, {name}; common.write_json({str(result)!r}, {name}.run(**{options!r}))"
    _run([sys.executable, "-c", code], folder, limit_s)
    return json.loads(result.read_text())


def _run(command: list[str], folder: Path, limit_s: float, may_fail: bool = False) -> None:
    """To the end, in the checkout, with what it says at the end of `log`. Failed where it does."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": path}
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment, start_new_session=True)
    try:
        code = process.wait(max(1, limit_s))
    except BaseException:
        _kill(process)  # or it would go on beside the next part
        raise
    if code and not may_fail:
        last = (folder / "log").read_text().strip().splitlines()[-1:]
        raise Failed(f"exit code {code}: {' '.join(last)}; see {folder / 'log'}")


def _alexnet(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "workflows.cli", *arguments]


WORKFLOW = ("ray", "mlflow", "pyarrow", "nvidia.dali", "torch")
PARTS = (
    Part("machine", ("torch",), 60, _machine),
    Part("tests", ("torch", "pytest"), 420, _tests),
    Part("resume", WORKFLOW, 300, resumed),
    Part("loader", ("torch", "pyarrow", "nvidia.dali", "simplejpeg"), 180, _loader),
    Part("trainer", ("torch",), 300, _trainer),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make gpu-proof", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-proof"), help="folder of the results (default gpu-proof)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="all parts together (default 20)")
    given = parser.parse_args()
    parts = prove(given.out.resolve(), given.minutes)
    print(f"see {given.out / 'gpu-proof.md'}")
    sys.exit(any(part["state"] == "wrong" for part in parts.values()))


if __name__ == "__main__":
    main()
