"""How fast are XLA's gradients of convolutions on this CPU, and how fast are the same ones computed otherwise?

    JAX_PLATFORMS=cpu python docs/results/convolution_gradients.py [DEVICES]

Times, for the shapes of small Inception, small AlexNet, Wide ResNet and ResNet-18 at 64 pixels, the forward
pass, the input's gradient and the kernel's: XLA's own; summed over parts of 8, 16 and 32 images, among which
`rethink_jax.models.convolution.convolve` chooses; in groups of 16 output features; and that of one product
with shifted copies. Then the forward pass and the kernel's gradient by Winograd's filtering. DEVICES simulated
devices take a part of the batch each. Not part of the paper.
"""

import os
import sys
import time
from collections.abc import Callable

DEVICES = int(sys.argv[1]) if len(sys.argv) > 1 else 1
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax import lax  # noqa: E402

from rethink_jax.distributed import parallel  # noqa: E402
from rethink_jax.models import winograd  # noqa: E402

BATCH, SECONDS = 128, 0.4
# (side, window, channels, features, stride)
SHAPES = (
    *((28, 3, 3, 96, 1), (28, 3, 96, 32, 1), (28, 3, 64, 48, 1), (28, 3, 80, 80, 2)),
    *((14, 3, 160, 48, 1), (14, 3, 160, 64, 1), (14, 3, 160, 80, 1), (14, 3, 144, 96, 1)),
    *((14, 3, 240, 96, 2), (7, 3, 240, 160, 1), (7, 3, 336, 160, 1)),
    *((28, 5, 3, 64, 1), (14, 5, 64, 64, 1)),
    *((28, 3, 3, 16, 1), (28, 3, 16, 16, 1), (14, 3, 32, 32, 1), (7, 3, 64, 64, 1)),
    *((64, 7, 3, 64, 2), (16, 3, 64, 64, 1), (8, 3, 128, 128, 1), (4, 3, 256, 256, 1)),
    *((2, 3, 512, 512, 1), (16, 3, 64, 128, 2)),
)
PARTS, GROUP = (8, 16, 32), 16


def same_pads(x: jax.Array, kernel: jax.Array, stride: int) -> list[tuple[int, int]]:
    """Returns the zeros around maps that XLA's "SAME" stands for."""
    return lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride,) * 2, "SAME")


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves as XLA does."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", dimension_numbers=layout)


def by_copies(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves by one product with shifted copies."""
    window = kernel.shape[0]
    sides = [-(-side // stride) for side in x.shape[1:3]]
    padded = jnp.pad(x, [(0, 0), *same_pads(x, kernel, stride), (0, 0)])
    rows, columns = (stride * (side - 1) + 1 for side in sides)
    copies = [
        padded[:, i : i + rows : stride, j : j + columns : stride]
        for i in range(window)
        for j in range(window)
    ]
    return jnp.concatenate(copies, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


Gradient = Callable[[jax.Array, jax.Array, jax.Array, int], jax.Array]


def kernel_gradient(function: Callable) -> Gradient:
    """Returns the kernel's gradient of a convolution as a function of (x, kernel, gradient, stride)."""

    def whole(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
        return jax.vjp(lambda kernel: function(x, kernel, stride), kernel)[1](gradient)[0]

    return whole


def in_parts(images: int) -> Gradient:
    """Returns the kernel's gradient as a sum over parts of so many images."""
    whole = kernel_gradient(convolve)

    def summed(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
        parts = [slice(i, i + images) for i in range(0, len(x), images)]
        return sum(
            (whole(x[part], kernel, gradient[part], stride) for part in parts),
            jnp.zeros_like(kernel),
        )

    return summed


def in_groups(features: int) -> Gradient:
    """Returns the kernel's gradient, computed for so many output features at once."""
    whole = kernel_gradient(convolve)

    def joined(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
        groups = [slice(i, i + features) for i in range(0, kernel.shape[-1], features)]
        return jnp.concatenate(
            [whole(x, kernel[..., group], gradient[..., group], stride) for group in groups],
            axis=-1,
        )

    return joined


def winograd_forward(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves by Winograd's filtering."""
    assert stride == 1
    return winograd.convolve(x, kernel, same_pads(x, kernel, stride))


def winograd_kernel_gradient(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int
) -> jax.Array:
    """Returns the kernel's gradient by Winograd's filtering."""
    assert stride == 1
    return winograd.kernel_gradient(x, gradient, same_pads(x, kernel, stride))


def seconds_of(function: Callable, *arguments: np.ndarray, stride: int) -> float:
    """Returns how long one call takes, the least of many, on all devices at once."""
    mapped = jax.pmap(lambda *arrays: function(*arrays, stride), in_axes=0)
    parts = parallel.put_shards(arguments)
    jax.block_until_ready(mapped(*parts))
    taken, began = [], time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        jax.block_until_ready(mapped(*parts))
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Prints a table in GFLOP/s."""
    print(f"JAX {jax.__version__}, {DEVICES} devices, batch {BATCH}; GFLOP/s")
    parts = [f"of {images} images" for images in PARTS]
    columns = ["map, kernel, stride", "forward", "input", "kernel", *parts, "of 16 features"]
    columns += ["copies", "forward, Winograd", "kernel, Winograd"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    rng = np.random.default_rng(0)
    for side, window, channels, features, stride in SHAPES:
        out = -(-side // stride)
        n = BATCH // DEVICES
        x = rng.normal(size=(DEVICES, n, side, side, channels)).astype(np.float32)
        kernel = rng.normal(size=(DEVICES, window, window, channels, features)).astype(np.float32)
        gradient = rng.normal(size=(DEVICES, n, out, out, features)).astype(np.float32)
        flops = 2 * BATCH * out**2 * window**2 * channels * features

        def rate(function: Callable, *arrays: np.ndarray) -> str:
            return f"{flops / seconds_of(function, *arrays, stride=stride) / 1e9:.0f}"  # noqa: B023

        def input_gradient(
            x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int
        ) -> jax.Array:
            return jax.vjp(lambda x: convolve(x, kernel, stride), x)[1](gradient)[0]

        cells = [rate(convolve, x, kernel), rate(input_gradient, x, kernel, gradient)]
        cells.append(rate(kernel_gradient(convolve), x, kernel, gradient))
        cells += [rate(in_parts(images), x, kernel, gradient) for images in PARTS]
        cells.append(rate(in_groups(GROUP), x, kernel, gradient))
        cells.append(rate(kernel_gradient(by_copies), x, kernel, gradient))
        cells += [
            rate(function, *arrays) if stride == 1 and window <= 5 else ""
            for function, arrays in (
                (winograd_forward, (x, kernel)),
                (winograd_kernel_gradient, (x, kernel, gradient)),
            )
        ]
        name = f"{side}², {window}×{window} {channels}→{features}, {stride}"
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
