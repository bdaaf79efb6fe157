"""Every mask agrees with a slow, literal, per-sample reading of eqs 4-8."""

import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.model.attmim import hidden_patches, patch_scores, random_subset, top_patches
from engine.recipe.pretraining import AttMIM, MaskStrategy

SCORES = ("l2", "mean", "cos_img", "logsumexp", "column")
STRATEGIES = tuple(strategy for strategy in get_args(MaskStrategy) if strategy != "none")
Vectors = list[list[float]]


# ---- the paper, one sample and one number at a time ------------------------------------------------------------------------


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(vector: list[float]) -> list[float]:
    return [x / math.sqrt(dot(vector, vector)) for x in vector]


def softmax(numbers: list[float]) -> list[float]:
    exponentials = [math.exp(number - max(numbers)) for number in numbers]
    return [exponential / sum(exponentials) for exponential in exponentials]


def literal_scores(image: Vectors, context: Vectors, recipe: AttMIM) -> list[float]:
    """Eqs 4-6, then one number per patch. `context` holds no padding."""
    queries = [unit(patch) for patch in image] if recipe.normalize else image
    keys = [unit(token) for token in context] if recipe.normalize else context
    logits = [[dot(query, key) / math.sqrt(len(query)) for key in keys] for query in queries]
    if recipe.score == "logsumexp":
        return [math.log(sum(math.exp(logit) for logit in row)) for row in logits]
    if recipe.score == "column":
        looks = [softmax([row[token] for row in logits]) for token in range(len(context))]
        return [sum(look[patch] for look in looks) / len(looks) for patch in range(len(image))]
    scores = []
    for patch, row in zip(image, logits, strict=True):
        shares = softmax(row)
        attended = [sum(share * token[c] for share, token in zip(shares, context, strict=True)) for c in range(len(patch))]
        scores.append(
            {
                "l2": math.sqrt(dot(attended, attended)),
                "mean": sum(attended) / len(attended),
                "cos_img": dot(unit(attended), unit(patch)),
            }[recipe.score]
        )
    return scores


def best(scores: list[float], count: int) -> set[int]:
    return set(sorted(range(len(scores)), key=lambda patch: -scores[patch])[:count])


def literal_choice(maps: list[list[float]], recipe: AttMIM, draw: list[float]) -> tuple[set[int], list[int], int]:
    """Eqs 7, 8: the patches of the union that are hidden, the others' summed ranks over the maps, and how many are hidden in all."""
    patches = len(draw)
    union: set[int] = set()
    ranks = [0] * patches
    for scores in maps:
        union |= best(scores, round(recipe.top * patches))
        for rank, patch in enumerate(sorted(range(patches), key=lambda patch: scores[patch])):
            ranks[patch] += rank
    total = round(recipe.ratio * (len(union) if recipe.ratio_of == "union" else patches))
    return (
        set(sorted(union, key=lambda patch: -draw[patch])[:total]),
        [-1 if patch in union else rank for patch, rank in enumerate(ranks)],
        total,
    )


def assert_is_literal(mask: list[bool], maps: list[list[float]], recipe: AttMIM, draw: list[float]) -> None:
    from_union, ranks, total = literal_choice(maps, recipe, draw)
    hidden = {patch for patch, is_hidden in enumerate(mask) if is_hidden}
    assert len(hidden) == total
    assert {patch for patch in hidden if ranks[patch] < 0} == from_union
    # equal mean ranks may fill up in any order
    topped_up = sorted((ranks[patch] for patch in hidden - from_union), reverse=True)
    assert topped_up == sorted((rank for rank in ranks if rank >= 0), reverse=True)[: total - len(from_union)]


# ---- toys ------------------------------------------------------------------------------------------------------------------


def vectors(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def padded(lengths: list[int], tokens: int) -> Tensor:
    return torch.arange(tokens)[None] >= torch.tensor(lengths)[:, None]


recipes = st.builds(
    AttMIM,
    strategy=st.sampled_from(STRATEGIES),
    top=st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0]),
    ratio=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    ratio_of=st.sampled_from(["image", "union"]),
    score=st.sampled_from(SCORES),
    normalize=st.booleans(),
)


