"""Checkpoints of strangers: tensors beside objects of any class are read, and nothing is run."""

import collections
import contextlib
import enum
import io
import os
import pickle
import random
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from common import checkpoints
from common.backbones import read_backbone
from common.checkpoints import StandIn, Unpickler
from common.errors import UserError
from tests.common.writers import numbered

SMALL = numbered("resnet18")
STATE = {"w": torch.arange(6.0).view(2, 3), "half": torch.ones(2).half(), "n": torch.tensor(3)}
SAVED: list[dict[str, Any]] = [
    {},
    {"_use_new_zipfile_serialization": False},
    {"pickle_protocol": 4},
]


class Options(dict[str, Any]):
    """A dict with more, as of Lightning, addict and mmengine."""

    class Kind(enum.Enum):  # a nested class, which old protocols name by getattr
        ONE = 1

    class Plain: ...


class Names(list[Any]): ...


class HistoryBuffer:
    """mmengine's holds arrays, and its own methods by name."""

    def __init__(self) -> None:
        self._log_history, self._count_history = np.array([0.5, 0.25]), np.array([1, 1])

    def mean(self) -> None: ...

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"statistics_methods": {"mean": HistoryBuffer.mean}}


def history() -> HistoryBuffer:
    name = "mmengine.logging.history_buffer"
    HistoryBuffer.__module__ = HistoryBuffer.mean.__module__ = name
    module = types.ModuleType(name)
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    sys.modules[name] = sys.modules["mmengine.logging"] = sys.modules["mmengine"] = module
    return HistoryBuffer()


OBJECTS: dict[str, Any] = {
    "mmengine": lambda: {"log_scalars": OrderedDict(loss=history()), "runtime_info": {"lr": 0.1}},
    "Hydra": lambda: OmegaConf.create({"optimizer": {"lr": 0.1, "steps": [1, {"a": "${x}"}]}}),
    "NumPy's random numbers": lambda: (np.random.get_state(), np.random.default_rng(0)),
    "a RandomState": lambda: np.random.RandomState(0),
    "Python's random numbers": lambda: random.getstate(),
    "a NumPy number": lambda: np.float64(71.9),
    "paths": lambda: {PurePosixPath("a"): Path("/b"), "many": {Path("c")}},
    "containers": lambda: (
        collections.defaultdict(dict, a={1: 2}), collections.deque([1, 2]), frozenset([3]), {4},
        collections.Counter("abc"), Options(a=1, b=Options()), Names([1, 2]), b"bytes", 1j,
    ),
    "nested classes": lambda: [Options.Kind.ONE, Options.Plain(), Options.Plain],
    "methods": lambda: [Options(a=1).get, OrderedDict(a=1).get, torch.nn.ReLU().forward],
    "other tensors": lambda: [
        torch.zeros(2, dtype=torch.float8_e4m3fn), torch.nn.Parameter(torch.zeros(2)),
        torch.zeros(2, dtype=torch.uint16), torch.UntypedStorage(3), torch.float32,
        torch.Size([1]), torch.device("cpu"),
    ],
    "a model": lambda: torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()),
}  # fmt: skip


