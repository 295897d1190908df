"""What runs a network while it is timed: eager torch, compiled torch, ONNX Runtime; on the CPU or on a CUDA device."""

from __future__ import annotations

import re
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hfir.devices import cuda_untouched
from hfir.export import export_model
from hfir.model import HydraFusionIR
from search.evaluation.allocator import keep_memory
from search.types import EvaluationError, InputError

Pass = Callable[[], object]
"""One forward pass."""
Clock = Callable[[Pass], float]
"""Runs one pass and returns how long it took, in ms."""


def check_device(device: str, runtime: str) -> None:
    """Refuse a device that is not there, and a runtime that does not run on it.

    Raises:
        InputError: With what there is.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime {runtime}: not known.\n  Choose from {', '.join(RUNTIMES)}.")
    if device == "cpu":
        return
    number = device.removeprefix("cuda:")
    if not device.startswith("cuda:") or not number.isdigit():
        raise InputError(f"device {device}: not known.\n  Write cpu, or cuda:0, cuda:1, …")
    if int(number) >= torch.cuda.device_count():
        raise InputError(
            f"device {device}: this machine has {torch.cuda.device_count()} CUDA devices.\n"
            "  Measure where the device is, or on cpu."
        )
    if runtime == "onnxruntime":
        raise InputError(
            f"runtime onnxruntime: is timed on cpu, not on {device}.\n  Use runtime torch or compile, or device cpu."
        )


def wall_clock(run: Pass) -> float:
    """Run one pass on the CPU and return how long it took, in ms."""
    before = time.perf_counter()
    run()
    return (time.perf_counter() - before) * 1e3


def clock_for(device: str) -> Clock:
    """Return the clock of a device: on CUDA, events on its stream, so that launching alone is not what is timed."""
    return wall_clock if device == "cpu" else _cuda_clock(torch.device(device))


def _cuda_clock(device: torch.device) -> Clock:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    stream = torch.cuda.current_stream(device)

    def clock(run: Pass) -> float:
        start.record(stream)
        run()
        end.record(stream)
        end.synchronize()
        return start.elapsed_time(end)

    return clock


def pass_of(model: nn.Module, image: Tensor, *, runtime: str, threads: int) -> Pass:
    """Return one forward pass of a network on its device, ready to be repeated.

    Args:
        model: In eval mode, on the device of `image`.
        image: Its input.
        runtime: A name in `RUNTIMES`.
        threads: For runtimes that keep threads of their own; torch's are set by the caller.

    Raises:
        EvaluationError: If the runtime cannot run the network.
    """
    return RUNTIMES[runtime](model, image, threads)


def describe(runtime: str) -> str:
    """Return what ran a network, with its version."""
    if runtime == "onnxruntime":
        return f"onnxruntime {metadata.version('onnxruntime')} CPUExecutionProvider"
    form = "compile" if runtime == "compile" else "eager"
    return f"torch {torch.__version__} {form}, channels_last{', memory kept' if keep_memory() else ''}"


def describe_device(device: str) -> str:
    """Return a device with its name."""
    return device if device == "cpu" else f"{device} ({torch.cuda.get_device_name(torch.device(device))})"


def runtime_of(description: str) -> str:
    """Return the name of a runtime from what `describe` made of it."""
    if description.startswith("onnxruntime"):
        return "onnxruntime"
    return "compile" if " compile" in description else "torch"


def device_of(description: str) -> str:
    """Return a device from what `describe_device` made of it."""
    return description.split(" ", 1)[0]


def _eager(model: nn.Module, image: Tensor, threads: int) -> Pass:
    return lambda: model(image)


def _compiled(model: nn.Module, image: Tensor, threads: int) -> Pass:
    torch.compiler.reset()  # graphs of earlier candidates, or the cache's limit is reached after some
    compiled = torch.compile(model, dynamic=False)
    try:
        compiled(image)
    except Exception as error:  # whatever dynamo, inductor or the C++ compiler raise: there is no common base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EvaluationError(
            f"torch.compile cannot run this network: {reason}\n"
            "  On a CPU it needs a C++ compiler (g++ or clang), and an empty CUDA_VISIBLE_DEVICES where a CUDA device "
            "is visible that cannot be used. Measure with runtime torch otherwise."
        ) from error
    return lambda: compiled(image)


def _onnx(model: nn.Module, image: Tensor, threads: int) -> Pass:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors only
    program = _onnx_program(model, image)
    session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    feed = {"input": image.contiguous().numpy()}
    return lambda: session.run(None, feed)


def _onnx_program(model: nn.Module, image: Tensor) -> bytes:
    """Return an ONNX file: of our networks the one that is shipped, of others one for this size of image."""
    try:
        if not isinstance(model, HydraFusionIR):
            with cuda_untouched(), warnings.catch_warnings():  # torch 2.13 warns of what its own exporter calls
                warnings.simplefilter("ignore")
                exported = torch.onnx.export(model, (image,), dynamo=True, verbose=False, input_names=["input"])
            return b"" if exported is None else exported.model_proto.SerializeToString()
        with tempfile.TemporaryDirectory() as folder:
            return export_model(model, Path(folder), format="onnx", name="measured").path.read_bytes()
    except Exception as error:  # ours, or whatever the exporter raises: it has no common base
        reason = re.sub(r"\x1b\[\d+m", "", str(error)).strip().splitlines()
        raise EvaluationError(f"no ONNX file to measure: {reason[0] if reason else type(error).__name__}") from error


RUNTIMES: Mapping[str, Callable[[Any, Tensor, int], Pass]] = {
    "torch": _eager,
    "compile": _compiled,
    "onnxruntime": _onnx,
}
"""`(model, image, threads) -> pass`, by the names that an experiment file knows."""
