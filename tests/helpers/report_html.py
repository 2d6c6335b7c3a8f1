"""Parse the HTML report of jaxconv explain."""

import base64
import io
import re

import numpy as np
from PIL import Image


def section(html, name):
    return re.search(rf'<section id="{name}">(.*?)</section>', html, re.S).group(1)


def tiles(html):
    """Return pixels and caption of each image."""
    matches = re.findall(r'src="data:image/png;base64,([^"]*)"[^>]*>(?:<figcaption>(.*?)</figcaption>)?', html, re.S)
    return [(np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")), text) for png, text in matches]


def rows(html):
    """Return the cells of each row of a table; images are returned as pixels."""
    lines = re.findall(r"<tr>(.*?)</tr>", html, re.S)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line, re.S) for line in lines]
    return [[tiles(cell)[0][0] if "<img" in cell else cell for cell in line] for line in cells]
