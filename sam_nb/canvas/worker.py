"""The model's thread: encodes the image once, when it is first needed, and does what the canvas wants, newest first.

There are no widgets here. Every decoding of a session runs through `Worker.decode`; what the canvas wants prepared
besides is a `Job`. Within an event loop a job's slow part runs in a thread of its own, so that the page stays quick;
without one it runs at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from sam_nb.masks import Masks
from sam_nb.prompts import Prompt

if TYPE_CHECKING:
    from sam_nb.model.embeddings import Embedding
    from sam_nb.model.sam import Sam

PATIENCE = 0.3  # seconds of silence before waiting is reported, and between two reports


class Cancellable(Protocol):
    """What `CallLater` returns."""

    def cancel(self) -> object:
        """Do not call the function any more."""


Clock = Callable[[], float]
"""Returns seconds, as `time.perf_counter`."""

CallLater = Callable[[float, Callable[[], None]], Cancellable]
"""Takes seconds and a function that is called after them, as `asyncio.loop.call_later`."""


def call_later(seconds: float, function: Callable[[], None]) -> Cancellable:
    """Have the running event loop call a function later."""
    return asyncio.get_running_loop().call_later(seconds, function)


@dataclass(frozen=True, eq=False)
class Job:
    """What the canvas wants prepared, and prepared again for every request.

    Attributes
    ----------
    prepare : callable
        The slow part, done in the model's thread. Returns the quick part, a function without arguments that shows the
        result; it is called in the event loop.
    is_preview : bool
        A preview waits for all other jobs, and its result is shown even if a newer one is wanted. The result of any
        other job is dropped if the job is wanted again by the time it is ready.
    """

    prepare: Callable[[], Callable[[], None]]
    is_preview: bool = False


@dataclass(frozen=True)
class Waiting:
    """What the model's thread has been busy with for so long that it should be reported.

    Attributes
    ----------
    is_encoding : bool
        Whether the image is being encoded; else a prompt is being decoded.
    seconds : float
        Since the job was started.
    progress : float
        Share of the encoding that is done, 0 to 1; 0 where the model does not report it.
    """

    is_encoding: bool
    seconds: float
    progress: float


def _ignore(*_: object) -> None:
    pass


class Worker:
    """A model with one image, in a thread of its own.

    Parameters
    ----------
    sam : Sam
    image : HxWx3 numpy.ndarray of uint8, RGB
    times_decoding : bool
        Whether a decoding is timed once the image is encoded, see `decode_seconds`.
    on_error : callable
        Takes the exception that a job raised.
    on_waiting : callable
        Takes a `Waiting`, every `PATIENCE` seconds while the image is encoded, and once when decoding takes that long.
    on_idle : callable
        Called without arguments in the event loop when nothing is wanted any more. Must not request anything.
    clock : callable
        Returns seconds.
    call_later : callable
        Takes seconds and a function. Default: the running event loop's.

    Attributes
    ----------
    decode_seconds : float, optional
        How long a decoding takes, seconds; None until the image is encoded, or if it is not timed.
    """

    def __init__(
        self,
        sam: Sam,
        image: npt.NDArray[np.uint8],
        *,
        times_decoding: bool = False,
        on_error: Callable[[Exception], None] = _ignore,
        on_waiting: Callable[[Waiting], None] = _ignore,
        on_idle: Callable[[], None] = _ignore,
        clock: Clock = time.perf_counter,
        call_later: CallLater = call_later,
    ) -> None:
        self._sam, self._image = sam, image
        self._times_decoding = times_decoding
        self._on_error, self._on_waiting, self._on_idle = on_error, on_waiting, on_idle
        self._clock, self._call_later = clock, call_later
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sam-nb")
        self._encoding = threading.Lock()
        self._embedding: Embedding | None = None
        self._progress = 0.0
        self._wanted: set[Job] = set()
        self._task: asyncio.Task[None] | None = None
        self._timer: Cancellable | None = None
        self._is_closed = False
        self.decode_seconds: float | None = None

    def __reduce__(self) -> str:
        raise TypeError("a canvas runs in this process and can be neither copied nor pickled: keep session.to_json()")

    @property
    def is_busy(self) -> bool:
        """Whether a job is under way or wanted in the event loop."""
        return self._task is not None and not self._task.done()

    def embedding(self) -> Embedding:
        """Return the image's embedding; the first call encodes the image, others wait for it."""
        with self._encoding:
            if self._embedding is None:
                self._embedding = self._sam.encode(self._image, self._note_progress)
                if self._times_decoding:
                    self.decode_seconds = self._time_decoding(self._embedding)
            return self._embedding

    def decode(self, prompt: Prompt) -> Masks:
        """Return the masks for a prompt, in the caller's thread."""
        return self._sam.decode(self.embedding(), prompt)

    def request(self, job: Job) -> None:
        """Have a job done once the model's thread is free; without an event loop, do it now; if closed, never."""
        if self._is_closed:
            return
        self._wanted.add(job)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._work_now()
            return
        if not self.is_busy:
            self._task = loop.create_task(self._work(loop))

    def cancel(self, job: Job) -> None:
        """Forget a job that is wanted but not under way."""
        self._wanted.discard(job)

    async def join(self) -> None:
        """Wait until nothing is wanted any more."""
        if self._task is not None:
            await self._task

    def close(self) -> None:
        """End the thread after the job that is under way, and show nothing any more. Code can still decode."""
        self._is_closed = True
        self._wanted.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.shutdown(wait=False)

    def _work_now(self) -> None:
        while self._wanted:
            try:
                self._prepare(self._take())()
            except Exception as error:
                self._on_error(error)

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._wanted:
            job = self._take()
            self._report_later(job, self._clock())
            try:
                show = await loop.run_in_executor(self._thread, self._prepare, job)
                if not self._is_closed and (job.is_preview or job not in self._wanted):
                    show()
            except Exception as error:
                self._on_error(error)
            finally:
                if self._timer is not None:
                    self._timer.cancel()
        if not self._is_closed:
            self._on_idle()

    def _take(self) -> Job:
        """Return what to do next: previews last."""
        job = min(self._wanted, key=lambda job: job.is_preview)
        self._wanted.discard(job)
        return job

    def _prepare(self, job: Job) -> Callable[[], None]:
        self.embedding()
        return job.prepare()

    def _report_later(self, job: Job, started: float) -> None:
        self._timer = self._call_later(PATIENCE, partial(self._report, job, started))

    def _report(self, job: Job, started: float) -> None:
        is_encoding = self._embedding is None
        if is_encoding or not job.is_preview:
            self._on_waiting(Waiting(is_encoding, self._clock() - started, self._progress))
        if is_encoding:
            self._report_later(job, started)

    def _note_progress(self, share: float) -> None:
        self._progress = share

    def _time_decoding(self, embedding: Embedding) -> float:
        height, width = self._image.shape[:2]
        middle = Prompt(points=np.array([[width / 2, height / 2]]))
        self._sam.decode(embedding, middle)  # the first one is slow
        started = self._clock()
        self._sam.decode(embedding, middle)
        return self._clock() - started
