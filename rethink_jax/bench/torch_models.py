"""The paper's networks in PyTorch, parameter for parameter as in `rethink_jax.models`, for comparison alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class ConvUnit(nn.Module):
    """Convolution without a bias, BatchNorm, ReLU; `scale` says whether BatchNorm's weight is trained."""

    def __init__(
        self, channels: int, features: int, kernel: int = 3, stride: int = 1, scale: bool = False
    ):
        super().__init__()
        self.conv = nn.Conv2d(channels, features, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(features, eps=1e-3)
        self.norm.weight.requires_grad_(scale)

    def forward(self, x: Any) -> Any:
        """Maps [n, channels, height, width]."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class _Inception(nn.Module):
    def __init__(self, channels: int, ones: int, threes: int):
        super().__init__()
        self.ones = ConvUnit(channels, ones, 1)
        self.threes = ConvUnit(channels, threes)
        self.features = ones + threes

    def forward(self, x: Any) -> Any:
        return torch.cat([self.ones(x), self.threes(x)], 1)


class _Downsample(nn.Module):
    def __init__(self, channels: int, threes: int):
        super().__init__()
        self.threes = ConvUnit(channels, threes, 3, 2)
        self.features = channels + threes

    def forward(self, x: Any) -> Any:
        return torch.cat([self.threes(x), F.max_pool2d(x, 3, 2, 1)], 1)


def small_inception() -> nn.Module:
    """Returns the paper's small Inception (figure 3)."""
    layers: list[Any] = [ConvUnit(3, 96)]
    channels = 96
    sizes = [(32, 32), (32, 48), (80,), (112, 48), (96, 64), (80, 80), (48, 96), (96,)]
    for size in [*sizes, (176, 160), (176, 160)]:
        layers.append(
            _Downsample(channels, *size) if len(size) == 1 else _Inception(channels, *size)
        )
        channels = layers[-1].features
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class _ResponseNorm(nn.Module):
    """Local response normalization as one 1×1 convolution, which is faster than PyTorch's own."""

    def __init__(self, channels: int, radius: int = 4):
        super().__init__()
        index = torch.arange(channels)
        band = ((index[:, None] - index).abs() <= radius).float()
        self.register_buffer("band", band[..., None, None])

    def forward(self, x: Any) -> Any:
        sums = F.conv2d(x * x, self.band)
        return x * (1.0 + 0.001 / 9 * sums) ** -0.75


def small_alexnet() -> nn.Module:
    """Returns the paper's small AlexNet."""

    def stage(channels: int) -> list[nn.Module]:
        conv = nn.Conv2d(channels, 64, 5, padding=2)
        return [conv, nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), _ResponseNorm(64)]

    dense = [nn.Linear(64 * 7 * 7, 384), nn.ReLU(), nn.Linear(384, 192), nn.ReLU()]
    model = nn.Sequential(*stage(3), *stage(64), nn.Flatten(), *dense, nn.Linear(192, 10))
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            std = 0.05 if isinstance(layer, nn.Conv2d) else 0.04
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)
    return model


def mlp(depth: int) -> nn.Module:
    """Returns an MLP of 512 units a layer for images of 28×28×3."""
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = 28 * 28 * 3
    for _ in range(depth):
        layers += [nn.Linear(inputs, 512), nn.ReLU(inplace=True)]
        inputs = 512
    return nn.Sequential(*layers, nn.Linear(inputs, 10))


class _PreActivationBlock(nn.Module):
    def __init__(self, channels: int, features: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(features)
        self.conv1 = nn.Conv2d(channels, features, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        same = channels == features
        self.shortcut = None if same else nn.Conv2d(channels, features, 1, stride, bias=False)

    def forward(self, x: Any) -> Any:
        active = F.relu(self.norm1(x))
        y = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return y + (x if self.shortcut is None else self.shortcut(active))


def wide_resnet() -> nn.Module:
    """Returns Wide ResNet 28-1 (Zagoruyko and Komodakis 2016)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    channels = 16
    for group, features in enumerate((16, 32, 64)):
        for i in range(4):
            stride = 2 if group > 0 and i == 0 else 1
            layers.append(_PreActivationBlock(channels, features, stride))
            channels = features
    head = [nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers, *head)


class _BasicBlock(nn.Module):
    def __init__(self, channels: int, features: int, stride: int):
        super().__init__()
        self.first = ConvUnit(channels, features, 3, stride, scale=True)
        self.conv = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(features)
        self.shortcut: nn.Module = nn.Identity()
        if channels != features or stride > 1:
            conv = nn.Conv2d(channels, features, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(features))

    def forward(self, x: Any) -> Any:
        return F.relu(self.shortcut(x) + self.norm(self.conv(self.first(x))), inplace=True)


def resnet18() -> nn.Module:
    """Returns ResNet-18 for ten classes (He et al. 2015)."""
    stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    layers: list[nn.Module] = [
        stem,
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels = 64
    for group in range(4):
        features = 64 * 2**group
        for i in range(2):
            layers.append(_BasicBlock(channels, features, 2 if group > 0 and i == 0 else 1))
            channels = features
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp1": lambda: mlp(1),
    "mlp3": lambda: mlp(3),
    "small_alexnet": small_alexnet,
    "small_inception": small_inception,
    "wide_resnet": wide_resnet,
    "resnet18": resnet18,
}
