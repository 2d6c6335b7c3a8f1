"""Make the HTML pages of notebooks work offline."""

import html
import re

from latex2mathml.converter import convert

PICTURE = re.compile(r'<img [^>]*src="https?:[^>]*>')
# On the pages of notebooks, and since mkdocs-jupyter 0.27 at the end of every page.
MATHJAX = re.compile(
    r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->|<script data-mkdocs-jupyter-mathjax=.*?</script>",
    re.DOTALL,
)
CODE = re.compile(r"(<(?:pre|script|style|code)\b.*?</(?:pre|script|style|code)>)", re.DOTALL)
# In the notebook's notation, or in that of mkdocs-jupyter since 0.27.
FORMULA = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\$([^$\n]+)\$|\\\((.+?)\\\)", re.DOTALL)


def offline(page: str) -> str:
    """Replace remote images with their alt text, and formulas with MathML, which browsers render without a script."""
    page = PICTURE.sub(lambda match: next(iter(re.findall(r'alt="([^"]*)"', match.group())), ""), page)
    parts = CODE.split(without_mathjax(page))
    return "".join(part if i % 2 else FORMULA.sub(_set, part) for i, part in enumerate(parts))


def without_mathjax(page: str) -> str:
    """Remove MathJax, which a page would load from a network."""
    return MATHJAX.sub("", page)


def _set(formula: re.Match[str]) -> str:
    block, inline = formula[1] or formula[2], formula[3] or formula[4]
    return convert(html.unescape(block or inline), display="block" if block else "inline")
