"""The firing rate of neurons over their drive, in Brian 2: twenty random drives, resumed by count.

Stop the sweep by Ctrl-C whenever you like: the next run goes on until there are twenty rates in the directory
taskfarmexample.data. The picture firing_rate.png is drawn from that directory alone.

    pip install "futurefarm[brian2,plot]"
    python examples/firing_rate.py
"""

import argparse
from functools import partial

import matplotlib.pyplot as plt
import numpy as np

from futurefarm import DataManager, run_tasks

TAU = 0.01  # time constant of the membrane, in seconds
DT = 0.0001  # Brian's time step, in seconds


def find_rate(k, seconds, report):
    """Simulate 1000 neurons with the drive k, and return k and their mean rate in Hz."""
    import brian2 as b2  # in here: it takes seconds to import, and only the workers need it

    group = b2.NeuronGroup(
        1000,
        "dV/dt = (k - V) / tau : 1",
        threshold="V > 1",
        reset="V = 0",
        method="exact",
        namespace={"k": k, "tau": TAU * b2.second},
        dt=DT * b2.second,
    )
    monitor = b2.SpikeMonitor(group, record=False)
    # Brian's magic network would also gather what earlier tasks have left in this worker.
    net = b2.Network(group, monitor)
    # Brian calls `report`, which moves the bar of this worker; by default only every ten seconds.
    net.run(seconds * b2.second, report=report, report_period=0.5 * b2.second)
    # Plain numbers can be stored, Brian's own objects cannot.
    return float(k), float(np.mean(monitor.count[:]) / seconds)


def interval(k):
    """The time in which V climbs from 0 to 1."""
    return TAU * np.log(k / (k - 1))


def draw(dataman, filename):
    k, rate = np.reshape(sorted(dataman.values()), (-1, 2)).T
    curve = np.linspace(1.001, 20, 5000)
    on_grid = DT * np.ceil(interval(curve) / DT)  # a neuron can only spike at the end of a time step

    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    axes.plot(curve, 1 / interval(curve), color="0.6", label=r"theory: $1 / (\tau \, \ln(k / (k - 1)))$")
    axes.plot(curve, 1 / on_grid, color="C0", lw=1, label="theory, in time steps of 0.1 ms")
    axes.plot(k, rate, "o", markersize=5, color="C3", label=f"{len(k)} simulations")
    axes.set(xlabel="drive k", ylabel="firing rate (Hz)", xlim=(0, 20.5), ylim=(0, None))
    axes.set_title("In time steps, the rate of identical neurons climbs a staircase")
    axes.set_xticks([0, 5, 10, 15, 20])
    axes.legend(frameon=False)
    figure.savefig(filename, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=20, help="number of simulations (default: 20)")
    parser.add_argument("--seconds", type=float, default=30.0, help="simulated time of each (default: 30)")
    options = parser.parse_args()

    N = options.points
    dataman = DataManager("taskfarmexample")  # the directory taskfarmexample.data
    if dataman.itemcount() < N:  # random drives are as good as each other, so only their number counts
        task = partial(find_rate, seconds=options.seconds)
        print(run_tasks(dataman, task, np.random.rand(N - dataman.itemcount()) * 19 + 1))

    draw(dataman, "firing_rate.png")
    print(f"{dataman.itemcount()} rates are in taskfarmexample.data, and drawn in firing_rate.png")
