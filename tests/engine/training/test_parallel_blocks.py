import copy

import pytest
import torch
from torch import nn

from engine.recipe.pretraining import Compute
from engine.training.loop import arithmetic
from engine.training.parallel import compile_blocks, compiled, is_compiled, recompute_blocks


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear1, self.linear2 = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        attended = nn.functional.scaled_dot_product_attention(x, x, x)
        return x + self.linear2(nn.functional.gelu(self.linear1(self.norm(attended))))


def towers() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*(Block() for _ in range(3)))


def gradients(module: nn.Module, precision: str = "fp32") -> list[torch.Tensor]:
    module.zero_grad()
    with arithmetic(torch.device("cpu"), precision):
        loss = module(torch.linspace(-1, 1, 2 * 5 * 8).view(2, 5, 8)).square().mean()
    loss.backward()
    return [parameter.grad.clone() for parameter in module.parameters()]


def test_blocks_computed_again_have_the_same_gradients_to_the_bit():
    plain, again = towers(), towers()
    recompute_blocks(again)
    assert all(torch.equal(a, b) for a, b in zip(gradients(again), gradients(plain), strict=True))


def test_what_is_inside_a_recomputed_block_is_not_kept():
    def kept(module: nn.Module) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            module(torch.randn(2, 5, 8, requires_grad=True))
        return sum(sizes)

    plain, again = towers(), towers()
    recompute_blocks(again)
    assert kept(again) < kept(plain) / 5


def test_evaluation_and_no_grad_compute_once():
    module = towers()
    recompute_blocks(module)
    calls: list[int] = []
    module[0].linear1.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        module(torch.randn(2, 5, 8))
    assert len(calls) == 1
    gradients(module)
    assert len(calls) == 3


def test_dropout_draws_the_same_when_it_is_computed_again():
    plain = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8)))
    again = copy.deepcopy(plain)
    recompute_blocks(again)
    torch.manual_seed(1)
    expected = gradients(plain)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(gradients(again), expected, strict=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo asks each tensor for it, and hides the warning in its own way
@pytest.mark.parametrize("recomputed", [False, True])
def test_compiled_blocks_agree(recomputed):
    """By way of autograd's graphs alone: a real compiler takes half a minute on a CPU."""
    plain, fast = towers(), towers()
    compile_blocks(fast, backend="aot_eager", whole=True)
    if recomputed:
        recompute_blocks(fast)
    for a, b in zip(gradients(fast), gradients(plain), strict=True):
        torch.testing.assert_close(a, b)


def test_what_cannot_be_compiled_whole_is_an_error():
    def waits_for_the_host(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.sum()) > 0 else x

    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        compiled(waits_for_the_host, backend="eager", whole=True)(torch.ones(2))


@pytest.mark.parametrize(("how", "on"), [("auto", {"cuda"}), ("always", {"cpu", "cuda"}), ("never", set())])
def test_auto_compiles_on_a_gpu_alone(how, on):
    assert {kind for kind in ("cpu", "cuda") if is_compiled(Compute(compile=how), torch.device(kind))} == on
