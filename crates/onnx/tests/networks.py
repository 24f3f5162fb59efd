"""Exports whole networks with references, for the test `networks`.

    pip install torch torchvision timm onnx onnxscript safetensors numpy
    python crates/onnx/tests/networks.py FOLDER [NAME ...]
    INFLUENCE_ONNX_NETWORKS=FOLDER cargo test -p influence-onnx --test networks -- --nocapture

Every network of `NETWORKS` (timm's names, with the size of its images) has random weights of a
fixed seed and three classes, and becomes three files: NAME.f64ts17.onnx (older exporter, float64,
any batch), NAME.f32one14.onnx (older exporter, a batch of 1 written in) and NAME.f32dyn18.onnx
(newer exporter). Beside them lies NAME.ref.safetensors with `images`, `logits` and `jacobian` in
float64.
"""

import copy
import sys
import warnings
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

warnings.filterwarnings("ignore")

NETWORKS = {
    "cait_xxs24_224": 64, "davit_tiny": 64, "edgenext_xx_small": 64, "fastvit_t8": 64,
    "ghostnet_050": 64, "hiera_tiny_224": 224, "mobilevit_xxs": 64, "nf_regnet_b0": 64,
    "poolformer_s12": 64, "repvgg_a0": 64, "sequencer2d_s": 56, "swin_tiny_patch4_window7_224": 224,
    "tnt_s_legacy_patch16_224": 64,
}


def network(name, size):
    """A network in evaluation, with statistics and heads that are not those of a fresh one."""
    torch.manual_seed(0)
    try:
        model = timm.create_model(name, num_classes=3, img_size=size).eval()
    except TypeError:
        model = timm.create_model(name, num_classes=3).eval()
    with torch.no_grad():
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_mean"):
                buffer.copy_(torch.randn_like(buffer) * 0.1)
            if buffer_name.endswith("running_var"):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
        for parameter in model.parameters():
            if parameter.abs().max() == 0:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


def export(folder, name, size):
    model = network(name, size)
    double = copy.deepcopy(model).double()
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(2))
    wide = images.double()
    rows = torch.autograd.functional.jacobian(lambda x: double(x).sum(0), wide[:1])
    jacobian = rows.transpose(0, 1).reshape(1, rows.shape[0], -1).contiguous()
    with torch.no_grad():
        logits = double(wide)
    save_file({"images": wide, "logits": logits, "jacobian": jacobian}, folder / f"{name}.ref.safetensors")
    old = {"dynamo": False, "input_names": ["x"]}
    torch.onnx.export(double, (wide[:2],), folder / f"{name}.f64ts17.onnx", opset_version=17,
                      dynamic_axes={"x": {0: "batch"}}, **old)
    torch.onnx.export(model, (images[:1],), folder / f"{name}.f32one14.onnx", opset_version=14, **old)
    batch = torch.export.Dim("batch")
    torch.onnx.export(model, (images[:2],), folder / f"{name}.f32dyn18.onnx", opset_version=18, dynamo=True,
                      dynamic_shapes=({0: batch},), external_data=False, verbose=False)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in NETWORKS.items():
        if not sys.argv[2:] or name in sys.argv[2:]:
            try:
                export(folder, name, size)
            except Exception as error:  # The others go on.
                print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


main()
