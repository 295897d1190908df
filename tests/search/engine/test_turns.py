"""Measurements and training steps of several processes take turns."""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from search.evaluation import turns
from search.evaluation.turns import Steps, measuring

fcntl = pytest.importorskip("fcntl", reason="turns are taken by POSIX locks")


@pytest.fixture(autouse=True)
def own_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def hold(how: str, pipe: Connection) -> None:
    """Hold a turn from when told until told to let go; say when it is held."""
    pipe.send("up")
    pipe.recv()
    with Steps() as steps, measuring() if how == "measuring" else steps.turn():
        pipe.send("held")
        pipe.recv()


class Other:
    """Another process that measures, or takes a training step."""

    def __init__(self, how: str, *, waits: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=hold, args=(how, theirs), daemon=True)
        self.process.start()
        theirs.close()
        assert self.pipe.recv() == "up"
        if not waits:
            self.start()

    def start(self) -> None:
        self.pipe.send("start")

    def wait(self) -> None:
        assert self.pipe.recv() == "held"

    def let_go(self) -> None:
        self.pipe.send("go")


@pytest.mark.parametrize(
    ("first", "second"), [("measuring", "measuring"), ("measuring", "step"), ("step", "measuring")]
)
def test_a_measurement_is_alone(first: str, second: str):
    two = Other(second, waits=True)
    one = Other(first)
    one.wait()
    two.start()
    assert not two.pipe.poll(0.5)
    one.let_go()
    two.wait()
    two.let_go()


def test_steps_are_taken_side_by_side():
    one, two = Other("step"), Other("step")
    one.wait()
    two.wait()
    one.let_go()
    two.let_go()


def test_a_lock_whose_holder_died_is_free():
    other = Other("measuring")
    other.wait()
    other.process.kill()
    other.process.join()
    with measuring():
        pass


def test_waiting_is_said(caplog: pytest.LogCaptureFixture):
    with turns._lock_file("gate").open("ab") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)  # someone holds it all the while that we look
        threading.Timer(0.2, lambda: fcntl.flock(gate, fcntl.LOCK_UN)).start()
        with measuring():
            pass
    assert "waiting: another hfir-search measures on this machine" in caplog.text


def test_a_measurement_within_a_measurement_does_not_wait_for_itself():
    with measuring(), measuring():
        pass
    with Steps() as steps, steps.turn():
        pass


def test_measurements_come_between_the_steps_of_a_training():
    other = Other("measuring", waits=True)
    with Steps() as steps:
        with steps.turn():
            other.start()
            assert not other.pipe.poll(0.3)
        assert other.pipe.poll(turns.STEP_LIMIT_S / 2), "it does not wait for a step that is over"
        other.wait()
        other.let_go()
        with steps.turn():
            pass


def test_a_step_that_fails_is_over():
    other = Other("measuring", waits=True)
    with pytest.raises(ValueError, match="diverged"), Steps() as steps, steps.turn():
        raise ValueError("diverged")
    other.start()
    assert other.pipe.poll(turns.STEP_LIMIT_S / 2)
    other.wait()
    other.let_go()


def test_a_trainer_that_is_halted_does_not_halt_a_measurement(monkeypatch, caplog):
    monkeypatch.setattr(turns, "STEP_LIMIT_S", 0.05)
    with turns._lock_file("floor").open("ab") as floor:
        fcntl.flock(floor, fcntl.LOCK_SH)
        with measuring():
            pass
    assert "measuring beside a training step" in caplog.text
