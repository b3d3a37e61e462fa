from __future__ import annotations

from hypothesis import given, strategies as st

from mautic_sync.mautic.redaction import redact, shorten

LOCAL = st.text("abcdefghijklmnopqrstuvwxyz0123456789.+_-", min_size=2, max_size=20)
DOMAIN = st.sampled_from(["example.com", "mail.example.org", "münchen.example"])
AROUND = st.sampled_from(["", " ", '"', "email: ", "(", "<", "to=", "\n", "%20", ","])


@given(LOCAL, DOMAIN, AROUND, AROUND, st.sampled_from(["@", "%40"]))
def test_no_address_survives(local, domain, before, after, at):
    """Whatever stands around it, the local part of an address is not in the redacted text."""
    assert local[1:] + at not in redact(f"{before}{local}{at}{domain}{after}")


@given(st.text("abcdefABCDEF0123456789", min_size=6, max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_no_given_secret_survives(secret, before, after):
    """A secret that is named is gone, wherever it stood."""
    assert secret not in redact(before + secret + after, [secret]).replace("***", "")


@given(
    st.sampled_from(["access_token", "client_secret", "api_key", "password", "token"]),
    st.sampled_from(["{}={}", '"{}":"{}"', "{}: {}", "'{}': '{}'"]),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=8, max_size=40),
)
def test_no_named_secret_survives(name, form, value):
    """A value beside the name of a secret is gone, in addresses, JSON and plain text."""
    assert value not in redact("before " + form.format(name, value) + " after")


def test_it_masks_an_address_so_that_its_owner_is_recognised():
    assert redact("email eve@example.com is taken") == "email e***@example.com is taken"


def test_it_takes_tokens_out_of_headers_and_addresses():
    assert redact("Authorization: Bearer OGM0ZjVkZWE4OTM2") == "Authorization: Bearer ***"
    assert redact("https://admin:secret@mautic.example/x") == "https://***@mautic.example/x"


def test_it_leaves_ordinary_sentences_alone():
    sentence = "While reading contacts/12 from Mautic, it answered 500: error #500."
    assert redact(sentence) == sentence


def test_it_shortens_to_one_line():
    assert shorten("a\n b") == "a b"
    assert len(shorten("x" * 1000)) == 300
