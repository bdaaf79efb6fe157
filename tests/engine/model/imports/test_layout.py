"""OpenAI's names and shapes: sizes are read off them, every misfit is told, other architectures are named."""

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from engine.errors import ModelError
from engine.model.imports.layout import renamed, settings, sizes_of, without_facts


def test_sizes_are_read_off_the_shapes(weights):
    sizes = sizes_of(weights, "toy.pt")
    assert (sizes.image.width, sizes.image.layers, sizes.image.heads, sizes.image.mlp) == (128, 2, 2, 512)
    assert (sizes.text.width, sizes.text.layers, sizes.text.heads, sizes.text.mlp) == (64, 2, 1, 256)
    assert (sizes.image_size, sizes.patch, sizes.context, sizes.vocabulary, sizes.projection) == (24, 8, 77, 49408, 48)


@pytest.mark.parametrize(
    ("width", "layers", "patch", "size", "heads"),
    [
        (768, 12, 32, 224, 12),
        (768, 12, 16, 224, 12),
        (1024, 24, 14, 336, 16),
        (384, 12, 16, 224, 6),
        (1280, 32, 14, 224, 16),
        (1664, 48, 14, 224, 16),
    ],
)
def test_published_towers_have_their_published_heads(weights, width, layers, patch, size, heads):
    """Shapes alone, on the meta device: ViT-B/32, B/16, L/14 at 336, S/16, H/14 and bigG/14."""
    kept = {name: value for name, value in weights.items() if not name.startswith("visual.")}
    with torch.device("meta"):
        block = {
            "attn.in_proj_weight": torch.empty(3 * width, width), "attn.in_proj_bias": torch.empty(3 * width),
            "attn.out_proj.weight": torch.empty(width, width), "attn.out_proj.bias": torch.empty(width),
            "mlp.c_fc.weight": torch.empty(4 * width, width), "mlp.c_fc.bias": torch.empty(4 * width),
            "mlp.c_proj.weight": torch.empty(width, 4 * width), "mlp.c_proj.bias": torch.empty(width),
            **{f"{norm}.{part}": torch.empty(width) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")},
        }  # fmt: skip
        kept |= {f"visual.transformer.resblocks.{n}.{name}": value for n in range(layers) for name, value in block.items()}
        kept |= {f"visual.{norm}.{part}": torch.empty(width) for norm in ("ln_pre", "ln_post") for part in ("weight", "bias")}
        kept |= {
            "visual.class_embedding": torch.empty(width),
            "visual.conv1.weight": torch.empty(width, 3, patch, patch),
            "visual.positional_embedding": torch.empty((size // patch) ** 2 + 1, width),
            "visual.proj": torch.empty(width, 48),
        }
    sizes = sizes_of(kept, "published.pt")
    assert (sizes.image.heads, sizes.image.layers, sizes.image_size, sizes.patch) == (heads, layers, size, patch)


def test_renamed_weights_fill_a_model_of_transformers(weights):
    sizes = sizes_of(weights, "toy.pt")
    model = CLIPModel(CLIPConfig(**settings(sizes, "quick_gelu", sot=49406, eot=49407)))
    found = renamed(weights, sizes)
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in model.state_dict().items()}
    assert sum(value.numel() for value in found.values()) == sum(value.numel() for value in weights.values())


def test_a_text_tower_of_its_own_has_the_same_weights(weights):
    """open_clip's models with `custom_text` put "text." before the text tower's names, and may have an nn.Linear at its end."""
    text = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
    custom = {f"text.{name}" if name.startswith(text) else name: value for name, value in weights.items()}
    linear = {name: value for name, value in custom.items() if name != "text.text_projection"}
    linear["text.text_projection.weight"] = weights["text_projection"].T.contiguous()
    wanted = renamed(weights, sizes_of(weights, "toy.pt"))
    for other in (custom, linear):
        found = renamed(other, sizes_of(other, "toy.pt"))
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_temperature_in_a_vector_is_the_same_temperature(weights):
    vector = weights | {"logit_scale": weights["logit_scale"].reshape(1)}
    assert renamed(vector, sizes_of(vector, "toy.pt"))["logit_scale"].shape == ()


def test_facts_and_causal_masks_are_no_weights(reference, weights):
    mask = torch.full((77, 77), float("-inf")).triu(1)
    kept, has_facts = without_facts(
        reference.state_dict() | {"attn_mask": mask, "transformer.resblocks.0.attn_mask": mask.half()}, "toy.pt"
    )
    assert kept.keys() == weights.keys()
    assert has_facts
    assert not without_facts(weights, "toy.pt")[1]


@pytest.mark.parametrize("mask", [torch.zeros(77, 77), torch.full((77, 77), float("-inf")).tril(-1), torch.zeros(3)])
def test_a_tower_that_sees_later_words_is_refused(weights, mask):
    with pytest.raises(ModelError, match=r"the text tower of toy\.pt is not causal"):
        without_facts(weights | {"attn_mask": mask}, "toy.pt")


@pytest.mark.parametrize(
    "name",
    ["visual.conv1.weight", "visual.proj", "token_embedding.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight"],
)
def test_a_missing_weight_that_tells_a_size_is_named(weights, name):
    del weights[name]
    with pytest.raises(ModelError, match=rf"toy\.pt does not hold the weights of a ViT CLIP: it has no weight named {name}"):
        sizes_of(weights, "toy.pt")


def test_every_kind_of_misfit_is_told_at_once(weights):
    del weights["ln_final.bias"]
    weights["stranger"] = torch.ones(2)
    weights["visual.ln_post.weight"] = torch.ones(7)
    with pytest.raises(ModelError) as caught:
        sizes_of(weights, "toy.pt")
    for part in ("1 missing, first ln_final.bias", "1 unknown, first stranger", "first visual.ln_post.weight is [7], not [128]"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("visual.positional_embedding", (12, 128)),  # 11 patches are no square
        ("visual.conv1.weight", (128, 3, 8, 4)),
        ("visual.conv1.weight", (128, 1, 8, 8)),
        ("transformer.resblocks.1.attn.in_proj_weight", (64, 192)),
        ("text_projection", (48, 64)),
        ("logit_scale", (2,)),
    ],
)
def test_a_weight_of_another_shape_is_named(weights, name, shape):
    weights[name] = torch.zeros(shape)
    with pytest.raises(ModelError, match=rf"{name.replace('.', chr(92) + '.')} is \["):
        sizes_of(weights, "toy.pt")


@pytest.mark.parametrize("name", ["visual.conv1.weight", "token_embedding.weight", "visual.proj", "visual.positional_embedding"])
def test_a_flat_weight_is_another_shape(weights, name):
    weights[name] = torch.zeros(3)
    with pytest.raises(ModelError, match=r"names of a CLIP with other shapes|are not those of a ViT CLIP"):
        sizes_of(weights, "toy.pt")


def test_a_missing_layer_is_missed(weights):
    kept = {name: value for name, value in weights.items() if not name.startswith("visual.transformer.resblocks.0.ln_1")}
    with pytest.raises(ModelError, match=r"2 missing, first visual\.transformer\.resblocks\.0\.ln_1\.bias"):
        sizes_of(kept, "toy.pt")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("visual.layer1.0.conv1.weight", "a ResNet image tower"),
        ("visual.trunk.patch_embed.proj.weight", "an image tower of timm"),
        ("text.transformer.embeddings.word_embeddings.weight", "a text tower of transformers with another tokenizer"),
        ("text_decoder.resblocks.0.ln_1.weight", "CoCa's decoder and pooling"),
        ("logit_bias", "SigLIP's bias, with another loss and tokenizer"),
        ("visual.transformer.resblocks.0.ls_1.gamma", "layer scale"),
        ("text.text_projection.bias", "a bias in the text projection"),
        ("vision_model.post_layernorm.weight", "the names of transformers"),
        ("image_encoder.blocks.0.norm1.weight", "the names of another library"),
    ],
)
def test_other_architectures_are_refused_by_name(weights, name, what):
    with pytest.raises(ModelError, match=rf"toy\.pt cannot be imported: it has {what}"):
        sizes_of(weights | {name: torch.ones(1)}, "toy.pt")


def test_a_tower_without_its_first_norm_is_refused_by_name(weights):
    del weights["visual.ln_pre.weight"], weights["visual.ln_pre.bias"]
    with pytest.raises(ModelError, match=r"no first layer norm \(CLIPA\)"):
        sizes_of(weights, "toy.pt")


def test_heads_are_the_configuration_s_and_never_guessed(weights, make_reference):
    assert sizes_of(weights, "toy.pt", image_heads=4, text_heads=2).image.heads == 4
    odd = {name: value for name, value in make_reference(width=192).state_dict().items() if value.is_floating_point()}
    assert sizes_of(odd, "odd.pt").image.heads == 3
    with pytest.raises(ModelError, match="the number of heads of the image tower"):
        sizes_of(weights, "toy.pt", image_heads=3)
