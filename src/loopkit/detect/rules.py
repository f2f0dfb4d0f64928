"""Credentials by rule: the forms that services give their keys, and what stands where a key belongs.

A rule is tried where one of its hints is in the text. What is found must look drawn by chance (Shannon's entropy over
its characters), and must be no stand-in such as `xxxx`, `EXAMPLE` or `${TOKEN}`. The forms are those that the services
document.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from loopkit.detect.patterns import TOKENS, Finding


@dataclass(frozen=True, slots=True)
class Rule:
    """One form. The group `secret` is what is secret, else all of it."""

    name: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...]
    """One of these, lower case, is in every text that it finds something in, whatever the case."""
    entropy: float = 2.5
    """Bits a character, at least."""
    may_be_words: bool = False
    """Passwords may read as names; what services draw does not."""


def credentials_in(text: str) -> list[Finding]:
    """All of them, in order; two rules may find the same. Written for speed: most texts hold none."""
    found: list[Finding] = []
    data = text.encode("utf-8", "surrogatepass")
    if _LONG in data.translate(TOKENS) or b"Q~" in data:  # the forms of keys; Azure's may be broken by dots
        lower = text.lower()
        for rule in _rules():
            for hint in rule.hints:  # no any(): a generator costs more than the searches
                if hint in lower:
                    found += [Finding("credential", *span) for span in _spans(rule, text)]
                    break
    if b"=" in data or b":" in data:  # what stands where a secret belongs may be shorter
        for rule, needed in _places():
            if needed in data and (rule.name not in ("assigned", "key header") or _KEYWORD.search(text) is not None):
                found += [Finding("credential", *span) for span in _spans(rule, text)]
    return sorted(found, key=lambda finding: (finding.start, -finding.end))


_LONG: Final = b"\1" * 14
"""The shortest form has so many characters in a row, Azure's aside."""