# ---- scores ----------------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=60)
@given(recipes, st.integers(1, 9), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 99))
def test_scores_follow_the_equations_for_every_reading(recipe: AttMIM, patches: int, lengths: list[int], seed: int) -> None:
    image, context = vectors(len(lengths), patches, 4, seed=seed), vectors(len(lengths), 5, 4, seed=seed + 100)
    scores = patch_scores(image, context, padded(lengths, 5), recipe)
    for row, length in enumerate(lengths):
        literal = literal_scores(image[row].tolist(), context[row, :length].tolist(), recipe)
        assert scores[row].tolist() == pytest.approx(literal, rel=1e-4, abs=1e-5)


def test_one_context_serves_every_image_of_the_batch() -> None:
    image, context = vectors(3, 6, 4, seed=1), vectors(1, 5, 4, seed=2)
    assert torch.equal(patch_scores(image, context, None, AttMIM()), patch_scores(image, context.expand(3, -1, -1), None, AttMIM()))


@pytest.mark.parametrize("score", SCORES)
def test_autocast_does_not_coarsen_the_scores(score: str) -> None:
    recipe = AttMIM(score=score)
    image, context = vectors(2, 49, 32, seed=1), vectors(2, 9, 32, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        scores = patch_scores(image, context, None, recipe)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, patch_scores(image, context, None, recipe))


# ---- masks -----------------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=150)
@given(recipes, st.sampled_from([4, 9, 16]), st.booleans(), st.integers(0, 999))
def test_masks_follow_the_equations_for_every_strategy(recipe: AttMIM, patches: int, has_report: bool, seed: int) -> None:
    lengths, prompt_length = [3, 5], 4
    image, report, prompts = vectors(2, patches, 4, seed=seed), vectors(2, 5, 4, seed=seed + 1), vectors(1, 6, 4, seed=seed + 2)
    mask = hidden_patches(
        image,
        prompts,
        recipe,
        prompt_padding=padded([prompt_length], 6),
        report=report if has_report else None,
        padding_mask=padded(lengths, 5) if has_report else None,
        generator=seeded(seed),
    )
    draws = seeded(seed)
    noise = torch.rand(2, patches, generator=draws)
    draw = torch.rand(2, patches, generator=draws) if recipe.strategy == "random" else noise
    for row, length in enumerate(lengths):
        mine = image[row].tolist()
        from_report = literal_scores(mine, report[row, :length].tolist(), recipe) if has_report else None
        from_prompts = literal_scores(mine, prompts[0, :prompt_length].tolist(), recipe)
        from_itself = literal_scores(mine, mine, recipe)
        maps = {
            "random": [],
            "report": [from_report or from_itself],
            "prompt": [from_prompts],
            "self": [from_itself],
            "attmim": [*([from_report] if from_report else []), from_prompts, from_itself],
        }[recipe.strategy]
        if recipe.strategy == "random":
            hidden = {patch for patch in range(patches) if mask[row, patch]}
            assert hidden == best(noise[row].tolist(), round(recipe.ratio * patches))
        else:
            assert_is_literal(mask[row].tolist(), maps, recipe, draw[row].tolist())


