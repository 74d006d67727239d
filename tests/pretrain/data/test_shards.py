"""Contents of shards: labels, refusals of damaged ones, and the cache of the headers."""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import webdataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import UserError
from pretrain.data import shards as shard_index
from pretrain.data.images import from_shards
from pretrain.data.shards import Contents, read_index, scan
from tests.pretrain.data.helpers import picture, sample, write_shards, write_tar


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of four samples."""
    return write_shards(tmp_path_factory.mktemp("whole"), [4])[0]


def write_members(shard: Path, members: dict[str, bytes]) -> Path:
    """A tar file of these members, without WebDataset."""
    with tarfile.open(shard, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return shard


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ({"cls": b"17"}, 17),
        ({"cls": b" 17\n"}, 17),
        ({"json": b'{"label": 3, "height": 20}'}, 3),
        ({"json": b'{"label": 3}', "cls": b"4"}, 4),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp"])
def test_a_sample_is_an_image_and_its_class(
    tmp_path: Path, label: dict[str, bytes], expected: int, suffix: str
) -> None:
    members = {f"./n01/a_1.{kind}": data for kind, data in label.items()}
    members |= {f"./n01/a_1.{suffix}": picture(1), "./n01/a_1.txt": b"a fish"}
    members |= {"readme.txt": b"", "__meta__": b"", "no-suffix": b""}
    contents = scan(write_members(tmp_path / "s.tar", members))
    assert (contents.keys, contents.labels) == (["./n01/a_1"], [expected])
    assert from_shards([tmp_path / "s.tar"]).names == ["a_1"]


PARTS = (
    st.sampled_from(["", "./", "a/", "__a__/", "__a/"]),
    st.sampled_from(["a", "b", "__a__"]),
    st.sampled_from([".jpg", ".PNG", ".cls", ".txt", ".b.jpg", "."]),
)
NAMES = st.tuples(*PARTS).map("".join)


@settings(deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=8, unique=True))
@example(names=["./b.cls", "a.", "./b.jpg"])
def test_samples_are_webdatasets(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    """All members say 5, so that every sample with a class has that one."""
    shard = write_members(tmp_path_factory.mktemp("s") / "s.tar", dict.fromkeys(names, b"5"))
    try:
        found = list(webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False))
    except ValueError:
        with pytest.raises(UserError, match="twice"):
            scan(shard)
        return
    images = [s for s in found if "jpg" in s or "png" in s]
    keys = [s["__key__"] for s in images]
    if not images or any("cls" not in s for s in images) or len(set(keys)) < len(keys):
        with pytest.raises(UserError):
            scan(shard)
    else:
        contents = scan(shard)
        assert contents.keys == keys and set(contents.labels) == {5}
        where = zip(contents.offsets, contents.sizes, strict=True)
        assert {shard.read_bytes()[o : o + size] for o, size in where} == {b"5"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": b"", "a.cls": b"1", "b.jpg": b""}, r"s\.tar: no class of sample b;"),
        ({"a.jpg": b"", "a.cls": b"cat"}, r"s\.tar: no class of sample a;"),
        ({"a.jpg": b"", "a.json": b"{}"}, r"s\.tar: no class of sample a;"),
        ({"a.jpg": b"", "a.json": b"[3]"}, r"s\.tar: no class of sample a;"),
        ({"a.jpg": b"", "a.cls": b"-1"}, r"s\.tar: the class of sample a is -1"),
        ({"a.txt": b"", "a.cls": b"1"}, r"s\.tar has no images"),
        ({}, r"s\.tar has no images"),
        ({"a.jpg": b"", "a.cls": b"1", "b.cls": b"1", "a.png": b""}, "class of sample a"),
        ({"a.jpg": b"", "a.JPG": b"", "a.cls": b"1"}, r"s\.tar has a\.jpg twice"),
        (
            {"a.jpg": b"", "a.cls": b"1", "b.cls": b"1", "a.png": b"", "a.json": b'{"label":1}'},
            r"s\.tar has two samples a,",
        ),
    ],
)
def test_a_sample_without_an_image_or_class_is_named(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        scan(write_members(tmp_path / "s.tar", members))


@given(data=st.data())
def test_a_shard_cut_anywhere_is_refused(whole: Path, data: st.DataObject) -> None:
    content = whole.read_bytes()
    end = len(content.rstrip(b"\0"))
    end += -end % 512  # of the last member; an end mark must follow
    cut = data.draw(st.one_of(st.integers(0, end), st.integers(0, end // 512).map((512).__mul__)))
    part = whole.with_name("cut.tar")
    part.write_bytes(content[:cut])
    with pytest.raises(UserError, match=r"cut\.tar is not a whole tar file"):
        scan(part)


@pytest.mark.parametrize("content", [b"", b"a text\n" * 500])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"s\.tar is not a whole tar file"):
        scan(tmp_path / "s.tar")


def test_class_names(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [4])
    assert from_shards(shards).classes == ["0", "1", "2", "3"]
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\nshark\nray\nhen\n")
    assert from_shards(shards).classes == ["tench", "goldfish", "shark", "ray", "hen"]
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\nshark")
    with pytest.raises(UserError, match=r"classes\.txt has 3 lines for 4 classes"):
        from_shards(shards)


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mock.Mock]:
    """``shards.scan``, counted, without a cache of before."""
    monkeypatch.setenv("LEWEL_CACHE", str(tmp_path / "cache"))
    with mock.patch.object(shard_index, "scan", wraps=scan) as counted:
        yield counted


def test_the_headers_are_read_once(tmp_path: Path, scans: mock.Mock) -> None:
    shards = write_shards(tmp_path / "data", [3, 2])
    first = read_index(shards)
    assert scans.call_count == 2
    assert [part.labels for part in first] == [[0, 1, 2], [3, 4]]
    assert [type(part) for part in read_index(shards)] == [Contents, Contents]
    assert read_index(shards) == first and scans.call_count == 2
    assert len(read_index(shards[:1])) == 1 and scans.call_count == 3  # another data set


def test_another_shard_in_the_same_place_is_read(tmp_path: Path, scans: mock.Mock) -> None:
    (shard,) = write_shards(tmp_path / "data", [3])
    read_index([shard])
    before = shard.stat()
    write_tar(shard, [sample(n) for n in (4, 3, 2)])
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert shard.stat().st_size == before.st_size
    assert read_index([shard])[0].labels == [4, 3, 2] and scans.call_count == 2
    write_tar(shard, [sample(n) for n in range(20)])
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert len(read_index([shard])[0].labels) == 20 and scans.call_count == 3


@pytest.mark.parametrize("content", ["", "[[1, 2", "[3]", json.dumps({"a": 1})])
def test_a_broken_cache_is_replaced(tmp_path: Path, scans: mock.Mock, content: str) -> None:
    shards = write_shards(tmp_path / "data", [3])
    expected = read_index(shards)
    (file,) = (tmp_path / "cache" / "shards").glob("*.json")
    file.write_text(content)
    assert read_index(shards) == expected == read_index(shards)
    assert scans.call_count == 2


def test_a_shard_that_went_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.tar cannot be read"):
        read_index([tmp_path / "gone.tar"])
