import pytest
import torch
from torch import nn

from assay.errors import UserError
from assay.training.checkpoints import CheckpointFolder, TrainingState


def new_state():
    model = nn.Linear(3, 2)
    return TrainingState([model], [torch.optim.Adam(model.parameters())], [{"step": 1, "loss": 0.5}], 1)


def test_a_checkpoint_brings_back_everything(tmp_path):
    saved, loaded = new_state(), new_state()
    saved.models[0](torch.ones(1, 3)).sum().backward()
    saved.others[0].step()
    saved.epochs_done = 7
    saved.write(tmp_path)
    loaded.read(tmp_path)
    assert torch.equal(loaded.models[0].weight, saved.models[0].weight)
    moments = [list(state.others[0].state_dict()["state"][0].values()) for state in (saved, loaded)]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    assert (loaded.epochs_done, loaded.history) == (7, saved.history)


def test_only_the_newest_stay_and_the_last_is_restored(tmp_path):
    store = CheckpointFolder(tmp_path, keep=2)
    for epoch in range(4):
        store.save(lambda folder, epoch=epoch: (folder / "n").write_text(str(epoch)), epoch)
    assert [p.name for p in store.all()] == ["epoch-0003", "epoch-0004"]
    seen = []
    assert store.restore(lambda folder: seen.append((folder / "n").read_text()))
    assert seen == ["3"]


def test_what_a_killed_process_left_unfinished_is_neither_restored_nor_kept(tmp_path):
    (tmp_path / ".epoch-0001.abc.new").mkdir()
    assert not CheckpointFolder(tmp_path).restore(lambda folder: pytest.fail("there is no checkpoint"))
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_leaves_the_last_checkpoint(tmp_path):
    store = CheckpointFolder(tmp_path)
    store.save(lambda folder: None, 0)

    def fail(folder):
        (folder / "half").write_text("")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.save(fail, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0001"]


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("the pickle ran",)


@pytest.mark.parametrize("damage", ["truncated weights", "pickle", "other model", "no progress"])
def test_a_checkpoint_that_does_not_fit_is_one_sentence_and_runs_nothing(tmp_path, damage):
    state = new_state()
    state.write(tmp_path)
    if damage == "truncated weights":
        (tmp_path / "model.safetensors").write_bytes(b"\0" * 20)
    elif damage == "pickle":
        torch.save([Bomb()], tmp_path / "optimizers.pt")
    elif damage == "other model":
        state.models[0] = nn.Linear(5, 2)
    else:
        (tmp_path / "training.json").unlink()
    with pytest.raises(UserError, match="remove it to train from the start") as caught:
        state.read(tmp_path)
    assert "\n" not in str(caught.value)