@pytest.mark.parametrize(("patches", "proposed", "hidden"), [(196, 137, 147), (16, 11, 12), (49, 34, 37), (400, 280, 300)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_counts_are_exact(patches: int, proposed: int, hidden: int, strategy: MaskStrategy) -> None:
    image, report, prompts = vectors(3, patches, 8, seed=1), vectors(3, 7, 8, seed=2), vectors(1, 7, 8, seed=3)
    mask = hidden_patches(image, prompts, AttMIM(strategy=strategy), report=report, generator=seeded())
    assert mask.sum(1).tolist() == [hidden] * 3
    assert top_patches(image.sum(-1), 0.7).sum(1).tolist() == [proposed] * 3


def test_a_single_map_hides_all_it_proposes_and_is_topped_up_from_outside() -> None:
    image = vectors(2, 196, 8, seed=1)
    mask = hidden_patches(image, image[:1], AttMIM(strategy="self"), generator=seeded())
    scores = patch_scores(image, image, None, AttMIM())
    assert (mask & top_patches(scores, 0.7)).sum(1).tolist() == [137, 137]
    assert torch.equal(mask, top_patches(scores, 0.75)), "the ten from outside are the next by score"


def test_of_a_large_union_every_patch_is_hidden_equally_often() -> None:
    proposed = (torch.arange(20) < 16).expand(20_000, 20)
    mask = random_subset(proposed, torch.zeros(20_000, 20), AttMIM(ratio=0.5), seeded(3))
    often = mask.float().mean(0)
    assert often[16:].tolist() == [0.0] * 4
    assert often[:16].tolist() == pytest.approx([10 / 16] * 16, abs=5 * math.sqrt(10 / 16 * 6 / 16 / 20_000))


def test_a_share_of_the_union_never_leaves_the_union() -> None:
    proposed = torch.rand(50, 30, generator=seeded(1)) < torch.rand(50, 1, generator=seeded(2))
    mask = random_subset(proposed, torch.rand(50, 30, generator=seeded(4)), AttMIM(ratio_of="union"), seeded(3))
    assert not (mask & ~proposed).any()
    assert mask.sum(1).tolist() == [round(0.75 * size) for size in proposed.sum(1).tolist()]


# ---- what a mask must not depend on ----------------------------------------------------------------------------------------


def masks(**changes: Any) -> Tensor:
    given_: dict[str, Any] = {
        "image": vectors(3, 16, 8, seed=1),
        "prompts": vectors(1, 6, 8, seed=2),
        "recipe": AttMIM(),
        "prompt_padding": padded([4], 6),
        "report": vectors(3, 5, 8, seed=3),
        "padding_mask": padded([2, 5, 3], 5),
        "generator": seeded(9),
    } | changes
    return hidden_patches(given_.pop("image"), given_.pop("prompts"), given_.pop("recipe"), **given_)


@pytest.mark.parametrize("score", SCORES)
def test_padding_changes_nothing(score: str) -> None:
    recipe = AttMIM(score=score)
    garbage = torch.full((3, 4, 8), 1e3)
    report, prompts = vectors(3, 5, 8, seed=3), vectors(1, 6, 8, seed=2)
    longer = masks(
        recipe=recipe,
        report=torch.cat([report, garbage], 1).masked_fill(padded([2, 5, 3], 9)[..., None], -7e2),
        padding_mask=padded([2, 5, 3], 9),
        prompts=torch.cat([prompts, garbage[:1]], 1),
        prompt_padding=padded([4], 10),
    )
    assert torch.equal(longer, masks(recipe=recipe))
    assert torch.equal(longer, masks(recipe=recipe, prompts=prompts[:, :4], prompt_padding=None))


def test_without_a_report_only_prompts_and_the_image_itself_decide() -> None:
    alone = masks(report=None, padding_mask=None)
    assert not torch.equal(alone, masks())
    assert not torch.equal(alone, masks(report=None, padding_mask=None, prompts=vectors(1, 6, 8, seed=20)))
    assert torch.equal(alone, masks(report=None, padding_mask=padded([1, 1, 1], 5)))


def test_a_sample_is_masked_by_its_own_maps_whatever_stands_beside_it() -> None:
    image, report = vectors(3, 16, 8, seed=1), vectors(3, 5, 8, seed=3)
    image[1:], report[1:] = vectors(2, 16, 8, seed=30), vectors(2, 5, 8, seed=31)
    assert torch.equal(masks(image=image, report=report)[0], masks()[0])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_carry_no_gradient(strategy: MaskStrategy) -> None:
    image, report = vectors(3, 16, 8, seed=1).requires_grad_(), vectors(3, 5, 8, seed=3).requires_grad_()
    mask = masks(image=image, report=report, recipe=AttMIM(strategy=strategy))
    assert mask.dtype == torch.bool
    assert not mask.requires_grad
    assert not patch_scores(image, report, None, AttMIM()).requires_grad


@pytest.mark.parametrize("strategy", ["attmim", "random"])
def test_the_generator_alone_decides_what_is_drawn(strategy: MaskStrategy) -> None:
    recipe = AttMIM(strategy=strategy, top=0.9, ratio=0.5)
    before = torch.get_rng_state()
    first, again, other = (masks(recipe=recipe, generator=seeded(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_call_may_override_the_strategy_of_the_recipe() -> None:
    assert torch.equal(masks(strategy="self"), masks(recipe=AttMIM(strategy="self")))
