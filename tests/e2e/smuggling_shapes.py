"""Every shape of a request that two servers could read differently: the bytes, and what is to become of them.

A row is a `Shape`: raw bytes that a client sends, and either the refusal that they get, or what nginx behind the
gateway sees of them. Behind each the test sends FOLLOWER, a good request of its own. Where a shape is refused, nothing
of FOLLOWER may ever be served; where it passes, FOLLOWER is the second request, or nothing where the connection closes.

Sources: RFC 9112 §2.2, §3, §5, §6, §7.1, §9.3, §9.6, §11.2; RFC 9110 §5, §7.2, §7.6.1, §7.8, §8.6, §10.1.1.
"""

from dataclasses import dataclass
from typing import Any

PATH = b"/v1/chat/completions"
BODY = b'{"model":"m"}'
FOLLOWER = b"POST /smuggled" + PATH + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]"
CHUNKED = b"Transfer-Encoding: chunked"


@dataclass(frozen=True)
class Shape:
    """See the module."""

    data: bytes
    status: int = 200
    error: str | None = None
    """Of the gateway; None where the upstream answers."""
    seen: dict[str, Any] | None = None
    """What nginx sees: line, length, coding, body; None: nothing."""
    kept: bool = False
    """The connection is kept, and FOLLOWER served."""


def request(
    *lines: bytes,
    body: bytes = BODY,
    line: bytes = b"POST " + PATH + b" HTTP/1.1",
    host: bytes = b"Host: x\r\n",
    length: bool = True,
) -> bytes:
    """A request with these header lines; with the right Content-Length unless one of them says something of length."""
    said = any(one.lower().lstrip().startswith((b"content-length", b"transfer-encoding")) for one in lines)
    framing = b"Content-Length: %d\r\n" % len(body) if length and not said else b""
    return line + b"\r\n" + host + b"".join(one + b"\r\n" for one in lines) + framing + b"\r\n" + body


def refused(data: bytes, status: int = 400, error: str = "bad_request") -> Shape:
    """It is not served, and the connection ends."""
    return Shape(data, status, error)


def turned_away(data: bytes, status: int = 404, error: str = "no_route") -> Shape:
    """It is read as one request without doubt, only nobody serves it: the connection may go on."""
    return Shape(data, status, error, kept=True)


def passes(data: bytes, *, kept: bool = True, **seen: Any) -> Shape:
    """nginx sees one request: by default a POST with BODY and its length."""
    expected = {"line": "POST /v1/chat/completions HTTP/1.1", "length": str(len(BODY)), "coding": "", "body": BODY}
    return Shape(data, seen=expected | seen, kept=kept)


def chunked(body: bytes, *lines: bytes) -> bytes:
    """With a chunked body as given."""
    return request(CHUNKED, *lines, body=body)


ONE_CHUNK = b"d\r\n" + BODY + b"\r\n0\r\n\r\n"
HIDDEN = b"0\r\n\r\n" + FOLLOWER
"""A body that whoever reads it as chunked takes for an end and another request."""

