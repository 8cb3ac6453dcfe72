"""Try a target's inputs in a process of its own, and judge what comes of each.

An input follows from target, seed and number alone, so that the process that is watching can make it again when the one
that was trying it hangs or crashed.
"""

import contextlib
import dis
import gc
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

import sam_nb
from tests.fuzz.targets import Target

MAX_SECONDS = 10.0  # of an input
MAX_MEMORY = 4 * 2**30  # bytes that an input may take beside what is loaded
MAX_MESSAGE = 2000  # characters
MAX_GROWTH = 50 * 2**20  # bytes, between warm-up and end
MIN_INPUTS = 50  # of which growth is measured
WARM_UP = 0.2  # share of the inputs after which memory should no longer grow
START_SECONDS = 300.0  # libraries are loaded

ACCEPTED, REFUSED = "accepted", "refused"
OURS = (ValueError, RuntimeError, FileNotFoundError)
# What no reader of files does; see https://docs.python.org/3/library/audit_events.html
FORBIDDEN = ("os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.startfile", "os.system")
FORBIDDEN += ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "webbrowser.open")

QUOTED = "The reason: "
PACKAGE = str(Path(sam_nb.__file__).parent)
RAISE = dis.opmap["RAISE_VARARGS"]


@dataclass(frozen=True)
class Result:
    """What came of an input: `ACCEPTED`, `REFUSED`, or a fault in words, which are the same for faults of one kind."""

    number: int
    verdict: str
    details: str = ""
    seconds: float = 0.0
    memory: int = 0  # bytes of the process

    @property
    def is_fault(self) -> bool:
        return self.verdict not in (ACCEPTED, REFUSED)


@dataclass
class Report:
    """What came of a target's inputs."""

    target: Target
    seed: int
    inputs: int = 0
    accepted: int = 0
    faults: list[Result] = field(default_factory=list)
    slowest: Result = field(default_factory=lambda: Result(0, ACCEPTED))
    memory: list[int] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.inputs += 1
        self.accepted += result.verdict == ACCEPTED
        self.slowest = max(self.slowest, result, key=lambda each: each.seconds)
        if result.is_fault:
            self.faults.append(result)
        if result.memory:
            self.memory.append(result.memory)
        else:
            self.memory = []  # another process goes on

    @property
    def refused(self) -> int:
        return self.inputs - self.accepted - len(self.faults)

    @property
    def growth(self) -> int:
        """Bytes by which memory grew after warm-up: between the medians of the inputs after it and the last ones."""
        if len(self.memory) < MIN_INPUTS:
            return 0
        share = int(len(self.memory) * WARM_UP)
        early, late = self.memory[share : 2 * share], self.memory[-share:]
        return sorted(late)[share // 2] - sorted(early)[share // 2]


def input_of(target: Target, seed: int, number: int) -> bytes:
    """Return an input; the same for the same three on every computer."""
    return target.make(random.Random(f"{target.name} {seed} {number}"))


# Judging ------------------------------------------------------------------------------------------------------------


def judge(target: Target, path: Path) -> tuple[str, str]:
    """Read a file and return the verdict and, of a fault, its details."""
    try:
        target.read(path)
    except MemoryError as error:
        return f"more memory than {MAX_MEMORY >> 30} GB, {_place(error)}", traceback.format_exc()
    except BaseException as error:
        reason = _fault(error, path.name if target.names_file else "")
        return (f"{reason}, {_place(error)}", traceback.format_exc()) if reason else (REFUSED, "")
    return ACCEPTED, ""


def _fault(error: BaseException, name: str) -> str:
    """Return why an error is a fault; "" if it is one of ours, as it should be."""
    message = str(error)
    if type(error) not in OURS:
        return f"{type(error).__name__}: {message[:80]}" if isinstance(error, AssertionError) else type(error).__name__
    if not _is_raised_by_us(error):
        return f"{type(error).__name__} of another library"
    if not message.strip():
        return "an error without words"
    if len(message) > MAX_MESSAGE:
        return "an error of too many words"
    return "" if name in message else "an error that does not name the file"


def _is_raised_by_us(error: BaseException) -> bool:
    """Tell whether an error stands on a `raise` of the package, and is not another's with a place in front of it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_code.co_filename.startswith(PACKAGE):
        return False
    if trace.tb_frame.f_code.co_code[trace.tb_lasti] != RAISE:
        return False
    cause, message = error.__cause__, str(error)
    is_quoted = message.endswith(f"{QUOTED}{cause}")  # other words behind a sentence of ours
    return type(cause) is not ValueError or is_quoted or not message.endswith(str(cause)) or _is_raised_by_us(cause)


def _place(error: BaseException) -> str:
    """Return the line of the package that an error comes from."""
    lines = [line for line in traceback.extract_tb(error.__traceback__) if line.filename.startswith(PACKAGE)]
    return f"{Path(lines[-1].filename).name}:{lines[-1].lineno}" if lines else "outside of the package"


# The process that tries -----------------------------------------------------------------------------------------------


def serve(pipe: Connection, folder: str) -> None:
    """Try inputs, in a process of its own, until the pipe is closed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C write their own words about damage
    forbidden: list[str] = []
    sys.addaudithook(lambda event, _: forbidden.append(event) if event in FORBIDDEN else None)
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", RuntimeWarning)  # NumPy's, of an overflow for example
    pipe.send(None)
    with contextlib.suppress(EOFError):
        while True:
            target, seed, numbers, seconds = pipe.recv()
            path, process = Path(folder) / f"input{target.suffix}", psutil.Process()
            path.write_bytes(input_of(target, seed, -1))
            judge(target, path)  # loads libraries
            _limit_memory(process)
            pipe.send(None)
            end = time.monotonic() + seconds
            for number in numbers:
                path.write_bytes(input_of(target, seed, number))
                forbidden.clear()
                start = time.monotonic()
                verdict, details = judge(target, path)
                took = time.monotonic() - start
                if forbidden:
                    verdict, details = f"it did {forbidden[0]}", ""
                pipe.send(Result(number, verdict, details, took, process.memory_info().rss))
                if time.monotonic() > end:
                    break
            gc.collect()
            pipe.send(None)


def _limit_memory(process: psutil.Process) -> None:
    """Let allocations fail that would take the computer's memory, where the system can do that."""
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):
        import resource

        most = process.memory_info().data + MAX_MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


