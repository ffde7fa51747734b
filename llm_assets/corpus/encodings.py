"""In which encoding bytes are text."""

from __future__ import annotations

import codecs
import email.message

from llm_assets.corpus.unpacking import Opener

AUTO = "auto"
UTF_8, GB18030 = "utf-8-sig", "gb18030"
BLOCK = 1 << 20  # bytes a read


def detect_encoding(open_bytes: Opener, stated: str | None = None) -> str:
    """UTF-8 where every byte is, which hardly anything else is by chance; then what a server states; then GB18030, which takes
    nearly any bytes; else UTF-8, in which the bad rows then show.
    """
    for encoding in filter(None, (UTF_8, stated, GB18030)):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            with open_bytes() as stream:
                while block := stream.read(BLOCK):
                    decoder.decode(block)
            decoder.decode(b"", True)
        except UnicodeError:
            continue
        return encoding
    return UTF_8


def stated_encoding(content_type: str) -> str | None:
    """The charset of a Content-Type header, where Python knows it as an encoding of text."""
    header = email.message.Message()
    header["Content-Type"] = content_type
    charset = header.get_content_charset()
    try:
        b"a".decode(charset or "")  # of no bytes at all Python does not look the encoding up
    except (LookupError, ValueError):
        return None
    return charset
