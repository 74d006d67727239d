"""kNN classification of features by a weighted vote, and the monitor of a pre-training.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
section 3.4, in the protocol of DINO (arXiv 2104.14294, section 4.1): the k images of the training
split that are nearest by cosine vote for their class with weight exp(cosine / 0.07).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.distributed import World
from common.errors import UserError
from pretrain.collectives import add_up, buffers_of_rank0, gather_rows
from pretrain.data.images import ImageSource
from pretrain.evaluation.features import Accuracy, extract
from pretrain.evaluation.splits import balanced, check_comparable, warn_of_empty_classes

NEIGHBOURS = (20, 200)
TEMPERATURE = 0.07
SIMILARITIES = 2**26
"""Entries of a similarity matrix that are held at once: 256 MiB."""


def predict(
    queries: Tensor,
    memory: Tensor,
    labels: Tensor,
    ks: Sequence[int],
    temperature: float = TEMPERATURE,
) -> Tensor:
    """The classes that the neighbours vote for, (len(ks), q), many queries at a time.

    Queries (q, c) and memory (m, c) need not be normalised; ``labels`` (m,) are the memory's. Each
    of ``ks`` is at most m.
    """
    memory = F.normalize(memory, dim=1)
    found = torch.empty(len(ks), len(queries), dtype=torch.int64, device=queries.device)
    chunk = max(SIMILARITIES // len(memory), 1)
    classes = int(labels.max()) + 1
    for first in range(0, len(queries), chunk):
        part = F.normalize(queries[first : first + chunk], dim=1)
        similarity, neighbour = (part @ memory.T).topk(max(ks), 1)
        weight = ((similarity - similarity[:, :1]) / temperature).exp()  # the nearest has 1
        label = labels[neighbour]
        for row, k in enumerate(ks):
            votes = torch.zeros(len(part), classes, device=part.device, dtype=weight.dtype)
            votes.scatter_add_(1, label[:, :k], weight[:, :k])
            found[row, first : first + chunk] = votes.argmax(1)
    return found


def clip(k: int, labels: Tensor) -> int:
    """``k``, but no more than the smallest class in ``labels`` has: others could outvote it."""
    counts = torch.bincount(labels)
    return min(k, int(counts[counts > 0].min()))


@torch.no_grad()
def cross_validated(
    features: Tensor,
    labels: Tensor,
    folds: int,
    k: int,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> tuple[int, Tensor]:
    """kNN over one set of features (n, c) with labels (n,): each fold is classified by the others.

    The folds have each class in equal shares. Returns the neighbours that voted, ``k`` clipped to
    the smallest class that votes in any fold, and True for the images (n,) that were classified
    right. ValueError if a fold would lack a class.
    """
    smallest = clip(len(labels), labels)
    if not 2 <= folds <= smallest:
        raise ValueError(f"{folds} folds of classes that have {smallest} images or more")
    fold = torch.empty_like(labels)
    generator = torch.Generator().manual_seed(seed)
    for label in labels.unique():
        of_class = (labels == label).nonzero()[:, 0]
        shuffled = of_class[torch.randperm(len(of_class), generator=generator)]
        fold[shuffled] = torch.arange(len(shuffled), device=labels.device) % folds
    k = min(clip(k, labels[fold != f]) for f in range(folds))
    found = torch.empty_like(labels)
    for f in range(folds):
        rest = fold != f
        (found[~rest],) = predict(features[~rest], features[rest], labels[rest], (k,), temperature)
    return k, found == labels


class KnnMonitor:
    """kNN accuracy of a backbone while it trains: the validation split against training images.

    A seeded, class-balanced part of ``memory``, ``images`` of it, votes. All processes call the
    monitor together. A UserError if both are the same images, or have other classes.
    """

    def __init__(
        self,
        memory: ImageSource,
        queries: ImageSource,
        image_size: int,
        workers: int,
        world: World,
        images: int,
        seed: int,
    ) -> None:
        check_comparable(memory, queries)
        self.memory = memory.subset(balanced(memory.labels, images, seed))
        self.queries = queries
        warn_of_empty_classes(self.memory, queries)
        self.image_size, self.workers, self.world = image_size, workers, world

    @torch.no_grad()
    def __call__(self, backbone: nn.Module, dtype: torch.dtype | None) -> dict[str, float]:
        """The accuracies; backbone, buffers, modes and random streams are as before.

        The backbone, on the process's device and not wrapped for several processes, gives feature
        maps (b, c, h, w) or vectors (b, c). For k of 20 and 200 there are ``knn<k>_top1`` and its
        95 % interval ``knn<k>_low`` to ``knn<k>_high`` in percent, and ``knn_k<k>``, the neighbours
        that did vote: no more than the memory's smallest class has. The same in every process.
        """
        how = self.image_size, self.workers, self.world, dtype
        with torch.random.fork_rng(devices=[]), buffers_of_rank0(backbone):
            memory = extract(backbone, self.memory, *how)
            queries = extract(backbone, self.queries, *how)
        vectors, labels = gather_rows(memory.vectors), gather_rows(memory.labels)
        if not len(labels):
            raise UserError(f"none of the kNN's images in {self.memory.description} can be read.")
        ks = [clip(k, labels) for k in NEIGHBOURS]
        answers = predict(queries.vectors, vectors, labels, ks)
        correct = (answers == queries.labels).sum(1)
        total = torch.tensor([len(queries.labels)], device=correct.device)
        *right, asked = add_up(torch.cat([correct, total]), self.world).tolist()
        found: dict[str, float] = {"knn_memory": len(labels), "knn_queries": asked}
        for name, k, count in zip(NEIGHBOURS, ks, right, strict=True):
            accuracy = Accuracy(count, asked)
            low, high = accuracy.interval
            found |= {
                f"knn{name}_top1": accuracy.percent,
                f"knn{name}_low": low,
                f"knn{name}_high": high,
                f"knn_k{name}": k,
            }
        return found
