"""Weights are read from safetensors alone and fit exactly, or are refused with what is wrong."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from engine.errors import ModelError
from engine.model.weights import check_sizes, checked_weights, load_weights, misfits, read_weights

TOWER = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.fixture
def clip() -> CLIPModel:
    vision, text = {**TOWER, "image_size": 16, "patch_size": 8}, {**TOWER, "vocab_size": 9, "max_position_embeddings": 5, "eos_token_id": 1}
    return CLIPModel(CLIPConfig(projection_dim=4, vision_config=vision, text_config=text))


def test_half_precision_is_read_as_float32_and_whole_numbers_stay(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1.5, -2.0], dtype=torch.float16), "b": torch.arange(3)}, tmp_path / "w.safetensors")
    weights = read_weights(tmp_path / "w.safetensors", "toy")
    assert (weights["a"].dtype, weights["a"].tolist()) == (torch.float32, [1.5, -2.0])
    assert (weights["b"].dtype, weights["b"].tolist()) == (torch.int64, [0, 1, 2])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_finite_number_is_named(tmp_path: Path, value: float) -> None:
    save_file({"fine": torch.ones(2), "spoilt": torch.tensor([1.0, value])}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="model toy holds NaN or infinite weights: in spoilt"):
        read_weights(tmp_path / "w.safetensors", "toy")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}"])
def test_anything_but_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.safetensors of model toy is truncated or no safetensors file"):
        read_weights(tmp_path / "w.safetensors", "toy")


def test_weights_of_the_same_names_and_shapes_are_loaded(clip: CLIPModel) -> None:
    weights = {key: torch.full_like(value, 0.5) for key, value in clip.state_dict().items()}
    load_weights(clip, weights | {"text_model.embeddings.position_ids": torch.arange(5)[None]}, "toy")
    assert all((parameter == 0.5).all() for parameter in clip.parameters())


def test_every_kind_of_misfit_is_counted_and_nothing_is_loaded(clip: CLIPModel) -> None:
    before = {key: value.clone() for key, value in clip.state_dict().items()}
    weights = {key: value + 1 for key, value in before.items()}
    del weights["logit_scale"]
    weights["visual_projection.weight"] = torch.zeros(4, 9)
    weights |= {f"stranger.{number}": torch.zeros(1) for number in range(5)}
    with pytest.raises(ModelError) as caught:
        load_weights(clip, weights, "toy")
    assert "1 missing, first logit_scale" in str(caught.value)
    assert "5 unknown, first stranger.0; stranger.1; stranger.2" in str(caught.value)
    assert "1 of another shape, first visual_projection.weight is [4, 9], not [4, 8]" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in clip.state_dict().items())


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("vision_config", "num_hidden_layers"),
        ("text_config", "num_hidden_layers"),
        ("vision_config", "hidden_size"),
        ("text_config", "vocab_size"),
        ("text_config", "max_position_embeddings"),
        ("vision_config", "image_size"),
        ("vision_config", "intermediate_size"),
    ],
)
def test_a_configuration_of_more_weights_than_there_are_takes_no_memory(clip: CLIPModel, section: str, key: str) -> None:
    check_sizes(clip.config, clip.state_dict(), "toy")
    setattr(getattr(clip.config, section), key, 10**9)
    with pytest.raises(ModelError, match=r"do not fit its config\.json: it describes [\d,]+ numbers or more, the file has 2,737"):
        check_sizes(clip.config, clip.state_dict(), "toy")


def test_checked_weights_are_float32_or_named() -> None:
    found = checked_weights({"half": torch.ones(2).half(), "whole": torch.arange(2)}, "toy")
    assert [value.dtype for value in found.values()] == [torch.float32, torch.int64]
    with pytest.raises(ModelError, match="in spoilt"):
        checked_weights({"spoilt": torch.tensor([float("nan")])}, "toy")


def test_what_fits_has_no_misfits() -> None:
    assert misfits({"a": (2, 3)}, {"a": torch.ones(2, 3)}) == ""
    assert (
        misfits({"a": (2, 3), "b": ()}, {"a": torch.ones(3, 2)})
        == "1 missing, first b, and 1 of another shape, first a is [3, 2], not [2, 3]"
    )
