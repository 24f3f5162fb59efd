#!/usr/bin/env python3
"""Influence of the input, or of each layer: this program against PyTorch, in alternation, on the
same machine, threads and images.

Says how in `--help` and in the README beside it. Imports nothing but the standard library: a
child's peak memory, as the system gives it, is at least what its parent has at the fork.
"""
import argparse
import csv
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
FOLDERS = {"mnist": "mnist", "cifar10": "cifar-10-batches-bin"}
FORMATS = ["contiguous", "channels_last"]
# Images: the difference of the two times is free of loading and compiling. PyTorch takes a second
# for the layers of one.
FEW, MANY = {"input": 8, "layers": 8}, {"input": 72, "layers": 40}
TORCH_IMAGES = {"input": 64, "layers": 4}
CHECKED = 4  # images compared with float64
# Relative, float32 against float64: a ReLU whose input lies within rounding of 0 changes a float32
# Jacobian by up to 9e-4, PyTorch's own as well (docs/numerics.md, "Whole networks"). Other images
# agree to 1e-5.
TOLERANCE = 1e-3
# A singular value so near (in ln) to the cut may fall on either side of it in float32; such an
# image proves nothing.
NEAR_CUT = 1e-3


def child(command, environment):
    """Runs a command; its output, seconds, and peak resident memory in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed with {process.returncode}: {' '.join(map(str, command))}")
    return output, time.perf_counter() - began, usage.ru_maxrss / 1024


class Case:
    """One network with its weights on one data set, e.g. resnet50w8-mnist."""

    def __init__(self, name, options):
        self.name, self.options = name, options
        self.network, self.dataset = name.rsplit("-", 1)
        found = [options.weights / f"{name}{end}" for end in (".safetensors", ".pt", ".pth")]
        self.weights = next((path for path in found if path.exists()), found[0])
        self.data = options.data / FOLDERS[self.dataset]
        threads = str(options.threads)
        self.environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    def torch(self, what, *more):
        known = [self.network, self.dataset, self.weights, self.data]
        output, _, memory = child([self.options.python, HERE / "torch_side.py", what, *map(str, known + list(more))], self.environment)
        return json.loads(output.splitlines()[-1]), memory

    def ours(self, images):
        """Rows of the result, seconds, MiB."""
        network, _, width = self.network.partition("w")
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "scores.csv"
            command = [self.options.program, "score", "--engine", self.options.engine, "--threads", self.options.threads]
            command += ["--batch", 8, "--perturb", self.options.perturb, "--filter", "paper:1e-3", "--network", network, "--weights", self.weights]
            command += ["--width", width] if width else []
            command += ["--dataset", self.dataset, "--data", self.data, "--split", "test", "--images", f"0..{images}"]
            _, seconds, memory = child([str(word) for word in command + ["--quiet", "--out", out]], self.environment)
            with open(out, newline="") as file:
                return list(csv.DictReader(file)), seconds, memory


    def bench(self):
        """Of our forward pass at batch 8 the seconds per image, and what the reverse pass does of a
        dense one: in all, and without its write side, in percent; by the bench `backends`, and
        nothing without it."""
        if self.options.bench is None:
            return [float("nan")] * 3
        own = {"INFLUENCE_ENGINES": self.options.engine, "INFLUENCE_CASES": self.name, "RAYON_NUM_THREADS": str(self.options.threads)}
        command = [self.options.bench, "--bench", "--noplot", "forward/8"]
        output, _, _ = child(command, os.environ | own)
        # Criterion's estimate between the bounds of its interval.
        time = re.search(r"forward/8\s+time:\s+\[\S+ \S+ (\S+) (\S+)", output)
        work = re.search(r": (\d+) % \(read side alone (\d+) %\)", output)
        if not time or not work:
            sys.exit(f"{self.name}: the bench has no case of that name")
        return float(time[1]) * {"s": 1, "ms": 1e-3, "µs": 1e-6}[time[2]] / 8, float(work[1]), float(work[2])


def allowed(case, largest, what):
    if largest > TOLERANCE:
        sys.exit(f"{case.name}: {largest:.1e} from float64, at most {TOLERANCE:.0e} is allowed")
    print(f"  {what} within {largest:.1e} of float64")
    return largest


def check_layers(case):
    """The same of the layers of one image, by the largest of them."""
    (reference,), _ = case.torch("values-layers", 1)
    found = [float(row["influence"]) for row in case.ours(1)[0]]
    differences = [abs(a - b) for a, b in zip(found, reference, strict=True)]
    return allowed(case, max(differences) / max(reference), f"{len(found)} layers")


def check(case):
    """The largest relative difference from float64; stops where it is too large."""
    if case.options.perturb == "layers":
        return check_layers(case)
    reference, _ = case.torch("values", CHECKED)
    rows, _, _ = case.ours(CHECKED)
    differences = [0.0]
    for row, expected in zip(rows, reference, strict=True):
        if expected["near"] < NEAR_CUT:
            print(f"  image {row['index']}: a singular value lies at the cut; not compared")
            continue
        found = float(row["influence"])
        if int(row["rank"]) != expected["rank"]:
            sys.exit(f"{case.name}, image {row['index']}: rank {row['rank']}, float64 has {expected['rank']}")
        differences.append(abs(found - expected["value"]) / expected["value"] if expected["value"] else abs(found))
    return allowed(case, max(differences), f"{len(differences) - 1} images")


def compare(case):
    """One row of the record."""
    difference, perturb = check(case), case.options.perturb
    what, few_images, many_images = {"input": "time", "layers": "time-layers"}[perturb], FEW[perturb], MANY[perturb]
    runs = []
    for _ in range(case.options.repeats):
        answers = [
            (answer, name, memory)
            for name in FORMATS
            for answer, memory in [case.torch(what, name, TORCH_IMAGES[perturb], case.options.threads)]
        ]
        # The better format of each round, with that process's memory; of the forward pass alone by
        # its own time.
        torch, format_, torch_memory = min(answers, key=lambda run: run[0]["seconds"])
        forward = min(answer["forward"] for answer, _, _ in answers)
        _, few, _ = case.ours(few_images)
        _, many, memory = case.ours(many_images)
        own_forward, done, read = case.bench()
        run = dict(torch=torch["seconds"], forward=forward, format=format_, torch_memory=torch_memory, own_forward=own_forward)
        run |= dict(ours=(many - few) / (many_images - few_images), memory=memory, version=torch["version"])
        runs.append(run)
        print(f"  PyTorch {run['torch']:.4f} s per image ({format_}), {torch_memory:.0f} MiB; ours {run['ours']:.4f} s, {memory:.0f} MiB")
        if case.options.bench:
            print(f"  forward: PyTorch {run['forward']:.4f} s, ours {run['own_forward']:.4f} s")
    middle = lambda key: statistics.median(run[key] for run in runs)
    ratios = sorted(run["ours"] / run["torch"] for run in runs)
    row = {
        "case": case.name,
        "torch_seconds": middle("torch"),
        "ours_seconds": middle("ours"),
        "time_ratio": statistics.median(ratios),
        "time_ratio_least": ratios[0],
        "time_ratio_most": ratios[-1],
        "torch_mib": middle("torch_memory"),
        "ours_mib": middle("memory"),
        "memory_ratio": statistics.median(run["memory"] / run["torch_memory"] for run in runs),
        "torch_forward_seconds": middle("forward"),
        "ours_forward_seconds": middle("own_forward"),
        "forward_ratio": statistics.median(run["own_forward"] / run["forward"] for run in runs),
        "reverse_percent": done,
        "reverse_percent_read": read,
        "torch_format": statistics.mode(run["format"] for run in runs),
        "torch_version": runs[0]["version"],
        "difference": difference,
    }
    print(f"  time ratio {row['time_ratio']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), memory ratio {row['memory_ratio']:.2f}")
    return row


def processor():
    try:
        return re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())[1].strip()
    except (OSError, TypeError):
        return "unknown"


def commit():
    git = lambda *words: subprocess.run(["git", "-C", HERE, *words], capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")


def record(rows, options):
    today = datetime.date.today().isoformat()
    path = options.record / f"{today}-peers-{options.perturb}-{options.engine.replace(':', '-')}.csv"
    known = {"date": today, "commit": commit(), "machine": processor(), "cores": os.cpu_count(), "threads": options.threads}
    known |= {"engine": options.engine, "build": options.program.resolve().parent.name, "repeats": options.repeats, "batch": 8}
    known |= {"load": f"{os.getloadavg()[0]:.1f}"}
    options.record.mkdir(parents=True, exist_ok=True)
    number = lambda value: f"{value:.4g}" if isinstance(value, float) else value
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*known, *rows[0]])
        writer.writeheader()
        writer.writerows({key: number(value) for key, value in (known | row).items()} for row in rows)
    print(f"written: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", help="NETWORK-DATASET, for instance resnet50-cifar10 or resnet50w8-mnist")
    parser.add_argument("--program", type=pathlib.Path, required=True, help="the built `influence`")
    parser.add_argument("--bench", type=pathlib.Path, help="the built bench `backends`, to compare the forward pass alone as well")
    parser.add_argument("--weights", type=pathlib.Path, required=True, help="folder with CASE.safetensors, .pt or .pth")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with mnist/ and cifar-10-batches-bin/")
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--perturb", choices=list(FEW), default="input")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--python", default=sys.executable, help="the Python that has torch [this one]")
    parser.add_argument("--record", type=pathlib.Path, default=HERE.parent / "record", help="folder for the dated record")
    options = parser.parse_args()
    rows = []
    for name in options.cases:
        print(name)
        rows.append(compare(Case(name, options)))
    record(rows, options)


if __name__ == "__main__":
    main()