LENGTHS = {
    "CL.TE": refused(request(b"Content-Length: %d" % len(HIDDEN), CHUNKED, body=HIDDEN)),
    "TE.CL": refused(request(CHUNKED, b"Content-Length: 3", body=ONE_CHUNK)),
    "CL.TE, the second in other letters": refused(
        request(b"CONTENT-LENGTH: 5", b"transfer-ENCODING: Chunked", body=HIDDEN)
    ),
    "CL.0: a body nobody expects": passes(
        request(b"Content-Length: %d" % len(FOLLOWER), body=FOLLOWER), length=str(len(FOLLOWER)), body=FOLLOWER
    ),
    "two lengths": refused(request(b"Content-Length: 13", b"Content-Length: 4")),
    "the same length twice": refused(request(b"Content-Length: 13", b"Content-Length: 13")),
    "the same length twice, apart": refused(request(b"Content-Length: 13", b"A: b", b"content-length: 13")),
    "a list of lengths": refused(request(b"Content-Length: 13, 13")),
    "a list of lengths without space": refused(request(b"Content-Length: 13,13")),
    "signed": refused(request(b"Content-Length: +13")),
    "negative": refused(request(b"Content-Length: -1")),
    "hexadecimal": refused(request(b"Content-Length: 0xd")),
    "two numbers": refused(request(b"Content-Length: 1 3")),
    "a number and a tab and a number": refused(request(b"Content-Length: 1\t3")),
    "underscored as Python writes it": refused(request(b"Content-Length: 1_3")),
    "digits of another script": refused(request("Content-Length: ١٣".encode())),
    "a fraction": refused(request(b"Content-Length: 13.0")),
    "an exponent": refused(request(b"Content-Length: 1e1")),
    "quoted": refused(request(b'Content-Length: "13"')),
    "a parameter": refused(request(b"Content-Length: 13;a=b")),
    "letters behind": refused(request(b"Content-Length: 13x")),
    "empty length": refused(request(b"Content-Length:")),
    "blank length": refused(request(b"Content-Length: \t ")),
    "length over 64 bits": refused(request(b"Content-Length: 18446744073709551629")),
    "length over 63 bits": refused(request(b"Content-Length: 9223372036854775821"), 413, "body_too_large"),
    "many digits": refused(request(b"Content-Length: " + b"9" * 5000)),
    "more than is allowed": refused(request(b"Content-Length: 536870913"), 413, "body_too_large"),
    "leading zeros are digits": passes(request(b"Content-Length: 0000013")),
    "white space around a length": passes(request(b"Content-Length: \t 13 \t")),
    "length with a space before its colon": refused(request(b"Content-Length : 13")),
    "length with a tab before its colon": refused(request(b"Content-Length\t: 13")),
    "length beside one with a space": refused(request(b"Content-Length: 13", b"Content-Length : 0")),
    "Content_Length": refused(request(b"Content_Length: 0")),
    "no length at all": passes(request(length=False, body=b""), length="0", body=b""),
    "a length in HTTP/1.0": passes(request(line=b"POST " + PATH + b" HTTP/1.0"), kept=False),
}

