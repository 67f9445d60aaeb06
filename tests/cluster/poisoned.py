"""`pleura predict --ray` with workers that die, as by kill -9, of any radiograph whose file is named `poison`."""

import os
import signal
import sys
from pathlib import Path

from pleura.cluster.connection import ClusterOptions
from pleura.cluster.predict import PredictWorker, predict_on_cluster
from pleura.inference.batch import model_name
from pleura.inference.part import BatchSettings


class Poisoned(PredictWorker):
    def do(self, part):
        if any("poison" in case.path.name for case in part):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().do(part)


if __name__ == "__main__":
    address, folder, out = sys.argv[1:]
    settings = BatchSettings((folder,), Path(out), model_name(Path("default")), batch_size=2)
    done = predict_on_cluster(Path("default"), None, settings, ClusterOptions(address), Poisoned)
    sys.stdout.write("\n".join(f"{file}: {reason}" for file, reason in done.problems))
