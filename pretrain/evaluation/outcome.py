"""What a finished evaluation says of itself: the row of the results table."""

from typing import Any

from pretrain.data.locate import DEMO
from pretrain.evaluation.accuracy import Accuracy
from pretrain.evaluation.checkpoint import Progress
from pretrain.evaluation.config import ClassifierConfig
from pretrain.evaluation.splits import Splits


def final_metrics(config: ClassifierConfig, splits: Splits, progress: Progress) -> dict[str, Any]:
    """Accuracies after the last epoch, never the best of all epochs, and what they are of.

    Accuracies are in percent; ``top1_low`` to ``top1_high`` is the 95 % Wilson interval.
    """
    top1 = Accuracy(progress.top1, progress.evaluated)
    low, high = top1.interval
    return {
        "kind": config.kind,
        "method": config.weights.method,
        "norm": config.weights.norm,
        "pretrain_epochs": config.weights.epochs,
        "pretrain_recipe": config.weights.recipe or None,
        "architecture": config.weights.architecture,
        "percent": config.percent,
        "subset": splits.subset,
        **config.rates,
        "weight_decay": config.weight_decay,
        "batch_size": config.batch_size,
        "epochs": config.epochs,
        "image_size": config.image_size,
        "seed": config.seed,
        "top1": top1.percent,
        "top1_low": low,
        "top1_high": high,
        "top5": Accuracy(progress.top5, progress.evaluated).percent,
        "loss": progress.loss,
        "images_train": len(splits.training),
        "images_val": progress.evaluated,
        "unreadable_images": progress.unreadable + progress.unreadable_val,
        "weights_sha256": config.weights.sha256,
        "wall_time_s": round(progress.seconds, 1),
        "data": config.data,
        "demo": config.data == DEMO,
    }
