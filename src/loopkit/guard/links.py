"""Addresses in what a model says: those it may name, and those that would be fetched without anybody asking."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from loopkit.detect.patterns import Finding, merged
from loopkit.errors import InvalidInput
from loopkit.guard.check import PLAINLY, Action, How, OnError
from loopkit.guard.spans import Finder, finding_action

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

_AFTER: Final = "\\s<>\"'`{}|^…。，、；：！？“”‘’«»（）【】"
"""What ends an address in running text."""
_ADDRESS: Final = re.compile(
    rf"""(?ix) (?<![a-z0-9+.-])(?:https?|ftp|wss?):[/\\]{{0,2}}[^{_AFTER}]{{1,2000}}
    | (?<![a-z0-9+.-])[a-z][a-z0-9+.-]{{1,20}}://[^{_AFTER}]{{1,2000}}
    | (?<![\w:/\\.])//(?=[\w[])[^{_AFTER}]{{1,2000}}
    | (?<![a-z0-9.@-])www\.[^{_AFTER}]{{1,2000}}"""
)
_DATA: Final = re.compile(r"(?i)(?<![a-z0-9])data:[a-z0-9/+.-]{0,80}(?:;[a-z0-9=.-]{1,40}){0,4},[^\s<>\"')]{0,100000}")
_NAMES: Final = (
    "img|iframe|script|link|video|audio|source|object|embed|image|input|body|track|form|base|meta|use|feimage|frame"
)
_INSIDE: Final = r"""(?:[^<>"']|"[^"]{0,4000}"|'[^']{0,4000}')"""
_TAG: Final = re.compile(rf"(?i)<(?:{_NAMES})\b(?P<inside>{_INSIDE}{{0,4000}})>?")
_ATTRIBUTE: Final = re.compile(r"""([\w:-]+)(?:\s{0,9}=\s{0,9}(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?""")
_FETCHING: Final = frozenset(
    ("src", "srcset", "href", "xlink:href", "data", "poster", "background", "action", "content", "imagesrcset")
)
_ALT: Final = r"(?:\\.|[^\[\]\\]|\[[^\[\]]{0,200}\]){0,500}"
_FETCHED: Final = re.compile(
    rf"""(?ixs)
      !\[{_ALT}\]\(\s{{0,9}}<?(?P<image>[^\s)>]{{1,4000}})[^)\n]{{0,500}}\)?
    | \b(?:url|image-set)\(\s{{0,9}}["']?(?P<style>[^\s"')]{{1,4000}})["']?\s{{0,9}}\)?
    | @import\s{{1,9}}["'](?P<import>[^\s"']{{1,4000}})["']?
    | ^[ >]{{0,12}}\[[^\]\n]{{1,200}}\]:\s{{0,9}}<?(?P<reference>[^\s>]{{1,4000}})""",
    re.MULTILINE,
)
"""Markdown's images, styles, and where a reference in Markdown points to."""
_OPEN: Final = re.compile(
    rf"""(?ixs)!\[{_ALT}(?:\\|\[[^\[\]]{{0,200}})?\Z | !\[{_ALT}\](?:\(\s{{0,9}}[^)\n]{{0,4600}})?\Z
    | <(?:{_NAMES})\b{_INSIDE}{{0,4000}}(?:"[^"]{{0,4000}}|'[^']{{0,4000}})?\Z
    | \b(?:url|image-set)\([^)]{{0,4100}}\Z | @import\s{{0,9}}(?:["'][^\s"']{{0,4000}})?\Z
    | ^[ >]{{0,12}}\[[^\]\n]{{0,200}}(?:\](?::\s{{0,9}}\S{{0,4000}})?)?\Z""",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class LinkCheck(Finder):
    """Finds addresses of hosts that aren't allowed. Fails closed."""

    name: str
    action: Action
    hosts: frozenset[str]
    """Allowed; those that begin with a dot with all below."""
    fetched_only: bool
    how: How = PLAINLY
    on_error: OnError = "closed"

    def why(self, found: Sequence[Finding]) -> str:
        """What was found, in words; addresses may carry what they are to carry off, so they aren't repeated."""
        return f"{' and '.join(sorted({each.kind for each in found}))} of hosts that aren't allowed"

    def find(self, text: str) -> list[Finding]:
        """See `Finder.find`."""
        return merged([*self._fetched(text), *([] if self.fetched_only else self._named(text))])

    def open_at(self, text: str, start: int) -> int:
        """See `SpanCheck.open_at`."""
        tail = text[start:]
        last = len(text) if not tail or tail[-1].isspace() else len(text) - len(tail.split()[-1])
        found = _OPEN.search(text, start)
        return last if found is None else min(last, found.start())

    def _fetched(self, text: str) -> Iterator[Finding]:
        for match in _FETCHED.finditer(text):
            if not self._is_allowed(match[str(match.lastgroup)]):
                yield Finding("image" if match.lastgroup == "image" else "link", *match.span())
        for match in _TAG.finditer(text) if "<" in text else ():
            if not all(map(self._is_allowed, _fetched_by(match["inside"]))):
                yield Finding("link", *match.span())
        for match in _DATA.finditer(text):
            yield Finding("data", *match.span())

    def _named(self, text: str) -> Iterator[Finding]:
        for match in _ADDRESS.finditer(text):
            address = match[0].rstrip(".,;:!?)]*_")
            if not self._is_allowed(address):
                yield Finding("link", match.start(), match.start() + len(address))

    def _is_allowed(self, address: str) -> bool:
        """Of what has no host, which is the page's own, everything but code and data is."""
        said = unescape(address)
        return all(map(self._is_allowed_as, {said, _ESCAPED.sub(r"\1", said)}))

    def _is_allowed_as(self, address: str) -> bool:
        host = host_of(address)
        if host is None:
            return not _RUNS.match(address)
        return host in self.hosts or any(f".{host}".endswith(each) for each in self.hosts if each.startswith("."))


def _fetched_by(inside: str) -> Iterator[str]:
    """The addresses in a tag's attributes, of lists each."""
    for match in _ATTRIBUTE.finditer(inside):
        if match[1].lower() in _FETCHING:
            value = unescape(match[2] or match[3] or match[4] or "")
            yield from re.sub(r"(?i)^\s*\d+\s*;\s*url\s*=", "", value).replace(",", " ").split()


_ESCAPED: Final = re.compile(r"\\([!-/:-@\[-`{-~])")
"""As Markdown has it."""
_RUNS: Final = re.compile(r"(?i)[\s\x00-\x20]*(?:javascript|data|vbscript|blob|file)\s*:")


def host_of(address: str) -> str | None:
    """The host that a browser would ask, which reads addresses generously; None where there is none. "?" where it
    can't be told."""
    clean = re.sub(r"[\x00-\x20\u00ad\u200b-\u200d\u2060\ufeff]", "", address).replace("\\", "/")
    if clean.lower().startswith("www."):
        clean = f"//{clean}"
    clean = re.sub(r"(?i)\A(https?|ftp|wss?):/*", r"\1://", clean)
    try:
        host = urlsplit(clean).hostname
        return None if host is None else host.rstrip(".").encode("idna").decode("ascii").lower()
    except (ValueError, UnicodeError):
        return "?"


def urls(allow: Iterable[str], *, action: Action = "redact", **how: Unpack[Options]) -> LinkCheck:
    """Addresses of hosts that aren't on a list: `"example.org"` is that host, `"*.example.org"` all below it too.

    checks.urls(allow=["example.org", "*.example.org"])
    """
    return LinkCheck("urls", finding_action(action), _hosts("urls", allow), False, How.of(how))


def exfiltration(allow: Iterable[str] = (), *, action: Action = "redact", **how: Unpack[Options]) -> LinkCheck:
    """What would be fetched as soon as an answer is shown, and could carry off what the model has read: Markdown's
    images and references, tags that load something, styles, data: URIs; but for hosts on a list."""
    return LinkCheck("exfiltration", finding_action(action), _hosts("exfiltration", allow), True, How.of(how))


def _hosts(name: str, allow: Iterable[str]) -> frozenset[str]:
    if isinstance(allow, str):
        raise InvalidInput(f"{name}(allow=) got one text, {allow!r}: give a list of hosts")
    found: set[str] = set()
    for each in allow:
        bare = each.removeprefix("*.") if isinstance(each, str) else ""
        if not re.fullmatch(r"[\w-]+(?:\.[\w-]+)*", bare):
            raise InvalidInput(f"{name}(allow=) got {each!r}: give hosts, such as 'example.org' or '*.example.org'")
        host = bare.encode("idna").decode("ascii").lower()
        found |= {host, f".{host}"} if each.startswith("*.") else {host}
    return frozenset(found)
