"""Data parallelism: a mesh of devices, and the sharding of arrays over it. Any number of devices runs the same step.

    mesh = distributed.create_mesh()                                   # a 1-D mesh of all devices of all processes
    fitted = train.fit(…, mesh=mesh)

The batch is sharded along its first axis; all other arrays are replicated. The compiler inserts the communication: sums
over the batch (loss, gradients, batch norm statistics) become sums over all devices. Without a mesh, the functions
below leave arrays on the default device.
"""

import hashlib
import threading
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxconv import checks
from jaxconv.errors import InputError, named_errors

AXIS = "data"


@named_errors(name="distributed.initialize")
def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 120,
) -> None:
    """Connect the processes of a multi-host program: call it in every process, before any other function of jax.

    On a TPU pod slice, and under Slurm or Open MPI, jax detects the other processes: leave out the three arguments, or
    pass ``"auto"`` as the address.

    Args:
        coordinator_address: ``host:port`` of process 0, with a free port that the other processes can reach.
        num_processes: number of processes.
        process_id: index of this process, from 0.
        timeout: seconds to wait for the other processes.

    Raises:
        InputError: if only some of the three arguments are given, one is out of range, the port is in use, jax is
            initialized already, no cluster is detected, or the other processes do not connect in time.

    >>> initialize("localhost:1234", num_processes=2)
    Traceback (most recent call last):
    jaxconv.errors.InputError: distributed.initialize: without process_id: give coordinator_address, \
num_processes and process_id, or none
    """
    coordinator_address = None if coordinator_address == "auto" else coordinator_address
    arguments = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in arguments.items() if value is None]
    if 0 < len(missing) < len(arguments):
        raise InputError(
            f"without {' and '.join(missing)}: give coordinator_address, num_processes and process_id, or none"
        )
    if coordinator_address is not None and num_processes is not None and process_id is not None:
        checks.at_least(1, num_processes=num_processes)
        checks.at_least(0, process_id=process_id)
        if process_id >= num_processes:
            raise InputError(f"process_id={process_id} should be from 0 to {num_processes - 1}")
        host, _, port = coordinator_address.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise InputError(f"coordinator_address={coordinator_address!r} should be host:port, such as 10.0.0.1:1234")
    connected: Future[None] = Future()

    def connect() -> None:
        try:
            jax.distributed.initialize(
                coordinator_address,
                num_processes,
                process_id,
                initialization_timeout=int(timeout) + 60,
                shutdown_timeout_seconds=60,
            )
            connected.set_result(None)
        except Exception as error:
            connected.set_exception(error)

    # Connect in a thread, which can be abandoned: after its own timeout jax would terminate the whole program.
    threading.Thread(target=connect, daemon=True).start()
    try:
        connected.result(timeout)
    except TimeoutError:
        raise InputError(
            f"not all processes connected to {coordinator_address or 'auto'} within {timeout:g} s: start each with the "
            "same address and number of processes, and check that they can reach each other"
        ) from None
    except (RuntimeError, ValueError) as error:
        if missing and isinstance(error, ValueError):
            raise InputError("jax detects no cluster: give coordinator_address, num_processes and process_id") from None
        raise InputError(f"{str(error).splitlines()[0]} (coordinator_address={coordinator_address!r})") from None


@named_errors(name="distributed.create_mesh")
def create_mesh(num_devices: int | None = None) -> Mesh:
    """Create a mesh with one axis, ``"data"``.

    Args:
        num_devices: number of devices; by default all devices of all processes.

    Raises:
        InputError: if ``num_devices`` exceeds the number of devices or, with several processes, is below it.

    >>> dict(create_mesh(1).shape)
    {'data': 1}
    """
    # Sort by process, as the local part of a batch must be contiguous; on a TPU slice, ids of one host may not be.
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if num_devices is not None and not 1 <= num_devices <= len(devices):
        suggestion = ""
        if devices[0].platform == "cpu":
            suggestion = f'; XLA_FLAGS="--xla_force_host_platform_device_count={num_devices}" simulates them on one CPU'
        raise InputError(f"num_devices={num_devices}, but there are {len(devices)}{suggestion}")
    if num_devices not in (None, len(devices)) and jax.process_count() > 1:
        raise InputError(
            f"num_devices={num_devices} would leave out some of {jax.process_count()} processes: use all "
            f"{len(devices)} devices"
        )
    return Mesh(np.array(devices[:num_devices]), (AXIS,), axis_types=(AxisType.Auto,))


