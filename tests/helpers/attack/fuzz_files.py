"""Files for ``fuzz.py``: valid files of many formats, mutations, and hand-crafted hostile files."""

import bz2
import functools
import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32_767, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def filename(kind, name):
    if kind == "idx":
        part = "train-labels-idx1-ubyte" if "labels" in name else "train-images-idx3-ubyte"
        return part + (".gz" if "gz" in name else "")
    return {"pictures": "x.png", "npz": "set.npz", "archives": "set.zip", "pickles": "batch"}[kind]


# Mutations

# ruff: noqa: E501


def mutate(raw, rng):
    """Damage a file; often damage the packed content and fix the checksums, so that more of it is read."""
    if rng.random() < 0.6:
        if raw[:2] == b"PK" and (mutated := _mutate_zip_member(raw, rng)) is not None:
            return mutated
        for magic, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7z", lzma)):
            if raw.startswith(magic):
                return module.compress(mutate(module.decompress(raw), rng))
        if raw[257:262] == b"ustar":
            return _fix_tar_checksums(_damage(raw, rng))
        if raw[:4] == b"\x89PNG":
            return _fix_png_checksums(_damage(raw, rng))
    return _damage(raw, rng)


def _damage(raw, rng):
    raw = bytearray(raw)
    for _ in range(rng.integers(1, 5)):
        if not raw:
            break
        size = min(len(raw), 64) if rng.random() < 0.6 else len(raw)  # most often in the header
        position, source, count = int(rng.integers(size)), int(rng.integers(len(raw))), int(rng.integers(1, 40))
        match rng.integers(7):
            case 0:
                raw[position] ^= 1 << rng.integers(8)
            case 1:
                raw[position] = rng.integers(256)
            case 2:
                del raw[source:]
            case 3:
                raw[position : position + count] = raw[source : source + count]
            case 4:
                del raw[position : position + count]
            case 5:
                raw[position:position] = rng.bytes(count)
            case 6:
                code = "<>"[rng.integers(2)] + "HI"[rng.integers(2)]
                number = NUMBERS[rng.integers(len(NUMBERS))] & (2**16 - 1 if code[1] == "H" else 2**32 - 1)
                raw[position : position + struct.calcsize(code)] = struct.pack(code, number)
    return bytes(raw)


def _mutate_zip_member(raw, rng):
    with zipfile.ZipFile(io.BytesIO(raw)) as source:
        members = [(member.filename, source.read(member)) for member in source.infolist()]
    damaged = rng.integers(len(members))
    packed = io.BytesIO()
    methods = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(packed, "w", methods[rng.choice(4, p=[0.3, 0.5, 0.1, 0.1])]) as target,
    ):
        warnings.simplefilter("ignore")
        for index, (name, content) in enumerate(members):
            target.writestr(name, mutate(content, rng) if index == damaged else content)
    return packed.getvalue()


def _fix_png_checksums(raw):
    """Fix the checksum of each chunk."""
    raw, position = bytearray(raw), 8
    while position + 12 <= len(raw):
        (size,) = struct.unpack(">I", raw[position : position + 4])
        end = position + 8 + size
        if end + 4 > len(raw):
            break
        raw[end : end + 4] = struct.pack(">I", zlib.crc32(raw[position + 4 : end]))
        position = end + 4
    return bytes(raw)


def _fix_tar_checksums(raw):
    """Fix the checksum of each header."""
    raw = bytearray(raw)
    for position in range(0, len(raw) - 511, 512):
        if raw[position + 257 : position + 262] == b"ustar":
            raw[position + 148 : position + 156] = b" " * 8
            raw[position + 148 : position + 156] = b"%06o\0 " % sum(raw[position : position + 512])
    return bytes(raw)


# Valid files


@functools.cache
def valid(kind):
    """Return ``[(name, bytes)]`` of a kind."""
    return {"pictures": _pictures, "npz": _npz, "idx": _idx, "archives": _archives, "pickles": _pickles}[kind]()