@pytest.mark.parametrize("how", SAVED, ids=["zip", "legacy", "protocol 4"])
@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4", "ignore:.*source code of class")
def test_tensors_beside_objects_of_any_class_are_read(
    name: str, how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for module in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
            patch.setitem(sys.modules, module, types.ModuleType(module))
        content = {"before": OBJECTS[name](), "state_dict": OrderedDict(STATE), "epoch": 7}
        # What legacy files cannot have: storages without a type.
        if name == "other tensors" and not how.get("_use_new_zipfile_serialization", True):
            content["before"] = content["before"][1:2]
        torch.save(content | {"after": [Path("x")]}, tmp_path / "c.pth", **how)
    assert "mmengine" not in sys.modules
    loaded = checkpoints.load(tmp_path / "c.pth")
    assert loaded["epoch"] == 7 and loaded["state_dict"].keys() == STATE.keys()
    for key, tensor in STATE.items():
        found = loaded["state_dict"][key]
        assert found.dtype == tensor.dtype and torch.equal(found, tensor)
    assert isinstance(loaded["after"][0], StandIn)


def test_numpy_1s_spelling_of_a_number_is_read(tmp_path: Path) -> None:
    path, state = tmp_path / "release.pth.tar", {"w": torch.arange(6.0).view(2, 3)}
    content = {"epoch": 7, "best_acc1": np.float64(71.9), "state_dict": state}
    torch.save(content, path, _use_new_zipfile_serialization=False)  # which has the name inline
    data = path.read_bytes()
    assert data.count(b"cnumpy._core.multiarray\n") == 1
    path.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    loaded = checkpoints.load(path)
    assert isinstance(loaded["best_acc1"], StandIn) and loaded["epoch"] == 7
    assert torch.equal(loaded["state_dict"]["w"], state["w"])


def payloads(folder: Path) -> dict[str, bytes]:
    """Pickles that make a folder when they are loaded as pickles are."""
    made = repr(str(folder)).encode()
    name = b"(S" + made + b"\ntR"
    code = b"(S\"__import__('os').mkdir(" + made + b')"\ntR'
    imported = b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'mkdir'\ntR"
    return {
        "os": b"cos\nmkdir\n" + name,
        "eval": b"cbuiltins\neval\n" + code,
        "getattr": imported + name,
        "inst": b"(S" + made + b"\nios\nmkdir\n",
        "obj": b"(cos\nmkdir\nS" + made + b"\no",
        "newobj": b"cpathlib\nPath\n(S" + made + b"\nt\x81(dcos\nmkdir\n" + name + b"0b",
        "stack global": b"\x8c\x02os\x8c\x05mkdir\x93" + name,
        "qualified": b"\x8c\x07pathlib\x8c\x0aPath.mkdir\x93(cpathlib\nPath\n" + name + b"tR",
        "state": b"ccommon.checkpoints\nStandIn\n)\x81(S'state'\ncos\nmkdir\n" + name + b"db",
        "through torch": b"ctorch._utils\n_rebuild_tensor\n(cos\nmkdir\n" + name + b"I0\n(t(ttR",
    }


def put(path: Path, payload: bytes, zipped: bool) -> None:
    """A file of torch.save's, with this among its objects."""
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    insert = b"\x80\x04(S'evil'\n" + payload + b"S'state'\n}d."
    if not zipped:
        head = b"".join(
            pickle.dumps(part, 2)
            for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        )
        path.write_bytes(head + insert + pickle.dumps([], 2))
        return
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, insert if name.endswith("/data.pkl") else data)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", payloads(Path()))
def test_code_in_a_checkpoint_is_not_run(name: str, zipped: bool, tmp_path: Path) -> None:
    path, made = tmp_path / "bad.pth", tmp_path / "made"
    with contextlib.suppress(AttributeError):  # as a pickle, it runs
        pickle.loads(b"\x80\x04" + payloads(made)[name] + b".")
    made.rmdir()
    put(path, payloads(made)[name], zipped)
    loaded = checkpoints.load(path)
    assert isinstance(loaded["evil"], StandIn) and loaded["state"] == {}
    with pytest.raises(UserError, match=r"bad\.pth (holds more than tensors|is not a readable)"):
        checkpoints.load(path, plain=True)
    assert not made.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize(
    "payload",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n(N(S'__defaults__'\n(I1\ntdtb",
        b"ctorch._utils\n_rebuild_tensor_v2\n(S'_function'\ncos\nmkdir\ndb",
        b"ccollections\nOrderedDict\n(N(S'get'\ncos\nmkdir\ndtb",
        b"cos\nmkdir\n(N(S'state'\nI1\ndtb",
    ],
)
def test_a_file_changes_no_function_and_no_class(payload: bytes, tmp_path: Path) -> None:
    put(tmp_path / "bad.pth", payload, True)
    before = torch._utils._rebuild_tensor_v2.__defaults__, OrderedDict.get
    with pytest.raises(UserError, match=r"bad\.pth is not a readable"):
        checkpoints.load(tmp_path / "bad.pth")
    assert (torch._utils._rebuild_tensor_v2.__defaults__, OrderedDict.get) == before
    assert StandIn.state is None
    torch.save([Path("x"), torch.ones(2)], tmp_path / "good.pth")
    assert torch.equal(checkpoints.load(tmp_path / "good.pth")[1], torch.ones(2))


def test_no_name_of_any_module_is_more_than_a_stand_in() -> None:
    tensors = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"}
    find, real = Unpickler(io.BytesIO()).find_class, set()
    for module in ["__builtin__", "builtins", *sys.modules]:
        for name in [*vars(sys.modules.get(module, os)), "__import__"]:
            found = find(module, str(name))
            if not (isinstance(found, type) and issubclass(found, StandIn)):
                real.add((module, name))
                assert found is not getattr(sys.modules.get(module), str(name), None) or (
                    found is OrderedDict
                )
    assert real == {
        ("builtins", "getattr"), ("collections", "OrderedDict"),
        *(("torch._utils", name) for name in tensors),
    }  # fmt: skip
    nested = find("__builtin__", "getattr")(find("os", "path"), "join")
    assert issubclass(nested, StandIn) and nested.__name__ == "join"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            lambda: {"state_dict": {k: np.ones(2) for k in SMALL}},
            r"no tensors, but a numpy\.ndarray as con",
        ),
        (
            lambda: {"state_dict": SMALL | {"bn1.bias": np.ones(2)}},
            r"not a whole ResNet: .* bn1\.bias \(numpy\.ndarray, expected \(64,\)",
        ),
        (lambda: torch.nn.ReLU(), r"holds a torch\.nn\.modules\.activation\.ReLU, not a check"),
        (lambda: {"model": torch.nn.ReLU(), "epoch": 3}, r"but a torch\S+ReLU as model; save the"),
        (lambda: Options(state_dict=SMALL), r"holds a \S+Options, not a checkpoint; save a state"),
    ],
)
def test_what_is_no_tensor_where_one_is_needed_is_named(
    content: Any, said: str, tmp_path: Path
) -> None:
    torch.save(content(), tmp_path / "c.pth")
    with pytest.raises(UserError, match=said) as error:
        read_backbone(tmp_path / "c.pth")
    assert str(error.value).startswith(f"{tmp_path / 'c.pth'} ") and "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.3, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_named(tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "cut.pth.tar"
    state = {"state_dict": {"w": torch.randn(1000)}}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"cut\.pth\.tar is not a readable"):
        checkpoints.load(path)


def test_a_text_file_and_a_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"notes\.txt"):
        checkpoints.load(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"no checkpoint at .*nothing"):
        checkpoints.load(tmp_path / "nothing")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*looks like a TorchScript:UserWarning")
def test_a_torchscript_archive_is_called_that(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "s.pt")
    with pytest.raises(
        UserError, match=r"s\.pt is a TorchScript archive.*; save the state_dict of"
    ):
        read_backbone(tmp_path / "s.pt")
