"""Servers of tiny models in a thread of this process, photographs to send, and raw requests."""

import io
import json
import socket
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from finevote.serving.app import create_app
from finevote.serving.server import DrainingServer, listen, make_config
from finevote.serving.settings import read_settings


class Reply(NamedTuple):
    """An answer of HTTP."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self):
        return json.loads(self.content)

    @property
    def reason(self):
        return self.json()["error"]["reason"]


class Live(NamedTuple):
    """A running server."""

    url: str
    app: object
    server: DrainingServer

    @property
    def place(self):
        parts = urlsplit(self.url)
        return parts.hostname, parts.port

    def ask(self, method, path, body=None, **headers):
        connection = HTTPConnection(*self.place, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, names, answer.read())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def post(self, path, body, **headers):
        return self.ask("POST", path, body, **headers)

    def predict(self, *files, query="", **headers):
        """Send files, each as bytes or as (name, bytes), as a form."""
        content_type, body = form(*files)
        return self.post(f"/v1/predict{query}", body, content_type=content_type, **headers)

    def connect(self):
        return socket.create_connection(self.place, timeout=60)

    def is_well(self):
        """Tell whether it still answers a photograph."""
        return self.predict(photograph()).status == 200


@contextmanager
def running(bundle, *, served=None, **settings):
    """Run a server of a bundle until the block ends; what it accepted is finished."""
    told = read_settings({}, bundle=bundle, **settings)
    app = create_app(told, served=served)
    with listen("127.0.0.1", 0) as listener:
        listener.listen(64)
        server = DrainingServer(make_config(app, told), lifecycle=app.state.lifecycle, drain_s=told.drain_s)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Live(f"http://127.0.0.1:{listener.getsockname()[1]}", app, server)
        finally:
            server.handle_exit(15, None)
            thread.join()


def pixels(*, seed=0, size=(60, 40)):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def photograph(*, seed=0, size=(60, 40), kind="PNG", **options):
    """Return the bytes of a file of noise."""
    file = io.BytesIO()
    Image.fromarray(pixels(seed=seed, size=size)).save(file, kind, **options)
    return file.getvalue()


def form(*files, field="images", boundary="7d1f"):
    """Return content type and body of a form of files, each as bytes or as (name, bytes)."""
    parts = []
    for number, file in enumerate(files):
        name, content = file if isinstance(file, tuple) else (f"{number}.png", file)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        parts += [head.encode(), content, b"\r\n"]
    return f"multipart/form-data; boundary={boundary}", b"".join([*parts, f"--{boundary}--\r\n".encode()])


def read_reply(connection):
    """Return what a raw connection answers, until it ends."""
    received = bytearray()
    while chunk := connection.recv(65536):
        received += chunk
    return bytes(received)
