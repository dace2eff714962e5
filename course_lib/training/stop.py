"""Ctrl-C, SIGTERM and a closed terminal end a training between two steps."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(KeyboardInterrupt):
    """A training was asked to stop and did, after `step` of `steps`; `path` is the checkpoint to go on from, if any.

    number: the signal (2 for Ctrl-C, 15 for SIGTERM, 1 for a closed terminal; 0 when another process got it).
    """

    def __init__(self, number: int, step: int, steps: int, path: Path | None) -> None:
        """See the class."""
        kept = f"; {path} is complete" if path else ""
        super().__init__(f"stopped after step {step} of {steps}{kept}")
        self.number, self.step, self.steps, self.path = number, step, steps, path


class StopRequest:
    """While the block runs, the first SIGINT, SIGTERM or SIGHUP only sets `number`; the next acts as it did before.

    Outside the main thread, and for signals that are ignored (nohup), nothing changes.
    """

    def __init__(self) -> None:
        """See the class."""
        self.number = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Set the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.Signals[name] for name in SIGNALS if hasattr(signal, name)):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Set the former handlers again."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.__exit__(None, None, None)
