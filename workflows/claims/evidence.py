"""Evidence: what a claim's comparison came to, as a small file that says where it is from. Weights are no part of it.

`reproduce` writes `<root>/claims/ID-AT.json`. Files of the same form in `notebooks/claims/` were measured elsewhere:
they are read where the root has none of its own.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.storage import Folder
from workflows.claims import averages, measures
from workflows.claims.claim import ATS, Claim
from workflows.claims.made_of import digest_of, made_of
from workflows.claims.measures import Run
from workflows.config import UsageError
from workflows.studies import statistics
from workflows.studies.comparison import Comparison, Member, Plans
from workflows.studies.words import warnings

CLAIMS = "claims"  # folder in the root
ELSEWHERE = Path(__file__).resolve().parents[2] / "notebooks" / "claims"
FORM = 1  # of the file; another one is not read
ERRORS = {"top1_error_views": 0, "top5_error_views": 1}  # of an average, with the column in `averages`
OF_A_RUN = ("arm", "seed", "train_key", "evaluate_key", "manifest", "split", "views", "codes", "device", "finished")
_NEEDED: dict[str, type] = {
    **dict.fromkeys(("claim", "at", "comparison", "setup", "machine", "date"), str),
    **dict.fromkeys(("arms", "pairs", "runs", "codes", "libraries", "manifests", "devices", "notes"), list),
    **{"made_of": dict, "curves": dict, "hours": float},
}


@dataclass(frozen=True)
class Evidence:
    """What a file of evidence holds, and whether it is of this root."""

    facts: Mapping[str, Any]
    path: Path
    is_ours: bool

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

    @property
    def runs(self) -> set[tuple[str, int, str, str]]:
        return keys_of(self["runs"])

    def arm(self, name: str, measure: str) -> dict[str, Any] | None:
        """The mean of a measure over an arm's runs, as studies' statistics say it."""
        found = {arm["name"]: arm for arm in self["arms"]}
        return found[name]["measures"].get(measure) if name in found else None

    def pair(self, pair: tuple[str, str], measure: str) -> dict[str, Any] | None:
        """The difference of a measure (of a ratio's: of its logarithm), the second arm less the first."""
        found = {(one["first"], one["second"]): one for one in self["pairs"]}
        return found[pair]["measures"].get(measure) if pair in found else None


def keys_of(runs: Iterable[Mapping[str, Any]]) -> set[tuple[str, int, str, str]]:
    return {(run["arm"], run["seed"], run["train_key"], run["evaluate_key"]) for run in runs}


def file_name(claim: str, at: str, ending: str = "json") -> str:
    return f"{claim}-{at}.{ending}"


def gather(claim: Claim, at: str, comparison: Comparison, summary: dict[str, Any], root: Path) -> dict[str, Any]:
    """The evidence of a comparison that was made: the runs that its summary averages, and what the claim measures."""
    runs = runs_of(comparison, summary, root)
    rows = [run.row for run in runs.values()]
    made, names = made_of(comparison), claim.measured(at)
    found = {name: _values(name, runs) for name in names}
    return {
        "form": FORM,
        "claim": claim.id,
        "at": at,
        "comparison": comparison.name,
        "recipe": comparison.base.recipe,
        "setup": digest_of(made),
        "arms": [*(_arm(arm, names, found, runs) for arm in summary["arms"]), *_averages(claim, at, runs)],
        "pairs": _pairs(claim, summary, names, found),
        "runs": [{name: row[name] for name in OF_A_RUN} for row in rows],
        "codes": sorted({code for row in rows for code in row["codes"]}),
        "libraries": sorted({library for row in rows for library in row["libraries"]}),
        "manifests": sorted({row["manifest"] for row in rows}),
        "devices": sorted({row["device"] for row in rows}),
        "machine": _machine(),
        "hours": round(sum(row["train_s"] or 0 for row in {row["train_key"]: row for row in rows}.values()) / 3600, 5),
        "date": max((row["finished"] for row in rows), default=""),
        "notes": warnings(summary),
        "curves": _curves(names, runs),
        "made_of": made,
    }


def runs_of(comparison: Comparison, summary: dict[str, Any], root: Path) -> dict[tuple[str, int], Run]:
    """The runs that a summary averages, by arm and seed."""
    kept = {(arm["name"], seed) for arm in summary["arms"] for seed in arm["seeds"]}
    members = {(member.arm.name, member.seed): member for member in comparison.members}
    plans = Plans(root)
    found = {}

    def also(member: Member) -> dict[str, Folder]:
        wanted = [name for name in comparison.also if name in member.stages]
        steps = plans.of(member) if wanted else {}
        return {name: steps[name].output.folder for name in wanted}

    for row in summary["runs"]:
        key = row["arm"], row["seed"]
        if row["state"] == "done" and key in kept:
            member = members[key]
            where = plans.places(member)
            trained = where.output(member.trained_by, row["train_key"]).folder
            evaluated = where.output(member.evaluated_by, row["evaluate_key"]).folder
            found[key] = Run(row, member.config, trained, evaluated, also(member))
    return found


def _values(name: str, runs: dict[tuple[str, int], Run]) -> dict[tuple[str, int], float]:
    """A measure of each arm and seed that has it."""
    if measures.MEASURES[name].of_all:
        return {}
    found = {key: measures.value(name, run) for key, run in runs.items()}
    return {key: value for key, value in found.items() if value is not None}


def _arm(
    arm: dict[str, Any], names: tuple[str, ...], found: dict[str, dict], runs: dict[tuple[str, int], Run]
) -> dict[str, Any]:
    """Its means: those of the comparison, which knows the test images too, where it has them."""
    means: dict[str, Any] = {}
    for name in names:
        of_arm = [value for (of, _), value in found[name].items() if of == arm["name"]]
        if of_all := measures.MEASURES[name].of_all:
            together = of_all([run.evaluated for (of, _), run in runs.items() if of == arm["name"]])
            means |= {name: together.as_json()} if together else {}
        elif of_arm:
            means[name] = arm["measures"].get(name) or statistics.mean(of_arm).as_json()
    shown = {name: arm[name] for name in ("name", "settings", "n", "seeds", "num_images", "parameters")}
    return {**shown, "measures": means}


def _averages(claim: Claim, at: str, runs: dict[tuple[str, int], Run]) -> list[dict[str, Any]]:
    """As arms, the rows of averaged probabilities whose runs are all there."""
    setup = claim.setup(at)
    assert setup is not None, "it has runs"
    found = []
    for name, counts in setup.averages.items():
        chosen = [run for arm, count in counts.items() for run in _first(runs, arm, count)]
        if len(chosen) < sum(counts.values()):
            continue
        means = {measure: averages.error([run.evaluated for run in chosen], top) for measure, top in ERRORS.items()}
        measured = {measure: mean.as_json() for measure, mean in means.items() if mean}
        num_images = chosen[0].row["num_images"]
        shown = {"name": name, "settings": {}, "n": len(chosen), "seeds": [], "num_images": num_images}
        found.append({**shown, "parameters": None, "measures": measured})
    return found


def _first(runs: dict[tuple[str, int], Run], arm: str, count: int) -> list[Run]:
    """An arm's runs of the first so many seeds."""
    return [runs[arm, seed] for seed in range(count) if (arm, seed) in runs]


def _pairs(claim: Claim, summary: dict[str, Any], names: tuple[str, ...], found: dict[str, dict]) -> list[dict]:
    """Each other arm against the first."""
    first, *others = (arm["name"] for arm in summary["arms"])
    known = {(pair["first"], pair["second"]): pair["measures"] for pair in summary["pairs"]}
    pairs = []
    for second in others:
        of_pair = {}
        for name in names:
            if claim.kind != "ratio" and name in known[first, second]:
                of_pair[name] = known[first, second][name]
            elif difference := _difference(claim, found[name], first, second):
                of_pair[name] = difference
        pairs.append({"first": first, "second": second, "measures": of_pair})
    return pairs


def _difference(claim: Claim, values: dict[tuple[str, int], float], first: str, second: str) -> dict | None:
    """By the seeds that both have; of a ratio, that of logarithms."""
    seeds = sorted({seed for arm, seed in values if arm == first} & {seed for arm, seed in values if arm == second})
    of = math.log if claim.kind == "ratio" else float
    one, other = ([of(values[arm, seed]) for seed in seeds] for arm in (first, second))
    return statistics.difference(one, other).as_json() if seeds else None


def _curves(names: tuple[str, ...], runs: dict[tuple[str, int], Run]) -> dict[str, dict[str, Any]]:
    """The curves that the paper draws, by name and arm: of each run its epochs and values."""
    found: dict[str, dict[str, Any]] = {}
    for name in (measures.CURVES[name] for name in names if name in measures.CURVES):
        for (arm, _), run in runs.items():
            epochs, values = measures.curve(run, name)
            found.setdefault(name, {}).setdefault(arm, []).append([epochs, [round(value, 4) for value in values]])
    return found


def _machine() -> str:
    """What kind of machine this is; its name is nobody's business."""
    import platform

    from workflows.compute import machine

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{machine.cpus()} CPUs, {model or platform.machine()}"


def write(found: dict[str, Any], root: Path) -> Path:
    folder = Folder.at(root / CLAIMS)
    name = file_name(found["claim"], found["at"])
    folder.write(name, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return root / CLAIMS / name


def stored(claim: Claim, root: Path, elsewhere: Path = ELSEWHERE) -> tuple[dict[str, Evidence], list[str]]:
    """A claim's evidence by scale, the root's own before that of elsewhere; and what is wrong with files, in lines."""
    found: dict[str, Evidence] = {}
    wrong: list[str] = []
    for at in ATS:
        for folder, is_ours in ((root / CLAIMS, True), (elsewhere, False)):
            path = folder / file_name(claim.id, at)
            try:
                if path.is_file():
                    found[at] = Evidence(read(path, claim.id, at), path, is_ours)
                    break
            except UsageError as error:
                wrong.append(str(error))
    return found, wrong


def read(path: Path, claim: str, at: str) -> dict[str, Any]:
    """What a file of evidence holds. UsageError: it is none of this claim at this scale."""
    try:
        found = json.loads(path.read_text())
        problem = _problem(found, claim, at)
    except (OSError, ValueError) as error:
        problem = str(error)
    if problem:
        raise UsageError(
            f"{path} is no evidence that can be read ({problem}): `alexnet reproduce {claim} --at {at}` makes it anew"
        )
    return found


def _problem(found: Any, claim: str, at: str) -> str:
    if not isinstance(found, dict):
        return "not an object"
    if found.get("form") != FORM:
        return f"its form is {found.get('form')}, not {FORM}"
    if wrong := [name for name, kind in _NEEDED.items() if not _is(found.get(name), kind)]:
        return f"{', '.join(wrong)} missing or of another kind"
    if (found["claim"], found["at"]) != (claim, at):
        return f"it is that of {found['claim']} at {found['at']}"
    if found["setup"] != digest_of(found["made_of"]):
        return "its digest is not that of what it was made of"
    try:
        return _problem_inside(found)
    except (AttributeError, TypeError):
        return "its parts are of another kind"


def _problem_inside(found: dict[str, Any]) -> str:
    """Whether arms, pairs and runs have what is read of them."""
    needed = {
        "arms": ("name", "n", "seeds", "num_images", "measures"),
        "pairs": ("first", "second", "measures"),
        "runs": OF_A_RUN,
    }
    for part, names in needed.items():
        for one in found[part]:
            if not isinstance(one, dict) or any(name not in one for name in names):
                return f"{part} lack {', '.join(names)}"
    means = [mean for one in found["arms"] for mean in one["measures"].values()]
    pairs = [pair for one in found["pairs"] for pair in one["measures"].values()]
    lacks = any({"n", "mean", "se", "se_of", "interval"} - mean.keys() for mean in means)
    if lacks or any({"n", "difference", "se_seeds", "interval_seeds", "significant"} - pair.keys() for pair in pairs):
        return "a measure lacks its numbers"
    return "" if {"versions", "common", "arms"} <= found["made_of"].keys() else "made_of lacks what it is made of"


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)
