"""One rank of one job: frameworks submit, a background thread negotiates and executes, handles report the outcome.

All decisions are the protocol's (:class:`coordsim.protocol.session.Session`, the code that the simulator runs). This
module adds real time, real connections and real failures. It does not know torch.
"""

from __future__ import annotations

import sys
import threading
import time
from array import array
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from coordsim.protocol.messages import JOIN_NAME, Op, Request, RequestList, Response
from coordsim.protocol.negotiator import GatherLists, Schedule
from coordsim.protocol.queue import SHUT_DOWN
from coordsim.protocol.session import Session
from real_backend.control.links import LinkLost
from real_backend.control.transport import ControlTransport
from real_backend.data.transport import DataTransport
from real_backend.engine.handles import Bell, Handle, Task, close
from real_backend.engine.observer import CycleDetails, Observer, Performed, Timeline
from real_backend.engine.pace import FixedPace, Pace, WakingPace
from real_backend.engine.settings import EngineSettings
from real_backend.errors import CannotStart, CollectiveFailed, NotRunning, PeerLost, SettingsDiffer, ShutDown
from real_backend.life.line import LifeLine

VERDICT_WAIT_S = 5.0
"""How long a broken connection waits for the life line's verdict on who is lost, before it reports by itself."""
MARKS = ("step", "forward", "backward")
LEAVE_WAIT_S = 30.0
"""How long a rank that wants to stop waits for the others to agree."""


