"""Codes: images as a few bits, by autoencoders of their features and, beside them, of their pixels.

A Ray task an autoencoder and an epoch, which keeps its state, so that an interrupted run goes on at the epoch. Then a
task each that encodes all images and looks up those of a split.
"""

import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from pipelines.codes import SUMMARY, Codes, joined, nearest_codes, packed, write_codes
from pipelines.features import Features, read_features
from pipelines.manifest import Manifest
from pipelines.names import TRAIN, Device
from pipelines.neighbours import AT, places_of, right_class
from pipelines.pixels import pixel_rows
from pipelines.storage import Folder
from workflows.compute import devices
from workflows.config import CodesSpec, require_features_of
from workflows.engine.stage import Context
from workflows.stages.ingest import log_dataset
from workflows.tracking.headline import hardware

if TYPE_CHECKING:
    import torch

    from model.autoencoder import Autoencoder

WEIGHTS = "autoencoder.safetensors"
QUERIES = 10_000  # images that are looked up, at most: the first of the split, which is shuffled
Of = Literal["features", "pixels"]
_PARTS = "parts"


class Coder(NamedTuple):
    """One of the autoencoders."""

    of: Of
    bits: int

    @property
    def name(self) -> str:
        return f"{self.of}-{self.bits}"

    @property
    def codes(self) -> str:
        return f"{self.name}.parquet"


@dataclass(frozen=True)
class Job:
    """What all tasks have in common."""

    shards: Folder
    features: Folder
    folder: Folder
    spec: CodesSpec
    split: str  # whose images are looked up
    crop_px: int
    device: Device


def run(context: Context) -> dict:
    """Writes `codes.json`, and for each autoencoder its weights and `OF-BITS.parquet`."""
    config, folder = context.config, context.folder
    require_features_of(config)
    have = devices.usable(config.train.device, context.compute.resources(), devices.torch_cuda())
    job = Job(
        shards=context.inputs["ingest"].folder,
        features=context.inputs["features"].folder,
        folder=folder,
        spec=config.codes,
        split=config.neighbours.split,
        crop_px=config.net.input_px,
        device="cuda" if have.gpus else "cpu",
    )
    manifest = Manifest.load(job.shards)
    folder.remove_stale_temporaries()
    coders = [Coder(of, bits) for of in get_args(Of) for bits in config.codes.bits]
    images = _train(context, job, coders, manifest.num_rows(TRAIN))
    found = dict(context.compute.map(partial(judge, job), coders, int(job.device == "cuda")))
    card = {"split": job.split, "epochs": job.spec.epochs, "codes": [found[coder] for coder in coders]}
    folder.write(SUMMARY, json.dumps(card, indent=1) + "\n")
    folder.child(_PARTS).delete_all()
    context.log_files(SUMMARY)
    log_dataset(context, manifest, job.shards, "codes")
    context.run.tags(hardware(job.device == "cuda"))
    return _summary(job, card, coders, images)


def _train(context: Context, job: Job, coders: list[Coder], rows: int) -> int:
    """Trains what is not trained yet; how many images were seen."""
    done = {coder: _epochs_done(job.folder, coder) for coder in coders}
    total, kept = rows * job.spec.epochs * len(coders), rows * sum(done.values())
    seen = kept
    with context.console.progress("codes", total, "images", kept) as progress:
        for epoch in range(job.spec.epochs):
            due = [coder for coder in coders if done[coder] <= epoch]
            for _ in context.compute.map(partial(train_epoch, job, epoch), due, int(job.device == "cuda")):
                seen += rows
                progress.update(seen)
    return seen - kept


def train_epoch(job: Job, epoch: int, coder: Coder) -> None:
    """A task: one pass over the training images; its state is kept in place of the one before."""
    import torch

    from model import autoencoder

    torch.set_num_threads(1)
    if epoch:
        net, optimizer, _ = _load(job, coder, epoch)
    else:
        net = _fresh(job, coder)
        optimizer = _adam(net, job)
    rng = np.random.default_rng([job.spec.seed, epoch])
    batches = (torch.from_numpy(batch_BU).to(job.device) for batch_BU in _batches(job, coder, rng))
    error = autoencoder.train_epoch(net, optimizer, batches)
    state = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "error": error}, state)
    job.folder.write(_state(coder, epoch + 1), state.getvalue())
    if epoch:
        job.folder.delete(_state(coder, epoch))


def judge(job: Job, coder: Coder) -> tuple[Coder, dict[str, Any]]:
    """A task: all images as codes, in a file; how many neighbours are of the right class, and what the search costs."""
    import torch
    from safetensors.torch import save

    torch.set_num_threads(1)
    net, _, error = _load(job, coder, job.spec.epochs)
    codes = {split: _codes(job, coder, net, split) for split in dict.fromkeys((TRAIN, job.split))}
    num_bytes = write_codes(job.folder, coder.codes, codes)
    job.folder.write(f"{coder.name}/{WEIGHTS}", save({name: t.cpu() for name, t in net.state_dict().items()}))
    queries = Codes(*(column[:QUERIES] for column in codes[job.split]))
    began = time.perf_counter()
    own = queries.ids_N if job.split == TRAIN else None
    found = nearest_codes(queries.codes_NW, codes[TRAIN], max(AT), own)
    seconds = time.perf_counter() - began
    places_QK = places_of(found.ids_QK, codes[TRAIN].ids_N)
    shares = right_class(queries.labels_N, codes[TRAIN].labels_N[places_QK])
    return coder, {
        "of": coder.of,
        "bits": coder.bits,
        "error": error,
        "queries": len(queries.ids_N),
        "right_class": {str(k): share._asdict() for k, share in shares.items()},
        "queries_per_s": len(queries.ids_N) / seconds,
        "bytes_per_image": codes[TRAIN].codes_NW.shape[1] * 8,
        "bytes": num_bytes,
    }


