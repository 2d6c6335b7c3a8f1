"""Many devices: a mesh of them, and where each array lies on it. The same training step runs on one and on all.

    mesh = distributed.create_mesh()                                   # all devices of all processes, in a row
    fitted = train.fit(…, mesh=mesh)

The batch is cut along its first axis, a piece for each device; everything else is the same everywhere. The compiler
adds what that needs: sums over the batch (the loss, its gradient, the statistics of batch norm) become sums over all
devices. Without a mesh everything below leaves arrays where jax puts them.
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
    """Join the processes of one program, one a host: call it in each, before anything else of jax.

    On a TPU pod slice, and under Slurm or Open MPI, jax finds the other processes by itself: leave all three out, or
    give ``"auto"`` for the address.

    Args:
        coordinator_address: ``host:port`` of process 0, a free port there that the others can reach.
        num_processes: how many there are.
        process_id: this one's number, from 0.
        timeout: how many seconds to wait for the others.

    Raises:
        InputError: some of the three but not all, a number out of range, a port that is taken, jax already in use, no
            cluster to be found, or others that do not come.

    >>> initialize("localhost:1234", num_processes=2)
    Traceback (most recent call last):
    jaxconv.errors.InputError: distributed.initialize: without process_id: give coordinator_address, \
num_processes and process_id, or none
    """
    coordinator_address = None if coordinator_address == "auto" else coordinator_address
    asked = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in asked.items() if value is None]
    if 0 < len(missing) < len(asked):
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
    joined: Future[None] = Future()

    def join() -> None:
        try:
            jax.distributed.initialize(
                coordinator_address,
                num_processes,
                process_id,
                initialization_timeout=int(timeout) + 60,
                shutdown_timeout_seconds=60,
            )
            joined.set_result(None)
        except Exception as error:
            joined.set_exception(error)

    # In a thread, which can be given up: jax itself would end the whole program when the others do not come.
    threading.Thread(target=join, daemon=True).start()
    try:
        joined.result(timeout)
    except TimeoutError:
        raise InputError(
            f"not all processes have come to {coordinator_address or 'auto'} in {timeout:g} s: start each with the "
            "same address and number of processes, and see that they can reach each other"
        ) from None
    except (RuntimeError, ValueError) as error:
        if missing and isinstance(error, ValueError):
            raise InputError(
                "jax finds no cluster that this is a part of: give coordinator_address, num_processes and process_id"
            ) from None
        raise InputError(f"{str(error).splitlines()[0]} (coordinator_address={coordinator_address!r})") from None


@named_errors(name="distributed.create_mesh")
def create_mesh(num_devices: int | None = None) -> Mesh:
    """Devices in a row, whose one axis is called ``"data"``.

    Args:
        num_devices: how many; by default all that there are, of all processes.

    Raises:
        InputError: there are not so many.

    >>> dict(create_mesh(1).shape)
    {'data': 1}
    """
    # On a TPU slice a host's devices are not always numbered one after the other: its piece of a batch has to be one.
    there = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if num_devices is not None and not 1 <= num_devices <= len(there):
        hint = ""
        if there[0].platform == "cpu":
            hint = f'; XLA_FLAGS="--xla_force_host_platform_device_count={num_devices}" makes so many of one CPU'
        raise InputError(f"num_devices={num_devices}, but there are {len(there)}{hint}")
    if num_devices not in (None, len(there)) and jax.process_count() > 1:
        raise InputError(
            f"num_devices={num_devices} would leave out some of {jax.process_count()} processes: all "
            f"{len(there)} devices take part"
        )
    return Mesh(np.array(there[:num_devices]), (AXIS,), axis_types=(AxisType.Auto,))


def replicate(mesh: Mesh | None, tree: Any) -> Any:
    """The same arrays on every device; each process gives all of them.

    Raises:
        InputError: the processes give different arrays.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    assert_equal("arrays", [leaf for leaf in jax.tree.leaves(tree) if getattr(leaf, "is_fully_addressable", True)])
    return jax.jit(lambda tree: tree, out_shardings=sharding)(tree)


def shard(mesh: Mesh | None, tree: Any, axis: int = 0) -> Any:
    """Arrays cut along an axis, a piece for each device; each process gives the pieces of its own devices."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, np.asarray(array)), tree)


def assert_equal(what: str, tree: Any) -> None:
    """Refuse to go on with what is not the same in all processes; each waits here for the others.

    Args:
        what: it is, in a word.
        tree: of arrays, or of anything that is written the same where it is the same.

    Raises:
        InputError: in every process, if it differs in one; or another process has stopped.

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
        found = multihost_utils.process_allgather(np.frombuffer(digest.digest(), np.uint32))
    except jax.errors.JaxRuntimeError as error:
        raise InputError("another process has stopped; what it said tells why") from error
    if differing := np.flatnonzero((found != found[0]).any(axis=1)).tolist():
        raise InputError(f"process {differing[0]} has other {what} than process 0: give all processes the same")


def is_main_process() -> bool:
    """Whether this is the process that writes files and speaks, which is number 0.

    >>> is_main_process()
    True
    """
    return jax.process_index() == 0


def broadcast_from_main(yes: bool) -> bool:
    """What process 0 decides, in all: for what depends on a clock or a file of its own.

    >>> broadcast_from_main(True)
    True
    """
    if jax.process_count() == 1:
        return yes
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.array(yes)))


def local_batch_slice(batch_size: int) -> slice:
    """Which examples of a batch this process has to provide."""
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def process_allgather(array: jax.Array) -> np.ndarray:
    """A whole array in the memory of every process, wherever its pieces lie."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def with_auto_axes(mesh: Mesh | None) -> Mesh | None:
    """The mesh with axes of type Auto, on which XLA decides where each array lies.

    Those of ``jax.make_mesh`` are Explicit: there every operation of a program would have to say it.

    >>> with_auto_axes(jax.make_mesh((1,), ("data",))).axis_types
    (Auto,)
    """
    if mesh is None:
        return None
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def check_batch_divisible(mesh: Mesh | None, batch_size: int, who: str) -> None:
    """Refuse a batch that cannot be cut into equal pieces."""
    if mesh is not None and batch_size % mesh.size:
        near = max(mesh.size, round(batch_size / mesh.size) * mesh.size)
        error = InputError(f"batch_size={batch_size} does not divide among {mesh.size} devices; take {near}")
        raise error.from_source(who)
    if mesh is None and jax.process_count() > 1:
        error = InputError(f"there are {jax.process_count()} processes: give mesh=distributed.create_mesh()")
        raise error.from_source(who)
