"""A comparison's numbers in words, for the terminal and for the page."""

from typing import Any

from workflows.studies.results import HEADLINE
from workflows.studies.statistics import SEEDS_TO_TELL


def share(found: dict[str, Any] | None) -> str:
    """`24.81 % ± 0.32`: a mean share with its standard error; * where that is of the test images."""
    if found is None:
        return "–"
    mark = "*" if found["se_of"] == "test images" else ""
    error = "" if found["se"] is None else f" ± {100 * found['se']:.2f}{mark}"
    return f"{100 * found['mean']:.2f} %{error}"


def headline(summary: dict[str, Any]) -> str:
    """What is compared first: `top-1 error, ten crops`; where arms differ in views, or one has none, without them."""
    views = {arm["views"] for arm in summary["arms"] if arm["n"]}
    return ", ".join([HEADLINE.title, *(views - {""} if len(views) == 1 else ())])


def points(value: float | None, sign: bool = True) -> str:
    """A difference of shares in points of a hundred."""
    return "–" if value is None else f"{100 * value:{'+' if sign else ''}.2f}".replace("-", "−")


def warnings(summary: dict[str, Any]) -> list[str]:
    """What a reader must know beside the numbers: what is missing, failed or left out, and of code and data."""
    states = summary["states"]
    total, done = sum(states.values()), states.get("done", 0)
    lines = [] if done == total else [f"{done} of {total} runs are done"]
    lines += [f"failed: {_run(one)}: {one['reason']}" for one in summary["failed"]]
    lines += [f"left out: {_run(one)}: {one['reason']}" for one in summary["left_out"]]
    if summary["left_out"]:
        outputs = " ".join(map(output_of, summary["left_out"]))
        lines.append(f"`alexnet clean {outputs} --yes`, and the same command makes again what is left out")
    most = max((arm["n"] for arm in summary["arms"]), default=0)
    if 0 < most < SEEDS_TO_TELL:
        lines.append(f"with fewer than {SEEDS_TO_TELL} seeds no difference is called significant")
    return [*lines, *summary["notes"]]


def output_of(run: dict[str, Any]) -> str:
    """`train/KEY`: what a run was trained into, as `clean` takes it; summaries of before know of no baselines."""
    return f"{run.get('baseline') or 'train'}/{run['train_key']}"


def _run(one: dict[str, Any]) -> str:
    return f"{one['arm']}, seed {one['seed']}"
