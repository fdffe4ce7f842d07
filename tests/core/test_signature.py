"""Webhooks are signed as the Standard Webhooks specification says, so that its libraries verify them."""

from __future__ import annotations

import base64

import pytest

from engine.core.signature import is_signed, secret_bytes, sign, signed_headers

# The vector of the specification's own libraries.
SECRET, ID, TIMESTAMP = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
BODY, SIGNATURE = b'{"test": 2432232314}', "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
KEY = secret_bytes(SECRET)


def headers(**changed: str) -> dict[str, str]:
    given = {"webhook-id": ID, "webhook-timestamp": str(TIMESTAMP), "webhook-signature": SIGNATURE}
    return given | {name.replace("_", "-"): value for name, value in changed.items()}


def test_the_published_vector() -> None:
    assert sign(KEY, ID, TIMESTAMP, BODY) == SIGNATURE
    assert signed_headers([KEY], ID, TIMESTAMP, BODY) == headers()
    assert is_signed(KEY, headers(), BODY, TIMESTAMP)


def test_a_secret_may_come_without_its_prefix() -> None:
    assert secret_bytes(SECRET.removeprefix("whsec_")) == KEY == secret_bytes(f" {SECRET}\n")


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64!", "whsec_c2hvcnQ=", "ä" * 40])
def test_what_is_no_secret_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match=r"base64|bytes") as refused:
        secret_bytes(secret)
    assert not secret.removeprefix("whsec_") or secret.removeprefix("whsec_") not in str(refused.value)
    with pytest.raises(ValueError, match="65 bytes"):
        secret_bytes(base64.b64encode(b"x" * 65).decode())


@pytest.mark.parametrize(
    "given",
    [
        headers(webhook_id="msg_another"),
        headers(webhook_timestamp=str(TIMESTAMP + 1)),
        headers(webhook_timestamp="hello"),
        headers(webhook_signature="v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA="),
        headers(webhook_signature=SIGNATURE.replace("v1,", "v2,")),
        headers(webhook_signature=""),
        headers(webhook_id=""),
        {},
    ],
)
def test_nothing_of_it_can_be_exchanged(given: dict[str, str]) -> None:
    assert not is_signed(KEY, given, BODY, TIMESTAMP)


def test_another_body_is_not_signed() -> None:
    assert not is_signed(KEY, headers(), BODY + b" ", TIMESTAMP)


@pytest.mark.parametrize(("seconds", "taken"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_an_old_message_is_not_taken_again(seconds: int, taken: bool) -> None:
    assert is_signed(KEY, headers(), BODY, TIMESTAMP + seconds) is taken


def test_either_secret_verifies_while_one_is_replaced() -> None:
    other = secret_bytes(base64.b64encode(b"y" * 32).decode())
    given = signed_headers([other, KEY], ID, TIMESTAMP, BODY)
    assert is_signed(KEY, given, BODY, TIMESTAMP)
    assert is_signed(other, given, BODY, TIMESTAMP)
