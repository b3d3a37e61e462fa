"""Settings, rules, and the way to Mautic: address, certificate, credentials, version, clock."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from statistics import median

from mautic_sync.doctor.examination import Examination
from mautic_sync.doctor.finding import Finding, failed, ok, skipped, spoken, warning
from mautic_sync.errors import ConfigError, MauticSyncError, StopError
from mautic_sync.mautic.probing import Probe, behind_proxy, read_certificate
from mautic_sync.mautic.provisioning import who_am_i
from mautic_sync.mautic.transport import is_loopback, parse_version, refuse_old
from mautic_sync.pipeline.run import connect_by

TESTED = ((5, 1), (7, 0))
"""The versions that were tried, the oldest and the newest."""
EXPIRES_SOON = 21 * 86400  # seconds
SKEW = 60  # seconds by which the clocks may differ
OAUTH_FIX = (
    "Make an OAuth 2 client in Mautic (Settings → API Credentials, grant type client credentials) and set "
    "mautic.client_id and mautic.client_secret."
)


def settings(exam: Examination) -> Finding:
    if exam.settings is None:
        told = exam.settings_problem or "the settings cannot be read"
        return Finding(
            "failed", told, "Correct it there; docs/configuration.md lists every setting.", configuration=True
        )
    return ok("every setting is known and right")


def mappings(exam: Examination) -> Finding:
    if exam.mappings is None:
        if exam.settings is None:
            return skipped("the settings cannot be read")
        told = exam.mappings_problem or "the mappings cannot be read"
        return Finding("failed", told, "Correct it there; `mautic-sync check` shows it again.", configuration=True)
    if exam.mappings.warnings:
        return warning(
            "; ".join(exam.mappings.warnings), "Look at the rules named; `mautic-sync check` shows this again."
        )
    return ok(f"{len(exam.mappings.stages.stages)} stages, {len(exam.mappings.scores.rules)} rules about points")


def address(exam: Examination) -> Finding:
    """The first that needs a transport: without one, nothing of Mautic can be looked at."""
    try:
        url = exam.probe.base_url
    except ConfigError as error:
        exam.mautic_problem = "mautic.base_url or the credentials are not set as they should"
        told, _, fix = str(error).partition(": ")
        return Finding(
            "failed", told, fix or "Run `mautic-sync init`, which asks for what is missing.", configuration=True
        )
    if url.startswith("http://") and not is_loopback(url):
        return warning(
            f"{url} is plain HTTP: credentials and addresses cross the network readable (mautic.allow_http)",
            "Use https, unless this network is yours alone, as that of one compose file.",
        )
    return ok(url)


def reachable(exam: Examination) -> Finding:
    try:
        exam.probe.knock()
    except MauticSyncError:
        exam.mautic_problem = "Mautic's API cannot be reached"
        raise
    return ok("it answers, and its API is switched on")


def certificate(exam: Examination) -> Finding:
    url = exam.probe.base_url
    if url.startswith("http://"):
        return skipped("plain HTTP has no certificate")
    if not exam.set.mautic.verify_tls:
        return warning(
            "the certificate is not checked (mautic.verify_tls = false): anybody in between can pose as Mautic",
            "Set mautic.verify_tls = true, and mautic.ca_bundle to the certificate of your own authority if there is one.",
        )
    if behind_proxy(url):
        return skipped("calls go through a proxy, which shows its own connection")
    bundle = exam.set.mautic.ca_bundle
    shown = read_certificate(url, ca_bundle=str(bundle) if bundle else None, timeout=min(exam.set.mautic.timeout, 10))
    return judge_expiry(shown.expires_at, shown.issuer, exam.now)


def judge_expiry(expires_at: int, issuer: str, now: int) -> Finding:
    day = f"{datetime.fromtimestamp(expires_at, UTC):%Y-%m-%d}"
    if expires_at - now < EXPIRES_SOON:
        return warning(
            f"the certificate expires on {day}, in {max(0, (expires_at - now) // 86400)} days ({issuer})",
            "Renew it, and see why it was not renewed by itself: after that day no run gets through.",
            expires=day,
        )
    return ok(f"valid until {day} ({issuer})", expires=day)


def credentials(exam: Examination) -> Finding:
    try:
        user = exam.user
    except MauticSyncError:
        exam.mautic_problem = "Mautic does not accept our credentials"
        raise
    who = f"as {user.username}, role {user.role or 'unknown'}"
    if exam.probe.server_user is None:
        return warning(
            f"Basic auth {who}: each call costs Mautic about half a second more, ten times the rest", OAUTH_FIX
        )
    return ok(f"OAuth 2 {who}")


def basic(exam: Examination) -> Finding:
    """Whether the fallback would work where OAuth is used; without OAuth, `credentials` has tried it."""
    mautic = exam.set.mautic
    if not (mautic.username and mautic.password):
        return skipped("no user name is set, and none is needed beside an OAuth 2 client")
    if exam.probe.server_user is None:
        return skipped("it is what is used, see mautic.credentials")
    alone = exam.set.model_copy(update={"mautic": mautic.model_copy(update={"client_id": None, "client_secret": None})})
    with connect_by(Probe, alone, "doctor") as probe:
        try:
            user = who_am_i(probe)
        except StopError as error:
            return warning(
                f"the user name beside the OAuth 2 client does not work: {str(error).partition('. ')[0]}",
                "Remove mautic.username and mautic.password, which are not used, or correct them.",
            )
    return ok(f"works as {user.username}; it is ten times dearer and not used while there is an OAuth 2 client")


def version(exam: Examination) -> Finding:
    return judge_version(exam.probe.version, pushes=exam.set.push.enabled)


def judge_version(told: str | None, *, pushes: bool) -> Finding:
    if not told:
        return warning(
            "Mautic does not say its version",
            "See whether a proxy takes the header Mautic-Version out of answers, and let it pass.",
        )
    numbers = parse_version(told)
    try:
        refuse_old(told)
    except StopError as error:
        sentence, _, fix = str(error).partition(". ")
        return (failed if pushes else warning)(sentence, fix, version=told)
    if numbers[:2] > TESTED[-1]:
        return warning(
            f"Mautic {told} is newer than the newest that was tried, {_dotted(TESTED[-1])}",
            "See the changelog for a newer mautic-sync, and look at `mautic-sync plan` before the next push.",
            version=told,
        )
    return ok(f"Mautic {told} (tried with {' and '.join(map(_dotted, TESTED))})", version=told)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def clock(exam: Examination) -> Finding:
    skews = [heard.skew for heard in exam.probe.heard if heard.skew is not None]
    return judge_skew(median(skews) if skews else None)


def judge_skew(skew: float | None) -> Finding:
    """`skew`: seconds by which the server's clock is ahead of ours."""
    if skew is None:
        return skipped("the answers carry no Date")
    if abs(skew) > SKEW:
        return warning(
            f"Mautic's clock is {spoken(abs(skew))} {'ahead of' if skew > 0 else 'behind'} ours",
            "Set both by NTP (`timedatectl`): rules with days, and doubtful writes, are judged by our clock.",
            skew_seconds=round(skew),
        )
    return ok("both clocks agree within a minute", skew_seconds=round(skew))


def rate_limit(exam: Examination) -> Finding:
    """What all the calls so far have shown."""
    refused = any(heard.status == 429 for heard in exam.probe.heard)
    limits = [heard.limit for heard in exam.probe.heard if heard.limit is not None]
    left: int | None = None
    with contextlib.suppress(ValueError):
        left = min(heard.remaining for heard in exam.probe.heard if heard.remaining is not None)
    return judge_limit(limits[-1] if limits else None, left, refused=refused)


def judge_limit(limit: int | None, left: int | None, *, refused: bool) -> Finding:
    fix = "Raise or switch off Mautic's limit (api_rate_limiter_limit), and lower mautic.concurrency where another server limits."
    if refused:
        return failed("Mautic, or what is in front of it, answered 429: too many requests", fix)
    if limit is not None:
        return warning(
            f"Mautic allows {limit} calls, {left if left is not None else 'an unknown number'} are left",
            fix,
            limit=limit,
        )
    return ok("none met in these calls")
