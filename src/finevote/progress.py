"""How far a long job is: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

SECONDS_BETWEEN_LINES = 30.0


class Meter:
    """Counts units of a job (`unit`: images, steps, bytes) up to `total`, None where nobody knows.

    On a terminal a bar with the rate, the time left and a note is redrawn in place and leaves nothing behind.
    Elsewhere a line is written at most every `seconds_between_lines`. `clock` counts seconds. Lines printed through
    `print` keep clear of the bar.
    """

    def __init__(
        self,
        description: str,
        *,
        total: int | None,
        unit: str = "images",
        done: int = 0,
        console: Console | None = None,
        seconds_between_lines: float = SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.description = description
        self.total = total
        self.unit = unit
        self.done = done
        self.console = console or Console(stderr=True)
        self._skipped = done
        self._seconds_between_lines = seconds_between_lines
        self._clock = clock
        self._start = self._last_line = clock()
        self._bar = _make_bar(self.console, in_bytes=unit == "bytes") if self.console.is_terminal else None
        self._task = None
        if self._bar:
            self._task = self._bar.add_task(description, total=total, completed=done, rate="", note="")

    def __enter__(self) -> Self:
        self._start = self._last_line = self._clock()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def per_second(self) -> float:
        """Units a second since the start; 0 before any."""
        seconds = self._clock() - self._start
        return (self.done - self._skipped) / seconds if seconds > 0 else 0.0

    def advance(self, count: int, *, note: str = "") -> None:
        """Count `count` more units; `note` is shown behind the bar or the line."""
        self.done += count
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self.done, rate=self._rate(), note=note)
        elif self._clock() - self._last_line >= self._seconds_between_lines:
            self._last_line = self._clock()
            self.print(self._line(note))

    def print(self, line: str) -> None:
        """Write a line that stays, as it is: nothing in it is markup."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _line(self, note: str) -> str:
        total = "" if self.total is None else f"/{self._amount(self.total)}"
        parts = [f"{self.description} {self._amount(self.done)}{total}", self._rate()]
        if self.total is not None and self.per_second > 0:
            parts.append(f"{describe_seconds((self.total - self.done) / self.per_second)} left")
        return ", ".join([*parts, note] if note else parts)

    def _amount(self, count: int) -> str:
        return decimal(count) if self.unit == "bytes" else str(count)

    def _rate(self) -> str:
        return f"{decimal(int(self.per_second))}/s" if self.unit == "bytes" else f"{self.per_second:.1f} {self.unit}/s"


def describe_seconds(seconds: float) -> str:
    """Return a duration with its two largest units: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class _NoteColumn(ProgressColumn):
    """The one column that gives way on a narrow terminal: its text is cut, not wrapped."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


def _make_bar(console: Console, *, in_bytes: bool) -> Progress:
    count = DownloadColumn if in_bytes else MofNCompleteColumn
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12, table_column=Column(no_wrap=True)),
        count(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        _NoteColumn(),
        console=console,
        transient=True,
    )