def _pictures():
    rng = np.random.default_rng(0)
    color = Image.fromarray(rng.integers(0, 256, (9, 7, 4), np.uint8)).resize((32, 32))
    deep = Image.fromarray(rng.integers(0, 65_536, (9, 7), np.uint16))
    exif, notes = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    notes.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', zip=True)
    notes.add_text("Title", "a picture", zip=True)
    multi_frame = {"save_all": True, "append_images": [color.rotate(90)]}
    variants = [("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    variants += [("PNG", "RGB", {"exif": exif, "pnginfo": notes, "icc_profile": bytes(99)})]
    variants += [("PNG", "P", {"transparency": 3}), ("PNG", "L", {"transparency": 3}), ("PNG", "RGB", multi_frame)]
    variants += [("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")]
    variants += [("JPEG", "RGB", {"progressive": True, "exif": exif}), ("MPO", "RGB", multi_frame)]
    variants += [("GIF", "P", {}), ("GIF", "RGB", multi_frame), ("GIF", "P", {"transparency": 3})]
    variants += [("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}), ("WEBP", "RGBA", multi_frame)]
    variants += [("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")]
    variants += [("PPM", mode, {}) for mode in ("1", "L", "RGB", "I;16", "F")]
    variants += [("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB")]
    variants += [("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")]
    variants += [("TIFF", "1", {"compression": "group4"}), ("TIFF", "RGB", multi_frame | {"exif": exif})]
    variants += [
        ("DDS", "RGBA", {}),
        ("DDS", "RGB", {"pixel_format": "DXT1"}),
        ("SPIDER", "F", {}),
        ("ICNS", "RGBA", {}),
    ]
    variants += [("AVIF", "RGB", {}), ("EPS", "RGB", {}), ("ICO", "RGBA", {}), ("TGA", "RGB", {"rle": True})]
    variants += [(name, "RGB", {}) for name in ("PCX", "SGI", "IM", "JPEG2000", "QOI", "DIB")]
    variants += [("MSP", "1", {}), ("XBM", "1", {}), ("BLP", "P", {}), ("TGA", "P", {})]
    files = []
    for name, mode, options in variants:
        image = deep if mode == "I;16" else color.convert("RGB").convert(mode) if mode == "LAB" else None
        file = io.BytesIO()
        try:
            if image is None:
                image = color.convert("RGB" if mode == "CMYK" else mode).convert(mode)
            image.save(file, name, **options)
        except (KeyError, OSError, ValueError, AttributeError):  # not supported by this Pillow
            continue
        files.append((f"{name} {mode}", file.getvalue()))
    return files


def _arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (30, 5, 4), np.uint8),
        "y_train": (np.arange(30) % 3).astype(np.uint8),
        "x_test": rng.integers(0, 256, (7, 5, 4), np.uint8),
        "y_test": np.array([2, 0, 1, 1, 0, 2, 2]),
    }


def _npz():
    files = []
    for name, save in (("stored npz", np.savez), ("compressed npz", np.savez_compressed)):
        for kind in (np.uint8, np.float32, ">i2"):
            file, arrays = io.BytesIO(), _arrays()
            save(file, **arrays | {"x_train": arrays["x_train"].astype(kind)})
            files.append((f"{name} of {np.dtype(kind)}", file.getvalue()))
    return files


def idx(shape, content):
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + content


def _idx():
    arrays = _arrays()
    images = idx((30, 5, 4), arrays["x_train"].tobytes())
    labels = idx((30,), arrays["y_train"].tobytes())
    return [
        ("idx images", images),
        ("idx images, gz", gzip.compress(images, mtime=0)),
        ("idx labels", labels),
        ("idx labels, gz", gzip.compress(labels, mtime=0)),
    ]


def complete_idx(path):
    """Write the missing ones of the four IDX files of a dataset."""
    arrays = _arrays()
    for name, array in (
        ("train-images-idx3-ubyte", arrays["x_train"]),
        ("train-labels-idx1-ubyte", arrays["y_train"]),
        ("t10k-images-idx3-ubyte", arrays["x_test"]),
        ("t10k-labels-idx1-ubyte", arrays["y_test"].astype(np.uint8)),
    ):
        if not path.name.startswith(name):
            path.with_name(name).write_bytes(idx(array.shape, array.tobytes()))


def _set():
    """Return ``{name: png}`` of a valid image folder."""
    rng, files = np.random.default_rng(0), {}
    for name in [f"{part}/{label}/{n}.png" for part in ("train", "test") for label in "ab" for n in range(8)]:
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (5, 4), np.uint8)).save(file, "PNG")
        files[name] = file.getvalue()
    return files


