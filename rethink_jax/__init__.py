"""Zhang et al. 2017, *Understanding deep learning requires rethinking generalization*, in JAX and Flax.

The command line, `python -m rethink_jax.main --config=configs/random_pixels.py:digits`, runs every experiment.
From Python, this is public:

- `config.train` and its neighbours return configs, `data.from_arrays` takes your own arrays;
- `training.train.run` trains, `training.load.load_run` reads a run, `report.contents.write` reports on runs;
- `corruptions` has the six corruptions and their keys, `pipeline.preprocess.whiten` the paper's whitening;
- `models.create` builds the networks;
- `kernels.kernel` and `kernels.features` have the kernels and what they see;
- `theory.theorem1` has the construction of Theorem 1.

Example:
  >>> import numpy as np
  >>> from rethink_jax import config, data
  >>> from rethink_jax.training import load, train
  >>> rng = np.random.default_rng(0)
  >>> images = rng.integers(0, 256, (40, 8, 8), np.uint8)
  >>> labels = rng.integers(0, 2, 40)
  >>> dataset = data.from_arrays((images, labels), (images[:8], labels[:8]))
  >>> settings = config.train("arrays", corruption="random_labels")
  >>> settings.model.width, settings.epochs = 16, 2
  >>> summary = train.run(settings, "runs/mine", dataset)
  epoch 1 ...
  >>> summary["status"], summary["epochs"]
  ('finished', 2.0)
  >>> load.load_run("runs/mine").metrics[-1]["step"]
  2
"""
