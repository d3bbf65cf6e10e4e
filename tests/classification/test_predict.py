import numpy as np
import torch
from torch import nn

from assay.classification.predict import predict_logits, write_logits
from assay.data import Split


def test_prediction_does_not_depend_on_the_batch_size_and_keeps_the_mode():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 3)).train()
    images = torch.rand(10, 1, 4, 4)
    whole, parts = predict_logits(model, images), predict_logits(model, images, batch_size=3)
    assert torch.allclose(whole, parts, atol=1e-6)
    assert model.training and model[1].num_batches_tracked == 0


def test_predicted_logits_can_be_learnt_from():
    temperature = torch.ones((), requires_grad=True)
    logits = predict_logits(nn.Flatten(), torch.rand(3, 1, 2, 2))
    (logits * temperature).sum().backward()
    assert torch.allclose(temperature.grad, logits.sum())


def test_the_logits_file_reads_back_without_pickle(tmp_path):
    split = Split(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([1, 0]), np.array(["a", "bc"]))
    write_logits(tmp_path / "logits.npz", {"test": torch.tensor([[1.0, 2], [3, 4]])}, {"test": split}, ["x", "y"])
    with np.load(tmp_path / "logits.npz", allow_pickle=False) as file:
        assert file["test_logits"].dtype == np.float32 and file["test_logits"].tolist() == [[1, 2], [3, 4]]
        assert file["test_labels"].dtype == np.int64 and file["test_labels"].tolist() == [1, 0]
        assert file["test_ids"].tolist() == ["a", "bc"] and file["class_names"].tolist() == ["x", "y"]
