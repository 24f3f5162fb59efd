"""Makes the small files beside it, with inputs and float64 references.

    pip install torch onnx onnxscript safetensors numpy
    python crates/onnx/tests/files/make.py [NAME ...]

Every network has random weights of a fixed seed. Beside NAME.onnx lies NAME.safetensors with
`input` [N, ...], `logits` [N, K] and `jacobian` [N, K, ...], computed in float64 by PyTorch.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.numpy import save_file
from torch import nn

warnings.filterwarnings("ignore")
HERE = Path(__file__).parent


class Small(nn.Module):
    """Convolution, normalisation, pool, a view by the batch's size, linear layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.pool(torch.relu(self.norm(self.conv(x))))
        return self.head(x.view(x.size(0), -1))


class Attention(nn.Module):
    """Attention, layer normalisation, a smooth activation, mean over positions."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.embed(x)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        n, s, d = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, s, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(n, s, d))
        return self.head(nn.functional.gelu(x).mean(1))


class Probabilities(nn.Module):
    """Ends in a softmax."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3), nn.Softmax(1))

    def forward(self, x):
        return self.layers(x)


class Two(nn.Module):
    """Two outputs."""

    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2), nn.Linear(5, 3)

    def forward(self, x):
        x = nn.functional.silu(self.body(x))
        return self.a(x), self.b(x)


class Recurrent(nn.Module):
    """A bidirectional LSTM, a GRU, and the last step."""

    def __init__(self):
        super().__init__()
        self.long = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.gated = nn.GRU(8, 3, batch_first=True)
        self.plain = nn.RNN(3, 3, batch_first=True, nonlinearity="relu")
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        x, _ = self.gated(self.long(x)[0])
        return self.head(self.plain(x)[0][:, -1])


class Up(nn.Module):
    """Transposed convolutions: output padding, groups, padding, dilation."""

    def __init__(self):
        super().__init__()
        self.first = nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1)
        self.second = nn.ConvTranspose2d(4, 2, (2, 3), dilation=(1, 2), padding=(1, 0), groups=2, bias=False)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        x = torch.sigmoid(self.second(torch.tanh(self.first(x))))
        return self.head(torch.topk(x.flatten(2), 5).values.sum(2))


class Named(nn.Module):
    """Sums over named axes: two live operands, and one with weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 2, 4))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        y = torch.einsum("btc,chd->bhtd", x, self.weight)
        pairs = torch.einsum("bhtd,bhsd->bhts", y, y)
        mixed = torch.einsum("bhts,bhsd->bthd", torch.softmax(pairs, -1), y)
        return self.head(mixed.flatten(2).cumsum(1).mean(1))


class Scaled(nn.Module):
    """Resizing by factors that no f32 holds, and to a size."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        small = nn.functional.interpolate(x, scale_factor=0.7, mode="bilinear")
        near = nn.functional.interpolate(x, scale_factor=0.6, mode="nearest")
        large = nn.functional.interpolate(torch.tanh(small), size=(5, 9), mode="bicubic")
        return self.head(torch.cat([small.flatten(2).std(2), near[:, :, 3].square().mean(2), large.mean((2, 3))], 1))


class Last(nn.Module):
    """The memory of an LSTM, whose other results nobody reads, behind masked attention."""

    def __init__(self):
        super().__init__()
        self.long = nn.LSTM(4, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
        weights = torch.softmax(x @ x.transpose(1, 2) + mask, -1)
        return self.head(self.long(weights @ x)[1][1][0])


class Binary(nn.Module):
    """One logit."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x):
        return self.layers(x)


class Volume(nn.Module):
    """Convolutions and pools over three axes, with uneven windows and padding that does not
    count."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(1, 4, (2, 3, 3), padding=(1, 1, 0), stride=(1, 1, 2))
        self.largest = nn.MaxPool3d((2, 2, 1), padding=(1, 0, 0))
        self.second = nn.Conv3d(4, 2, (1, 2, 2), groups=2, dilation=(1, 1, 2))
        self.mean = nn.AvgPool3d((2, 1, 1), stride=1, padding=(1, 0, 0), count_include_pad=False)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        x = self.second(self.largest(torch.tanh(self.first(x))))
        return self.head(self.mean(x).square().mean((2, 3, 4)))


class Sampled(nn.Module):
    """Images at the positions of a grid of the code, and of one that follows them."""

    def __init__(self):
        super().__init__()
        self.grid = nn.Parameter(torch.zeros(1, 3, 4, 2))
        self.shift = nn.Linear(2, 24)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        grid = self.grid.expand(x.shape[0], -1, -1, -1)
        a = nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=True)
        moved = grid + 0.3 * self.shift(x.mean((2, 3))).view(-1, 3, 4, 2)
        b = nn.functional.grid_sample(x, moved, padding_mode="border", align_corners=False)
        return self.head(torch.cat([a, b], 1).square().mean((2, 3)))


