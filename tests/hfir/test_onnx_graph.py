"""ONNX graphs are written for the oldest readers that can run them, and show their scale to those that look for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor,
    make_tensor_value_info,
)

from hfir.onnx_graph import TORCH_OPSET, first_runtime, lower, show_scale, shows_scale, stamp

PADS = [0, 0, 0, 0, 0, 0, 1, 2]


def integers(name: str, *values: int) -> Any:
    return make_tensor(name, TensorProto.INT64, [len(values)], values)


def model(nodes: Sequence[Any], constants: Sequence[Any] = (), *, ir_version: int = 10) -> Any:
    """Return a model of opset 18 from `input`, an image of free sides, to `output`."""
    image = make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, "height", "width"])
    out = make_tensor_value_info("output", TensorProto.FLOAT, [None] * 4)
    graph = make_graph(list(nodes), "graph", [image], [out], list(constants))
    return make_model(graph, opset_imports=[make_opsetid("", TORCH_OPSET)], ir_version=ir_version)


def computed(proto: Any) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random((1, 4, 6, 5)).astype(np.float32)
    return session.run(None, {"input": x})[0]


def opset(proto: Any) -> int:
    return proto.opset_import[0].version


CHANGED_BY_18 = {
    "Pad": model([make_node("Pad", ["input", "pads"], ["output"], mode="edge")], [integers("pads", *PADS)]),
    "ReduceMean": model(
        [make_node("ReduceMean", ["input", "axes"], ["output"], keepdims=1)], [integers("axes", 1, -1)]
    ),
    "ReduceL2": model([make_node("ReduceL2", ["input", "axes"], ["output"])], [integers("axes", 2)]),
    "ReduceMax": model([make_node("ReduceMax", ["input"], ["output"])]),
    "Split": model(
        [
            make_node("Split", ["input"], ["a", "b"], axis=1, num_outputs=2),
            make_node("Mul", ["a", "b"], ["output"]),
        ]
    ),
    "Resize": model(
        [
            make_node(
                "Resize",
                ["input", "", "scales"],
                ["output"],
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
                antialias=0,
                keep_aspect_ratio_policy="stretch",
            )
        ],
        [make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 2.0, 2.0])],
    ),
}
NEEDS_18 = {
    "a Pad of some axes": model(
        [make_node("Pad", ["input", "pads", "", "axes"], ["output"])], [integers("pads", 0, 1), integers("axes", 3)]
    ),
    "a Resize against aliasing": model(
        [make_node("Resize", ["input", "", "scales"], ["output"], mode="linear", antialias=1)],
        [make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 0.5, 0.5])],
    ),
    "a mean over axes that are computed": model(
        [
            make_node("Shape", ["input"], ["axes"], start=0, end=1),
            make_node("ReduceMean", ["input", "axes"], ["output"]),
        ]
    ),
    "a mean beside such a Resize": model(
        [
            make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=1),
            make_node("Resize", ["mean", "", "scales"], ["output"], mode="linear", antialias=1),
        ],
        [integers("axes", 1), make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 0.5, 0.5])],
    ),
}


@pytest.mark.parametrize("name", CHANGED_BY_18)
def test_what_opset_18_changed_is_written_as_before_and_computes_the_same(name: str):
    proto = onnx.ModelProto()
    proto.CopyFrom(CHANGED_BY_18[name])
    before = computed(proto)
    needed = lower(proto)
    assert needed[name] == 13
    stamp(proto, max(needed.values()))
    assert opset(proto) < 18
    assert np.array_equal(computed(proto), before)
    assert {tensor.name for tensor in proto.graph.initializer} <= {n for node in proto.graph.node for n in node.input}


@pytest.mark.parametrize("name", NEEDS_18)
def test_what_only_opset_18_can_say_stays_as_it_is(name: str):
    proto = onnx.ModelProto()
    proto.CopyFrom(NEEDS_18[name])
    assert max(lower(proto).values()) == 18
    assert proto == NEEDS_18[name]


def test_operators_inside_a_branch_count_too():
    sampled = make_node("Resize", ["input", "", "scales"], ["sampled"], mode="linear", antialias=1)
    branches = [
        make_graph([node], "branch", [], [make_tensor_value_info(node.output[0], TensorProto.FLOAT, [None] * 4)])
        for node in (sampled, make_node("Identity", ["input"], ["same"]))
    ]
    proto = model(
        [make_node("If", ["always"], ["output"], then_branch=branches[0], else_branch=branches[1])],
        [
            make_tensor("always", TensorProto.BOOL, [], [True]),
            make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 0.5, 0.5]),
        ],
    )
    assert lower(proto)["Resize"] == 18


@pytest.mark.parametrize(
    ("version", "ir", "runtime"), [(15, 8, "1.9"), (16, 8, "1.11"), (18, 8, "1.14"), (19, 9, "1.16"), (21, 10, "1.18")]
)
def test_an_opset_goes_with_its_ir_version_and_its_first_runtime(version: int, ir: int, runtime: str):
    proto = model([make_node("Identity", ["input"], ["output"])])
    stamp(proto, version)
    assert (opset(proto), proto.ir_version) == (version, ir)
    assert first_runtime(version) == runtime


def test_of_opsets_that_came_later_no_runtime_is_claimed():
    assert first_runtime(99) is None


def test_a_size_that_depends_on_values_is_shown_by_a_sum_that_changes_nothing():
    # Cropped to the size of the input times two, as our networks do: the ends are computed.
    proto = model(
        [
            make_node("DepthToSpace", ["input"], ["large"], blocksize=2, mode="CRD"),
            make_node("Shape", ["input"], ["sides"], start=2, end=4),
            make_node("Mul", ["sides", "two"], ["ends"]),
            make_node("Slice", ["large", "zeros", "ends", "axes"], ["output"]),
        ],
        [integers("two", 2), integers("zeros", 0, 0), integers("axes", 2, 3)],
    )
    before = computed(proto)
    assert not shows_scale(proto, 2)
    show_scale(proto, 2)
    assert shows_scale(proto, 2)
    assert not shows_scale(proto, 3)
    assert np.array_equal(computed(proto), before)
