"""`pleura evaluate --ray` with workers that die, as by kill -9, of the second group of cases in hand, or wait there."""

import os
import signal
import sys
import time
from pathlib import Path

from pleura.cluster.connection import ClusterOptions
from pleura.cluster.evaluate import EvaluateWorker, Measure, evaluate_on_cluster
from pleura.evaluation.scoring import BATCH_SIZE

TIMES = 2


class Dying(EvaluateWorker):
    def do(self, work):
        if isinstance(work[0], Measure) and work[0].indices[0] == BATCH_SIZE:
            for number in range(TIMES):
                mark = Path(self.folder) / f"died-{number}"
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().do(work)


class Waiting(EvaluateWorker):
    """Begins to measure when it is told to."""

    def do(self, work):
        if isinstance(work[0], Measure):
            (Path(self.folder) / f"waits-{os.getpid()}").touch()
            while not (Path(self.folder) / "go").exists():
                time.sleep(0.05)
        return super().do(work)


if __name__ == "__main__":
    address, model, data, out, folder, kind = sys.argv[1:]
    os.chdir(folder)  # of the marks, in which workers begin
    evaluate_on_cluster(
        Path(model),
        Path(data),
        "all",
        None,
        50,
        Path(out),
        ClusterOptions(address),
        {"Dying": Dying, "Waiting": Waiting}[kind],
    )
