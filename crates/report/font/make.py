"""Makes DejaVuSans-latin.ttf, the letters of the pictures: python make.py [DejaVuSans.ttf]

Needs fonttools; the font is that of Debian's fonts-dejavu-core. Latin letters, digits and the few
signs that plots use are kept, without hinting and kerning, which pictures of this size do not need.
"""
import subprocess
import sys
from pathlib import Path

font = sys.argv[1] if len(sys.argv) > 1 else "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
out = Path(__file__).with_name("DejaVuSans-latin.ttf")
letters = "U+0020-007E,U+00A0-017F,U+03C1,U+2013,U+2014,U+2018-201D,U+2022,U+2026,U+2190-2193,U+2212,U+2248,U+2264,U+2265"
subprocess.run(
    ["pyftsubset", font, f"--unicodes={letters}", f"--output-file={out}", "--no-hinting", "--layout-features="],
    check=True,
)
print(out.stat().st_size, "bytes")
