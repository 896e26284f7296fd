"""Arms of a comparison: what each changes of the common configuration, as the command line says it.

    --vary net.normalisation=true,false     an arm for each value; several of them: for each combination
    --arm wide:net.fc=1024,1024,train.lr=.005
    --arm "Fisher vectors:baseline=fisher,fisher.passes=4"     a baseline on the same images, without a network

A value with commas in it is written in brackets or quotes where it is varied: net.fc=[256,256],[512,512].
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from workflows.config import BASELINES, RECIPE, RunConfig, UsageError, keys, nearest, unknown, with_values

BASELINE = "baseline"  # what an arm may set beside keys: that it is no network, but this baseline
SEEDS_OF_A_NETWORK = ("train.seed", "loader.seed")  # weights and dropout; order and augmentation
SEEDS = (*SEEDS_OF_A_NETWORK, *(f"{name}.seed" for name in BASELINES))
SECTIONS = ("ingest", "loader", "net", "train", "evaluate")  # what an arm may change
OF_A_BASELINE = ("ingest", "evaluate")  # and the section of its name
MAX_NAME_CHARS = 60  # of a comparison
MAX_VALUE_CHARS = 24  # of a value that is an arm's name
OPENING, CLOSING, QUOTES = "([", ")]", "'\""
_SETTING = re.compile(
    rf"\s*(?:{BASELINE}|{'|'.join(SECTIONS)}|{'|'.join(sorted({name.split('.')[0] for name in keys()}))})[.\w]*="
)


@dataclass(frozen=True)
class Arm:
    """One of the things compared: its name, and the values that it sets, by dotted key; `baseline` is one of them."""

    name: str
    settings: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def baseline(self) -> str:
        """The stage that is compared in a network's place; empty of a network."""
        return self.settings.get(BASELINE, "")

    def config(self, base: RunConfig, seed: int) -> RunConfig:
        """The configuration of one of its runs; the seed is that of all chance in it but the stored order's.

        Raises:
            UsageError: Keys or values that do not fit.
        """
        given = {key: value for key, value in self.settings.items() if key != BASELINE}
        seeds = (f"{self.baseline}.seed",) if self.baseline else SEEDS_OF_A_NETWORK
        try:
            return with_values(base, {**given, **dict.fromkeys(seeds, seed)})
        except UsageError as error:
            raise UsageError(f"arm {self.name}: {error}") from error


