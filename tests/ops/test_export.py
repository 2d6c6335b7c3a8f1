"""Training is lowered for GPUs and TPUs here, where there is neither: what they could not run is seen without them."""

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


def lowered(what, model, input_shape, platforms=ACCELERATORS, *, optimizer=None, mesh=None, **options):
    """A program as it is handed to XLA; nothing of it runs, nothing is compiled."""
    optimizer = optimizer or optax.adam(1e-3)
    key = jax.eval_shape(lambda: jax.random.key(0))
    init = functools.partial(train.create_train_state, model, optimizer, input_shape=input_shape)
    ts = jax.eval_shape(lambda key: init(key, ema=options.get("ema_decay") is not None), key)
    everywhere, cut = None, None
    if mesh is not None:
        everywhere, cut = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(None, "data"))
        key, ts = jax.tree.map(lambda leaf: array(leaf.shape, leaf.dtype, sharding=everywhere), (key, ts))
    batch = train.Batch(array((BATCH, *input_shape), np.uint8), array((BATCH,), np.int32), array((BATCH,), bool))
    step = train.make_train_step(model, optimizer, jit=False, **options)
    if what == "chunk":
        images = array((EXAMPLES, *input_shape), np.uint8, sharding=everywhere)
        labels = array((EXAMPLES,), np.int32, sharding=everywhere)
        rows = array((STEPS, BATCH), np.int32, sharding=cut)
        program, args = make_execution(step, DeviceLoader.fetch), (ts, key, True, rows, images, labels)
    elif what == "step":
        program, args = (lambda ts, key, batch: step(ts, batch, key)), (ts, key, batch)
    else:

        def program(params, state, batch):
            logits, _ = model.apply(params, state, to_float(batch.image), train=False)
            return measure(train.Classification(), logits, batch.label, batch.mask), logits

        args = ts.params, ts.state, batch
    return export.export(jax.jit(program), platforms=platforms)(*args)


def count(exported, op):
    return len(re.findall(rf"stablehlo\.{op}\b", exported.mlir_module()))


def times(n):
    """A product is written down once for both platforms, or once for each."""
    return {n, len(ACCELERATORS) * n}


# Convolutions and dense layers; each has three products in training: its value and two gradients, but for the pixels'.
PRODUCTS = {"lenet5": (2, 3), "mnist_cnn": (3, 2), "resnet20": (19, 1)}


def otherwise(model, input_shape, passes):
    """How many passes of the first layer, whose channels are few, a CPU takes by something else than a convolution."""
    kernel = jax.eval_shape(lambda: model.init(jax.random.key(0), input_shape))[0]["conv1"]["kernel"]
    kind = autotune.conv_category(*kernel.shape[-2:], 1)
    return sum(autotune.best_lowering(wanted, kind) != "library" for wanted in passes)


