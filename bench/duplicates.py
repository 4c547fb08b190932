# ruff: noqa: INP001 - a script, not a package
"""Measures the perceptual hash: recall, false merges and cost, beside PDQ and a 64-bit pHash.

    python bench/duplicates.py FOLDER…     large photographs below these folders (wallpapers are good)
    python bench/duplicates.py --markdown FOLDER…   the tables of docs/duplicates.md, on stdout

Debian's packages lomiri-wallpapers-16.04, lomiri-wallpapers-20.04, plasma-workspace-wallpapers,
gnome-backgrounds and mate-backgrounds have such photographs, in /usr/share/backgrounds and
/usr/share/wallpapers. The peers, pdqhash and imagehash, are installed into .bench/hashes.
imagehash's phash is the algorithm of imagededup's PHash; imagededup itself would need torchvision.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mirror.content import image as gate  # noqa: E402
from mirror.content.image import inspect  # noqa: E402
from mirror.content.perceptual_hash import LEAST_CONTRAST  # noqa: E402
from mirror.duplicates.copy_groups import DROPPED_CONTRAST  # noqa: E402
from mirror.duplicates.near_hashes import distances  # noqa: E402

BENCH = ROOT / ".bench"
PEERS = ("pdqhash==0.2.8", "imagehash==4.3.2", "numpy", "pillow", "opencv-python-headless")
# Bits within which each hash calls two images copies.
THRESHOLDS = {"ours, 15": 15, "ours, 23": 23, "PDQ, 31": 31, "pHash, 10": 10}
TILE = 256
SOURCE = 1024
LARGEST = 2048
# Sources whose variants are made, drawn evenly; each photograph gives several.
SOURCES = 160
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")

Bits = NDArray[np.uint8]

# Runs in the peers' environment: reads the paths of images on stdin, and prints their hashes in
# hexadecimal and the CPU seconds of each hash.
PEER = """
import json, sys, time
import cv2, imagehash, numpy as np, pdqhash
from PIL import Image
cv2.setNumThreads(1)
found = {"PDQ": [], "pHash": [], "seconds": {"PDQ": 0.0, "pHash": 0.0}}
for path in json.load(sys.stdin):
    image = Image.open(path).convert("RGB")
    image.load()
    began = time.process_time()
    bits, quality = pdqhash.compute(np.asarray(image))
    found["seconds"]["PDQ"] += time.process_time() - began
    packed = np.packbits(bits.astype(bool)).tobytes().hex()
    found["PDQ"].append(packed if quality >= 50 else "")
    began = time.process_time()
    bits = imagehash.phash(image).hash
    found["seconds"]["pHash"] += time.process_time() - began
    found["pHash"].append(np.packbits(bits.ravel()).tobytes().hex())
