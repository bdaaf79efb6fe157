"""Weights of every kind become a CLIP with the features that their own library gives, or are refused with a reason."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel
from transformers.utils import logging

from engine.errors import InputMissing, ModelError, OutputError, UsageError
from engine.model.bundle import load_bundle
from engine.model.bundle_folder import file_hash
from engine.model.imports.layout import image_positions
from engine.model.imports.published import CHEXZERO, PUBLISHED_PREPROCESSING
from engine.model.imports.source import import_model, save_imported
from engine.model.preprocessing import Preprocessing
from engine.model.tokenizer import tokenize

TEXTS = ("a photo of a cat", "No pleural effusion.", "", "lungs are clear " * 40)
TOLD = {"activation": "quick_gelu", "preprocessing": "clip"}
"""What a file of weights alone does not tell."""


def pixels(size=24):
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(9))


def ids(imported):
    return torch.from_numpy(tokenize(imported.tokenizer, TEXTS, imported.context).input_ids)


def features(imported, size=24):
    """Of pictures and texts, before normalisation."""
    with torch.no_grad():
        image = imported.clip.get_image_features(pixels(size)).pooler_output
        return image, imported.clip.get_text_features(ids(imported)).pooler_output


def assert_features(imported, reference, size=24):
    image, text = features(imported, size)
    with torch.no_grad():
        theirs = reference.encode_image(pixels(size)), reference.encode_text(ids(imported))
    torch.testing.assert_close(image, theirs[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(text, theirs[1], atol=1e-5, rtol=0)


@pytest.fixture
def saved(weights, tmp_path):
    """A state dict of weights alone."""
    torch.save(weights, tmp_path / "clip.pt")
    return tmp_path / "clip.pt"


@pytest.fixture
def quiet():
    """transformers draws a bar for every `from_pretrained`."""
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


# ---- OpenAI ----------------------------------------------------------------------------------------------------------------------


def test_openai_s_archive_needs_no_words_and_has_openai_s_features(reference, save_script, tmp_path):
    found = import_model(save_script(reference, tmp_path / "ViT-B-32.pt"))
    assert_features(found, reference)
    about = found.provenance["imported"]
    assert (about["maker"], about["format"], about["file"]) == ("openai", "torchscript", "ViT-B-32.pt")
    assert about["sha256"] == file_hash(tmp_path / "ViT-B-32.pt")
    assert about["activation"]["value"] == "quick_gelu"
    assert "input_resolution, context_length and vocab_size" in about["activation"]["because"]
    assert (found.preprocessing.resize, found.preprocessing.mean, found.preprocessing.size) == (
        "crop",
        PUBLISHED_PREPROCESSING["clip"].mean,
        24,
    )


def test_half_precision_is_read_as_float32(make_reference, save_script, tmp_path):
    """OpenAI's own archives hold float16; CPUs and we compute in float32 with those numbers."""
    half = make_reference(seed=1).half()
    found = import_model(save_script(half, tmp_path / "half.pt"))
    assert {value.dtype for value in found.clip.state_dict().values()} == {torch.float32}
    assert_features(found, half.float())


def test_a_double_precision_reference_agrees_too(make_reference, tmp_path):
    """In float64 the reference has no rounding of its own: what is left is ours."""
    module = make_reference(seed=2)
    torch.save(module.state_dict(), tmp_path / "clip.pt")
    image, text = features(import_model(tmp_path / "clip.pt"))
    found = import_model(tmp_path / "clip.pt")
    with torch.no_grad():
        exact = module.double()
        torch.testing.assert_close(image.double(), exact.encode_image(pixels().double()), atol=1e-5, rtol=0)
        torch.testing.assert_close(text.double(), exact.encode_text(ids(found)), atol=1e-5, rtol=0)


def test_a_state_dict_with_openai_s_facts_needs_no_words(reference, tmp_path):
    torch.save(reference.state_dict(), tmp_path / "clip.pt")
    found = import_model(tmp_path / "clip.pt")
    assert_features(found, reference)
    assert found.provenance["imported"]["format"] == "state_dict"


@pytest.mark.parametrize("kind", ["pt", "bin", "safetensors", "training"])
def test_weights_alone_are_told_their_activation_and_preprocessing(reference, weights, tmp_path, kind):
    file = tmp_path / f"clip.{kind}"
    if kind == "safetensors":
        save_file({name: value.contiguous() for name, value in weights.items()}, file)
    else:
        named = {f"module.{name}": value for name, value in weights.items()}
        torch.save({"epoch": 1, "state_dict": named} if kind == "training" else weights, file)
    found = import_model(file, **TOLD)
    assert_features(found, reference)
    assert found.provenance["imported"]["activation"]["because"] == "given by --activation"


