"""InfoNCE, the queue and shuffled BatchNorm, against NumPy in float64 and against one process."""

import numpy as np
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.distributed import World
from pretrain.lewel_m import LEWELM
from pretrain.moco import MoCo, encode_shuffled, enqueue, info_nce, new_queue
from tests.processes import in_processes


def numpy_info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> float:
    """-log of the softmax of the positive among positive and negatives, in float64."""
    q, k, n = (x.detach().double().numpy() for x in (query, key, queue))
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    k = k / np.linalg.norm(k, axis=1, keepdims=True)
    losses = []
    for one, other in zip(q, k, strict=True):
        logits = np.array([one @ other, *(one @ column for column in n.T)]) / temperature
        losses.append(np.log(np.exp(logits - logits[0]).sum()))
    return float(np.mean(losses))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    images=st.integers(1, 5),
    size=st.integers(1, 30),
    temperature=st.floats(0.05, 2),
)
def test_info_nce(seed: int, images: int, size: int, temperature: float) -> None:
    torch.manual_seed(seed)
    query, key, queue = torch.randn(images, 8), torch.randn(images, 8), new_queue(8, size)
    expected = numpy_info_nce(query, key, queue, temperature)
    got = info_nce(query, key, queue, temperature).item()
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


@given(size=st.integers(1, 12), shares=st.lists(st.integers(1, 6), max_size=6))
def test_the_queue_holds_the_newest_keys_in_a_ring(size: int, shares: list[int]) -> None:
    queue, pointer = new_queue(3, size), torch.zeros(1, dtype=torch.long)
    ring = [column.clone() for column in queue.T]
    place = 0
    for count in shares:
        keys = torch.randn(count, 3)
        enqueue(queue, pointer, keys)
        for key in keys[:size]:
            ring[place % size] = key / key.norm()
            place += 1
        assert pointer.item() == place % size
    torch.testing.assert_close(queue.T, torch.stack(ring))


def test_mocos_loss_and_names() -> None:
    torch.manual_seed(0)
    model = MoCo("resnet18", proj_dim=16, queue_size=32)
    views = torch.randn(2, 4, 3, 32, 32)
    model.eval()  # the same statistics twice
    queue = model.queue.clone()
    query, key = model.encoder_q(views[0]), model.encoder_k(views[1])
    expected = numpy_info_nce(query, key, queue, 0.2)
    np.testing.assert_allclose(model(*views).item(), expected, rtol=1e-5)
    torch.testing.assert_close(model.queue[:, :4].T, nn.functional.normalize(key.detach()))
    assert torch.equal(model.queue[:, 4:], queue[:, 4:])
    names = set(model.state_dict())
    assert {"encoder_q.conv1.weight", "encoder_q.fc.0.weight", "encoder_q.fc.2.bias"} <= names
    assert {"encoder_k.layer4.1.bn2.running_var", "queue", "queue_ptr"} <= names


def test_lewel_m_is_the_same_loss_on_both_branches() -> None:
    torch.manual_seed(0)
    model = LEWELM(
        "resnet18", proj_dim=16, hidden_dim=24, heads=4, queue_size=32, loss_weight=0.3
    ).eval()
    views = torch.randn(2, 4, 3, 64, 64)
    queue, queue_obj = model.queue.clone(), model.queue_obj.clone()
    z, aligned = model.online_net(views[0])
    key, aligned_key = model.target_net(views[1])
    assert aligned.shape == (4, 16, 4)
    vectors, positives = (x.permute(0, 2, 1).reshape(16, 16) for x in (aligned, aligned_key))
    expected = 0.3 * numpy_info_nce(z[..., 0], key[..., 0], queue, 0.2)
    expected += 0.7 * numpy_info_nce(vectors, positives, queue_obj, 0.2)
    np.testing.assert_allclose(model(*views).item(), expected, rtol=1e-5)
    assert torch.equal(model.queue_obj[:, 4:], queue_obj[:, 4:])
    units = nn.functional.normalize(aligned_key.detach(), dim=1)
    for image, vector in enumerate(model.queue_obj[:, :4].T):  # one of each image's four
        distance = (units[image] - vector[:, None]).abs().amax(0)
        assert distance.min() < 1e-6


class Marked(nn.Module):
    """Outputs that tell the image and the process that encoded it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rank = float(dist.get_rank()) if dist.is_initialized() else 0.0
        return x.flatten(1)[:, :1], torch.full((len(x), 1), rank)


def _shuffled(world: World) -> None:
    torch.manual_seed(world.rank)  # the processes' own streams differ; rank 0's order counts
    images = torch.arange(8.0).add(8 * world.rank).view(8, 1, 1, 1)
    elsewhere = 0
    for _ in range(5):
        same, rank = encode_shuffled(Marked(), images)
        assert torch.equal(same.flatten(), images.flatten())
        elsewhere += int((rank != world.rank).sum())
    assert 0 < elsewhere < 40
    queue, pointer = torch.zeros(2, 6), torch.zeros(1, dtype=torch.long)
    enqueue(queue, pointer, torch.eye(2) * (1 + world.rank))
    assert pointer.item() == 4 and torch.equal(queue[:, :4].T, torch.eye(2).repeat(2, 1))


def test_shuffled_images_come_back_in_order_and_queues_get_all_processes_keys() -> None:
    in_processes(_shuffled)


def test_one_process_has_nobody_to_shuffle_with() -> None:
    images = torch.randn(3, 1, 2, 2)
    assert torch.equal(encode_shuffled(Marked(), images)[0], images[:, 0, 0, :1])