CODINGS = {
    "chunked": passes(chunked(ONE_CHUNK)),
    "in other letters": passes(request(b"tRaNsFeR-eNcOdInG: cHuNkEd", body=ONE_CHUNK)),
    "a tab before it": passes(request(b"Transfer-Encoding:\tchunked", body=ONE_CHUNK)),
    "white space behind it": passes(request(b"Transfer-Encoding: chunked  ", body=ONE_CHUNK)),
    "a tab behind it": refused(request(b"Transfer-Encoding: chunked\t", body=ONE_CHUNK)),
    "TE.TE: another behind": refused(request(CHUNKED, b"Transfer-Encoding: x", body=HIDDEN)),
    "TE.TE: another before": refused(request(b"Transfer-Encoding: x", CHUNKED, body=HIDDEN)),
    "TE.TE: the same twice": refused(request(CHUNKED, CHUNKED, body=HIDDEN)),
    "TE.TE: identity": refused(request(CHUNKED, b"Transfer-encoding: identity", body=HIDDEN)),
    "TE.TE: an empty one": refused(request(CHUNKED, b"Transfer-Encoding:", body=HIDDEN)),
    "chunked, chunked": refused(request(b"Transfer-Encoding: chunked, chunked", body=HIDDEN)),
    "gzip, chunked": refused(request(b"Transfer-Encoding: gzip, chunked", body=HIDDEN)),
    "chunked, gzip": refused(request(b"Transfer-Encoding: chunked, gzip", body=HIDDEN)),
    "chunked, identity": refused(request(b"Transfer-Encoding: chunked, identity", body=HIDDEN)),
    "identity": refused(request(b"Transfer-Encoding: identity", body=HIDDEN)),
    "empty": refused(request(b"Transfer-Encoding:", body=HIDDEN)),
    "xchunked": refused(request(b"Transfer-Encoding: xchunked", body=HIDDEN)),
    "chunkedx": refused(request(b"Transfer-Encoding: chunkedx", body=HIDDEN)),
    "a comma behind": refused(request(b"Transfer-Encoding: chunked,", body=HIDDEN)),
    "a comma before": refused(request(b"Transfer-Encoding: ,chunked", body=HIDDEN)),
    "quoted": refused(request(b'Transfer-Encoding: "chunked"', body=HIDDEN)),
    "a parameter": refused(request(b"Transfer-Encoding: chunked;q=1", body=HIDDEN)),
    "vertical tab": refused(request(b"Transfer-Encoding: \x0bchunked", body=HIDDEN)),
    "form feed": refused(request(b"Transfer-Encoding: \x0cchunked", body=HIDDEN)),
    "no-break space": refused(request(b"Transfer-Encoding: \xa0chunked", body=HIDDEN)),
    "a byte above ASCII": refused(request(b"Transfer-Encoding: \xffchunked", body=HIDDEN)),
    "dotless letters of another script": refused(request("Transfer-Encoding: chun\u212aed".encode(), body=HIDDEN)),
    "a space before the colon": refused(request(b"Transfer-Encoding : chunked", body=HIDDEN)),
    "a tab before the colon": refused(request(b"Transfer-Encoding\t: chunked", body=HIDDEN)),
    "a line break before the colon": refused(request(b"Transfer-Encoding\n: chunked", body=HIDDEN)),
    "a NUL before the colon": refused(request(b"Transfer-Encoding\x00: chunked", body=HIDDEN)),
    "a space before the name": refused(request(b" Transfer-Encoding: chunked", body=HIDDEN)),
    "behind a bare LF": refused(request(b"X: a\nTransfer-Encoding: chunked", body=HIDDEN)),
    "behind a bare CR": refused(request(b"X: a\rTransfer-Encoding: chunked", body=HIDDEN)),
    "folded": refused(request(b"Transfer-Encoding:\r\n chunked", body=HIDDEN)),
    "folded under another": refused(request(b"X: a\r\n Transfer-Encoding: chunked", body=HIDDEN)),
    "Transfer_Encoding": refused(request(b"Transfer_Encoding: chunked", body=HIDDEN)),
    "in HTTP/1.0": refused(request(CHUNKED, body=HIDDEN, line=b"POST " + PATH + b" HTTP/1.0")),
    "in HTTP/1.0 with keep-alive": refused(
        request(CHUNKED, b"Connection: keep-alive", body=HIDDEN, line=b"POST " + PATH + b" HTTP/1.0")
    ),
    "on a GET that nobody serves": turned_away(
        request(CHUNKED, body=b"0\r\n\r\n", line=b"GET " + PATH + b" HTTP/1.1"), 405, "method_not_allowed"
    ),
}

