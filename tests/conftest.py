"""What all tests share: one thread for torch, a small profile for Hypothesis, figures that cost no time."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from search.evaluation import made_up

torch.set_num_threads(1)

# Times say nothing on a shared machine: no deadlines. CI (set in .ci/run) repeats the same examples, and more of them.
settings.register_profile("local", max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), max_examples=25, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remember latencies, photographs and databases in folders of the session, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def made_up_figures() -> Iterator[None]:
    """Make latencies and peak memory up, in this process and those that it starts; `measured_figures` measures them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(made_up.SWITCH, "tests.search.made_up")
        yield


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Undo what commands and workers set for their own process, where a test calls them in this one."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def measured_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure latency and peak memory, as users do."""
    monkeypatch.delenv(made_up.SWITCH)
