"""Images and their parameters in, tensors out, through DALI: the one way from stored squares to what a network sees.

Several runs are under way at once: `start` queues one and returns at once, `finish` waits for the oldest. DALI hands
out its memory without a copy and takes other memory for later runs, so that a tensor stays valid while it is held.
"""

from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.tensors import TensorCPU, TensorListCPU

from pipelines.augment import Parameters, augment
from pipelines.images import decode_jpeg, encode_jpeg
from pipelines.names import Device

MAX_UNDER_WAY = 2


class UndecodableImage(Exception):
    """One image of a run cannot be decoded: its place in the run, and why."""

    def __init__(self, index: int, reason: str):
        super().__init__(f"image {index} of the run: {reason}")
        self.index, self.reason = index, reason


class Decoder:
    """Decodes and augments runs of up to `max_images` squares."""

    def __init__(
        self, encoding: str, size_px: int, crop_px: int, max_images: int, threads: int, device: Device = "cpu"
    ):
        self._size_px, self.crop_px, self.device = size_px, crop_px, device
        self._definition = {"crop_px": crop_px, "is_jpeg": encoding == "jpeg", "on_gpu": device == "cuda"}
        self._execution = {
            "batch_size": max_images,
            "num_threads": threads,
            "device_id": torch.cuda.current_device() if device == "cuda" else None,
            "prefetch_queue_depth": MAX_UNDER_WAY,
        }
        self.turn = 0
        self._restart()

    def _restart(self) -> None:
        self._under_way: deque[tuple[list[np.ndarray], dict]] = deque()  # inputs, which DALI reads where they are
        self._latest: Any = None
        self._in_use: list[tuple[torch.cuda.Event, Any]] = []
        self._pipe = _augmenting_pipeline(**self._definition, **self._execution)
        self._pipe.build()
        self._warm_up()

    def _warm_up(self) -> None:
        """Run blank images: DALI's first schedule_run takes as many runs as the queue is deep, later ones take one."""
        blank_HWC = np.zeros((self._size_px, self._size_px, 3), np.uint8)
        image = np.frombuffer(encode_jpeg(blank_HWC, 90), np.uint8) if self._definition["is_jpeg"] else blank_HWC
        zeros = np.zeros(1, np.float32)
        for _ in range(MAX_UNDER_WAY):
            self._feed([image], Parameters(zeros, zeros, zeros.astype(np.int32), np.zeros((1, 3), np.float32)))
        self._pipe.schedule_run()
        self._drain()

    def start(self, images: list[np.ndarray], parameters: Parameters) -> None:
        """Begin with a run of at least one image."""
        assert images
        assert len(self._under_way) < MAX_UNDER_WAY
        self._feed(images, parameters)
        self._pipe.schedule_run()

    def _feed(self, images: list[np.ndarray], parameters: Parameters) -> None:
        slack_px = max(1, self._size_px - self.crop_px)
        inputs = {
            "images": self._listed(images),
            "y": (parameters.y_B / slack_px).astype(np.float32),
            "x": (parameters.x_B / slack_px).astype(np.float32),
            "mirror": parameters.mirror_B,
        }
        for name, data in inputs.items():
            self._pipe.feed_input(name, data)
        self._under_way.append((images, inputs))

    def _listed(self, images: list[np.ndarray]) -> TensorListCPU:
        """The same memory as DALI has it; its own way from a list of arrays takes four times as long."""
        tensors = [TensorCPU(image) for image in images]
        return TensorListCPU(tensors, contiguous=False)  # type: ignore[call-overload]  # its stub lacks this

    def finish(self) -> torch.Tensor:
        """crops_BCHW of the oldest run: uint8, RGB, channels last. UndecodableImage says which is damaged."""
        stream = torch.cuda.current_stream() if self.device == "cuda" else None
        images, inputs = self._under_way.popleft()
        try:
            (output,) = self._pipe.outputs(stream)
        except RuntimeError as error:
            self._restart()  # after a failure, DALI answers for nothing
            raise (_undecodable(images) or error) from error
        self._keep_until_used(inputs, output)
        return torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2)

    def _keep_until_used(self, inputs: dict, output) -> None:
        """On a GPU what was handed out, and what it is made of, lives until all work is done that was waiting then."""
        if self.device == "cpu":
            return
        used = torch.cuda.Event()
        used.record()  # behind whatever was done with the run before
        self._in_use = [(event, held) for event, held in self._in_use if not event.query()] + [(used, self._latest)]
        self._latest = (inputs, output)

    def begin(self) -> int:
        """Begin a new pass: drop what an earlier one left under way. Returns the number of the pass."""
        self._drain()
        self.turn += 1
        return self.turn

    def _drain(self) -> None:
        while self._under_way:
            with suppress(UndecodableImage):
                self.finish()

    def no_images(self) -> torch.Tensor:
        """What a run of no images gives."""
        return torch.empty((0, 3, self.crop_px, self.crop_px), dtype=torch.uint8, device=self.device)


@pipeline_def
def _augmenting_pipeline(crop_px: int, is_jpeg: bool, on_gpu: bool):
    layout = None if is_jpeg else "HWC"
    images = fn.external_source(name="images", no_copy=True, layout=layout)
    y, x, mirror = (fn.external_source(name=name, no_copy=True) for name in ("y", "x", "mirror"))
    return augment(images, y, x, mirror, crop_px=crop_px, is_jpeg=is_jpeg, on_gpu=on_gpu)


def _undecodable(images: list[np.ndarray]) -> UndecodableImage | None:
    """DALI does not say which image failed, so each is decoded alone until one does."""
    pipe = _decoding_pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    pipe.build()
    for index, image in enumerate(images):
        pipe.feed_input("images", [image])
        try:
            pipe.run()
        except RuntimeError as error:
            return UndecodableImage(index, _reason(image, error))
    return None


@pipeline_def
def _decoding_pipeline():
    return fn.decoders.image(fn.external_source(name="images", no_copy=True))


def _reason(image: np.ndarray, error: RuntimeError) -> str:
    """libjpeg's words where it agrees, since DALI's are a number."""
    try:
        decode_jpeg(image)
    except ValueError as libjpeg_error:
        return str(libjpeg_error)
    return str(error).partition("encountered:")[2].partition("Current pipeline")[0].strip() or str(error)
