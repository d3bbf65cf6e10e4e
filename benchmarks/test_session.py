"""What a Session costs over the same loop in bare PyTorch."""

import statistics
import time

import torch
from torch.nn import functional

from assay.models import ImageClassifier
from assay.training import Session

STEPS, BATCH, PAIRS = 10, 128, 15
ALLOWED = 1.03


def make_bare():
    torch.manual_seed(0)
    model = ImageClassifier("resnet-small")
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def bare_epoch(model, optimizer, images, labels):
    for index in torch.randperm(len(labels)).split(BATCH):
        loss = functional.cross_entropy(model(images[index]), labels[index])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def session_epoch(session, model, optimizer, images, labels):
    for index in session.progress(session.batches(len(labels), BATCH)):
        with session.autocast():
            loss = functional.cross_entropy(model(images[index]), labels[index])
        session.backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def seconds(function, *arguments):
    """Processor seconds, so that a neighbour on the machine does not count."""
    begin = time.process_time()
    function(*arguments)
    return time.process_time() - begin


def compare():
    """Time both loops in turn, the first one changing, and return the median ratio and its quartiles."""
    images = torch.randint(0, 256, (STEPS * BATCH, 1, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (STEPS * BATCH,))
    bare = (bare_epoch, *make_bare(), images, labels)
    session = Session()
    wrapped = (session_epoch, session, *session.prepare(*make_bare()), images, labels)
    seconds(*bare), seconds(*wrapped)
    ratios = []
    for pair in range(PAIRS):
        if pair % 2:
            without, with_session = seconds(*bare), seconds(*wrapped)
        else:
            with_session, without = seconds(*wrapped), seconds(*bare)
        ratios.append(with_session / without)
    return statistics.quantiles(ratios, n=4)


def test_a_session_costs_at_most_three_percent(benchmark):
    low, median, high = benchmark.pedantic(compare, rounds=1)
    print(f"\nSession / bare PyTorch: {median:.3f} (quartiles {low:.3f} to {high:.3f})")
    assert median <= ALLOWED