BAD_CHUNKS = {
    "prefix 0x": b"0xd\r\n" + BODY + b"\r\n0\r\n\r\n",
    "sign": b"+d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "negative": b"-d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a space before": b" d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a space behind, and nothing": b"d \r\n" + BODY + b"\r\n0\r\n\r\n",
    "underscore": b"0_d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "no number": b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a letter that is none": b"g\r\n" + BODY + b"\r\n0\r\n\r\n",
    "17 digits": b"0000000000000000d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "over 64 bits": b"1000000000000000d\r\n" + BODY + b"\r\n0\r\n\r\n" + b"f" * 17 + b"\r\n",
    "LF behind the size": b"d\n" + BODY + b"\r\n0\r\n\r\n",
    "CR behind the size": b"d\r" + BODY + b"\r\n0\r\n\r\n",
    "LF behind the data": b"d\r\n" + BODY + b"\n0\r\n\r\n",
    "nothing behind the data": b"d\r\n" + BODY + b"0\r\n\r\n",
    "longer than said": b"c\r\n" + BODY + b"\r\n0\r\n\r\n",
    "shorter than said": b"e\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an extension with LF": b"d;a=b\n\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an extension with CR": b"d;a=\rb\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an extension with NUL": b"d;a=\0\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an extension that hides a line": b'd;a="\n0\n\nGET /smuggled HTTP/1.1\nX:"\r\n' + BODY + b"\r\n0\r\n\r\n",
    "an extension without end": b"d;" + b"a" * 300 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an end that ends with LF": b"d\r\n" + BODY + b"\r\n0\n\n",
    "a last line that ends with LF": b"d\r\n" + BODY + b"\r\n0\r\n\n",
    "a trailer with LF": b"d\r\n" + BODY + b"\r\n0\r\nA: b\n\r\n",
    "a trailer with CR": b"d\r\n" + BODY + b"\r\n0\r\nA: b\rc\r\n\r\n",
    "a trailer with NUL": b"d\r\n" + BODY + b"\r\n0\r\nA: \0\r\n\r\n",
    "a trailer without colon": b"d\r\n" + BODY + b"\r\n0\r\nA\r\n\r\n",
    "a folded trailer": b"d\r\n" + BODY + b"\r\n0\r\nA: b\r\n c\r\n\r\n",
    "a trailer with a space before its colon": b"d\r\n" + BODY + b"\r\n0\r\nA : b\r\n\r\n",
    "a request where trailers are due": b"d\r\n" + BODY + b"\r\n0\r\n" + FOLLOWER,
    "a trailer that routes": b"d\r\n" + BODY + b"\r\n0\r\nHost: evil\r\n\r\n",
    "a trailer that authenticates": b"d\r\n" + BODY + b"\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
    "a trailer that frames, underscored": b"d\r\n" + BODY + b"\r\n0\r\ncontent_length: 1\r\n\r\n",
    "a trailer that frames": b"d\r\n" + BODY + b"\r\n0\r\nContent-Length: 0\r\n\r\n",
    "a trailer that frames anew": b"d\r\n" + BODY + b"\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailers without end": b"d\r\n" + BODY + b"\r\n0\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
}
GOOD_CHUNKS = {
    "leading zeros": b"00d\r\n" + BODY + b"\r\n000\r\n\r\n",
    "capitals": b"D\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an extension": b'd;a=b;c="d e"\r\n' + BODY + b"\r\n0;e\r\n\r\n",
    "trailers, the last of which would be dangerous": b"d\r\n" + BODY + b"\r\n0\r\nX-First: 1\r\nX-Leaked: 1\r\n\r\n",
    "a trailer": b"d\r\n" + BODY + b"\r\n0\r\nX-Sum: 1\r\n\r\n",
    "several": b'1\r\n{\r\n4\r\n"mod\r\n8\r\nel":"m"}\r\n0\r\n\r\n',
}
CHUNKS = {
    **{f"chunks: {name}": refused(chunked(body)) for name, body in BAD_CHUNKS.items()},
    **{f"chunks: {name}": passes(chunked(body)) for name, body in GOOD_CHUNKS.items()},
}