class Written(nn.Module):
    """Parts of a tensor written in place, elements added where indices say, parts that run
    backwards."""

    def __init__(self):
        super().__init__()
        self.register_buffer("places", torch.tensor([0, 2, 2, 1, 3, 0]))
        self.body, self.head = nn.Linear(6, 6), nn.Linear(10, 3)

    def forward(self, x):
        y = torch.zeros_like(x)
        y[:, 1:5] = self.body(x)[:, :4]
        y[:, ::2] += x[:, ::2]
        places = self.places.expand(x.shape[0], -1)
        sums = torch.zeros(x.shape[0], 4, dtype=x.dtype).scatter_add(1, places, torch.tanh(x))
        return self.head(torch.cat([y.flip(1), sums], 1))


class First(nn.Module):
    """Attention with positions first: products of rows that hold samples and positions."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = x.transpose(0, 1)
        return self.head((x + self.attention(x, x, x)[0]).mean(0))


class Chained(nn.Module):
    """A sum over three operands, one with unnamed axes, and a diagonal."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(4, 3, 3)), nn.Parameter(torch.zeros(3, 2))

    def forward(self, x):
        y = torch.einsum("nij,ikj,jl->nkl", x, self.a, self.b).flatten(1)[:, :4]
        return y + torch.einsum("...i,i->...", x, self.a[0, 0]) + torch.einsum("nii->n", x[:, :3])[:, None]


class Gated(nn.Module):
    """One probability, or the pair of both."""

    def __init__(self, pair=False):
        super().__init__()
        self.layers, self.pair = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1), nn.Sigmoid()), pair

    def forward(self, x):
        y = self.layers(x)
        return torch.cat([1 - y, y], 1) if self.pair else y


class Pair(Gated):
    """The pair of both."""

    def __init__(self):
        super().__init__(pair=True)


def prepared(module):
    torch.manual_seed(3)
    model = module().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
        for buffer in model.buffers():
            if buffer.dtype.is_floating_point:
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model


def export(name, *arguments, **options):
    """All files, or those named on the command line."""
    if not sys.argv[1:] or name in sys.argv[1:]:
        made(name, *arguments, **options)


def made(name, module, sample, opset=None, dynamo=False, batch=2, dynamic=True, pick=None, cut=None):
    model = prepared(module)
    torch.manual_seed(4)
    x = torch.randn(batch, *sample)
    file = HERE / f"{name}.onnx"
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
        torch.onnx.export(model, (x,), file, opset_version=opset, dynamo=True, dynamic_shapes=shapes,
                          external_data=False, verbose=False)
    else:
        axes = {"input": {0: "batch"}} if dynamic else None
        torch.onnx.export(model, (x,), file, opset_version=opset, dynamo=False, dynamic_axes=axes,
                          input_names=["input"])
    network = onnx.load(file)
    del network.metadata_props[:]
    for node in network.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    network.graph.ClearField("value_info")
    onnx.save(network, file)
    reference(name, model, sample, pick, cut)


def reference(name, model, sample, pick=None, cut=None):
    model = model.double()
    torch.manual_seed(5)
    x = torch.randn(3, *sample, dtype=torch.float64)

    def forward(x):
        y = model(x)
        y = y if pick is None else y[pick]
        y = torch.logit(y) if cut == "sigmoid" else y
        # The classes of one logit z have the logits [z, 0].
        y = torch.cat([y, 0 * y], 1) if y.shape[1] == 1 else y
        return torch.log(y) if cut == "softmax" else y

    rows = [torch.autograd.functional.jacobian(forward, x[i:i + 1])[0, :, 0] for i in range(3)]
    save_file({"input": x.numpy(), "logits": forward(x).detach().numpy(),
               "jacobian": np.stack([row.numpy() for row in rows])}, HERE / f"{name}.safetensors")


