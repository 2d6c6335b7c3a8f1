"""Run ``jaxconv`` as ``python -m jaxconv.cli``."""

from jaxconv.cli import console

if __name__ == "__main__":
    console()