LINES = {
    name: refused(request(line=line))
    for name, line in {
        "HTTP/0.9": b"GET /smuggled",
        "HTTP/0.9 with a version": b"GET /smuggled HTTP/0.9",
        "HTTP/2.0": b"POST " + PATH + b" HTTP/2.0",
        "HTTP/2": b"POST " + PATH + b" HTTP/2",
        "HTTP/1.2": b"POST " + PATH + b" HTTP/1.2",
        "HTTP/1.10": b"POST " + PATH + b" HTTP/1.10",
        "HTTP/1": b"POST " + PATH + b" HTTP/1",
        "HTTP/01.1": b"POST " + PATH + b" HTTP/01.1",
        "http/1.1": b"POST " + PATH + b" http/1.1",
        "a space behind the version": b"POST " + PATH + b" HTTP/1.1 ",
        "a word behind the version": b"POST " + PATH + b" HTTP/1.1 x",
        "two versions": b"POST " + PATH + b" HTTP/1.0 HTTP/1.1",
        "two spaces before the target": b"POST  " + PATH + b" HTTP/1.1",
        "two spaces behind the target": b"POST " + PATH + b"  HTTP/1.1",
        "tabs": b"POST\t" + PATH + b"\tHTTP/1.1",
        "a tab behind the target": b"POST " + PATH + b"\t HTTP/1.1",
        "a vertical tab": b"POST\x0b" + PATH + b" HTTP/1.1",
        "a NUL in the target": b"POST " + PATH + b"\0 HTTP/1.1",
        "a CR in the target": b"POST " + PATH + b"\r HTTP/1.1",
        "an LF in the target": b"POST " + PATH + b"?a\nb HTTP/1.1",
        "a space in the target": b"POST " + PATH + b"?a b HTTP/1.1",
        "DEL in the target": b"POST " + PATH + b"?\x7f HTTP/1.1",
        "a space before the method": b" POST " + PATH + b" HTTP/1.1",
        "a method in small letters": b"post " + PATH + b" HTTP/1.1",
        "a method with a digit": b"P0ST " + PATH + b" HTTP/1.1",
        "a method with a NUL": b"POST\0 " + PATH + b" HTTP/1.1",
        "an endless method": b"P" * 300 + b" " + PATH + b" HTTP/1.1",
        "no method": PATH + b" HTTP/1.1",
        "no target": b"POST HTTP/1.1",
        "absolute-form": b"POST http://x" + PATH + b" HTTP/1.1",
        "absolute-form of another host": b"POST http://evil" + PATH + b" HTTP/1.1",
        "absolute-form with https": b"POST https://x" + PATH + b" HTTP/1.1",
        "authority-form": b"POST x:80 HTTP/1.1",
        "a relative path": b"POST v1/chat/completions HTTP/1.1",
        "CONNECT": b"CONNECT x:443 HTTP/1.1",
        "CONNECT with a path": b"CONNECT " + PATH + b" HTTP/1.1",
        "a fragment": b"POST " + PATH + b"#/smuggled HTTP/1.1",
        "a fragment in the query": b"POST " + PATH + b"?a#b HTTP/1.1",
        "* with POST": b"POST * HTTP/1.1",
        "a query alone": b"POST ?a HTTP/1.1",
        "dot segments": b"POST /smuggled/.." + PATH + b" HTTP/1.1",
        "dot segments at the end": b"POST " + PATH + b"/.. HTTP/1.1",
        "a single dot": b"POST /." + PATH + b" HTTP/1.1",
        "encoded dots": b"POST /smuggled/%2e%2E" + PATH + b" HTTP/1.1",
        "half encoded dots": b"POST /smuggled/.%2e" + PATH + b" HTTP/1.1",
        "dots and a backslash": b"POST /smuggled/..\\v1/chat/completions HTTP/1.1",
        "dots between backslashes": b"POST /smuggled\\..\\v1/chat/completions HTTP/1.1",
        "dots and an encoded slash": b"POST /smuggled/..%2fv1/chat/completions HTTP/1.1",
        "dots behind an encoded slash": b"POST /smuggled%2f../v1/chat/completions HTTP/1.1",
        "dots and a parameter": b"POST /smuggled/..;a=b" + PATH + b" HTTP/1.1",
        "an encoded NUL": b"POST " + PATH + b"%00 HTTP/1.1",
        "an encoded line break": b"POST " + PATH + b"%0d%0aX:%20y HTTP/1.1",
        "a backslash": b"POST /v1\\chat/completions HTTP/1.1",
    }.items()
}
TARGETS = {
    "an encoded slash is no slash": turned_away(request(line=b"POST /v1/chat%2Fcompletions HTTP/1.1")),
    "an encoded letter is no letter": turned_away(request(line=b"POST /%761/chat/completions HTTP/1.1")),
    "two slashes are not one": turned_away(request(line=b"POST /" + PATH + b" HTTP/1.1")),
    "two slashes are no authority": turned_away(request(line=b"POST //x" + PATH + b" HTTP/1.1")),
    "twice encoded": turned_away(request(line=b"POST /%252e%252e" + PATH + b" HTTP/1.1")),
    "a parameter of a segment": turned_away(request(line=b"POST " + PATH + b";a=b HTTP/1.1")),
    "bytes above ASCII": refused(request(line=b"POST " + PATH + b"\xff HTTP/1.1")),
    "OPTIONS *": Shape(request(line=b"OPTIONS * HTTP/1.1", length=False, body=b""), 204, kept=True),
    "a query passes as it is": passes(
        request(line=b"POST " + PATH + b"?a=../..&b=%0d%0aX:%20y&c=http://x/?d HTTP/1.1"),
        line="POST /v1/chat/completions?a=../..&b=%0d%0aX:%20y&c=http://x/?d HTTP/1.1",
    ),
    "a long target": refused(request(line=b"POST " + PATH + b"?" + b"a" * 70000 + b" HTTP/1.1"), 431, "head_too_large"),
}