def test_gelu_is_another_model(make_reference, tmp_path):
    plain = make_reference(act="gelu")
    torch.save({name: value for name, value in plain.state_dict().items() if value.is_floating_point()}, tmp_path / "clip.pt")
    assert_features(import_model(tmp_path / "clip.pt", activation="gelu", preprocessing="clip"), plain)
    other = features(import_model(tmp_path / "clip.pt", **TOLD))[0]
    with torch.no_grad():
        assert (other - plain.encode_image(pixels())).abs().max() > 1e-3, "or the comparison above shows nothing"


@pytest.mark.parametrize(
    ("told", "missing", "unsaid"),
    [
        ({}, "the activation and the preprocessing", None),
        ({"activation": "gelu"}, "the preprocessing", "--activation"),
        ({"preprocessing": "clip"}, "the activation", "--preprocessing"),
    ],
)
def test_what_is_not_known_is_asked_for_and_never_guessed(saved, told, missing, unsaid):
    with pytest.raises(ModelError) as caught:
        import_model(saved, **told)
    assert f"clip.pt does not name {missing}" in str(caught.value)
    assert unsaid is None or unsaid not in str(caught.value)


def test_no_preprocessing_is_invented(saved):
    with pytest.raises(UsageError, match="no preprocessing is called imagenet"):
        import_model(saved, preprocessing="imagenet", activation="gelu")


# ---- CheXzero ----------------------------------------------------------------------------------------------------------------------


def test_chexzero_keeps_its_own_preprocessing(reference, weights, tmp_path):
    name = next(iter(CHEXZERO))
    torch.save(weights, tmp_path / name)
    found = import_model(tmp_path / name)
    assert_features(found, reference)
    assert found.provenance["imported"]["maker"] == "chexzero"
    picture = torch.arange(24 * 12).view(24, 12).byte().numpy()
    seen = found.preprocessing.pixels([picture])[0, 0]
    assert seen[:, 0].tolist() == pytest.approx([-101.48761 / 83.43944] * 24), "black beside a narrow picture"
    assert seen[:, 6:18].flatten().tolist() == pytest.approx(((picture.astype(float) - 101.48761) / 83.43944).flatten().tolist(), abs=1e-5)


def test_another_name_is_told_that_it_is_chexzero(reference, saved):
    found = import_model(saved, preprocessing="chexzero")
    assert_features(found, reference)
    assert found.provenance["imported"]["activation"]["because"] == "CheXzero starts from OpenAI's weights"
    assert (found.preprocessing.resize, found.provenance["imported"]["maker"]) == ("pad", "chexzero")


def test_other_sizes_and_contexts_are_read_off_the_shapes(make_reference, tmp_path):
    other = make_reference(size=40, patch=4, width=192, context=110)
    torch.save({name: value for name, value in other.state_dict().items() if value.is_floating_point()}, tmp_path / "clip.pt")
    found = import_model(tmp_path / "clip.pt", preprocessing="chexzero")
    assert (found.preprocessing.size, found.context, found.tokenizer.model_max_length) == (40, 110, 110)
    assert found.clip.config.vision_config.num_attention_heads == 3
    assert_features(found, other, size=40)


# ---- open_clip ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def write_folder(tmp_path):
    """An open_clip folder with these weights and this configuration."""

    def write(weights, file="open_clip_pytorch_model.bin", preprocess=None, **model):
        folder = tmp_path / "open"
        folder.mkdir(exist_ok=True)
        vision = {"image_size": 24, "layers": 2, "width": 128, "patch_size": 8} | model.pop("vision", {})
        text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2} | model.pop("text", {})
        stored = {"model_cfg": {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text, **model}}
        if preprocess:
            stored["preprocess_cfg"] = preprocess
        (folder / "open_clip_config.json").write_text(json.dumps(stored))
        if file.endswith(".safetensors"):
            save_file({name: value.contiguous() for name, value in weights.items()}, folder / file)
        else:
            torch.save(weights, folder / file)
        return folder

    return write


@pytest.mark.parametrize("file", ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"])
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_an_open_clip_folder_says_what_it_needs(make_reference, write_folder, file, act):
    module = make_reference(act=act)
    weights = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
    images = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.3], "resize_mode": "squash"}
    folder = write_folder(weights, file, images, quick_gelu=act == "quick_gelu")
    for source in (folder, folder / file):
        found = import_model(source)
        assert_features(found, module)
        assert found.preprocessing == Preprocessing(24, "squash", (0.5, 0.4, 0.3), (0.2, 0.2, 0.3), "bicubic")
        assert found.provenance["imported"]["activation"]["because"] == "open_clip_config.json says so"


