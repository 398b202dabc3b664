"""What clients of that server rely on, fact by fact, and the tests that show it over real HTTP.

Two things have none, for there is nothing to send: no token here has a lesser scope than ``*``, so
none is refused with 403 ``Scope``; and the file's ``auth_tokens`` are not taken over.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

FACTS: Final = {
    "POST /signup: 201, and whether it is verified": [
        "interface.test_signup_makes_an_account_with_the_kdf_of_those_clients",
        "mail.test_a_registration_waits_until_its_link_is_followed",
    ],
    "POST /signup: 403 Account not whitelisted": [
        "interface.test_signup_is_held_to_the_allowlist",
    ],
    "POST /signup: 409 Error registering": [
        "interface.test_signup_of_a_taken_address_is_409",
    ],
    "POST /auth/full: 200, a token and what belongs to it": [
        "interface.test_auth_full_gives_a_token_and_when_it_ends",
        "interface.test_a_device_id_of_any_length_is_given_back_and_is_one_device",
    ],
    "POST /auth/full: 401 No match for email and/or password": [
        "interface.test_a_wrong_password_and_an_unknown_address_are_the_same_401",
    ],
    "POST /auth/full: 401 Account is not verified": [
        "mail.test_a_registration_waits_until_its_link_is_followed",
    ],
    "GET /wallet: 200, as it was posted": [
        "interface.test_a_wallet_is_given_back_as_it_was_posted",
    ],
    "GET /wallet: 404 No wallet": [
        "interface.test_an_account_without_a_wallet_has_none_to_give",
    ],
    "POST /wallet: 200": [
        "interface.test_a_wallet_is_given_back_as_it_was_posted",
    ],
    "POST /wallet: 409 Bad sequence number": [
        "interface.test_any_sequence_but_the_next_is_409_a_repeated_one_too",
    ],
    "POST /password: 200, and every token and socket ends": [
        "interface.test_a_password_change_takes_the_wallet_along_and_ends_every_token",
        "sockets.test_a_password_change_on_either_side_ends_the_sessions_of_both",
    ],
    "POST /password: 401 as auth/full": [
        "interface.test_a_password_change_needs_the_old_password",
        "mail.test_a_registration_waits_until_its_link_is_followed",
    ],
    "POST /password: 409 Bad sequence number or wallet does not exist": [
        "interface.test_a_password_change_with_a_wallet_that_is_not_the_next_is_409",
    ],
    "POST /password: 409 Wallet exists; need an updated wallet when changing password": [
        "interface.test_a_password_change_needs_the_wallet_where_there_is_one",
    ],
    "GET /client-salt-seed: 200, the address in base64 with line breaks": [
        "interface.test_the_salt_seed_is_told_for_an_address_in_base64",
        "interface.test_a_plus_in_base64_may_come_unescaped",
    ],
    "GET /client-salt-seed: 400 Invalid email": [
        "interface.test_what_is_no_address_in_base64_is_400",
    ],
    "GET /client-salt-seed: 404 No match for email": [
        "interface.test_an_unknown_address_has_no_salt_seed",
    ],
    "POST /verify/resend: 200": [
        "mail.test_another_mail_may_be_asked_for",
    ],
    "POST /verify/resend: 401 No match for email": [
        "mail.test_nothing_is_sent_again_where_nothing_waits",
    ],
    "POST /verify/resend: 403 Account verification mode is not set to EmailVerify": [
        "interface.test_there_is_nothing_to_resend_where_no_mail_is_sent",
    ],
    "GET /verify: 200 Your account has been verified.": [
        "mail.test_a_registration_waits_until_its_link_is_followed",
    ],
    "GET /verify: 400 Missing verifyToken parameter; 403 not found, used or expired": [
        "interface.test_a_verification_link_is_answered_for_people",
        "mail.test_another_mail_may_be_asked_for",
    ],
    "WebSocket: wallet-update:N after every push, to the pusher's own sockets too": [
        "sockets.test_every_push_is_told_to_every_socket_the_pushers_own_too",
    ],
    "Anything else: 404 Unknown Endpoint": [
        "interface.test_an_unknown_endpoint_says_so",
    ],
    "Another version: 404 Wrong API version. Current version is 3.": [
        "interface.test_another_version_says_which_one_this_is",
    ],
    "A token needs no escaping in a URL": [
        "interface.test_auth_full_gives_a_token_and_when_it_ends",
    ],
    "A token: 400 Missing token parameter, 401 Token Not Found": [
        "interface.test_a_request_needs_a_token_that_lives",
        "interface.test_a_token_that_was_replaced_is_not_found",
        "interface.test_a_token_that_was_not_used_for_its_lifetime_is_not_found",
        "sockets.test_a_socket_needs_a_token_that_lives",
    ],
    "Another method: 405": [
        "interface.test_another_method_is_405",
    ],
    "Bodies are JSON whatever the Content-Type": [
        "interface.test_a_body_is_json_whatever_its_content_type",
    ],
    "A body over 100,000 bytes: 413": [
        "interface.test_a_body_over_the_limit_is_413",
    ],
    'An unknown member: 400 json: unknown field "NAME"': [
        "interface.test_an_unknown_member_is_named",
    ],
    "Not JSON, a wrong type, a sequence above 2^32 - 1: 400 Error parsing JSON": [
        "interface.test_what_is_no_json_object_is_told",
        "interface.test_a_member_of_a_wrong_type_is_told",
        "interface.test_a_sequence_is_a_whole_number_of_32_bits",
        "interface.test_the_largest_sequence_is_read",
    ],
    "Bad values: 400 Request failed validation, of each member of each request": [
        "interface.test_a_bad_value_is_told",
    ],
    "The first that fails is told": [
        "interface.test_the_first_that_is_wrong_is_told",
        "interface.test_a_password_change_is_checked_as_a_whole_last",
    ],
    "An address is bare, and compared in lower case": [
        "interface.test_a_bad_value_is_told",
        "interface.test_auth_full_compares_the_address_in_lower_case",
    ],
    "Done right here: % is given back as it came": [
        "interface.test_a_wallet_is_given_back_as_it_was_posted",
    ],
    "Done right here: the gateway pings, and needs no pongs that were not asked for": [
        "sockets.test_the_server_pings_and_cuts_off_who_does_not_answer",
    ],
    "Done right here: a database that is locked for a while costs no request": [
        "interface.test_a_database_that_is_locked_for_a_while_costs_no_request",
    ],
    "Done right here: pushes at once lose no listener": [
        "sockets.test_pushes_of_many_devices_at_once_lose_no_listener",
    ],
    "Done right here: expiration is filled in, by RFC 3339": [
        "interface.test_auth_full_gives_a_token_and_when_it_ends",
    ],
    "Keys by scrypt with n = 2^20, the salt by the address as typed": [
        "import.test_an_imported_user_logs_in_over_the_gateway_and_over_v1",
        "import.test_where_the_address_as_normalised_fails_the_one_that_was_typed_is_tried",
    ],
    "Accounts made or re-keyed here are stored with n = 2^20": [
        "interface.test_signup_makes_an_account_with_the_kdf_of_those_clients",
        "interface.test_an_account_that_is_re_keyed_here_has_the_kdf_of_those_clients",
    ],
    "The file: accounts and wallets, each column": [
        "import.test_accounts_are_taken_over_with_all_that_belongs_to_them",
        "import.test_a_registration_goes_on_waiting_and_its_old_link_still_works",
        "import.test_an_imported_user_logs_in_over_the_gateway_and_over_v1",
    ],
    "Two devices on the gateway and one on /v1 see each other's pushes live": [
        "sockets.test_two_devices_on_the_gateway_and_one_on_v1_see_each_others_pushes",
    ],
    "That server's own client, step by step": [
        "walkthrough.test_the_walkthrough_of_that_servers_own_client",
    ],
}


def read_tests(module: str) -> set[str]:
    text = Path(__file__).with_name(f"test_{module}.py").read_text()
    return set(re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE))


def test_every_fact_has_its_tests() -> None:
    for fact, named in FACTS.items():
        for each in named:
            module, _, test = each.partition(".")
            assert test in read_tests(module), fact
