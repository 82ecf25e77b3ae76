"""A server from its start to its end: one process, or several that share a port."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from types import FrameType

import uvicorn
from fastapi import FastAPI

from finevote.errors import FinevoteError, ServingError
from finevote.onnx_model import SUFFIX as ONNX_SUFFIX
from finevote.serving.app import create_app
from finevote.serving.lifecycle import Lifecycle
from finevote.serving.logs import configure_logs, log
from finevote.serving.protocol import bounded
from finevote.serving.served import Served, load_served
from finevote.serving.settings import Settings

_BACKLOG = 512
_TICK_S = 0.2
_LONGEST_START_S = 2.0  # a worker that ends so soon is not started again at once
_STOPS = (signal.SIGINT, signal.SIGTERM)


class DrainingServer(uvicorn.Server):
    """uvicorn's server that, told to stop, first finishes what it accepted, and answers 503 to what still comes.

    A second Ctrl-C stops it at once; SIGTERM may come twice, from whoever ends the processes of a group and from their
    parent.
    """

    def __init__(self, config: uvicorn.Config, *, lifecycle: Lifecycle, drain_s: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_s = drain_s
        self._end: float | None = None
        self._is_interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        del frame
        if sig == signal.SIGINT:
            self.should_exit = self.force_exit = self._is_interrupted
            self._is_interrupted = True
        if self._end is None:
            self._end = time.monotonic() + self._drain_s
            self._lifecycle.stop()

    async def on_tick(self, counter: int) -> bool:
        """Tell whether it is over: nothing is left to be answered, or there is no time left."""
        if self._end is not None and (self._lifecycle.num_in_flight == 0 or time.monotonic() > self._end):
            self.should_exit = True
        return await super().on_tick(counter)


def serve(
    settings: Settings, *, host: str, port: int, workers: int = 1, announce: Callable[[str, Served], None]
) -> None:
    """Serve until the process is told to stop, by SIGTERM or Ctrl-C.

    Args:
        settings: what is served, and its limits.
        host: the address to listen at.
        port: 0 for any that is free.
        workers: processes that share the port, each with the model by itself.
        announce: is called with the address and the model once requests are heard.

    Raises:
        FinevoteError: the model cannot be loaded, the address cannot be had, or the workers do not start.
    """
    served = load_served(settings)
    with listen(host, port) as listener:
        app = create_app(settings, served=served) if workers == 1 else None  # else each worker loads its own
        configure_logs()
        listener.listen(_BACKLOG)
        announce(_address(host, listener.getsockname()[1]), served)
        log("start", model=served.reference.name, sha256=served.reference.sha256, workers=workers)
        if app is not None:
            run_server(app, settings, listener)
        else:
            _supervise(settings, listener, workers)
        log("stop")


def run_server(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    """Run an application in this process until it is told to stop."""
    lifecycle: Lifecycle = app.state.lifecycle
    DrainingServer(make_config(app, settings), lifecycle=lifecycle, drain_s=settings.drain_s).run([listener])


def make_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn is to run an application."""
    return uvicorn.Config(
        app,
        http=bounded(head_timeout_s=settings.head_timeout_s, max_connections=settings.max_connections),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(settings.drain_s, 1),
        h11_max_incomplete_event_size=settings.max_head_bytes,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address.

    Raises:
        ServingError: the address cannot be had.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(
            family, socket.SOCK_STREAM, socket.IPPROTO_TCP
        )  # named, else asyncio leaves out NODELAY
    except OSError as error:
        raise ServingError(f"cannot listen at {host}: {error.strerror or error}: give another --host") from None
    try:
        if os.name == "posix":  # where a port whose last connections still fade away would count as taken
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except OSError as error:
        listener.close()
        raise ServingError(
            f"cannot listen at {host}, port {port}: {error.strerror or error}: give another --port, 0 for any that is "
            "free, or another --host"
        ) from None
    listener.set_inheritable(True)
    return listener


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def _work(settings: Settings, listener: socket.socket, num_threads: int) -> None:
    """Be one of several processes, until told to stop or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until the server takes it: the parent tells what is to be done
    threading.Thread(target=_end_with_parent, daemon=True).start()
    configure_logs()
    if settings.bundle.suffix != ONNX_SUFFIX:  # an exported file runs where there is no torch
        import torch

        torch.set_num_threads(num_threads)
    try:
        app = create_app(settings)
    except FinevoteError as error:
        log("failed", level=40, reason=str(error))
        sys.exit(1)
    run_server(app, settings, listener)


def _end_with_parent() -> None:
    """Wait until the parent is gone, however it ended, and stop as when told."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        signal.raise_signal(signal.SIGTERM)


def _supervise(settings: Settings, listener: socket.socket, workers: int) -> None:
    """Keep so many processes at work until told to stop; one that dies is replaced."""
    is_told: list[int] = []
    before = {sig: signal.signal(sig, lambda sig, _: is_told.append(sig)) for sig in _STOPS}
    start = partial(_start_worker, settings, listener, max((os.cpu_count() or 1) // workers, 1))
    running = [start() for _ in range(workers)]
    begun = [time.monotonic()] * workers
    try:
        while not is_told:
            time.sleep(_TICK_S)
            for number, process in enumerate(running):
                if process.is_alive() or is_told:
                    continue
                if time.monotonic() - begun[number] < _LONGEST_START_S or process.exitcode == 1:
                    raise ServingError(
                        f"a worker ended as soon as it began, with exit code {process.exitcode}: the log says why"
                    )
                log("worker died", level=40, exit_code=process.exitcode)
                running[number], begun[number] = start(), time.monotonic()
    finally:
        _end(running, seconds=settings.drain_s + 5)
        for sig, handler in before.items():
            signal.signal(sig, handler)


def _start_worker(settings: Settings, listener: socket.socket, num_threads: int) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(
        target=_work, args=(settings, listener, num_threads), daemon=True
    )
    process.start()
    return process


def _end(processes: list[BaseProcess], *, seconds: float) -> None:
    """Let processes finish what they accepted; those that take too long are killed."""
    for process in processes:
        with suppress(OSError, AttributeError):
            process.terminate()
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(end - time.monotonic(), 0.1))
        if process.is_alive():
            process.kill()
            process.join()
