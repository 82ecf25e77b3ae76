import os
import signal
import threading

import pytest

from finevote.errors import ConfigError, RunError
from finevote.training.launch import launch, listen_for_stop, make_fabric


def send(number):
    os.kill(os.getpid(), number)


def test_fp16_needs_a_gpu(monkeypatch):
    monkeypatch.setattr("finevote.training.launch.find_accelerator", lambda: "cpu")
    with pytest.raises(ConfigError, match=r"training\.precision=fp16 needs a GPU.*: use bf16 or fp32"):
        make_fabric(devices=1, precision="fp16")


def test_more_devices_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr("finevote.training.launch.find_accelerator", lambda: "mps")
    with pytest.raises(ConfigError, match=r"--devices 2 asks for more than the 1 GPUs of this machine: lower it"):
        make_fabric(devices=2, precision="fp32")


def kill_the_last_process(fabric):
    if fabric.global_rank == fabric.world_size - 1:
        send(signal.SIGKILL)
    fabric.barrier()


@pytest.mark.slow
def test_a_process_that_something_else_killed_is_an_error_not_a_wish_to_stop():
    with pytest.raises(RunError, match=r"training process 1 was ended by SIGKILL from outside.*goes on with --resume"):
        launch(make_fabric(devices=2, precision="fp32"), kill_the_last_process)


def test_making_fabric_says_nothing(capfd):
    make_fabric(devices=1, precision="fp32")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_becomes_a_request(number):
    with listen_for_stop() as stop:
        assert not stop.requested
        send(number)
        assert stop.requested


def test_a_second_interrupt_acts_at_once():
    with listen_for_stop():
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_the_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with listen_for_stop():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_handled():
    requests = []

    def listen():
        with listen_for_stop() as stop:
            requests.append(stop.requested)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert requests == [False]