def _tar(mode, form=tarfile.PAX_FORMAT, members=None):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as tar:
        for name, content in (_set() if members is None else members).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _zip(method=zipfile.ZIP_STORED, members=None):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as zipped:
        for name, content in (_set() if members is None else members).items():
            zipped.writestr(name, content)
    return file.getvalue()


def _archives():
    archives = [(f"tar {mode[2:]}", _tar(mode)) for mode in ("w", "w:gz", "w:bz2", "w:xz")]
    archives += [
        ("gnu tar", _tar("w", tarfile.GNU_FORMAT, {f"{'long' * 40}/{name}": png for name, png in _set().items()}))
    ]
    archives += [("pax tar", _tar("w", members={f"{'long' * 40}/{name}": png for name, png in _set().items()}))]
    return archives + [(f"zip {method}", _zip(method)) for method in (0, 8, 12, 14)]


def _pickles():
    batch = {"data": _arrays()["x_train"].reshape(30, 20), "labels": [1] * 30, "filenames": ["a.png"] * 30}
    return [(f"pickle {protocol}", pickle.dumps(batch, protocol)) for protocol in range(5)]


# Hostile files


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(width, height, depth=1, color_type=0, *chunks):
    """Return a PNG of black pixels with a compression ratio of about a thousand."""
    channels = {0: 1, 2: 3, 6: 4}[color_type]
    rows = zlib_of_zeros(height * (1 + (width * channels * depth + 7) // 8))
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IDAT", rows), chunk(b"IEND", b"")])


@functools.cache
def _mebibyte_of_zeros():
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)


def deflate_of_zeros(count):
    """Return raw deflate data of ``count`` zeros, assembled from precompressed blocks."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return _mebibyte_of_zeros() * (count >> 20) + packer.compress(bytes(count % 2**20)) + packer.flush()


def zlib_of_zeros(count):
    checksum = (count % 65_521) << 16 | 1  # Adler-32
    return b"\x78\x9c" + deflate_of_zeros(count) + struct.pack(">I", checksum)


def crc_of_zeros(count):
    crc = 0
    for start in range(0, count, 2**26):
        crc = zlib.crc32(bytes(min(2**26, count - start)), crc)
    return crc


def gzip_of(start, zeros):
    """Compress ``start`` followed by ``zeros`` zeros with gzip."""
    return gzip.compress(start, mtime=0) + gzip.compress(bytes(2**26), mtime=0) * (zeros >> 26)


def zip_of(members, flags=0):
    """Assemble a zip from ``{name: (method, packed bytes, size, crc)}``."""
    body, directory = b"", b""
    for name, (method, packed, size, crc) in members.items():
        fields = struct.pack("<HHHHHIIIHH", 20, flags, method, 0, 33, crc, len(packed), size, len(name), 0)
        directory += (
            b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name
        )
        body += b"PK\x03\x04" + fields + name + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end


def zip_bomb(name, count, start=b"", claim=None):
    """Return the members of a zip bomb: one file of ``start`` and ``count`` zeros."""
    head = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = head.compress(start) + head.flush(zlib.Z_FULL_FLUSH) + deflate_of_zeros(count)
    crc = zlib.crc32(start)
    for begin in range(0, count, 2**26):
        crc = zlib.crc32(bytes(min(2**26, count - begin)), crc)
    return {name: (8, packed, len(start) + count if claim is None else claim, crc)}


def npy(header, content=b"", version=(1, 0), size=None):
    text = header.encode() if isinstance(header, str) else header
    size = len(text) if size is None else size
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version[0] == 1 else "<I", size) + text + content


def npz_with(content, method=0, flags=0, key=b"x_train.npy"):
    """Return an npz in which one array has this content."""
    members = {}
    for name, array in _arrays().items():
        file = io.BytesIO()
        np.save(file, array)
        members[f"{name}.npy".encode()] = (0, file.getvalue(), len(file.getvalue()), zlib.crc32(file.getvalue()))
    members[key] = content if isinstance(content, tuple) else (method, content, len(content), zlib.crc32(content))
    return zip_of(members, flags)


def _shape(text, kind="'|u1'", content=bytes(600)):
    return lambda: npz_with(npy(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {text}, }}\n", content))


def _header(text, **options):
    return lambda: npz_with(npy(text, bytes(600), **options))


def _packed(module_or_method, count):
    """Return a function that builds an npz whose images are zeros, compressed by this method."""
    start = npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count >> 10}, 32, 32), }}\n")
    if module_or_method == 8:
        members = zip_bomb(b"x_train.npy", count, start)
        return lambda: npz_with(members[b"x_train.npy"])
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", module_or_method) as zipped:
            with zipped.open("x_train.npy", "w") as member:
                member.write(start)
                for _ in range(count >> 20):
                    member.write(bytes(2**20))
            for name, array in _arrays().items():
                if name != "x_train":
                    with zipped.open(f"{name}.npy", "w") as member:
                        np.save(member, array)
        raw = file.getvalue()
    return lambda: raw


def tar_header(name=b"x", size=0, kind=b"0", link=b"", field=None):
    """Return a tar header with these fields."""
    head = bytearray(512)
    head[: len(name)] = name
    head[100:108], head[108:116], head[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    head[124:136] = field or b"%011o\0" % size
    head[136:148], head[148:156], head[156:157] = b"00000000000\0", b" " * 8, kind
    head[157 : 157 + len(link)] = link
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def block(content):
    return content + bytes(-len(content) % 512)


def _pax(text):
    return tar_header(b"pax", len(text), b"x") + block(text)


def _pax_record(key, value):
    size = len(key) + len(value) + 3
    while True:
        record = b"%d %s=%s\n" % (size, key, value)
        if len(record) == size:
            return record
        size = len(record)


def _sparse():
    return _pax(_pax_record(b"GNU.sparse.major", b"0") + _pax_record(b"GNU.sparse.size", b"1099511627776")
                + _pax_record(b"GNU.sparse.map", b"0,0")) + tar_header(b"train/a/1.png")  # fmt: skip


def _negative():
    field = (2**96 - 1024).to_bytes(12, "big")
    return tar_header(b"train/a/1.png", field=field) + bytes(1024)


def _nested_tuples(count):
    return b"\x80\x04)" + b"\x85" * count + b"}" + b"\x8c\x01a" + b"s."


def _tuple_as_key(count):
    return b"\x80\x04})" + b"\x85" * count + b"Ns."


def _copies():
    """Return a pickle of one string of a megabyte that is encoded 900 times."""
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x01"
    again = b"h\x02h\x01X\x06\x00\x00\x00latin1\x86R"
    return b"\x80\x02](c_codecs\nencode\nq\x02" + text + again * 900 + b"e."


class _Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/jaxconv-was-here",)


def _text_chunk(kind, start):
    return chunk(kind, start + zlib_of_zeros(2**28))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
ICNS = b"icns" + struct.pack(">I", 300)

HOSTILE = {
    "pictures": {
        "EPS": lambda: EPS,
        "EPS with a head of DOS": lambda: b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 30, len(EPS)) + bytes(18) + EPS,
        "a pipe": lambda: os.mkfifo,
        "a folder": lambda: os.mkdir,
        "a device": lambda: lambda path: path.symlink_to("/dev/zero"),
        "empty": lambda: b"",
        "PNG of 16 megapixels": lambda: png_bomb(4_000, 4_000),
        "PNG of 16 megapixels in colour": lambda: png_bomb(4_000, 4_000, 8, 6),
        "PNG of 100 megapixels": lambda: png_bomb(10_000, 10_000),
        "PNG of 169 megapixels": lambda: png_bomb(13_000, 13_000, 8, 6),
        "PNG of 400 megapixels": lambda: png_bomb(20_000, 20_000),
        "PNG of one long row": lambda: png_bomb(2**31 - 1, 1),
        "PNG with a bomb of text": lambda: png_bomb(9, 9, 8, 0, _text_chunk(b"zTXt", b"a\0\0")),
        "PNG with a bomb of a profile": lambda: png_bomb(9, 9, 8, 0, _text_chunk(b"iCCP", b"a\0\0")),
        "PNG with a bomb of XMP": lambda: png_bomb(9, 9, 8, 0, _text_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0")),
        "PNG with a short tRNS": lambda: png_bomb(9, 9, 8, 0, chunk(b"tRNS", b"\0")),
        "PNG with a short tRNS of 16 bits": lambda: png_bomb(9, 9, 16, 2, chunk(b"tRNS", b"\0\0")),
        "PNG with a short pHYs": lambda: png_bomb(9, 9, 8, 0, chunk(b"pHYs", b"\0")),
        "PNG with a short acTL": lambda: png_bomb(9, 9, 8, 0, chunk(b"acTL", b"\0")),
        "PNG with EXIF of noise": lambda: png_bomb(9, 9, 8, 0, chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")),
        "GIF of 4 gigapixels": lambda: b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",",
        "GIF of nothing": lambda: b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b";",
        "BMP of 4 exapixels": lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, *[0] * 6),
        "BMP of -2³¹ rows": lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 1, -(2**31), 1, 24, *[0] * 6),
        "PPM of 10¹⁰ pixels": lambda: b"P6 100000 100000 255 ",
        "PPM of many digits": lambda: b"P6 " + b"9" * 5000 + b" 1 255 ",
        "PPM of no end": lambda: b"P6 #" + bytes(2**16),
        "PAM of noise": lambda: b"P7\nWIDTH x\nHEIGHT 1\nENDHDR\n",
        "ICNS of noise": lambda: ICNS + b"ic07" + struct.pack(">I", 292) + bytes(284),
        "ICNS of a block beyond": lambda: ICNS + b"ic10" + struct.pack(">I", 2**31) + bytes(284),
        "ICNS with a block of 0": lambda: ICNS + b"ic10" + struct.pack(">I", 0) + bytes(284),
        "DDS of 2³¹": lambda: b"DDS " + struct.pack("<7I", 124, 0x1007, 2**31 - 1, 2**31 - 1, 0, 0, 0) + bytes(96),
        "DDS without a pixel format": lambda: b"DDS " + struct.pack("<7I", 124, 0x1007, 9, 9, 0, 0, 0) + bytes(96),
        "SPIDER of noise": lambda: struct.pack(">27f", *[1, 9, 0, 0, 1, *[0] * 16, 0, 0, 9, 0, 0, 0][:27]) + bytes(99),
        "SPIDER of no number": lambda: struct.pack(">f", float("nan")) * 300,
        "AVIF of noise": lambda: b"\0\0\0\x1cftypavif" + bytes(99),
        "TIFF in a circle": lambda: b"II*\0\x08\0\0\0" + struct.pack("<HHHIIH", 1, 256, 3, 1, 9, 0) + struct.pack("<I", 8),
        "TIFF of 2³²−1 tags": lambda: b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 65_535, 256, 4, 2**32 - 1, 2**32 - 1),
        "JPEG of 4 gigapixels": lambda: b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0\xff\xd9",
        "JPEG with EXIF of noise": lambda: b"\xff\xd8\xff\xe1\0\x10Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff\xd9",
        "WebP of noise": lambda: b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\xff\xff\xff\xff\xff\xff" + bytes(9),
    },
    "npz": {
        "shape 10³⁰": _shape("(1000000000000000000000000000000,)"),
        "shape 10³⁰ of nothing": _shape("(1000000000000000000000000000000,)", "'|V0'"),
        "shape 10³⁰ × 0": _shape("(1000000000000000000000000000000, 0)", content=b""),
        "shape 10¹²": _shape("(1000000000000, 1, 1)"),
        "shape 2⁶² × 4": _shape("(4611686018427387904, 4)"),
        "shape below 0": _shape("(-30, -5, 4)"),
        "shape of floats": _shape("(30.0, 5, 4)"),
        "shape of many digits": _shape(f"({'1' * 5000},)"),
        "100 axes": _shape(f"({'1, ' * 100})"),
        "objects": _shape("(30,)", "'|O'"),
        "strings": _shape("(30, 5)", "'<U1'"),
        "empty strings": _shape("(30, 5)", "'<U0'"),
        "records": _shape("(30, 5)", "[('a', '<i4')]"),
        "nested records": _shape("(30, 5)", "[('a', [('b', '|O')])]"),
        "a dtype of noise": _shape("(30, 5)", "'~~'"),
        "a dtype of a number": _shape("(30, 5)", "7"),
        "a dtype of commas": _shape("(30, 5)", f"'{'i4,' * 500}'"),
        "dates": _shape("(30,)", "'<M8[ns]'"),
        "complex": _shape("(30,)", "'<c16'", bytes(480)),
        "a header of brackets": _header("(" * 5000),
        "a header of braces": _header("{" * 9000 + "}" * 9000, version=(2, 0)),
        "a header of minuses": _header("-" * 9000 + "1"),
        "a header of pluses": _header("1+" * 4000 + "1"),
        "a header of a list as a key": _header("{[]: 1}"),
        "a header of escapes": _header("'\\N{x}'"),
        "a header of zero bytes": _header("\0" * 100),
        "a header of a program": _header("__import__('os').system('touch /tmp/jaxconv-was-here')"),
        "a header of an open string": _header("{'descr': '''"),
        "a header of Python 2": _shape("(30L, 5L, 4L)"),
        "a header of 4 GiB": _header("{}", version=(2, 0), size=2**32 - 1),
        "a header that is cut": _header("{'descr'", size=60_000),
        "format 3": _header("{'descr': '|u1', 'fortran_order': False, 'shape': (30, 5, 4), }\n", version=(3, 0)),
        "format 9": _header("{}", version=(9, 9)),
        "no fortran_order": _header("{'descr': '|u1', 'shape': (30, 5, 4)}"),
        "no array": lambda: npz_with(b"hello"),
        "nothing": lambda: npz_with(b""),
        "bzip2": lambda: _packed(zipfile.ZIP_BZIP2, 2**28)(),
        "lzma": lambda: _packed(zipfile.ZIP_LZMA, 2**26)(),
        "a small bzip2": lambda: npz_with(b"BZh9" + bytes(99), 12),
        "a small lzma": lambda: npz_with(b"\x09\x04\x05\0]" + bytes(99), 14),
        "Deflate64": lambda: npz_with(bytes(100), 9),
        "method 99": lambda: npz_with(bytes(100), 99),
        "encrypted": lambda: npz_with(bytes(100), 0, 1),
        "strongly encrypted": lambda: npz_with(bytes(100), 0, 64),
        "patched": lambda: npz_with(bytes(100), 0, 32),
        "a bomb of 3 GB": lambda: _packed(8, 3 * 2**30)(),
        "a bomb of 200 MB": lambda: _packed(8, 200 * 2**20)(),
        "a wrong checksum": lambda: npz_with((0, npy("{}"), 12, 7)),
        "names of several lines": lambda: npz_with(b"", key=b"a\nb\x1b[31m.npy").replace(b"x_train", b"y_tr\nin"),
        "a pickle": lambda: pickle.dumps(_Command()),
        "an empty zip": lambda: _zip(members={}),
        "a zip that is cut": lambda: _npz()[0][1][:-30],
        "a pipe": lambda: os.mkfifo,
        "a folder": lambda: os.mkdir,
    },
    "idx": {
        **{f"rank {rank}": functools.partial(idx, (1,) * rank, b"\0") for rank in (0, 5, 33, 64, 65, 200, 255)},
        "rank 255 of nothing": lambda: idx((0,) * 255, b""),
        "labels of rank 65": lambda: idx((1,) * 65, b"\0"),
        "sizes of 2³²−1": lambda: idx((2**32 - 1,) * 4, bytes(99)),
        "sizes of 2³²−1 and 0": lambda: idx((*[2**32 - 1] * 9, 0), b""),
        "pictures of nothing": lambda: idx((30, 0, 0), b""),
        "pictures of no rows": lambda: idx((30, 0, 4), b""),
        "sizes that are cut": lambda: idx((30, 5, 4), b"")[:9],
        "one byte too many": lambda: idx((30, 5, 4), bytes(601)),
        "one byte too few": lambda: idx((30, 5, 4), bytes(599)),
        "another type": lambda: b"\0\0\x0d\3" + bytes(99),
        "empty": lambda: b"",
        "gz, empty": lambda: b"",
        "gz, a bomb behind the array": lambda: gzip_of(idx((30, 5, 4), bytes(600)), 3 * 2**30),
        "gz, a bomb that keeps its promise": lambda: gzip_of(idx((3 * 2**20, 32, 32), b""), 3 * 2**30),
        "gz, a promise of 4 GB": lambda: gzip_of(idx((2**22, 32, 32), b""), 0),
        "gz, labels, a bomb": lambda: gzip_of(idx((3 * 2**30,), b""), 3 * 2**30),
        "gz, a bomb of no IDX": lambda: gzip_of(b"", 3 * 2**30),
        "gz, cut": lambda: gzip.compress(idx((30, 5, 4), bytes(600)), mtime=0)[:-9],
        "gz, with noise behind": lambda: gzip.compress(idx((30, 5, 4), bytes(600)), mtime=0) + b"noise",
        "gz, with zeros behind": lambda: gzip.compress(idx((30, 5, 4), bytes(600)), mtime=0) + bytes(99),
    },
    "archives": {
        "zip bomb of 1.5 GB": lambda: zip_of(zip_bomb(b"train/a/1.png", 1500 * 2**20)),
        "zip bomb that lies": lambda: zip_of(zip_bomb(b"train/a/1.png", 1500 * 2**20, claim=10)),
        "zip of bzip2, a bomb": lambda: _zip(zipfile.ZIP_BZIP2, {"train/a/1.png": bytes(2**28)}),
        "zip of lzma, a bomb": lambda: _zip(zipfile.ZIP_LZMA, {"train/a/1.png": bytes(2**27)}),
        "tar.gz bomb": lambda: gzip_of(tar_header(b"train/a/1.png", 3 * 2**30), 3 * 2**30),
        "tar.gz whose header has 3 GB": lambda: gzip_of(tar_header(b"pax", 3 * 2**30, b"x"), 3 * 2**30),
        "tar.gz whose name has 3 GB": lambda: gzip_of(tar_header(b"name", 3 * 2**30, b"L"), 3 * 2**30),
        "tar of a hole of 1 TB": _sparse,
        "tar of a negative size": _negative,
        "tar of a negative header": lambda: tar_header(b"pax", kind=b"x", field=(2**96 - 512).to_bytes(12, "big")),
        "tar of a size in a header, negative": lambda: _pax(_pax_record(b"size", b"-1024")) + tar_header(b"a") + bytes(1024),
        "tar of a size in a header, no number": lambda: _pax(_pax_record(b"size", b"x")) + tar_header(b"a") + bytes(1024),
        "tar of a size of 10¹⁸": lambda: tar_header(b"train/a/1.png", field=b"\x80" + bytes(3) + b"\x0d" + bytes(7)),
        "tar of 5,000 headers": lambda: _pax(_pax_record(b"a", b"b")) * 5000 + tar_header(b"a") + bytes(1024),
        "tar of noise in a header": lambda: _pax(b"99999999999 x=y\n") + tar_header(b"a") + bytes(1024),
        "tar of a deep folder": lambda: _tar("w", members={"a/" * 1500 + "1.png": b"x"}),
        "zip of a deep folder": lambda: _zip(members={"a/" * 1500 + "1.png": b"x"}),
        "tar of a long name": lambda: _tar("w", members={"a" * 5000: b"x"}),
        "tar.gz of 40,000 empty files": lambda: gzip.compress(b"".join(tar_header(b"train/a/%d.png" % n) for n in range(40_000)) + bytes(1024), mtime=0),
        "tar of a file and a folder": lambda: _tar("w", members={"train": b"x", "train/a/1.png": b"x"}),
        "zip of a file and a folder": lambda: _zip(members={"train": b"x", "train/a/1.png": b"x"}),
        "zip of a zero byte in a name": lambda: _zip(members={"trainZa/1.png": b"x"}).replace(b"Za/1", b"\0a/1"),
        "tar of a zero byte in a name": lambda: _pax(_pax_record(b"path", b"a\0b")) + tar_header(b"a") + bytes(1024),
        "tar of bytes for a name": lambda: tar_header(b"train/\xff\xfe/1.png") + bytes(1024),
        "tar of lines for a name": lambda: tar_header(b"tr\nain/\x1b[31ma/1.png") + bytes(1024),
        "zip of a class of lines": lambda: _zip(members={f"train/{label}\n/1.txt": b"x" for label in "ab"}),
        **{
            f"tar of {name.decode()}": functools.partial(lambda name: tar_header(name, 4) + block(b"evil") + bytes(1024), name)
            for name in (b"../evil", b"/tmp/jaxconv-was-here", b"a/../../../evil", b"..\\evil", b"C:\\evil")
        },
        **{
            f"zip of {name}": functools.partial(lambda name: _zip(members={name: b"evil"}), name)
            for name in ("../evil", "/tmp/jaxconv-was-here", "a/../../../evil", "..\\evil", "C:\\evil")
        },
        **{
            f"tar with member of type {kind.decode()}": functools.partial(
                lambda kind: tar_header(b"train", 0, kind, b"/tmp") + tar_header(b"train/jaxconv-was-here") + bytes(1024),
                kind,
            )
            for kind in (b"1", b"2", b"3", b"4", b"6", b"7", b"S", b"D", b"V", b"K", b"g")
        },
        "encrypted zip": lambda: zip_of({b"a": (0, bytes(20), 8, 0)}, 1),
        "zip of Deflate64": lambda: zip_of({b"a": (9, bytes(20), 8, 0)}),
        "zip of method 99": lambda: zip_of({b"a": (99, bytes(20), 8, 0)}),
        "an empty zip": lambda: _zip(members={}),
        "an empty tar": lambda: bytes(10_240),
        "an empty file": lambda: b"",
        "a picture": lambda: png_bomb(9, 9),
        "a pipe": lambda: os.mkfifo,
    },
    "pickles": {
        "a command": lambda: pickle.dumps(_Command()),
        "a memo of number 2³¹": lambda: b"\x80\x02}r\xff\xff\xff\x7f.",
        "a memo of number 2²⁷": lambda: b"\x80\x02}r\0\0\0\x08.",
        "a memo of number −1": lambda: b"}p-1\n.",
        "bytes of 2⁶⁰": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
        "bytes of 8 GB": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b"x.",
        "a frame of 2⁶⁰": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.",
        "tuples a million deep": lambda: _nested_tuples(1_000_000),
        "tuples a million deep as a key": lambda: _tuple_as_key(1_000_000),
        "lists a million deep": lambda: b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b".",
        "900 copies": _copies,
        "ten million opcodes": lambda: b"\x80\x02" + b"N0" * 5_000_000 + b"N.",
        "a long number": lambda: b"\x80\x02\x8b" + struct.pack("<I", 10**6) + b"\x7f" * 10**6 + b".",
        "a number of many digits": lambda: b"L" + b"9" * 10**6 + b"L\n.",
        "a module of several lines": lambda: b"\x80\x04\x8c\x03a\nb\x8c\x03c\nd\x93.",
        "a persistent id": lambda: b"Pid\n.",
        "an extension": lambda: b"\x82\x01.",
        "nothing": lambda: b"",
    },
}  # fmt: skip
