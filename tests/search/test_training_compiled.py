"""Training with a compiled network, in processes of their own: checks of array shapes at run time do not compile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hfir import FrequencySplitConfig, HFIRConfig, LargeKernelConfig, MoEConfig
from search.training.compiling import try_compiled
from search.types import InputError

TINY = HFIRConfig(
    upscale=2,
    width=4,
    encoder_blocks=(1,),
    bottleneck_blocks=1,
    decoder_blocks=(0,),
    mixer=LargeKernelConfig(kernel_size=5),
    frequency_split=FrequencySplitConfig(),
    experts=MoEConfig(num_experts=2, top_k=1, stages=("mid",)),
)
"""A kernel that learns by columns, features padded by their border, a router."""

STOPPED_AND_UNBROKEN = """
import functools
import sys
from pathlib import Path

import torch

from search.training import load_recipe
from search.training.start import start_from
from search.training.stopping import StopRequest
from search.training.trainer import FullTraining, make_fabric

# Captured as a whole, forwards and backwards, but not made into C++: that takes the compiler minutes of a busy machine.
torch.compile = functools.partial(torch.compile, backend="aot_eager")
torch.set_num_threads(1)
preset, folder = sys.argv[1], Path(sys.argv[2])


class StopAfter(StopRequest):
    def __init__(self, steps):
        self.left = steps

    @property
    def asked(self):
        self.left -= 1
        return self.left <= 0


def go(name, steps, compiled):
    (folder / name).mkdir(exist_ok=True)
    start = start_from(preset)
    recipe = load_recipe(None, ["steps=4", "batch=2", "patch_px=16", "warmup_steps=2"], start.task)
    training = FullTraining(recipe, start, folder / name, make_fabric("32-true", accelerator="cpu"), compiled=compiled)
    training.run(StopAfter(steps), None)


go("plain", 9, False)
go("unbroken", 9, True)
go("stopped", 2, True)
go("stopped", 9, True)
assert torch._dynamo.utils.counters["stats"]["unique_graphs"]
assert not torch._dynamo.utils.counters["graph_break"]
"""


@pytest.fixture
def preset(tmp_path: Path, task: dict, write_preset: Callable[..., Path]) -> Path:
    """A preset folder as a run writes it, for crops of a real photograph."""
    return write_preset(tmp_path / "preset", TINY, task)


def run(*arguments: str, cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with an Inductor cache of its own."""
    told = {"TORCHINDUCTOR_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | told, capture_output=True, text=True, check=False
    )


def model_in(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["model"]


@pytest.mark.slow
def test_a_compiled_training_resumes_to_the_last_bit_and_learns_what_a_plain_one_does(tmp_path: Path, preset: Path):
    done = run("-c", STOPPED_AND_UNBROKEN, str(preset), str(tmp_path), cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    plain, unbroken, stopped = (model_in(tmp_path / name) for name in ("plain", "unbroken", "stopped"))
    assert plain.keys() == unbroken.keys()
    for name, weights in unbroken.items():
        assert torch.equal(weights, stopped[name]), name
        torch.testing.assert_close(weights, plain[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_without_a_compiler_the_training_ends_before_its_first_step(tmp_path: Path, preset: Path):
    arguments = (
        "train",
        str(preset),
        "--out",
        str(tmp_path / "out"),
        "--accelerator",
        "cpu",
        "--compile",
        "--set",
        "patch_px=16",
    )
    done = run(
        "-c", "from search.cli import main; main()", *arguments, cache=tmp_path / "cache", CXX="no-such-compiler"
    )
    assert done.returncode == 2
    assert "--compile: torch" in done.stderr
    assert "no-such-compiler" in done.stderr
    assert torch.load(tmp_path / "out" / "last.ckpt", weights_only=True)["step"] == 0


def test_what_does_not_compile_is_told_with_its_reason_and_what_to_do():
    def break_down() -> None:
        raise RuntimeError("no C++ compiler\nand much else")

    with pytest.raises(InputError, match=r"cannot compile this network: no C\+\+ compiler\n.*\n.*--no-compile"):
        try_compiled(break_down)
