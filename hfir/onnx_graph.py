"""What an ONNX graph asks of the programs that read it: the version of its operators, and how they find its scale.

torch writes opset 18 or later. Pad, Reduce*, Split and Resize of opset 18 say the same as those of opset 13 in our
networks, so they are rewritten; then Shape decides (opset 15), or PRelu and GridSample (opset 16).
"""

from collections.abc import Iterator, Mapping
from typing import Any

TORCH_OPSET = 18
"""The lowest opset that torch 2.13 writes."""
_FIRST_RUNTIMES = {
    13: "1.6",
    14: "1.8",
    15: "1.9",
    16: "1.11",
    17: "1.12",
    18: "1.14",
    19: "1.16",
    20: "1.17",
    21: "1.18",
}
"""The first ONNX Runtime that reads an opset and its IR version: onnxruntime.ai/docs/reference/compatibility.html."""
_REDUCTIONS = frozenset(
    f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)
"""What reduces, with its axes as an input from opset 18 on; ReduceSum has had them there since 13."""


def first_runtime(opset: int) -> str | None:
    """Return the first version of ONNX Runtime that reads an opset; None where it is newer than our table."""
    return _FIRST_RUNTIMES.get(opset)


def lower(proto: Any) -> dict[str, int]:
    """Rewrite a graph of opset 18 as one of an earlier opset, if each of its operators allows it.

    Returns:
        For each operator, the lowest opset that has it as the graph now uses it.
    """
    import onnx

    older = onnx.ModelProto()
    older.CopyFrom(proto)
    constants = {tensor.name: tensor for tensor in older.graph.initializer}
    needed: dict[str, int] = {}
    for node in _nodes(older.graph):
        newest = TORCH_OPSET - 1 if _is_rewritten(node, constants) else TORCH_OPSET
        since = onnx.defs.get_schema(node.op_type, newest, node.domain).since_version
        needed[node.op_type] = max(since, needed.get(node.op_type, 0))
    if max(needed.values()) < TORCH_OPSET:
        _drop_unused(older.graph)
        proto.CopyFrom(older)
    return needed


def stamp(proto: Any, opset: int) -> None:
    """Say which opset a graph is of, and with it the lowest IR version that may hold that opset."""
    from onnx.helper import find_min_ir_version_for

    for entry in proto.opset_import:
        if entry.domain == "":
            entry.version = opset
    proto.ir_version = find_min_ir_version_for(proto.opset_import)


def shows_scale(proto: Any, scale: int) -> bool:
    """Return whether static shape inference finds the output's size from the input's, as chaiNNer looks for it."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    del fixed.graph.value_info[:]
    sides = (64, 48)
    dims = fixed.graph.input[0].type.tensor_type.shape.dim
    for dim, side in zip(dims[2:], sides, strict=True):
        dim.dim_value = side
    for dim in fixed.graph.output[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
    inferred = onnx.shape_inference.infer_shapes(fixed, strict_mode=True)
    found = [dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim[2:]]
    return found == [scale * side for side in sides]


def show_scale(proto: Any, scale: int) -> None:
    """Add zeros of the output's size, made from the input alone, to the output, so that its size can be inferred.

    A network of several levels pads the image to a multiple and crops the output: both depend on values, which static
    inference does not follow. It does follow a sum: where one side's size is known, so is the result's.
    """
    from onnx import TensorProto
    from onnx.helper import make_node, make_tensor

    graph = proto.graph
    image, output = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name == output:
                node.output[index] = "size_unknown"
    for name, values in (("size_0", [0]), ("size_1", [1]), ("size_repeats", [1, 1, scale, scale])):
        graph.initializer.append(make_tensor(name, TensorProto.INT64, [len(values)], values))
    graph.node.extend(
        [
            make_node("Slice", [image, "size_0", "size_1", "size_1"], ["size_channel"]),
            make_node("Sub", ["size_channel", "size_channel"], ["size_zeros"]),
            make_node("Tile", ["size_zeros", "size_repeats"], ["size_plane"]),
            make_node("Add", ["size_unknown", "size_plane"], [output]),
        ]
    )


def _is_rewritten(node: Any, constants: Mapping[str, Any]) -> bool:
    """Write a node as opsets 13 to 17 have it; return False where they cannot, or where opset 18 changed nothing."""
    from onnx.helper import make_attribute
    from onnx.numpy_helper import to_array

    attributes = {attribute.name: attribute for attribute in node.attribute}
    inputs = list(node.input)
    if node.op_type == "Pad":
        return len(inputs) < 4
    if node.op_type == "Split":
        if len(inputs) == 1:  # into equal parts, one for each output
            _drop(node, attributes, "num_outputs")
        return True
    if node.op_type == "Resize":
        plain = (("antialias", 0), ("keep_aspect_ratio_policy", b"stretch"))
        if "axes" in attributes or any(
            n in attributes and v not in (attributes[n].i, attributes[n].s) for n, v in plain
        ):
            return False
        _drop(node, attributes, *(name for name, _ in plain))
        return True
    if node.op_type not in _REDUCTIONS or (len(inputs) == 2 and inputs[1] not in constants):
        return False
    _drop(node, attributes, "noop_with_empty_axes")
    if len(inputs) == 2:
        del node.input[1]
        node.attribute.append(make_attribute("axes", to_array(constants[inputs[1]]).tolist()))
    return True


def _drop(node: Any, attributes: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if name in attributes:
            node.attribute.remove(attributes[name])


def _drop_unused(graph: Any) -> None:
    """Remove constants that no node reads any more: runtimes warn of them."""
    read = {name for node in _nodes(graph) for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
