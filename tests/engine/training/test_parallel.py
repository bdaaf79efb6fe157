import torch
from torch import nn

from engine.training.parallel import ParallelModule, like, whole_tensor


def test_one_process_runs_the_module_itself():
    module = nn.Linear(3, 2)
    parallel_module = ParallelModule(module, parallel="fsdp", blocks=[module])
    x = torch.ones(1, 3)
    assert torch.equal(parallel_module(x, is_last=False), module(x))
    assert not hasattr(module.weight, "device_mesh")


def test_gradients_are_shortened_and_never_lengthened():
    module = nn.Linear(3, 2)
    parallel_module = ParallelModule(module)
    module(torch.ones(1, 3)).sum().backward()
    before = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
    parallel_module.finish_gradients(1e3)
    assert torch.equal(torch.cat([parameter.grad.flatten() for parameter in module.parameters()]), before)
    parallel_module.finish_gradients(0.5)
    torch.testing.assert_close(torch.cat([parameter.grad.flatten() for parameter in module.parameters()]), before / before.norm() * 0.5)


def test_a_tensor_that_is_not_sharded_is_whole():
    tensor = torch.arange(3.0)
    assert whole_tensor(tensor) is tensor
    assert torch.equal(like(tensor, torch.ones(3, dtype=torch.float64)), torch.ones(3))
    assert like(tensor, torch.ones(3, dtype=torch.float64)).dtype == torch.float32
