"""``python -m jaxconv.cli`` is ``jaxconv``."""

from jaxconv.cli import console

if __name__ == "__main__":
    console()