class Engine:
    """An engine from init to shutdown, made by :func:`real_backend.engine.assembly.assemble`."""

    def __init__(
        self, settings: EngineSettings, control: ControlTransport, data: DataTransport, life: LifeLine | None,
        *, observer: Observer | None = None, tell: Callable[[str], None] | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:  # fmt: skip
        """``tell`` receives a stall's report, which every rank gets; by default it is printed on stderr."""
        self.settings = settings
        self.rank, self.ranks = control.rank, control.ranks
        self.life = life
        self.timeline: Timeline | None = None
        """On rank 0: the writer of Horovod's timeline."""
        self.counters = Counters()
        self.clock_ns = clock_ns
        self._control = control
        self._data = data
        self._observer = observer or Observer()
        self._stamped = self._observer.wants_stamps
        self._stamps = array("q")
        """When each queued request was submitted, in the order of the queue."""
        self._stamp = self._stamps.append
        self.tell = tell or _to_stderr
        self._session = Session(
            settings.control_plane, control.rank, settings.protocol(control.ranks), settings.stall_limits(),
            settings.shared(),
        )  # fmt: skip
        self._lock = threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._started = threading.Event()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._leaving = False
        self._closed = False
        self._pace: Pace
        if settings.wakes:
            self._pace = WakingPace(control, settings.gather_window_ns, lambda: self._leaving)
        else:
            self._pace = FixedPace(settings.cycle_time_ns, self._over)
        self.bell = Bell(self._pace.hurry)
        self._received: Sequence[RequestList] = ()
        self._thread = threading.Thread(target=self._run, name="coordsim-loop", daemon=True)

    # For the framework's threads.

    def start(self) -> None:
        """Start the background thread. Raises SettingsDiffer, PeerLost or CannotStart if the job cannot start."""
        self._thread.start()
        if self.life is not None:
            self.life.start()
        if not self._started.wait(self.settings.start_timeout_ns / 1e9):
            self._fail(CannotStart("the ranks did not agree on their settings in time"))
        if self._failure is not None:
            self._end_threads()
            raise self._failure.with_traceback(None)

    @property
    def running(self) -> bool:
        return self._started.is_set() and not self._over.is_set()

    @property
    def failure(self) -> BaseException | None:
        """The error that ended the job, if it did not end as agreed."""
        return self._failure

    @property
    def thread_alive(self) -> bool:
        """Whether the background thread lives, which is what signs of life attest."""
        return self._thread.is_alive()

    def submit(self, unit: Sequence[tuple[Request, Any, Any]], *, ready: Any = None, grouped: bool = False) -> Handle:
        """Queue a tensor, or a group that is popped as a whole; items are request, payload, output.

        Raises what :meth:`coordsim.protocol.queue.TensorQueue.submit` raises, and PeerLost after a loss.
        """
        handle = Handle(self.bell, len(unit), grouped)
        with self._lock:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self._leaving:
                raise NotRunning(SHUT_DOWN)
            self._session.submit([request for request, _, _ in unit])
            for index, (request, payload, output) in enumerate(unit):
                self._tasks[request.name] = Task(request, payload, output, handle, index, ready)
            if self._stamped:
                self._stamp(self.clock_ns())
                if len(unit) > 1:
                    self._stamps.extend(self._stamps[-1:] * (len(unit) - 1))
            self._pace.submitted()
        return handle

    def mark(self, what: str) -> None:
        """Record that the framework has reached a point in its step: ``step`` ends, ``forward`` or ``backward`` begins.

        Raises ValueError for another word.
        """
        if what not in MARKS:
            raise ValueError(f"mark {what!r}: one of {', '.join(MARKS)}")
        self._observer.mark(what, self.clock_ns())

    def join(self) -> Handle:
        """Note that this rank has no more data. The handle's result is the rank that joined last.

        Raises as :meth:`submit`.
        """
        handle = Handle(self.bell, 1, False)
        with self._lock:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            self._session.join()
            self._tasks[JOIN_NAME] = Task(Request(JOIN_NAME, Op.JOIN), None, None, handle, 0)
            if self._stamped:
                self._stamp(self.clock_ns())
            self._pace.submitted()
        return handle

    def register_groups(self, groups: Iterable[Sequence[str]], once: bool = False) -> None:
        """Register names that are reduced together where groups are strict, before any of them is submitted.

        ``once`` says that they will not come again. Raises ValueError if a name is in another group.
        """
        with self._lock:
            self._session.register_groups(groups, once)

    def group_digest(self, name: str) -> int:
        """Return the digest of its group that a request for ``name`` has to carry."""
        if not self.settings.strict_groups:
            return 0
        return self._session.groups.digest(name)

    def shut_down(self, wait_s: float = LEAVE_WAIT_S) -> None:
        """Stop the loops of all ranks. Pending operations fail. Does nothing if the job is over."""
        with self._lock:
            self._leaving = True
            self._session.shut_down()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            if isinstance(self._pace, WakingPace):
                self._pace.ring()
            self._thread.join(wait_s)
            if self._thread.is_alive():
                self._fail(ShutDown("the other ranks did not agree to stop in time"))
        self._end_threads()

    def lose(self, rank: int, reason: str) -> None:
        """Fail everything outstanding, because the life line reports that ``rank`` is lost."""
        self._fail(PeerLost(rank, reason))

    # The background thread.

    def _run(self) -> None:
        try:
            self._drive(self._session.start())
            self._started.set()
            while not self._turn():
                pass
        except BaseException as error:
            self._fail(self._diagnosed(error))
        finally:
            self._started.set()
            self._over.set()
            self._observer.ended(self._failure)

    def _turn(self) -> bool:
        """Run one cycle; return whether it was the last one."""
        self._pace.wait(self._idle_s())
        if self._failure is not None:
            raise self._failure
        cycle = self.counters.cycles
        self._control.enter(cycle + 1, self._pace.rings)
        entered_ns = self.clock_ns()
        self._observer.cycle_begins(cycle)
        conversation = self._session.turn(time.monotonic_ns())
        with self._lock:
            self._pace.entered()
            exchange = next(conversation)
            stamps = self._stamps[:]
            del self._stamps[:]
        self._received = ()
        schedule: Schedule
        schedule, work_ns = self._converse(conversation, exchange)
        self.counters.count(schedule)
        details = CycleDetails(
            cycle, entered_ns, self.clock_ns(), work_ns, self._session.popped, stamps, schedule, self._received,
            self._session.negotiator, self._control.sent(),
        )  # fmt: skip
        self._observer.cycle(details)
        if self._session.report is not None:
            self.tell(self._session.report.text())
            if self.life is not None:
                self.life.tell_all(self._session.report.text())
        for response in schedule.responses:
            self._execute(response)
        self._observer.cycle_ends(cycle, self.clock_ns())
        if self._session.leaving:
            self._leaving = True
        if schedule.shutdown:
            self._end()
        return bool(schedule.shutdown)

    def _idle_s(self) -> float | None:
        """Return after which time without events stalls have to be looked for; None if never."""
        waits = self._session.waiting or self._session.negotiator.pending
        if not waits:
            return None
        limits = [limit for limit in (self.settings.stall_warning_ns, self.settings.stall_shutdown_ns) if limit]
        return min(limits) / 10e9 if limits else None

    def _drive(self, conversation: Generator[Any, Any, Any]) -> Any:
        return self._converse(conversation, next(conversation))[0]

    def _converse(self, conversation: Generator[Any, Any, Any], exchange: Any) -> tuple[Any, int]:
        """Answer exchanges until the conversation returns; return its value, and the time spent in its own code, ns."""
        work_ns = 0
        while True:
            answer: Any = self._data.along(exchange, self._tasks) if getattr(exchange, "expected", ()) else None
            if answer is None:
                answer = self._control.answer(exchange)
            else:
                self.counters.along += 1
            if answer is not None and isinstance(exchange, GatherLists):
                self._received = answer
            self.counters.exchanges += 1
            began_ns = self.clock_ns()
            try:
                exchange = conversation.send(answer)
            except StopIteration as stop:
                return stop.value, work_ns + self.clock_ns() - began_ns
            work_ns += self.clock_ns() - began_ns

    def _execute(self, response: Response) -> None:
        tasks = [self._tasks.get(name) for name in response.names]
        if response.op is Op.ERROR:
            now_ns = self.clock_ns()
            self._finish(response, tasks, error=CollectiveFailed(response.error))
            self._report(response, tasks, Performed(now_ns, now_ns, now_ns, now_ns, now_ns))
        elif response.op in (Op.BARRIER, Op.JOIN):
            now_ns = self.clock_ns()
            self._finish(response, tasks, results=[response.root_rank if response.op is Op.JOIN else None])
            self._report(response, tasks, Performed(now_ns, now_ns, now_ns, now_ns, now_ns))
        else:
            done = self._data.perform(response, tasks)
            self._finish(response, tasks, results=done.results, settle=done.settle)
            self._report(response, tasks, done.performed)

    def _report(self, response: Response, tasks: Sequence[Task | None], performed: Performed) -> None:
        self._observer.response(response, performed, [None if task is None else task.request for task in tasks])

    def _finish(
        self, response: Response, tasks: Sequence[Task | None], *, results: Sequence[Any] = (),
        error: BaseException | None = None, settle: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Allow the names that ``response`` ends to be submitted again, then wake waiting threads."""
        with self._lock:
            self._session.finish(response)
            for name in response.names:
                self._tasks.pop(name, None)
        ended = []
        for position, task in enumerate(tasks):
            if task is not None:
                handle = task.handle
                if settle is not None:
                    handle.settle = settle
                over = handle.fail(error) if error else handle.finish(task.index, results[position])
                if over:
                    ended.append(handle)
        if ended:
            close(self.bell, ended)

    # The end.

    def _end(self) -> None:
        """End the job, because all ranks have agreed to stop."""
        with self._lock:
            self._leaving = True
            self._session.end()
            handles = {id(task.handle): task.handle for task in self._tasks.values()}
            self._tasks.clear()
        self._over.set()
        self._fail_handles(list(handles.values()), ShutDown())

    def _fail(self, error: BaseException) -> None:
        """End the job with an error; may be called from any thread. The first error counts."""
        with self._lock:
            if self._failure is not None or self._over.is_set():
                return
            self._failure = error
            handles = {id(task.handle): task.handle for task in self._tasks.values()}
            self._tasks.clear()
        self._over.set()
        self._fail_handles(list(handles.values()), error)
        self._control.break_off()
        self._data.break_off()
        if isinstance(self._pace, WakingPace):
            self._pace.ring()

    def _fail_handles(self, handles: list[Handle], error: BaseException) -> None:
        for handle in handles:
            handle.fail(error)
        close(self.bell, handles)

    def _diagnosed(self, error: BaseException) -> BaseException:
        """Return the error to report for an exception of the background thread, and tell the other ranks."""
        if self._failure is not None or self.life is None or isinstance(error, SettingsDiffer):
            return self._failure or error  # settings that differ every rank knows of
        if isinstance(error, (ConnectionError, RuntimeError)) and self._over.wait(VERDICT_WAIT_S):
            return self._failure or error
        if isinstance(error, LinkLost):
            self.life.declare_lost(error.rank, error.reason)
        else:
            self.life.declare_lost(self.rank, f"its background thread failed: {type(error).__name__}: {error}")
            if isinstance(self._failure, PeerLost):
                self._failure.__cause__ = error
        return self._failure or error

    def _end_threads(self) -> None:
        if self.life is not None:
            self.life.leave()
        if not self._thread.is_alive() and not self._closed:
            self._closed = True
            self._control.close()
            self._data.close()
            self._pace.close()


class Counters:
    """What the loop has done so far."""

    def __init__(self) -> None:
        self.cycles = 0
        self.slow_cycles = 0
        self.exchanges = 0
        self.responses = 0
        self.tensors = 0
        self.hits = 0
        self.along = 0
        """Number of ANDs that carried data along, in vain or not."""

    def count(self, schedule: Schedule) -> None:
        self.cycles += 1
        self.slow_cycles += schedule.slow
        self.responses += len(schedule.responses)
        self.tensors += sum(len(response.names) for response in schedule.responses)
        self.hits += schedule.hits_common

    def snapshot(self) -> dict[str, int]:
        return dict(vars(self))


def _to_stderr(text: str) -> None:
    print(f"coordsim: {text}", file=sys.stderr, flush=True)
