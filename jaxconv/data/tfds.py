"""Load datasets of TensorFlow Datasets (TFDS) without TensorFlow."""

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


def load_tfds(tfds_name: str) -> PartialDataset:
    """Load a dataset of https://www.tensorflow.org/datasets/catalog, such as ``mnist`` or ``emnist/letters``.

    It is read from ``$TFDS_DATA_DIR`` (default ``~/tensorflow_datasets``), in the format array_record, which does not
    require TensorFlow. A missing dataset is downloaded and prepared once, which does require TensorFlow; as usual in
    TFDS, files in the subfolder ``downloads/manual`` are used instead of downloading.

    The splits ``train``, ``validation`` (or ``val``) and ``test`` are used, except a test split without public labels.
    An example must have one uint8 image and one class label.

    Raises:
        InputError: if tensorflow-datasets is not installed, the name is unknown, the dataset cannot be prepared, or its
            examples are not images with a class label.
    """
    name = f"tfds:{tfds_name}"
    builder = _prepare(name, tfds_name)
    image_key, label_key = _feature_keys(name, builder.info)
    splits = {}
    for tfds_split, split in SPLITS.items():
        if tfds_split in builder.info.splits:
            examples = _lazy_split(f"{name}: {tfds_split}", builder, tfds_split, image_key, label_key)
            if split == "train" or not (examples.labels < 0).all():
                splits[split] = examples
    if "train" not in splits:
        raise InputError(f"{name} has the splits {', '.join(builder.info.splits)}, but no train")
    return PartialDataset(name, tuple(builder.info.features[label_key].names), **splits)


def _prepare(name: str, tfds_name: str) -> Any:
    """Return the TFDS builder of a dataset, preparing the dataset if necessary."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise InputError(f'{name} needs tensorflow-datasets: pip install "jaxconv[tfds]"') from None
    try:
        if tfds.core.naming.parse_builder_name_kwargs(tfds_name)[0].namespace:
            raise InputError(f"{name} is a community dataset, whose code would be run; only TFDS's own are supported")
        builder = tfds.builder(tfds_name, data_dir=os.environ.get("TFDS_DATA_DIR"), file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        closest = difflib.get_close_matches(tfds_name, tfds.list_builders(with_community_datasets=False), n=1)
        suggestion = f"did you mean {closest[0]!r}? " if closest else ""
        raise InputError(
            f"{name}: unknown dataset {tfds_name!r}: {suggestion}Known: https://www.tensorflow.org/datasets/catalog"
        ) from None
    except InputError:
        raise
    except Exception as error:  # TFDS raises many types for an unknown config, version or file
        raise InputError(f"{name} cannot be opened: {_truncate(error)}") from None
    if builder.is_prepared():
        return builder
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"{name} is not prepared in {builder.data_dir}, and preparing it once requires TensorFlow: "
            f"pip install tensorflow-cpu, or run tfds build {tfds_name} --file_format=array_record on another machine "
            "and copy that folder"
        )
    config = tfds.download.DownloadConfig(try_download_gcs=False)  # datasets prepared there are not in array_record
    try:
        builder.download_and_prepare(file_format="array_record", download_config=config)
    except Exception as error:  # of the download, the checksums, the file system or the dataset's own code
        manual = Path(builder.data_dir_root) / "downloads" / "manual"
        raise InputError(
            f"{name} could not be prepared: {_truncate(error)}. Check the network, or put its files into {manual}"
        ) from None
    return builder


def _truncate(error: Exception) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 400, placeholder=" …")


def _feature_keys(name: str, info: Any) -> tuple[str, str]:
    """Return the keys of an example's image and class label."""
    import tensorflow_datasets as tfds

    keys = info.supervised_keys or ("image", "label")
    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    if len(keys) == 2 and all(isinstance(key, str) for key in keys):
        image, label = (features.get(key) for key in keys)
        is_uint8_image = isinstance(image, tfds.features.Image) and np.dtype(image.np_dtype) == np.uint8
        if is_uint8_image and isinstance(label, tfds.features.ClassLabel):
            return keys
    listed = ", ".join(f"{key} ({feature!r})" for key, feature in sorted(features.items())) or repr(info.features)
    raise InputError(f"{name} has {listed}; expected an Image of uint8 and a ClassLabel")


def _lazy_split(name: str, builder: Any, split: str, image_key: str, label_key: str) -> LazySplit:
    """Read the labels of all records, without decoding the images."""
    import tensorflow_datasets as tfds

    raw_bytes = tfds.decode.DeserializeMethod.RAW_BYTES
    records = builder.as_data_source(split, deserialize_method=raw_bytes)
    skip_images = {image_key: tfds.decode.SkipDecoding()}
    indices = range(len(records))
    chunks = map_chunks(functools.partial(_read_examples, records, decoders=skip_images), indices, f"{name}: labels")
    labels = np.array([example[label_key] for chunk in chunks for example in chunk], np.int32)
    image_shape = _read_examples(records, [0])[0][image_key].shape
    return LazySplit(indices, labels, image_shape, _ImageReader(name, records, image_key, image_shape))


def _read_examples(records: Any, indices: Sequence[int], decoders: Any = None) -> list[Any]:
    features = records.dataset_info.features
    return [features.deserialize_example_np(r, decoders=decoders) for r in records.__getitems__(list(indices))]


@dataclasses.dataclass(frozen=True, eq=False)
class _ImageReader:
    """Read function of a :class:`LazySplit` of TFDS; can be pickled, like TFDS's data sources."""

    name: str
    records: Any
    image_key: str
    image_shape: tuple[int, int, int]

    def __call__(self, indices: Sequence[int]) -> np.ndarray:
        images = [example[self.image_key] for example in _read_examples(self.records, indices)]
        for index, image in zip(indices, images, strict=True):
            if image.shape != self.image_shape:
                raise InputError(
                    f"{self.name} has images of more than one size: record 0 is {self.image_shape}, record {index} "
                    f"{image.shape}; jaxconv requires images of one size"
                )
        return np.stack(images)