HOSTS = {
    "two hosts": refused(request(b"Host: y")),
    "the same host twice": refused(request(b"Host: x")),
    "no host": refused(request(host=b"")),
    "no host, and HTTP/1.0": passes(request(host=b"", line=b"POST " + PATH + b" HTTP/1.0"), kept=False),
    **{
        f"host: {name}": refused(request(host=b"Host: " + value + b"\r\n"))
        for name, value in {
            "with a path": b"x/smuggled",
            "with a path and dots": b"x/../y",
            "with user information": b"user@x",
            "with a password": b"a:b@x",
            "two words": b"x y",
            "a tab": b"x\ty",
            "a list": b"x,y",
            "a list with a space": b"x, y",
            "a URL": b"http://x",
            "a query": b"x?a",
            "a fragment": b"x#a",
            "a backslash": b"x\\y",
            "a port that is none": b"x:http",
            "two ports": b"x:80:81",
            "a port out of range": b"x:999999",
            "quoted": b'"x"',
            "encoded": b"x%2ey",
            "above ASCII": "é".encode(),
            "a NUL": b"x\0y",
            "an open bracket": b"[::1",
            "a bracket and more": b"[::1]x",
            "no IPv6 address": b"[x]",
            "angle brackets": b"<x>",
            "a parameter": b"x;a=b",
        }.items()
    },
    **{
        f"host: {name}": passes(request(host=b"hOsT:" + value + b"\r\n"))
        for name, value in {
            "a port": b" x.example:8080",
            "an empty port": b" x:",
            "IPv6": b" [::1]:8080",
            "IPv6 with IPv4": b"[::ffff:127.0.0.1] \t",
            "underscores": b" my_service-1.local.",
            "nothing": b"",
        }.items()
    },
    "a host with a space before its colon": refused(request(host=b"Host : x\r\n")),
    "a folded host": refused(request(host=b"Host:\r\n x\r\n")),
    "a host behind other lines": passes(request(b"A: b", host=b"Accept: */*\r\nhost: x\r\n")),
    "a bad host behind other lines": refused(request(b"A: b", host=b"Accept: */*\r\nhost: x/y\r\n")),
    "a bad host that looks like a good one before": refused(request(host=b"X: Host: x\r\nHost: x/y\r\n")),
}

FIELDS = {
    "obs-fold": refused(request(b"A: b\r\n c")),
    "obs-fold with a tab": refused(request(b"A: b\r\n\tc")),
    "obs-fold in the first line": refused(request(host=b" A: b\r\nHost: x\r\n")),
    "a bare LF": refused(request(b"A: b\nGET: c")),
    "a bare CR": refused(request(b"A: b\rc")),
    "a NUL": refused(request(b"A: b\0c")),
    "a control character": refused(request(b"A: b\x01c")),
    "DEL": refused(request(b"A: b\x7fc")),
    "an empty name": refused(request(b": b")),
    "a name with a space": refused(request(b"A b: c")),
    "a name with a NUL": refused(request(b"A\0: b")),
    "a name above ASCII": refused(request("Ä: b".encode())),
    "a name with a bracket": refused(request(b"A[]: b")),
    "no colon": refused(request(b"A")),
    "a whole head that ends with LF": refused(request(b"A: b").replace(b"\r\n", b"\n")),
    "an end of LF alone": refused(request(b"A: b").replace(b"\r\n\r\n", b"\r\n\n")),
    "an end of CR alone": refused(request(b"A: b").replace(b"\r\n\r\n", b"\r\n\r\r\n\r\n")),
    "an empty line with a space": refused(request(b"A: b\r\n ")),
    "300 lines": refused(request(*[b"A: b"] * 300), 431, "head_too_large"),
    "a line over the limit": refused(request(b"A: " + b"b" * 70000), 431, "head_too_large"),
    "two content types": refused(request(b"Content-Type: application/json", b"Content-Type: text/plain")),
    "Content_Type": refused(request(b"Content_Type: text/plain")),
    "Content_Encoding": refused(request(b"content_encoding: gzip")),
    "X_Api_Key": refused(request(b"X_API_KEY: a")),
    "another underscore": passes(request(b"X_Custom: a")),
    "bytes above ASCII in a value": passes(request(b"A: \xc3\xa9\xff")),
    "an empty value": passes(request(b"A:")),
    "many lines": passes(request(*[b"A: b"] * 60)),
}

