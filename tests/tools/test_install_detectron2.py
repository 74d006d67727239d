"""The Detectron2 installer: patches, the wheel it writes, and the Detectron2 that comes of it."""

import base64
import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torchvision
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load_tool(name: str) -> ModuleType:
    """Load a tool from its path, as running it would (its own folder comes first)."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


patches = load_tool("detectron2_patches")
wheels = load_tool("detectron2_wheel")
installer = load_tool("install_detectron2")
Patch, PatchError = patches.Patch, patches.PatchError


# --- patches ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"), [("np.bool", 0), ("np.bool", 2), ("bool", 1), ("np.bool, np.bool", 1)]
)
def test_patch_refuses_any_other_number_of_matches(text: str, count: int) -> None:
    with pytest.raises(PatchError, match=r"a/b\.py: expected 'np\.bool' \d times but found it \d"):
        Patch("a/b.py", "np.bool", "bool", count)(text)


def test_patch_replaces_every_expected_match() -> None:
    assert Patch("a.py", "np.bool)", "bool)", 2)("f(np.bool), g(np.bool)") == "f(bool), g(bool)"


def test_apply_patches_changes_only_the_named_files_and_says_so() -> None:
    files = {"a.py": b"x = old\n", "b.py": b"y = old\n"}
    result = patches.apply_patches(files, [Patch("a.py", "old", "new")], {"c.py": "z = 1\n"})
    assert result["a.py"].startswith(b"x = new\n") and b"# Modified by" in result["a.py"]
    assert result["b.py"] == files["b.py"] and result["c.py"] == b"z = 1\n"
    assert files["a.py"] == b"x = old\n"


@pytest.mark.parametrize(
    ("patch_list", "added", "message"),
    [
        ([Patch("gone.py", "a", "b")], {}, r"gone\.py: not in the source"),
        ([Patch("a.py", "nowhere", "b")], {}, r"a\.py: expected 'nowhere' 1 times"),
        ([], {"a.py": ""}, r"a\.py: already in the source"),
    ],
)
def test_apply_patches_refuses_an_unknown_source(patch_list, added, message: str) -> None:
    with pytest.raises(PatchError, match=message):
        patches.apply_patches({"a.py": b"x = 1\n"}, patch_list, added)


def test_requirements_are_dropped_relaxed_or_missed_loudly() -> None:
    changes = {"black==21.4b2": None, "iopath<0.1.10,>=0.1.7": "iopath>=0.1.7"}
    stated = ["yacs>=0.1.8", "black==21.4b2", "iopath<0.1.10,>=0.1.7"]
    assert patches.change_requirements(stated, changes) == ["yacs>=0.1.8", "iopath>=0.1.7"]
    with pytest.raises(PatchError, match=r"expected black==21\.4b2"):
        patches.change_requirements(["yacs>=0.1.8", "iopath<0.1.10,>=0.1.7"], changes)


# --- reading the archive ----------------------------------------------------------------------


def tarball(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_read_sdist_strips_the_top_folder() -> None:
    archive = tarball((tarfile.TarInfo("pkg-0.6/detectron2/a.py"), b"a"))
    assert wheels.read_sdist(archive) == {"detectron2/a.py": b"a"}


@pytest.mark.parametrize(
    "info",
    [
        tarfile.TarInfo("pkg/../../etc/passwd"),
        tarfile.TarInfo("/etc/passwd"),
        link("pkg/a.py", "/etc/passwd"),
    ],
    ids=["parent", "absolute", "link"],
)
def test_read_sdist_refuses_members_that_leave_the_archive(info: tarfile.TarInfo) -> None:
    with pytest.raises(PatchError, match="not a plain file inside the archive"):
        wheels.read_sdist(tarball((info, b"")))


def test_read_sdist_refuses_a_bomb(monkeypatch) -> None:
    monkeypatch.setattr(wheels, "_MAX_BYTES", 10)
    with pytest.raises(PatchError, match="unpacks to more than 10 bytes"):
        wheels.read_sdist(tarball((tarfile.TarInfo("pkg/a"), b"12345678901")))


# --- the wheel --------------------------------------------------------------------------------


def check_record(path: Path) -> None:
    """Check RECORD as the binary distribution format states it, with nothing of the tool's own."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(names) == len(set(names))
        record_name = next(name for name in names if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(io.StringIO(archive.read(record_name).decode())))
        assert sorted(row[0] for row in rows) == sorted(names)
        for name, digest, size in rows:
            if name == record_name:
                assert (digest, size) == ("", "")
                continue
            content = archive.read(name)
            algorithm, _, value = digest.partition("=")
            expected = hashlib.new(algorithm, content).digest()
            assert base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)) == expected
            assert int(size) == len(content)


