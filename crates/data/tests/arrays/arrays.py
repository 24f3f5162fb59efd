"""Makes the files of arrays beside it: the same six numbers per sample in every form.

    pip install numpy
    python crates/data/tests/arrays/arrays.py
"""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
images = (np.arange(12, dtype=np.float32).reshape(2, 2, 3) - 4) / 8
labels = np.array([3, 1])
np.savez(HERE / "stored.npz", images=images, labels=labels)
np.savez_compressed(HERE / "deflated.npz", images=images.astype(np.float64), labels=labels.astype(np.uint8))
np.savez(HERE / "unlabelled.npz", images=images, other=labels)
np.savez(HERE / "nothing.npz", pictures=images)
np.savez(HERE / "negative.npz", images=images, labels=np.array([3, -1]))
np.savez(HERE / "fewer.npz", images=images, labels=np.array([3]))
np.savez(HERE / "real.npz", images=images, labels=np.array([3.0, 1.0]))
np.save(HERE / "half.npy", images.astype(np.float16))
np.save(HERE / "big.npy", images.astype(">f4"))
np.save(HERE / "bytes.npy", np.array([[0, 51], [255, 102]], dtype=np.uint8))
np.save(HERE / "fortran.npy", np.asfortranarray(images.transpose(0, 2, 1)))
np.save(HERE / "complex.npy", images.astype(np.complex64))
