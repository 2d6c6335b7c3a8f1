"""Write to the terminal safely: untrusted text is escaped, and any encoding or closed stream is supported.

jaxconv prints only with :func:`tell`, :func:`tell_error` and consoles of :func:`console`.
"""

import _thread
import codecs
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

import unicodedata

MAX_ERROR_LENGTH = 2000  # characters
INTERRUPTED = 130  # exit code of shells for Ctrl-C
_ASCII = {"×": "x", "→": "->", "…": "...", "–": "-", "±": "+-", "−": "-", "│": "|", "┃": "|", "─": "-", "━": "-"}


def tell(*lines: object) -> None:
    r"""Print lines to stdout, each escaped by :func:`printable`, including line breaks within a line.

    >>> tell("class a\x1b[31m\nb", "done")
    class a\x1b[31m\nb
    done
    """
    print("\n".join(map(printable, lines)), flush=True)


def tell_error(message: object, *, program: str = "jaxconv") -> None:
    """Print one line to stderr, escaped by :func:`printable` and shortened to 2,000 characters."""
    line = printable(f"{program}: {message}")
    if len(line) > MAX_ERROR_LENGTH:
        line = f"{line[: MAX_ERROR_LENGTH // 2]} … {line[-MAX_ERROR_LENGTH // 2 :]}"
    print(line, file=sys.stderr, flush=True)


def console(**options: Any) -> "Console":
    """Create a rich console without markup, emoji codes and highlighting.

    Args:
        options: further options of ``rich.console.Console``.
    """
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)


def set_up() -> None:
    """Configure the streams, warnings and interrupts of this process for a command-line program.

    - Closed standard streams are opened on the null device. Otherwise the next opened file would get the descriptor of
      stdout, and output would be written into it.
    - A character outside of the terminal's encoding is written in ASCII, such as ``->`` for an arrow, or escaped.
    - If the reader of a pipe exits, output is discarded and the program continues: ``jaxconv train | head`` trains to
      the end.
    - A warning is printed as one line.
    - Ctrl-C interrupts even if Python drops the exception because it is raised in a garbage collector callback.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # the null device takes the descriptor of a closed stream
    os.close(descriptor)
    codecs.register_error("jaxconv", _to_ascii)
    sys.stdout, sys.stderr = _Stream(sys.stdout, 1), _Stream(sys.stderr, 2)
    warnings.showwarning = _show_warning
    sys.unraisablehook = _interrupting_hook(sys.unraisablehook)


class _Stream(io.TextIOWrapper):
    """Standard stream that behaves as described in :func:`set_up`."""

    def __init__(self, stream: TextIO | None, descriptor: int) -> None:
        self._descriptor, self._original = descriptor, stream  # kept, since freeing it would close the buffer
        buffer = open(descriptor, "wb", closefd=False) if stream is None else stream.buffer
        encoding = "utf-8" if stream is None else stream.encoding
        is_terminal = stream is not None and stream.isatty()
        super().__init__(buffer, encoding, "jaxconv", line_buffering=is_terminal or descriptor == 2)

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._descriptor)
        os.close(null)


def _to_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks by ASCII; a handler for ``codecs.register_error``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unencodable = error.object[error.start : error.end]
    replacements = [_ASCII.get(c) or ("+" if "─" <= c <= "╿" else escaped(c)) for c in unencodable]
    return "".join(replacements), error.end


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    tell_error(f"warning: {message}")


def _interrupting_hook(previous: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return an unraisable hook that repeats a dropped ``KeyboardInterrupt``, and otherwise calls ``previous``."""

    def hook(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, _thread.interrupt_main).start()  # after the callback has returned
        else:
            previous(dropped)

    return hook


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Exit with one line on Ctrl-C, for the time of imports, when there is nothing to clean up.

    A ``KeyboardInterrupt`` during an import would print a traceback, or become an error of the imported module.
    """

    def exit_process(number: int, frame: object) -> None:
        os.write(2, b"jaxconv: interrupted\n")
        os._exit(INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, as in background jobs of a shell
        yield
        return
    signal.signal(signal.SIGINT, exit_process)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Unicode categories: control and format characters, surrogates (bytes that are not UTF-8), private use, separators.
_ESCAPED_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: object, *, keep: str = "") -> str:
    r"""Escape every character that a terminal would interpret or could not display.

    Names of classes, folders and files are escaped before they are printed, so that they cannot move the cursor, change
    colors, reverse text direction, or raise an encoding error.

    Args:
        text: text, or an object whose ``str`` is used.
        keep: characters that are not escaped, such as a line break.

    >>> printable("cat\x1b[31m")
    'cat\\x1b[31m'
    >>> printable("Löwe")
    'Löwe'
    """
    return "".join(
        character
        if character in keep or unicodedata.category(character) not in _ESCAPED_CATEGORIES
        else escaped(character)
        for character in str(text)
    )


def error_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, escaped by :func:`printable`, or its type if it has no message.

    >>> error_line(ValueError("bad\x07 size\nat byte 5")), error_line(MemoryError())
    ('bad\\x07 size', 'MemoryError')
    """
    return printable(str(error).partition("\n")[0] or type(error).__name__)


def escaped(character: str) -> str:
    r"""Return the Python escape sequence of a character.

    >>> print(escaped("é"))
    \xe9
    """
    return character.encode("unicode_escape").decode("ascii")