def test_wheel_is_one_that_pip_installs(tmp_path: Path) -> None:
    files = {"detectron2/__init__.py": b"x = 1\n", "detectron2/data/a.yaml": b"a: 1\n"}
    path = tmp_path / wheels.WHEEL_NAME
    path.write_bytes(wheels.wheel_bytes(files, ["yacs>=0.1.8"], "abc"))
    check_record(path)
    name, version, _, tags = parse_wheel_filename(path.name)
    assert (name, str(version), {str(tag) for tag in tags}) == (
        "detectron2",
        "0.6",
        {"py3-none-any"},
    )
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, "--target", str(target), str(path)], check=True)
    (installed,) = importlib.metadata.distributions(path=[str(target)])
    assert (installed.name, installed.version) == ("detectron2", "0.6")
    assert installed.requires == ["yacs>=0.1.8"]
    assert (target / "detectron2/data/a.yaml").read_bytes() == b"a: 1\n"


def test_equal_contents_make_equal_wheels() -> None:
    first = wheels.wheel_bytes({"b.py": b"1", "a.py": b"2"}, [], "t")
    assert first == wheels.wheel_bytes({"a.py": b"2", "b.py": b"1"}, [], "t")


@pytest.fixture(scope="module")
def real_wheel() -> Path:
    path = installer.CACHE / wheels.tool_tag() / wheels.WHEEL_NAME
    if not path.is_file():
        pytest.skip(f"{path} is not there: the set-up keeps another Detectron2, or was not run")
    return path


def test_real_wheel_has_a_true_record(real_wheel: Path) -> None:
    check_record(real_wheel)


def test_real_wheel_has_what_an_ordinary_install_has(real_wheel: Path) -> None:
    with zipfile.ZipFile(real_wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"detectron2", "detectron2-0.6.dist-info"}
    assert {
        "detectron2/model_zoo/configs/Base-RCNN-C4.yaml",
        "detectron2/model_zoo/configs/common/optim.py",
        "detectron2/projects/point_rend/point_head.py",
        "detectron2/projects/deeplab/resnet.py",
        "detectron2/projects/panoptic_deeplab/panoptic_seg.py",
        "detectron2-0.6.dist-info/LICENSE",
    } <= names
    assert not [name for name in names if name.endswith((".pyc", ".cpp", ".so"))]


def test_real_wheel_states_requirements_that_hold_today(real_wheel: Path) -> None:
    with zipfile.ZipFile(real_wheel) as archive:
        text = archive.read("detectron2-0.6.dist-info/METADATA").decode()
        generator = archive.read("detectron2-0.6.dist-info/WHEEL").decode()
    stated = Parser().parsestr(text).get_all("Requires-Dist", [])
    requirements = {r.name.lower(): r for r in map(Requirement, stated)}
    assert set(requirements) == set(
        "pillow matplotlib pycocotools termcolor yacs tabulate cloudpickle tqdm tensorboard "
        "fvcore iopath omegaconf hydra-core".split()
    )
    assert requirements["iopath"].specifier.contains("0.1.10")
    assert f"({wheels.tool_tag()})" in generator


