"""What a page of jaxconv explain holds, read back from its text."""

import base64
import io
import re

import numpy as np
from PIL import Image


def section(html, name):
    return re.search(rf'<section id="{name}">(.*?)</section>', html, re.S).group(1)


def tiles(part):
    """Pixels and caption of each picture."""
    found = re.findall(r'src="data:image/png;base64,([^"]*)"[^>]*>(?:<figcaption>(.*?)</figcaption>)?', part, re.S)
    return [(np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")), text) for png, text in found]


def rows(part):
    """The cells of each row of a table, a picture as its pixels."""
    lines = re.findall(r"<tr>(.*?)</tr>", part, re.S)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line, re.S) for line in lines]
    return [[tiles(cell)[0][0] if "<img" in cell else cell for cell in line] for line in cells]
