"""A Ray Tune run of two trials, each of which fills a node: `python -m ray_probe FOLDER` in an allocation."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import ray
from ray import tune


def trial(config: dict) -> dict:
    return {"score": config["x"] ** 2, "host": ray.util.get_node_ip_address()}


def main() -> None:
    folder = Path(sys.argv[1])
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    cpus = ray.cluster_resources()["CPU"] / len(ray.nodes())
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": cpus}),
        param_space={"x": tune.grid_search([2, 3])},
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    )
    found = [result.metrics for result in tuner.fit()]
    answer = {
        "nodes": len(ray.nodes()),
        "gpus": ray.cluster_resources()["GPU"],
        "trials": [[one["score"], one["host"]] for one in found if one],
    }
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
