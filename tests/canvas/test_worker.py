"""The model's thread without widgets and without waiting: what it does, in which order, and what it reports."""

import asyncio
from functools import partial

import numpy as np
import pytest
from discs import Discs
from fake_time import FakeTime

from sam_nb import Prompt
from sam_nb.canvas.worker import Job, Waiting, Worker

IMAGE = np.zeros((60, 90, 3), np.uint8)
CLICK = Prompt(points=[(20, 30)])


@pytest.fixture
def clock():
    return FakeTime()


@pytest.fixture
def model(clock):
    return Discs(60, 90, sleep=clock.sleep)


@pytest.fixture
def reports():
    """Return what a worker reports, in order."""
    return []


@pytest.fixture
def worker(model, clock, reports):
    made = Worker(
        model,
        IMAGE,
        on_error=lambda error: reports.append(f"error: {error}"),
        on_waiting=reports.append,
        on_idle=lambda: reports.append("idle"),
        clock=clock,
        call_later=clock.call_later,
    )
    yield made
    made.close()


def job(worker, reports, name, **options):
    """Return a job that decodes a click; what it shows is reported."""

    def prepare():
        worker.decode(CLICK)
        reports.append(f"prepared {name}")
        return partial(reports.append, f"shown {name}")

    return Job(prepare, **options)


async def entered(model):
    """Wait until the model computes, which it does until its gate is opened."""
    await asyncio.to_thread(model.entered.wait, 60)
    model.entered.clear()


def test_an_image_is_encoded_once_and_only_when_it_is_needed(worker, model):
    assert model.encode_count == 0
    first, second = worker.decode(CLICK), worker.decode(CLICK)
    np.testing.assert_array_equal(first.bits, second.bits)
    assert model.encode_count == 1
    assert worker.decode_seconds is None


def test_a_decoding_is_timed_without_the_first(model, clock):
    model.wait = 0.25
    worker = Worker(model, IMAGE, times_decoding=True, clock=clock)
    worker.embedding()
    assert worker.decode_seconds == 0.25
    assert len(model.prompts) == 2
    worker.close()


def test_without_an_event_loop_a_job_is_done_at_once(worker, reports):
    worker.request(job(worker, reports, "masks"))
    assert reports == ["prepared masks", "shown masks"]
    assert not worker.is_busy


def test_in_an_event_loop_a_job_is_prepared_in_the_thread_and_shown_in_the_loop(worker, model, reports):
    async def scene():
        worker.request(job(worker, reports, "masks"))
        assert worker.is_busy
        assert reports == []
        await worker.join()

    asyncio.run(scene())
    assert reports == ["prepared masks", "shown masks", "idle"]
    assert all(name.startswith("sam-nb") for name in model.threads)
    assert not worker.is_busy


def test_stale_masks_are_dropped_and_the_newest_shown(worker, model, reports):
    masks = job(worker, reports, "masks")

    async def scene():
        model.gate.clear()
        worker.request(masks)
        await entered(model)
        for _ in range(5):
            worker.request(masks)
        model.gate.set()
        await worker.join()

    asyncio.run(scene())
    assert reports == ["prepared masks", "prepared masks", "shown masks", "idle"]


def test_previews_wait_for_masks_and_are_shown_even_if_stale(worker, model, reports):
    masks, preview = job(worker, reports, "masks"), job(worker, reports, "preview", is_preview=True)

    async def scene():
        model.gate.clear()
        worker.request(preview)
        await entered(model)
        worker.request(preview)
        worker.request(masks)
        model.gate.set()
        await worker.join()

    asyncio.run(scene())
    rounds = [[f"prepared {name}", f"shown {name}"] for name in ("preview", "masks", "preview")]
    assert reports == [*rounds[0], *rounds[1], *rounds[2], "idle"]


def test_a_job_that_was_cancelled_is_not_done(worker, model, reports):
    masks, preview = job(worker, reports, "masks"), job(worker, reports, "preview", is_preview=True)

    async def scene():
        model.gate.clear()
        worker.request(masks)
        await entered(model)
        worker.request(preview)
        worker.cancel(preview)
        model.gate.set()
        await worker.join()

    asyncio.run(scene())
    assert reports == ["prepared masks", "shown masks", "idle"]


@pytest.mark.parametrize("in_loop", [False, True])
def test_an_error_is_reported_and_the_next_job_is_done(worker, model, reports, in_loop):
    async def scene():
        for model.fails in (True, False):
            worker.request(job(worker, reports, "masks"))
            await worker.join()

    def at_once():
        for model.fails in (True, False):
            worker.request(job(worker, reports, "masks"))

    asyncio.run(scene()) if in_loop else at_once()
    idle = ["idle"] * in_loop
    error = "error: the model has <no> memory left"
    assert reports == [error, *idle, "prepared masks", "shown masks", *idle]


def test_waiting_is_reported_while_it_lasts(worker, model, clock, reports):
    async def scene():
        model.gate.clear()
        worker.request(job(worker, reports, "masks"))
        await entered(model)
        clock.advance(0.2)
        assert reports == []
        clock.advance(0.5)
        model.gate.set()
        await worker.join()

    asyncio.run(scene())
    clock.advance(5)
    assert reports == [
        Waiting(is_encoding=True, seconds=pytest.approx(0.3), progress=0.25),
        Waiting(is_encoding=True, seconds=pytest.approx(0.6), progress=0.25),
        "prepared masks",
        "shown masks",
        "idle",
    ]


@pytest.mark.parametrize("is_preview", [False, True])
def test_waiting_for_a_decoding_is_reported_once_and_for_a_preview_never(worker, model, clock, reports, is_preview):
    worker.embedding()
    model.entered.clear()

    async def scene():
        model.gate.clear()
        worker.request(job(worker, reports, "job", is_preview=is_preview))
        await entered(model)
        clock.advance(5)
        model.gate.set()
        await worker.join()

    asyncio.run(scene())
    waiting = [] if is_preview else [Waiting(is_encoding=False, seconds=pytest.approx(0.3), progress=0.25)]
    assert reports == [*waiting, "prepared job", "shown job", "idle"]
