"""Files for other programs: ONNX, torch.export and weights alone, each compared with the network before it counts.

What is exported is the deploy form: fused, eval mode, contiguous, batch 1, any height and width. A file is written
under a temporary name, read back, run on images of three sizes and through every expert, and renamed only where it
computes what the network computes.
"""

import copy
import dataclasses
import logging
import re
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from hfir.blocks.moe import MoEX
from hfir.config import HFIRConfig
from hfir.devices import cuda_untouched
from hfir.errors import ConfigError, ExportError
from hfir.fusion import fuse
from hfir.model import HydraFusionIR, build_model
from hfir.onnx_graph import TORCH_OPSET, first_runtime, lower, show_scale, shows_scale, stamp
from hfir.presets import METADATA_KEY, load_preset, save_weights

ARCHITECTURE = "HydraFusionIR"
FORMATS = ("onnx", "torch-export", "safetensors")
CHECK_SIZES = ((16, 16), (37, 50), (64, 48))
"""Heights and widths that each file is checked at: smaller than some windows, a multiple of nothing, and between."""
TOLERANCE = 1e-4
"""The most that a file in fp32 may differ from the network, on an image in [0, 1]."""
TOLERANCE_FP16 = 1 / 255
"""The most that a file in half precision may differ from the network in fp32: one step of 8 bits."""

_TRACED_SIZE = (45, 70)
"""Height and width that the network is traced at: no multiple of anything, so that every padding is in the graph."""
_LONGEST_NAME = 255
"""Bytes that file systems allow in a name; one more is kept for an opset of two digits in place of its `*`."""
_PUSH = 100.0
"""Added to a router's bias, sends every image to one expert whatever its features say."""

_KNOWN_CAUSES = {
    "data-dependent": "a part decides by the values of the image what to compute",
    "Constraints violated": "a part works at one size only",
    "No ONNX function found": "ONNX has no such operator",
    "not 'SymbolicTensor'": "ONNX has no such operator with a free size",
}
"""Signs in torch's messages, and what they mean."""

Runner = Callable[[Tensor], Tensor]
Overrides = Mapping[str, Tensor]
"""Parameters that a check sets to other values, by their names in the state dict."""


@dataclass(frozen=True, slots=True)
class Check:
    """How far a file is from the network on one image."""

    height: int
    width: int
    max_difference: float
    """Largest absolute difference of any value of the output."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written and checked."""

    path: Path
    format: str
    opset: int | None
    """Of ONNX files, else None."""
    ir_version: int | None
    """Of ONNX files, else None."""
    notes: tuple[str, ...]
    """Which programs read an ONNX file, in sentences; empty for other files."""
    dtype: str
    """`fp32` or `fp16`."""
    tolerance: float
    checks: tuple[Check, ...]
    """At the sizes of `CHECK_SIZES`."""
    expert_checks: tuple[Check, ...]
    """One for each expert, each with the routers pushed towards it; empty without experts, or where the routers'
    biases equal other tensors and so cannot be set in the file alone (constant start values, untrained)."""


