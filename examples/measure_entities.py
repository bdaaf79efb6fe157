"""What share of the entity words of real reports does a recogniser find? Takes a few seconds.

    python examples/measure_entities.py --reports iu_reports.csv

The reference: the Indiana (Open-i) reports carry terms that people (column mesh_major) and a program (mesh_automatic) gave them. The
first part of each term ("Opacity/lung/apex": opacity; "Hernia, Hiatal": also "hiatal hernia") is looked up as whole words, in any case,
in findings and impression. The words of the places where it stands verbatim are the reference, and count as found when they lie within a
recognised entity. Terms that name anatomy alone are counted apart, since the shipped lexicon calls no anatomy an entity. What reports
deny ("no pneumothorax") carries no term and is not measured, nor are entities beyond the reference.

100 reports are taken: of those with at least one reference word the first by SHA-256 of their id.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
from pathlib import Path

from engine.data.entities import load_recogniser
from engine.data.reports import clean

ANATOMY = """
abdomen; adipose tissue; air; aorta; aorta, thoracic; aortic valve; ascending aorta; axilla; azygos vein; blood vessels; bone;
bone and bones; bronchi; cardiac shadow; cervical vertebrae; chest wall; clavicle; coronary vessels; costophrenic angle;
descending aorta; diaphragm; diaphragms; epicardial fat; esophagus; gallbladder; gases; heart; heart atria; heart ventricles;
humeral head; humerus; intervertebral disc; jugular veins; kidney; left ventricle; lumbar vertebrae; lung; lymph; lymph node;
lymph nodes; markings; mediastinum; mitral valve; neck; nipple; pleura; pulmonary alveoli; pulmonary arteries; pulmonary artery;
pulmonary valve; rib; ribs; right atrium; right ventricle; shoulder; shoulder joint; spine; sternum; stomach; sulcus; thoracic
aorta; thoracic vertebrae; thoracic wall; thorax; trachea; trachea, carina; vena cava, superior
"""
ANATOMY_TERMS = frozenset(" ".join(term.split()) for term in ANATOMY.split(";"))
NO_TERM = frozenset({"", "normal", "no indexing", "technical quality of image unsatisfactory"})


def reference(row: dict[str, str], text: str, *, anatomy: bool) -> set[int]:
    """Characters of `text` where a term of the report stands verbatim."""
    places: set[int] = set()
    for tag in f"{row['mesh_major']}|{row['mesh_automatic']}".lower().split("|"):
        term = tag.split("/")[0].strip()
        if term in NO_TERM or (term in ANATOMY_TERMS) != anatomy:
            continue
        for form in {term, " ".join(reversed(term.split(", ")))}:
            for match in re.finditer(rf"\b{re.escape(form)}\b", text.lower()):
                places.update(range(*match.span()))
    return places


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path, required=True, help="iu_reports.csv")
    parser.add_argument("--recogniser", default="chest_ner", help="a shipped or installed model, or its folder")
    options = parser.parse_args()
    recogniser = load_recogniser(options.recogniser)
    with options.reports.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: hashlib.sha256(row["uid"].encode()).hexdigest())
    chosen = [(row, text) for row in rows if reference(row, text := clean(f"{row['findings']} {row['impression']}"), anatomy=False)][:100]
    found = recogniser.spans([text for _, text in chosen])
    counts = {"entities": [0, 0], "anatomy": [0, 0], "all words": [0, 0]}
    for (row, text), spans in zip(chosen, found, strict=True):
        marked = {place for span in spans for place in range(span.start, span.end)}
        entities = reference(row, text, anatomy=False)
        wanted = {"entities": entities, "anatomy": reference(row, text, anatomy=True) - entities, "all words": set(range(len(text)))}
        for word in re.finditer(r"\w+", text):
            for name, places in wanted.items():
                counts[name][1] += word.start() in places
                counts[name][0] += word.start() in places and word.start() in marked
    print(f"{recogniser.name} {recogniser.version}, {len(chosen)} reports, {sum(map(len, found))} entities")
    for name, (marked_words, words) in counts.items():
        print(f"{name}: {marked_words} of {words} words within an entity, {marked_words / max(words, 1):.3f}")


if __name__ == "__main__":
    main()
