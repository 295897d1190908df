"""What one forward pass of any network does, counted operation by operation: multiply-accumulates and activations.

The counter is ours: it sees every operation that reaches torch's dispatcher, and looks each one up in a table. An
operation is counted by a formula, or known to be free, or else an error that names it: nothing goes uncounted in
silence. What checks it from outside, in the tests, is torch's own counter and fvcore's (ADR 15).

Counted are convolutions, matrix products, attention, interpolation between pixels and Fourier transforms. Free, as
everywhere in the field, are element-wise work, sums, norms, softmax, pooling, sorting and moving. Activations are the
values that convolutions and matrix products put out (Radosavovic et al., 2020, arXiv 2003.13678), the scores of
attention among them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from search.types import EvaluationError


class Work(NamedTuple):
    """What one operation does.

    Args:
        kind: What sort of operation it is.
        macs: Multiply-accumulates.
        activations: Values that it puts out and that count as activations.
    """

    kind: str
    macs: int
    activations: int = 0


Formula = Callable[[Sequence[Any], Any], Work]
"""From an operation's arguments and its output."""
WrittenOut = Mapping[type[nn.Module], Callable[[Any, tuple[Any, ...]], int]]
"""For parts that write a sum of products as element-wise work: (module, its inputs) -> multiply-accumulates."""


@dataclass(slots=True)
class ModuleCount:
    """What one module does, all that it calls included.

    Args:
        path: Its place in the network, e.g. `encoder.stages.0`; empty for the whole.
        name: Of its class.
        params: Its parameters.
        macs: Multiply-accumulates of one forward pass.
        activations: Activations of one forward pass.
    """

    path: str
    name: str
    params: int
    macs: int = 0
    activations: int = 0


@dataclass(frozen=True, slots=True)
class Count:
    """What one forward pass of a network does.

    Args:
        macs: Multiply-accumulates.
        activations: Activations.
        kinds: Multiply-accumulates by the kind of operation.
        modules: By module, in the order of the network; the whole alone unless more was asked for.
    """

    macs: int
    activations: int
    kinds: Mapping[str, int]
    modules: tuple[ModuleCount, ...]


def count(model: nn.Module, *inputs: Tensor, written_out: WrittenOut | None = None, by_module: bool = False) -> Count:
    """Count one forward pass.

    On the meta device nothing is computed; elsewhere the pass is run. Both give the same counts.

    Args:
        model: Any network, in the mode in which it is to be counted.
        *inputs: What it is called with, on its device.
        written_out: What element-wise work to count for which classes, beside what their operations are counted for.
        by_module: Count for each module of its own, too.

    Raises:
        EvaluationError: If an operation is neither counted nor known to be free.
    """
    counter = _Counter()
    with _watched(model, counter, written_out or {}, by_module=by_module), torch.no_grad(), counter:
        model(*inputs)
    whole = counter.modules[""]
    return Count(whole.macs, whole.activations, dict(counter.kinds), tuple(counter.modules.values()))


