"""The fuzz campaign in short, and whether it finds what it should: each planted fault is reported, none is missed."""

import concurrent.futures
import functools
import hashlib
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sam_nb import Prompt
from sam_nb.files.records import naming
from tests.fuzz.harness import Report, Result, Worker, campaign, input_of
from tests.fuzz.targets import TARGETS, Target

INPUTS = 200  # of each target

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def worker():
    with Worker(max_seconds=60) as process:
        yield process


@pytest.mark.parametrize("name", TARGETS)
def test_only_our_own_errors_come_of_damage(worker, name):
    report = campaign(worker, TARGETS[name], 0, range(INPUTS), 600)
    assert not report.faults, report.faults[0]
    assert report.inputs == INPUTS
    assert report.accepted > 0
    assert report.refused > INPUTS / 4


def digests_of_inputs():
    return {
        name: hashlib.sha256(b"".join(input_of(target, 3, number) for number in range(60))).hexdigest()
        for name, target in TARGETS.items()
    }


def test_another_process_makes_the_same_inputs():
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(digests_of_inputs).result() == digests_of_inputs()


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_does_not_depend_on_those_before_it(name):
    numbers = [*range(60)]
    forwards = [input_of(TARGETS[name], 3, number) for number in numbers]
    backwards = [input_of(TARGETS[name], 3, number) for number in reversed(numbers)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) > 30


# Planted faults ----------------------------------------------------------------------------------------------------


def number_of(rng: random.Random) -> bytes:
    return str(rng.randrange(10**9)).encode()


WRONG = 7
TEXT = input_of(Target("planted", ".txt", number_of, print), 0, WRONG).decode()


def planted(what: str, path: Path) -> None:
    """Do something wrong with one input."""
    if path.read_text() == TEXT:
        PLANTED[what](path)


def crash(path: Path) -> None:
    os.abort()


def refuse_without_the_name(path: Path) -> None:
    Prompt.from_json("{")


def refuse_in_words_of_numpy(path: Path) -> None:
    with naming(path):
        np.zeros(3).reshape(2, 2)


def take_all_memory(path: Path) -> None:
    np.ones(2**34)


PLANTED = {
    "IndexError": lambda path: path.parts[99],
    "it takes more than 2 s": lambda path: time.sleep(60),
    "the process crashed": crash,
    "an error that does not name the file": refuse_without_the_name,
    "ValueError of another library": refuse_in_words_of_numpy,
    "more memory than 4 GB": take_all_memory,
    "it did os.system": lambda path: os.system("exit 3"),
}


@pytest.fixture(scope="module")
def hasty_worker():
    with Worker(max_seconds=2) as process:
        yield process


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_fault_is_found(hasty_worker, what):
    if what.startswith("more memory") and not sys.platform.startswith("linux"):
        pytest.skip("only Linux limits the memory of a process")
    target = Target("planted", ".txt", number_of, functools.partial(planted, what))
    report = campaign(hasty_worker, target, 0, range(WRONG - 1, WRONG + 2), 600)
    (fault,) = report.faults
    assert fault.number == WRONG
    assert fault.verdict.startswith(what)
    assert (report.inputs, report.accepted, report.refused) == (3, 2, 0)


def test_growth_of_memory_is_measured_after_warm_up():
    report = Report(TARGETS["coco"], 0)
    for number in range(100):
        report.add(Result(number, "accepted", memory=1000 * min(number, 15) + number))
    assert report.growth == pytest.approx(60, abs=2)  # from the middle of 20 to 40 to that of 80 to 100


def test_the_command(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "tests.fuzz", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = run("--target", "prompts", "--target", "labelme", "--count", 20, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows if row] == [["target", "inputs"], ["prompts", "20"], ["labelme", "20"]]
    assert not list(tmp_path.iterdir())
    path = tmp_path / "labelme-0-7.json"
    path.write_text("{")
    assert run("--replay", path).stdout.startswith("labelme: refused")
