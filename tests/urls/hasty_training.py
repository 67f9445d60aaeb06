"""`pleura train` whose leases are short, so that another machine need not wait long for one that is dead."""

from pleura.cli import main
from pleura.training.monitor import Monitor
from pleura.urls import lease

lease.RENEW_S, lease.LEASE_S = 0.5, 2.0
Monitor.draw_curves = lambda *_: None  # type: ignore[assignment]

if __name__ == "__main__":
    main()
