"""Makes the small files beside it, with inputs and float64 references.

    pip install torch onnx onnxscript safetensors numpy
    python crates/onnx/tests/files/make.py [NAME ...]

Every network has random weights of a fixed seed. Beside NAME.onnx lies NAME.safetensors with `input`
[N, ...], `logits` [N, K] and `jacobian` [N, K, ...], computed in float64 by PyTorch.
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
        # The classes of one logit z have the logits [z, 0].
        y = torch.cat([y, 0 * y], 1) if y.shape[1] == 1 else y
        return torch.log(y) if cut else y

    rows = [torch.autograd.functional.jacobian(forward, x[i:i + 1])[0, :, 0] for i in range(3)]
    save_file({"input": x.numpy(), "logits": forward(x).detach().numpy(),
               "jacobian": np.stack([row.numpy() for row in rows])}, HERE / f"{name}.safetensors")


def main():
    for opset in (11, 13, 17):
        export(f"small_opset{opset}", Small, (2, 4, 4), opset)
    export("small_dynamo", Small, (2, 4, 4), dynamo=True)
    export("small_batch1", Small, (2, 4, 4), 13, batch=1, dynamic=False)
    export("attention_opset14", Attention, (5, 3), 14)
    export("attention_dynamo", Attention, (5, 3), 18, dynamo=True)
    export("attention_opset23", Attention, (5, 3), 23, dynamo=True)
    export("attention_batch1", Attention, (5, 3), 14, batch=1, dynamic=False)
    export("probabilities", Probabilities, (5,), 13, cut=True)
    export("recurrent", Recurrent, (6, 3), 17)
    export("up", Up, (2, 3, 4), 13)
    export("named", Named, (4, 3), 14)
    export("scaled", Scaled, (1, 10, 20), 18)
    export("scaled_dynamo", Scaled, (1, 10, 20), 18, dynamo=True)
    export("last_dynamo", Last, (3, 4), 23, dynamo=True)
    export("last_batch1", Last, (3, 4), 18, dynamo=True, batch=1, dynamic=False)
    export("binary", Binary, (5,), 13)
    export("two_outputs", Two, (4,), 13, pick=1)


main()
