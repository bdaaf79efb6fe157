"""The closed list of reason codes and flags: one place to read, argue with and change. Which images are scored: selection.py.

A file ends in exactly one outcome. `score` carries no reason, only flags; every other outcome carries one code of `REASONS`.
Where several faults meet, the first of this order names the file:
  1. the container (empty, not DICOM, archive, damaged file meta group, no transfer syntax);
  2. a claim of more than the pixel limit (no further look is worth its memory);
  3. what the image is (modality, SOP class), read from what is intact of the header;
  4. damage of the data set (truncated, corrupt, nested too deep), then missing pixel data, then an image too small;
  5. identity (UIDs), selection (body part, view, presentation intent);
  6. the pixel description (attributes, bits, rescale, photometric interpretation), then the pixels themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Outcome = Literal["score", "reject", "skip", "duplicate"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Reason:
    """One reason code: the outcome it leads to, what it means, and what to do about it."""

    outcome: Outcome
    meaning: str
    advice: str


REASONS: dict[str, Reason] = {
    # skip: not meant for us
    "archive": Reason("skip", "zip, gzip, tar or another archive; never unpacked", "unpack it and score the folder"),
    "dicomdir": Reason(
        "skip", "a DICOMDIR index; its references are never followed", "nothing: the files beside it are read by themselves"
    ),
    "in_progress": Reason(
        "skip", "still being written (.part, .tmp, it changed within --min-age, or while it was read)", "run again later"
    ),
    "not_regular": Reason("skip", "a fifo, socket, device, or a folder named like a file", "nothing"),
    "os_junk": Reason("skip", "a file the operating system left (Thumbs.db, .DS_Store, ._*)", "nothing"),
    "link_broken": Reason(
        "skip", "a symbolic link whose target is not there", "fetch the data (`datalad get`, `git annex get`, `dvc pull`), then run again"
    ),
    "link_loop": Reason("skip", "a symbolic link that leads back to a folder above it, or to itself", "nothing: these files are read once"),
    "link_outside": Reason(
        "skip",
        "a symbolic link that leads out of the inputs; such links are never followed",
        "name the folder of its target as an input, too",
    ),
    "symlink": Reason("skip", "a symbolic link", "`--follow-links`, or name the link's target as an input"),
    # duplicate
    "same_pixels": Reason("duplicate", "the same bytes, or the same SOP instance with the same pixels, were read before", "nothing"),
    # reject: the file
    "decode_crash": Reason(
        "reject", "the decoder crashed; only its process died", "convert the file with another tool, or report the file's kind"
    ),
    "decode_timeout": Reason(
        "reject",
        "reading took longer than the time limit (30 s, unless `--limit` says otherwise)",
        "run again on a machine that is less busy, or with `--limit seconds=120`",
    ),
    "file_missing": Reason(
        "reject", "a table names the file, and it is not there", "check the names: they start from the folder of the table"
    ),
    "empty_file": Reason("reject", "zero bytes", "fetch the file again"),
    "io_error": Reason("reject", "the file system failed while the file was read, twice", "check the disk or the mount, then run again"),
    "not_dicom": Reason(
        "reject",
        "no DICOM: another kind of file, or none that is known; skipped where it is a plain image",
        "take it out of the folder; images are read in a folder of images alone, or where a table names them: `mmclip score images.csv`",
    ),
    "resource_limit": Reason(
        "reject",
        "needs more bytes, pixels or memory than the limits allow",
        "treat the file as hostile unless you know its source; then raise the limit that it meets, as in `--limit file_mb=1024`, "
        "`--limit megapixels=200` or `--limit memory_gb=4`",
    ),
    "unreadable": Reason("reject", "no permission to read the file, or its path is too long", "check the rights of the user who runs this"),
    "vanished": Reason("reject", "gone between the walk and the read", "run again"),
    # reject: the header
    "corrupt_header": Reason(
        "reject",
        "the data set cannot be followed: wrong value representation, repeated elements, bytes of no meaning",
        "fetch the file again",
    ),
    "invalid_attribute": Reason("reject", "a required attribute has a value of the wrong kind", "have the sender corrected"),
    "invalid_uid": Reason("reject", "a UID that holds a path, markup, a formula or control characters", "have the sender corrected"),
    "missing_attribute": Reason("reject", "a required attribute is absent or empty", "have the sender corrected"),
    "nesting_too_deep": Reason("reject", "sequences nested deeper than the limit", "treat the file as hostile"),
    "truncated": Reason("reject", "the file, or the compressed image in it, ends early", "fetch the file again"),
    "uid_conflict": Reason(
        "reject", "its SOP instance UID belongs to another image that was read before", "find out which of the two is right"
    ),
    # reject: not a frontal chest radiograph for presentation
    "color_image": Reason("reject", "three channels that differ", "export the grey original"),
    "derived_image": Reason("reject", "a localizer or another image derived from something that is no radiograph", "nothing"),
    "for_processing": Reason("reject", "raw detector data, FOR PROCESSING", "export the FOR PRESENTATION image"),
    "lateral_view": Reason("reject", "a lateral or oblique view; the models read frontal ones", "nothing"),
    "multi_frame": Reason("reject", "more than one frame", "export single frames"),
    "unsupported_sop_class": Reason(
        "reject", "no radiograph by SOP class (reports, structure sets, waveforms, unknown classes)", "nothing"
    ),
    "wrong_body_part": Reason(
        "reject",
        "tagged as another part of the body, the ribs, the clavicle and the thoracic spine among them",
        "correct the tag where it is wrong",
    ),
    "wrong_modality": Reason("reject", "CT, MR, US, MG and others", "nothing"),
    # reject: the pixels
    "decode_error": Reason(
        "reject",
        "the compressed image cannot be decoded, or is not what the header says",
        "fetch the file again, or convert it with another tool",
    ),
    "degenerate_image": Reason("reject", "a constant image", "nothing: there is no image in it"),
    "invalid_bits": Reason("reject", "BitsStored above BitsAllocated, or zero", "have the sender corrected"),
    "invalid_dimensions": Reason("reject", "rows or columns of zero, or other than the compressed image's", "have the sender corrected"),
    "invalid_rescale": Reason("reject", "rescale slope or intercept is zero, no number, or beyond any image", "have the sender corrected"),
    "no_pixel_data": Reason("reject", "no pixel data, or empty pixel data", "fetch the file again"),
    "pixel_length_mismatch": Reason("reject", "more or fewer bytes than rows x columns x bits call for", "fetch the file again"),
    "too_small": Reason("reject", "a side below the smallest that is scored, or below a sixteenth of the other", "export the full image"),
    "unsupported_bits": Reason(
        "reject", "bits allocated other than 8, 16, 32, or a high bit that is not the highest stored one", "convert the file"
    ),
    "unsupported_photometric": Reason(
        "reject", "PALETTE COLOR or another photometric interpretation that CR and DX forbid", "export the grey original"
    ),
    "unsupported_transfer_syntax": Reason(
        "reject", "an encoding that is not read (unknown, video, JPEG XL)", "convert to explicit VR little endian"
    ),
}

FLAGS: dict[str, str] = {
    "aspect": "pixels are not square; the image was resampled to square ones",
    "bad_attribute": "an attribute that should be there is absent or out of its range, and was not needed",
    "bad_lut": "a lookup table contradicts its descriptor, lies off the data, or makes most of the image black or white; it was left out",
    "bad_window": "a window cannot be used (width below 1, half of a pair, off the data, too wide to show contrast, or so narrow that most "
    "of the image would be black or white); the next one, or the range of the data, was used",
    "burned_in": "text is burned into the pixels: the header says so, or the image shows a line of it, whatever the header says "
    "(measured: engine/dicom/README.md); show no thumbnail",
    "burned_in_unknown": "the header does not say whether text is burned into the pixels; they are searched all the same",
    "color_as_grey": "three equal channels, read as one",
    "decimal_comma": "a decimal number is written with a comma (window, slope, pixel spacing); it was read as a point",
    "dual_energy": "a dual-energy bone or soft-tissue image, or another subtraction, by its tags; not in the study's score",
    "guessed_transfer_syntax": "no file meta group; the encoding was recognised from the data set",
    "invalid_uid": "a UID that is other text: a hash, a number, a word, or longer than 64 characters; a word that stands for a removed UID "
    "(ANONYMIZED) names nothing: the image table or the content names the image then",
    "looks_lateral": "looks like a lateral, whatever its tags say, and so like no frontal chest (measured: engine/dicom/README.md)",
    "misplaced_element": "elements behind the pixel data, or of the file meta group within the data set; read as other readers do",
    "more_bits": "bits above BitsStored were read as values: without them smooth areas would break (with unused_bits)",
    "no_window": "the file names no window; 8-bit values are shown as they are, others over the range of the data",
    "orientation": "rotated or mirrored by its tags, or by its looks (measured: engine/dicom/README.md)",
    "out_of_distribution": "does not look like a frontal chest radiograph (measured: engine/dicom/README.md), or the header says animal",
    "outside_training_population": "the patient's age, or the view, is rare or absent among the images that the model was trained on",
    "padding": "padding was excluded from the range of grey",
    "phantom": "a phantom or quality-control image, by its tags; not in the study's score",
    "polarity": "a frontal chest that looks inverted: the lungs are bright after all the header's steps (measured: engine/dicom/README.md)",
    "recoded": "the same SOP instance was read before in another encoding, or with its grey scale inverted",
    "rejected_image": "the tags say that the exposure was rejected, or made for quality control; not in the study's score",
    "rib_view": "taken for ribs, sternum, clavicle, scapula, shoulder or spine, by its tags; not in the study's score",
    "second_decoder": "the first decoder refused the compressed image, a second one (GDCM) read it: an oddity, or damage it overlooked",
    "secondary_capture": "a secondary capture: how it came to its grey values is unknown",
    "synthetic": "the header says that the content was made, not acquired: Synthetic Data (0008,001C) is YES",
    "tomosynthesis": "a slice of a tomosynthesis or tomography, by its tags; not in the study's score",
    "trailing_bytes": "zeros or text (a line end, a MIME boundary) follow the data set",
    "uid_conflict": "a series UID in two studies, or a study UID with two patients",
    "unknown_vr": "an element has a value representation that the standard does not know; it was stepped over",
    "unused_bits": "bits above BitsStored hold something; they were ignored, as the standard asks, unless more_bits is there too",
    "view_unknown": "no tag tells the view: the image may be a lateral",
}

FLAG_ADVICE: dict[str, str] = {
    "aspect": "nothing",
    "bad_attribute": "nothing for the score; have the sender corrected",
    "bad_lut": "look at the image before trusting its score; have the sender corrected",
    "bad_window": "look at the image before trusting its score; have the sender corrected",
    "burned_in": "never pass this image on without looking at it: the text may name the patient (or say no more than PORTABLE)",
    "burned_in_unknown": "never pass this image on without looking at it: it may hold text that names the patient",
    "color_as_grey": "nothing; the grey original would be smaller",
    "decimal_comma": "nothing for the score; have the sender corrected",
    "dual_energy": "its score is in images.csv only; correct the tags where they are wrong",
    "guessed_transfer_syntax": "nothing; have the sender write whole DICOM files",
    "invalid_uid": "have the sender corrected before the study is matched with others by its UID",
    "looks_lateral": "look at the image; leave the score out where it is a lateral, and have ViewPosition corrected",
    "misplaced_element": "nothing; have the sender corrected",
    "more_bits": "look at the image before trusting its score; have BitsStored and HighBit corrected",
    "no_window": "nothing",
    "orientation": "leave the score out, or have the image turned and score it again: the models know upright images",
    "out_of_distribution": "look at the image; leave the score out where it shows no frontal chest",
    "padding": "nothing",
    "phantom": "its score is in images.csv only; correct the tags where they are wrong",
    "polarity": "look at the image: if it is inverted, have PhotometricInterpretation corrected and score it again",
    "recoded": "leave one of the two out: both count in the study's score",
    "rejected_image": "its score is in images.csv only; correct the tags where they are wrong",
    "rib_view": "its score is in images.csv only; correct the tags where they are wrong",
    "second_decoder": "look at the image before trusting its score; have the sender write a stream to the letter of its standard",
    "secondary_capture": "prefer the original where there is one",
    "outside_training_population": "do not rely on its scores before the model was evaluated on such patients",
    "synthetic": "never count it among patients",
    "tomosynthesis": "its score is in images.csv only; correct the tags where they are wrong",
    "trailing_bytes": "nothing",
    "uid_conflict": "find out which of the studies or patients is right before joining anything by these UIDs",
    "unknown_vr": "nothing; have the sender corrected",
    "unused_bits": "look at the image where bright areas matter; have the sender clear the bits, or correct BitsStored",
    "view_unknown": "look at the image before trusting its score; laterals that a column `view` of an image table names are turned away",
}
"""What to do about a flag; the image is scored all the same."""


NOT_IN_MEAN = frozenset({"dual_energy", "phantom", "rejected_image", "rib_view", "tomosynthesis"})
"""Flags of images that are no plain frontal exposure: scored one by one, and left out of the score of their study."""

FAILURES = frozenset(
    {
        "corrupt_header", "decode_crash", "decode_error", "decode_timeout", "empty_file", "io_error", "nesting_too_deep",
        "pixel_length_mismatch", "resource_limit", "truncated", "unreadable", "vanished", "file_missing",
    }
)  # fmt: skip
"""Reasons that mean a file is damaged or out of reach, as opposed to whole and rejected by policy."""


DETAILS = frozenset(
    {
        "BitsAllocated", "BitsStored", "BodyPartExamined", "Columns", "HighBit", "ImageType", "Modality", "NumberOfFrames",
        "AnatomicRegionSequence", "PatientOrientation", "PhotometricInterpretation", "PixelData", "PixelRepresentation",
        "PlanarConfiguration", "PresentationIntentType", "RescaleIntercept", "RescaleSlope", "Rows", "SOPClassUID", "SOPInstanceUID",
        "SamplesPerPixel", "SeriesDescription", "SeriesInstanceUID", "StudyInstanceUID", "TransferSyntaxUID", "ViewCodeSequence",
        "ViewPosition",
    }
)  # fmt: skip
"""Closed list of the column `detail`: keywords of attributes that were missing or wrong."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error
    """A file that will not be scored, with its reason code and, where it can be named, a detail; carries no value of the file.

    detail: one of DETAILS, the attribute that was missing or wrong.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        if code not in REASONS:
            raise ValueError(f"no such reason code: {code}")
        if detail and detail not in DETAILS:
            raise ValueError(f"no such detail: {detail}")
        self.code, self.detail = code, detail
        super().__init__(code)


# --- what may be public ----------------------------------------------------------------------------------------------------------

MODALITIES = frozenset(
    (
        *("ANN", "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "CTPROTOCOL", "DG", "DMS", "DOC", "DR", "DX", "ECG", "EEG"),
        *("EMG", "EOG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LS", "M3D", "MG", "MR"),
        *("NM", "OAM", "OCT", "OP", "OPM", "OPR", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "POS", "PR", "PT", "PX"),
        *("REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SC"),
        *("SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "VF", "XA", "XAPROTOCOL", "XC"),
    )
)
"""Defined terms of Modality (PS3.3 C.7.3.1.1.1); with them OT, SC and DR, which are no such terms or retired but common."""
OTHER = "OTHER"


def public_code(value: str, known: frozenset[str]) -> str | None:
    """A header's code as it may are in a public table: None where blank, OTHER where it is none of the known ones (it may be a name)."""
    return (value if value in known else OTHER) if value else None


def public_uid(uid: str) -> str | None:
    """A UID of the standard itself (a SOP class, a transfer syntax), OTHER for any other text, None where blank."""
    return (uid if re.fullmatch(r"1\.2\.840\.10008(\.[0-9]{1,6}){1,12}", uid) else OTHER) if uid else None


_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")


_LONGEST_UID = 256
_HOSTILE = re.compile(r"[/\\<>%]|\.\.|^\s*[-=+@~|]")
"""Paths, markup and what a spreadsheet takes for a formula (OWASP, CSV injection)."""


def uid_fault(uid: str) -> Literal["", "flag", "reject"]:
    """'' for a UID of PS3.5 section 9, 'flag' for other harmless text, 'reject' for what must never be a path or a cell."""
    if _UID.fullmatch(uid) and len(uid) <= 64:
        return ""
    return "reject" if len(uid) > _LONGEST_UID or not uid.isprintable() or _HOSTILE.search(uid) else "flag"
