"""Notebooks as pages that ask nothing of a network: they are HTML already when they come here."""

import html
import re

from latex2mathml.converter import convert

PICTURE = re.compile(r'<img [^>]*src="https?:[^>]*>')
# In a notebook's page, and since mkdocs-jupyter 0.27 at the end of every page.
MATHJAX = re.compile(
    r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->|<script data-mkdocs-jupyter-mathjax=.*?</script>",
    re.DOTALL,
)
CODE = re.compile(r"(<(?:pre|script|style|code)\b.*?</(?:pre|script|style|code)>)", re.DOTALL)
# As the notebook has them, or as mkdocs-jupyter writes them since 0.27.
FORMULA = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\$([^$\n]+)\$|\\\((.+?)\\\)", re.DOTALL)


def offline(page: str) -> str:
    """A picture from elsewhere becomes its words, and formulas MathML, which browsers set by themselves."""
    page = PICTURE.sub(lambda found: next(iter(re.findall(r'alt="([^"]*)"', found.group())), ""), page)
    parts = CODE.split(without_mathjax(page))
    return "".join(part if i % 2 else FORMULA.sub(_set, part) for i, part in enumerate(parts))


def without_mathjax(page: str) -> str:
    """A page that loads no program to set formulas."""
    return MATHJAX.sub("", page)


def _set(formula: re.Match[str]) -> str:
    block, inline = formula[1] or formula[2], formula[3] or formula[4]
    return convert(html.unescape(block or inline), display="block" if block else "inline")
