import os
import signal

from finevote.bench.memory import in_fresh_process


def test_a_fresh_process_is_another_one_that_ctrl_c_ends_without_a_word():
    assert in_fresh_process(os.getpid) != os.getpid()
    assert in_fresh_process(signal.getsignal, signal.SIGINT) is signal.SIG_DFL
