"""Progress bar: completed executions, and metrics of the last finished one."""

import numpy as np

from jaxconv.train import EpochPlan, TrainProgress
from jaxconv.train.loggers import Progress

PLAN = EpochPlan(num_examples=22, batch_size=4, steps_per_epoch=6, steps_per_execution=2, executions=3)


def sums(loss, correct):
    return {"loss": np.float32(loss), "accuracy": np.float32(correct), "count": np.float32(8)}


def bar_task(*progresses, start=0):
    with Progress(2, PLAN, TrainProgress(epoch=start), show=True) as bar:
        for progress in progresses:
            bar.execution(progress)
            bar.last_time -= 1  # as if one second had passed
        [task] = bar.bar.tasks
    return task


def test_bar_displays_metrics_of_previous_execution():
    first, last = sums(4, 6), sums(99, 0)
    task = bar_task(
        TrainProgress(execution=1, metric_sums=(first,)), TrainProgress(execution=2, metric_sums=(first, last))
    )
    assert (task.completed, task.total, task.description) == (2, 6, "epoch 1/2")
    assert task.fields["measured"].startswith("loss 0.500  accuracy 0.750  ")
    assert 4 < float(task.fields["measured"].split()[4].replace(",", "")) <= 8  # 8 images per second


def test_bar_of_resumed_run_starts_at_its_progress():
    assert bar_task(start=1).completed == 3
    task = bar_task(TrainProgress(epoch=1, execution=2, metric_sums=(sums(1, 1),)), start=1)
    assert (task.completed, task.description, task.fields["measured"]) == (5, "epoch 2/2", "")
    # Resumed within an epoch: there are metrics, but this process has not yet timed an execution.
    task = bar_task(TrainProgress(epoch=1, execution=2, metric_sums=(sums(1, 1),) * 2), start=1)
    assert (task.completed, task.fields["measured"]) == (5, "")


def test_bar_displays_mean_of_several_networks():
    stacked = {"loss": np.float32([4, 12]), "accuracy": np.float32([6, 2]), "count": np.float32([8, 8])}
    task = bar_task(
        TrainProgress(execution=1, metric_sums=(stacked,)), TrainProgress(execution=2, metric_sums=(stacked, stacked))
    )
    assert task.fields["measured"].startswith("loss 1.000  accuracy 0.500  ")


def test_bar_prints_dead_layer_once(capsys):
    record = {"epoch": 1, "loss": 1.0, "accuracy": 0.1, "val_loss": 1.0, "val_accuracy": 0.1, "images_per_second": 9.0}
    with Progress(3, PLAN, TrainProgress(history=({"dead_layers": ["relu1"]},)), show=True) as bar:
        bar.epoch(record | {"dead_layers": ["relu1", "relu2"]}, False)
        bar.epoch(record | {"dead_layers": ["relu1", "relu2"]}, False)
    stdout = capsys.readouterr().out
    assert stdout.count("relu2 is dead: its output is 0 for every validation image") == 1 and "relu1 is" not in stdout
