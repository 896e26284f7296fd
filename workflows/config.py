"""The configuration of a run: one value, made of the specs that stand beside the code they configure.

Standard library only. Keys are dotted (`train.epochs`); a file is TOML, written with every key's help beside it.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import importlib.util
import json
import math
import tomllib
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from model.networks import KINDS, NetSpec, kind_of, parameter_names
from model.schedules import require_rates
from model.specs import AlexNetSpec, TrainSpec
from pipelines.baselines.specs import FisherSpec, SparseSpec
from pipelines.names import SPLITS, Views
from pipelines.specs import IngestSpec, LoaderSpec
from pipelines.storage import redacted, without_redactions

BASELINES = ("fisher", "sparse")  # sections, and stages, of hand-made features
RECIPE = "recipe"  # the one key that is a name of others, and not set alone
LAST = "config.toml"  # in a root: the resolved configuration of its last run
PATHS = (  # keys that may hold a path
    *("store", "ingest.source", "train.init_from"),
    *("evaluate.models", "evaluate.leave_out", "tracking.uri"),
)
NO_PATHS = ("", "demo", "off")  # values of theirs that mean something else
SCHEMES = ("s3", "gs", "abfs", "hdfs", "file")  # of the object stores and file systems that pyarrow opens
MAX_WHOLE = 2**63  # seeds and counts are 64-bit integers in the libraries below


class UsageError(Exception):
    """The user asked for something that cannot be: one line that says what, where and what to do. Exit code 2."""


@dataclass(frozen=True)
class EvaluateSpec:
    """Which images are tested, and with which weights."""

    split: Annotated[Literal["val", "test", "train"], "split that is tested"] = "val"
    weights: Annotated[Literal["last", "best"], "weights of the last epoch, or of the lowest validation error"] = "last"
    views: Annotated[
        Views,
        "views of an image that are averaged. ten: the paper's corners and centre, mirrored too; nine: a 3x3 grid, as "
        "cuda-convnet tested CIFAR-10; one: the centre, whose error is always measured",
    ] = "ten"
    batch_size: Annotated[int, "images in a batch; each is seen in all views"] = 64
    models: Annotated[
        tuple[str, ...],
        "other models whose probabilities are averaged with the trained one's: folders (of a model, a baseline, or an "
        "evaluation that kept its probabilities), models:/NAME@ALIAS, RECIPE@newest or fisher@newest of the same root",
    ] = ()
    leave_out: Annotated[
        str,
        "Parquet file that lists images (split, id, key), such as duplicates.parquet of stats or neighbours: the error "
        "without those that are in train too is told beside the error of all",
    ] = ""
    keep_probabilities: Annotated[bool, "keep each model's probabilities of all classes, as float16"] = False

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"evaluate.batch_size is {self.batch_size}; use 1 or more")

    @property
    def suffix(self) -> str:
        """What the names of the errors over all views end with; those of the centre crop are the plain ones."""
        return "" if self.views == "one" else f"_{self.views}_crop"

    @property
    def in_words(self) -> str:
        return "centre crop" if self.views == "one" else f"{self.views} crops"


@dataclass(frozen=True)
class FeaturesSpec:
    """Whose features are written, and how."""

    splits: Annotated[tuple[str, ...], "splits whose images' features are written: train, val, test"] = ("train", "val")
    dtype: Annotated[Literal["float16", "float32"], "type of the stored values; float16 has three digits"] = "float16"
    batch_size: Annotated[int, "images in a batch; of each the centre crop"] = 128

    def __post_init__(self):
        if not self.splits or len({*self.splits}) < len(self.splits) or not {*self.splits} <= {*SPLITS}:
            raise ValueError(f"features.splits is {','.join(self.splits)}; use some of {','.join(SPLITS)}, each once")
        if self.batch_size < 1:
            raise ValueError(f"features.batch_size is {self.batch_size}; use 1 or more")


@dataclass(frozen=True)
class NeighboursSpec:
    """Whose neighbours among the training images are looked for, in the features."""

    split: Annotated[Literal["val", "test", "train"], "split whose images are looked up among the training images"] = (
        "val"
    )
    top: Annotated[int, "neighbours of each image"] = 50
    index: Annotated[
        Literal["none", "flat", "ivfpq"],
        "FAISS index of the training images that is kept for `alexnet search`: exact (flat), or small, fast and "
        "approximate; needs pip install '.[search]'",
    ] = "none"
    duplicate_below: Annotated[
        float,
        "a neighbour this near, in medians of the distances to the nearest one, is listed as a duplicate; 0 lists none",
    ] = 0.3

    def __post_init__(self):
        if self.top < 1:
            raise ValueError(f"neighbours.top is {self.top}; use 1 or more")
        if self.duplicate_below < 0:
            raise ValueError(f"neighbours.duplicate_below is {self.duplicate_below}; use 0 (none) or more")


@dataclass(frozen=True)
class CodesSpec:
    """Short codes of images, by autoencoders of their features and of their pixels."""

    bits: Annotated[tuple[int, ...], "bits of a code; an autoencoder for each"] = (28, 256)
    epochs: Annotated[int, "passes over the training images"] = 12
    batch_size: Annotated[int, "images in a batch"] = 256
    lr: Annotated[float, "Adam's rate"] = 0.001
    seed: Annotated[int, "seed of the first weights and of the order"] = 0

    def __post_init__(self):
        if not self.bits or len({*self.bits}) < len(self.bits) or min(self.bits) < 1:
            raise ValueError(
                f"codes.bits is {','.join(map(str, self.bits))}; give counts of bits, 1 or more, each once"
            )
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"codes.{name} is {getattr(self, name)}; use 1 or more")
        if not 0 < self.lr < 1:
            raise ValueError(f"codes.lr is {self.lr}; use a rate between 0 and 1")


@dataclass(frozen=True)
class RaySpec:
    """Where the tasks run."""

    address: Annotated[str, "cluster to join, such as auto or HOST:6379; empty starts Ray on this machine"] = ""
    num_cpus: Annotated[int, "CPUs that a local Ray may use; 0 takes all"] = 0
    task_retries: Annotated[int, "times a task is run again after its process died"] = 3

    def __post_init__(self):
        if self.address.startswith("ray://"):
            raise ValueError(
                f"ray.address is {self.address}; Ray's client is not supported: run alexnet on a node of the cluster, "
                "with ray.address=auto"
            )
        if self.num_cpus < 0:
            raise ValueError(f"ray.num_cpus is {self.num_cpus}; use 0 (all) or more")
        if self.task_retries < 0:
            raise ValueError(f"ray.task_retries is {self.task_retries}; use 0 (never) or more")


@dataclass(frozen=True)
class TrackingSpec:
    """Where MLflow keeps the runs."""

    uri: Annotated[
        str, "MLflow tracking server or database; empty keeps mlflow.db under the root; off tracks nothing"
    ] = ""
    experiment: Annotated[str, "MLflow experiment"] = "alexnet"
    model_name: Annotated[str, "name of the trained model in MLflow's registry; empty: alexnet-RECIPE"] = ""


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run is told."""

    recipe: Annotated[str, "recipe that this configuration started from"] = "demo"
    store: Annotated[str, "folder or URL (s3://…) for the shards and checkpoints; empty keeps them under the root"] = ""
    ingest: IngestSpec = field(default_factory=IngestSpec)
    loader: LoaderSpec = field(default_factory=LoaderSpec)
    net: NetSpec = field(default_factory=AlexNetSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    evaluate: EvaluateSpec = field(default_factory=EvaluateSpec)
    features: FeaturesSpec = field(default_factory=FeaturesSpec)
    neighbours: NeighboursSpec = field(default_factory=NeighboursSpec)
    codes: CodesSpec = field(default_factory=CodesSpec)
    fisher: FisherSpec = field(default_factory=FisherSpec)
    sparse: SparseSpec = field(default_factory=SparseSpec)
    ray: RaySpec = field(default_factory=RaySpec)
    tracking: TrackingSpec = field(default_factory=TrackingSpec)

    def __post_init__(self):
        scheme, is_url, _ = self.store.partition("://")
        if is_url and scheme not in SCHEMES:
            raise ValueError(
                f"store is {self.store!r}; use a folder or a URL that starts with {'://, '.join(SCHEMES)}://"
            )


@dataclass(frozen=True)
class Key:
    """One configuration key: its dotted name, its type, its help and its default."""

    name: str
    type: Any
    help: str
    default: Any


def keys(config: RunConfig | None = None) -> dict[str, Key]:
    """Every key by dotted name, in the order of definition: of a configuration, or of those with any network."""
    networks = [type(config.net)] if config else [kind.spec for kind in KINDS.values()]
    found: dict[str, Key] = {}
    hints = typing.get_type_hints(RunConfig, include_extras=True)
    for f in dataclasses.fields(RunConfig):
        specs = networks if f.name == "net" else [hints[f.name]]
        if dataclasses.is_dataclass(specs[0]):
            for spec in specs:
                found = {key.name: key for key in _keys(spec, f"{f.name}.")} | found
        else:
            found[f.name] = _key("", f, hints[f.name])
    return found


def _keys(spec: Any, prefix: str) -> list[Key]:
    hints = typing.get_type_hints(spec, include_extras=True)
    return [_key(prefix, f, hints[f.name]) for f in dataclasses.fields(spec)]


def _key(prefix: str, f: dataclasses.Field, hint: Any) -> Key:
    kind, text = typing.get_args(hint)[:2]
    return Key(prefix + f.name, kind, text, f.default)


def values(config: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a configuration by dotted name; a whole number is one however it was said, 3 or 3.0 epochs."""
    found: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value, name = getattr(config, f.name), prefix + f.name
        if dataclasses.is_dataclass(value):
            found |= values(value, f"{name}.")
        else:
            is_whole = isinstance(value, float) and value.is_integer()
            found[name] = list(value) if isinstance(value, tuple) else int(value) if is_whole else value
    return found


def select(config: RunConfig, reads: tuple[str, ...], ignores: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of the keys that a stage reads: `section.*` or single names, less those it ignores."""
    sections = tuple(name[:-1] for name in reads if name.endswith(".*"))
    return {
        name: value
        for name, value in values(config).items()
        if (name in reads or name.startswith(sections or ("\0",))) and name not in ignores
    }


def without_secrets(known: dict[str, Any]) -> dict[str, Any]:
    """The values with *** for the secrets of URLs."""
    return {name: _on_each(value, redacted) for name, value in known.items()}


def digest(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """', did you mean X?' where something known is near, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def unknown(name: str) -> str:
    """What is wrong with a key that there is not."""
    return f"unknown key {name}{nearest(name, keys())} (`alexnet config` lists them all)"


def with_values(config: RunConfig, new: dict[str, Any]) -> RunConfig:
    """The configuration with some keys changed.

    Raises:
        UsageError: An unknown key (the nearest is suggested), or a value that does not fit.
    """
    with _usage():
        if "net.kind" in new:
            config = dataclasses.replace(config, net=_of_kind(str(new["net.kind"]), config.net))
        known, checked = keys(config), {}
        for name, value in new.items():
            if name not in known and name in keys():
                raise UsageError(f"{name} is no key of a network of net.kind={config.net.kind}")
            if name not in known:
                raise UsageError(unknown(name))
            checked[name] = _fit(known[name], value)
        return _replace(config, checked)


def _of_kind(kind: str, net: NetSpec) -> NetSpec:
    """The network itself where it is of this kind; else that kind's own, with the input of this one."""
    spec = kind_of(kind).spec
    if isinstance(net, spec):
        return dataclasses.replace(net, kind=kind)
    return spec(kind=kind, input_px=net.input_px, num_classes=net.num_classes, mean=net.mean)


def check_together(config: RunConfig) -> None:
    """UsageError where sections contradict each other, so that training could only fail after the stages before it."""
    require_room(config.net, config.ingest.size)
    require_columns(config.net, config.train)
    require_schedule(config.net, config.train)


def require_room(net: NetSpec, size_px: int) -> None:
    """UsageError where the network's input does not fit the stored squares."""
    if net.input_px > size_px:
        raise UsageError(
            f"net.input_px is {net.input_px}, the stored images are of ingest.size={size_px} px; "
            "lower net.input_px or raise ingest.size"
        )


def require_columns(net: NetSpec, train: TrainSpec) -> None:
    """UsageError where a single column shall live in two processes."""
    if train.placement == "columns" and net.columns == 1:
        raise UsageError("train.placement=columns, and net.columns is 1: use train.placement=one")


def require_schedule(net: NetSpec, train: TrainSpec) -> None:
    """UsageError where the schedule or the decays name other layers than the network has, or not all of them."""
    with _usage():
        require_rates(train, parameter_names(net))


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    """A ValueError of a spec is a UsageError, with its notes."""
    try:
        yield
    except ValueError as error:
        wrong = UsageError(str(error))
        for note in getattr(error, "__notes__", ()):
            wrong.add_note(note)
        raise wrong from error


def require_training_images(ingest: IngestSpec, num_train: int) -> None:
    """UsageError where there is nothing to train on."""
    if not num_train:
        raise UsageError(
            f"there are no training images: ingest.source={ingest.source} holds none for the split train; name another"
        )


def require_classes(net: NetSpec, num_classes: int) -> None:
    """UsageError where the network is to have another number of classes than the data set."""
    if net.num_classes not in (0, num_classes):
        raise UsageError(
            f"net.num_classes is {net.num_classes}, the data set has {num_classes}; use 0 to take its number"
        )


def require_split(split: str, counts: dict[str, int]) -> None:
    """UsageError where there are no images to evaluate. `counts` are images by split."""
    if not counts.get(split):
        have = ", ".join(name for name, count in counts.items() if count)
        raise UsageError(f"evaluate.split={split}: there are no such images; set it to one of {have}")


def require_splits(splits: Sequence[str], counts: dict[str, int]) -> None:
    """UsageError where there are no images to take features of. `counts` are images by split."""
    have = [split for split in SPLITS if counts.get(split)]
    for split in splits:
        if split not in have:
            asked = f"features.splits={','.join(splits)}"
            raise UsageError(f"{asked}: there are no images of {split}; set it to some of {','.join(have)}")


def require_features_of(config: RunConfig) -> None:
    """UsageError where neighbours are wanted of or among images whose features are not taken."""
    taken, wanted = config.features.splits, dict.fromkeys(("train", config.neighbours.split))
    if lacking := [split for split in wanted if split not in taken]:
        raise UsageError(
            f"neighbours of {config.neighbours.split} among train need features of {' and '.join(lacking)}, and "
            f"features.splits is {','.join(taken)}: set features.splits={','.join([*taken, *lacking])}"
        )


def has_faiss() -> bool:
    return importlib.util.find_spec("faiss") is not None


def require_faiss(index: str) -> None:
    """UsageError where an index is wanted and nothing here can make one."""
    if index != "none" and not has_faiss():
        raise UsageError(f"neighbours.index={index} needs FAISS: pip install '.[search]', or set neighbours.index=none")


def require_scikit_learn(baseline: str) -> None:
    """UsageError where a baseline is built on it, and it is missing."""
    if baseline == "fisher" and importlib.util.find_spec("sklearn") is None:
        raise UsageError(
            "the baseline fisher needs scikit-learn, which is not installed: "
            "`pip install -c constraints.txt '.[baselines]'` in the repository installs it"
        )


def require_validation(train: TrainSpec, num_val: int) -> None:
    """UsageError where the schedule waits for a validation error that nothing measures."""
    if train.schedule == "plateau" and not num_val:
        raise UsageError(
            "train.schedule=plateau follows the validation error, and there are no validation images: "
            "set train.schedule=segments, or ingest.val_fraction above 0"
        )


def with_absolute_paths(config: RunConfig, folder: Path) -> RunConfig:
    """Relative paths begin in this folder; URLs stay."""
    absolute = partial(_absolute, folder=folder)
    given = {name: value for name, value in values(config).items() if name in PATHS}
    return with_values(config, {name: _on_each(value, absolute) for name, value in given.items()})


def _on_each(value: Any, change: Callable[[str], str]) -> Any:
    """A key's value with its text changed; of a list of texts each one."""
    if isinstance(value, list):
        return [_on_each(one, change) for one in value]
    return change(value) if isinstance(value, str) else value


def _is_no_path(value: str) -> bool:
    return value in NO_PATHS or value.startswith("models:/") or ("@" in value and "/" not in value)


def _absolute(value: str, folder: Path) -> str:
    path = value.removeprefix("sqlite:///")
    if _is_no_path(value) or "://" in path:
        return value
    return value.removesuffix(path) + str(folder.absolute() / Path(path).expanduser())


def parse_setting(text: str) -> tuple[str, Any]:
    """`train.epochs=3` as a key and a value: text, to be fitted to the key's type."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: write it as KEY=VALUE, such as train.epochs=3")
    if name.strip() == RECIPE:
        raise UsageError(f"--set {text}: that is the name of a recipe, not its keys; use --recipe {value.strip()}")
    return name.strip(), value.strip()


def dump(config: RunConfig) -> str:
    """The configuration as TOML, each key with its help; the secrets of URLs are left out."""
    known, lines, section = keys(config), [], ""
    for name, value in without_secrets(values(config)).items():
        head, _, leaf = name.rpartition(".")
        if head != section:
            section = head
            lines += ["", f"[{section}]"]
        lines.append(f"{leaf} = {json.dumps(value, ensure_ascii=False)}  # {_describe(known[name])}")
    return "\n".join(lines) + "\n"


def explain(config: RunConfig, asked: Sequence[str]) -> list[str]:
    """A line with the value and one with its help for each key asked for; a section stands for all its keys.

    Raises:
        UsageError: No such key or section.
    """
    lines = []
    for name in asked:
        chosen = {key: value for key, value in without_secrets(values(config)).items() if key == name}
        chosen = chosen or {k: v for k, v in without_secrets(values(config)).items() if k.startswith(f"{name}.")}
        if not chosen:
            raise UsageError(unknown(name))
        for key, value in chosen.items():
            lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}", f"    {_describe(keys(config)[key])}"]
    return lines


def load(path: Path) -> RunConfig:
    """A configuration from a TOML file: keys that it leaves out take their defaults.

    Raises:
        UsageError: No such file, not TOML, or keys and values that do not fit.
    """
    found = _read(path)
    try:
        return with_values(RunConfig(), found)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def load_known(path: Path) -> tuple[RunConfig, tuple[str, ...]]:
    """The same from a file that perhaps another version wrote, and what of it no longer fits and is passed over.

    Raises:
        UsageError: It cannot be read at all.
    """
    found, config, unfit = _read(path), RunConfig(), []
    if not found:
        raise UsageError(f"{path} is empty")
    with contextlib.suppress(UsageError):
        return with_values(config, found), ()
    for name, value in found.items():
        try:
            config = with_values(config, {name: value})
        except UsageError:
            unfit.append(name)
    return config, tuple(unfit)


def _read(path: Path) -> dict[str, Any]:
    """The values in a TOML file by dotted name; secrets that were left out are left to the environment."""
    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"no configuration file {path}; `alexnet config --recipe demo > {path}` writes one") from None
    except OSError as error:
        raise UsageError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat |= {f"{name}.{leaf}": v for leaf, v in value.items()} if isinstance(value, dict) else {name: value}
    return {name: _on_each(value, _left_out) for name, value in flat.items()}


def _left_out(text: str) -> str:
    return without_redactions(text) if "***" in text else text


def _replace(config: Any, changes: dict[str, Any]) -> Any:
    """A dataclass with dotted fields replaced, section by section, so that each checks itself once."""
    direct: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        head, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(head, {})[rest] = value
        else:
            direct[head] = value
    for head, inner in nested.items():
        direct[head] = _replace(getattr(config, head), inner)
    return dataclasses.replace(config, **direct)


def _describe(key: Key) -> str:
    """Meaning, unit, choices and default."""
    choices = typing.get_args(key.type) if typing.get_origin(key.type) is Literal else ()
    listed = f" ({' | '.join(map(str, choices))})" if choices else ""
    return f"{key.help}{listed}; default {json.dumps(key.default, ensure_ascii=False)}"


def _fit(key: Key, value: Any) -> Any:
    """The value in the key's type; text from the command line is parsed."""
    kind = key.type
    if typing.get_origin(kind) is Literal:
        choices = {str(choice): choice for choice in typing.get_args(kind)}
        if str(value) not in choices:
            raise UsageError(f"{key.name} is {value!r}; use {' or '.join(choices)}{nearest(str(value), choices)}")
        return choices[str(value)]
    if typing.get_origin(kind) is tuple:
        return _fit_tuple(key, value)
    try:
        return _PARSERS[kind](value)
    except (ValueError, OverflowError):
        wanted = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}[kind]
        raise UsageError(f"{key.name} is {value!r}; use {wanted}: {key.help}") from None


def _fit_tuple(key: Key, value: Any) -> tuple:
    parts = [p.strip() for p in value.strip("[]() ").split(",") if p.strip()] if isinstance(value, str) else value
    try:
        if not isinstance(parts, list | tuple):
            raise ValueError
        return tuple(map(_PARSERS[typing.get_args(key.type)[0]], parts))
    except (ValueError, OverflowError):
        raise UsageError(f"{key.name} is {value!r}; use a list such as {list(key.default)}: {key.help}") from None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str) or abs(int(value)) >= MAX_WHOLE:
        raise ValueError
    return int(value)


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _truth(value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise ValueError
    return str(value).lower() == "true"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


_PARSERS: dict[type, Callable[[Any], Any]] = {int: _whole, float: _finite, bool: _truth, str: _text}
