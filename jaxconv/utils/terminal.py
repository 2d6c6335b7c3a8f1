"""Write to the terminal: other people's text as text, in any encoding, whether or not someone reads it.

All that jaxconv prints goes through :func:`tell` and :func:`tell_error`, or through a console of :func:`console`.
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

LONGEST_ERROR = 2000  # characters
INTERRUPTED = 130  # the exit code that shells give to Ctrl-C
_PLAIN = {"×": "x", "→": "->", "…": "...", "–": "-", "±": "+-", "−": "-", "│": "|", "┃": "|", "─": "-", "━": "-"}


def tell(*lines: object) -> None:
    r"""Print lines to stdout, each made :func:`printable`: a name with a line break in it stays in its line.

    >>> tell("class a\x1b[31m\nb", "done")
    class a\x1b[31m\nb
    done
    """
    print("\n".join(map(printable, lines)), flush=True)


def tell_error(message: object, *, program: str = "jaxconv") -> None:
    """Print one line to stderr, made :func:`printable` and not longer than 2,000 characters."""
    line = printable(f"{program}: {message}")
    if len(line) > LONGEST_ERROR:
        line = f"{line[: LONGEST_ERROR // 2]} … {line[-LONGEST_ERROR // 2 :]}"
    print(line, file=sys.stderr, flush=True)


def console(**options: Any) -> "Console":
    """A console of rich's, to which square brackets are no markup, and ``:smile:`` is no emoji.

    Args:
        options: of ``rich.console.Console``.
    """
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)


def set_up() -> None:
    """Prepare this process's streams and interrupts, for a program whose user sees the terminal.

    - stdin, stdout and stderr that are closed are opened on the null device. Otherwise the next file would get their
      number, and what is printed would go into it.
    - A character that the terminal's encoding lacks is written as ASCII, ``->`` for an arrow, or as an escape.
    - When the reader of a pipe goes away, the program goes on without it: ``jaxconv train | head`` trains to the end.
    - A warning is one line.
    - Ctrl-C arrives, even if Python drops the exception because it was raised in a callback of the garbage collector.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # it got the number of a stream that was closed
    os.close(descriptor)
    codecs.register_error("jaxconv", _replace)
    sys.stdout, sys.stderr = _Stream(sys.stdout, 1), _Stream(sys.stderr, 2)
    warnings.showwarning = _show_warning
    sys.unraisablehook = _unraisable(sys.unraisablehook)


class _Stream(io.TextIOWrapper):
    """A stream as :func:`set_up` describes it."""

    def __init__(self, stream: TextIO | None, descriptor: int) -> None:
        self._descriptor, self._before = descriptor, stream  # which would close the buffer when it is freed
        buffer = open(descriptor, "wb", closefd=False) if stream is None else stream.buffer
        encoding = "utf-8" if stream is None else stream.encoding
        terminal = stream is not None and stream.isatty()
        super().__init__(buffer, encoding, "jaxconv", line_buffering=terminal or descriptor == 2)

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


def _replace(error: UnicodeError) -> tuple[str, int]:
    """ASCII for the characters that an encoding lacks, as ``codecs.register_error`` wants it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    written = [_PLAIN.get(c) or ("+" if "─" <= c <= "╿" else escaped(c)) for c in lacking]
    return "".join(written), error.end


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    tell_error(f"warning: {message}")


def _unraisable(before: Callable[[Any], object]) -> Callable[[Any], object]:
    def hook(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, _thread.interrupt_main).start()  # a moment later, outside the callback
        else:
            before(dropped)

    return hook


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process with one line, while modules are loaded and there is nothing to clean up.

    A ``KeyboardInterrupt`` in the middle of an import would come out as a traceback, or as an error of the module.
    """

    def leave(number: int, frame: object) -> None:
        os.write(2, b"jaxconv: interrupted\n")
        os._exit(INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, say, in a shell's background
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Controls, formats that reorder text, surrogates (bytes that are no UTF-8), private characters, line separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: object, *, keep: str = "") -> str:
    r"""Text with every character that a terminal would obey, or could not show, as an escape.

    Names of classes, folders and files go through it before they are printed, so that none can move the cursor, change
    colours, reverse the line or end the program on a surrogate.

    Args:
        text: what to show, or its ``str``.
        keep: characters to leave as they are, such as a line break.

    >>> printable("cat\x1b[31m")
    'cat\\x1b[31m'
    >>> printable("Löwe")
    'Löwe'
    """
    return "".join(
        character if character in keep or unicodedata.category(character) not in _HIDDEN else escaped(character)
        for character in str(text)
    )


def error_line(error: BaseException) -> str:
    r"""The first line of an error's message, :func:`printable`; its type where it has none.

    >>> error_line(ValueError("bad\x07 size\nat byte 5")), error_line(MemoryError())
    ('bad\\x07 size', 'MemoryError')
    """
    return printable(str(error).partition("\n")[0] or type(error).__name__)


def escaped(character: str) -> str:
    r"""A character in ASCII, as Python writes it in a string.

    >>> print(escaped("é"))
    \xe9
    """
    return character.encode("unicode_escape").decode("ascii")
