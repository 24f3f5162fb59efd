"""One 3x224x224 image through torchvision's ResNet50 with K = 1000: its whole input Jacobian by
torch.func.jacrev in chunks, beside `influence score` with all classes and with the tail merged.
Random weights, with statistics from noise and a head that is scaled to logits of standard deviation
6. Each side is a process of its own; prints seconds and peak memory of each, in alternation.

usage: imagenet.py --program target/debug/influence [--folder DIR] [--repeats 2] [--chunk 16]
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile

TAILS = ["off", "0.001", "0.01", "0.1"]


def network():
    import torch
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.resnet50(weights=None, num_classes=1000).train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(16, 3, 224, 224))
        net.eval()
        images = torch.rand(1, 3, 224, 224).mul(255).round().div(255)
        scale = 6 / net(images).std()
        net.fc.weight *= scale
        net.fc.bias *= scale
    return net, images


def prepare(folder):
    import torch
    from PIL import Image

    net, images = network()
    os.makedirs(os.path.join(folder, "pictures", "a"), exist_ok=True)
    torch.save(net.state_dict(), os.path.join(folder, "resnet50.pt"))
    pixels = images[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    Image.fromarray(pixels).save(os.path.join(folder, "pictures", "a", "0.png"))


def jacobian(chunk):
    """The peer: all K rows, and -log P of the predicted class by the pseudo-inverse of the K x K
    matrix."""
    import torch

    torch.set_num_threads(2)
    net, images = network()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    rows = torch.func.jacrev(lambda x: net(x[None])[0], chunk_size=chunk)(images[0])
    gram = rows.flatten(1).double()
    gram = gram @ gram.T
    with torch.no_grad():
        p = net(images)[0].double().softmax(0)
    s = p.sqrt()[:, None] * (torch.eye(len(p), dtype=p.dtype) - p)
    gamma = s @ gram @ s.T
    w = (p - torch.eye(len(p), dtype=p.dtype)[p.argmax()]) / p.sqrt()
    values, vectors = torch.linalg.eigh(gamma)
    kept = values > 1e-10 * values[-1]
    print("value", float(((vectors[:, kept].T @ w) ** 2).sum()), "rank", int(kept.sum()))


def timed(command):
    """Seconds and peak MiB of a process, and what it printed."""
    done = subprocess.run(["/usr/bin/time", "-f", "%e %M", *command], capture_output=True, text=True, check=True)
    seconds, kilobytes = re.search(r"([\d.]+) (\d+)\s*$", done.stderr).groups()
    return float(seconds), int(kilobytes) / 1024, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default="target/debug/influence")
    parser.add_argument("--folder")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return jacobian(arguments.chunk)
    folder = arguments.folder or tempfile.mkdtemp()
    prepare(folder)
    peer = [sys.executable, __file__, "--peer", "--chunk", str(arguments.chunk)]
    for _ in range(arguments.repeats):
        seconds, memory, words = timed(peer)
        print(f"torch.func.jacrev, chunks of {arguments.chunk}: {seconds:.1f} s, {memory:.0f} MiB; {words.strip()}", flush=True)
        for tail in TAILS:
            out = os.path.join(folder, "scores.csv")
            seconds, memory, _ = timed([
                arguments.program, "score", "--weights", os.path.join(folder, "resnet50.pt"), "--dataset", "folder",
                "--data", os.path.join(folder, "pictures"), "--objective", "predicted", "--memory", "2GiB",
                "--threads", "2", "--tail", tail, "--out", out, "--quiet",
            ])
            with open(out) as file:
                row = next(csv.DictReader(file))
            print(
                f"--tail {tail}: {seconds:.1f} s, {memory:.0f} MiB; influence {row['influence']}, at least "
                f"{row['at_least'] or '-'}, bound {row['bound']}, rank {row['rank']}, merged {row['merged_classes'] or 0}",
                flush=True,
            )
    return None


if __name__ == "__main__":
    main()
