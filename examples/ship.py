"""Put a trained bundle among the models of the package, in half precision, under the card that already stands there.

    python examples/ship.py runs/tiny/bundle --name tiny

The card, engine/model/shipped/NAME/README.md, is written by hand around the tables of examples/measure.py; where there is none, the
run's own is taken.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.model.bundle import load_bundle, save_bundle
from engine.model.bundle_folder import SHIPPED


def main() -> None:
    """Save and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="the bundle of a finished run")
    parser.add_argument("--name", default="tiny")
    args = parser.parse_args()
    bundle = load_bundle(args.bundle)
    folder = SHIPPED / args.name
    card = folder / "README.md"
    text = card.read_text("utf-8") if card.is_file() else bundle.card
    provenance = dict(bundle.provenance)
    save_bundle(folder, bundle.clip, bundle.tokenizer, bundle.preprocessing, name=args.name, card=text, provenance=provenance, half=True)
    parameters = sum(parameter.numel() for parameter in bundle.clip.parameters())
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{args.name}: {parameters / 1e6:.2f} M parameters, {size / 1e6:.1f} MB, sha256 {load_bundle(args.name).content_hash}")


if __name__ == "__main__":
    main()