@pytest.mark.parametrize(
    ("name", "what", "dtype"),
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
def test_every_convolution_is_of_the_form_that_its_platform_is_fast_at(name, what, dtype):
    model, input_shape = models.create_model(name, 10), models.get_model(name).input_shape
    conv, dense = PRODUCTS[name]
    if what != "eval":
        conv, dense = 3 * conv - 1, 3 * dense
    elsewhere = lowered(what, model, input_shape, dtype=dtype)
    assert elsewhere.platforms == ACCELERATORS
    assert count(elsewhere, "convolution") in times(conv) and count(elsewhere, "dot_general") in times(dense)
    if what != "step":  # a chunk has the same
        here = lowered(what, model, input_shape, ("cpu",), dtype=dtype).mlir_module()
        convolutions = re.findall(r"stablehlo\.convolution.*", here)
        assert len(convolutions) >= conv - otherwise(model, input_shape, ("y",) if what == "eval" else ("y", "kernel"))
        for each in convolutions:
            assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in each and "xf32>, tensor" in each
            assert not re.search(r"lhs_dilate|reverse = \[true|pad = [^}]*\[-|pad = [^}]*, -", each)
    half = re.findall(r"stablehlo\.convolution.* : \(tensor<\S+xbf16>, tensor<\S+xbf16>\).*", elsewhere.mlir_module())
    assert len(half) == (count(elsewhere, "convolution") if dtype == "bfloat16" else 0)
    # XLA for NVIDIA would widen the factors of a convolution whose result is wider, and multiply in float32.
    assert all(re.search(r"-> tensor<\S+xbf16>", each) for each in half)


@pytest.mark.parametrize("name", train.OPTIMIZERS)
def test_every_optimiser_is_lowered(name):
    optimizer = train.make_optimizer(name, 1e-3, "one_cycle", 10, warmup_steps=2, weight_decay=1e-3, max_grad_norm=1.0)
    exported = lowered("step", serial(Conv(4, 3), relu, flatten, Dense(3)), (7, 6, 1), optimizer=optimizer)
    assert count(exported, "convolution") in times(2)


def test_every_augmentation_and_option_is_lowered():
    image, mix = augment.parse_augmentations(("hflip", "translate:1", "rotate:15", "cutout:2", "mixup:0.2"))
    exported = lowered(
        "chunk",
        serial(Conv(4, 3), relu, flatten, Dense(3)),
        (7, 6, 3),
        augment=image,
        mixup_fn=mix,
        label_smoothing=0.1,
        grad_accumulation=2,
        ema_decay=0.99,
    )
    assert count(exported, "convolution") in times(2)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "all_cnn_c_48", "vgg6_bn", "resnet20"])
def test_a_network_is_exported_for_batches_of_any_size(name, rng):
    model, input_shape = models.create_model(name, 10), models.get_model(name).input_shape
    params, state = model.init(jax.random.key(0), input_shape)
    check_any_batch(lambda x: model.apply(params, state, x)[0], input_shape, rng)


@pytest.mark.parametrize("impl", ops.LOWERINGS)
def test_every_lowering_is_exported_for_batches_of_any_size(impl, rng):
    kernel = rng.normal(size=(3, 2, 2, 4)).astype(np.float32)
    check_any_batch(lambda x: ops.conv(x, kernel, impl=impl, stride=2), (7, 6, 2), rng)


def test_every_pool_is_exported_for_batches_of_any_size(rng):
    for pool in (ops.max_pool, ops.avg_pool, ops.lp_pool):
        for stride in (2, 1):  # whose windows are side by side, or share pixels
            check_any_batch(lambda x, pool=pool, stride=stride: pool(x, 2, stride=stride), (7, 6, 2), rng)
    for pool in (ops.global_max_pool, ops.global_avg_pool):
        check_any_batch(pool, (7, 6, 2), rng)
    for pool in (ops.adaptive_max_pool, ops.adaptive_avg_pool):
        check_any_batch(lambda x, pool=pool: pool(x, (3, 2)), (7, 6, 2), rng)


def check_any_batch(function, input_shape, rng):
    batch = export.symbolic_shape("batch")[0]
    exported = export.export(jax.jit(function))(array((batch, *input_shape), np.float32))
    for n in (1, 3):
        x = rng.normal(size=(n, *input_shape)).astype(np.float32)
        np.testing.assert_allclose(exported.call(x), function(x), rtol=1e-4, atol=1e-5)


def test_a_chunk_for_eight_devices_is_lowered():
    mesh = AbstractMesh((8,), ("data",), axis_types=(AxisType.Auto,))  # as of distributed.create_mesh
    exported = lowered("chunk", models.create_model("lenet5", 10), (32, 32, 1), mesh=mesh)
    assert exported.nr_devices == 8 and count(exported, "convolution") in times(5)


@pytest.mark.parametrize("platform", ACCELERATORS)
def test_what_an_accelerator_cannot_run_is_seen(platform):
    def schur(x):  # LAPACK's, on a CPU alone
        return x.at[:, :3, :3, 0].set(jax.scipy.linalg.schur(x[0, :3, :3, 0])[0])

    model = serial(schur, Conv(4, 3), flatten, Dense(3))
    lowered("eval", model, (7, 6, 1), ("cpu",))
    with pytest.raises(NotImplementedError, match=f"schur.*{platform}"):
        lowered("eval", model, (7, 6, 1), (platform,))
