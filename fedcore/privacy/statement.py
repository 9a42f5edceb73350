"""The guarantee in words: what is protected, from whom, how much, and what is not covered."""

from fedcore.config import Config


def statement(config: Config, clients: int, epsilon: float | None) -> str:
    """A paragraph for people, logged with the run and shown before promotion."""
    privacy = config.privacy
    if privacy.mode == "none":
        return (
            "No differential privacy: the server sees each client's update and sample count; "
            "raw rows stay with the client."
        )
    sampling = (
        f"Poisson sampling at rate {config.cohort.rate:g} by the server, cohort kept secret (amplification counted)"
        if config.cohort.sampling == "poisson"
        else "every client in every round (no amplification counted)"
    )
    spent = "not yet spent" if epsilon is None else f"{epsilon:.4f}"
    noise = (
        "noise from the operating system's source"
        if privacy.noise == "system"
        else "noise from a seed: a simulation that repeats, not a private release"
    )
    return (
        f"Client-level differential privacy, add-or-remove-one-client relation, over {clients} clients. "
        f"Each update is clipped to L2 norm {privacy.clip:g}, equal weights; Gaussian noise of standard deviation "
        f"{privacy.noise_multiplier:g} × the clip is added to the sum and the sum divided by the expected cohort; "
        f"{sampling}; {noise}. Accountant: privacy loss distributions (dp-accounting). "
        f"ε = {spent} at δ = {privacy.delta:g}, budget ε = {privacy.epsilon:g}. "
        "Trusted: the server, which sees single updates. Not covered: feature statistics, sample counts and "
        "evaluation metrics that clients report, and which clients are enrolled."
    )