def replicate(mesh: Mesh | None, tree: Any) -> Any:
    """Copy the arrays of a tree to every device; every process passes the complete tree.

    Raises:
        InputError: if the processes pass different arrays.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    assert_equal("arrays", [leaf for leaf in jax.tree.leaves(tree) if getattr(leaf, "is_fully_addressable", True)])
    return jax.jit(lambda tree: tree, out_shardings=sharding)(tree)


def shard(mesh: Mesh | None, tree: Any, axis: int = 0) -> Any:
    """Shard the arrays of a tree along an axis; each process passes the part of its own devices."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, np.asarray(array)), tree)


def assert_equal(description: str, tree: Any) -> None:
    """Raise InputError unless a tree is equal in all processes; a barrier, so call it in every process.

    Args:
        description: plural noun for the error message, such as ``"settings"``.
        tree: arrays, or values whose ``repr`` is equal if they are equal.

    Raises:
        InputError: in every process, if the trees differ; or if another process has stopped.

    >>> assert_equal("settings", {"seed": 0})
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=lambda leaf: leaf is None):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        digest.update(f"{path}{np.shape(leaf)}".encode())
        digest.update(np.asarray(leaf).tobytes() if isinstance(leaf, jax.Array | np.ndarray) else repr(leaf).encode())
    try:
        digests = multihost_utils.process_allgather(np.frombuffer(digest.digest(), np.uint32))
    except jax.errors.JaxRuntimeError as error:
        raise InputError("another process has stopped; see its output for the reason") from error
    if differing := np.flatnonzero((digests != digests[0]).any(axis=1)).tolist():
        raise InputError(
            f"{description} of process {differing[0]} differ from those of process 0: give all processes the same"
        )


def is_main_process() -> bool:
    """Return True on process 0, which writes files and logs.

    >>> is_main_process()
    True
    """
    return jax.process_index() == 0


def broadcast_from_main(value: bool) -> bool:
    """Return the value of process 0 in every process, for decisions that depend on its clock or files.

    >>> broadcast_from_main(True)
    True
    """
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def local_batch_slice(batch_size: int) -> slice:
    """Return the slice of a global batch that this process provides."""
    local_size = batch_size // jax.process_count()
    return slice(jax.process_index() * local_size, (jax.process_index() + 1) * local_size)


def process_allgather(array: jax.Array) -> np.ndarray:
    """Return a complete array in every process, gathering the shards of other processes."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def with_auto_axes(mesh: Mesh | None) -> Mesh | None:
    """Return the mesh with axes of type Auto, on which XLA chooses the sharding of intermediate arrays.

    Axes of ``jax.make_mesh`` are Explicit: operations would have to specify the sharding of their outputs.

    >>> with_auto_axes(jax.make_mesh((1,), ("data",))).axis_types
    (Auto,)
    """
    if mesh is None:
        return None
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def check_batch_divisible(mesh: Mesh | None, batch_size: int, caller: str) -> None:
    """Raise InputError if a batch cannot be sharded equally, or there are several processes but no mesh."""
    if mesh is not None and batch_size % mesh.size:
        closest = max(mesh.size, round(batch_size / mesh.size) * mesh.size)
        error = InputError(f"batch_size={batch_size} is not divisible by {mesh.size} devices; use {closest}")
        raise error.from_source(caller)
    if mesh is None and jax.process_count() > 1:
        error = InputError(f"there are {jax.process_count()} processes: give mesh=distributed.create_mesh()")
        raise error.from_source(caller)