def test_an_open_clip_folder_of_another_model_is_refused(weights, write_folder):
    with pytest.raises(ModelError, match=r"it has another tokenizer than CLIP's \(xlm-roberta-base\)"):
        import_model(write_folder(weights, text={"hf_tokenizer_name": "xlm-roberta-base"}))
    with pytest.raises(ModelError, match="the weights see 24 pixels, the configuration says 32"):
        import_model(write_folder(weights, vision={"image_size": 32}))


def test_an_open_clip_folder_without_weights_says_so(weights, write_folder):
    folder = write_folder(weights)
    (folder / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"has open_clip_config\.json and no weights"):
        import_model(folder)


def test_another_vocabulary_is_refused(weights, tmp_path):
    weights["token_embedding.weight"] = torch.zeros(32000, 64)
    torch.save(weights, tmp_path / "clip.pt")
    with pytest.raises(ModelError, match=r"its tokenizer is not CLIP's: it has 32,000 tokens"):
        import_model(tmp_path / "clip.pt", **TOLD)


@pytest.fixture(scope="module")
def open_clip():
    """The library itself, where it is installed: it needs a torchvision that fits torch, which mmclip does without."""
    return pytest.importorskip("open_clip", reason="open_clip_torch is not installed here: it is no part of mmclip")


@pytest.mark.parametrize("size", [None, 16, 40])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_open_clip_gives_the_same_features(open_clip, tmp_path, quick_gelu, size):
    vision = {"image_size": 24, "layers": 2, "width": 128, "patch_size": 8}
    sizes = {"embed_dim": 48, "text_cfg": {"width": 64, "heads": 1, "layers": 2}, "quick_gelu": quick_gelu}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module = open_clip.model.CLIP(vision_cfg=vision, **sizes).eval()
        resized = open_clip.model.CLIP(vision_cfg=vision | {"image_size": size or 24}, **sizes).eval()
    state = dict(module.state_dict())
    torch.save(state, tmp_path / "clip.pt")
    open_clip.model.resize_pos_embed(state, resized)
    resized.load_state_dict(state)
    activation = "quick_gelu" if quick_gelu else "gelu"
    found = import_model(tmp_path / "clip.pt", activation=activation, preprocessing="clip", image_size=size)
    image, text = features(found, size or 24)
    with torch.no_grad():
        torch.testing.assert_close(image, resized.encode_image(pixels(size or 24)), atol=1e-5, rtol=0)
        torch.testing.assert_close(text, resized.encode_text(open_clip.SimpleTokenizer()(list(TEXTS))), atol=1e-5, rtol=0)


# ---- transformers, and our own -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hugging_face(random_bundle, tmp_path):
    """A folder as transformers writes it, and the model in it."""
    random_bundle(tmp_path / "toy", seed=4)
    folder = tmp_path / "toy"
    (folder / "mmclip.json").unlink()
    return folder, CLIPModel(CLIPConfig.from_dict(json.loads((folder / "config.json").read_text()))).eval()


@pytest.mark.parametrize("pickled", [False, True])
def test_a_transformers_folder_has_the_features_of_transformers(hugging_face, pickled):
    folder, module = hugging_face
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)), alpha=0.05)
    save_file(module.state_dict(), folder / "model.safetensors")
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(module.state_dict() | {"text_model.embeddings.position_ids": torch.arange(32)[None]}, folder / "pytorch_model.bin")
    found = import_model(folder, name="toy")
    image, text = features(found, 32)
    with torch.no_grad():
        torch.testing.assert_close(image, module.get_image_features(pixels(32)).pooler_output, atol=1e-5, rtol=0)
        torch.testing.assert_close(text, module.get_text_features(ids(found)).pooler_output, atol=1e-5, rtol=0)
    assert found.provenance["imported"]["maker"] == "transformers"
    assert found.provenance["imported"]["file"] == ("pytorch_model.bin" if pickled else "model.safetensors")


def test_a_pickled_folder_that_would_run_something_is_refused(hugging_face, canary):
    folder, _ = hugging_face
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": canary}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="is refused: its pickle names"):
        import_model(folder)
    assert not canary.folder.exists()


