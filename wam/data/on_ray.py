"""A Ray cluster to spread work over, for `tools/curate_cluster.py` and `tools/cache_cluster.py`."""

from __future__ import annotations

from wam.contracts import expected


def connect(address: str | None) -> None:
    """Join the cluster at an address such as auto, or start one on this machine for this process.

    Raises WamError if the package ray is missing or no cluster answers there.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise expected("the package ray", got=f"no {error.name}", do="pip install 'wam[ray]'") from error
    try:
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    except ConnectionError as error:
        raise expected(f"a Ray cluster at {address}", got=str(error).splitlines()[0], do="start it first") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
