"""A bundle is one whole: saved and loaded with equal features, or refused with a reason."""

import json
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel
from transformers.utils import logging

from engine.errors import InputMissing, ModelError, OutputError
from engine.model.bundle import Bundle, load_bundle, save_bundle, shipped_models
from engine.model.bundle_folder import SHIPPED
from engine.model.preprocessing import Preprocessing
from engine.model.tokenizer import tokenize, train_tokenizer

TEXTS = ["pneumonia", "no pneumonia", "", "pleural effusion " * 30]


@pytest.fixture(scope="module")
def whole(random_bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_bundle(tmp_path_factory.mktemp("models") / "toy", seed=3)


@pytest.fixture(scope="module")
def home(whole: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(path for path in tmp_path_factory.getbasetemp().rglob("models*/toy") if (path / "mmclip.json").is_file())


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may spoil."""
    return shutil.copytree(home, tmp_path / "toy")


@pytest.fixture
def foreign(folder: Path) -> Path:
    """The same folder as another tool would have written it: without the manifest and its hashes."""
    (folder / "mmclip.json").unlink()
    return folder


@pytest.fixture
def quiet() -> Iterator[None]:
    """transformers draws a bar for every `from_pretrained`."""
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def pictures() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return [np.random.default_rng(seed).integers(0, 256, (40 + seed, 50), dtype=np.uint8) for seed in range(3)]


def features(bundle: Bundle) -> tuple[torch.Tensor, torch.Tensor]:
    return bundle.image_features(bundle.pixels(pictures())), bundle.text_features(TEXTS)


def save_again(bundle: Bundle, folder: Path, **changes: Any) -> Bundle:
    save_bundle(folder, bundle.clip, bundle.tokenizer, bundle.preprocessing, **{"name": "again"} | changes)
    return load_bundle(folder)


# ---- features --------------------------------------------------------------------------------------------------------------


def test_features_are_directions_of_the_projection(whole: Bundle) -> None:
    image, text = features(whole)
    assert image.shape == (3, 32)
    assert text.shape == (4, 32)
    for found in (image, text):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(len(found)))


def test_features_agree_with_transformers(whole: Bundle) -> None:
    image, text = features(whole)
    with torch.no_grad():
        theirs = whole.clip.get_image_features(whole.pixels(pictures())).pooler_output
        torch.testing.assert_close(image, torch.nn.functional.normalize(theirs, dim=-1))
        ids = torch.from_numpy(tokenize(whole.tokenizer, TEXTS, 32).input_ids)
        theirs = whole.clip.get_text_features(ids).pooler_output
        torch.testing.assert_close(text, torch.nn.functional.normalize(theirs, dim=-1))


def test_neighbours_change_no_features(whole: Bundle) -> None:
    image, text = features(whole)
    for row, picture in enumerate(pictures()):
        torch.testing.assert_close(whole.image_features(whole.pixels([picture]))[0], image[row])
    for row, words in enumerate(TEXTS):
        torch.testing.assert_close(whole.text_features([words])[0], text[row])


def test_nothing_has_no_features(whole: Bundle) -> None:
    assert whole.image_features(whole.pixels([])).shape == (0, 32)
    assert whole.text_features([]).shape == (0, 32)


def test_the_logit_scale_is_the_multiplier_of_cosines_and_stops_at_100(random_bundle, whole: Bundle, tmp_path: Path) -> None:
    assert whole.logit_scale == pytest.approx(np.exp(2.6592), rel=1e-5)
    hot = random_bundle(tmp_path / "hot")
    with torch.no_grad():
        hot.clip.logit_scale.fill_(9.0)
    assert hot.logit_scale == 100.0


# ---- saved and loaded ------------------------------------------------------------------------------------------------------


def test_a_saved_bundle_is_loaded_with_equal_features(whole: Bundle, tmp_path: Path) -> None:
    again = save_again(whole, tmp_path / "again", card="# A toy", provenance={"seed": 3})
    for ours, theirs in zip(features(whole), features(again), strict=True):
        assert torch.equal(ours, theirs)
    assert (again.name, again.card, again.provenance) == ("again", "# A toy", {"seed": 3})
    assert again.preprocessing == whole.preprocessing
    assert again.context == 32


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("half", [False, True])
def test_transformers_loads_a_bundle_with_equal_features(whole: Bundle, tmp_path: Path, half: bool) -> None:
    ours = save_again(whole, tmp_path / "again", half=half)
    clip = CLIPModel.from_pretrained(tmp_path / "again").float()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "again")
    words = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        image = clip.get_image_features(ours.pixels(pictures())).pooler_output
        text = clip.get_text_features(**words).pooler_output
    for mine, theirs in zip(features(ours), (image, text), strict=True):
        torch.testing.assert_close(mine, torch.nn.functional.normalize(theirs, dim=-1))


def test_half_precision_halves_the_file_and_hardly_moves_the_features(whole: Bundle, home: Path, tmp_path: Path) -> None:
    again = save_again(whole, tmp_path / "again", half=True)
    sizes = [(path / "model.safetensors").stat().st_size for path in (home, tmp_path / "again")]
    assert sizes[1] < 0.6 * sizes[0]
    assert {weight.dtype for weight in again.clip.state_dict().values()} == {torch.float32}
    for ours, theirs in zip(features(whole), features(again), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_the_content_hash_follows_what_decides_the_features(random_bundle, whole: Bundle, tmp_path: Path) -> None:
    assert (
        load_bundle(save_bundle(tmp_path / "a", whole.clip, whole.tokenizer, whole.preprocessing, name="a")).content_hash
        == whole.content_hash
    )
    assert save_again(whole, tmp_path / "b", card="other words", provenance={"by": "us"}).content_hash == whole.content_hash
    assert save_again(whole, tmp_path / "c", half=True).content_hash != whole.content_hash
    padded = Preprocessing(32, "pad", whole.preprocessing.mean, whole.preprocessing.std)
    save_bundle(tmp_path / "d", whole.clip, whole.tokenizer, padded, name="d")
    assert load_bundle(tmp_path / "d").content_hash != whole.content_hash
    assert random_bundle(tmp_path / "e", seed=4).content_hash != whole.content_hash
    assert random_bundle(tmp_path / "f", seed=3).content_hash == whole.content_hash


def test_a_bundle_without_its_manifest_is_the_same_model(foreign: Path, whole: Bundle) -> None:
    bundle = load_bundle(foreign)
    assert bundle.preprocessing == whole.preprocessing
    assert torch.equal(bundle.text_features(TEXTS), whole.text_features(TEXTS))
    assert bundle.content_hash == whole.content_hash


def test_loading_and_drawing_leave_the_global_generator_alone(random_bundle, folder: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    load_bundle(folder)
    random_bundle(tmp_path / "other", seed=8)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_bundle_may_be_read_by_everyone(folder: Path) -> None:
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())


# ---- saving is all or nothing ----------------------------------------------------------------------------------------------


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir() if path != folder]


def test_a_new_bundle_takes_the_place_of_the_old(random_bundle, folder: Path, whole: Bundle) -> None:
    (folder / "stale.txt").write_text("of the old bundle")
    other = random_bundle(folder, seed=9)
    assert other.content_hash != whole.content_hash
    assert not (folder / "stale.txt").exists()
    assert leftovers(folder) == []


def test_a_full_disk_leaves_the_old_bundle(folder: Path, whole: Bundle) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot write the model"):
            save_bundle(folder, whole.clip, whole.tokenizer, whole.preprocessing, name="new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_bundle(folder).content_hash == whole.content_hash
    assert leftovers(folder) == []


def test_a_provenance_that_is_no_json_leaves_the_old_bundle(folder: Path, whole: Bundle) -> None:
    with pytest.raises(TypeError, match="serializable"):
        save_bundle(folder, whole.clip, whole.tokenizer, whole.preprocessing, name="new", provenance={"seed": object()})
    assert load_bundle(folder).content_hash == whole.content_hash
    assert leftovers(folder) == []


def test_a_place_that_cannot_be_written_is_an_output_error(whole: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the model"):
        save_bundle(tmp_path / "file" / "toy", whole.clip, whole.tokenizer, whole.preprocessing, name="toy")


# ---- refused ---------------------------------------------------------------------------------------------------------------


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    stored = json.loads(path.read_text())
    edit(stored)
    path.write_text(json.dumps(stored))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("fault", ["a flipped bit", "truncated", "gone"])
def test_a_file_that_is_not_what_was_saved_is_refused(folder: Path, file: str, fault: str) -> None:
    content = bytearray((folder / file).read_bytes())
    if fault == "gone":
        (folder / file).unlink()
    elif fault == "truncated":
        (folder / file).write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 0x10
        (folder / file).write_bytes(content)
    with pytest.raises(ModelError, match=file.replace(".", r"\.")):
        load_bundle(folder)


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"sha256": []}', '{"preprocessing": 3}', '{"sha256": {"config.json": 5}}', "\udcff"])
def test_a_broken_manifest_is_refused(folder: Path, manifest: str) -> None:
    (folder / "mmclip.json").write_bytes(manifest.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError):
        load_bundle(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 64},
        {"size": "32"},
        {"resize": "stretch"},
        {"mean": [0.5]},
        {"std": [0.2, 0.2, 0.0]},
        {"mean": [0.5, 0.5, float("nan")]},
        {"std": None},
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(folder: Path, change: dict[str, Any]) -> None:
    edit_json(folder / "mmclip.json", lambda manifest: manifest["preprocessing"].update(change))
    with pytest.raises(ModelError, match=r"the preprocessing in mmclip\.json"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop("visual_projection.weight"), "1 missing, first visual_projection.weight"),
        (lambda w: w.update(extra=torch.zeros(1)), "1 unknown, first extra"),
        (lambda w: w.update(logit_scale=torch.zeros(2)), r"1 of another shape, first logit_scale is \[2\], not \[\]"),
        (lambda w: w["text_projection.weight"].fill_(float("nan")), "NaN or infinite weights: in text_projection.weight"),
        (lambda w: w["visual_projection.weight"].fill_(float("inf")), "NaN or infinite weights: in visual_projection.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(foreign: Path, edit: Callable[[dict[str, torch.Tensor]], object], message: str) -> None:
    edit_weights(foreign, edit)
    with pytest.raises(ModelError, match=message):
        load_bundle(foreign)


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_safetensors_file_is_refused_without_a_manifest_too(foreign: Path, length: int) -> None:
    path = foreign / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"model\.safetensors of model toy is truncated or no safetensors file"):
        load_bundle(foreign)


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.update(model_type="bert"),
        lambda c: c.pop("model_type"),
        lambda c: c.update(text_config="none"),
        lambda c: c["text_config"].update(hidden_size=-1),
        lambda c: c["vision_config"].update(hidden_act="none"),
    ],
)
def test_a_configuration_that_is_no_clip_is_refused(foreign: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    edit_json(foreign / "config.json", edit)
    with pytest.raises(ModelError, match=r"config\.json of model toy is no CLIP configuration"):
        load_bundle(foreign)


def test_a_configuration_of_more_weights_than_there_are_is_refused_before_they_are_made(foreign: Path) -> None:
    edit_json(foreign / "config.json", lambda config: config["text_config"].update(hidden_size=10**12))
    with pytest.raises(ModelError, match=r"do not fit its config\.json: it describes [\d,]+ numbers or more"):
        load_bundle(foreign)


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_broken_json_is_refused(foreign: Path, file: str, content: str) -> None:
    (foreign / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError):
        load_bundle(foreign)


def test_a_tokenizer_with_more_tokens_than_the_weights_is_refused(foreign: Path) -> None:
    words = train_tokenizer(["the quick brown fox jumps over the lazy dog and much more"] * 5, 320, 32)
    assert len(words) > len(AutoTokenizer.from_pretrained(foreign))
    words.save_pretrained(foreign)
    with pytest.raises(ModelError, match="the tokenizer of model toy does not fit its weights: it has"):
        load_bundle(foreign)


def test_a_tokenizer_with_another_end_of_text_is_refused(foreign: Path) -> None:
    edit_json(foreign / "tokenizer_config.json", lambda config: config.update(eos_token="<|startoftext|>"))
    with pytest.raises(ModelError, match="its end of text is token 0, the weights expect 1"):
        load_bundle(foreign)


def test_a_swapped_tokenizer_is_refused(folder: Path) -> None:
    train_tokenizer(["no pneumonia"], 262, 32).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"tokenizer\.json of model toy is missing, truncated or altered"):
        load_bundle(folder)


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.file, "I was run")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "model.safetensors"])
def test_a_pickle_is_never_opened(foreign: Path, file: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(Canary(canary)))  # noqa: S301 - it does sing
    assert canary.read_text() == "I was run"
    canary.unlink()
    (foreign / "model.safetensors").unlink()
    (foreign / file).write_bytes(pickle.dumps(Canary(canary)))
    expected = "no safetensors file" if file == "model.safetensors" else f"it holds {file}, and pickled weights are not opened"
    with pytest.raises(ModelError, match=expected):
        load_bundle(foreign)
    assert not canary.exists()


def test_code_beside_the_weights_is_never_run(foreign: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (foreign / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()\nclass Evil: pass\n")
    code = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoModel": "evil.Evil"}}
    for file in ("config.json", "tokenizer_config.json"):
        edit_json(foreign / file, lambda stored: stored.update(code, tokenizer_class="Evil"))
    try:
        load_bundle(foreign)
    except ModelError as error:
        assert "tokenizer" in str(error)
    assert not canary.exists()


# ---- names -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["no_such_model", "/no/such/folder", "..", "./nothing/here", ""])
def test_an_unknown_name_says_what_there_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InputMissing, ModelError)) as caught:
        load_bundle(name)
    assert str(caught.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_bundle(tmp_path)


def test_a_file_is_no_bundle(home: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors is one file, not a bundle folder"):
        load_bundle(home / "model.safetensors")


def test_the_list_of_shipped_models_needs_no_torch() -> None:
    program = "import sys; from engine.model.bundle import shipped_models; shipped_models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_models_are_small_and_load_by_name(name: str) -> None:
    bundle = load_bundle(name)
    assert sum(weight.numel() for weight in bundle.clip.parameters()) <= 12_000_000
    assert sum(path.stat().st_size for path in (SHIPPED / name).iterdir()) <= 30_000_000
    assert bundle.card.startswith("#")
    assert all(found.isfinite().all() for found in features(bundle))
