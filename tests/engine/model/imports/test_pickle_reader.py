"""The machine that reads pickles: plain values come out as they went in, and nothing is ever called."""

import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelError
from engine.model.imports.pickle_reader import MOST_STEPS, GlobalName, PickledObject, StoredTensor, read_pickle

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(PLAIN, st.integers(0, 5))
def test_plain_values_come_out_as_they_went_in(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol), "toy.pt") == value


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw):
    for start in (b"", b"\x80\x02", b"\x80\x04"):
        try:
            read_pickle(start + raw, "toy.pt")
        except ModelError as error:
            assert "toy.pt" in str(error)


@given(PLAIN, st.data())
def test_a_spoilt_pickle_is_read_or_refused(value, data):
    raw = bytearray(pickle.dumps({"weights": value}, 2))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(2, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickle(bytes(raw), "toy.pt")
    except ModelError as error:
        assert str(error)


def call(module, name, argument="x", opcode=b"R"):
    """A pickle that calls module.name(argument)."""
    return (
        b"\x80\x02c"
        + f"{module}\n{name}\n".encode()
        + b"X"
        + len(argument).to_bytes(4, "little")
        + argument.encode()
        + b"\x85"
        + opcode
        + b"."
    )


DANGEROUS = (
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("builtins", "eval"), ("builtins", "exec"),
    ("builtins", "getattr"), ("builtins", "__import__"), ("builtins", "open"), ("importlib", "import_module"), ("runpy", "_run_code"),
    ("torch", "load"), ("torch.jit", "load"), ("torch.hub", "load"), ("torch.storage", "_load_from_bytes"), ("pickle", "loads"),
    ("functools", "partial"), ("operator", "attrgetter"), ("collections", "Counter"), ("torch._utils", "_rebuild_device_tensor_from_numpy"),
    ("torch.serialization", "add_safe_globals"), ("__main__", "anything"), ("torch", "FloatStorage.__init__.__globals__"),
)  # fmt: skip


@pytest.mark.parametrize("opcode", [b"R", b"\x81"])
@pytest.mark.parametrize(("module", "name"), DANGEROUS)
def test_what_is_not_on_the_list_is_refused_by_name(module, name, opcode):
    with pytest.raises(ModelError, match=rf"toy\.pt is refused: its pickle names {module}\.{name}, which a checkpoint of tensors"):
        read_pickle(call(module, name, opcode=opcode), "toy.pt")


def test_names_that_are_put_together_on_the_stack_are_refused_too():
    raw = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."
    with pytest.raises(ModelError, match=r"names os\.system"):
        read_pickle(raw, "toy.pt")


def test_a_call_of_something_made_before_is_no_call():
    with pytest.raises(ModelError, match="damaged"):
        read_pickle(b"\x80\x02]K\x01\x85R.", "toy.pt")  # [](1)
    with pytest.raises(ModelError, match="damaged"):
        read_pickle(b"\x80\x02ccollections\nOrderedDict\n)R)R.", "toy.pt")  # OrderedDict()()


@pytest.mark.parametrize("raw", [b"(cos\nsystem\nX\x01\0\0\0xo.", b"(X\x01\0\0\0xios\nsystem\n.", b"\x80\x02\x82\x01.", b"Pevil\n."])
def test_other_ways_to_call_or_import_are_refused_as_opcodes_or_names(raw):
    with pytest.raises(ModelError, match="is refused: its pickle"):
        read_pickle(raw, "toy.pt")


def test_the_machine_cannot_be_talked_into_importing(tmp_path):
    """Neither the names nor their modules are looked up: a module that would sing on import does not."""
    (tmp_path / "songbird.py").write_text("raise SystemExit('sang')")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from engine.errors import ModelError\n"
        "from engine.model.imports.pickle_reader import read_pickle\n"
        "for module in ('songbird', '__torch__.songbird', 'numpy', 'argparse'):\n"
        "    name = {'numpy': 'dtype', 'argparse': 'Namespace'}.get(module, 'Bird')\n"
        "    try: read_pickle(b'\\x80\\x02c' + f'{module}\\n{name}\\n)'.encode() + b'\\x81.', 'x')\n"
        "    except ModelError: print('refused', module)\n"
        "print('songbird' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["refused songbird", "False False"]


def test_a_module_of_an_archive_is_its_attributes():
    raw = b"\x80\x02c__torch__.clip\nCLIP\n)\x81}X\x01\0\0\0nK\x07sb."
    found = read_pickle(raw, "toy.pt")
    assert isinstance(found, PickledObject)
    assert (found.kind, found.attributes) == (GlobalName("__torch__.clip", "CLIP"), {"n": 7})


def stored(storage=b"FloatStorage", key=b"0", numel=b"K\x06", offset=b"K\x00", shape=b"K\x02K\x03\x86", strides=b"K\x03K\x01\x86"):
    """The pickle of one tensor, as torch writes it."""
    words = b"X\x07\0\0\0storagectorch\n" + storage + b"\nX" + len(key).to_bytes(4, "little") + key + b"X\x03\0\0\0cpu" + numel
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(("
        + words
        + b"tQ"
        + offset
        + shape
        + strides
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )


def test_a_tensor_is_where_its_bytes_lie():
    found = read_pickle(stored(), "toy.pt")
    assert isinstance(found, StoredTensor)
    assert (found.storage.kind, found.storage.key, found.storage.numel) == ("FloatStorage", "0", 6)
    assert (found.offset, found.shape, found.strides) == (0, (2, 3), (3, 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": b"J\xff\xff\xff\xff"},  # -1
        {"shape": b"J\xff\xff\xff\xffK\x03\x86"},
        {"strides": b"K\x03\x85"},  # fewer strides than dimensions
        {"shape": b"G?\xf0\0\0\0\0\0\0K\x03\x86"},  # 1.0
        {"shape": b"\x88K\x03\x86"},  # True
        {"storage": b"float16"},
        {"numel": b"N"},
    ],
)
def test_a_tensor_that_cannot_be_is_refused(changes):
    with pytest.raises(ModelError, match="damaged"):
        read_pickle(stored(**changes), "toy.pt")


@pytest.mark.parametrize("key", [b"../1", b"a/b", b"", b"0\0", "٠".encode()])
def test_a_record_elsewhere_is_refused(key):
    with pytest.raises(ModelError, match="names a record outside data/"):
        read_pickle(stored(key=key), "toy.pt")


def test_a_pickle_without_end_is_stopped():
    with pytest.raises(ModelError, match=f"has more than {MOST_STEPS:,} steps"):
        read_pickle(b"\x80\x02" + b"N" * MOST_STEPS + b".", "toy.pt")


def test_depth_costs_no_stack():
    deep = b"\x80\x02" + b")" + b"\x85" * 100_000
    assert isinstance(read_pickle(deep + b".", "toy.pt"), tuple)
    with pytest.raises(ModelError, match="keys that are neither words nor numbers"):
        read_pickle(b"\x80\x02}" + deep[2:] + b"Ns.", "toy.pt")  # hashing that tuple would overflow the stack of the interpreter