HOP_BY_HOP = {
    **{
        f"Connection: {name.decode()}": refused(request(b"Connection: " + name))
        for name in (
            b"Content-Length",
            b"close, content-length",
            b"keep-alive,HOST",
            b"content-type",
            b"x, Content-Encoding ,y",
            b"authorization",
            b"x-api-key",
            b"api-key",
        )
    },
    "the second Connection line": refused(request(b"Connection: keep-alive", b"A: b", b"connection: host")),
    "Connection names a field of its own": passes(request(b"Connection: keep-alive, x-own", b"X-Own: a")),
    "Connection names a name like a field": passes(request(b"Connection: content-length-x, my-host")),
    "close, and bytes behind": passes(request(b"Connection: close"), kept=False),
    "close in other letters": passes(request(b"connection: CLOSE"), kept=False),
    "HTTP/1.0 and keep-alive": passes(request(b"Connection: keep-alive", line=b"POST " + PATH + b" HTTP/1.0")),
    "Proxy-Connection": passes(request(b"Proxy-Connection: keep-alive", b"Keep-Alive: max=1")),
    "Proxy-Connection: close": passes(request(b"Proxy-Connection: close"), kept=False),
    "TE": passes(request(b"TE: trailers, deflate", b"Connection: TE")),
    "TE: chunked": passes(request(b"TE: chunked")),
    "Trailer": passes(chunked(ONE_CHUNK, b"Trailer: Content-Length")),
    "Max-Forwards": passes(request(b"Max-Forwards: 0")),
    "h2c": passes(
        request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        kept=False,
    ),
    "h2c without Connection": passes(request(b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")),
    "websocket": passes(request(b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: eA=="), kept=False),
    "websocket, chunked": passes(chunked(ONE_CHUNK, b"Connection: upgrade", b"Upgrade: websocket"), kept=False),
    "Expect: something else": refused(request(b"Expect: tea")),
    "Expect: a list": refused(request(b"Expect: 100-continue, tea")),
    "Expect twice": refused(request(b"Expect: 100-continue", b"Expect: tea")),
    "Expect in HTTP/1.0": passes(request(b"Expect: tea", line=b"POST " + PATH + b" HTTP/1.0"), kept=False),
    "X-HTTP-Method-Override": passes(request(b"X-HTTP-Method-Override: GET")),
}

OTHERS = {
    "two empty lines before": passes(b"\r\n\r\n" + request()),
    "three empty lines before": refused(b"\r\n\r\n\r\n" + request()),
    "an LF before": refused(b"\n" + request()),
    "a CR before": refused(b"\r" + request()),
    "a space before": refused(b" " + request()),
    "a NUL before": refused(b"\0" + request()),
    "a byte order mark before": refused(b"\xef\xbb\xbf" + request()),
    "an HTTP/2 preface": refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a TLS hello": refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    "PROXY protocol from nobody known": refused(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + request()),
    "PROXY protocol 2 from nobody known": refused(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + request()),
    "an SSH banner": refused(b"SSH-2.0-x\r\n\r\n"),
    "a response": refused(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "a body on a GET": turned_away(
        request(line=b"GET " + PATH + b" HTTP/1.1", body=FOLLOWER), 405, "method_not_allowed"
    ),
    "a body on OPTIONS": turned_away(request(line=b"OPTIONS /x HTTP/1.1", body=FOLLOWER)),
    "an unknown method": refused(request(line=b"BREW " + PATH + b" HTTP/1.1")),
    "another method": turned_away(request(line=b"PUT " + PATH + b" HTTP/1.1"), 405, "method_not_allowed"),
    "a body in the shape of a request": passes(request(body=FOLLOWER), length=str(len(FOLLOWER)), body=FOLLOWER),
}

SHAPES = {
    **{f"length: {name}": shape for name, shape in LENGTHS.items()},
    **{f"coding: {name}": shape for name, shape in CODINGS.items()},
    **CHUNKS,
    **{f"line: {name}": shape for name, shape in LINES.items()},
    **{f"target: {name}": shape for name, shape in TARGETS.items()},
    **HOSTS,
    **{f"field: {name}": shape for name, shape in FIELDS.items()},
    **{f"hop by hop: {name}": shape for name, shape in HOP_BY_HOP.items()},
    **OTHERS,
}
