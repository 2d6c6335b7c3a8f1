"""The bar: how far it is, and the numbers of a chunk that the device is done with."""

import numpy as np

from jaxconv.train import EpochPlan, TrainProgress
from jaxconv.train.loggers import Progress

CUT = EpochPlan(num_examples=22, batch_size=4, steps_per_epoch=6, steps_per_execution=2, executions=3)


def sums(loss, correct):
    return {"loss": np.float32(loss), "accuracy": np.float32(correct), "count": np.float32(8)}


def told(*positions, start=0):
    with Progress(2, CUT, TrainProgress(epoch=start), show=True) as bar:
        for at in positions:
            bar.execution(at)
            bar.last_time -= 1  # a second ago
        [task] = bar.bar.tasks
    return task


def test_the_bar_tells_the_chunk_before_the_last():
    first, last = sums(4, 6), sums(99, 0)
    task = told(TrainProgress(execution=1, metric_sums=(first,)), TrainProgress(execution=2, metric_sums=(first, last)))
    assert (task.completed, task.total, task.description) == (2, 6, "epoch 1/2")
    assert task.fields["measured"].startswith("loss 0.500  accuracy 0.750  ")
    assert 4 < float(task.fields["measured"].split()[4].replace(",", "")) <= 8  # 8 images in a second


def test_a_resumed_run_begins_where_it_was():
    assert told(start=1).completed == 3
    task = told(TrainProgress(epoch=1, execution=2, metric_sums=(sums(1, 1),)), start=1)
    assert (task.completed, task.description, task.fields["measured"]) == (5, "epoch 2/2", "")
    # Within an epoch: chunks were measured before, but this process has not yet seen how long one takes.
    task = told(TrainProgress(epoch=1, execution=2, metric_sums=(sums(1, 1),) * 2), start=1)
    assert (task.completed, task.fields["measured"]) == (5, "")


def test_of_several_networks_it_tells_the_mean():
    pair = {"loss": np.float32([4, 12]), "accuracy": np.float32([6, 2]), "count": np.float32([8, 8])}
    task = told(TrainProgress(execution=1, metric_sums=(pair,)), TrainProgress(execution=2, metric_sums=(pair, pair)))
    assert task.fields["measured"].startswith("loss 1.000  accuracy 0.500  ")


def test_a_layer_that_dies_has_one_line(capsys):
    record = {"epoch": 1, "loss": 1.0, "accuracy": 0.1, "val_loss": 1.0, "val_accuracy": 0.1, "images_per_second": 9.0}
    with Progress(3, CUT, TrainProgress(history=({"dead_layers": ["relu1"]},)), show=True) as bar:
        bar.epoch(record | {"dead_layers": ["relu1", "relu2"]}, False)
        bar.epoch(record | {"dead_layers": ["relu1", "relu2"]}, False)
    said = capsys.readouterr().out
    assert said.count("relu2 is dead: its output is 0 for every validation image") == 1 and "relu1 is" not in said
