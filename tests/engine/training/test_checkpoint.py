import json
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from engine.errors import ModelError, NotFinite, OutputError
from engine.training.checkpoint import Checkpoints
from engine.training.checkpoint_files import MANIFEST, STATE, WEIGHTS


@pytest.fixture
def saved(new_toy, batch_at, plan, checkpoints):
    """A run of four steps, with checkpoints after two and four."""
    from engine.training.loop import train

    module, optimizer = new_toy()
    list(train(module, optimizer, module.losses, batch_at, plan(4), checkpoints))
    return module, optimizer


def cut(path: Path, size: int = 1) -> None:
    path.write_bytes(path.read_bytes()[:-size])


def agree_again(folder: Path) -> None:
    """Rewrite the manifest so that hashes agree: what an attacker, or a careless editor, would do."""
    import hashlib

    manifest = json.loads((folder / MANIFEST).read_text())
    for name, told in manifest["files"].items():
        content = (folder / name).read_bytes()
        told.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_weights_optimizer_and_random_states_come_back(saved, new_toy, checkpoints):
    module, optimizer = saved
    drawn = torch.rand(3)
    again, its_optimizer = new_toy()
    checkpoints.load(4, again, its_optimizer)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), again.state_dict().values(), strict=True))
    state, restored = optimizer.state_dict()["state"], its_optimizer.state_dict()["state"]
    assert state.keys() == restored.keys()
    assert all(torch.equal(state[i]["exp_avg_sq"], restored[i]["exp_avg_sq"]) for i in state)


@pytest.mark.parametrize("name", [WEIGHTS, STATE, MANIFEST])
def test_a_truncated_checkpoint_gives_way_to_the_one_before(saved, checkpoints, name):
    cut(checkpoints.path(4) / name)
    step, refused = checkpoints.last_good()
    assert step == 2
    assert [one.name for one in refused] == ["step-00000004"]
    assert refused[0].reason


def test_a_flipped_bit_is_named_by_its_file_and_hash(saved, new_toy, checkpoints):
    path = checkpoints.path(4) / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert checkpoints.last_good()[0] == 2
    with pytest.raises(ModelError, match=r"step-00000004 .* weights.safetensors does not match its sha256"):
        checkpoints.load(4, *new_toy())


def test_no_sound_checkpoint_is_an_error_and_no_checkpoint_is_step_0(saved, checkpoints, tmp_path):
    for step in (2, 4):
        cut(checkpoints.path(step) / STATE)
    with pytest.raises(ModelError, match="no checkpoint of this run is sound"):
        checkpoints.last_good()
    assert Checkpoints(tmp_path / "nothing", {}).last_good() == (0, [])


class Trap:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_is_refused_and_never_executed(saved, new_toy, checkpoints, tmp_path, name, how):
    canary = tmp_path / "canary"
    trap = {"optimizer": Trap(canary), "rng": {}, "step": 4}
    path = checkpoints.path(4) / name
    if how == "torch":
        torch.save(trap, path)
    else:
        path.write_bytes(pickle.dumps(trap))
    agree_again(checkpoints.path(4))
    with pytest.raises(ModelError, match=name):
        checkpoints.load(4, *new_toy())
    assert not canary.exists()
    pickle.loads(pickle.dumps(Trap(canary)))  # noqa: S301 - shows that the trap is a live one
    assert canary.exists()


