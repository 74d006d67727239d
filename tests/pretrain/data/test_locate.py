"""``--data`` and ``--val-data``: everything they may be, and refusals of the rest."""

import shutil
from pathlib import Path

import pytest
from torchvision.datasets.folder import IMG_EXTENSIONS

from common.errors import UserError
from pretrain.data.images import ImageSource
from pretrain.data.locate import locate, open_images, open_validation
from pretrain.data.shards import IMAGE_SUFFIXES
from tests.pretrain.data.helpers import picture, write_shards


def shards_of(source: ImageSource | None) -> list[str]:
    """Name of each shard, with its folder's."""
    assert source is not None and all(file.endswith(".tar") for file in source.files)
    return ["/".join(Path(file).parts[-2:]) for file in source.files]


def test_suffixes_are_torchvisions() -> None:
    assert set(IMG_EXTENSIONS) == IMAGE_SUFFIXES


def write_image(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(picture(1))


def test_folders_of_classes(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGENET_DIR", raising=False)
    train = demo_root / "imagenet" / "train"
    assert locate(str(demo_root / "imagenet")) == locate(str(train)) == locate("demo") == train
    assert locate("demo", "val") == train.parent / "val"
    with pytest.raises(UserError, match="IMAGENET_DIR"):
        locate(None)
    with pytest.raises(UserError, match="IMAGENET_DIR"):
        open_validation(None, None)
    with pytest.raises(UserError, match="no such folder"):
        locate(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"^--val-data nowhere: no such folder"):
        open_validation("demo", "nowhere")
    with pytest.raises(UserError, match="no image"):
        locate(str(tmp_path))
    monkeypatch.setenv("IMAGENET_DIR", "nowhere")
    with pytest.raises(UserError, match=r"^IMAGENET_DIR nowhere: no such folder"):
        locate(None)
    monkeypatch.setenv("IMAGENET_DIR", str(demo_root / "imagenet"))
    assert locate(None) == train


def test_validation_beside_a_folder(tmp_path: Path, demo_root: Path) -> None:
    imagenet = demo_root / "imagenet"
    for data in ("demo", str(imagenet), str(imagenet / "train")):
        found = open_validation(data, None)
        assert found is not None and found.description == str(imagenet / "val")
    write_image(tmp_path / "train" / "a")
    assert open_validation(str(tmp_path), None) is None
    elsewhere = open_validation(str(tmp_path), str(imagenet))
    assert elsewhere is not None and elsewhere.description == str(imagenet / "val")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("train-{000..002}.tar", ["train-000.tar", "train-001.tar", "train-002.tar"]),
        ("train-{002,000}.tar", ["train-002.tar", "train-000.tar"]),
        ("train-001.tar", ["train-001.tar"]),
        ("", ["train-000.tar", "train-001.tar", "train-002.tar"]),
    ],
)
def test_patterns_a_shard_and_a_folder_of_both_splits(
    tmp_path: Path, data: str, expected: list[str]
) -> None:
    write_shards(tmp_path / "shards", [3, 2, 1], "train")
    write_shards(tmp_path / "shards", [2, 2], "validation")
    given = str(tmp_path / "shards" / data)
    assert shards_of(open_images(given)) == [f"shards/{name}" for name in expected]
    again = str(locate(given))
    assert shards_of(open_images(again)) == shards_of(open_images(given))
    assert locate(again) == locate(given)
    for where in (given, again):
        found = shards_of(open_validation(where, None))
        assert found == ["shards/validation-000.tar", "shards/validation-001.tar"]


@pytest.mark.parametrize("name", ["imagenet", "train", "val"])  # the folders count
def test_folders_of_shards_for_each_split(tmp_path: Path, name: str) -> None:
    write_shards(tmp_path / "train", [2, 1], name)
    write_shards(tmp_path / "val", [1], name)
    for data in (tmp_path, tmp_path / "train", tmp_path / "train" / f"{name}-{{000..001}}.tar"):
        expected = [f"train/{name}-000.tar", f"train/{name}-001.tar"]
        assert shards_of(open_images(str(data))) == expected
        assert shards_of(open_validation(str(data), None)) == [f"val/{name}-000.tar"]
    assert shards_of(open_validation("demo", str(tmp_path))) == [f"val/{name}-000.tar"]


def test_validation_is_only_what_is_recognised(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [2, 1], "part")
    assert open_validation(str(tmp_path), None) is None
    assert len(open_images(str(tmp_path), "val")) == 3  # named by the user for this
    only = write_shards(tmp_path / "other", [2], "val")
    assert open_validation(str(only[0]), None) is None  # that is what it trains on
    assert open_validation(str(shards[0]), None) is None


def test_shards_may_be_links_to_files_of_other_names(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, [2])
    shard.rename(tmp_path / "blob")
    shard.symlink_to("blob")
    assert len(open_images(str(shard))) == len(open_images(str(tmp_path))) == 2


def test_class_folders_come_before_the_tar_files_that_they_were_in(tmp_path: Path) -> None:
    write_image(tmp_path / "n01440764")
    write_shards(tmp_path, [2], "n01440764")
    assert open_images(str(tmp_path)).files == [str(tmp_path / "n01440764" / "1.png")]
    shutil.rmtree(tmp_path / "n01440764")
    assert open_images(str(tmp_path)).files == [str(tmp_path / "n01440764-000.tar")]


def test_missing_shards_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path, [2, 1, 1, 1], "train")
    (tmp_path / "train-001.tar").unlink()
    with pytest.raises(UserError, match=r"1 of the 4 shards .* missing, .* \S+train-001\.tar;"):
        locate(f"{tmp_path}/train-{{000..003}}.tar")
    for pattern in ("eval-{000..003}.tar", "eval.tar", "{a,b}"):
        with pytest.raises(UserError, match="no shard matches"):
            locate(f"{tmp_path}/{pattern}")
    with pytest.raises(UserError, match="brace"):
        locate(f"{tmp_path}/train-{{000..003.tar")
    with pytest.raises(UserError, match="no shard of val images"):
        locate(str(tmp_path), "val")


def test_splits_are_not_taken_for_classes(tmp_path: Path) -> None:
    for name in ("train2017", "val2017", "annotations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    with pytest.raises(
        UserError, match="has no train/, and train2017/ and val2017/ are no classes"
    ):
        locate(str(tmp_path))
    (tmp_path / "val2017").rename(tmp_path / "bus")  # and a class may be called train
    assert locate(str(tmp_path)) == tmp_path
