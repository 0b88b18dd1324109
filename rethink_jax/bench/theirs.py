"""The comparison's other side: the best PyTorch that we can write, and the loop that people write."""

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from rethink_jax.bench.torch_models import MODELS

# Seconds for which each form is tried before the fastest is taken.
_TRIAL_SECONDS = 2.0


class Form(NamedTuple):
    """One way to write the step; `compile` is a mode of `torch.compile`, or empty."""

    channels_last: bool
    compile: str

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "NCHW"
        return f"{layout}, {f'torch.compile, {self.compile}' if self.compile else 'eager'}"


def whiten(images: Any) -> Any:
    """Whitens images, uint8 [n, channels, height, width], each by its own mean and deviation."""
    images = images.float() / 255
    centered = images - images.mean((1, 2, 3), keepdim=True)
    least = images[0].numel() ** -0.5
    return centered / centered.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(least)


class Side:
    """Training and evaluation steps of one model, on images that are in memory as tensors.

    Attributes:
      parameters: how many are trained.
      form: the fastest form that was found, in words.
    """

    def __init__(
        self,
        model: str,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        learning_rate: float,
        dtype: str,
        forms: list[Form] | None = None,
    ):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as ours
        self._name, self._batch_size, self._rate = model, batch_size, learning_rate
        self._half = dtype == "bfloat16"
        self._images = torch.as_tensor(images.transpose(0, 3, 1, 2)).to(self.device)
        self._labels = torch.as_tensor(labels.astype(np.int64)).to(self.device)
        chosen = forms or self._forms()
        self._chosen = chosen[0] if len(chosen) == 1 else self._fastest(chosen)
        self.form = str(self._chosen)
        self._make(self._chosen)

    def _forms(self) -> list[Form]:
        layouts = (False,) if self._name.startswith("mlp") else (False, True)
        if self.device == "cpu":
            return [Form(*pair) for pair in itertools.product(layouts, ("", "default"))]
        # A form takes a minute to compile on a GPU; "reduce-overhead" is CUDA graphs.
        compiled = [Form(layouts[-1], mode) for mode in ("default", "reduce-overhead")]
        return [*(Form(layout, "") for layout in layouts), *compiled]

    def _fastest(self, forms: list[Form]) -> Form:
        rates = {}
        for form in forms:
            self._make(form)
            self.train(_TRIAL_SECONDS / 4)
            rates[form] = self.train(_TRIAL_SECONDS)
        return max(rates, key=lambda form: rates[form])

    def _make(self, form: Form) -> None:
        torch.manual_seed(0)
        layout = torch.channels_last if form.channels_last else torch.contiguous_format
        model = MODELS[self._name]().to(self.device, memory_format=layout)
        trained, self.parameters = _trained(model)
        self._model = model
        self._optimizer = torch.optim.SGD(trained, self._rate, momentum=0.9, fused=True)

        def logits(images: Any) -> Any:
            whitened = whiten(images).contiguous(memory_format=layout)
            with torch.autocast(self.device, torch.bfloat16, enabled=self._half):
                return model(whitened).float()

        def loss(images: Any, labels: Any) -> Any:
            return F.cross_entropy(logits(images), labels)

        self._logits, self._loss = logits, loss
        if form.compile:
            compile_ = functools.partial(torch.compile, dynamic=False, mode=form.compile)
            self._logits, self._loss = compile_(logits), compile_(loss)
        self._batches = self._orders()

    def _orders(self) -> Iterator[Any]:
        while True:
            order = torch.randperm(len(self._images), device=self.device)
            whole = len(order) // self._batch_size * self._batch_size
            yield from order[:whole].split(self._batch_size)

    def train(self, seconds: float) -> float:
        """Returns the training steps' images a second."""
        self._model.train()

        def step() -> None:
            ids = next(self._batches)
            loss = self._loss(self._images[ids], self._labels[ids])
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()

        return self._batch_size * self._calls_per_second(step, seconds)

    def evaluate(self, seconds: float) -> float:
        """Returns the evaluation steps' images a second, with losses and counts of correct answers."""
        self._model.eval()

        @torch.no_grad()
        def step() -> Any:
            ids = next(self._batches)
            logits, labels = self._logits(self._images[ids]), self._labels[ids]
            return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

        return self._batch_size * self._calls_per_second(step, seconds)

    def accuracy(self) -> float:
        """Returns the accuracy on all examples."""
        self._model.eval()
        with torch.no_grad():
            parts = zip(self._images.split(1000), self._labels.split(1000), strict=True)
            right = sum(int((self._logits(x).argmax(1) == y).sum()) for x, y in parts)
        return right / len(self._labels)

    def _calls_per_second(self, call: Callable[[], Any], seconds: float) -> float:
        for _ in range(2):
            call()
        self._wait()
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + seconds:
            call()
            count += 1
        self._wait()
        return count / (time.perf_counter() - start)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def _trained(model: Any) -> tuple[list[Any], int]:
    """Returns the parameters that are trained, and how many numbers they hold."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return trained, sum(parameter.numel() for parameter in trained)


class _Images(Dataset):
    """Whitens one example at a time, as torchvision's transforms do."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = torch.from_numpy(self._images[index].transpose(2, 0, 1)).float() / 255
        centered = image - image.mean()
        std = centered.square().mean().sqrt().clamp_min(image.numel() ** -0.5)
        return centered / std, int(self._labels[index])


class Loop:
    """The loop that people write for this paper: a DataLoader that handles one example at a time.

    Attributes:
      parameters: how many are trained.
    """

    def __init__(
        self,
        model: str,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        learning_rate: float,
    ):
        self._model = MODELS[model]()
        trained, self.parameters = _trained(self._model)
        self._optimizer = torch.optim.SGD(trained, learning_rate, momentum=0.9)
        self._loader = DataLoader(_Images(images, labels), batch_size, shuffle=True, drop_last=True)
        self._batch_size = batch_size

    def train(self, seconds: float) -> float:
        """Returns the training steps' images a second, decoding and whitening included."""
        self._model.train()
        count, start = 0, time.perf_counter()
        while True:
            for images, labels in self._loader:
                loss = F.cross_entropy(self._model(images), labels)
                self._optimizer.zero_grad()
                loss.backward()
                self._optimizer.step()
                count += 1
                if time.perf_counter() > start + seconds:
                    return self._batch_size * count / (time.perf_counter() - start)
