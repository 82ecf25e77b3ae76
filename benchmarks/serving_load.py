"""What a server answers under load, batched and one image at a time: `python -m benchmarks.serving_load --bundle RUN`.

Two servers of the same bundle run in processes of their own, one with batches of up to 16 and one with batches of 1.
Clients in this process send photographs over loopback, each the next as soon as it has its answer, for a bounded time;
the two servers are asked in turn, round after round, so that the ratio of a round is of the same minute. Then the
memory of the batching server is read while it answers `--memory-requests` requests.

Writes `samples.json` and `tables.md` into `--out` after every measurement.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from finevote.files import atomic_write
from finevote.machine import describe_machine, describe_versions, find_commit

BATCHED, SINGLE = "batched", "one at a time"
SIZES = {BATCHED: 16, SINGLE: 1}
START_S = 300


class Server(NamedTuple):
    """A running server."""

    process: subprocess.Popen[str]
    port: int

    def resident_mb(self) -> float:
        """Return the memory that the server holds."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return float("nan")


class Sample(NamedTuple):
    """One round of one server under so many clients."""

    server: str
    num_clients: int
    round: int
    num_answers: int
    num_failed: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Answers in a second."""
        return self.num_answers / self.seconds


@contextmanager
def serving(bundle: Path, *, batch_size: int) -> Iterator[Server]:
    command = [sys.executable, "-m", "finevote", "serve", str(bundle), "--port", "0", "--batch", str(batch_size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = process.stdout.readline()
        if " at http://" not in line:
            sys.exit(f"the server did not start: {line}")
        server = Server(process, int(line.rsplit(":", 1)[1]))
        wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(server: Server) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=START_S)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
    sys.exit("the server is not ready")


def make_photographs(number: int, *, side_px: int) -> list[bytes]:
    """Return JPEGs of smoothed noise, as large as photographs are."""
    files = []
    for seed in range(number):
        small = np.random.default_rng(seed).integers(0, 256, (side_px // 8, side_px // 8, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((side_px, side_px), Image.Resampling.BICUBIC).save(file, "JPEG", quality=88)
        files.append(file.getvalue())
    return files


class Load:
    """Clients that ask until the time is over or enough was asked."""

    def __init__(self, port: int, photographs: Sequence[bytes], *, seconds: float, most: int) -> None:
        self._port, self._photographs = port, photographs
        self._end, self._most = time.monotonic() + seconds, most
        self._lock = threading.Lock()
        self._num_asked = 0
        self.times_s: list[float] = []
        self.num_failed = 0

    def run(self, num_clients: int) -> None:
        """Let so many clients ask, and return when all are done."""
        threads = [threading.Thread(target=self._ask) for _ in range(num_clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _next(self) -> int | None:
        with self._lock:
            if time.monotonic() > self._end or self._num_asked >= self._most:
                return None
            self._num_asked += 1
            return self._num_asked

    def _ask(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=120)
        while (number := self._next()) is not None:
            start = time.monotonic()
            try:
                connection.request("POST", "/v1/predict", self._photographs[number % len(self._photographs)])
                answer = connection.getresponse()
                answer.read()
                is_right = answer.status == 200
            except OSError:
                connection.close()
                is_right = False
            with self._lock:
                self.num_failed += not is_right
                if is_right:
                    self.times_s.append(time.monotonic() - start)
        connection.close()


def measure(
    name: str, server: Server, photographs: Sequence[bytes], *, num_clients: int, number: int, seconds: float, most: int
) -> Sample:
    load = Load(server.port, photographs, seconds=seconds, most=most)
    start = time.monotonic()
    load.run(num_clients)
    taken = time.monotonic() - start
    p50, p99 = np.percentile(load.times_s or [float("nan")], [50, 99]) * 1000
    return Sample(name, num_clients, number, len(load.times_s), load.num_failed, taken, float(p50), float(p99))


def watch_memory(server: Server, photographs: Sequence[bytes], *, number: int) -> list[dict[str, float]]:
    """Return the resident memory after every tenth of so many requests of eight clients."""
    found = [{"num_requests": 0, "resident_mb": server.resident_mb()}]
    for tenth in range(1, 11):
        load = Load(server.port, photographs, seconds=3600, most=number // 10)
        load.run(8)
        found.append({"num_requests": tenth * (number // 10), "resident_mb": server.resident_mb()})
        print(f"{found[-1]['num_requests']:,} requests: {found[-1]['resident_mb']:.0f} MB", flush=True)
    return found


def tables(samples: Sequence[Sample], memory: Sequence[dict[str, float]]) -> str:
    lines = ["| clients | server | answers a second | p50 ms | p99 ms | failed |", "|---|---|---|---|---|---|"]
    numbers = sorted({sample.num_clients for sample in samples})
    for num_clients in numbers:
        for name in SIZES:
            rows = [sample for sample in samples if (sample.num_clients, sample.server) == (num_clients, name)]
            if rows:
                speed, p50, p99 = (
                    statistics.median(values)
                    for values in zip(*((row.per_second, row.p50_ms, row.p99_ms) for row in rows), strict=True)
                )
                failed = sum(row.num_failed for row in rows)
                lines.append(f"| {num_clients} | {name} | {speed:.1f} | {p50:.0f} | {p99:.0f} | {failed} |")
    lines += [
        "",
        "| clients | batched over one at a time, median of rounds | smallest | largest |",
        "|---|---|---|---|",
    ]
    for num_clients in numbers:
        found = ratios(samples, num_clients)
        if found:
            lines.append(f"| {num_clients} | {statistics.median(found):.2f} | {min(found):.2f} | {max(found):.2f} |")
    if memory:
        lines += ["", "| requests | resident MB |", "|---|---|"]
        lines += [f"| {row['num_requests']:,.0f} | {row['resident_mb']:.0f} |" for row in memory]
    return "\n".join(lines) + "\n"


def describe(sample: Sample) -> str:
    return (
        f"round {sample.round}, {sample.num_clients} clients, {sample.server}: {sample.per_second:.1f}/s, "
        f"p50 {sample.p50_ms:.0f} ms, p99 {sample.p99_ms:.0f} ms, {sample.num_failed} failed"
    )


def ratios(samples: Sequence[Sample], num_clients: int) -> list[float]:
    speeds = {(row.server, row.round): row.per_second for row in samples if row.num_clients == num_clients}
    rounds = {number for _, number in speeds}
    return [
        speeds[BATCHED, number] / speeds[SINGLE, number]
        for number in sorted(rounds)
        if (BATCHED, number) in speeds and speeds.get((SINGLE, number))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="a run, a bundle folder or an .onnx file")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving_load"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one round at most")
    parser.add_argument("--most", type=int, default=2000, help="requests of one round at most")
    parser.add_argument("--side", type=int, default=512, help="of the photographs, in px")
    parser.add_argument("--memory-requests", type=int, default=5000)
    arguments = parser.parse_args()
    photographs = make_photographs(32, side_px=arguments.side)
    samples: list[Sample] = []
    memory: list[dict[str, float]] = []
    setting = {
        "command": " ".join(["python -m benchmarks.serving_load", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "commit": find_commit(),
        "bundle": arguments.bundle.name,
        "photographs": f"{len(photographs)} JPEGs of {arguments.side} px a side",
        "load_average": os.getloadavg(),
    }

    def write() -> None:
        told: dict[str, Any] = {**setting, "samples": [row._asdict() for row in samples], "memory": memory}
        atomic_write(arguments.out / "samples.json", json.dumps(told, indent=1, default=str) + "\n")
        atomic_write(arguments.out / "tables.md", tables(samples, memory))

    with serving(arguments.bundle, batch_size=16) as batched, serving(arguments.bundle, batch_size=1) as single:
        servers = {BATCHED: batched, SINGLE: single}
        for server in servers.values():  # once before it counts
            Load(server.port, photographs, seconds=30, most=20).run(4)
        for number in range(arguments.rounds):
            for num_clients in arguments.clients:
                for name in list(SIZES)[:: 1 if number % 2 else -1]:
                    sample = measure(
                        name,
                        servers[name],
                        photographs,
                        num_clients=num_clients,
                        number=number,
                        seconds=arguments.seconds,
                        most=arguments.most,
                    )
                    samples.append(sample)
                    print(describe(sample), flush=True)
                    write()
        if arguments.memory_requests:
            memory += watch_memory(batched, photographs, number=arguments.memory_requests)
            write()
    print(tables(samples, memory))


if __name__ == "__main__":
    main()
