"""What a network starts from, as jobs are told and results tables keep it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """A pre-trained backbone, or a random one.

    Attributes:
        architecture: torchvision's name of the ResNet; "" where it is not known.
        path: the file that a job reads; "" for a random initialisation.
        sha256: of the file that the user named; "" for a random initialisation.
        method: pre-training method, for the results table.
        norm: norm of the pre-training.
        epochs: epochs of the pre-training; None where unknown.
        recipe: what of a pre-training of ours is not as in the run with the published figures; ""
            if nothing is, or for a stranger's.
    """

    architecture: str = ""
    path: str = ""
    sha256: str = ""
    method: str = "random"
    norm: str = ""
    epochs: int | None = None
    recipe: str = ""
