"""The supervisor: it opens the ports, keeps the workers running, and adds their figures up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wsserver import logbook
from wsserver.http import AdminPages
from wsserver.recent import RecentRecords
from wsserver.status.snapshot import Snapshot, add_up, merge_failures
from wsserver.systemd import Sockets, Systemd
from wsserver.transport import Listener, TransportLimits
from wsserver.workers.control import Question
from wsserver.workers.process import WorkerFailed, WorkerProcess
from wsserver.workers.totals import Totals


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the supervisor waits for what.

    ``start_s``: for a worker to serve; ``drain_s``: for one to finish; ``answer_s``: for an answer;
    ``beat_interval_s``: between two words that all is well, and ``silent_beats_max`` of them may be
    missing before a worker is killed. A worker that ends is started anew after a pause, which
    doubles for one that lived for less than ``stable_s``.
    """

    start_s: float = 900.0
    drain_s: float = 15.0
    answer_s: float = 3.0
    beat_interval_s: float = 5.0
    silent_beats_max: int = 12
    stable_s: float = 60.0
    pause_min_s: float = 0.5
    pause_max_s: float = 30.0


class Supervisor:
    """So many workers on the same sockets. ``start`` it, then ``stop`` it; or ``run`` it.

    ``command`` starts a worker; it is given its number and its descriptors as flags.
    """

    def __init__(
        self,
        workers: int,
        *,
        command: Sequence[str],
        sockets: Sockets,
        systemd: Systemd,
        patience: Patience | None = None,
    ) -> None:
        self.port = next(iter(sockets.get("wsserver", ()))).getsockname()[1]
        self.admin_port = 0
        self._workers = workers
        self._command = command
        self._sockets = sockets
        self._systemd = systemd
        self._patience = patience or Patience()
        self._serving: dict[int, WorkerProcess] = {}
        self._leaving: set[WorkerProcess] = set()
        self._starting = {number: asyncio.Lock() for number in range(1, workers + 1)}
        self._tasks: list[asyncio.Task[None]] = []
        self._rolling: asyncio.Task[None] | None = None
        self._rolls_again = False
        self._ending = asyncio.Event()
        self._failure: WorkerFailed | None = None
        self._admin: Listener | None = None
        self._totals = Totals()
        self._starts: Counter[int] = Counter()
        self._records = RecentRecords()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)

    async def start(self) -> None:
        """Start the workers; returns once all of them serve. Raises WorkerFailed."""
        self._records.attach()
        listening = self._sockets.get("admin", ())
        if listening:
            self._admin = Listener(
                limits=TransportLimits(message_bytes_max=1024),
                application=None,
                respond=AdminPages(
                    probe=self._probe, metrics=self._expose, snapshot=self._take_snapshot
                ).answer,
            )
            self.admin_port = await self._admin.start(sockets=listening)
        starting = [asyncio.create_task(self._start_worker(number)) for number in self._starting]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await self.stop()
            raise
        self._tasks = [asyncio.create_task(self._keep(number)) for number in self._starting]
        self._tasks.append(asyncio.create_task(self._watch()))

    async def run(self, on_started: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain; SIGHUP starts every worker anew, one by one.

        A second signal ends all at once. Raises WorkerFailed where no worker serves or can start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._take_signal)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        starting = asyncio.create_task(self.start())
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait([starting, ending], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
            on_started()
            self._systemd.tell_ready(self._describe())
        await ending
        self._systemd.tell_stopping()
        logbook.WORKERS_DRAINING.log(count=len(self._serving))
        await self.stop()
        if self._failure is not None:
            raise self._failure
        logbook.STOPPED.log()

    def reload(self) -> None:
        """Replace every worker by a new one, one after the other, each once the new one serves."""
        if self._rolling is None:
            self._rolling = asyncio.create_task(self._roll())
            self._rolling.add_done_callback(self._take_rolled)
        else:
            self._rolls_again = True

    async def stop(self) -> None:
        """Drain all workers, and end the admin port."""
        self._ending.set()
        # Newcomers are refused once the workers have closed them, too: none waits for nobody.
        for name, several in self._sockets.items():
            if name != "admin":
                for listening in several:
                    listening.close()
        for task in filter(None, (*self._tasks, self._rolling)):
            task.cancel()
        await asyncio.gather(*filter(None, (*self._tasks, self._rolling)), return_exceptions=True)
        await asyncio.gather(
            *(worker.drain(self._patience.drain_s) for worker in self._serving.values()),
            *(worker.ended.wait() for worker in self._leaving),
        )
        if self._admin is not None:
            await self._admin.close(timeout_s=1)
        self._records.detach()

    # Its workers.

    async def _start_worker(self, number: int) -> None:
        """Have a new worker serve under that number, and the one that did drain."""
        worker = WorkerProcess(number)
        self._starts[number] += 1
        ports = {name: several for name, several in self._sockets.items() if name != "admin"}
        await worker.start(self._command, ports, self._patience.start_s)
        logbook.WORKER_SERVES.log(worker=number, process=worker.pid)
        old = self._serving.get(number)
        self._serving[number] = worker
        if old is not None:
            await self._let_go(old)

    async def _let_go(self, worker: WorkerProcess) -> None:
        self._leaving.add(worker)
        try:
            if not await worker.drain(self._patience.drain_s):
                logbook.WORKER_LATE.log(worker=worker.number)
        finally:
            self._leaving.discard(worker)
            self._totals.keep(worker.figures)

    async def _keep(self, number: int) -> None:
        """Start a worker anew whenever it ends unasked."""
        pause_s = 0.0
        while True:
            worker = self._serving[number]
            await worker.ended.wait()
            async with self._starting[number]:
                if self._serving[number] is not worker:
                    continue  # It was replaced.
                del self._serving[number]
                self._totals.keep(worker.figures)
                lived_s = asyncio.get_running_loop().time() - worker.started_at_s
                pause_s = self._lengthen(pause_s) if lived_s < self._patience.stable_s else 0.0
                logbook.WORKER_ENDED.log(worker=number, reason=worker.describe_end())
                self._systemd.tell_status(self._describe())
                while number not in self._serving:
                    await asyncio.sleep(pause_s)
                    pause_s = await self._try_to_start(number, pause_s)
                self._systemd.tell_status(self._describe())

    async def _try_to_start(self, number: int, pause_s: float) -> float:
        """The pause before the next time, if this one fails."""
        try:
            await self._start_worker(number)
        except WorkerFailed as error:
            if not self._serving:
                # What keeps all of them from starting is for whoever started us.
                self._failure = error
                self._ending.set()
            logbook.WORKER_FAILED.log(reason=str(error))
            return self._lengthen(pause_s)
        return pause_s

    def _lengthen(self, pause_s: float) -> float:
        return min(max(self._patience.pause_min_s, 2 * pause_s), self._patience.pause_max_s)

    async def _roll(self) -> None:
        self._systemd.tell_reloading()
        logbook.WORKERS_REPLACING.log()
        for number in self._starting:
            async with self._starting[number]:
                try:
                    await self._start_worker(number)
                except WorkerFailed as error:
                    logbook.WORKER_NOT_REPLACED.log(reason=str(error))
                    break
        else:
            logbook.WORKERS_REPLACED.log()
        self._systemd.tell_ready(self._describe())

    def _take_rolled(self, rolled: asyncio.Task[None]) -> None:
        self._rolling = None
        if self._rolls_again and not self._ending.is_set():
            self._rolls_again = False
            self.reload()

    async def _watch(self) -> None:
        """Kill a worker that has not said for long that it is well; say so of all of them."""
        interval_s = self._patience.beat_interval_s
        if self._systemd.beat_interval_s is not None:
            interval_s = min(interval_s, self._systemd.beat_interval_s)
        while True:
            await asyncio.sleep(interval_s)
            for worker in tuple(self._serving.values()):
                # Counted, not timed: where the machine slept, so did the workers.
                worker.silent_beats += 1
                if worker.silent_beats > self._patience.silent_beats_max:
                    logbook.WORKER_HANGS.log(worker=worker.number)
                    await worker.kill()
            if self._serving:
                self._systemd.beat()

    def _take_signal(self) -> None:
        if self._ending.is_set():
            logbook.KILLED.log()
            for worker in (*self._serving.values(), *self._leaving):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
            signal.raise_signal(signal.SIGKILL)
        self._ending.set()

    # The admin port.

    def _describe(self) -> str:
        return f"{len(self._serving)} of {self._workers} workers serve"

    async def _probe(self) -> str | None:
        """Why the server is not ready: fewer than half of the workers are."""
        if self._ending.is_set():
            return "the server is stopping"
        asked = sorted(self._serving.items())
        reasons = await asyncio.gather(*(self._probe_worker(worker) for _, worker in asked))
        wrong = [
            f"worker {number}: {reason}"
            for (number, _), reason in zip(asked, reasons, strict=True)
            if reason is not None
        ]
        ready = len(asked) - len(wrong)
        if 2 * ready >= self._workers:
            return None
        return "; ".join((f"{ready} of {self._workers} workers are ready", *wrong))

    async def _probe_worker(self, worker: WorkerProcess) -> str | None:
        try:
            return await worker.ask(Question.PROBE, self._patience.answer_s)
        except TimeoutError:
            return "does not answer"

    async def _expose(self) -> bytes:
        workers = (*self._serving.values(), *self._leaving)
        answered = await asyncio.gather(*map(self._fetch_figures, workers))
        states = _States(self._starts, dict(zip(workers, answered, strict=True)), self._workers)
        registry = CollectorRegistry()
        registry.register(states)
        own = generate_latest(self._registry).decode()
        return generate_latest(registry) + self._totals.expose(
            {"supervisor": own}
            | {str(worker.number): worker.figures for worker in self._serving.values()},
            [worker.figures for worker in self._leaving],
        )

    async def _take_snapshot(self) -> Snapshot:
        """The sum of the workers that answer; raises TimeoutError where none does."""
        answered = await asyncio.gather(*map(self._fetch_snapshot, self._serving.values()))
        snapshots = [snapshot for snapshot in answered if snapshot is not None]
        if not snapshots:
            raise TimeoutError("no worker answers")
        added = add_up(snapshots)
        reason = await self._probe()
        # Half of them are enough; and who restarts them tells of it here.
        added["unready"] = [] if reason is None else [reason]
        added["failures"] = merge_failures(added["failures"], self._records.newest)
        return added

    async def _fetch_snapshot(self, worker: WorkerProcess) -> Snapshot | None:
        try:
            answer = await worker.ask(Question.SNAPSHOT, self._patience.answer_s)
        except TimeoutError:
            return None
        snapshot: Snapshot | None = None if answer is None else orjson.loads(answer)
        return snapshot

    async def _fetch_figures(self, worker: WorkerProcess) -> bool:
        try:
            await worker.ask(Question.FIGURES, self._patience.answer_s)
        except TimeoutError:
            return False
        return True


class _States(Collector):
    """How the workers are."""

    def __init__(
        self, starts: Counter[int], answered: dict[WorkerProcess, bool], workers: int
    ) -> None:
        self._starts = starts
        self._up = {worker.number for worker, answers in answered.items() if answers}
        self._workers = workers

    def collect(self) -> list[Metric]:
        up = GaugeMetricFamily(
            "wsserver_worker_up", "1 where the worker gives its figures.", labels=["worker"]
        )
        starts = CounterMetricFamily(
            "wsserver_worker_starts", "How often the worker was started.", labels=["worker"]
        )
        for number in range(1, self._workers + 1):
            up.add_metric([str(number)], number in self._up)
            starts.add_metric([str(number)], self._starts[number])
        return [up, starts]