json.dump(found, sys.stdout)
"""

# Runs alone, so that its peak of memory is its own.
MILLION = """
import json, sys, time
import numpy as np
from mirror.duplicates.near_hashes import near_components
count, hot = int(sys.argv[1]), int(sys.argv[2])
chance = np.random.default_rng(3)
bits = np.frombuffer(chance.bytes(32 * count), np.uint8).reshape(-1, 32).copy()
copies = chance.integers(0, count // 2, count // 10)
flips = np.packbits(chance.random((len(copies), 256), np.float32) < 0.04, axis=1)
bits[-len(copies):] = bits[copies] ^ flips
if hot:
    near = np.packbits(chance.random((hot, 256), np.float32) < 0.02, axis=1)
    bits[count // 2 : count // 2 + hot] = bits[count // 2] ^ near
began = time.process_time()
root = near_components(bits, 23)
seconds = time.process_time() - began
# Not ru_maxrss, which begins with that of the parent.
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0])
near = np.unpackbits(flips, axis=1).sum(axis=1) <= 23
joined = (root[copies] == root[-len(copies):])[near].mean()
json.dump({"seconds": seconds, "mb": peak / 1024, "joined": float(joined)}, sys.stdout)
"""


def photographs(folders: Sequence[str]) -> Iterator[Image.Image]:
    """The photographs below these folders that are large enough, each only once."""
    seen: set[bytes] = set()
    paths = sorted(path for folder in folders for path in Path(folder).rglob("*"))
    for path in paths:
        if path.suffix.lower() not in ENDINGS or not path.is_file():
            continue
        with Image.open(path) as found:
            if min(found.size) < SOURCE:
                continue
            image = found.convert("RGB")
        hashed = inspect(encoded(image.resize((512, 512)), "JPEG")).near
        # A folder often has one photograph at several sizes.
        if hashed is not None and not _is_near(hashed[3:], seen):
            seen.add(hashed[3:])
            yield image


def _is_near(bits: bytes, seen: set[bytes]) -> bool:
    number = int.from_bytes(bits)
    return any((number ^ int.from_bytes(other)).bit_count() <= 60 for other in seen)


def encoded(image: Image.Image, to: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, to, **options)
    return out.getvalue()


def squares(image: Image.Image, side: int) -> Iterator[Image.Image]:
    """Squares of an image that do not overlap."""
    for top in range(0, image.height - side + 1, side):
        for left in range(0, image.width - side + 1, side):
            yield image.crop((left, top, left + side, top + side))


def _written_on(image: Image.Image, text: str) -> Image.Image:
    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    draw.rectangle((0, image.height * 9 // 10, image.width, image.height), fill="white")
    draw.text((image.width // 20, image.height * 92 // 100), text, fill="black", font_size=40)
    return marked


def _inside(image: Image.Image, share: float) -> Image.Image:
    cut = round(image.width * share)
    return image.crop((cut, cut, image.width - cut, image.height - cut))


def _resized(side: int) -> Callable[[Image.Image], bytes]:
    return lambda image: encoded(image.resize((side, side)), "JPEG", quality=88)


VARIANTS: dict[str, Callable[[Image.Image], bytes]] = {
    **{f"{side} px": _resized(side) for side in (LARGEST, 500, 240, 100, 75)},
    **{
        f"JPEG q{quality}": lambda image, quality=quality: encoded(image, "JPEG", quality=quality)
        for quality in (30, 50, 70, 95)
    },
    "WebP q80": lambda image: encoded(image, "WEBP", quality=80),
    "PNG": lambda image: encoded(image, "PNG"),
    "grey": lambda image: encoded(image.convert("L"), "JPEG", quality=88),
    "progressive": lambda image: encoded(image, "JPEG", quality=88, progressive=True),
    "10 % brighter": lambda image: encoded(
        ImageEnhance.Brightness(image).enhance(1.1), "JPEG", quality=88
    ),
    "crop of 2 %": lambda image: encoded(_inside(image, 0.01), "JPEG", quality=88),
    "crop of 5 %": lambda image: encoded(_inside(image, 0.025), "JPEG", quality=88),
    "caption": lambda image: encoded(_written_on(image, "Urtica dioica"), "JPEG", quality=88),
}


def ours(bodies: Sequence[bytes], least: int) -> list[str]:
    """The bits of our hash in hexadecimal; empty where there is none that counts."""
    found = []
    for body in bodies:
        near = inspect(body).near
        counts = near is not None and int.from_bytes(near[1:3]) >= least
        found.append(near[3:].hex() if counts and near is not None else "")
    return found


def peer_python() -> Path:
    python = BENCH / "hashes" / "bin" / "python"
    if not python.exists():
        BENCH.mkdir(exist_ok=True)
        venv.create(python.parents[1], with_pip=True)
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PEERS]
        subprocess.run(install, check=True)  # noqa: S603
    return python


def peers(bodies: Sequence[bytes], folder: Path) -> dict[str, object]:
    """The hashes of both peers, and what they cost."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, body in enumerate(bodies):
        path = folder / f"{number}.image"
        path.write_bytes(body)
        paths.append(str(path))
    command = [str(peer_python()), "-c", PEER]
    done = subprocess.run(  # noqa: S603
        command, input=json.dumps(paths), capture_output=True, text=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def bits_apart(one: str, other: str) -> int | None:
    if not one or not other:
        return None
    return (int(one, 16) ^ int(other, 16)).bit_count()


def all_hashes(bodies: Sequence[bytes], folder: Path) -> dict[str, list[str]]:
    others = peers(bodies, folder)
    sure, mine = ours(bodies, DROPPED_CONTRAST), ours(bodies, LEAST_CONTRAST)
    pdq, phash = others["PDQ"], others["pHash"]
    assert isinstance(pdq, list)
    assert isinstance(phash, list)
    return {"ours, 15": sure, "ours, 23": mine, "PDQ, 31": pdq, "pHash, 10": phash}


def recall(sources: Sequence[Image.Image]) -> Iterator[tuple[str, list[float]]]:
    """For each variant the share of sources, in percent, that each hash finds again."""
    originals = all_hashes([encoded(one, "JPEG", quality=92) for one in sources], BENCH / "sources")
    hashed = [at for at, bits in enumerate(originals["ours, 23"]) if bits]
    yield (
        f"sources with a hash, of {len(sources)}",
        [sum(map(bool, bits)) / len(sources) * 100 for bits in originals.values()],
    )
    for name, variant in VARIANTS.items():
        found = all_hashes([variant(sources[at]) for at in hashed], BENCH / "variants")
        shares = []
        for hash_name, most in THRESHOLDS.items():
            apart = [
                bits_apart(originals[hash_name][at], bits)
                for at, bits in zip(hashed, found[hash_name], strict=True)
            ]
            known = [distance for distance in apart if distance is not None]
            shares.append(sum(d <= most for d in known) / max(1, len(known)) * 100)
        yield name, shares


def false_merges(tiles: Sequence[bytes]) -> tuple[int, dict[str, int]]:
    """Pairs of distinct tiles with our hash, and how many each threshold calls copies."""
    found = all_hashes(tiles, BENCH / "tiles")
    merges = {}
    pairs = 0
    for name, most in THRESHOLDS.items():
        width = 8 if name.startswith("pHash") else 32
        rows = np.frombuffer(bytes.fromhex("".join(found[name])), np.uint8).reshape(-1, width)
        words = np.ascontiguousarray(rows).view(np.uint64)
        if name == "ours, 23":
            pairs = len(rows) * (len(rows) - 1) // 2
        merges[name] = sum(
            int(np.count_nonzero(distances(words[at + 1 :], words[at]) <= most))
            for at in range(len(words) - 1)
        )
    return pairs, merges


def cost(sources: Sequence[Image.Image]) -> Iterator[tuple[str, float, float]]:
    """CPU of an inspection without and with the hash, in microseconds, by size."""
    computed = gate._near  # noqa: SLF001
    for side in (240, 500, SOURCE, LARGEST):
        bodies = [encoded(one.resize((side, side)), "JPEG", quality=88) for one in sources[:40]]
        took: dict[str, list[float]] = {"without": [], "with": []}
        for _ in range(7):
            for name, times in took.items():
                gate._near = computed if name == "with" else lambda *_: b""  # type: ignore[assignment]  # noqa: SLF001
                began = time.process_time()
                for body in bodies:
                    inspect(body)
                times.append((time.process_time() - began) / len(bodies) * 1e6)
        gate._near = computed  # noqa: SLF001
        yield f"{side} px", statistics.median(took["without"]), statistics.median(took["with"])


def million(count: int, hot: int) -> dict[str, float]:
    command = [sys.executable, "-c", MILLION, str(count), str(hot)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--markdown", action="store_true", help="no other lines than the tables")
    asked = parser.parse_args()

    def row(*cells: object) -> None:
        sys.stdout.write("| " + " | ".join(map(str, cells)) + " |\n")
        sys.stdout.flush()

    images = list(photographs(asked.folders))
    sources = [square for image in images for square in squares(image, SOURCE)]
    sources = sources[:: max(1, len(sources) // SOURCES)]
    tiles = [encoded(tile, "JPEG", quality=90) for image in images for tile in squares(image, TILE)]
    if not asked.markdown:
        sys.stderr.write(f"{len(images)} photographs, {len(sources)} sources, {len(tiles)} tiles\n")
    row("found again, in %", *THRESHOLDS)
    row(*["---"] * (len(THRESHOLDS) + 1))
    for name, shares in recall(sources):
        row(name, *(f"{share:.1f}" for share in shares))
    pairs, merges = false_merges(tiles)
    row(f"false merges among {pairs:,} pairs", *merges.values())
    sys.stdout.write("\n")
    row("inspection, CPU µs", "without", "with the hash", "ratio")
    row(*["---"] * 4)
    for size, without, with_hash in cost(sources):
        row(size, f"{without:,.0f}", f"{with_hash:,.0f}", f"{with_hash / without:.3f}")
    others = peers(
        [encoded(one.resize((500, 500)), "JPEG") for one in sources[:40]], BENCH / "timed"
    )
    seconds = others["seconds"]
    assert isinstance(seconds, dict)
    for name, took in seconds.items():
        row(
            f"{name} at 500 px, beside its decode", "", f"{took / len(sources[:40]) * 1e6:,.0f}", ""
        )
    sys.stdout.write("\n")
    row("1,000,000 hashes into groups", "CPU s", "peak MB", "near copies joined")
    row(*["---"] * 4)
    for words, hot in (("100,000 copies", 0), ("and 30,000 near copies of one image", 30_000)):
        found = million(1_000_000, hot)
        joined = f"{found['joined']:.2%}"
        row(words, f"{found['seconds']:.1f}", f"{found['mb']:.0f}", joined)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