def test_real_wheel_has_none_of_the_removed_names(real_wheel: Path) -> None:
    removed = [f"np.{name}{end}" for name in ("bool", "int", "float", "str") for end in "),"]
    removed += ["Image.LINEAR", "pkg_resources", "torch.cuda.amp", "from detectron2 import _C\n\n"]
    with zipfile.ZipFile(real_wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                text = archive.read(name).decode()
                compile(text, name, "exec")
                found = [old for old in removed if old in text.replace("# difficult = np", "")]
                assert name.endswith("fast_eval_api.py") or not found, name


# --- the command ------------------------------------------------------------------------------


def test_wrong_hash_is_one_sentence_and_status_2(monkeypatch, tmp_path: Path, capsys) -> None:
    archive = tarball((tarfile.TarInfo("pkg/a"), b"not Detectron2"))

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if "--download" in command:
            folder = Path(command[command.index("--download") + 1])
            (folder / "pb1-detectron2-0.6.tar.gz").write_bytes(archive)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(installer.subprocess, "run", download)
    monkeypatch.setattr(installer, "ensure", lambda *_: installer.cached_wheel(tmp_path))
    assert installer.main([]) == 2
    error = capsys.readouterr().err
    assert hashlib.sha256(archive).hexdigest() in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_no_network_names_the_reason(monkeypatch, tmp_path: Path) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nConnectError: refused\n")

    monkeypatch.setattr(installer.subprocess, "run", fail)
    with pytest.raises(installer.InstallError, match=r"ConnectError: refused.*check the net"):
        installer.cached_wheel(tmp_path)


def test_missing_unearth_names_the_remedy(monkeypatch) -> None:
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(installer.InstallError, match="-m pip install unearth"):
        installer.fetch_sdist()


def test_changed_source_is_refused(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installer, "fetch_sdist", lambda: tarball((tarfile.TarInfo("p/a"), b"")))
    with pytest.raises(installer.InstallError, match=r"cannot patch .*: not in the source"):
        installer.cached_wheel(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wheel_is_packed_once(monkeypatch, tmp_path: Path) -> None:
    fetches: list[bytes] = []

    def fetch() -> bytes:
        fetches.append(b"sdist")
        return b"sdist"

    monkeypatch.setattr(installer, "fetch_sdist", fetch)
    monkeypatch.setattr(installer, "repack", lambda sdist, tag: b"wheel")
    first = installer.cached_wheel(tmp_path)
    assert first.read_bytes() == b"wheel" and first == installer.cached_wheel(tmp_path)
    assert len(fetches) == 1 and [p.name for p in tmp_path.iterdir()] == [wheels.tool_tag()]


def test_fetch_uses_the_index_of_pip(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "mirror.example")
    command = installer.fetch_command(tmp_path, installer.pip_options())
    assert command[command.index("--index-url") + 1] == "https://mirror.example/simple"
    assert command[command.index("--trusted-host") + 1] == "mirror.example"
    assert "--index-url" not in installer.fetch_command(tmp_path, {})


def test_git_source_is_built_before_anything_is_removed(monkeypatch) -> None:
    """The repository cannot be reached in a test: this checks the order of pip's commands only."""
    calls = []

    def pip(*arguments: str) -> None:
        calls.append(arguments)
        if arguments[0] == "wheel":
            folder = Path(arguments[arguments.index("--wheel-dir") + 1])
            (folder / "detectron2-0.6-cp311-cp311-linux_x86_64.whl").touch()

    monkeypatch.setattr(installer, "run_pip", pip)
    monkeypatch.setattr(installer, "is_installed", lambda: True)
    installer.install("git", "abc123")
    assert [call[0] for call in calls] == ["wheel", "uninstall", "install"]
    assert calls[0][-1] == "git+https://github.com/facebookresearch/detectron2@abc123"
    assert calls[2][-1].endswith("detectron2-0.6-cp311-cp311-linux_x86_64.whl")


# --- the installed Detectron2 -----------------------------------------------------------------


@pytest.fixture(scope="module")
def repacked() -> None:
    if installer.installed_tag() is None:
        pytest.skip("the installed Detectron2 is not the repacked one")


def test_keeps_what_is_installed(repacked) -> None:
    assert installer.installed_tag() == wheels.tool_tag(), "run tools/install_detectron2.py"
    state = installer.ensure("index", installer.COMMIT)
    assert state.startswith("keeping Detectron2 0.6 (without compiled operators) at ")


def test_mask_rcnn_layers_are_torchvisions(repacked) -> None:
    from detectron2.layers import ROIAlign, batched_nms

    features, boxes = torch.rand(2, 4, 16, 16), torch.tensor([[0, 1, 2, 9, 9], [1, 0, 0, 5, 7]])
    ours = ROIAlign((7, 7), 0.5, 2, aligned=True)(features, boxes.float())
    theirs = torchvision.ops.roi_align(features, boxes.float(), (7, 7), 0.5, 2, aligned=True)
    assert torch.equal(ours, theirs)
    xyxy = torch.tensor([[0, 0, 10, 10], [1, 1, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30]]).float()
    keep = batched_nms(xyxy, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 1, 1]), 0.5)
    assert keep.tolist() == [0, 2, 3]


