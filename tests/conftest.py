"""What tests of several rooms need: the example studies, a toy model, and miniatures of published data sets in their exact layout."""

import csv
import gzip
import importlib.util
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch: pytest's workers share the cores, and see model/encoding.py
settings.register_profile("house", deadline=None, max_examples=40)  # a busy machine is no failure
settings.load_profile("house")

HOUSE = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def script():
    """A script as a module, by its path from the top: script("examples/make_studies.py")."""

    def load(path):
        spec = importlib.util.spec_from_file_location(Path(path).stem, HOUSE / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module  # dataclasses look themselves up there
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def make_studies(script):
    """The module examples/make_studies.py."""
    return script("examples/make_studies.py")


@pytest.fixture(scope="session")
def random_bundle():
    """Makes a toy model with random weights (16-pixel patches, width 32, byte vocabulary), saved to a folder and loaded."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from engine.model.bundle import load_bundle, save_bundle
    from engine.model.preprocessing import GREY_MEAN, GREY_STD, Preprocessing
    from engine.model.tokenizer import train_tokenizer

    def make(folder, *, seed=0, size=32, context=32):
        tokenizer = train_tokenizer(["no pneumonia", "pleural effusion"], 320, context)
        tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 32}
        config = CLIPConfig(
            projection_dim=32,
            vision_config={**tower, "image_size": size, "patch_size": 16},
            text_config={
                **tower,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": context,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            clip = CLIPModel(config)
        save_bundle(folder, clip, tokenizer, Preprocessing(size, "squash", GREY_MEAN, GREY_STD), name=folder.name)
        return load_bundle(folder)

    return make


@pytest.fixture(scope="session")
def toy(random_bundle, tmp_path_factory):
    """The folder of a model with random weights: its scores mean nothing, and are always the same."""
    folder = tmp_path_factory.mktemp("model") / "toy"
    random_bundle(folder, context=64)
    return folder


_COLUMNS = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,MethodProjection,"
    "Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,PixelRepresentation_DICOM,PixelAspectRatio_DICOM,"
    "SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,"
    "Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,"
    "LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS"
)
PADCHEST_HEADER = _COLUMNS.split(",")


def smooth(seed, side=72):
    """A smooth grey picture of its own, uint8 (side, side)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def written(path):
    """The path, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def make_padchest(tmp_path):
    """Writes the table and the pictures of PadChest; a row is a dict of the columns that matter, the others as published."""

    def make(rows, *, zipped=(), absent=()):
        root = tmp_path / "padchest"
        root.mkdir()
        usual = {
            "ImageDir": "0", "StudyDate_DICOM": "20140915", "PatientBirth": "1930.0", "PatientSex_DICOM": "F", "Projection": "PA",
            "Pediatric": "No", "MethodLabel": "RNN_model", "Labels": "['normal']", "Report": "sin hallazg , normal .",
        }  # fmt: skip
        with (root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").open("w", newline="") as out:
            writer = csv.DictWriter(out, PADCHEST_HEADER, restval="None")
            writer.writeheader()
            writer.writerows({"": str(number), **usual, **row} for number, row in enumerate(rows))
        for seed, row in enumerate(rows):
            if row["ImageID"] not in absent:
                twelve = smooth(seed).astype(np.uint16) * 16  # 12 bits in a 16-bit PNG
                Image.fromarray(twelve).save(written(root / row.get("ImageDir", "0") / row["ImageID"]))
        for folder in zipped:
            with zipfile.ZipFile(root / f"{folder}.zip", "w") as archive:
                for file in sorted((root / folder).iterdir()):
                    archive.write(file, file.name)
                    file.unlink()
            (root / folder).rmdir()
        return root

    return make


MIMIC_METADATA = [
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime",
    "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning",
]  # fmt: skip


@pytest.fixture
def make_mimic(tmp_path, make_studies):
    """Writes MIMIC-CXR and MIMIC-CXR-JPG: reports, tables, pictures.

    A row is a dict with image, patient, study, and optional view, code, split, report (None: there is none).
    `layout` jpg: pictures and tables in a folder of their own; dicom: everything in one. Returns the recipe's source.
    """

    def make(rows, *, layout="jpg", zipped=False, chexpert=None, absent=()):
        root = tmp_path / "mimic-cxr"
        pictures = root if layout == "dicom" else tmp_path / "mimic-cxr-jpg"
        tables = {"split": [["dicom_id", "study_id", "subject_id", "split"]], "metadata": [MIMIC_METADATA]}
        reports = {}
        for seed, row in enumerate(rows):
            at = f"files/p{row['patient'][:2]}/p{row['patient']}/s{row['study']}"
            tables["split"].append([row["image"], row["study"], row["patient"], row.get("split", "train")])
            known = {
                "dicom_id": row["image"], "subject_id": row["patient"], "study_id": row["study"], "ViewPosition": row.get("view", "PA"),
                "ViewCodeSequence_CodeMeaning": row.get("code", ""), "PerformedProcedureStepDescription": "CHEST (PA AND LAT)",
            }  # fmt: skip
            tables["metadata"].append([known.get(name, "0") for name in MIMIC_METADATA])
            if row.get("report", "") is not None:
                reports[f"{at}.txt"] = row.get("report", "")
            if row["image"] in absent:
                continue
            if layout == "dicom":
                stored = smooth(seed).astype(np.uint16) * 16
                data = make_studies.chest_dataset(stored, row["image"], make_studies.SYNTAXES[0])
                data.save_as(written(pictures / at / f"{row['image']}.dcm"), enforce_file_format=True)
            else:
                Image.fromarray(smooth(seed)).save(written(pictures / at / f"{row['image']}.jpg"), quality=95)
        if chexpert:
            tables["chexpert"] = chexpert
        for name, lines in tables.items():
            with gzip.open(written(pictures / f"mimic-cxr-2.0.0-{name}.csv.gz"), "wt", newline="") as out:
                csv.writer(out).writerows(lines)
        if zipped:
            with zipfile.ZipFile(written(root / "mimic-cxr-reports.zip"), "w") as archive:
                for name, text in reports.items():
                    archive.writestr(name, text)
        else:
            for name, text in reports.items():
                written(root / name).write_text(text)
        return {"kind": "mimic_cxr", "root": str(root)} | ({"jpg_root": str(pictures)} if layout == "jpg" else {})

    return make


@pytest.fixture
def make_openi(tmp_path):
    """Writes reports and PNG pictures of Open-i: uid -> (impression, findings, ids of the pictures); returns the recipe's source."""

    def make(reports):
        root = tmp_path / "openi"
        for seed, (uid, (impression, findings, images)) in enumerate(reports.items()):
            sections = (
                f'<AbstractText Label="FINDINGS">{findings}</AbstractText><AbstractText Label="IMPRESSION">{impression}</AbstractText>'
            )
            figures = "".join(
                f'<parentImage id="{image}"><figureId>F{number}</figureId><caption>Xray Chest PA and Lateral</caption></parentImage>'
                for number, image in enumerate(images, 1)
            )
            xml = (
                f'<?xml version="1.0" encoding="utf-8"?><eCitation><meta type="rr"/><uId id="{uid}"/><MedlineCitation><Article><Abstract>'
                f"{sections}</Abstract></Article></MedlineCitation><MeSH><major>normal</major></MeSH>{figures}</eCitation>"
            )
            written(root / "ecgen-radiology" / f"{uid.removeprefix('CXR')}.xml").write_text(xml)
            for number, image in enumerate(images):
                Image.fromarray(smooth(10 * seed + number)).save(written(root / "NLMCXR_png" / f"{image}.png"))
        return {"kind": "openi", "root": str(root)}

    return make


@pytest.fixture(scope="session")
def sees_brightness(random_bundle, tmp_path_factory):
    """A model of 64 pixels whose patches know their own mean brightness alone: the first feature grows with it, the second is constant."""
    import torch

    bundle = random_bundle(tmp_path_factory.mktemp("model") / "bright", size=64)
    vision = bundle.clip.vision_model
    with torch.no_grad():
        for parameter in (*vision.parameters(), bundle.clip.visual_projection.weight):
            parameter.zero_()
        vision.embeddings.patch_embedding.weight[0] = 1 / (3 * 16**2)
        vision.embeddings.position_embedding.weight[:, 1] = 4  # brighter than white: the first feature stays below it
        for norm in (vision.pre_layrnorm, vision.post_layernorm):
            norm.weight.fill_(1)
        bundle.clip.visual_projection.weight.copy_(torch.eye(32))
    return bundle