def arms(varied: Sequence[str], named: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of all --vary and --arm: the product of the varied keys, then the named ones.

    Raises:
        UsageError: One that cannot be read, sets what no arm may set, or has the name of another.
    """
    found = [*_product([_varied(text) for text in varied]), *map(_named, named)] if varied else [*map(_named, named)]
    for arm in found:
        _check(arm)
    names = [arm.name for arm in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two arms are called {twice[0]}: give each value once, and each --arm a name of its own")
    return tuple(found)


def _check(arm: Arm) -> None:
    if arm.baseline not in ("", *BASELINES):
        known = " or ".join(BASELINES)
        raise UsageError(f"arm {arm.name}: baseline={arm.baseline}; use {known}{nearest(arm.baseline, BASELINES)}")
    for key in (key for key in arm.settings if key != BASELINE):
        if key not in keys():
            raise UsageError(f"arm {arm.name}: {unknown(key)}")
        if key in SEEDS:
            raise UsageError(f"arm {arm.name}: {key} is what --seeds sets, the same for all arms")
        _check_section(arm, key)


def _check_section(arm: Arm, key: str) -> None:
    section = key.split(".")[0]
    if key == RECIPE:
        raise UsageError(f"arm {arm.name}: the recipe is the same for all arms: use --recipe NAME")
    if section not in (*SECTIONS, *BASELINES):
        raise UsageError(f"arm {arm.name}: {key} is the same for all arms: use --set {key}=…")
    if arm.baseline and section not in (*OF_A_BASELINE, arm.baseline):
        raise UsageError(f"arm {arm.name}: the baseline {arm.baseline} knows no {key}")
    if section in BASELINES and not arm.baseline:
        raise UsageError(f"arm {arm.name}: {key} is none of a network: with it goes baseline={section}")


def _product(axes: list[tuple[str, list[str]]]) -> list[Arm]:
    leaves = [key.rpartition(".")[2] for key, _ in axes]
    titles = [leaf if leaves.count(leaf) == 1 else key for leaf, (key, _) in zip(leaves, axes, strict=True)]
    found = []
    for choice in itertools.product(*(enumerate(values, 1) for _, values in axes)):
        parts = [_title(title, number, value) for title, (number, value) in zip(titles, choice, strict=True)]
        settings = {key: value for (key, _), (_, value) in zip(axes, choice, strict=True)}
        found.append(Arm(" ".join(parts), settings))
    return found


def _title(title: str, number: int, value: str) -> str:
    """`lr=.01`; for long values their number: `schedule 2`."""
    return f"{title}={value}" if len(value) <= MAX_VALUE_CHARS else f"{title} {number}"


def _varied(text: str) -> tuple[str, list[str]]:
    """KEY=V1,V2 as the key and its values."""
    key, equals, said = text.partition("=")
    values = [_unquoted(part) for part in split(said, f"--vary {text}")]
    if not equals or not all(values):
        raise UsageError(f"--vary {text}: write it as KEY=VALUE,VALUE, such as train.lr=.01,.005")
    return key.strip(), values


def _named(text: str) -> Arm:
    """NAME:KEY=V,KEY=V as an arm; a comma that no KEY= follows belongs to the value before it."""
    name, _, said = text.partition(":")
    if not name.strip() or "=" in name:
        raise UsageError(f"--arm {text}: write it as NAME:KEY=VALUE,KEY=VALUE, or NAME alone to change nothing")
    parts: list[str] = []
    for part in split(said, f"--arm {text}") if said.strip() else []:
        if _SETTING.match(part):
            parts.append(part)
        elif parts:
            parts[-1] += f",{part}"
        else:
            raise UsageError(f"--arm {text}: {part.strip() or 'nothing'} is not KEY=VALUE")
    settings = {key.strip(): _unquoted(value) for key, _, value in (part.partition("=") for part in parts)}
    if len(settings) < len(parts):
        raise UsageError(f"--arm {text}: it sets a key twice")
    return Arm(name.strip(), settings)


def split(text: str, where: str) -> list[str]:
    """Parts between the commas that are in no brackets and no quotes.

    Raises:
        UsageError: Brackets or quotes that do not close; `where` begins the line.
    """
    parts, open_, quote = [""], [], ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in QUOTES:
            quote = char
        elif char in OPENING:
            open_.append(CLOSING[OPENING.index(char)])
        elif char in CLOSING and (not open_ or open_.pop() != char):
            raise UsageError(f"{where}: {char} closes nothing")
        if char == "," and not (quote or open_):
            parts.append("")
        else:
            parts[-1] += char
    if quote or open_:
        raise UsageError(f"{where}: {quote or open_[-1]} is missing at its end")
    return parts


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] in QUOTES and text[0] == text[-1] else text


def default_name(recipe: str, varied: Sequence[str], found: Iterable[Arm]) -> str:
    """A comparison's name where none was given: the recipe, and the keys that are varied, or the arms."""
    words = [text.partition("=")[0].strip().rpartition(".")[2] for text in varied] or [arm.name for arm in found]
    whole = f"{recipe}-{'-'.join(words)}"
    return re.sub(r"[^\w.=-]+", "-", whole)[:MAX_NAME_CHARS].strip("-.")


def require_name(name: str) -> str:
    """A name that can be a folder's. UsageError where it cannot."""
    if not re.fullmatch(r"[\w=-][\w.=-]*", name) or len(name) > MAX_NAME_CHARS:
        raise UsageError(f"--name {name}: use at most {MAX_NAME_CHARS} letters, digits and the signs - _ . =")
    return name
