"""Writes the ONNX project's own node tests as classifiers, for the test `backend`.

    pip install onnx numpy safetensors
    python crates/onnx/tests/backend_cases.py FOLDER
    INFLUENCE_ONNX_BACKEND=FOLDER cargo test -p influence-onnx --test backend -- --nocapture

A node test is a model of one node (or of the few nodes of its definition), with inputs and outputs.
Here each becomes up to two models of one input and one row of numbers per sample:

- NAME.batched: the first float input stays an input, its first axis becomes the batch; every other
  input is a constant. Only where the first axis of the output has the same size.
- NAME.constant: all inputs are constants; the output is added to 0 times an input [n, 2].

Beside each NAME.KIND.onnx lies NAME.KIND.safetensors with `input` and `expected`.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

warnings.filterwarnings("ignore")
from onnx.backend.test.case.node import collect_testcases  # noqa: E402

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def tensors(model, data):
    """Inputs and outputs as arrays by name; nothing where one is no plain tensor."""
    named = {}
    for infos, arrays in ((model.graph.input, data[0]), (model.graph.output, data[1])):
        if len(infos) < len(arrays):
            return None
        for info, array in zip(infos, arrays):
            if not info.type.HasField("tensor_type") or isinstance(array, (list, dict)):
                return None
            if isinstance(array, TensorProto):
                array = numpy_helper.to_array(array)
            array = np.asarray(array)
            if array.dtype.kind not in "fiub":
                return None
            named[info.name] = array
    return named


def row(nodes, output, elem_type, shape, first):
    """Nodes that make a row of at least two numbers of an output, and its expected shape."""
    if elem_type not in FLOATS:
        nodes.append(helper.make_node("Cast", [output], ["zz_float"], to=TensorProto.FLOAT))
        output = "zz_float"
    nodes.append(helper.make_node("Reshape", [output, "zz_shape"], ["zz_row"]))
    if int(np.prod(shape)) == first:
        nodes.append(helper.make_node("Concat", ["zz_row", "zz_row"], ["zz_wide"], axis=1))
        return "zz_wide", 2
    return "zz_row", 1


def write(folder, name, model, nodes, inputs, constants, output, data):
    opset = [onnx.OperatorSetIdProto(domain=o.domain, version=o.version) for o in model.opset_import]
    graph = helper.make_graph(nodes, name, [inputs], [output], constants)
    made = helper.make_model(graph, opset_imports=opset, ir_version=max(model.ir_version, 4))
    (folder / f"{name}.onnx").write_bytes(made.SerializeToString())
    save_file({k: np.ascontiguousarray(v) for k, v in data.items()}, folder / f"{name}.safetensors")


def constants_of(model, named, left_out):
    made = list(model.graph.initializer)
    present = {tensor.name for tensor in made}
    for info in model.graph.input:
        if info.name in named and info.name != left_out and info.name not in present:
            tensor = numpy_helper.from_array(named[info.name], info.name)
            made.append(tensor)
    return made


def batched(folder, case, named):
    model = case.model
    floats = [i for i in model.graph.input if i.type.tensor_type.elem_type in FLOATS]
    out = model.graph.output[0]
    if not floats:
        return 0
    x, y = named[floats[0].name], named[out.name]
    if x.ndim == 0 or y.ndim == 0 or x.shape[0] != y.shape[0] or 0 in x.shape or 0 in y.shape:
        return 0
    nodes = [node for node in model.graph.node]
    shape = numpy_helper.from_array(np.array([x.shape[0] * 0, -1], dtype=np.int64), "zz_shape")
    result, copies = row(nodes, out.name, out.type.tensor_type.elem_type, y.shape, y.shape[0])
    expected = np.tile(y.astype(np.float64).reshape(y.shape[0], -1), (1, copies))
    size = ["batch", *x.shape[1:]]
    inputs = helper.make_tensor_value_info(floats[0].name, floats[0].type.tensor_type.elem_type, size)
    output = helper.make_tensor_value_info(result, TensorProto.FLOAT, ["batch", expected.shape[1]])
    constants = [*constants_of(model, named, floats[0].name), shape]
    data = {"input": x.astype(np.float64), "expected": expected}
    write(folder, f"{case.name}.batched", model, nodes, inputs, constants, output, data)
    return 1


def constant(folder, case, named):
    model = case.model
    out = model.graph.output[0]
    y = named[out.name]
    if y.size == 0 or any(named[i.name].size == 0 for i in model.graph.input if i.name in named):
        return 0
    nodes = [node for node in model.graph.node]
    shape = numpy_helper.from_array(np.array([1, -1], dtype=np.int64), "zz_shape")
    result, copies = row(nodes, out.name, out.type.tensor_type.elem_type, y.shape, 1)
    expected = np.tile(y.astype(np.float64).reshape(1, -1), (1, copies))
    width = expected.shape[1]
    weight = numpy_helper.from_array(np.zeros((2, width), np.float32), "zz_weight")
    nodes.append(helper.make_node("MatMul", ["zz_input", "zz_weight"], ["zz_zero"]))
    nodes.append(helper.make_node("Add", ["zz_zero", result], ["zz_logits"]))
    inputs = helper.make_tensor_value_info("zz_input", TensorProto.FLOAT, ["batch", 2])
    output = helper.make_tensor_value_info("zz_logits", TensorProto.FLOAT, ["batch", width])
    constants = [*constants_of(model, named, None), shape, weight]
    data = {"input": np.ones((2, 2)), "expected": np.tile(expected, (2, 1))}
    write(folder, f"{case.name}.constant", model, nodes, inputs, constants, output, data)
    return 1


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    written = skipped = 0
    for case in collect_testcases(None):
        named = tensors(case.model, case.data_sets[0]) if case.data_sets else None
        if named is None or not case.model.graph.output:
            skipped += 1
            continue
        written += batched(folder, case, named) + constant(folder, case, named)
    print(f"{written} models of {folder}; {skipped} tests without plain tensors left out")


main()
