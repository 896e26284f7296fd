"""What a comparison says: means with error bars, differences of pairs, and what was left out of them and why.

Only runs of the same data and the same code are averaged. Where codes differ, that counts which most runs have; data
may differ from arm to arm (an arm may vary them), and then the arms are not compared.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from workflows.engine.provenance import Code, is_alike
from workflows.studies import statistics
from workflows.studies.comparison import Comparison
from workflows.studies.results import MEASURES, Measure, Result

SUMMARY = "summary.json"
Alike = Callable[[Code, Code], bool]


def summarise(comparison: Comparison, results: Sequence[Result], alike: Alike = is_alike) -> dict[str, Any]:
    """The summary as JSON values; errors are shares, time in s. `alike` says whether two codes give the same."""
    kept = _Kept(results, alike)
    names = [arm.name for arm in comparison.arms]
    settings = {arm.name: arm.settings for arm in comparison.arms}
    return {
        "name": comparison.name,
        "recipe": comparison.base.recipe,
        "seeds": list(comparison.seeds),
        "states": dict(Counter(one.state for one in results)),
        "finished": max((one.finished for one in results), default=""),
        "arms": [_arm(name, settings[name], kept) for name in names],
        "pairs": [_pair(first, second, kept) for first, second in combinations(names, 2)],
        "failed": [_named(one, one.reason) for one in results if one.state == "failed"],
        "left_out": [_named(one, reason) for one, reason in kept.left_out],
        "runs": [one.row() for one in results],
        "notes": kept.notes(),
    }


def is_whole(summary: dict[str, Any]) -> bool:
    """Whether every run is done."""
    return set(summary["states"]) == {"done"}


class _Kept:
    """The runs that are averaged, by arm and seed; the others with the reason."""

    def __init__(self, results: Iterable[Result], alike: Alike):
        self.done = [one for one in results if one.is_done]
        self._codes = _classes({code for one in self.done for code in one.codes}, alike)
        self.left_out: list[tuple[Result, str]] = []
        self.code = self._most(self.done, self._code)
        same = [one for one in self.done if self._code(one) == self.code]
        self.data = {
            arm: self._most([one for one in same if one.arm == arm], data_of) for arm in {one.arm for one in same}
        }
        self.by_arm: dict[str, dict[int, Result]] = {}
        for one in self.done:
            if reason := self._reason(one):
                self.left_out.append((one, reason))
            else:
                self.by_arm.setdefault(one.arm, {})[one.seed] = one
        self.wrong_N = cache(Result.wrong_N)

    def _code(self, one: Result) -> frozenset[Code]:
        return frozenset(self._codes[code] for code in one.codes)

    @staticmethod
    def _most(results: list[Result], what: Callable[[Result], Any]) -> Any:
        """What most of them have; of several, what the newest has."""
        counts = Counter(map(what, results))
        newest = {what(one): one.finished for one in sorted(results, key=lambda one: one.finished)}
        return max(counts, key=lambda value: (counts[value], newest[value]), default=None)

    def _reason(self, one: Result) -> str:
        if (code := self._code(one)) != self.code:
            mine, others = (" and ".join(map(str, sorted(codes))) for codes in (code, self.code))
            return f"made by commit {mine}, the others by {others}"
        if data_of(one) != self.data[one.arm]:
            return f"of other data (manifest {one.manifest[:8]}, split {one.split})"
        return ""

    def notes(self) -> list[str]:
        """What a reader must know of code, data and devices."""
        kept = [one for runs in self.by_arm.values() for one in runs.values()]
        codes, libraries = ({value for one in kept for value in getattr(one, of)} for of in ("codes", "libraries"))
        found = []
        if unsure := sorted({str(code) for code in codes if not code.digest and not code.commit.isalnum()}):
            found.append(f"made by {', '.join(unsure)}: whether of the same changes is not known")
        if Code("unknown") in codes:
            found.append("the code is no checkout: whether all runs had the same is not known")
        for first in sorted({self._codes[code] for code in codes}):
            alike = sorted({code.commit.partition("+")[0][:10] for code in codes if self._codes[code] == first})
            if len(alike) > 1:
                found.append(f"commits {', '.join(alike)} differ in nothing that trains or evaluates, and count as one")
        if len(libraries) > len({library.partition(" ")[0] for library in libraries}):
            found.append(f"made with several versions: {', '.join(sorted(libraries))}")
        if len(set(self.data.values())) > 1:
            listed = "; ".join(
                f"{arm}: {manifest[:8]}, {split}" for arm, (manifest, split) in sorted(self.data.items())
            )
            found.append(f"arms are of different data, and those are not compared (manifest, split): {listed}")
        devices = {one.device for one in kept if not one.baseline}  # of baselines no time is told
        if len(devices) > 1:
            found.append(f"some were trained on {' and some on '.join(sorted(devices))}: do not compare their time")
        return found

    def errors_RN(self, runs: Sequence[Result], measure: Measure) -> np.ndarray | None:
        if measure.top is None:
            return None
        return np.stack([self.wrong_N(one, measure.top) for one in runs])


def data_of(one: Result) -> tuple[str, str]:
    """What errors are comparable on."""
    return one.manifest, one.split


def _classes(codes: set[Code], alike: Alike) -> dict[Code, Code]:
    """For each code the first one that gives the same."""
    found: dict[Code, Code] = {}
    for code in sorted(codes):
        found[code] = next((first for first in dict.fromkeys(found.values()) if alike(first, code)), code)
    return found


def _arm(name: str, settings: dict[str, str], kept: _Kept) -> dict[str, Any]:
    runs = list(kept.by_arm.get(name, {}).values())
    manifest, split = kept.data.get(name, ("", ""))
    return {
        "name": name,
        "settings": settings,
        "n": len(runs),
        "seeds": [one.seed for one in runs],
        "manifest": manifest,
        "split": split,
        "views": runs[0].views if runs else "",
        "num_images": runs[0].num_images if runs else 0,
        "parameters": runs[0].parameters if runs else None,
        "measures": {measure.name: _mean(runs, measure, kept).as_json() for measure in _measured(runs)},
    }


def _measured(runs: Sequence[Result]) -> list[Measure]:
    """What all of them have."""
    return [measure for measure in MEASURES if runs and all(measure.name in one.measures for one in runs)]


def _mean(runs: Sequence[Result], measure: Measure, kept: _Kept) -> statistics.Mean:
    values = [one.measures[measure.name] for one in runs]
    images = runs[0].num_images if measure.is_share else None
    return statistics.mean(values, kept.errors_RN(runs, measure), images)


def _pair(first: str, second: str, kept: _Kept) -> dict[str, Any]:
    """Second less first."""
    one, other = kept.by_arm.get(first, {}), kept.by_arm.get(second, {})
    seeds = sorted(one.keys() & other.keys())
    if seeds and kept.data[first] != kept.data[second]:
        return {"first": first, "second": second, "seeds": [], "measures": {}, "note": "other data: not compared"}
    a, b = ([runs[seed] for seed in seeds] for runs in (one, other))
    measures = {measure.name: _difference(a, b, measure, kept).as_json() for measure in _measured([*a, *b])}
    note = "" if seeds else "no seed in common yet"
    return {"first": first, "second": second, "seeds": seeds, "measures": measures, "note": note}


def _difference(a: Sequence[Result], b: Sequence[Result], measure: Measure, kept: _Kept) -> statistics.Difference:
    first, second = ([one.measures[measure.name] for one in runs] for runs in (a, b))
    return statistics.difference(first, second, kept.errors_RN(a, measure), kept.errors_RN(b, measure))


def _named(one: Result, reason: str) -> dict[str, Any]:
    of = {"arm": one.arm, "seed": one.seed, "baseline": one.baseline, "train_key": one.train_key}
    return {**of, "reason": reason}
