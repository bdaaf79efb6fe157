"""Leak check: near copies that are found, pairs of different patients that are taken for copies, and patients told by file names.

    python tests/benchmarks/leak_check.py FOLDER [--images 2000]

FOLDER holds images named as in ChestX-ray14 (00000001_000.png), so that the patient of each is known.
"""

from __future__ import annotations

import argparse
import io
import random
from pathlib import Path

import numpy as np
from PIL import Image

from engine.data.leak_check import NEAR, difference_hash, patient_in_name

PATHS = {
    "MIMIC-CXR": "files/p10/p10000032/s50414267/02aa804e.jpg",
    "CheXpert": "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
    "ChestX-ray14": "images/00000001_000.png",
    "Kermany": "chest_xray/train/PNEUMONIA/person1000_bacteria_2931.jpeg",
    "Kermany, normal": "chest_xray/test/NORMAL/NORMAL2-IM-0117-0001.jpeg",
    "COVIDx, RICORD": "train/MIDRC-RICORD-1C-419639-000082-46647-0.png",
    "PadChest": "0/20536686640136348236148679891455886468_k6ga29.png",
    "RSNA": "stage_2_train_images/0004cfab-14fd-4e49-80ba-63a80b6bddd6.dcm",
}


def changed(image: Image.Image) -> dict[str, Image.Image]:
    """The image as other people have it."""
    width, height = image.size
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=50)
    edge = max(1, width // 50)
    return {
        "JPEG, quality 50": Image.open(stream),
        "half the size": image.resize((width // 2, height // 2), Image.Resampling.LANCZOS),
        "gamma 1.5": image.point(lambda value: int(255 * (value / 255) ** 1.5)),
        "20 % brighter": image.point(lambda value: min(255, int(value * 1.2 + 10))),
        "2 % cropped on each side": image.crop((edge, edge, width - edge, height - edge)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    args = parser.parse_args()
    files = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    files = random.Random(0).sample(files, min(args.images, len(files)))
    images = [Image.open(path).convert("L") for path in files]
    hashes = np.unpackbits(np.stack([difference_hash(np.asarray(image)) for image in images]), axis=1).astype(np.float32)
    distance = hashes @ (1 - hashes).T + (1 - hashes) @ hashes.T
    patients = np.array([path.name.partition("_")[0] for path in files])
    pairs = np.triu(patients[:, None] != patients[None], 1)
    print(f"{len(files)} images, {pairs.sum():,} pairs of different patients; near: at most {NEAR} of 256 bits\n")
    print(f"| pairs of different patients within {NEAR} bits | {int((distance[pairs] <= NEAR).sum())} |")
    print("\n| copy | found |\n|---|---|")
    found: dict[str, list[bool]] = {}
    for image, bits in zip(images[:500], hashes, strict=False):
        for name, other in changed(image).items():
            own = np.unpackbits(difference_hash(np.asarray(other.convert("L")))).astype(np.float32)
            found.setdefault(name, []).append(bool((own != bits).sum() <= NEAR))
    for name, hits in found.items():
        print(f"| {name} | {100 * np.mean(hits):.1f} % |")
    print("\n| layout | a path | patient by its name |\n|---|---|---|")
    for layout, path in PATHS.items():
        told = patient_in_name(path)
        print(f"| {layout} | `{path}` | {told[1] if told else 'none'} |")


if __name__ == "__main__":
    main()
