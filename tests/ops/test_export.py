"""Lowering of training for GPUs and TPUs, which detects unsupported operations without such a device."""

import functools
import re

import jax
import numpy as np
import optax
import pytest
from jax import export
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from jaxconv import Conv, Dense, flatten, models, ops, relu, serial, train
from jaxconv.data import augment
from jaxconv.ops.convolution.cpu import autotune
from jaxconv.train.engine import make_execution
from jaxconv.train.loaders import DeviceLoader
from jaxconv.train.pixels import to_float
from jaxconv.train.tasks import measure

pytestmark = pytest.mark.usefixtures("promoting")
ACCELERATORS = ("cuda", "tpu")
BATCH, STEPS, EXAMPLES = 8, 3, 20


array = jax.ShapeDtypeStruct


def lowered(kind, model, input_shape, platforms=ACCELERATORS, *, optimizer=None, mesh=None, **options):
    """Export a training program as StableHLO, without compiling or running it."""
    optimizer = optimizer or optax.adam(1e-3)
    key = jax.eval_shape(lambda: jax.random.key(0))
    init = functools.partial(train.create_train_state, model, optimizer, input_shape=input_shape)
    train_state = jax.eval_shape(lambda key: init(key, ema=options.get("ema_decay") is not None), key)
    replicated, batch_sharded = None, None
    if mesh is not None:
        replicated = NamedSharding(mesh, PartitionSpec())
        batch_sharded = NamedSharding(mesh, PartitionSpec(None, "data"))
        key, train_state = jax.tree.map(
            lambda leaf: array(leaf.shape, leaf.dtype, sharding=replicated), (key, train_state)
        )
    batch = train.Batch(array((BATCH, *input_shape), np.uint8), array((BATCH,), np.int32), array((BATCH,), bool))
    step = train.make_train_step(model, optimizer, jit=False, **options)
    if kind == "chunk":
        images = array((EXAMPLES, *input_shape), np.uint8, sharding=replicated)
        labels = array((EXAMPLES,), np.int32, sharding=replicated)
        rows = array((STEPS, BATCH), np.int32, sharding=batch_sharded)
        program, args = make_execution(step, DeviceLoader.fetch), (train_state, key, True, rows, images, labels)
    elif kind == "step":
        program, args = (lambda train_state, key, batch: step(train_state, batch, key)), (train_state, key, batch)
    else:

        def program(params, state, batch):
            logits, _ = model.apply(params, state, to_float(batch.image), train=False)
            return measure(train.Classification(), logits, batch.label, batch.mask), logits

        args = train_state.params, train_state.state, batch
    return export.export(jax.jit(program), platforms=platforms)(*args)


def count(exported, op):
    return len(re.findall(rf"stablehlo\.{op}\b", exported.mlir_module()))


def per_platform(n):
    """Possible counts of an operation: once for both platforms, or once for each."""
    return {n, len(ACCELERATORS) * n}


# Numbers of convolutions and dense layers. Training has three products per layer, less the gradient of the images.
PRODUCTS = {"lenet5": (2, 3), "mnist_cnn": (3, 2), "resnet20": (19, 1)}


def num_other_lowerings(model, input_shape, passes):
    """Number of passes of the first layer, which has few channels, that a CPU does not lower to a convolution."""
    kernel = jax.eval_shape(lambda: model.init(jax.random.key(0), input_shape))[0]["conv1"]["kernel"]
    category = autotune.conv_category(*kernel.shape[-2:], 1)
    return sum(autotune.best_lowering(output, category) != "library" for output in passes)


@pytest.mark.parametrize(
    ("name", "kind", "dtype"),
    [
        ("lenet5", "chunk", "float32"),
        ("lenet5", "step", "bfloat16"),
        ("lenet5", "eval", "float32"),
        ("mnist_cnn", "chunk", "bfloat16"),
        ("mnist_cnn", "step", "float32"),
        ("mnist_cnn", "eval", "float32"),
        ("resnet20", "chunk", "float32"),
        ("resnet20", "step", "bfloat16"),
        ("resnet20", "eval", "float32"),
    ],
)
def test_convolutions_are_lowered_for_their_platform(name, kind, dtype):
    model, input_shape = models.create_model(name, 10), models.get_model(name).input_shape
    conv, dense = PRODUCTS[name]
    if kind != "eval":
        conv, dense = 3 * conv - 1, 3 * dense
    exported = lowered(kind, model, input_shape, dtype=dtype)
    assert exported.platforms == ACCELERATORS
    assert count(exported, "convolution") in per_platform(conv)
    assert count(exported, "dot_general") in per_platform(dense)
    if kind != "step":  # the step is part of a chunk
        cpu_text = lowered(kind, model, input_shape, ("cpu",), dtype=dtype).mlir_module()
        convolutions = re.findall(r"stablehlo\.convolution.*", cpu_text)
        passes = ("y",) if kind == "eval" else ("y", "kernel")
        assert len(convolutions) >= conv - num_other_lowerings(model, input_shape, passes)
        for convolution in convolutions:
            assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in convolution and "xf32>, tensor" in convolution
            assert not re.search(r"lhs_dilate|reverse = \[true|pad = [^}]*\[-|pad = [^}]*, -", convolution)
    half = re.findall(r"stablehlo\.convolution.* : \(tensor<\S+xbf16>, tensor<\S+xbf16>\).*", exported.mlir_module())
    assert len(half) == (count(exported, "convolution") if dtype == "bfloat16" else 0)
    # On NVIDIA GPUs XLA would cast the inputs of a convolution with a wider output, and multiply in float32.
    assert all(re.search(r"-> tensor<\S+xbf16>", convolution) for convolution in half)


