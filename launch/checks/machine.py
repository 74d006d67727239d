"""Checks of GPUs, and of the disk that runs are written to."""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from common.files import check_writable, nearest
from common.run_checkpoints import KEPT
from launch.checks.check import Check

GB = 1e9
# Types of file systems in /proc/mounts that several machines can see.
SHARED = (
    "9p afs beegfs ceph cifs fhgfs fuse.ceph-fuse fuse.glusterfs fuse.juicefs fuse.sshfs gfs2 "
    "glusterfs gpfs lustre nfs nfs4 ocfs2 orangefs panfs pvfs2 smb3 virtiofs wekafs"
).split()


def gpus(slurm: bool) -> Check:
    """GPUs of this machine: names, memory, bf16 and NCCL."""
    import torch

    if not torch.cuda.is_available():
        if slurm:
            return Check("GPU", "ok", "none on this machine; jobs have those of Slurm's nodes")
        why = "PyTorch is built for CPUs alone" if not torch.version.cuda else "none that CUDA sees"
        return Check("GPU", "warning", f"{why}; only the demo is bearable on CPUs", "nvidia-smi")
    found = Counter(map(_described, range(torch.cuda.device_count())))
    words = [f"{count} x {name}" for name, count in found.items()]
    nccl = "no NCCL"
    if torch.distributed.is_nccl_available():
        nccl = f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}"
    several = sum(found.values()) > 1 and nccl == "no NCCL"
    return Check("GPU", "warning" if several else "ok", ", ".join([*words, nccl]))


def _described(index: int) -> str:
    import torch

    about = torch.cuda.get_device_properties(index)
    with torch.cuda.device(index):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return (
        f"{about.name} ({about.total_memory / 2**30:.0f} GiB, compute capability "
        f"{about.major}.{about.minor}, {'bf16' if bf16 else 'no bf16: fp16'})"
    )


def disk(output_dir: Path, needs: dict[str, int]) -> Check:
    """Free space for runs; ``needs`` are the bytes of a checkpoint of each."""
    check_writable(output_dir / "runs")
    free = shutil.disk_usage(nearest(output_dir)).free
    copies = KEPT + 1  # one more while it is written
    total = copies * sum(needs.values())
    sizes = " + ".join(f"{copies} x {size / GB:.2f} GB ({name})" for name, size in needs.items())
    found = (
        f"{free / GB:.0f} GB free in {output_dir.resolve()}; checkpoints take {total / GB:.1f} GB: "
        f"{sizes}, counted from the models' tensors and their optimizers'"
    )
    if free < total:
        mend = "df -h, and --output-dir FOLDER on a larger disk"
        return Check("disk", "missing", found, mend, needed=True)
    return Check("disk", "ok", found)


def size_of_pretraining() -> int:
    """Bytes of a checkpoint of LEWEL_B with a ResNet-50: both networks, and LARS's momentum."""
    import torch

    from pretrain.lewel import LEWEL

    with torch.device("meta"):
        return size_of(LEWEL())


def size_of_transfer(cfg: Any) -> int:
    """Bytes of a checkpoint of a Detectron2 config's model and of SGD's momentum."""
    from detectron2.modeling import build_model

    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    return size_of(build_model(cfg))


def size_of(model: Any) -> int:
    """Bytes of a model's tensors and, for those that learn, of a momentum."""
    momentum = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return momentum + sum(value.nbytes for value in model.state_dict().values())


def shared(name: str, folder: Path) -> Check:
    """The kind of file system of a folder that the nodes of a cluster must share."""
    place = os.path.realpath(nearest(folder))
    kind = _file_system(place)
    if kind in SHARED:
        return Check(name, "ok", f"{place} is on {kind}, which nodes can share")
    found = f"{place} is on {kind}, which is this machine's alone as far as its name tells"
    return Check(name, "warning", found, f"srun -N1 ls {place}    # does a node see it?")


def _file_system(place: str) -> str:
    """The type of the file system that a path is on, as the kernel calls it."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    mounts = [(line.split()[1].replace("\\040", " "), line.split()[2]) for line in lines]
    inside = [(len(point), kind) for point, kind in mounts if _is_in(place, point)]
    return max(inside, key=lambda one: one[0])[1] if inside else "an unknown file system"


def _is_in(place: str, point: str) -> bool:
    return place == point or place.startswith(point.rstrip("/") + "/")
