"""A client: answers tasks from its own rows, which never leave it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.model import Model, Stream, Training
from fedcore.config import Config
from fedcore.config.evaluate import is_due
from fedcore.data.federated import SiteData, train_rows, train_statistics
from fedcore.errors import AnsweredBefore, BadInput, Diverged, FedcoreError
from fedcore.local.dp_sgd import dp_sgd
from fedcore.local.kept import answered, keep, kept_before, note_answered
from fedcore.local.metrics import measure
from fedcore.local.personal import PERSONAL, measured
from fedcore.local.place import Place
from fedcore.local.sgd import algorithm, training
from fedcore.local.shares import shares_of
from fedcore.local.work import Work
from fedcore.privacy.leaves import SHARES, counts_stay, error_sent, facts_sent
from fedcore.rng import generator
from fedcore.transforms.client import client_chain
from fedcore.transforms.clip import norm
from fedcore.transforms.noise import add_gaussian, seeded_normal, system_normal
from fedcore.types import Json, Reply, Task, Vector


class Client:
    """One site of a federation: its folder of shards, and what it did with them.

    `keep` is where a fleet lets its clients keep what never leaves them; this one's part of it is
    the folder `kept`, None where the fleet keeps nothing. `place` is what it shares with the other
    clients of its process, None for a client that has a process to itself.
    """

    def __init__(
        self, name: str, sites: Path, config: Config, keep: Path | None = None, place: Place | None = None
    ) -> None:
        self.name, self._config, self._keep = name, config, keep
        self._place = place or Place(sites, config)

    @cached_property
    def kept(self) -> Path | None:
        """Where the client keeps what never leaves it; made when it is first needed."""
        return None if self._keep is None else self._keep / self.name

    def answer(self, task: Task, scores: NDArray[np.float32] | None = None) -> Reply:
        """The reply to `task`; what the site's data or settings make impossible is an error in the reply.

        `scores` are those of the task's model on this client's test rows, where they are known already.
        """
        answers: dict[str, Callable[[Task], Reply]] = {
            "describe": self._describe,
            "train": self._train,
            "evaluate": partial(self._evaluate, scores=scores),
        }
        return self.replied(task, lambda: answers[task.kind](task))

    def replied(self, task: Task, compute: Callable[[], Reply]) -> Reply:
        """What `compute` gives as it leaves the client; what a site makes impossible becomes an error in the reply."""
        start = time.monotonic()
        try:
            with np.errstate(all="ignore"):  # numbers that are not finite are found and named, not warned of
                reply = compute()
        except AnsweredBefore as error:
            return Reply(self.name, error=str(error))
        except Diverged as error:
            facts = facts_sent(task.kind, {"diverged": True}, self._config.privacy)
            why = error_sent(task.kind, self.name, f"{self.name}: {error}", self._config.privacy)
            return Reply(self.name, facts, error=why)
        except FedcoreError as error:
            return Reply(self.name, error=error_sent(task.kind, self.name, str(error), self._config.privacy))
        took = {"seconds": time.monotonic() - start, **reply.facts}
        facts = facts_sent(task.kind, took, self._config.privacy)
        return Reply(self.name, facts, reply.vector, None, task.round, task.model_sha256)

    def work(self, task: Task) -> Work:
        """What training for `task` starts from. Raises `BadData` for rows that cannot be used."""
        data, model = self._place.ready(self.name, task.features)
        size, correction = task.batch_sizes.get(self.name), task.corrections.get(self.name)
        return self._work(model, task, data, training(self._config.local, task.round, correction, size))

    def leaving(
        self, task: Task, update: Vector, facts: Mapping[str, float], rng: np.random.Generator
    ) -> Reply:
        """The update (d,) and its facts as the client's privacy lets them go.

        Raises `Diverged` for one that is not finite, unless noise of its own hides that.
        """
        finite = np.isfinite(update).all() and all(np.isfinite(value) for value in facts.values())
        if self._config.privacy.mode == "local":
            return Reply(self.name, {}, self._noised(update if finite else np.zeros_like(update), task))
        if not finite:
            raise Diverged("loss or update is not finite")
        chain = client_chain(self._config.privacy, task.clip)
        sent, _ = chain.apply(update, chain.init(), rng)
        if task.clip is not None:
            facts = {**facts, "unclipped": norm(update) <= task.clip}
        return Reply(self.name, facts, sent)

    def _describe(self, task: Task) -> Reply:
        data = self._config.data
        site = (
            self._place.sites / self.name,
            self._place.schema,
            self._config.seed,
            self.name,
            data.test_fraction,
        )
        if data.encoding == "schema":
            # read even where nobody hears of them: a site that cannot be used says so now
            rows = train_rows(*site)
            return Reply(self.name, {"rows": 1 if counts_stay(self._config) else rows})
        statistics = train_statistics(*site)
        return Reply(self.name, {"statistics": statistics.tree(), "rows": statistics.rows})

    def _train(self, task: Task) -> Reply:
        assert task.model is not None, "a train task carries a model"
        work = self.work(task)
        if self._config.privacy.mode == "record":
            return Reply(self.name, {}, self._kept_and_sent(self._privately(work, task), task)[0])
        update, facts = self._kept_and_sent(work, task)
        return self.leaving(task, update, facts, work.rng)

    def _work(self, model: Model, task: Task, data: SiteData, settings: Training) -> Work:
        """What the personal algorithm is given in this round."""
        assert task.model is not None, "a train or evaluate task carries a model"
        seed, before = self._config.seed, task.round + (task.kind == "evaluate")
        kept = {} if self.kept is None else kept_before(self.kept, before)
        rng = generator(seed, "train", task.round, self.name)
        own = generator(seed, "personal", task.kind, task.round, self.name)
        base = algorithm(self._config.local.algorithm)
        if settings.steps is not None:  # batches go on where those of the round before ended
            order = Stream(
                task.round * settings.steps, lambda epoch: generator(seed, "epoch", epoch, self.name)
            )
            settings = replace(settings, stream=order)
        return Work(model, task.model, kept, data, settings, self._config.personal, base, rng, own)

    def _kept_and_sent(self, work: Work, task: Task) -> tuple[Vector, Mapping[str, float]]:
        """The update and its facts, once the client has kept what is its own.

        An own model that is not finite is not kept: without privacy that is an error, with it nobody hears of it.
        """
        update, facts, kept = PERSONAL[self._config.personal.algorithm].train(work)
        if not np.isfinite(update).all() or not kept:
            return update, facts
        if all(np.isfinite(array).all() for array in kept.values()):
            assert self.kept is not None, "who opens a fleet refuses what its clients cannot keep"
            keep(self.kept, task.round, kept)
        elif self._config.privacy.mode == "none":
            raise Diverged("its own model is not finite", "lower personal.lr or local.lr")
        return update, facts

    def _noised(self, update: Vector, task: Task) -> Vector:
        """What leaves the client under local privacy: nothing else does, be it a loss or that training diverged."""
        privacy, rng = self._config.privacy, self._once(task)
        chain = client_chain(privacy, seeded=rng)
        return chain.apply(update, chain.init(), np.random.default_rng(0))[0]

    def _privately(self, work: Work, task: Task) -> Work:
        """The same work by DP-SGD, once a round; an update of zeros where it is not finite, which noise alone can cause."""
        privacy = self._config.privacy

        def private(start: Vector, settings: Training) -> Vector:
            update = dp_sgd(work.model, start, work.data, settings, privacy, self._once(task))
            return update if np.isfinite(update).all() else np.zeros_like(update)

        return replace(work, base=lambda *_: (private(work.start, work.settings), {}), private=private)

    def _once(self, task: Task) -> np.random.Generator | None:
        """What a simulation draws this release's noise with, None for the system's source.

        The noise of one release is drawn once: a second view of it would let the server average the
        noise away. That it is, is kept before it is: a client that is killed in between does not answer that
        round any more. Raises `AnsweredBefore` for a round of the run that was answered before, and so for any
        earlier one, whichever process answered it, if the client has a folder of its own.
        """
        run = task.run if task.kind == "train" else f"{task.run} {task.kind}"
        if self._config.privacy.noise == "seeded":
            return generator(self._config.seed, "noise", run, task.round, self.name)
        released = self._place.answered.setdefault(self.name, {})
        if self.kept is not None:
            released |= answered(self.kept)
        if released.get(run, -1) >= task.round:
            raise AnsweredBefore(
                f"client {self.name} answered round {task.round} of run {task.run} before; a second answer would "
                "show its answer under other noise, so ask it in the next round"
            )
        released[run] = task.round
        if self.kept is not None:
            note_answered(self.kept, released)
        return None

    def _refuse_undue(self, task: Task) -> None:
        """Raise `BadInput` for an evaluation that the plan, and so the account, does not know of."""
        every, rounds = self._config.evaluate.every, self._config.run.rounds
        if not (0 <= task.round < rounds and is_due(task.round + 1, every, rounds)):
            raise BadInput(
                f"{self.name} was asked to evaluate in round {task.round}, where by evaluate.every {every} and run.rounds "
                f"{rounds} no evaluation is due; nothing would pay for its answer"
            )

    def _evaluate(self, task: Task, scores: NDArray[np.float32] | None = None) -> Reply:
        privacy = self._config.privacy
        if privacy.mode != "none" and privacy.evaluation == "off":
            raise BadInput(f"{self.name} does not evaluate for others (privacy.evaluation: off)")
        data, model = self._place.ready(self.name, task.features)
        assert task.model is not None, "an evaluate task carries a model"
        limit = privacy.evaluation_clip if privacy.evaluation == "noised" else None
        if not len(data.y_test):
            facts: dict[str, Json] = {"rows": 0}
            return Reply(self.name, facts if limit is None else self._share(facts, task))
        scores = model.scores(task.model, data.x_test) if scores is None else scores
        judged = partial(measure, y=data.y_test, task=self._place.schema.task, limit=limit)
        facts = judged(scores)
        if measured(self._config):
            work = self._work(model, task, data, training(self._config.local, task.round))
            own = PERSONAL[self._config.personal.algorithm].own(work)
            facts["personal"] = judged(model.scores(own, data.x_test))
        return Reply(self.name, facts if limit is None else self._share(facts, task))

    def _share(self, facts: Mapping[str, Json], task: Task) -> dict[str, Json]:
        """What leaves of an evaluation under noise: bounded, and where the server is not to add the noise, noised."""
        privacy = self._config.privacy
        shares = shares_of(self._config, self._place.schema)
        part = shares.part(facts)
        if privacy.mode != "central":
            self._refuse_undue(task)
            rng = self._once(task)
            normal = system_normal if rng is None else seeded_normal(rng)
            part = add_gaussian(part, privacy.evaluation_noise * shares.norm, normal)
        return {SHARES: part.tolist()}
