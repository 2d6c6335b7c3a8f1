"""Data sets of TensorFlow Datasets, read without TensorFlow."""

import dataclasses
import difflib
import functools
import importlib.util
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxconv.data.base import LazySplit
from jaxconv.data.splits import PartialDataset
from jaxconv.errors import InputError
from jaxconv.utils.progress import map_chunks

SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def load_tfds(place: str) -> PartialDataset:
    """A data set of https://www.tensorflow.org/datasets/catalog, such as ``mnist`` or ``emnist/letters``.

    It lies in ``$TFDS_DATA_DIR`` (``~/tensorflow_datasets`` if that is not set), in the format array_record, which is
    read without TensorFlow. One that is not there is downloaded and prepared once, and this does need TensorFlow; files
    in the folder ``downloads/manual`` there are used instead of downloading, as TFDS has it.

    The parts are the splits ``train``, ``validation`` and ``test``; others are not used, nor a test split whose labels
    are not public. An example has to have one image of uint8 and one class.

    Raises:
        InputError: no tensorflow-datasets, no such data set, one that is not prepared and cannot be, or examples that
            are no images with a class.
    """
    name = f"tfds:{place}"
    builder = _prepared(name, place)
    image, label = _keys(name, builder.info)
    splits = {}
    for split, part in SPLITS.items():
        if split in builder.info.splits:
            found = _split(f"{name}: {split}", builder, split, image, label)
            if part == "train" or not (found.labels < 0).all():
                splits[part] = found
    if "train" not in splits:
        raise InputError(f"{name} has the splits {', '.join(builder.info.splits)}, but no train")
    return PartialDataset(name, tuple(builder.info.features[label].names), **splits)


def _prepared(name: str, place: str) -> Any:
    """TFDS's builder of a data set that is ready to be read."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise InputError(f'{name} needs tensorflow-datasets: pip install "jaxconv[tfds]"') from None
    try:
        if tfds.core.naming.parse_builder_name_kwargs(place)[0].namespace:
            raise InputError(f"{name} is of a community, whose code would be run; only TFDS's own data sets are read")
        builder = tfds.builder(place, data_dir=os.environ.get("TFDS_DATA_DIR"), file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        near = difflib.get_close_matches(place, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"{name}: unknown data set {place!r}: {hint}Known: https://www.tensorflow.org/datasets/catalog"
        ) from None
    except InputError:
        raise
    except Exception as error:  # TFDS has many for a config, a version or a file that it does not know
        raise InputError(f"{name} cannot be opened: {_short(error)}") from None
    if builder.is_prepared():
        return builder
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"{name} is not prepared in {builder.data_dir}, and to prepare it, once, TensorFlow is needed: "
            f"pip install tensorflow-cpu, or copy that folder from where tfds build {place} "
            "--file_format=array_record has made it"
        )
    config = tfds.download.DownloadConfig(try_download_gcs=False)  # what lies there is not in array_record
    try:
        builder.download_and_prepare(file_format="array_record", download_config=config)
    except Exception as error:  # of a download, a checksum, a file system, or the data set's own code
        manual = Path(builder.data_dir_root) / "downloads" / "manual"
        raise InputError(
            f"{name} could not be prepared: {_short(error)}. Check the network, or put its files into {manual}"
        ) from None
    return builder


def _short(error: Exception) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 400, placeholder=" …")


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Under which names an example has its image and its class."""
    import tensorflow_datasets as tfds

    keys = info.supervised_keys or ("image", "label")
    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    if len(keys) == 2 and all(isinstance(key, str) for key in keys):
        image, label = (features.get(key) for key in keys)
        pictures = isinstance(image, tfds.features.Image) and np.dtype(image.np_dtype) == np.uint8
        if pictures and isinstance(label, tfds.features.ClassLabel):
            return keys
    has = ", ".join(f"{key} ({feature!r})" for key, feature in sorted(features.items())) or repr(info.features)
    raise InputError(f"{name} has {has}; wanted an Image of uint8 and a ClassLabel")


def _split(name: str, builder: Any, split: str, image: str, label: str) -> LazySplit:
    """A split of which only the labels are read; that takes a look at every record."""
    import tensorflow_datasets as tfds

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    records = builder.as_data_source(split, deserialize_method=raw)
    skip = {image: tfds.decode.SkipDecoding()}
    numbers = range(len(records))
    labels = [
        example[label]
        for some in map_chunks(functools.partial(_examples, records, decoders=skip), numbers, f"{name}: labels")
        for example in some
    ]
    image_shape = _examples(records, [0])[0][image].shape
    return LazySplit(numbers, np.array(labels, np.int32), image_shape, _Images(name, records, image, image_shape))


def _examples(records: Any, numbers: Sequence[int], decoders: Any = None) -> list[Any]:
    features = records.dataset_info.features
    return [features.deserialize_example_np(r, decoders=decoders) for r in records.__getitems__(list(numbers))]


@dataclasses.dataclass(frozen=True, eq=False)
class _Images:
    """What reads the images of some records; it can be pickled, as TFDS's data sources can."""

    name: str
    records: Any
    image: str
    image_shape: tuple[int, int, int]

    def __call__(self, numbers: Sequence[int]) -> np.ndarray:
        images = [example[self.image] for example in _examples(self.records, numbers)]
        for number, image in zip(numbers, images, strict=True):
            if image.shape != self.image_shape:
                raise InputError(
                    f"{self.name} has images of more than one size: record 0 is {self.image_shape}, record {number} "
                    f"{image.shape}; jaxconv takes images of one size"
                )
        return np.stack(images)
