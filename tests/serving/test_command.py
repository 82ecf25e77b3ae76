"""The command `finevote serve`: what it refuses, and how it lives and ends as a process."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException

import pytest

from tests.serving.live import photograph


def test_a_port_that_is_taken_is_told(run, bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("serve", bundle, "--port", port)
    assert code == 2
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in err
    assert "give another --port, 0 for any that is free" in err


def test_an_address_of_another_machine_is_told(run, bundle):
    code, _, err = run("serve", bundle, "--host", "192.0.2.1", "--port", "0")
    assert code == 2
    assert "cannot listen at 192.0.2.1, port 0" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "gone is not there: give a bundle folder"),
        (["gone.onnx"], "there is no file gone.onnx"),
        (["gone", "--max-images", "200"], "max_images=200 exceeds queue_images=128"),
        (["gone", "--device", "quantum"], "gone is not there"),
        (["gone", "--port", "70000"], "should be less than or equal to 65535"),
        (["gone", "--timeout", "0"], "request_timeout_s: input should be greater than 0"),
        (["gone", "--api-key-file", "none.txt"], "cannot read the API key in none.txt"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("serve", *arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("content", ["", "\n", "schlüssel"])
def test_a_file_without_a_key_is_refused(run, tmp_path, content):
    (tmp_path / "key.txt").write_text(content)
    code, _, err = run("serve", "gone", "--api-key-file", tmp_path / "key.txt")
    assert code == 2
    assert "key.txt holds no API key" in err


def test_what_is_not_installed_is_told_with_the_command_that_installs_it(run, monkeypatch):
    monkeypatch.setattr("finevote.cli_serve.find_spec", lambda name: None if name == "uvicorn" else name)
    code, _, err = run("serve", "gone")
    assert (code, err) == (2, "error: uvicorn is not installed: pip install 'finevote[serve]'\n")


class Command:
    """`finevote serve` as a process."""

    def __init__(self, bundle, *arguments):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "finevote", "serve", bundle, "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def ask(self):
        """Return the status of an answer, "cut" where it was not whole, None where the request was not accepted."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        status = None
        try:
            connection.request("POST", "/v1/predict", photograph(size=(120, 90)))
            answer = connection.getresponse()
            status = "cut"
            answer.read()
        except (OSError, HTTPException):
            return status
        finally:
            connection.close()
        return answer.status

    def stop(self, sig):
        """Send a signal, and return the exit code and the lines of the log."""
        self.process.send_signal(sig)
        _, err = self.process.communicate(timeout=120)
        return self.process.returncode, [json.loads(line) for line in err.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_a_server_that_is_terminated_under_load_answers_all_that_it_accepted(bundle, arguments):
    command = Command(bundle, *arguments)
    while command.ask() != 200:
        pass
    over, found = threading.Event(), []

    def ask_on():
        while not over.is_set():
            found.append(command.ask())

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(ask_on)
        while len(found) < 50:
            threading.Event().wait(0.01)
        code, lines = command.stop(signal.SIGTERM)
        over.set()
    answered = [line["status"] for line in lines if line["event"] == "request" and line["path"] == "/v1/predict"]
    assert code == 0
    assert set(found) <= {200, 503, None}
    assert found.count(200) == answered.count(200) - 1  # the first was asked before
    assert set(answered) <= {200, 503}
    assert lines[-1]["event"] == "stop"


@pytest.mark.slow
def test_ctrl_c_ends_it_well(bundle):
    command = Command(bundle)
    assert command.ask() == 200
    code, lines = command.stop(signal.SIGINT)
    assert code == 0
    assert [line["event"] for line in lines if line["event"] != "request"] == ["start", "stop"]


@pytest.mark.long
@pytest.mark.slow
def test_workers_whose_parent_is_killed_end_too(bundle):
    command = Command(bundle, "--workers", "2")
    while command.ask() != 200:
        pass
    command.process.kill()
    command.process.communicate(timeout=120)  # which waits until nobody holds the pipes of the log
    assert command.ask() is None
