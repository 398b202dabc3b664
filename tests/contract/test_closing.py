"""The end of a store, in every store."""

from __future__ import annotations

from tests.contract.backends import Backend, Login, gather_answers
from wsschema.errors import Unavailable
from wsserver.operations import LoadWallet, ProbeWrite


async def test_closing_answers_what_waits_and_refuses_the_rest(phone: Login) -> None:
    backend = phone.account.backend
    waiting = backend.submit_all([phone.pushing(n) for n in range(1, 21)])

    await backend.store.close()

    assert [answer.state.sequence for answer in await gather_answers(waiting)] == [*range(1, 21)]
    late = backend.submit_all([phone.pushing(21), ProbeWrite(), LoadWallet(1, None)])
    assert not any(future.done() for future in late)
    assert [type(answer) for answer in await gather_answers(late)] == [Unavailable] * 3


async def test_closing_twice_is_no_harm(backend: Backend) -> None:
    await backend.store.close()
    await backend.store.close()

    assert sum(backend.store.waiting.values()) == 0
