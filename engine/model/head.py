"""The head of a classifier: image features -> one probability per finding. Stored next to the towers; needs numpy only.

    head.safetensors     `weight` (F, D) and `bias` (F,), float32
    mmclip.json          section `classifier`: the findings' names in the order of the rows, and how the head was trained

With x the image features of length 1 (`Bundle.image_features`): score = sigmoid(W x + b). 1 means that the finding is present. Scores
depend on the prevalence of the training labels and on `pos_weight` (both in `about`) and are not calibrated otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import ModelError, NotFinite
from engine.model.bundle_folder import local_folder, read_manifest

HEAD = "head.safetensors"
SECTION = "classifier"


@dataclass(frozen=True)
class Head:
    """One logistic regression per finding over image features.

    Attributes:
        findings: names, in the order of the rows.
        weight: float32 (F, D).
        bias: float32 (F,).
        about: how it was trained; stored in mmclip.json.
    """

    findings: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    about: Mapping[str, Any] = field(default_factory=dict)

    def scores(self, features: ArrayLike) -> NDArray[np.float64]:
        """Probabilities (N, F) of features (N, D). A row's scores do not depend on the other rows, to the bit."""
        logits = np.einsum("nd,fd->nf", np.asarray(features, np.float64), self.weight.astype(np.float64)) + self.bias
        scores: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(logits / 2)  # no overflow, however large the logit
        if not np.isfinite(scores).all():
            raise NotFinite("the classifier gives NaN", hint="another model, or --device cpu")
        return scores

    @property
    def content_hash(self) -> str:
        """sha256 over names, weights and biases."""
        digest = hashlib.sha256(json.dumps(list(self.findings)).encode())
        digest.update(np.ascontiguousarray(self.weight).tobytes())
        digest.update(np.ascontiguousarray(self.bias).tobytes())
        return digest.hexdigest()

    def as_section(self) -> dict[str, Any]:
        """Its section of mmclip.json."""
        return {"findings": list(self.findings), "features": "image_features", "score": "sigmoid", **self.about}


def write_head(head: Head, folder: Path) -> None:
    """Write head.safetensors, with the permissions of the other files of the folder."""
    from safetensors.numpy import save_file

    save_file({"weight": np.ascontiguousarray(head.weight), "bias": np.ascontiguousarray(head.bias)}, folder / HEAD)
    (folder / HEAD).chmod(0o644)


def findings_of(name_or_path: str | Path) -> tuple[str, ...] | None:
    """The findings of a classifier on disk, without loading it; None for a model without a head or not on this machine.

    Raises:
        InputMissing, ModelError: as `local_folder` and `read_manifest`.
    """
    folder = local_folder(name_or_path)
    if folder is None:
        return None
    section = read_manifest(folder, Path(name_or_path).name).get(SECTION)
    return None if section is None else _checked_findings(section, Path(name_or_path).name)


def read_head(folder: Path, manifest: Mapping[str, Any], name: str, width: int) -> Head | None:
    """The head of a model folder; None where it has none.

    Args:
        width: D, the length of the model's image features.

    Raises:
        ModelError: wrong names, shapes or values.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if (section := manifest.get(SECTION)) is None:
        return None
    findings = _checked_findings(section, name)
    try:
        stored = load_file(folder / HEAD)
        weight, bias = stored["weight"].astype(np.float32), stored["bias"].astype(np.float32)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{HEAD} of model {name} cannot be read", why=type(error).__name__, hint="copy the model again") from None
    if weight.shape != (len(findings), width) or bias.shape != (len(findings),):
        why = f"weights {weight.shape} and biases {bias.shape} for {len(findings)} findings of {width} features"
        raise ModelError(f"the head of model {name} does not fit it", why=why, hint="keep the files of one model together")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ModelError(f"the head of model {name} holds NaN or infinity", hint="another model")
    about = {key: value for key, value in section.items() if key not in ("findings", "features", "score")}
    return Head(findings, weight, bias, about)


def _checked_findings(section: Any, name: str) -> tuple[str, ...]:
    findings = section.get("findings") if isinstance(section, dict) else None
    is_list = isinstance(findings, list) and bool(findings) and all(isinstance(each, str) and each for each in findings)
    if (
        is_list
        and (section.get("features"), section.get("score")) == ("image_features", "sigmoid")
        and len(set(findings or ())) == len(findings or ())
    ):
        return tuple(findings or ())
    raise ModelError(f"the classifier section of model {name} is not what mmclip writes", hint="copy the model again, or a newer mmclip")