def test_compiled_operators_fail_only_when_used(repacked) -> None:
    import copy

    from detectron2.layers import DeformConv
    from detectron2.layers.rotated_boxes import pairwise_iou_rotated

    copy.deepcopy(DeformConv(4, 4, 3))
    boxes = torch.tensor([[5.0, 5.0, 4.0, 4.0, 30.0]])
    with pytest.raises(ImportError, match=r"detectron2\._C\.box_iou_rotated is not available"):
        pairwise_iou_rotated(boxes, boxes)


def test_evaluation_falls_back_to_pycocotools(repacked) -> None:
    from detectron2.evaluation import coco_evaluation
    from pycocotools.cocoeval import COCOeval

    assert coco_evaluation.COCOeval_opt is COCOeval


def test_model_zoo_finds_its_configs(repacked) -> None:
    from detectron2 import model_zoo

    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml")
    assert cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads" and cfg.SOLVER.BASE_LR == 0.02
    with pytest.raises(RuntimeError, match="not available in Model Zoo"):
        model_zoo.get_config_file("COCO-Detection/nothing.yaml")


def test_semantic_segmentation_evaluator_by_hand(repacked, tmp_path: Path) -> None:
    """Two classes, 8 pixels: IoU 2/3 and 5/6 (one pixel of class 0 predicted as class 1)."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator
    from PIL import Image

    truth = np.array([[0, 0, 0, 1], [1, 1, 1, 1]], dtype=np.uint8)
    guess = np.array([[0, 0, 1, 1], [1, 1, 1, 1]])
    Image.fromarray(truth).save(tmp_path / "truth.png")
    name = "test_install_detectron2_sem_seg"
    entry = {"file_name": "image.jpg", "sem_seg_file_name": str(tmp_path / "truth.png")}
    DatasetCatalog.register(name, lambda: [entry])
    try:
        MetadataCatalog.get(name).set(stuff_classes=["a", "b"], ignore_label=255)
        evaluator = SemSegEvaluator(name, distributed=False)
        evaluator.reset()
        scores = torch.nn.functional.one_hot(torch.from_numpy(guess)).permute(2, 0, 1).float()
        evaluator.process([entry], [{"sem_seg": scores}])
        result = evaluator.evaluate()["sem_seg"]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert result["IoU-a"] == pytest.approx(200 / 3) and result["IoU-b"] == pytest.approx(500 / 6)
    assert result["mIoU"] == pytest.approx(75.0) and result["pACC"] == pytest.approx(87.5)


def test_mask_rcnn_trains_and_predicts(repacked) -> None:
    """One step and one prediction, of a small Mask R-CNN FPN."""
    from detectron2 import model_zoo
    from detectron2.modeling import build_model
    from detectron2.structures import Boxes, Instances, PolygonMasks
    from detectron2.utils.events import EventStorage

    torch.manual_seed(0)
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    cfg.merge_from_list(
        "MODEL.DEVICE cpu MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 "
        "MODEL.RESNETS.NORM BN MODEL.RPN.POST_NMS_TOPK_TEST 20 MODEL.RPN.POST_NMS_TOPK_TRAIN 20 "
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16 MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0".split()
    )
    model = build_model(cfg)
    truth = Instances((96, 128))
    truth.gt_boxes = Boxes(torch.tensor([[20.0, 30.0, 90.0, 80.0]]))
    truth.gt_classes = torch.tensor([3])
    truth.gt_masks = PolygonMasks([[np.array([20.0, 30, 90, 30, 90, 80, 20, 80])]])
    image = {"image": torch.rand(3, 96, 128) * 255, "instances": truth, "height": 96, "width": 128}
    with EventStorage(0):
        losses = model([image])
        sum(losses.values()).backward()
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    gradient = model.backbone.bottom_up.res4[0].conv1.weight.grad
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    model.eval()
    with torch.no_grad():
        predicted = model([image])[0]["instances"]
    assert predicted.image_size == (96, 128) and predicted.pred_masks.shape[1:] == (96, 128)