def _codes(job: Job, coder: Coder, net: "Autoencoder", split: str) -> Codes:
    import torch

    found = []
    for ids_N, labels_N, values_NU in _vectors(job, coder.of, split):
        bits_NC = net.bits(torch.from_numpy(values_NU).to(job.device)).cpu().numpy()
        found.append(Codes(ids_N, labels_N, packed(bits_NC)))
    return joined(found)


def _vectors(
    job: Job, of: Of, split: str, rng: np.random.Generator | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Ids, labels and values, float32 [N, U], of some images at a time; the files in an order of their own by `rng`."""
    if of == "features":
        files = Features.load(job.features).of_split(split)
        for place in _order(len(files), rng):
            for rows in read_features(job.features, files[place]):
                yield rows.ids_N, rows.labels_N, rows.features_NU.astype(np.float32)
        return
    manifest = Manifest.load(job.shards)
    records = [record for record in manifest.splits[split] if record.rows]
    ordered = [records[place] for place in _order(len(records), rng)]
    yield from pixel_rows(job.shards, manifest, ordered, job.crop_px)


def _order(count: int, rng: np.random.Generator | None) -> np.ndarray:
    return np.arange(count) if rng is None else rng.permutation(count)


def _batches(job: Job, coder: Coder, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for _, _, values_NU in _vectors(job, coder.of, TRAIN, rng):
        order = rng.permutation(len(values_NU))
        for start in range(0, len(order), job.spec.batch_size):
            yield values_NU[order[start : start + job.spec.batch_size]]


def _fresh(job: Job, coder: Coder) -> "Autoencoder":
    """With first weights, and mean and scale of the training images."""
    import torch

    from model.autoencoder import Autoencoder

    total_U, squares_U, count = 0.0, 0.0, 0
    for _, _, values_NU in _vectors(job, coder.of, TRAIN):
        values = values_NU.astype(np.float64)
        total_U, squares_U, count = total_U + values.sum(0), squares_U + np.square(values).sum(0), count + len(values)
    assert isinstance(total_U, np.ndarray)
    net = Autoencoder(len(total_U), coder.bits, seed=job.spec.seed)
    net.standardise(torch.from_numpy(total_U), torch.as_tensor(squares_U), count)
    return net.to(job.device)


def _load(job: Job, coder: Coder, epoch: int) -> "tuple[Autoencoder, torch.optim.Optimizer, float]":
    """What an epoch left behind; and its mean error."""
    import torch

    from model.autoencoder import Autoencoder

    state = torch.load(io.BytesIO(job.folder.read(_state(coder, epoch))), map_location=job.device, weights_only=True)
    net = Autoencoder(len(state["net"]["mean_U"]), coder.bits).to(job.device)
    net.load_state_dict(state["net"])
    optimizer = _adam(net, job)
    optimizer.load_state_dict(state["optimizer"])
    return net, optimizer, state["error"]


def _adam(net: "Autoencoder", job: Job) -> "torch.optim.Optimizer":
    import torch

    return torch.optim.Adam(net.parameters(), job.spec.lr)


def _state(coder: Coder, epochs: int) -> str:
    return f"{_PARTS}/{coder.name}-after-{epochs}.pt"


def _epochs_done(folder: Folder, coder: Coder) -> int:
    """A state is written before the one before it goes, so that the last one counts."""
    prefix = _state(coder, 0).rpartition("-")[0].removeprefix(f"{_PARTS}/")
    names = [entry.name.removesuffix(".pt") for entry in folder.child(_PARTS).files()]
    return max((int(name.rpartition("-")[2]) for name in names if name.startswith(f"{prefix}-")), default=0)


def _summary(job: Job, card: dict[str, Any], coders: list[Coder], images: int) -> dict:
    shares = {coder: found["right_class"] for coder, found in zip(coders, card["codes"], strict=True)}
    k = str(AT[1])
    told = [
        f"{of} {', '.join(_percent(found[k]) for coder, found in shares.items() if coder.of == of and k in found)}"
        for of in get_args(Of)
    ]
    bits = ", ".join(map(str, job.spec.bits))
    return {
        "result": f"{k} neighbours by {bits} bits, of the right class: {'; '.join(told)}",
        "metrics": {
            f"right_class_{coder.name}_{at}": share["share"]
            for coder, found in shares.items()
            for at, share in found.items()
        },
        "units": images,
        "files": (SUMMARY, *(coder.codes for coder in coders), *(f"{coder.name}/{WEIGHTS}" for coder in coders)),
        "made_with": {"device": job.device},
    }


def _percent(share: dict[str, float]) -> str:
    return f"{100 * share['share']:.1f} %"
