"""A folder run on a Dask cluster: images are spread over workers, and each worker loads the model once.

What travels are paths, rows of the table and, once for each worker, weights that are not official; never images. What
lies in the folder of results counts here, too: a task that is tried again, its worker having died, takes what is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from distributed import Client, Future, as_completed, get_worker

from sam_nb.files.folder_image import AT_ONCE, failed_or_raise, make, share_threads
from sam_nb.files.folder_state import ImageJob, Row
from sam_nb.model.loading import load_sam
from sam_nb.model.sam import Sam
from sam_nb.networks.lite import WEIGHTS
from sam_nb.weights.checkpoints import CHECKPOINTS, sha256
from sam_nb.weights.weights_file import encode_weights

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
IN_HAND = 2  # images that are on their way for each thread of a worker


@dataclass(frozen=True)
class ModelKey:
    """A model, as every worker can load it.

    Attributes
    ----------
    name, weights, precision : str
        As in `Sam`.
    is_official : bool
        Whether `load_sam` finds these weights by the name.
    """

    name: str
    weights: str
    precision: str
    is_official: bool


_models: dict[ModelKey, Sam] = {}
_loading = threading.Lock()
_making = threading.BoundedSemaphore(AT_ONCE)


def made_on_cluster(
    client: Client, sam: Sam, jobs: Sequence[ImageJob], out: Path, stale: Collection[ImageJob]
) -> Iterator[tuple[ImageJob, list[Row]]]:
    """Make the results of images on a cluster; yield each image's rows, whichever is finished first.

    Parameters
    ----------
    client : distributed.Client
    sam : Sam
        On this computer. Workers load the same weights, on the device that `load_sam` chooses there.
    jobs : sequence of ImageJob
    out : pathlib.Path
    stale : collection of ImageJob
        Whose results are replaced.
    """
    out = out.resolve()
    key = ModelKey(sam.name, sam.weights, sam.precision, _is_official(sam))
    weights = None if key.is_official else client.scatter(encode_weights(sam.model), broadcast=True, hash=False)
    waiting = iter(jobs)
    in_hand: dict[Future[list[Row]], ImageJob] = {}
    finished = as_completed()

    def submit(count: int) -> None:
        for job in islice(waiting, count):
            task = client.submit(_make, key, weights, _anywhere(job), out, job in stale, pure=False)
            in_hand[task] = job
            finished.add(task)

    try:
        submit(_room(client))
        for task in finished:
            job = in_hand.pop(task)
            error = task.exception()
            yield job, task.result() if error is None else [failed_or_raise(job, error, out)]
            submit(max(0, _room(client) - len(in_hand)))
    finally:
        client.cancel(list(in_hand))


def _is_official(sam: Sam) -> bool:
    """Tell whether workers find the same weights by the model's name."""
    return sam.weights == (sha256(WEIGHTS) if sam.name == "lite" else CHECKPOINTS[sam.name].sha256)


def _anywhere(job: ImageJob) -> ImageJob:
    """Return a job whose path does not depend on the folder that a process runs in."""
    return job if isinstance(job.source, str) else replace(job, source=job.source.absolute())


def _room(client: Client) -> int:
    """Return how many images may be on their way: the memory that they take does not grow with the folder."""
    return max(1, IN_HAND * sum(client.nthreads().values()))


def _make(key: ModelKey, weights: bytes | None, job: ImageJob, out: Path, overwrite: bool) -> list[Row]:
    """Make the result of an image, on a worker; return its rows."""
    sam = _model(key, weights)
    with _making:
        share_threads(get_worker().state.nthreads)
        return make(sam, job, out, overwrite=overwrite)


def _model(key: ModelKey, weights: bytes | None) -> Sam:
    """Return the model, loaded the first time that this worker is asked for it."""
    with _loading:
        if key not in _models:
            _keep_memory()
            _models.clear()  # one at a time: a large model and its successor may be more than the memory holds
            _models[key] = _load(key, weights)
        return _models[key]


def _keep_memory() -> None:
    """Let the C library keep memory that PyTorch gives back, for it asks for the same again at once.

    Dask starts workers with MALLOC_TRIM_THRESHOLD_=65536. That also keeps glibc from learning which sizes come again
    and again: every larger array is fetched from the kernel page by page, and an image takes 2.5 times as long.
    """
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" in os.environ:
        with contextlib.suppress(AttributeError):  # another C library than glibc
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_THRESHOLD, 2**25)
            mallopt(M_TRIM_THRESHOLD, 2**28)


def _load(key: ModelKey, weights: bytes | None) -> Sam:
    """Load a model without a word: on a worker nobody reads what it announces."""
    with contextlib.redirect_stdout(io.StringIO()):
        return _loaded(key, weights)


def _loaded(key: ModelKey, weights: bytes | None) -> Sam:
    if weights is None:
        sam = load_sam(key.name, precision=key.precision)
        if sam.weights != key.weights:
            raise RuntimeError(
                f"this worker has other weights of {key.name} than the one who started the run: install the same "
                "version of sam_nb there"
            )
        return sam
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        path.write_bytes(weights)
        loaded = load_sam(key.name, path, precision=key.precision)
    return Sam(loaded.model, key.name, key.weights, key.precision)  # a file of another kind had another digest