def test_another_size_of_a_transformers_model_is_interpolated_as_transformers_does(hugging_face):
    folder, _ = hugging_face
    small, large = import_model(folder), import_model(folder, image_size=64)
    with torch.no_grad():
        wanted = small.clip.get_image_features(pixels(64), interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(features(large, 64)[0], wanted, atol=1e-5, rtol=0)
    assert large.preprocessing.size == 64
    assert large.provenance["imported"]["changed"] == ["positions of 32 pixels interpolated to 64, bicubic"]


def test_an_activation_that_the_configuration_says_is_not_overridden(hugging_face):
    folder, _ = hugging_face
    assert import_model(folder, activation="quick_gelu").clip.config.vision_config.hidden_act == "quick_gelu"
    with pytest.raises(UsageError, match=r"were trained with quick_gelu, as their config\.json says"):
        import_model(folder, activation="gelu")


def test_a_bundle_keeps_its_preprocessing_and_its_past(random_bundle, tmp_path):
    random_bundle(tmp_path / "toy")
    first = save_imported(import_model(tmp_path / "toy", name="first"), tmp_path / "first")
    second = import_model(first, preprocessing="chexzero", context=20)
    assert second.provenance["imported"]["provenance"]["imported"]["maker"] == "mmclip"
    assert (second.preprocessing.resize, second.preprocessing.size, second.context) == ("pad", 32, 20)
    assert load_bundle(first).preprocessing == load_bundle(tmp_path / "toy").preprocessing


def test_a_shipped_model_is_a_source_too():
    assert import_model("tiny").provenance["imported"]["maker"] == "mmclip"


# ---- saved -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("changes", [{}, {"image_size": 40, "context": 32}])
def test_a_saved_import_loads_here_and_in_transformers_with_equal_features(reference, tmp_path, changes):
    torch.save(reference.state_dict(), tmp_path / "clip.pt")
    found = import_model(tmp_path / "clip.pt", name="ours", **changes)
    folder = save_imported(found, tmp_path / "bundle")
    size = changes.get("image_size", 24)
    wanted = features(found, size)
    bundle = load_bundle(folder)
    theirs = CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        for clip in (bundle.clip, theirs):
            assert torch.equal(clip.get_image_features(pixels(size)).pooler_output, wanted[0])
            assert torch.equal(clip.get_text_features(ids(found)).pooler_output, wanted[1])
    torch.testing.assert_close(bundle.text_features(TEXTS), F.normalize(wanted[1], dim=-1))
    assert (bundle.name, bundle.context, bundle.preprocessing) == ("ours", found.context, found.preprocessing)
    assert bundle.provenance == json.loads(json.dumps(found.provenance))
    for line in ("# ours", "RESEARCH USE ONLY", found.provenance["imported"]["sha256"], "quick_gelu"):
        assert line in bundle.card
    assert str(tmp_path) not in bundle.card + json.dumps(bundle.provenance)


def test_another_size_of_openai_s_model_is_interpolated_antialiased(reference, weights, tmp_path):
    torch.save(weights, tmp_path / "clip.pt")
    found = import_model(tmp_path / "clip.pt", **TOLD, image_size=16)
    wanted = image_positions(weights["visual.positional_embedding"], 2, antialias=True)
    assert torch.equal(found.clip.vision_model.embeddings.position_embedding.weight, wanted)
    assert "antialiased" in found.provenance["imported"]["changed"][0]


def test_nothing_is_written_over(saved, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years")
    with pytest.raises(OutputError, match="full is not empty: nothing is overwritten"):
        save_imported(import_model(saved, **TOLD), tmp_path / "full")
    assert (tmp_path / "full" / "thesis.tex").read_text() == "years"


# ---- bad sources -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["no_such", "./nothing.pt", "tinny", ""])
def test_a_source_of_no_such_name_is_missing(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InputMissing, ModelError)):
        import_model(source)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_hostile_checkpoint_is_refused_and_silent(weights, tmp_path, canary, wrapped):
    torch.save({"state_dict": weights, "optimizer": canary} if wrapped else weights | {"logit_scale": canary}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="is refused: its pickle names"):
        import_model(tmp_path / "evil.pt", **TOLD)
    assert not canary.folder.exists()


@pytest.mark.parametrize("spoil", ["missing", "extra", "shape", "nan", "truncated"])
def test_spoilt_weights_are_refused(weights, tmp_path, spoil):
    name = "visual.transformer.resblocks.1.mlp.c_proj.bias"
    changes = {"extra": {"visual.extra": torch.ones(1)}, "shape": {name: torch.ones(3)}, "nan": {name: torch.full((128,), float("nan"))}}
    weights |= changes.get(spoil, {})
    if spoil == "missing":
        del weights[name]
    torch.save(weights, tmp_path / "clip.pt")
    if spoil == "truncated":
        (tmp_path / "clip.pt").write_bytes((tmp_path / "clip.pt").read_bytes()[:-2000])
    with pytest.raises(ModelError, match=r"missing, first|unknown, first|of another shape, first|holds NaN|truncated, damaged"):
        import_model(tmp_path / "clip.pt", **TOLD)


def test_importing_leaves_the_global_generator_and_torch_jit_alone(reference, save_script, tmp_path, monkeypatch):
    path = save_script(reference, tmp_path / "clip.pt")
    for place, name in ((torch.jit, "load"), (torch, "load")):
        monkeypatch.setattr(place, name, lambda *_, **__: sys.exit("a loader that runs code was called"))
    before = torch.get_rng_state()
    import_model(path)
    assert torch.equal(torch.get_rng_state(), before)
