"""Our synchronised BatchNorm on CPU processes against one process that sees the whole batch."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from common.distributed import World
from pretrain.batchnorm import GlooBatchNorm
from tests.processes import in_processes


def reference(x: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """torch's BatchNorm on the whole batch: its module after a step, and the output."""
    norm = nn.BatchNorm2d(5)
    _fill(norm)
    out = norm(x)
    out.square().mul(torch.arange(1.0, 6).view(1, 5, 1, 1)).mean().backward()
    return norm, out


def _fill(norm: nn.Module) -> None:
    with torch.no_grad():
        for seed, parameter in enumerate(norm.parameters()):
            parameter.copy_(torch.randn(5, generator=torch.Generator().manual_seed(seed)))


def _compare(world: World) -> None:
    x = torch.randn(8, 5, 3, 4, generator=torch.Generator().manual_seed(9)) * 3 + 100
    expected, out = reference(x)
    norm = GlooBatchNorm(5)
    _fill(norm)
    parallel = DistributedDataParallel(norm)
    share = x.chunk(world.size)[world.rank]
    ours = parallel(share)
    ours.square().mul(torch.arange(1.0, 6).view(1, 5, 1, 1)).mean().backward()
    torch.testing.assert_close(ours, out.chunk(world.size)[world.rank], rtol=1e-5, atol=1e-5)
    for (name, a), (_, b) in zip(norm.named_parameters(), expected.named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5, msg=name)
    for (name, c), (_, d) in zip(norm.named_buffers(), expected.named_buffers(), strict=True):
        torch.testing.assert_close(c, d, rtol=1e-5, atol=1e-5, msg=name)


def _input_gradient(world: World) -> None:
    x = torch.randn(8, 5, 3, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    whole = x.clone().requires_grad_()
    norm = nn.BatchNorm2d(5, dtype=torch.float64)
    norm(whole).pow(3).sum().backward()
    part = x.chunk(world.size)[world.rank].clone().requires_grad_()
    GlooBatchNorm(5, dtype=torch.float64)(part).pow(3).sum().backward()
    assert whole.grad is not None and part.grad is not None
    torch.testing.assert_close(part.grad, whole.grad.chunk(world.size)[world.rank])


def test_two_processes_equal_one_with_the_whole_batch() -> None:
    in_processes(_compare)


def test_the_inputs_gradient_crosses_processes() -> None:
    in_processes(_input_gradient)


def test_in_one_process_it_is_torchs_own() -> None:
    x = torch.randn(4, 5, 3, 3)
    ours, theirs = GlooBatchNorm(5), nn.BatchNorm2d(5)
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
