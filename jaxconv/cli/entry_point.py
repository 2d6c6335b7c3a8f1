"""Entry points of the program ``jaxconv``; imports nothing heavy, so that Ctrl-C works at once."""

from collections.abc import Sequence
from typing import NoReturn

from jaxconv.utils import terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, as :func:`jaxconv.cli.app.main` does."""
    from jaxconv.cli import app

    return app.main(arguments)


def console() -> NoReturn:
    """Load the command line, configure this process, run the command and exit."""
    terminal.set_up()
    with terminal.exit_on_interrupt():
        from jaxconv.cli import app
    app.run()