@pytest.mark.parametrize("name", train.OPTIMIZERS)
def test_optimizers_are_lowered(name):
    optimizer = train.make_optimizer(name, 1e-3, "one_cycle", 10, warmup_steps=2, weight_decay=1e-3, max_grad_norm=1.0)
    exported = lowered("step", serial(Conv(4, 3), relu, flatten, Dense(3)), (7, 6, 1), optimizer=optimizer)
    assert count(exported, "convolution") in per_platform(2)


def test_augmentations_and_options_are_lowered():
    image_fn, mixup_fn = augment.parse_augmentations(("hflip", "translate:1", "rotate:15", "cutout:2", "mixup:0.2"))
    exported = lowered(
        "chunk",
        serial(Conv(4, 3), relu, flatten, Dense(3)),
        (7, 6, 3),
        augment=image_fn,
        mixup_fn=mixup_fn,
        label_smoothing=0.1,
        grad_accumulation=2,
        ema_decay=0.99,
    )
    assert count(exported, "convolution") in per_platform(2)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "all_cnn_c_48", "vgg6_bn", "resnet20"])
def test_networks_are_exported_with_symbolic_batch(name, rng):
    model, input_shape = models.create_model(name, 10), models.get_model(name).input_shape
    params, state = model.init(jax.random.key(0), input_shape)
    check_symbolic_batch(lambda x: model.apply(params, state, x)[0], input_shape, rng)


@pytest.mark.parametrize("impl", ops.LOWERINGS)
def test_lowerings_are_exported_with_symbolic_batch(impl, rng):
    kernel = rng.normal(size=(3, 2, 2, 4)).astype(np.float32)
    check_symbolic_batch(lambda x: ops.conv(x, kernel, impl=impl, stride=2), (7, 6, 2), rng)


def test_pools_are_exported_with_symbolic_batch(rng):
    for pool in (ops.max_pool, ops.avg_pool, ops.lp_pool):
        for stride in (2, 1):  # non-overlapping and overlapping windows
            check_symbolic_batch(lambda x, pool=pool, stride=stride: pool(x, 2, stride=stride), (7, 6, 2), rng)
    for pool in (ops.global_max_pool, ops.global_avg_pool):
        check_symbolic_batch(pool, (7, 6, 2), rng)
    for pool in (ops.adaptive_max_pool, ops.adaptive_avg_pool):
        check_symbolic_batch(lambda x, pool=pool: pool(x, (3, 2)), (7, 6, 2), rng)


def check_symbolic_batch(function, input_shape, rng):
    batch = export.symbolic_shape("batch")[0]
    exported = export.export(jax.jit(function))(array((batch, *input_shape), np.float32))
    for n in (1, 3):
        x = rng.normal(size=(n, *input_shape)).astype(np.float32)
        np.testing.assert_allclose(exported.call(x), function(x), rtol=1e-4, atol=1e-5)


def test_chunk_for_eight_devices_is_lowered():
    mesh = AbstractMesh((8,), ("data",), axis_types=(AxisType.Auto,))  # as in distributed.create_mesh
    exported = lowered("chunk", models.create_model("lenet5", 10), (32, 32, 1), mesh=mesh)
    assert exported.nr_devices == 8 and count(exported, "convolution") in per_platform(5)


@pytest.mark.parametrize("platform", ACCELERATORS)
def test_op_without_accelerator_lowering_raises(platform):
    def schur(x):  # LAPACK, available on a CPU only
        return x.at[:, :3, :3, 0].set(jax.scipy.linalg.schur(x[0, :3, :3, 0])[0])

    model = serial(schur, Conv(4, 3), flatten, Dense(3))
    lowered("eval", model, (7, 6, 1), ("cpu",))
    with pytest.raises(NotImplementedError, match=f"schur.*{platform}"):
        lowered("eval", model, (7, 6, 1), (platform,))
