"""The weights that a network starts from, as jobs are told and results tables keep them."""

import os
from dataclasses import dataclass, replace
from typing import Any

from common.errors import UserError
from common.files import sha256


@dataclass(frozen=True)
class Weights:
    """A pre-trained backbone, or a random one."""

    architecture: str = ""  # torchvision's name of the ResNet, where it is known
    path: str = ""  # "" for a random initialisation
    sha256: str = ""  # of the file; "" while a pre-training has yet to leave it
    method: str = "random"
    norm: str = ""  # of the pre-training
    epochs: int | None = None  # of the pre-training, where they are known
    recipe: str = ""  # differences of a pre-training of ours from the one with published figures
    run: str = ""  # name of our pre-training run that leaves them

    @property
    def name(self) -> str:
        """The part of a run's name that tells the weights, known before they are there.

        >>> Weights(path="p", sha256="0123456789abcdef").name
        '01234567'
        >>> Weights(path="p", run="lewel_b-eman", epochs=200).name
        'lewel_b-eman@200'
        """
        if not self.path:
            return "random"
        return f"{self.run}@{self.epochs}" if self.run else self.sha256[:8]

    def identity(self) -> dict[str, Any]:
        """The fields that tell one run's weights from another's."""
        return {"weights": self.name, "weights_sha256": self.sha256}

    def settled(self) -> "Weights":
        """The same with the SHA-256 of the file, which must be there by now.

        A UserError if another SHA-256 is known already.
        """
        if not self.path:
            return self
        if not os.path.isfile(self.path):
            raise UserError(f"the weights {self.path} are not there; type the command again.")
        found = sha256(self.path)
        if self.sha256 not in ("", found):
            raise UserError(
                f"the weights {self.path} were changed after the command had read them (SHA-256 "
                f"{found[:8]}, not {self.sha256[:8]}); type the command again."
            )
        return replace(self, sha256=found)
