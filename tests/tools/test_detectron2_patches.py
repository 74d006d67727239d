"""What is changed in the sources of Detectron2 0.6, and that nothing else is."""

import pytest

import detectron2_patches as patches
from detectron2_patches import Patch, PatchError


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
