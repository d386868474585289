"""The firing rate of noisy neurons over their drive: a sweep that can be stopped and started again.

Run it, press Ctrl-C, run it again: every rate that was found is in the directory quickstart.data, and only
those that are missing are computed. The picture quickstart.png is drawn from the directory alone.

    python examples/quickstart.py
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from futurefarm import DataManager, run_tasks

TAU = 0.01  # time constant of the membrane, in seconds
SIGMA = 0.2  # how far the noise alone moves the membrane potential; the threshold is at 1


def find_rate(k, report):
    """Simulate 500 leaky neurons, tau dv/dt = k - v + noise; return their drive and mean rate in Hz."""
    neurons, seconds, dt = 500, 3.0, 1e-4
    rng = np.random.default_rng()  # in here, so that no two tasks share their noise
    kick = SIGMA * np.sqrt(2 * dt / TAU)
    v = rng.random(neurons)
    spikes = 0
    steps = round(seconds / dt)
    for step in range(steps):
        v += (k - v) * dt / TAU + kick * rng.standard_normal(neurons)
        spiking = v > 1
        v[spiking] -= 1  # not = 0: what a step overshoots by counts for the next spike
        spikes += np.count_nonzero(spiking)
        report(step / steps)  # moves the bar of this worker
    return float(k), spikes / neurons / seconds


def noiseless_rate(k):
    """Without noise, v climbs from 0 to 1 in the time tau ln(k / (k - 1))."""
    return 1 / (TAU * np.log(k / (k - 1)))


def draw(dataman, filename):
    k, rate = np.reshape(sorted(dataman.values()), (-1, 2)).T
    curve = np.geomspace(1 + 1e-6, 20, 500)

    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    theory = r"no noise: $1 / (\tau \, \ln(k / (k - 1)))$"
    axes.loglog(curve, noiseless_rate(curve), color="0.6", label=theory)
    axes.loglog(k, rate, "o", markersize=4, color="C3", label=f"{len(k)} simulations with noise")
    axes.set(xlabel="drive k", ylabel="firing rate (Hz)", ylim=(20, 3000))
    axes.set_xticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"])
    axes.set_xticks([], minor=True)
    axes.set_title("Noise lets neurons fire where the drive alone does not")
    axes.legend(frameon=False)
    figure.savefig(filename, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=40, help="number of simulations (default: 40)")
    points = parser.parse_args().points

    dataman = DataManager("quickstart")  # the directory quickstart.data
    summary = run_tasks(dataman, find_rate, np.linspace(1, 20, points), resume=True)
    print(summary)

    draw(dataman, "quickstart.png")
    print(f"{dataman.itemcount()} rates are in quickstart.data, and drawn in quickstart.png")
