"""A model of the client's own that is pulled to the model of all: Ditto, and mean-regularised multi-task learning."""

from dataclasses import replace

from fedcore.adapters.model import Training
from fedcore.local.work import Trained, Work
from fedcore.types import Vector


def ditto(work: Work) -> Trained:
    """The update is that of local training without Ditto; beside it the own model takes its steps.

    Li, Hu, Beirami, Smith 2021, arXiv:2012.04221, algorithm 1. With λ = 0 the own model is local
    training, with λ → ∞ the model of all.
    """
    update, facts = work.base(work.model, work.start, work.data, work.settings, work.rng)
    return Trained(update, facts, {"model": _pulled(work)[0]})


def mr_mtl(work: Work) -> Trained:
    """The own model is all there is: its distance from the mean is sent, so that the server's is the mean of all.

    Liu, Hu, Wu, Smith 2022, arXiv:2206.07902, algorithm 1; under record-level privacy the own model is
    DP-SGD's, each noisy step pulled, so that what is sent costs what any update of DP-SGD costs.
    """
    if work.private is not None:
        begin = own_model(work)
        private = begin + work.private(begin, pull(work))
        return Trained(private - work.start, {}, {"model": private})
    own, loss = _pulled(work)
    return Trained(own - work.start, {"loss": loss}, {"model": own})


def own_model(work: Work) -> Vector:
    """The own model as it was last trained; the model of all for a client that never took part."""
    return work.kept.get("model", work.start)


def _pulled(work: Work) -> tuple[Vector, float]:
    """The own model after this round, and its mean loss in the last epoch."""
    x, y, begin = work.data.x_train, work.data.y_train, own_model(work)
    trained, facts = work.model.train(begin, x, y, pull(work), work.own)
    return trained, facts["loss"]


def pull(work: Work) -> Training:
    """Settings under which each step is the proximal one, w ← (w + ηλ · mean - η · gradient) / (1 + ηλ).

    That is a plain step with λ(w - mean) in the gradient at the rate η / (1 + ηλ): it holds for any
    λ, where a step at η itself leaves the valley from ηλ = 2 on. Without momentum.
    """
    options, settings = work.options, work.settings
    lr = options.lr or settings.lr
    return replace(
        settings,
        lr=lr / (1 + lr * options.lam),
        momentum=0.0,
        epochs=options.epochs or settings.epochs,
        correction=None,
        proximal=options.lam,
        anchor=work.start,
    )
