#!/usr/bin/env python3
"""The input Jacobian of smooth networks that people use (K = 10): this library against PyTorch, in
alternation.

    cargo bench --bench smooth --profile dev --no-run      # prints the path of the bench
    python benches/peers/smooth.py --bench PATH [vit resnet50_silu ...]

PyTorch's forms are K backward passes, contiguous and channels_last, and `torch.func` (vmap of vjp);
the quickest round of each counts, and the quickest form is the peer. Memory is the peak of
a whole process. Networks have synthetic weights and sound statistics, and are exported to ONNX
(`--folder`), where they are found again. Needs torch, timm and onnxscript.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import time

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import networks

CLASSES = 10


def timm_network(name):
    return lambda: timm.create_model(name, num_classes=CLASSES)


def transformer():
    return VisionTransformer(img_size=32, patch_size=4, embed_dim=192, depth=6, num_heads=3, num_classes=CLASSES)


class Resnet(nn.Module):
    """ResNet50 with another activation."""

    def __init__(self, activation):
        super().__init__()
        self.body, self.activation = networks.ResNet50(3, 32), activation

    def forward(self, x):
        before, networks.relu = networks.relu, self.activation
        try:
            return self.body(x)
        finally:
            networks.relu = before


NETWORKS = {
    "mobilenetv3_small": (timm_network("mobilenetv3_small_100"), 64),
    "efficientnet_b0": (timm_network("efficientnet_b0"), 64),
    "convnext_atto": (timm_network("convnext_atto"), 64),
    "vit": (transformer, 32),
    "resnet50_leaky": (lambda: Resnet(lambda x: nn.functional.leaky_relu(x, 0.1)), 32),
    "resnet50_silu": (lambda: Resnet(nn.functional.silu), 32),
}


def build(name):
    torch.manual_seed(1)
    make, side = NETWORKS[name]
    network = make()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for key, parameter in network.named_parameters():
        parameter.requires_grad_(False)
        # ConvNeXt's scales of 1e-6 would leave nothing of its blocks.
        if key.endswith("gamma"):
            parameter.fill_(0.5)
        # Exporters write equal tensors once. Read in many places, that would be another network.
        if parameter.ndim == 1:
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval(), side


def export(name, folder):
    """The network as a file. The older exporter for ConvNeXt, of which the newer makes operations
    on strides."""
    path = folder / f"{name}.onnx"
    if path.exists():
        return path
    network, side = build(name)
    images = torch.rand(2, 3, side, side)
    if name.startswith("convnext"):
        axes = {"x": {0: "n"}, "y": {0: "n"}}
        torch.onnx.export(network, (images,), path, dynamo=False, opset_version=17, input_names=["x"], output_names=["y"], dynamic_axes=axes)
    else:
        torch.onnx.export(network, (images,), path, dynamo=True, external_data=False, dynamic_shapes=({0: torch.export.Dim("n")},))
    return path


def forms(name, batch):
    """A call for each form of PyTorch's."""
    network, side = build(name)
    images = torch.rand(batch, 3, side, side)

    def backward(layout):
        own = build(name)[0].to(memory_format=layout)
        x = images.contiguous(memory_format=layout)

        def run():
            y = x.clone().requires_grad_(True)
            logits = own(y)
            return [torch.autograd.grad(logits[:, k].sum(), y, retain_graph=True)[0] for k in range(CLASSES)]

        return run

    def func():
        _, pull = torch.func.vjp(network, images)
        return torch.func.vmap(lambda v: pull(v.expand(batch, CLASSES))[0])(torch.eye(CLASSES))

    return {"contiguous": backward(torch.contiguous_format), "channels_last": backward(torch.channels_last), "func": func}


def milliseconds(run, batch):
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began) / batch


def resident(line):
    """MiB of resident memory of this process, by the name of the line of its status."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{line}:\s*(\d+)", status)[1]) / 1024


def peak(name, form, batch):
    """Peak MiB of this whole process while a form of PyTorch's runs once."""
    run = forms(name, batch)[form]
    # Forgets the peak that this process has had, its parent's at the fork included.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    run()
    return resident("VmHWM")


def peers_memory(name, form, options):
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--form", form, "--threads", options.threads, "--batch", options.batch, name]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def ours_memory(options, path):
    """Peak MiB of our whole process: program, weights and run."""
    command = ["/usr/bin/time", "-f", "%M", options.bench, path, "--threads", options.threads, "--batch", options.batch]
    done = subprocess.run([str(word) for word in [*command, "--rounds", 1, "--unchecked"]], capture_output=True, text=True, check=True)
    return int(done.stderr.split()[-1]) / 1024


def ours(options, path):
    command = [options.bench, path, "--threads", options.threads, "--batch", options.batch, "--rounds", 2]
    output = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout
    return float(re.search(r": ([\d.]+) ms per image", output)[1]), re.search(r"image, (.*), difference", output)[1]


def compare(name, options):
    path = export(name, options.folder)
    runs = forms(name, options.batch)
    times = {form: [] for form in [*runs, "ours"]}
    usable = {}
    for form, run in runs.items():
        try:
            run()
            usable[form] = run
        except Exception as error:  # a form that PyTorch does not have for a network
            print(f"{name}: {form}: {type(error).__name__}")
    for _ in range(options.rounds):
        for form, run in usable.items():
            times[form].append(milliseconds(run, options.batch))
        own, engine = ours(options, path)
        times["ours"].append(own)
    least = {form: min(all_times) for form, all_times in times.items() if all_times}
    peer = min((form for form in usable), key=least.get)
    shown = ", ".join(f"{form} {value:.1f}" for form, value in least.items())
    print(f"{name}: {least['ours'] / least[peer]:.2f} of {peer}; ms per image: {shown}; {engine}", flush=True)
    memory = {form: peers_memory(name, form, options) for form in usable}
    shown = ", ".join(f"{form} {value:.0f}" for form, value in memory.items())
    print(f"{name}: MiB of the whole process: {shown}, ours {ours_memory(options, path):.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help="of " + ", ".join(NETWORKS))
    parser.add_argument("--bench", type=pathlib.Path)
    parser.add_argument("--form", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default=pathlib.Path("."), type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.form:
        return print(peak(options.networks[0], options.form, options.batch))
    for name in options.networks:
        compare(name, options)


if __name__ == "__main__":
    main()