def test_another_shape_is_refused_naming_the_first_keys(saved, new_toy, checkpoints):
    module, optimizer = new_toy(width=6)
    before = module.linear.weight.detach().clone()
    with pytest.raises(ModelError, match=r"3 of another shape \(linear.weight \(4, 4\) instead of \(6, 6\)"):
        checkpoints.load(4, module, optimizer)
    assert torch.equal(module.linear.weight, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("linear.bias"), r"1 missing \(linear.bias\)"),
        (lambda weights: weights.update(extra=torch.zeros(1)), r"1 not known \(extra\)"),
        (lambda weights: weights.update({"linear.bias": torch.zeros(4, dtype=torch.float64)}), r"1 of another dtype \(linear.bias\)"),
        (lambda weights: weights["linear.bias"].fill_(torch.nan), r"1 not finite \(linear.bias\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(saved, new_toy, checkpoints, change, message):
    path = checkpoints.path(4) / WEIGHTS
    weights = safetensors.torch.load_file(path)
    change(weights)
    safetensors.torch.save_file(weights, path)
    agree_again(checkpoints.path(4))
    with pytest.raises(ModelError, match=message):
        checkpoints.load(4, *new_toy())


@pytest.mark.parametrize("name", ["recipe", "data", "code"])
def test_a_checkpoint_of_another_run_is_refused(saved, new_toy, checkpoints, name):
    other = Checkpoints(checkpoints.folder, {**checkpoints.identity, name: "b" * 64})
    with pytest.raises(ModelError, match=f"another {name} .*bbbbbbbbbbbb here.*another --out"):
        other.load(4, *new_toy())


def test_a_checkpoint_of_another_run_is_taken_when_forced_and_says_how_it_differs(saved, new_toy, checkpoints):
    other = Checkpoints(checkpoints.folder, {**checkpoints.identity, "recipe": "b" * 64}, forced=True)
    other.load(4, *new_toy())
    assert other.differences(4) == {"recipe": "aaaaaaaaaaaa there, bbbbbbbbbbbb here"}
    assert checkpoints.differences(4) == {}


def test_the_state_of_another_optimizer_is_refused(saved, new_toy, checkpoints):
    module, optimizer = new_toy(name="sgd")
    before = module.linear.weight.detach().clone()
    with pytest.raises(ModelError, match="its optimizer state is of AdamW, the recipe asks for SGD"):
        checkpoints.load(4, module, optimizer)
    assert torch.equal(module.linear.weight, before)


def test_optimizer_state_finds_its_parameters_by_name_whatever_the_groups(saved, new_toy, checkpoints):
    _, optimizer = saved
    module, _ = new_toy()
    turned = torch.optim.AdamW([{"params": [parameter]} for parameter in reversed(list(module.parameters()))])
    checkpoints.load(4, module, turned)
    moments = {optimizer.state[parameter]["exp_avg"].sum().item() for parameter in saved[0].parameters()}
    assert {turned.state[parameter]["exp_avg"].sum().item() for parameter in module.parameters()} == moments
    for mine, theirs in zip(module.parameters(), saved[0].parameters(), strict=True):
        assert torch.equal(turned.state[mine]["exp_avg"], optimizer.state[theirs]["exp_avg"])


def test_weights_that_are_not_finite_are_not_saved(new_toy, checkpoints):
    module, optimizer = new_toy()
    module.linear.bias.data[1] = torch.inf
    with pytest.raises(NotFinite, match=r"after step 9 .* linear.bias"):
        checkpoints.save(9, module, optimizer)
    assert checkpoints.steps() == []


def test_a_full_disk_keeps_the_last_good_checkpoint(saved, checkpoints):
    """No file may grow beyond 64 bytes: what the kernel then answers to a write is what a full disk answers, by another name."""
    module, optimizer = saved
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(OutputError, match=r"step 6 cannot be written.*untouched"):
            checkpoints.save(6, module, optimizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.last_good() == (4, [])
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-00000002", "step-00000004"]


def test_what_a_kill_while_saving_leaves_is_no_checkpoint_and_is_cleared(saved, checkpoints):
    module, optimizer = saved
    beside = checkpoints.folder / ".step-00000006.partial"
    beside.mkdir()
    (beside / WEIGHTS).write_bytes(b"half")
    assert checkpoints.last_good() == (4, [])
    checkpoints.save(6, module, optimizer)
    assert checkpoints.last_good() == (6, [])
    assert not beside.exists()


def test_a_refused_checkpoint_is_replaced_by_a_sound_one_of_its_step(saved, checkpoints):
    cut(checkpoints.path(4) / WEIGHTS)
    checkpoints.save(4, *saved)
    assert checkpoints.last_good() == (4, [])


def test_tied_weights_are_saved_under_both_names(tmp_path):
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3)})
    module["b"].weight = module["a"].weight
    kept = Checkpoints(tmp_path, {})
    kept.save(1, module, torch.optim.SGD(module.parameters(), lr=1.0))
    found = safetensors.torch.load_file(kept.path(1) / WEIGHTS)
    assert torch.equal(found["a.weight"], found["b.weight"])
    kept.load(1, module, torch.optim.SGD(module.parameters(), lr=1.0))


def test_the_manifest_says_what_lies_beside_it(saved, checkpoints):
    manifest = json.loads((checkpoints.path(4) / MANIFEST).read_text())
    assert manifest["step"] == 4
    assert manifest["identity"] == dict(checkpoints.identity)
    assert {name: told["bytes"] for name, told in manifest["files"].items()} == {
        name: (checkpoints.path(4) / name).stat().st_size for name in (WEIGHTS, STATE)
    }


KILLED = """
import sys
import torch
from pathlib import Path
from engine.training.checkpoint import Checkpoints
module = torch.nn.Linear(300, 300)
optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
checkpoints = Checkpoints(Path(sys.argv[1]), {}, keep=2)
module(torch.ones(1, 300)).sum().backward()
for step in range(1, 100_000):
    optimizer.step()
    checkpoints.save(step, module, optimizer)
    print(step, flush=True)
"""


def test_a_kill_at_any_point_leaves_the_last_told_checkpoint_sound(tmp_path):
    root = Path(__file__).resolve().parents[3]
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root)
    assert run.stdout is not None
    with run, run.stdout as lines:
        told = [int(lines.readline()) for _ in range(9)][-1]
        run.kill()
    step, refused = Checkpoints(tmp_path, {}).last_good()
    assert step >= told
    assert refused == []
