"""Run `mmclip finetune --dry-run` and `mmclip recipes check` over tables and prompts as public bug reports describe them.

    python tests/benchmarks/field_tables.py FOLDER_OR_ARCHIVE [--only TEXT]

FOLDER_OR_ARCHIVE, a folder or a tar archive, holds a folder for each table, with labels.csv and the images that it names (links without a
target are replaced by small images), and a folder `prompts`. Prints expected and got for each case; exits 1 on a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CONFIG = 78


@dataclass(frozen=True)
class Table:
    """What is expected of one table: that it is read, with words in a notice, or refused with words in the message."""

    name: str
    says: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    findings: tuple[str, ...] = ("Pneumonia",)
    refused: bool = False
    images: int = 0


TABLES = (
    Table("TRUE", images=60),
    Table("na_NA", images=48),
    Table("uncertain_u", ("uncertain labels (-1)",), images=48),
    Table("uncertain_float", ("uncertain labels (-1)",), images=48),
    Table("uncertain_u", options=("--uncertain", "present"), images=60),
    Table("soft", ("row 1", "'0.9'", "--label-threshold"), refused=True),
    Table("soft", options=("--label-threshold", "0.5"), images=60),
    *(
        Table(f"col_{name}", (f"'{name.replace('_I', ' I')}' as file",), images=60)
        for name in ("filename", "image_path", "Image_Index", "ImageID", "Image")
    ),
    *(Table(f"col_{name}", images=60) for name in ("File", "Path", "path")),
    Table("pat_patient_id", ("'patient_id' as patient",), images=60),
    Table("pat_subject_id", ("'subject_id' as patient",), images=60),
    Table("patient_blank", ("30 rows of labels have no patient",), images=60),
    Table("labels_findinglabels", ("labels_findinglabels/images", "sources.0.root"), refused=True),
    Table("labels_listcol", ("no known finding", "--label-column"), refused=True),
    Table("labels_listcol", options=("--label-column", "Labels"), findings=("Pneumonia",), images=60),
    Table("multilabel_onehot_other", ("not learned: bacterial, viral; --findings",), findings=("No Finding",), images=60),
    Table("multilabel_onehot_other", options=("--findings", "bacterial,viral"), findings=("bacterial", "viral"), images=60),
    Table("effusion_nih", ("'Effusion' as Pleural Effusion",), findings=("Pleural Effusion",), images=60),
    Table("renamed_finding", ("pneumonia_label", "--findings"), refused=True),
    Table("renamed_finding", options=("--findings", "pneumonia_label"), findings=("pneumonia_label",), images=60),
    Table("latin1", images=60),
    Table("crlf_bom", images=60),
    Table("semicolon", images=60),
    Table("sep_line", images=60),
    Table("win_paths", images=60),
    Table("win_abs", ("absolute paths of Windows",), refused=True),
    Table("no_ext", images=60),
    Table("pandas_index", images=60),
    Table("split_num", ("not used: fold",), images=60),
    Table("split_val", images=60),
    Table("split_shared_patient", ("leakage", "15 patients"), refused=True),
    Table("all_negative", ("no AUROC", "Edema"), findings=("Pneumonia", "Edema"), images=60),
    Table("all_negative_only", ("no finding with both classes",), refused=True),
    Table("two_cols_same", ("are the same finding",), refused=True),
    Table("dup_same", images=60),
    Table("dup_disagree", images=55),
    Table("missing_third", images=40),
    Table("img_formats", ("no patient column",), images=29),
)
PROMPTS: dict[str, str | None] = {
    "blank": "blank",
    "caseclash": "same name",
    "colclash": "name of a table column",
    "dupkey": "twice",
    "empty_neg": "needs negative phrases",
    "null": "",
    "same": "same",
    "nonascii": None,
    "quotes": None,
    "nofinding_no": None,
}
"""Prompt recipe -> a word of the fault that `mmclip recipes check` must name; "": any fault; None: none."""


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """mmclip in a folder."""
    script = Path(sys.executable).with_name("mmclip")
    return subprocess.run([str(script), *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def unpacked(source: Path, into: Path) -> Path:
    """The folder of tables, copied, links without a target replaced by small images."""
    if source.is_dir():
        shutil.copytree(source, into / "tables", symlinks=True)
    else:
        with tarfile.open(source) as archive:
            archive.extractall(into, filter="tar")
    root = next(path.parent for path in sorted(into.rglob("labels.csv"))).parent
    for number, path in enumerate(sorted(root.rglob("*"))):
        if path.is_symlink() and not path.exists():
            path.unlink()
            values = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
            Image.fromarray(values).save(path, "PNG")
    return root


def table_answer(case: Table, root: Path) -> tuple[bool, str]:
    """Whether the dry run is as expected, and what it said."""
    done = run("finetune", f"{case.name}/labels.csv", "--dry-run", "--json", *case.options, folder=root)
    if case.refused or done.returncode:
        right = case.refused and done.returncode == CONFIG and all(words in done.stderr for words in case.says)
        return right, f"exit {done.returncode}, {done.stderr[-230:].strip()}"
    plan = json.loads(done.stdout)["plan"]
    said = " ".join(plan["notices"])
    images = sum(plan["images"].values())
    right = all(words in said for words in case.says) and images == case.images and set(case.findings) <= set(plan["findings"])
    return right, f"{images} images, {', '.join(plan['findings'])}; {said[:150]}"


def prompt_answer(name: str, fault: str | None, root: Path) -> tuple[bool, str]:
    """Whether the check of a prompt recipe is as expected, and what it said."""
    done = run("recipes", "check", f"prompts/{name}.yaml", folder=root)
    said = (done.stdout + done.stderr).strip().splitlines()
    right = done.returncode == 0 if fault is None else done.returncode != 0 and fault in " ".join(said)
    return right, f"exit {done.returncode}, {said[-1][:160] if said else ''}"


def main() -> int:
    """Run every case and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    os.environ["MMCLIP_SITE_KEY"] = "field-tables"
    different = count = 0
    with tempfile.TemporaryDirectory() as folder:
        root = unpacked(args.source, Path(folder))
        for case in TABLES:
            title = " ".join((case.name, *case.options))
            if args.only not in title:
                continue
            expected = f"{'refused' if case.refused else f'{case.images} images'}{', says ' if case.says else ''}{' and '.join(case.says)}"
            right, got = table_answer(case, root)
            different, count = different + (not right), count + 1
            print(f"{'ok  ' if right else 'NOT '} {title}\n     expected {expected}\n     got      {got}")
        for name, fault in PROMPTS.items():
            if args.only not in f"prompts/{name}":
                continue
            right, got = prompt_answer(name, fault, root)
            different, count = different + (not right), count + 1
            expected = "no fault" if fault is None else f"a fault {fault}"
            print(f"{'ok  ' if right else 'NOT '} prompts/{name}\n     expected {expected}\n     got      {got}")
    print(f"{count} cases, {different} different from what is expected")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