def entropy(text: str) -> float:
    """Shannon's, in bits a character."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values()) if text else 0.0


def _spans(rule: Rule, text: str) -> Iterator[tuple[int, int]]:
    for match in rule.pattern.finditer(text):
        group = match.lastgroup or 0  # of the groups with a name the one that matched
        value = match.group(group)
        if (
            value
            and not _STAND_IN.search(value)
            and (rule.may_be_words or not _is_name(value))
            and entropy(value) >= rule.entropy
        ):
            yield match.span(group)


def _is_name(value: str) -> bool:
    """Whether it reads as a name: words and small numbers, joined as in code, versions and paths."""
    parts = _JOINTS.split(value)
    return len(value) < 80 and all(_WORD.fullmatch(part) is not None for part in parts)


_JOINTS: Final = re.compile(r"[._/()=:-]+")
_WORD: Final = re.compile(r"[A-Za-z]{0,20}[0-9]{0,3}")
_STAND_IN: Final = re.compile(
    r"(?i)example|sample|placeholder|changeme|change_me|redacted|dummy|your[_-]?|insert|xxxx|\*{3}|\.{3}|_here|here\b"
    r"|12345678|1234-1234|abcdefgh|^<.*>$|^\$|\$\{|\{\{|%\(|(.)\1{5}"
)
"""What is put where a secret would stand."""


def _rule(
    name: str, pattern: str, *hints: str, entropy: float = 2.5, flags: int = 0, may_be_words: bool = False
) -> Rule:
    return Rule(name, re.compile(pattern, flags), hints, entropy, may_be_words)


@functools.cache
def _rules() -> tuple[Rule, ...]:
    """Compiled when first needed."""
    return (
        _rule("1password", r"\bops_eyJ[A-Za-z0-9+/]{100,2000}={0,3}|\bA3(?:-[A-Z0-9]{5,6}){5,7}\b", "ops_eyj", "a3-"),
        _rule("adafruit", r"\baio_[A-Za-z0-9]{28}\b", "aio_"),
        _rule("age", r"\bAGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}", "age-secret-key-1"),
        _rule("alibaba", r"\bLTAI[A-Za-z0-9]{16,24}\b", "ltai"),
        _rule("anthropic", r"\bsk-ant-(?:api|admin|sid)\d\d-[\w-]{93}AA(?![\w-])", "sk-ant-"),
        _rule("artifactory", r"\b(?:AKCp[A-Za-z0-9]{60,80}|cmVmd[A-Za-z0-9]{50,70})\b", "akcp", "cmvmd", entropy=3.5),
        _rule(
            "aws", r"\b(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
            "a3t", "akia", "asia", "abia", "acca", entropy=3.0,
        ),
        _rule(
            "aws bedrock",
            r"\bABSK[A-Za-z0-9+/]{100,280}={0,2}|\bbedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t[\w+/=-]{0,2000}",
            "absk", "bedrock-api-key-",
        ),
        _rule(
            "aws secret",
            r"(?i)aws.{0,20}?(?:secret|key).{0,20}?[=:]\s*[\"']?(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
            "aws", entropy=3.5,
        ),
        _rule("azure", r"(?<![\w~.-])[\w~.]{3}\dQ~[\w~.-]{31,34}(?![\w~-])", "q~", entropy=3.0),
        _rule("azure storage", r"AccountKey=(?P<secret>[A-Za-z0-9+/]{80,90}={0,2})", "accountkey=", entropy=4.0),
        _rule("clickhouse", r"\b4b1d[A-Za-z0-9]{38}\b", "4b1d", entropy=3.0),
        _rule("databricks", r"\bdapi[0-9a-f]{32}(?:-\d)?\b", "dapi", entropy=3.0),
        _rule("digitalocean", r"\bdo[oprt]_v1_[0-9a-f]{64}\b", "_v1_", entropy=3.0),
        _rule(
            "discord",
            r"(?i)(?<![a-z])discord(?![a-z]).{0,40}?[=:]\s*[\"']?"
            r"(?P<secret>[\w-]{24}\.[\w-]{6}\.[\w-]{27,38}|[\w-]{32})(?![\w-])",
            "discord", entropy=3.2,
        ),
        _rule("doppler", r"\bdp\.(?:pt|st|ct|scim|audit)\.[A-Za-z0-9.]{40,60}\b", "dp.", entropy=3.0),
        _rule("dropbox", r"\bsl\.[\w-]{130,200}(?![\w-])", "sl.", entropy=4.0),
        _rule("duffel", r"\bduffel_(?:test|live)_[\w=-]{43}", "duffel_"),
        _rule("easypost", r"\bEZ[AT]K[A-Za-z0-9]{54}\b", "ezak", "eztk", entropy=3.0),
        _rule(
            "facebook", r"(?<![\w|])\d{15,16}(?:\||%7C)[\w-]{25,40}(?![\w-])|\bEAA[MC][A-Za-z0-9]{90,300}\b",
            "|", "%7c", "eaa", entropy=3.0,
        ),
        _rule("flutterwave", r"(?i)\bFLW(?:PUBK|SECK)_TEST-[0-9a-f]{32}-X\b", "flw"),
        _rule(
            "fly", r"\bfo1_[\w-]{43}(?![\w-])|\bfm[12][ar]?_[A-Za-z0-9+/]{100,2000}={0,3}",
            "fo1_", "fm1", "fm2", entropy=3.5,
        ),
        _rule(
            "github", r"\bgh[opusr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_\w{50,255}",
            "gho_", "ghp_", "ghu_", "ghs_", "ghr_", "github_pat_", entropy=3.0,
        ),
        _rule(
            "gitlab",
            r"\bgl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat)-[\w.-]{20,70}|\bGR1348941[\w-]{20}(?![\w-])"
            r"|\b_gitlab_session=[0-9a-z]{32}",
            "glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glimt-", "glagent-", "gloas-", "glsoat-",
            "gr1348941", "gitlab_session", entropy=3.0,
        ),
        _rule(
            "google", r"\bAIza[\w-]{35}(?![\w-])|\bGOCSPX-[\w-]{28}(?![\w-])|\bya29\.[\w-]{40,300}",
            "aiza", "gocspx-", "ya29.", entropy=3.5,
        ),
        _rule(
            "google service account",
            r"\"type\":\s{0,9}\"service_account\"",
            "service_account", entropy=0.0, may_be_words=True,
        ),
        _rule(
            "grafana",
            r"\beyJrIjoi[A-Za-z0-9]{70,400}={0,3}|\bglc_[A-Za-z0-9+/]{32,400}={0,3}|\bglsa_[A-Za-z0-9]{32}_[0-9A-Fa-f]{8}\b",
            "eyjrijoi", "glc_", "glsa_", entropy=3.0,
        ),
        _rule(
            "groq, xai, replicate", r"\bgsk_[A-Za-z0-9]{48,56}\b|\bxai-[A-Za-z0-9]{60,90}\b|\br8_[A-Za-z0-9]{37}\b",
            "gsk_", "xai-", "r8_", entropy=3.0,
        ),
        _rule("harness", r"\b[ps]at\.[\w-]{22}\.[0-9a-zA-Z]{24}\.[0-9a-zA-Z]{20}\b", "pat.", "sat."),
        _rule("hashicorp", r"(?i)\b[a-z0-9]{14}\.atlasv1\.[\w=-]{60,70}", "atlasv1"),
        _rule("heroku", r"\bHRKU-AA[\w-]{58}(?![\w-])", "hrku-aa"),
        _rule("hugging face", r"\b(?:hf_[A-Za-z0-9]{30,60}|api_org_[A-Za-z]{34})\b", "hf_", "api_org_", entropy=3.0),
        _rule("infracost", r"\bico-[A-Za-z0-9]{32}\b", "ico-", entropy=3.0),
        _rule("intra42", r"\bs-s4t2(?:ud|af)-[0-9a-f]{64}\b", "s-s4t2", entropy=3.0),
        _rule("linear", r"\blin_api_[A-Za-z0-9]{40}\b", "lin_api_", entropy=3.0),
        _rule("lob", r"\b(?:live|test)_(?:pub_)?[a-f0-9]{35}\b", "live_", "test_", entropy=3.0),
        _rule("mailchimp", r"(?i)(?<![a-z])mailchimp(?![a-z]).{0,60}?(?P<secret>[0-9a-f]{32}-us\d\d?)\b", "mailchimp"),
        _rule("mailgun", r"\bkey-[0-9a-f]{32}\b", "key-", entropy=3.0),
        _rule("meraki", r"(?i)meraki.{0,40}?[=:\s\"'](?P<secret>[0-9a-f]{40})\b", "meraki", entropy=3.0),
        _rule("new relic", r"\bNRAK-[A-Z0-9]{27}\b|\bNRII-[\w-]{32}(?![\w-])", "nrak-", "nrii-"),
        _rule(
            "notion",
            r"\bntn_[0-9]{11}[A-Za-z0-9]{32,40}\b|\bsecret_[A-Za-z0-9]{43}\b",
            "ntn_", "secret_", entropy=3.0,
        ),
        _rule("npm", r"\bnpm_[A-Za-z0-9]{36}\b", "npm_", entropy=2.8),
        _rule("octopus", r"\bAPI-[A-Z0-9]{26}\b", "api-", entropy=3.0),
        _rule(
            "okta",
            r"(?i)(?<![a-z])okta(?![a-z]).{0,60}?[=:\s\"'](?P<secret>00[\w=-]{40})(?![\w-])",
            "okta", entropy=3.5,
        ),
        _rule("openai", r"\bsk-(?:proj-|svcacct-|admin-|or-v1-)?(?!ant-)[\w-]{20,220}(?![\w-])", "sk-", entropy=3.3),
        _rule("perplexity", r"\bpplx-[A-Za-z0-9]{48}\b", "pplx-", entropy=3.5),
        _rule("postman", r"\bPMAK-[0-9a-f]{24}-[0-9a-f]{34}\b", "pmak-"),
        _rule("prefect, pulumi", r"\bpnu_[a-z0-9]{36}\b|\bpul-[0-9a-f]{40}\b", "pnu_", "pul-"),
        _rule(
            "private key",
            r"-----BEGIN[ A-Z0-9_-]{0,100}PRIVATE KEY(?: BLOCK)?-----(?:(?!-----)[\s\S]){64,20000}"
            r"(?:-----END[ A-Z0-9_-]{0,100}-----)?",
            "private key", entropy=3.0,
        ),
        _rule("pypi", r"\bpypi-AgEIcHlwaS5vcmc[\w-]{50,1000}", "pypi-ageichlwas5vcmc"),
        _rule("rubygems", r"\brubygems_[a-f0-9]{48}\b", "rubygems_"),
        _rule("sendgrid", r"\bSG\.[\w-]{20,24}\.[\w-]{39,50}(?![\w-])", "sg.", entropy=3.0),
        _rule("sendinblue", r"\bxkeysib-[0-9a-f]{64}-[a-z0-9]{16}\b", "xkeysib-"),
        _rule("sentry", r"\bsntry[su]_[\w+/=-]{40,400}", "sntry"),
        _rule("shopify", r"(?i)\bshp(?:at|ca|pa|ss)_[0-9a-f]{32}\b", "shpat_", "shpca_", "shppa_", "shpss_"),
        _rule(
            "slack",
            r"\bxox[abposr]-(?:\d{9,13}-){1,3}[A-Za-z0-9-]{20,60}|\bxox[abposr]-[A-Za-z0-9-]{24,80}"
            r"|\bxoxe(?:\.xox[bp])?-\d-[A-Za-z0-9]{140,180}|\bxapp-\d-[A-Z0-9]{1,20}-\d{1,20}-[a-z0-9]{20,80}",
            "xox", "xapp-", entropy=2.8,
        ),
        _rule(
            "slack webhook", r"https?://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{40,60}",
            "hooks.slack.com", entropy=3.0,
        ),
        _rule(
            "sourcegraph",
            r"(?i)\bsgp_(?:[0-9a-f]{16}_|local_)?[0-9a-f]{40}\b|sourcegraph.{0,40}?\b(?P<secret>[0-9a-f]{40})\b",
            "sgp_", "sourcegraph", entropy=3.0,
        ),
        _rule("square", r"\b(?:EAAA|sq0atp-|sq0csp-)[\w-]{22,60}(?![\w-])", "eaaa", "sq0", entropy=3.0),
        _rule(
            "stripe", r"\b[sr]k_(?:test|live|prod)_[A-Za-z0-9]{10,110}\b|\bwhsec_[A-Za-z0-9+/=]{32,64}",
            "_test_", "_live_", "_prod_", "whsec_", entropy=2.8,
        ),
        _rule(
            "sumo logic",
            r"(?i)(?<![a-z])sumo(?:logic)?(?![a-z]).{0,60}?[=:\s\"'](?P<secret>su[A-Za-z0-9]{12}|[a-z0-9]{64})\b",
            "sumo", entropy=3.0,
        ),
        _rule("telegram", r"(?<![\w:])\d{8,10}:AA[\w-]{33}(?![\w-])", ":aa", entropy=3.0),
        _rule(
            "twilio",
            r"(?i:twilio)[\s\S]{0,200}?\b(?P<secret>(?:SK|AC)[0-9a-f]{32})\b",
            "twilio", entropy=3.0,
        ),
        _rule("vault", r"\bhv[sb]\.[\w-]{60,300}|\bs\.[A-Za-z0-9]{24}\b", "hvs.", "hvb.", "s.", entropy=3.6),
        _rule(
            "services by name",
            r"(?i)(?<![a-z])(?:beamer|privateai|private_ai|etsy|clojars|codecov|confluent|fastly|finnhub|freshbooks|gitter"
            r"|lokalise|mapbox|netlify|nytimes|plaid|rapidapi|snyk|squarespace|travis|trello|typeform|yandex|zendesk)"
            r"(?![a-z]).{0,40}?[=:>\s\"']\s{0,3}[\"']?(?P<secret>[\w=-]{24,80})(?![\w=-])",
            "beamer", "private", "etsy", "clojars", "codecov", "confluent", "fastly", "finnhub", "freshbooks", "gitter",
            "lokalise", "mapbox", "netlify", "nytimes", "plaid", "rapidapi", "snyk", "squarespace", "travis", "trello",
            "typeform", "yandex", "zendesk", entropy=3.2,
        ),
    )  # fmt: skip


@functools.cache
def _places() -> tuple[tuple[Rule, bytes], ...]:
    """Where a secret stands whatever its form. Compiled when first needed; each with something that must be there."""
    header = _rule(
        "header",
        r"(?i)\b(?:proxy-)?authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?:basic|bearer|token|apikey|digest)\s+)?"
        r"(?P<secret>[\w=~@.+/:-]{10,2000})",
        entropy=2.8,
    )
    key_header = _rule(
        "key header",
        r"(?i)\b(?:x-)?(?:api|auth|access|private|gitlab|vault|deploy)-?(?:key|token)[\"']?\s{0,3}:\s{0,3}[\"']?"
        r"(?P<secret>[\w=~@.+/-]{8,300})",
        entropy=2.8,
    )
    curl = _rule(
        "curl",
        r"(?i)\bcurl\b[^\n]{0,400}?\s(?:-u|--user)[\s=]{0,3}(?:\"(?P<a>[^:\"$\s]{1,80}:[^\"$\n]{3,80})\""
        r"|'(?P<b>[^:'$\s]{1,80}:[^'$\n]{3,80})'"
        r"|(?P<c>[^\"'\s:$<{]{1,80}:(?:'[^'\n]{3,80}'|[^\s\"'<{$][^\s\"']{2,80})))",
        entropy=1.5,
        may_be_words=True,
    )
    url = _rule(
        "url",
        r"\b[a-z][a-z0-9+.-]{1,15}://(?P<secret>[^/\s:@\"'<>{}$]{1,80}:[^/\s:@\"'<>{}$]{4,120})@[\w.-]",
        entropy=2.0,
        may_be_words=True,
    )
    assigned = _rule(
        "assigned",
        r"(?i)(?<!public)(?<!public[_ .-])(?:key|token|secret|passw(?:or)?d|pwd|pass|credentials?)\b[\"'\])]{0,3}"
        r"\s{0,12}(?:=|:|:=|=>|->|,|\|\|?:?)\s{0,5}[\"'`=]{0,3}(?P<secret>[A-Za-z0-9+/_.=~!@#%^&*?-]{10,150})"
        r"(?=[\"'`\s;,)\]}]|\\[nr]|\Z)",
        entropy=3.5,
    )
    return ((header, b"uthorization"), (key_header, b":"), (curl, b"curl"), (url, b"@"), (assigned, b""))


_KEYWORD: Final = re.compile(
    r"(?i)(?:key|token|secret|passw(?:or)?d|pwd|pass|credentials?)[\"'\])]{0,3}\s{0,12}(?:=|:|->|,|\|)"
)
