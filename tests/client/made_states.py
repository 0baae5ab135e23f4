"""States as messages, with covariances whose components hang together."""

import numpy as np

LOWER = np.tril_indices(6)
KEYS = ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")


def state(x, P, **changes):
    return {
        "v": 1,
        "type": "state",
        "streamEpoch": "e",
        "seq": 5,
        "trackId": "a-000001",
        "epoch": "2026-03-01T12:00:00.250000Z",
        "referenceFrame": "GCRF",
        **dict(zip(KEYS, map(float, x), strict=True)),
        "cov": P[LOWER].tolist(),
        "covReferenceFrame": "GCRF",
        "status": "confirmed",
        "uct": True,
        "satNo": None,
        "idOnOrbit": "a-000001",
        "name": None,
        "objectProbability": None,
        "sensors": ["north"],
        "lastObEnd": "2026-02-28T23:59:59.999999Z",
        "nis": 3.754,
        "dof": 4,
        "updates": 3,
        "existence": 0.99999,
        "provenance": ["a"],
        "classificationMarking": "U",
        "dataMode": "TEST",
        "source": "s",
        "releasableTo": ["FRA"],
    } | changes


def orbit(seed, log_position_km=-2.0, log_velocity=-5.0, coupling=0.9):
    """A random state (km, km/s) and a covariance whose components are strongly correlated."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=6) * np.repeat([7e3, 7.0], 3)
    a = rng.normal(size=(6, 6)) * (1 - coupling) + coupling * rng.normal(size=(6, 1))
    sigma = np.repeat([10.0**log_position_km, 10.0**log_velocity], 3)
    P = (a @ a.T) * np.outer(sigma, sigma)
    return x, P
