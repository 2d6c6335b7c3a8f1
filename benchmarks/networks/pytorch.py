"""PyTorch: eager mode, channels first, in either memory layout."""

import os
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks.networks import NETS, RESNETS, blocks
from jaxconv import models
from jaxconv.bench.step_timing import CLASSES, LEARNING_RATE, Runner, random_batch


def lenet5() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.Tanh()),
        *(nn.Linear(120, 84), nn.Tanh()),
        nn.Linear(84, CLASSES),
    )


def mnist_cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(576, 64), nn.ReLU()),
        nn.Linear(64, CLASSES),
    )


def vgg6() -> nn.Module:
    def stage(inputs: int, features: int) -> list[nn.Module]:
        return [
            *(nn.Conv2d(inputs, features, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(features, features, 3, padding=1), nn.ReLU()),
            nn.MaxPool2d(2),
        ]

    return nn.Sequential(*stage(3, 32), *stage(32, 64), *stage(64, 128), nn.Flatten(), nn.Linear(2048, CLASSES))


class Block(nn.Module):
    def __init__(self, inputs: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, features, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.stride, self.extra_channels = stride, features - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra_channels))
        return torch.relu(x + y)


def resnet(name: str) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *[Block(*sizes) for sizes in blocks(name)],
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES)),
    )


MAKE: dict[str, Callable[..., nn.Module]] = {
    "lenet5": lenet5,
    "mnist_cnn": mnist_cnn,
    "vgg6": vgg6,
    **{name: partial(resnet, name) for name in RESNETS},
}
assert set(MAKE) == set(NETS)


def build(model: str, batch: int, *, channels_last: bool = False) -> Runner:
    torch.manual_seed(0)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    # Follow JAX_PLATFORMS=cpu, so that all frameworks run on the same device.
    device = "cuda" if torch.cuda.is_available() and os.environ.get("JAX_PLATFORMS") != "cpu" else "cpu"
    images, labels = random_batch(models.get_model(model).input_shape, batch)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=memory_format).to(device)
    y = torch.from_numpy(labels).long().to(device)
    net = MAKE[model]().to(device, memory_format=memory_format)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    criterion = nn.CrossEntropyLoss()

    def steps(count: int) -> float:
        for _ in range(count):
            optimizer.zero_grad()
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return float(loss.detach())

    return Runner([parameter.numel() for parameter in net.parameters()], steps)
