"""What a gradient costs beside its value: (value_and_grad - value) / value of three perceptrons, no optimizer.

The textbook promise is about the time of the forward pass; two matrix products a layer against one make 2. The first
layer needs one product only, its input having no gradient, and every call beyond its kernels costs the same, so small
networks may stay below.
"""

from __future__ import annotations

from functools import partial

from common import NETWORKS, Report, batch, cores, loss, parameters, parser

import fastgrad as fg
from fastgrad.bench.process import Local, compete

LIMIT = 2.5


def main() -> None:
    """Measure and print."""
    it = parser(__doc__, rounds=9)
    it.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(2, cores())}))
    options = it.parse_args()
    with Report("cost of a gradient", options, dtype="float32") as report:
        rows = []
        for network, (sizes, count) in NETWORKS.items():
            arguments = (parameters(sizes), *batch(sizes, count))
            contestants = {}
            for threads in options.threads:
                value, both = fg.jit(loss, threads=threads), fg.value_and_grad(loss, threads=threads)
                contestants[threads, "value"] = Local(partial(value, *arguments))
                contestants[threads, "both"] = Local(partial(both, *arguments))
                assert value(*arguments) == both(*arguments)[0]
            times = compete(contestants, options.rounds, options.seconds)
            for threads in options.threads:
                value, both = times[threads, "value"]["median"], times[threads, "both"]["median"]
                low, high = times[threads, "value"]["min"], times[threads, "both"]["min"]
                rows.append(
                    {
                        "network": network,
                        "threads": threads,
                        "value us": value,
                        "value_and_grad us": both,
                        "(both - value) / value": (both - value) / value,
                        "the same of the minima": (high - low) / low,
                    }
                )
        report.table("medians", rows)
        worst = max(row["(both - value) / value"] for row in rows)
        report.verdict("worst (value_and_grad - value) / value", worst, LIMIT)


if __name__ == "__main__":
    main()
