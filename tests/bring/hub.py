"""Makes the tables of pictures beside it, as the hubs publish them: python hub.py (pyarrow 26; the
metadata is what the library `datasets` writes). The pictures are those of
crates/data/tests/fixtures."""
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
PICTURES = HERE / "../../crates/data/tests/fixtures"
names = ["plain.png", "cut.jpg", "cmyk.jpg"]
rows = [{"bytes": (PICTURES / name).read_bytes(), "path": name} for name in names]
struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog", "eel", "fox"], "_type": "ClassLabel"}}
schema = pa.schema([("image", struct), ("label", pa.int64())],
                   metadata={"huggingface": json.dumps({"info": {"features": features}})})
table = pa.table({"image": pa.array(rows, struct), "label": pa.array([1, 0, 0], pa.int64())}, schema=schema)
pq.write_table(table, HERE / "hub.parquet", compression="none")
pq.write_table(table, HERE / "hub-snappy.parquet", compression="snappy", row_group_size=2)
pq.write_table(table, HERE / "hub-snappy-v2.parquet", compression="snappy", data_page_version="2.0", use_dictionary=False)
pq.write_table(table, HERE / "hub-zstd.parquet", compression="zstd")
