"""What the gateway changes of one request's body, whichever target it goes to: the model's name, and asking for usage.

Each attempt has a rewriter of its own (`proxy.rewrite`), because each reads the tape from its beginning and may send
another name. A body that is to stay as it is has none, and passes without being looked at.
"""

from typing import Final

from proxy.errors import TargetUnusableError
from proxy.rewrite import Rewriter, rewriter_of

ENCODED_FORM: Final = "where the model decides, a form has to come without Content-Encoding"
"""Readers of forms skip what stands before the first boundary, such as a gzip comment with another form in it."""
UNREADABLE: Final = "the request body cannot be read as its content type says"
NAMED_TWICE: Final = "the request names its model twice, or writes the key in other letters"


class Changes:
    """Of one exchange."""

    __slots__ = ("_ask_usage", "_content_encoding", "_content_type")

    def __init__(self, content_type: str, content_encoding: str, *, ask_usage: bool) -> None:
        """`ask_usage`: of a stream that does not ask by itself."""
        self._content_type = content_type
        self._content_encoding = content_encoding
        self._ask_usage = ask_usage

    def whole(self, body: bytes, model: str | None) -> tuple[bytes, bool]:
        """A small body for a target (`model` None: the name stays), and whether usage was asked for."""
        rewriter = self.rewriter(model)
        if rewriter is None:
            return body, False
        changed = rewriter.whole(body)
        if model is not None and rewriter.failed:
            raise TargetUnusableError("bad_request", UNREADABLE)
        return changed, rewriter.asked

    def rewriter(self, model: str | None) -> Rewriter | None:
        """For one reading of a body, None where nothing is to be changed. TargetUnusableError where it cannot be."""
        if model is None and not self._ask_usage:
            return None
        rewriter = rewriter_of(self._content_type, self._content_encoding, model=model, ask_usage=self._ask_usage)
        if type(rewriter) is not Rewriter:
            return rewriter
        if rewriter.failed:
            raise TargetUnusableError(
                "bad_request",
                "the model's name has to be replaced, which takes a body that is JSON or a form, and not encoded",
            )
        return None