def export_model(
    model: HydraFusionIR,
    folder: Path,
    *,
    format: str,
    name: str,
    opset: int | None = None,
    fp16: bool = False,
    task: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a network as a file for other programs, and compare the file with the network.

    Args:
        model: Any form; its deploy form is written. It is left as it is.
        folder: Where the file goes; made where it is missing.
        format: `onnx`, `torch-export` (a .pt2 file) or `safetensors` (weights for `load_preset` and spandrel).
        name: What the network is called; letters, digits, dots, dashes and underscores are kept.
        opset: Version of the ONNX operators, by default the lowest that the network needs; ignored by other formats.
        fp16: Write half precision (the inputs of the program are then half precision too).
        task: What the network was trained for, for the file's metadata.
        overwrite: Replace a file of that name.

    Raises:
        ExportError: If the network cannot be written in this format, or the file computes something else; no file
            is left behind then.
        ConfigError: If the format is unknown, or the name holds nothing that a file name may.
        FileExistsError: If there is a file of that name and `overwrite` is False.
    """
    pattern = file_name(model.config, name, format=format, opset=opset, fp16=fp16)
    existing = next(folder.glob(pattern), None)
    if existing is not None and not overwrite:
        raise FileExistsError(f"{existing} exists. Give another name or folder, or overwrite it (--overwrite).")
    if fp16 and format != "safetensors" and not model.supports_fp16:
        raise ExportError(
            f"{pattern}: this network is not safe in half precision (values overflow). "
            "Export it in fp32, or its weights alone (--format safetensors --fp16)."
        )
    network = deploy_form(model)
    to_write = copy.deepcopy(network).half() if fp16 else network
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{secrets.token_hex(6)}{Path(pattern).suffix}"
    try:
        with _quiet(), cuda_untouched():
            written = _WRITERS[format](to_write, temporary, opset, task)
            checks, expert_checks = _compared(network, written.read, fp16=fp16)
        path = folder / file_name(model.config, name, format=format, opset=written.opset, fp16=fp16)
        tolerance = TOLERANCE_FP16 if fp16 else 0.0 if format == "safetensors" else TOLERANCE
        _refuse_difference(path, (*checks, *expert_checks), tolerance)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(
        path=path,
        format=format,
        opset=written.opset,
        ir_version=written.ir_version,
        notes=() if written.opset is None else _readers(network.config, written.opset),
        dtype="fp16" if fp16 else "fp32",
        tolerance=tolerance,
        checks=checks,
        expert_checks=expert_checks,
    )


def compare_onnx(model: HydraFusionIR, path: Path) -> tuple[Check, ...]:
    """Return how far an ONNX file in fp32 is from a network: at each of `CHECK_SIZES`, then through each expert.

    Raises:
        ExportError: If the file's output has another shape.
        onnxruntime's own errors where it cannot read the file.
    """
    sizes, experts = _compared(deploy_form(model), lambda overrides: _onnx_runner(path, overrides), fp16=False)
    return (*sizes, *experts)


def file_name(config: HFIRConfig, name: str, *, format: str, opset: int | None = None, fp16: bool = False) -> str:
    """Return the name that the community's programs expect, e.g. `2x_Name_HydraFusionIR.safetensors`.

    Of an ONNX file without an opset, the name is a pattern with `*` in the opset's place.

    Raises:
        ConfigError: If the format is unknown, nothing of the name is left without the signs that a file name
            should not hold, or the name is longer than a file system allows.
    """
    if format not in FORMATS:
        raise ConfigError(f"format = {format!r}: known formats are {', '.join(FORMATS)}. Use one of these.")
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    if not clean:
        raise ConfigError(f"name = {name!r}: a file name needs letters or digits (A-Z, a-z, 0-9). Use some.")
    dtype = "fp16" if fp16 else "fp32"
    shape = f"1x{config.in_channels}xHxW_dyn-HW"
    endings = {
        "onnx": f"_{shape}_{dtype}_op{'*' if opset is None else opset}.onnx",
        "torch-export": f"_{shape}_{dtype}.pt2",
        "safetensors": f"{'_fp16' if fp16 else ''}.safetensors",
    }
    found = f"{config.upscale}x_{clean}_{ARCHITECTURE}{endings[format]}"
    if len(found) >= _LONGEST_NAME:
        raise ConfigError(
            f"name = {name!r}: {found} has {len(found)} characters, and a file name may have {_LONGEST_NAME - 1}. "
            "Use a shorter name."
        )
    return found


def deploy_form(model: HydraFusionIR) -> HydraFusionIR:
    """Return a copy as it is deployed: fused, eval mode, fp32 on the CPU, contiguous, without gradients."""
    return fuse(model).eval().float().cpu().requires_grad_(False)


class _Written(NamedTuple):
    """A file that was written.

    Args:
        read: Reads it back: overrides -> a function of an image, valid until the next.
        opset: Of an ONNX file.
        ir_version: Of an ONNX file.
    """

    read: Callable[[Overrides], Runner]
    opset: int | None = None
    ir_version: int | None = None


def _write_onnx(network: HydraFusionIR, path: Path, opset: int | None, task: str | None) -> _Written:
    import onnx

    program = _captured(network, "onnx")
    asked = max(opset or TORCH_OPSET, TORCH_OPSET)
    try:
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=asked,
            input_names=["input"],
            output_names=["output"],
            verbose=False,
        )
    except Exception as error:  # whatever the exporter raises: its own errors and those of each operator
        raise _refusal(network, "onnx", error, opset=asked) from error
    if exported is None:
        raise ExportError("torch.onnx.export returned no program; please report this with your version of torch.")
    proto = exported.model_proto
    found = {entry.domain: entry.version for entry in proto.opset_import}.get("", 0)
    if found != asked:
        raise ExportError(
            f"opset = {asked}: torch {torch.__version__} wrote opset {found} and cannot convert this network to "
            f"{asked}. Use --opset {found}, or leave --opset out."
        )
    _tidy(proto, network.config)
    if opset is None or opset < TORCH_OPSET:
        opset = _lowered(proto, opset)
    stamp(proto, opset)
    if not shows_scale(proto, network.config.upscale):
        show_scale(proto, network.config.upscale)
    onnx.helper.set_model_props(proto, _facts(network, task))
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
    return _Written(lambda overrides: _onnx_runner(path, overrides), opset, proto.ir_version)


def _readers(config: HFIRConfig, opset: int) -> tuple[str, ...]:
    """Return which programs read an ONNX file, in sentences."""
    first = first_runtime(opset)
    notes = [
        f"ONNX Runtime {first} or later reads it." if first else f"It needs an ONNX Runtime that reads opset {opset}."
    ]
    if config.attention is not None:
        notes.append("Do not load it with OpenCV's DNN module: OpenCV 5 crashes on networks with attention.")
    return tuple(notes)


def _lowered(proto: Any, opset: int | None) -> int:
    """Rewrite a graph for an opset below torch's, and return that opset: by default the lowest that the graph needs."""
    needed = lower(proto)
    lowest = max(needed.values())
    if opset is not None and opset < lowest:
        causes = ", ".join(sorted(name for name, version in needed.items() if version == lowest))
        raise ExportError(
            f"opset = {opset}: this network needs opset {lowest} (for {causes}). "
            f"Use --opset {lowest} or a later one, or leave --opset out."
        )
    return opset or lowest


def _tidy(proto: Any, config: HFIRConfig) -> None:
    """Name the free sides, and drop what tells of the machine that exported (paths in stack traces)."""
    for graph in (proto.graph, *proto.functions):
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        del graph.value_info[:]  # intermediate shapes in torch's own symbols; runtimes infer them
        del graph.metadata_props[:]
    for value, factor in ((proto.graph.input[0], 1), (proto.graph.output[0], config.upscale)):
        del value.metadata_props[:]
        for dim, side in zip(value.type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
            dim.dim_param = side if factor == 1 else f"{factor}*{side}"
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]


def _onnx_runner(path: Path, overrides: Overrides) -> Runner:
    import onnx
    import onnxruntime

    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.name in overrides:
            tensor.CopyFrom(onnx.numpy_helper.from_array(overrides[tensor.name].numpy(), tensor.name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["output"], {"input": x.numpy()})[0])


def _write_torch_export(network: HydraFusionIR, path: Path, opset: int | None, task: str | None) -> _Written:
    program = _captured(network, "torch-export")
    # What is left of torch's guards compares strides and storage of intermediate tensors as they were at the traced
    # size, and would refuse sizes at which the graph is right (a single window, say). The comparison below decides.
    program._guards_code = []
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of the machine that exported
    torch.export.save(program, path, extra_files=_facts(network, task))

    module = torch.export.load(path).module()
    state = {name: value.clone() for name, value in module.state_dict().items()}

    def read(overrides: Overrides) -> Runner:
        module.load_state_dict(state | dict(overrides))
        return module

    return _Written(read)


def _write_safetensors(network: HydraFusionIR, path: Path, opset: int | None, task: str | None) -> _Written:
    save_weights(network, path)

    def read(overrides: Overrides) -> Runner:
        loaded = load_preset(path)
        loaded.load_state_dict(loaded.state_dict() | dict(overrides))
        return lambda x: loaded(x.float())

    return _Written(read)


_Writer = Callable[[HydraFusionIR, Path, int | None, str | None], _Written]
_WRITERS: Mapping[str, _Writer] = {
    "onnx": _write_onnx,
    "torch-export": _write_torch_export,
    "safetensors": _write_safetensors,
}
"""Each writes a file: (network, path, opset, task) -> what was written."""


def _captured(network: HydraFusionIR, format: str) -> ExportedProgram:
    """Return the network as a graph that holds for any height and width."""
    try:
        program = _traced(network)
    except Exception as error:  # whatever torch raises: it has no common base for what it cannot trace
        raise _refusal(network, format, error) from error
    for side in program.range_constraints.values():
        if side.lower > min(CHECK_SIZES[0]) or side.upper < 2**15:
            raise ExportError(
                f"torch.export restricts a side of the image to {side.lower}..{side.upper} pixels, but the network "
                "takes any size. Please report this with the network's configuration."
            )
    return program


def _traced(network: nn.Module) -> ExportedProgram:
    reference = next(network.parameters())
    config: HFIRConfig = network.config  # pyright: ignore[reportAssignmentType]
    image = torch.rand(1, config.in_channels, *_TRACED_SIZE).to(reference.dtype)
    free = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    # As torch.onnx does when it traces: without this, every comparison of strides becomes a condition on the size
    # (torch 2.13), some wrong for other sizes, and tracing takes ten times as long.
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # pyright: ignore[reportAttributeAccessIssue]
        return torch.export.export(network, (image,), dynamic_shapes=(free,), strict=False)


def _compared(
    network: HydraFusionIR, read: Callable[[Overrides], Runner], *, fp16: bool
) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """Return the differences at each size, and with the routers pushed towards each expert in turn."""
    channels, dtype = network.config.in_channels, torch.float16 if fp16 else torch.float32
    runner = read({})
    sizes = tuple(
        _check(network, runner, check_image(channels, *size, seed=seed).to(dtype))
        for seed, size in enumerate(CHECK_SIZES)
    )
    experts = network.config.experts
    if experts is None or not _can_be_pushed(network):
        return sizes, ()
    pushed = []
    for expert in range(experts.num_experts):
        biases = {name: bias.to(dtype) for name, bias in _pushed_biases(network, expert).items()}
        reference = copy.deepcopy(network)
        reference.load_state_dict(reference.state_dict() | biases)
        x = check_image(channels, *CHECK_SIZES[1], seed=expert).to(dtype)
        pushed.append(_check(reference, read(biases), x))
    return sizes, tuple(pushed)


def _check(network: nn.Module, runner: Runner, x: Tensor) -> Check:
    with torch.no_grad():
        expected, found = network(x.float()), runner(x)
    height, width = x.shape[-2:]
    if found.shape != expected.shape:
        raise ExportError(
            f"the exported file turns {height}x{width} into {tuple(found.shape)}, the network into "
            f"{tuple(expected.shape)}. Please report this with the network's configuration."
        )
    return Check(height, width, float((found.float() - expected).abs().max()))


def check_image(channels: int, height: int, width: int, *, seed: int) -> Float[Tensor, "1 c h w"]:
    """Return an image in [0, 1] with a ramp, an edge and noise, so that every part has something to work on."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 1, width) * torch.linspace(0.2, 1, height)[:, None]
    edge = (torch.arange(height)[:, None] + torch.arange(width) > (height + width) // 2).float()
    noise = torch.rand(1, channels, height, width, generator=generator)
    return (0.5 * ramp + 0.25 * edge + 0.25 * noise).clamp(0, 1)


def _can_be_pushed(network: nn.Module) -> bool:
    """Return whether each router's bias is a tensor of its own: exporters store equal tensors once."""
    state = network.state_dict()
    names = _pushed_biases(network, 0)
    return not any(
        other != name and value.shape == state[name].shape and torch.equal(value, state[name])
        for name in names
        for other, value in state.items()
    )


def _pushed_biases(network: nn.Module, expert: int) -> dict[str, Tensor]:
    """Return router biases that send every image to `expert` first, and to the next one second."""
    biases = {}
    for path, module in network.named_modules():
        if isinstance(module, MoEX):
            bias = module.router.bias.detach().clone()
            bias[expert] += _PUSH
            bias[(expert + 1) % len(bias)] += _PUSH - 0.5
            biases[f"{path}.router.bias"] = bias
    return biases


def _refuse_difference(path: Path, checks: tuple[Check, ...], tolerance: float) -> None:
    worst = max(checks, key=lambda check: check.max_difference if check.max_difference >= 0 else float("inf"))
    if worst.max_difference <= tolerance:
        return
    figures = ", ".join(f"{check.height}x{check.width}: {check.max_difference:.2e}" for check in checks)
    hint = (
        "Half precision is too coarse for this network: export it in fp32."
        if path.stem.endswith("fp16") or "_fp16_" in path.name
        else "Please report this with the network's configuration."
    )
    raise ExportError(
        f"{path.name}: the file differs from the network by up to {worst.max_difference:.2e}, and {tolerance:.0e} is "
        f"allowed (max |difference| at each size, then for each expert: {figures}); it was not kept. {hint}"
    )


def _facts(network: HydraFusionIR, task: str | None) -> dict[str, str]:
    """Return what a file says about itself."""
    facts = {
        METADATA_KEY: network.config.to_json_bytes().decode(),
        "hfir_version": version("hfir-search"),
        "architecture": ARCHITECTURE,
        "scale": str(network.config.upscale),
        "channels": str(network.config.in_channels),
    }
    return facts if task is None else facts | {"task": task}


def _refusal(network: HydraFusionIR, format: str, error: Exception, *, opset: int = TORCH_OPSET) -> ExportError:
    """Say why a network cannot be exported, and which option is to blame: found by trying without each."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    reason = f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
    known = [words for sign, words in _KNOWN_CAUSES.items() if sign in str(cause)]
    reason = f"{known[0]}; {reason}" if known else reason
    culprits = [words for words, config in plainer(network.config) if _exports(config, format, opset)]
    remedy = (
        f"It exports with {' or with '.join(culprits)}: train such a network."
        if culprits
        else "No single option is to blame: the plainest network fails too, or several options do."
    )
    return ExportError(
        f"torch {torch.__version__} cannot export this network to {format} ({reason}). {remedy} "
        "Its weights alone export in any case (--format safetensors)."
    )


def plainer(config: HFIRConfig) -> Iterator[tuple[str, HFIRConfig]]:
    """Yield configurations with one part switched to that of the plainest network, and what was switched in words.

    Sizes stay; what depends on the part is switched with it.
    """
    plain = HFIRConfig()
    for field in dataclasses.fields(config):
        now, then = getattr(config, field.name), getattr(plain, field.name)
        if now == then or not (isinstance(now, str) or dataclasses.is_dataclass(now)):
            continue
        changes = {field.name: then} | ({"refiner": None} if field.name == "frequency_split" else {})
        word = "None" if then is None else getattr(then, "kind", then)
        yield f"{field.name} = {word}", dataclasses.replace(config, **changes)


def _exports(config: HFIRConfig, format: str, opset: int) -> bool:
    """Try whether an untrained network of that configuration exports."""
    with torch.random.fork_rng(devices=[]):
        network = deploy_form(build_model(config))
    try:
        program = _traced(network)
        if format == "onnx":
            torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False, optimize=False)
    except Exception:  # as above: any refusal counts
        return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch says while it exports and the user can do nothing about.

    torch 2.13: missing torchvision operators, inequalities that it could not simplify, its own deprecations;
    onnxscript: an opset that it cannot convert to, which is refused with a better message.
    """
    names = ("torch.fx.experimental.symbolic_shapes", "torch.onnx", "onnxscript")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*treespec.*LeafSpec", category=FutureWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
