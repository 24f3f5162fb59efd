#!/usr/bin/env python3
"""make.py MNIST_FOLDER [COUNT]: writes the embedded sample beside this script: the first COUNT
(100) images and labels of the MNIST test set, as IDX files under their official names. MNIST_FOLDER
holds t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, or the same with .gz. Needs Python 3 alone.
The committed files were made with COUNT = 100; where they came from stands in NOTICES."""
import gzip
import hashlib
import pathlib
import struct
import sys


def contents(folder, name):
    """The bytes of the IDX file `name`, decompressed where only its .gz is there."""
    plain = folder / name
    return plain.read_bytes() if plain.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())


def cut(data, dims, count):
    """The first `count` entries of an IDX array of unsigned bytes with `dims` dimensions, as a
    whole IDX file."""
    magic, *shape = struct.unpack(f">{1 + dims}I", data[: 4 + 4 * dims])
    assert magic == 0x0800 + dims, f"magic {magic:#010x}"
    size = 1
    for extent in shape[1:]:
        size *= extent
    assert len(data) == 4 + 4 * dims + shape[0] * size and shape[0] >= count, (len(data), shape)
    header = struct.pack(f">{1 + dims}I", magic, count, *shape[1:])
    return header + data[4 + 4 * dims :][: count * size]


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    source, count = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 100
    for name, dims in (("t10k-images-idx3-ubyte", 3), ("t10k-labels-idx1-ubyte", 1)):
        sample = cut(contents(source, name), dims, count)
        (pathlib.Path(__file__).parent / name).write_bytes(sample)
        print(f"{name}: {len(sample)} bytes, sha256 {hashlib.sha256(sample).hexdigest()}")


main()
