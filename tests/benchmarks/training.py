"""What the losses and the training step cost, beside pytorch-metric-learning and a bare loop.

    python tests/benchmarks/training.py --quick                 does everything work? half a minute
    python tests/benchmarks/training.py --json FILE --check     everything, and the targets
    python tests/benchmarks/training.py --device cuda --check   the same on a GPU

Needs ``pip install '.[bench]'``. All that is compared takes turns in one run, so that what else
the machine does weighs on all alike. Times are of one step each, forwards and backwards.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import cases_losses
import cases_step
import torch
from cases_losses import BITS, DIM, PEER, STEP, Workload
from report import Log, environment, say, table
from targets import Target, faster_than, share_of, verdicts_of
from timing import Budget

from patchknn.encoder.devices import choose_device

_PACKAGES = ("torch", "timm", "pytorch-metric-learning", "numpy")
_SHARES = {"cpu": 0.05, "cuda": 0.10}


def targets(device: str) -> list[Target]:
    """What is to be reached; on another device than the one at hand it does not count."""
    found = [
        Target(
            f"{loss} with its mining, share of a {STEP}, {where}",
            *("step share", where, share_of(STEP, ours=loss), bound, False, 90, None, BITS, ""),
            counts=where == device,
        )
        for where, bound in _SHARES.items()
        for loss in ("multitask", "deep-knn", "batch-hard", "semi-hard")
    ]
    found += [
        Target(
            f"{loss} against {PEER} {miner}, time, {where}",
            *("peers", where, share_of(f"{PEER} {miner}", ours=f"patchknn {loss}"), 1.0, False),
            *(288, None, DIM),
            counts=where == device,
        )
        for where in _SHARES
        for loss, miner in (
            ("batch-hard", "BatchHardMiner"),
            ("multitask", "TripletMarginMiner(semihard)"),
            ("deep-knn", "TripletMarginMiner(semihard)"),
        )
    ]
    value = faster_than(cases_step.BARE, ours=cases_step.OURS)
    found.append(
        Target(
            f"images a second, {cases_step.OURS} against {cases_step.BARE}, cuda",
            *("images a second", "cuda", value, 0.9, True, 2070, None, BITS),
            counts=device == "cuda",
        )
    )
    return found


def main() -> int:
    """Measure; 1 where a target of this device is missed under ``--check``."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    device = choose_device(asked.device)
    budget = Budget(2, 0.05) if asked.quick else Budget(asked.rounds, asked.seconds)
    work = Workload(Log(), device, budget)
    if asked.quick:
        work = replace(work, pixels=32, per_class=4, batches=3)
    versions = environment(asked.threads, _PACKAGES)
    if device.type == "cuda":
        versions += f", {torch.cuda.get_device_name(device)}"
    say(versions)
    cases_losses.shares(work)
    cases_losses.peers(work if asked.quick else replace(work, per_class=32))
    if device.type == "cuda" or asked.quick:
        cases_step.rates(work)
    if asked.json is not None:
        work.log.write(asked.json)
    say(f"\n{table(work.log.measurements)}\n\n{versions}")
    if asked.quick:
        return 0
    results = list(verdicts_of(work.log, targets(device.type)))
    say("\n" + "\n".join(str(verdict) for verdict in results))
    return 1 if asked.check and not all(verdict.met for verdict in results) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="does everything work? small")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="one object per measurement")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=9, help="of which the median counts")
    parser.add_argument("--seconds", type=float, default=0.3, help="about, per method and round")
    asked = parser.parse_args()
    if asked.quick and asked.check:
        parser.error("--quick is too small to check targets with")
    return asked


if __name__ == "__main__":
    sys.exit(main())