# The process that watches ---------------------------------------------------------------------------------------------


class Worker:
    """A process that tries inputs, started again whenever one of them hangs it or crashes it."""

    def __init__(self, max_seconds: float = MAX_SECONDS) -> None:
        self.max_seconds = max_seconds
        self._too_slow = f"it takes more than {max_seconds:g} s, twice"
        self._folder = tempfile.TemporaryDirectory(prefix="sam-nb-fuzz-")
        self._process = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._folder.cleanup()

    def results(self, target: Target, seed: int, numbers: range, seconds: float) -> Iterator[Result]:
        """Yield what comes of the inputs with these numbers, one after the other, until time is over."""
        end, suspect = time.monotonic() + seconds, None
        while numbers and time.monotonic() < end:
            if self._process is None:
                self._start()
            self._pipe.send((target, seed, numbers, end - time.monotonic()))
            self._receive(START_SECONDS)
            while numbers:
                result = self._receive(self.max_seconds, numbers[0])
                if result is None:
                    return
                if result.verdict == self._too_slow and suspect != result.number:
                    suspect = result.number  # tried again: perhaps the computer was busy
                    break
                numbers = numbers[1:]
                yield result
                if self._process is None:
                    break
            else:
                self._receive(START_SECONDS)

    def _receive(self, seconds: float, number: int = -1) -> Result | None:
        """Return what the process sends; without it a fault, and the process is ended."""
        start = time.monotonic()
        try:
            if self._pipe.poll(seconds):
                return self._pipe.recv()
            verdict = self._too_slow
        except (EOFError, ConnectionError):
            self._process.join()
            verdict = f"the process crashed, exit code {self._process.exitcode}"
        self._stop()
        if number < 0:
            raise RuntimeError(verdict)
        return Result(number, verdict, seconds=time.monotonic() - start)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._folder.name), daemon=True)
        self._process.start()
        theirs.close()
        self._receive(START_SECONDS)

    def _stop(self) -> None:
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process = None


def campaign(worker: Worker, target: Target, seed: int, numbers: range, seconds: float) -> Report:
    """Try a target's inputs with these numbers, until time is over."""
    report = Report(target, seed)
    for result in worker.results(target, seed, numbers, seconds):
        report.add(result)
    if report.growth > MAX_GROWTH:
        report.faults.append(Result(report.inputs, f"memory grew by {report.growth >> 20} MB"))
    return report