@contextmanager
def _watched(model: nn.Module, counter: _Counter, written_out: WrittenOut, *, by_module: bool) -> Iterator[None]:
    """Let modules tell the counter when they are called."""
    handles: list[Any] = []
    for path, module in model.named_modules():
        if by_module or not path:
            params = sum(p.numel() for p in module.parameters())
            counter.modules[path] = ModuleCount(path, type(module).__name__, params)
        if by_module and path:
            enter, leave = counter.hooks(path)
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        if type(module) in written_out:
            handles.append(module.register_forward_pre_hook(counter.adds(written_out[type(module)])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Counter(TorchDispatchMode):
    """Adds up what operations do, for each module that is being called."""

    def __init__(self) -> None:
        super().__init__()
        self.modules: dict[str, ModuleCount] = {}
        self.kinds: Counter[str] = Counter()
        self._called = [""]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count it."""
        formula = _formula(func)
        if formula is None:
            out = self._decomposed(func, args, kwargs or {})
            if out is not NotImplemented:
                return out
            raise EvaluationError(
                f"{func}: this operation is neither counted nor known to cost no multiply-accumulates, so a count "
                "would be too low.\n  Add its formula to FORMULAS, or its name to FREE, in "
                "search/evaluation/counting.py; or write the network without it."
            )
        out = _shaped(func, args, kwargs or {}) if formula is _free else None
        out = func(*args, **(kwargs or {})) if out is None else out
        if formula is not _free:
            self.add(formula(args, out))
        return out

    def add(self, work: Work) -> None:
        """Add what an operation does to all modules that are being called."""
        self.kinds[work.kind] += work.macs
        for path in self._called:
            module = self.modules[path]
            module.macs += work.macs
            module.activations += work.activations

    def hooks(self, path: str) -> tuple[Callable[..., None], Callable[..., None]]:
        """Return what is to be called before and after a module."""
        return lambda *_: self._called.append(path), lambda *_: self._called.remove(path)

    def adds(self, macs: Callable[[Any, tuple[Any, ...]], int]) -> Callable[..., None]:
        """Return what is to be called before a module that writes out a sum of products."""
        return lambda module, inputs: self.add(Work("written out", macs(module, inputs)))

    def _decomposed(self, func: Any, args: Any, kwargs: Any) -> Any:
        with self:
            return func.decompose(*args, **kwargs)


# -- formulas ------------------------------------------------------------------------------------------


def _convolution(args: Sequence[Any], out: Tensor) -> Work:
    """Count a convolution: each output value is a sum over (input channels / groups) · taps products.

    Transposed, each input value is spread over (output channels / groups) · taps. Dumoulin and Visin, 2016, arXiv
    1603.07285.
    """
    image, weight, transposed = args[0], args[1], bool(args[6])
    values = image.numel() if transposed else out.numel()
    return Work("convolution", values * math.prod(weight.shape[1:]), out.numel())


def _product(first: int) -> Formula:
    """Return the count of [.. n k] x [.. k m], which are arguments `first` and the next: n · k · m products."""

    def work(args: Sequence[Any], out: Tensor) -> Work:
        return Work("matrix product", args[first].numel() * args[first + 1].shape[-1], out.numel())

    return work


def _attention(args: Sequence[Any], out: Any) -> Work:
    """Count softmax(q kᵀ) v, q [.. n d], k [.. m d], v [.. m e]: n·m·d products for the scores and n·m·e for the sum.

    Vaswani et al., 2017, arXiv 1706.03762. What a fused kernel keeps to itself, the scores, counts as activations, so
    that it counts like the two products that it stands for.
    """
    query, key, value = args[:3]
    scores = query.numel() // query.shape[-1] * key.shape[-2]
    macs = scores * (query.shape[-1] + value.shape[-1])
    return Work("attention", macs, scores + query.numel() // query.shape[-1] * value.shape[-1])


def _interpolation(taps: int) -> Formula:
    """Return the count of an enlargement in which each output value is a weighted sum of `taps` input values."""
    return lambda args, out: Work("interpolation", taps * out.numel())


def _grid_sample(args: Sequence[Any], out: Tensor) -> Work:
    """Count samples at free places: 2 taps an axis bilinearly, 4 bicubically, none for the nearest.

    Jaderberg et al., 2015, arXiv 1506.02025, eq. 5. The weights, shared by all channels, are not counted.
    """
    axes, taps = args[1].shape[-1], {0: 2, 1: 0, 2: 4}[args[2]]
    return Work("grid sample", taps**axes * out.numel())


def _fourier(args: Sequence[Any], out: Tensor) -> Work:
    """Count a fast Fourier transform: 5 N log2 N real operations for N complex values, i.e. half as many MACs.

    The convention of FFTW (Frigo and Johnson, 2005, doi 10.1109/JPROC.2004.840301); half of it where one side is real.
    """
    real = not (args[0].is_complex() and out.is_complex())
    whole = args[0] if args[0].numel() >= out.numel() else out
    points = math.prod(whole.shape[axis] for axis in args[1])
    macs = 2.5 * whole.numel() * math.log2(max(points, 1))
    return Work("Fourier transform", round(macs / 2 if real else macs))


def _deformable(args: Sequence[Any], out: Tensor) -> Work:
    """Count torchvision's deformable convolution: the convolution, and four products for each value that it samples.

    Zhu et al., 2019, arXiv 1811.11168.
    """
    image, weight = args[0], args[1]
    convolution = out.numel() * math.prod(weight.shape[1:])
    sampled = image.shape[0] * image.shape[1] * math.prod(weight.shape[2:]) * math.prod(out.shape[2:])
    return Work("deformable convolution", convolution + 4 * sampled, out.numel())


FORMULAS: Mapping[str, Formula] = {
    "aten.convolution": _convolution,
    "aten._convolution": _convolution,
    "aten.mm": _product(0),
    "aten.bmm": _product(0),
    "aten.addmm": _product(1),
    "aten.baddbmm": _product(1),
    "aten.mv": lambda args, out: Work("matrix product", args[0].numel(), out.numel()),
    "aten.dot": lambda args, out: Work("matrix product", args[0].numel(), 1),
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_flash_attention": _attention,
    "aten._scaled_dot_product_efficient_attention": _attention,
    "aten._scaled_dot_product_cudnn_attention": _attention,
    "aten.upsample_linear1d": _interpolation(2),
    "aten.upsample_bilinear2d": _interpolation(4),
    "aten.upsample_bicubic2d": _interpolation(16),
    "aten.upsample_trilinear3d": _interpolation(8),
    "aten.grid_sampler_2d": _grid_sample,
    "aten.grid_sampler_3d": _grid_sample,
    "aten._fft_r2c": _fourier,
    "aten._fft_c2r": _fourier,
    "aten._fft_c2c": _fourier,
    "torchvision.deform_conv2d": _deformable,
}
"""Operations that cost multiply-accumulates, by name."""

FREE = frozenset(
    f"aten.{name}"
    for name in (
        # sums, norms, softmax, pooling
        *("sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "prod", "cumsum", "any", "all", "norm"),
        *("var", "std", "var_mean", "std_mean", "linalg_vector_norm", "logsumexp", "_softmax", "_log_softmax"),
        *(
            "native_layer_norm",
            "native_group_norm",
            "native_batch_norm",
            "_native_batch_norm_legit",
            "cudnn_batch_norm",
        ),
        *("_native_batch_norm_legit_no_training", "_batch_norm_with_update", "_fused_rms_norm", "_safe_softmax"),
        *(
            "avg_pool1d",
            "avg_pool2d",
            "avg_pool3d",
            "_adaptive_avg_pool2d",
            "_adaptive_avg_pool3d",
            "adaptive_max_pool2d",
        ),
        *("max_pool2d_with_indices", "max_pool3d_with_indices", "native_dropout", "_prelu_kernel", "glu"),
        # moving, choosing, sorting
        *("cat", "stack", "split", "index", "index_select", "index_copy", "index_copy_", "index_put", "index_put_"),
        *("_index_put_impl_", "index_add", "gather", "scatter", "scatter_add", "embedding", "topk", "sort", "flip"),
        *("roll", "repeat", "repeat_interleave", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d"),
        *("replication_pad1d", "replication_pad2d", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col"),
        *(
            "col2im",
            "clone",
            "copy",
            "copy_",
            "_to_copy",
            "contiguous",
            "nonzero",
            "unique_dim",
            "_unique2",
            "masked_select",
        ),
        *("_local_scalar_dense", "tril", "triu", "unfold", "upsample_nearest1d", "upsample_nearest2d", "bincount"),
        *("upsample_nearest3d", "_upsample_nearest_exact2d", "resize_", "one_hot", "_reshape_copy", "select_scatter"),
        *(
            "slice_scatter",
            "slice",
            "lift_fresh",
            "lift_fresh_copy",
            "detach",
            "alias",
            "view",
            "_unsafe_view",
            "expand",
        ),
        *("as_strided", "_conj", "_neg_view", "view_as_real", "view_as_complex", "real", "imag", "is_same_size"),
        *("_fused_sdp_choice", "equal", "complex", "_resize_output_", "floor_divide", "isin", "bucketize"),
        # making
        *("empty", "empty_like", "empty_strided", "empty_permuted", "zeros", "zeros_like", "ones", "ones_like", "full"),
        *("full_like", "new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full", "arange", "linspace"),
        *("eye", "scalar_tensor", "fill", "fill_", "zero_", "rand", "randn", "rand_like", "randn_like", "randint"),
        *("randperm", "normal_", "uniform_", "bernoulli_", "hann_window"),
    )
)
"""Operations that cost none, beside views and what torch itself marks as element-wise."""


def _shaped(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return tensors shaped like the result of the commonest free operations on meta tensors; None for the others.

    Nothing but shapes is asked for there, and torch finds them in Python: 0.1 to 0.4 ms an operation (torch 2.13).
    """
    tensors = [value for value in args if isinstance(value, Tensor)]
    if not tensors or any(value.device.type != "meta" for value in tensors):
        return None
    if str(func) in _REDUCTIONS:
        results = [_reduced(tensors[0], args, kwargs) for _ in func._schema.returns]
        return results[0] if len(results) == 1 else tuple(results)
    if not _is_new_elementwise(func) or kwargs:
        return None
    sides = zip_longest(*(reversed(value.shape) for value in tensors), fillvalue=1)
    shape = [next((n for n in side if n != 1), 1) for side in sides][::-1]
    whole = next((value for value in tensors if list(value.shape) == shape), None)
    return tensors[0].new_empty(shape) if whole is None else torch.empty_like(whole)


_REDUCTIONS = frozenset({"aten.mean.dim", "aten.sum.dim_IntList", "aten.var_mean.correction"})


def _reduced(x: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """Return a tensor shaped like a sum over the axes `args[1]`, all where there are none."""
    axes = {axis % x.ndim for axis in (args[1] if len(args) > 1 and args[1] else range(x.ndim))}
    keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    sides = [1 if axis in axes else side for axis, side in enumerate(x.shape) if keep or axis not in axes]
    return x.new_empty(sides)


@cache
def _is_new_elementwise(func: Any) -> bool:
    """Say whether an operation is element-wise, with one new tensor as its result."""
    schema = func._schema
    fresh = len(schema.returns) == 1 and schema.returns[0].alias_info is None
    return torch.Tag.pointwise in func.tags and fresh


def _free(args: Sequence[Any], out: Any) -> Work:
    return Work("free", 0)


@cache
def _formula(func: Any) -> Formula | None:
    """Return how an operation is counted; None where nobody has said."""
    name = str(func.overloadpacket)
    if name in FORMULAS:
        return FORMULAS[name]
    is_free = name in FREE or torch.Tag.pointwise in func.tags or func.is_view or func.namespace in ("prim", "prims")
    return _free if is_free else None
