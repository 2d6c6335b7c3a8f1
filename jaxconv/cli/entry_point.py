"""Entry points of the program ``jaxconv``. This module loads nothing, so that Ctrl-C works from the first moment."""

from collections.abc import Sequence
from typing import NoReturn

from jaxconv.utils import terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, as :func:`jaxconv.cli.app.main` does."""
    from jaxconv.cli import app

    return app.main(arguments)


def console() -> NoReturn:
    """Run the program ``jaxconv``: load it, set this process up, run the command and exit."""
    terminal.set_up()
    with terminal.exit_on_interrupt():
        from jaxconv.cli import app
    app.run()
