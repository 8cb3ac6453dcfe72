"""A clock that stands still until a test moves it, for everything that measures or waits."""

from dataclasses import dataclass


@dataclass(eq=False)
class Timer:
    due: float
    function: object
    is_cancelled: bool = False

    def cancel(self):
        self.is_cancelled = True


class FakeTime:
    """Call it for the time in seconds, as `time.perf_counter`."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        """Let time pass without calling anything, as a computation does."""
        self.now += seconds

    def call_later(self, seconds, function):
        self.timers.append(Timer(self.now + seconds, function))
        return self.timers[-1]

    def advance(self, seconds):
        """Let time pass and call what is due by then, in order."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.due <= end and not timer.is_cancelled]:
            timer = min(due, key=lambda timer: timer.due)
            self.timers.remove(timer)
            self.now = max(self.now, timer.due)
            timer.function()
        self.now = end
