"""PyTorch's side of compare.py, run by it as a process of its own.

torch_side.py time NETWORK DATASET WEIGHTS DATA contiguous|channels_last IMAGES THREADS
    prints a line of JSON: seconds per image of input Jacobian + influence, and of the forward
    pass, at batch 8
torch_side.py values NETWORK DATASET WEIGHTS DATA IMAGES
    prints a line of JSON: influence, rank and the singular value nearest to the cut of each image,
    in float64
torch_side.py time-layers, values-layers
    the same of each layer's parameters, image by image: one gradient per class, and their inner
    products; values without ranks
"""
import functools
import json
import pathlib
import sys
import time

import numpy as np
import torch

from networks import build

BATCH = 8
CLASSES = 10
EPSILON = 1e-3  # of the filter paper:1e-3, in all three places


def images(dataset, folder, count):
    """The first test images, in [0, 1] as float64, and their labels, from the official files."""
    read = lambda name, skip: np.fromfile(pathlib.Path(folder) / name, np.uint8, offset=skip)
    if dataset == "mnist":
        pixels, labels = read("t10k-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28), read("t10k-labels-idx1-ubyte", 8)
    else:
        rows = read("test_batch.bin", 0).reshape(-1, 3073)
        pixels, labels = rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]
    return torch.from_numpy(pixels[:count] / 255.0), torch.from_numpy(labels[:count].astype(np.int64))


def trained(network, weights, shape):
    if weights.endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(weights)
    else:
        state = torch.load(weights, weights_only=True)
    model = build(network, shape[1], shape[2])
    missing = model.load_state_dict({name: value.float() for name, value in state.items()}, strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    return model


def jacobian(model, x):
    """Logits [N, K] and their Jacobian [N, K, p], by K backward passes."""
    x = x.clone().requires_grad_(True)
    logits = model(x)
    rows = [torch.autograd.grad(logits[:, k].sum(), x, retain_graph=k + 1 < CLASSES)[0].flatten(1) for k in range(CLASSES)]
    return logits.detach(), torch.stack(rows, 1)


def influence(logits, gram, labels):
    """Influence on -log P of the labels by the authors' numerics, from J J^T; all of float64."""
    p = logits.softmax(1)
    mix = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) / (p.sqrt() + EPSILON)[:, :, None]
    squares, q = torch.linalg.eigh(mix @ gram @ mix.mT)
    kept = (squares > EPSILON**2).to(q.dtype)
    of_label = lambda values: values.gather(1, labels[:, None])[:, 0]
    scale = (of_label(p).sqrt() + EPSILON) / (of_label(p) + EPSILON)
    entries = q.gather(1, labels[:, None, None].expand(-1, 1, CLASSES))[:, 0]
    return scale**2 * (kept * entries**2).sum(1)


def scored(model, x, labels):
    logits, rows = jacobian(model, x)
    rows = rows.double()
    return influence(logits.double(), rows @ rows.mT, labels)


def layers_scored(model, x, labels):
    """Influence of each layer, a layer being the tensors of one module, at one image: K backward
    passes, one Gram matrix per layer."""
    names, parameters = zip(*model.requires_grad_(True).named_parameters())
    layers = {}
    for at, name in enumerate(names):
        layers.setdefault(name.rsplit(".", 1)[0], []).append(at)
    logits = model(x)[0]
    gradients = [torch.autograd.grad(logits[k], parameters, retain_graph=k + 1 < CLASSES) for k in range(CLASSES)]
    rows = lambda own: torch.stack([torch.cat([of[at].flatten() for at in own]) for of in gradients])
    grams = torch.stack([(j @ j.T).double() for j in map(rows, layers.values())])
    return influence(logits.detach().double().expand(len(grams), -1), grams, labels.expand(len(grams)))


def seconds(work, x, labels, batch=BATCH):
    """Seconds per image; the first batch is done once before, and does not count."""
    work(x[:batch], labels[:batch])
    began = time.perf_counter()
    for start in range(0, len(x), batch):
        work(x[start : start + batch], labels[start : start + batch])
    return (time.perf_counter() - began) / len(x)


def timed(network, dataset, weights, data, memory_format, count, threads, layers=False):
    torch.set_num_threads(int(threads))
    memory_format = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[memory_format]
    x, labels = images(dataset, data, int(count))
    model = trained(network, weights, x.shape).to(memory_format=memory_format)
    x = x.float().contiguous(memory_format=memory_format)
    work, batch = (layers_scored, 1) if layers else (scored, BATCH)
    jacobians = seconds(lambda x, labels: work(model, x, labels), x, labels, batch)
    with torch.no_grad():
        forward = seconds(lambda x, _: model(x), x, labels)
    return {"seconds": jacobians, "forward": forward, "version": torch.__version__}


def one_value(p, rows, label):
    """As `influence`, from the singular values of the K x p rows, in numpy."""
    mix = (np.diag(p) - np.outer(p, p)) @ rows
    tangent = mix / (np.sqrt(p) + EPSILON)[:, None]
    gradient = -mix[label] / (p[label] + EPSILON)
    _, s, v = np.linalg.svd(tangent, full_matrices=False)
    kept = s > EPSILON
    value = float((((v @ gradient)[kept] / s[kept]) ** 2).sum())
    return {"value": value, "rank": int(kept.sum()), "near": float(np.abs(np.log(s[s > 0] / EPSILON)).min())}


def values(network, dataset, weights, data, count):
    x, labels = images(dataset, data, int(count))
    model = trained(network, weights, x.shape).double()
    logits, rows = jacobian(model, x)
    return [one_value(p, j, y) for p, j, y in zip(logits.softmax(1).numpy(), rows.numpy(), labels.tolist())]


def layer_values(network, dataset, weights, data, count):
    x, labels = images(dataset, data, int(count))
    model = trained(network, weights, x.shape).double()
    return [layers_scored(model, x[i : i + 1], labels[i : i + 1]).tolist() for i in range(len(x))]


WORK = {"time": timed, "values": values, "time-layers": functools.partial(timed, layers=True), "values-layers": layer_values}

if __name__ == "__main__":
    print(json.dumps(WORK[sys.argv[1]](*sys.argv[2:])))