def zipped():
    """Behind the pair what scikit-learn's exporter writes: labels, and a list of dictionaries."""
    network = onnx.load(HERE / "pair.onnx")
    probabilities = network.graph.output.pop().name
    nodes = [onnx.helper.make_node("ArgMax", [probabilities], ["place"], axis=1, keepdims=0),
             onnx.helper.make_node("ZipMap", [probabilities], ["named"], domain="ai.onnx.ml",
                                   classlabels_int64s=[0, 1])]
    network.graph.node.extend(nodes)
    network.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 1))
    network.graph.output.append(onnx.helper.make_tensor_value_info("place", onnx.TensorProto.INT64, [None]))
    floats = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    maps = onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, floats)
    sequence = onnx.helper.make_sequence_type_proto(maps)
    network.graph.output.append(onnx.helper.make_value_info("named", sequence))
    onnx.save(network, HERE / "zipped.onnx")
    (HERE / "zipped.safetensors").write_bytes((HERE / "pair.safetensors").read_bytes())


def nodes():
    """Files of a node or two: sizes that no tensor has, and a domain that is written out."""
    from onnx import TensorProto, helper, numpy_helper

    def save(name, nodes, constants, sample):
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *sample])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        constants = [numpy_helper.from_array(np.array(value), name) for name, value in constants]
        graph = helper.make_graph(nodes, "g", [x], [y], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())

    fold = [helper.make_node("Col2Im", ["x", "image", "block"], ["y"])]
    save("taps_beyond_memory", fold, [("image", [8, 8]), ("block", [2**32, 2**32])], [16, 4])
    save("taps_that_do_not_divide", fold, [("image", [4, 4]), ("block", [2, 2])], [6, 9])
    image = [2**31 - 1, 2**31 - 1]
    save("image_beyond_memory", fold, [("image", image), ("block", [1, 1])], [6, 9])
    pad = [helper.make_node("Pad", ["x", "pads"], ["y"])]
    save("margins_beyond_memory", pad, [("pads", [0, 2**30, 2**30, 0, 0, 0])], [6, 6])
    save("pads_beyond_memory", pad, [("pads", [0, 2**62, 0, 2**62])], [6])
    product = helper.make_node("MatMul", ["x", "w"], ["z"])
    softmax = helper.make_node("Softmax", ["z"], ["y"], axis=-1, domain="ai.onnx")
    weight = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
    save("named_domain", [product, softmax], [("w", weight)], [3])


def main():
    for opset in (11, 13, 17):
        export(f"small_opset{opset}", Small, (2, 4, 4), opset)
    export("small_dynamo", Small, (2, 4, 4), dynamo=True)
    export("small_batch1", Small, (2, 4, 4), 13, batch=1, dynamic=False)
    export("attention_opset14", Attention, (5, 3), 14)
    export("attention_dynamo", Attention, (5, 3), 18, dynamo=True)
    export("attention_opset23", Attention, (5, 3), 23, dynamo=True)
    export("attention_batch1", Attention, (5, 3), 14, batch=1, dynamic=False)
    export("probabilities", Probabilities, (5,), 13, cut="softmax")
    export("recurrent", Recurrent, (6, 3), 17)
    export("up", Up, (2, 3, 4), 13)
    export("named", Named, (4, 3), 14)
    export("scaled", Scaled, (1, 10, 20), 18)
    export("scaled_dynamo", Scaled, (1, 10, 20), 18, dynamo=True)
    export("last_dynamo", Last, (3, 4), 23, dynamo=True)
    export("last_batch1", Last, (3, 4), 18, dynamo=True, batch=1, dynamic=False)
    export("binary", Binary, (5,), 13)
    export("volume", Volume, (1, 3, 7, 7), 17)
    export("volume_batch1", Volume, (1, 3, 7, 7), 13, batch=1, dynamic=False)
    export("sampled", Sampled, (2, 4, 5), 17)
    export("sampled_dynamo", Sampled, (2, 4, 5), 20, dynamo=True)
    export("written", Written, (6,), 16)
    export("written_dynamo", Written, (6,), 18, dynamo=True)
    export("written_batch1", Written, (6,), 16, batch=1, dynamic=False)
    export("first_batch1", First, (4, 8), 14, batch=1, dynamic=False)
    export("chained", Chained, (4, 3), 14)
    export("gated", Gated, (5,), 13, cut="sigmoid")
    export("pair", Pair, (5,), 13, cut="softmax")
    if not sys.argv[1:] or "zipped" in sys.argv[1:]:
        zipped()
    if not sys.argv[1:] or "nodes" in sys.argv[1:]:
        nodes()
    export("two_outputs", Two, (4,), 13, pick=1)


main()
